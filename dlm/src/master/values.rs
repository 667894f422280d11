//! Values: carried by the records of all who hold a resource, and acknowledged once one that stays has them (section 7; I9).

use super::*;
use crate::planted::{Bug, planted};
use mxlock_format::LvbSequence;

/// What a grant has to do with its resource's value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum ValueDuty {
    None,
    /// The owner is told the value.
    Read,
    /// The conversion wrote it, as number n of this reign: the lock's own record must carry it before the owner is told.
    Written(u64),
}

/// An unlock that is acknowledged once its value is in a record of a lock that stays.
#[derive(Clone, Copy, Hash, Debug)]
pub(super) struct LvbWait {
    pub(super) sequence: LvbSequence,
    pub(super) node: NodeId,
    pub(super) lock: LockId,
    pub(super) op: u32,
}

impl Master {
    /// The records of all holders on a resource carry its value; it is brought up to date behind.
    pub(super) fn refresh_values(&mut self, now: Now, resource: &Resource) {
        let slots: Vec<u32> = self
            .table
            .locks_on(resource)
            .filter(|view| view.granted.is_some())
            .map(|view| view.payload.slot)
            .filter(|slot| *slot != NO_SLOT)
            .collect();
        slots.into_iter().for_each(|slot| self.write_later(now, slot));
    }

    /// Sequence of the value that the records of a resource carry.
    pub(super) fn value_sequence(&self, resource: &Resource) -> LvbSequence {
        self.table.lvb(resource).map(|lvb| lvb.sequence).unwrap_or_default()
    }

    /// An unlock changed the resource's value: acknowledges it once a lock that stays carries it, if one stays.
    pub(super) fn acknowledge_value(&mut self, now: Now, resource: &Resource, node: NodeId, lock: LockId, op: u32) {
        let sequence = self.value_sequence(resource);
        self.refresh_values(now, resource);
        let stays = self
            .table
            .locks_on(resource)
            .filter(|view| view.payload.slot != NO_SLOT && view.payload.settling == Settling::Nothing)
            .map(|view| (view.granted.is_none(), view.payload.slot))
            .min();
        let stays = stays.or_else(|| {
            let any = self.table.locks_on(resource).map(|view| view.payload.slot);
            any.filter(|slot| *slot != NO_SLOT).map(|slot| (true, slot)).min()
        });
        let carried = |slot: u32| self.durable[slot as usize].is_some_and(|durable| durable.lvb >= sequence);
        match stays {
            Some((_, slot)) if carried(slot) => self.outcome(node, lock, op, OutcomeResult::Unlocked),
            Some(_) if planted(Bug::ValueAckedEarly) => self.outcome(node, lock, op, OutcomeResult::Unlocked),
            Some((_, slot)) => {
                self.lvb_waits.entry(slot).or_default().push(LvbWait { sequence, node, lock, op });
                self.write_now(slot);
            }
            None => self.outcome(node, lock, op, OutcomeResult::Unlocked),
        }
    }

    /// An acknowledged value must not go with the one record that carries it, where a lock stays whose record is only brought up
    /// to date behind. Whether such a one is being written.
    pub(super) fn passes_value_on(&mut self, lock: LockId) -> bool {
        let Some(view) = self.table.get(lock) else { return false };
        let sequence = self.value_sequence(view.resource);
        let carries = |slot: u32| self.durable[slot as usize].is_some_and(|durable| durable.lvb >= sequence);
        if sequence == LvbSequence::default() || !carries(view.payload.slot) {
            return false;
        }
        let stay: Vec<u32> = self
            .table
            .locks_on(view.resource)
            .filter(|other| other.lock != lock && other.granted.is_some() && other.payload.slot != NO_SLOT)
            .filter(|other| other.payload.settling == Settling::Nothing)
            .map(|other| other.payload.slot)
            .collect();
        let Some(&heir) = stay.first().filter(|_| !stay.iter().any(|slot| carries(*slot))) else { return false };
        self.write_now(heir);
        self.slots.is_busy(heir)
    }

    /// Acknowledges the unlocks whose value this slot carries now.
    pub(super) fn values_written(&mut self, slot: u32) {
        let Some(waits) = self.lvb_waits.remove(&slot) else { return };
        let carried = self.durable[slot as usize].map(|durable| durable.lvb);
        let (done, open): (Vec<LvbWait>, Vec<LvbWait>) =
            waits.into_iter().partition(|wait| carried.is_none_or(|lvb| lvb >= wait.sequence));
        if !open.is_empty() {
            self.lvb_waits.insert(slot, open);
        }
        for wait in done {
            if wait.op == crate::member::UNLOCK_OP {
                self.outcome(wait.node, wait.lock, wait.op, OutcomeResult::Unlocked);
            }
        }
    }
}
