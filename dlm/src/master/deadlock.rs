//! Deadlocks: found by the table when they close, broken here (section 7).

use super::*;
use crate::planted::{Bug, planted};
use crate::table::{Cancelled, Payload};

impl Payload for Holder {
    fn transaction(&self) -> u64 {
        self.transaction
    }
}

impl Master {
    /// Refuses the youngest waiting request of one cycle that recent changes may have closed: the one with the latest
    /// place in the queues, which are in the order of the requests over the whole lockspace and survive a failover.
    /// A conversion keeps its old mode, or NL if it was demoted. False: there is no cycle.
    pub(super) fn break_deadlock(&mut self, now: Now) -> bool {
        let Some(cycle) = self.table.next_cycle() else { return false };
        let place = |lock: &LockId| (self.table.get(*lock).map(|view| view.position), *lock);
        let victim = cycle.iter().copied().max_by_key(place).expect("a cycle has locks");
        self.log(Event::DeadlockBroken { victim, requests: cycle.len() as u64 });
        self.refuse_waiting(now, victim, Denial::Deadlock);
        true
    }

    /// Ends a request or conversion that waits.
    pub(super) fn refuse_waiting(&mut self, now: Now, lock: LockId, why: Denial) {
        let Some(view) = self.table.get(lock) else { return };
        let (node, op, demoted) = (view.payload.node, view.payload.op, view.demoted);
        match self.table.cancel(lock, &mut self.effects) {
            Ok(Cancelled::Removed(removed)) => {
                self.released(now, lock, &removed, false);
                self.deny(node, lock, op, why);
            }
            Ok(Cancelled::Reverted { .. }) => {
                let demoted = demoted && !planted(Bug::DemotionNotTold);
                let denied = if demoted { OutcomeResult::DeniedDemoted } else { OutcomeResult::Denied };
                self.outcome(node, lock, op, denied(why));
                self.settle(now, lock);
            }
            // The grant came first and is on its way, or will be when its record is written.
            Ok(Cancelled::NotWaiting) | Err(_) => {}
        }
    }
}
