//! Telling a new master what this node holds: one step, after which nothing of the old master counts (section 6).

use super::*;
use crate::limits::REPORT_PART_LOCKS;
use mxlock_proto::peer::{NewLock, Pending as WirePending, Report, ReportedLock};

impl Member {
    /// Nobody has been reported to: there is no master, or this node is not a member.
    pub(crate) fn forget_master(&mut self) {
        self.reported = None;
        self.to_master.clear();
        self.taken_back.clear();
        for claim in self.claims.values_mut() {
            claim.asked = false;
        }
    }

    /// The reign that this node has reported to.
    pub(crate) fn reported(&self) -> Option<Epoch> {
        self.reported
    }

    /// Reports to the master of `reign` and sends everything that waits again.
    pub(crate) fn report(&mut self, reign: Epoch) {
        self.forget_master();
        self.reported = Some(reign);
        let mut ids: Vec<LockId> = self.locks.keys().copied().collect();
        ids.sort();
        ids.iter().for_each(|&id| self.count_as_demoted(id));
        let mut again: Vec<(u64, LockId)> = Vec::new();
        let mut locks = Vec::new();
        for &id in &ids {
            let lock = &self.locks[&id];
            if let Some(unlocking) = &lock.unlocking {
                again.push((unlocking.order, id));
            }
            let placed = lock.pending.as_ref().is_some_and(|pending| pending.position.is_some());
            if let Some(pending) = &lock.pending
                && (!placed || pending.cancelled.is_some())
            {
                again.push((pending.order, id));
            }
            // What no master was asked for is news to this one.
            let asked = lock.pending.as_ref().filter(|pending| pending.sent);
            if lock.granted.is_none() && asked.is_none() {
                continue;
            }
            locks.push(ReportedLock {
                lock: id,
                resource: lock.resource.clone(),
                range: lock.range,
                granted: lock.granted,
                pending: asked.map(|pending| WirePending {
                    op: pending.op,
                    wanted: pending.wanted,
                    flags: pending.flags,
                    position: pending.position.unwrap_or(0),
                }),
                token: lock.token,
                granted_at_ms: lock.granted_at_ms,
                process: self.sessions[&id.session].process,
                transaction: lock.transaction,
                persistent: lock.persistent,
                presence: self.presence_of(id),
                orphan_lifetime_ms: lock.orphan_lifetime_ms,
                lvb: lock.lvb.as_deref().cloned(),
                adopted: lock.adopts,
                releasing: lock.unlocking.as_ref().is_some_and(|unlocking| unlocking.sent),
            });
        }
        let mut sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        let mut locks = locks.into_iter();
        loop {
            let part: Vec<ReportedLock> = locks.by_ref().take(REPORT_PART_LOCKS).collect();
            let rest = sessions.split_off(sessions.len().min(REPORT_PART_LOCKS * 4));
            let part_sessions = std::mem::replace(&mut sessions, rest);
            let last = locks.len() == 0 && sessions.is_empty();
            self.to_master.push_back(PeerMessage::Report(Report {
                epoch: reign,
                sessions: part_sessions,
                locks: part,
                last,
            }));
            if last {
                break;
            }
        }
        again.sort();
        for (_, id) in again {
            self.send_again(id);
        }
        self.ask_claims();
    }

    fn send_again(&mut self, id: LockId) {
        let lock = &self.locks[&id];
        if let Some(pending) = &lock.pending {
            let (op, placed, cancelled) = (pending.op, pending.position.is_some(), pending.cancelled.is_some());
            if !placed {
                let kind = if lock.forsaken.is_some() {
                    OperationKind::Disown
                } else if lock.granted.is_some() {
                    OperationKind::Convert { mode: pending.wanted, flags: pending.flags, lvb: pending.lvb.clone() }
                } else if lock.adopts {
                    OperationKind::Adopt(Box::new(self.new_lock(id)))
                } else {
                    OperationKind::Lock(Box::new(self.new_lock(id)))
                };
                self.send_operation(id, op, kind);
            }
            if cancelled {
                self.send_operation(id, op, OperationKind::Cancel);
            }
        }
        if let Some(unlocking) = &self.locks[&id].unlocking {
            let kind = OperationKind::Unlock {
                lvb: unlocking.lvb.clone(),
                invalidate_lvb: unlocking.invalidate_lvb,
                answer: true,
            };
            self.send_operation(id, UNLOCK_OP, kind);
        }
    }

    /// The master's description of a new lock that waits.
    pub(super) fn new_lock(&self, id: LockId) -> NewLock {
        let lock = &self.locks[&id];
        let pending = lock.pending.as_ref().expect("a lock that waits");
        NewLock {
            resource: lock.resource.clone(),
            mode: pending.wanted,
            flags: pending.flags,
            range: lock.range,
            process: self.sessions[&id.session].process,
            transaction: lock.transaction,
            orphan_lifetime_ms: lock.orphan_lifetime_ms,
        }
    }
}
