//! Clients' requests. Each ends in exactly one answer (I7); one that is sent again gets the same answer again.

use super::*;
use crate::limits::{DETACHED_LIFETIME_MS, MAX_LOCKS_PER_SESSION, MAX_ORPHAN_LIFETIME_MS, MAX_TIMEOUT_MS};
use crate::planted::{Bug, planted};
use mxlock_format::MAX_LVB_BYTES;
use mxlock_proto::client::{AdoptRequest, ConvertRequest, LockRequest, UnlockRequest};

impl Member {
    /// Why a new operation is refused at the moment.
    fn refusal(&self, now: Now) -> Option<Denial> {
        self.refusing.or_else(|| {
            let lost = self.reported.is_some() && self.lease_until.is_none_or(|until| until <= now.boot);
            lost.then_some(Denial::LeaseLost)
        })
    }

    /// What the client of a request that it may send again was told about it.
    fn refused_before(&self, id: LockId) -> Option<Denial> {
        self.taken_back.get(&id).copied().or_else(|| self.locks.get(&id)?.forsaken)
    }

    fn deny(&mut self, id: LockId, op: u32, why: Denial) {
        self.answer(id, op, Answer::Denied(why));
    }

    pub(crate) fn lock(&mut self, now: Now, session: SessionId, request: LockRequest) {
        let id = LockId { session, seq: request.seq };
        if let Some(why) = self.refused_before(id) {
            return self.deny(id, 0, why);
        }
        if let Some(lock) = self.locks.get(&id) {
            // Sent again after a reconnect: the first one's answer may have been lost.
            if lock.granted.is_some() && lock.pending.as_ref().is_none_or(|pending| pending.op > 0) {
                self.answer_granted(id, 0);
            } else {
                self.wait_no_longer(now, id, request.timeout_ms);
            }
            return;
        }
        let conversions_only = [LockFlags::CONVDEADLK, LockFlags::TRANSIENT, LockFlags::IVVALBLK];
        if request.seq == u64::MAX
            || request.flags.unknown() != 0
            || conversions_only.iter().any(|flag| request.flags.contains(*flag))
        {
            return self.deny(id, 0, Denial::Invalid);
        }
        if let Some(why) = self.refusal(now) {
            return self.deny(id, 0, why);
        }
        let session_locks = &self.sessions[&session].locks;
        if session_locks.len() >= MAX_LOCKS_PER_SESSION {
            return self.deny(id, 0, Denial::Limit);
        }
        let (flags, deadline) = wait_limit(now, request.flags, request.timeout_ms);
        let order = self.take_order();
        let pending = Pending::new(0, request.mode, flags, order, deadline);
        let lock = OwnedLock {
            resource: request.resource,
            range: request.range,
            granted: None,
            token: Token::default(),
            granted_at_ms: 0,
            transaction: request.transaction,
            orphan_lifetime_ms: if self.sessions[&session].detached {
                DETACHED_LIFETIME_MS
            } else {
                request.orphan_lifetime_ms.unwrap_or(0).min(MAX_ORPHAN_LIFETIME_MS)
            },
            persistent: flags.contains(LockFlags::PERSISTENT),
            last_op: 0,
            demoted: false,
            denied: None,
            pending: Some(Box::new(pending)),
            unlocking: None,
            adopts: false,
            forsaken: None,
            untold: false,
            read: true,
            lvb: None,
        };
        self.insert(id, lock);
        let new = self.new_lock(id);
        self.send_operation(id, 0, OperationKind::Lock(Box::new(new)));
    }

    /// A request that came back from its record waits for ever, until its client says again how long.
    fn wait_no_longer(&mut self, now: Now, id: LockId, timeout_ms: Option<u64>) {
        let (_, deadline) = wait_limit(now, LockFlags::NONE, timeout_ms);
        let pending = self.locks.get_mut(&id).and_then(|lock| lock.pending.as_mut());
        if let (Some(pending), Some(at)) = (pending.filter(|pending| pending.deadline.is_none()), deadline) {
            pending.deadline = Some(at);
            self.timeouts.insert((at, id));
        }
    }

    fn insert(&mut self, id: LockId, lock: OwnedLock) {
        if let Some(deadline) = lock.pending.as_ref().and_then(|pending| pending.deadline) {
            self.timeouts.insert((deadline, id));
        }
        self.sessions.get_mut(&id.session).expect("an open session").locks.insert(id.seq);
        self.locks.insert(id, Box::new(lock));
    }

    /// Takes over an orphan.
    pub(crate) fn adopt(&mut self, now: Now, session: SessionId, request: AdoptRequest) {
        let id = LockId { session, seq: request.seq };
        if let Some(why) = self.refused_before(id) {
            return self.deny(id, 0, why);
        }
        if let Some(lock) = self.locks.get(&id) {
            // Sent again after a reconnect, as in `lock`.
            if lock.granted.is_some() && lock.pending.as_ref().is_none_or(|pending| pending.op > 0) {
                self.answer_granted(id, 0);
            }
            return;
        }
        if let Some(why) = self.refusal(now) {
            return self.deny(id, 0, why);
        }
        let persistent = if request.persistent { LockFlags::PERSISTENT } else { LockFlags::NONE };
        let flags = LockFlags::NOQUEUE | persistent;
        let order = self.take_order();
        let pending = Pending::new(0, request.mode, flags, order, None);
        let lock = OwnedLock {
            resource: request.resource.clone(),
            range: request.range,
            granted: None,
            token: Token::default(),
            granted_at_ms: 0,
            transaction: 0,
            orphan_lifetime_ms: 0,
            persistent: request.persistent,
            last_op: 0,
            demoted: false,
            denied: None,
            pending: Some(Box::new(pending)),
            unlocking: None,
            adopts: true,
            forsaken: None,
            untold: false,
            read: true,
            lvb: None,
        };
        self.insert(id, lock);
        let new = self.new_lock(id);
        self.send_operation(id, 0, OperationKind::Adopt(Box::new(new)));
    }

    pub(crate) fn convert(&mut self, now: Now, session: SessionId, request: ConvertRequest) {
        let ConvertRequest { seq, op, mode, flags, timeout_ms, lvb } = request;
        let id = LockId { session, seq };
        let Some(lock) = self.locks.get(&id).filter(|lock| lock.forsaken.is_none()) else {
            return self.deny(id, op, Denial::NotFound);
        };
        if let Some(pending) = &lock.pending {
            if pending.op != op {
                self.deny(id, op, Denial::InProgress);
            }
            return;
        }
        let Some(held) = lock.granted.filter(|_| lock.unlocking.is_none()) else {
            return self.deny(id, op, Denial::InProgress);
        };
        if op == lock.last_op
            && let Some(why) = lock.denied
        {
            // Its client must not take a later denial for one that leaves it the old mode.
            return self.answer(id, op, Answer::DeniedDemoted(why));
        }
        if op == lock.last_op && held == mode {
            return self.answer_granted(id, op);
        }
        let bad_lvb = lvb.as_ref().is_some_and(|bytes| bytes.is_empty() || bytes.len() > MAX_LVB_BYTES);
        if op == 0
            || op == UNLOCK_OP
            || bad_lvb
            || flags.unknown() != 0
            || flags.contains(LockFlags::PERSISTENT | LockFlags::TRANSIENT)
        {
            return self.deny(id, op, Denial::Invalid);
        }
        if let Some(why) = self.refusal(now) {
            return self.deny(id, op, why);
        }
        let (flags, deadline) = wait_limit(now, flags, timeout_ms);
        let order = self.take_order();
        let pending = Pending { lvb: lvb.clone(), ..Pending::new(op, mode, flags, order, deadline) };
        self.locks.get_mut(&id).expect("looked up").pending = Some(Box::new(pending));
        if let Some(deadline) = deadline {
            self.timeouts.insert((deadline, id));
        }
        self.send_operation(id, op, OperationKind::Convert { mode, flags, lvb });
    }

    pub(crate) fn unlock(&mut self, session: SessionId, request: UnlockRequest) {
        let UnlockRequest { seq, lvb, invalidate_lvb } = request;
        let id = LockId { session, seq };
        let Some(lock) = self.locks.get(&id).filter(|lock| lock.forsaken.is_none()) else {
            // Released before, and the answer was lost: it is the same answer again.
            return self.answer(id, UNLOCK_OP, Answer::Unlocked);
        };
        if lock.granted.is_none() && self.may_have_adopted(id) {
            self.answer(id, 0, Answer::Denied(Denial::Cancelled));
            self.answer(id, UNLOCK_OP, Answer::Unlocked);
            return self.forsake(id, Denial::Cancelled);
        }
        if lock.unlocking.is_some() {
            return;
        }
        if lvb.as_ref().is_some_and(|bytes| bytes.is_empty() || bytes.len() > MAX_LVB_BYTES) {
            return self.deny(id, UNLOCK_OP, Denial::Invalid);
        }
        // Also one that was claimed in NL: that its value is lost must be on disk before its client hears that the lock is
        // released (I9).
        let writes_lvb = lvb.is_some() || invalidate_lvb;
        let waits = lock.granted.is_some() && (writes_lvb || lock.persistent || self.clear_before_ack);
        let asked_only = lock.granted.is_none();
        // A grant that was not told, because the lease was lost, is one that the client gives up unseen (I7).
        let untold = std::mem::take(&mut self.locks.get_mut(&id).expect("looked up").untold);
        let untold = untold.then(|| self.locks[&id].last_op);
        let pending = self.take_pending(id);
        let may_be_demoted = pending.as_ref().is_some_and(|pending| pending.may_demote(self.locks[&id].granted));
        if let Some(op) = pending.map(|pending| pending.op).or(untold) {
            self.answer(id, op, Answer::Denied(Denial::Cancelled));
        }
        let kind = OperationKind::Unlock { lvb: lvb.clone(), invalidate_lvb, answer: waits };
        if waits {
            let order = self.take_order();
            let lock = self.locks.get_mut(&id).expect("looked up");
            // What may be somebody else's already is not reported as held.
            lock.unlocking = Some(Box::new(Unlocking { lvb, invalidate_lvb, order, sent: may_be_demoted }));
        } else {
            self.remove(id);
            self.answer(id, UNLOCK_OP, Answer::Unlocked);
        }
        if asked_only {
            return self.unlock_behind(id, Denial::Cancelled);
        }
        self.send_operation(id, UNLOCK_OP, kind);
    }

    /// Takes a request back that this daemon has forgotten: the master may be granting it. Its client was told `why`; if it
    /// has not heard that and asks again, it is told again: under the same name a grant of the old request would pass
    /// for one of the new.
    pub(super) fn unlock_behind(&mut self, id: LockId, why: Denial) {
        if self.reported.is_some() {
            if !planted(Bug::TakenBackForgotten) {
                self.taken_back.insert(id, why);
            }
            let kind = OperationKind::Unlock { lvb: None, invalidate_lvb: false, answer: true };
            self.send_operation(id, UNLOCK_OP, kind);
        }
    }

    /// `mxlock unlock`: ends the locks on a resource that sessions opened for `pid` hold; whether there was one.
    pub(crate) fn unlock_for(&mut self, caller: Process, pid: u32, resource: &Resource) -> bool {
        let mut ids: Vec<LockId> = self
            .locks
            .iter()
            .filter(|(id, lock)| {
                let session = &self.sessions[&id.session];
                session.process.pid == pid
                    && (session.process.uid == caller.uid || caller.uid == 0)
                    && lock.resource == *resource
                    && lock.forsaken.is_none()
            })
            .map(|(id, _)| *id)
            .collect();
        ids.sort();
        for id in &ids {
            self.unlock(id.session, UnlockRequest { seq: id.seq, lvb: None, invalidate_lvb: false });
            let session = &self.sessions[&id.session];
            if session.locks.is_empty() && session.conn.is_none() {
                self.end_session(id.session);
            }
        }
        !ids.is_empty()
    }

    pub(crate) fn cancel(&mut self, session: SessionId, seq: u64) {
        self.end_waiting(LockId { session, seq }, Denial::Cancelled);
    }

    pub(super) fn time_out(&mut self, id: LockId) {
        self.end_waiting(id, Denial::TimedOut);
    }

    fn end_waiting(&mut self, id: LockId, why: Denial) {
        let adopted = self.may_have_adopted(id);
        let Some(lock) = self.locks.get_mut(&id).filter(|lock| lock.forsaken.is_none()) else { return };
        let new = lock.granted.is_none();
        let held = lock.granted;
        let Some(pending) = &mut lock.pending else { return };
        let op = pending.op;
        // An old master may have carried out what gives a mode up: then the old one is somebody else's.
        let only_up = held.is_some_and(|held| pending.wanted.covers(held));
        if new && adopted {
            self.answer(id, op, Answer::Denied(why));
            self.forsake(id, why);
        } else if new {
            // A grant that is under way finds no lock here any more, and the unlock behind it takes it back.
            self.remove(id);
            self.answer(id, op, Answer::Denied(why));
            self.unlock_behind(id, why);
        } else if self.reported.is_some() || !only_up {
            // Only the master knows whether the grant came first.
            pending.cancelled = Some(why);
            self.send_operation(id, op, OperationKind::Cancel);
            if planted(Bug::AnsweredTwice) {
                self.answer(id, op, Answer::Denied(why));
            }
        } else {
            self.count_as_demoted(id);
            self.deny_conversion(id, why, false);
        }
    }

    /// The driver found the lease over when it was about to send a grant, and sent a denial instead.
    pub(crate) fn undelivered(&mut self, id: LockId, op: u32) {
        if self.locks.get(&id).is_none_or(|lock| lock.unlocking.is_some()) {
            // Its client has asked for the end meanwhile, and waits for that answer (I7).
            return;
        }
        if op == 0 && self.may_have_adopted(id) {
            return self.forsake(id, Denial::LeaseLost);
        }
        self.remove(id);
        if op > 0 {
            // The client believes in its old mode again, which may have been given to somebody else.
            self.tell(id.session, Response::Lost { seq: id.seq, reason: LossReason::Expired });
        }
        if op == 0 {
            return self.unlock_behind(id, Denial::LeaseLost);
        }
        let kind = OperationKind::Unlock { lvb: None, invalidate_lvb: true, answer: false };
        self.send_operation(id, UNLOCK_OP, kind);
    }

    /// Every request that waits is denied: no master can be reached, or the daemon goes down.
    pub(crate) fn deny_waiting(&mut self, why: Denial) {
        let mut ids: Vec<LockId> =
            self.locks.iter().filter(|(_, lock)| lock.granted.is_none()).map(|(id, _)| *id).collect();
        ids.sort();
        for id in ids {
            self.end_waiting(id, why);
        }
    }
}

/// A wait of zero is NOQUEUE; one beyond ten years has no end.
fn wait_limit(now: Now, flags: LockFlags, timeout_ms: Option<u64>) -> (LockFlags, Option<BootTime>) {
    match timeout_ms {
        Some(0) => (flags | LockFlags::NOQUEUE, None),
        Some(ms) if ms <= MAX_TIMEOUT_MS => (flags, Some(now.boot + Duration::from_millis(ms))),
        _ => (flags, None),
    }
}
