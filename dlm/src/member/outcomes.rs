//! What the master says.

use super::*;
use mxlock_proto::peer::{Outcome, OutcomeResult};

impl Member {
    pub(crate) fn outcome(&mut self, outcome: Outcome) {
        let Outcome { lock: id, op, result } = outcome;
        let Some(lock) = self.locks.get_mut(&id) else {
            // Timed out or released meanwhile, and the unlock is on its way behind the request.
            let granted = matches!(result, OutcomeResult::Granted { .. });
            if op == UNLOCK_OP {
                self.taken_back.remove(&id);
            } else if granted && !self.taken_back.contains_key(&id) {
                // Or it was answered otherwise before, by word of an earlier incarnation: nobody here has it.
                let kind = OperationKind::Unlock { lvb: None, invalidate_lvb: false, answer: false };
                self.send_operation(id, UNLOCK_OP, kind);
            }
            return;
        };
        match result {
            OutcomeResult::Unlocked => {
                if lock.unlocking.is_some() {
                    self.remove(id);
                    self.answer(id, UNLOCK_OP, Answer::Unlocked);
                    self.forget_if_done(id.session);
                }
            }
            OutcomeResult::Granted { mode, token, granted_at_ms, demoted, lvb } => {
                if lock.pending.as_ref().is_none_or(|pending| pending.op != op) {
                    return;
                }
                lock.granted = Some(mode);
                lock.token = token;
                lock.granted_at_ms = granted_at_ms;
                lock.last_op = op;
                if let Some(pending) = &lock.pending {
                    lock.persistent = pending.flags.persistence().unwrap_or(lock.persistent);
                }
                lock.read = lvb.is_some();
                if lvb.is_some() {
                    lock.lvb = lvb.map(Box::new);
                }
                lock.demoted = demoted || lock.pending.as_ref().is_some_and(|pending| pending.demoted);
                lock.denied = None;
                self.take_pending(id);
                self.answer_granted(id, op);
            }
            OutcomeResult::Denied(why) => self.denied(id, op, why, false),
            OutcomeResult::DeniedDemoted(why) => self.denied(id, op, why, true),
        }
    }

    /// The master denies what waits, and with `demoted` has given away what the lock held before.
    fn denied(&mut self, id: LockId, op: u32, why: Denial, demoted: bool) {
        let lock = &self.locks[&id];
        let Some(pending) = lock.pending.as_ref().filter(|pending| pending.op == op) else { return };
        let (new, why) = (lock.granted.is_none(), pending.cancelled.unwrap_or(why));
        if new {
            let forsaken = lock.forsaken.is_some();
            self.remove(id);
            if !forsaken {
                self.answer(id, op, Answer::Denied(why));
            }
            self.forget_if_done(id.session);
        } else {
            self.deny_conversion(id, why, demoted);
        }
    }

    pub(crate) fn queued(&mut self, id: LockId, op: u32, place: u64) {
        if let Some(pending) = self.locks.get_mut(&id).and_then(|lock| lock.pending.as_mut())
            && pending.op == op
        {
            pending.position = Some(place);
        }
    }

    pub(crate) fn bast(&mut self, id: LockId, wanted: Mode) {
        if self.locks.contains_key(&id) {
            self.tell(id.session, Response::Bast { seq: id.seq, wanted });
        }
    }

    /// The master ended a lock without its owner's doing.
    pub(crate) fn lost(&mut self, id: LockId, reason: LossReason) {
        let Some(lock) = self.remove(id) else { return };
        if lock.forsaken.is_some() {
            return self.forget_if_done(id.session);
        }
        let untold = lock.untold.then_some(lock.last_op);
        if let Some(op) = lock.pending.map(|pending| pending.op).or(untold) {
            self.answer(id, op, Answer::Denied(Denial::SessionOver));
        }
        if lock.unlocking.is_some() {
            self.answer(id, UNLOCK_OP, Answer::Unlocked);
        } else if lock.granted.is_some() {
            self.tell(id.session, Response::Lost { seq: id.seq, reason });
        }
        self.forget_if_done(id.session);
    }

    /// A session whose process is gone ends with its last lock; so does one that was opened for another process.
    fn forget_if_done(&mut self, id: SessionId) {
        if self
            .sessions
            .get(&id)
            .is_some_and(|s| s.locks.is_empty() && s.conn.is_none() && (s.gone || s.detached || s.deadline.is_some()))
        {
            self.end_session(id);
        }
    }
}
