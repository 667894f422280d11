//! Locks that leave because their owners cannot be asked any more (sections 5 and 7).

use super::*;
use crate::planted::{Bug, planted};
use crate::slots::Owner;
use crate::table::{LvbUpdate, Standing};

/// Locks on their way out, in the order of section 5: first the values that they may have been changing are marked in
/// the records that stay, then their own records are cleared, then they leave memory and waiters are granted.
#[derive(Clone)]
pub(super) struct Purge {
    pub(super) locks: Vec<LockId>,
    /// Slots that must have been written before the records are cleared.
    pub(super) marking: BTreeSet<u32>,
    /// Slots that must have been cleared before the locks leave.
    pub(super) clearing: Option<BTreeSet<u32>>,
    event: Option<Event>,
}

impl Master {
    /// A node was excluded: its PERSISTENT granted locks become orphans, all others are released.
    pub(crate) fn purge_node(&mut self, now: Now, node: NodeId) {
        self.stop_awaiting(node, None);
        self.reported.remove(&node);
        self.damage_heard(now, node, false);
        let mut leaving = Vec::new();
        let mut staying = Vec::new();
        for view in self.table.locks().filter(|view| view.payload.node == node) {
            let settled = view.granted.is_some() && !matches!(view.payload.settling, Settling::Release { .. });
            if view.payload.persistent && settled { staying.push(view.lock) } else { leaving.push(view.lock) }
        }
        staying.sort();
        for lock in staying {
            self.orphan(now, lock);
        }
        let event = Event::Purged { node, locks: leaving.len() as u64 };
        self.purge(now, leaving, Some(event));
    }

    /// Releases locks whose owners cannot be asked.
    pub(super) fn purge(&mut self, now: Now, mut locks: Vec<LockId>, event: Option<Event>) {
        locks.sort();
        // On their way out they still block, and are granted nothing.
        for &lock in &locks {
            if let Some(holder) = self.table.payload_mut(lock) {
                holder.settling = Settling::Nothing;
                let _ = self.table.set_standing(lock, Standing::Possible, &mut self.effects);
            }
        }
        let mut marking = BTreeSet::new();
        for &lock in &locks {
            let Some(view) = self.table.get(lock) else { continue };
            let wrote = Self::may_write_value(view.granted) || Self::may_write_value(view.wanted);
            let resource = view.resource.clone();
            if !wrote || self.table.lvb(&resource).is_none() || planted(Bug::DeadNodesValueStands) {
                continue;
            }
            self.table.update_value(&resource, LvbUpdate::Invalidate);
            let stays = |id: &LockId| locks.binary_search(id).is_err();
            let slots: Vec<u32> = self
                .table
                .locks_on(&resource)
                .filter(|view| stays(&view.lock) && view.payload.slot != NO_SLOT)
                .map(|view| view.payload.slot)
                .collect();
            for slot in slots {
                self.write_now(slot);
                marking.insert(slot);
            }
        }
        self.purges.push(Purge { locks, marking, clearing: None, event });
        self.advance_purges(now);
    }

    pub(super) fn advance_purges(&mut self, now: Now) {
        for mut purge in std::mem::take(&mut self.purges) {
            purge.marking.retain(|slot| self.slots.is_busy(*slot));
            if !purge.marking.is_empty() {
                self.purges.push(purge);
                continue;
            }
            let first = purge.clearing.is_none();
            let clearing = purge.clearing.get_or_insert_default();
            if first {
                for &lock in &purge.locks {
                    let Some(view) = self.table.get(lock) else { continue };
                    let slot = view.payload.slot;
                    if slot == NO_SLOT || self.slots.owner(slot) != Owner::Lock(lock) {
                        continue;
                    }
                    self.slots.set_owner(slot, Owner::Clearing);
                    self.table.payload_mut(lock).expect("still there").slot = NO_SLOT;
                    self.write_now(slot);
                    clearing.insert(slot);
                }
            }
            clearing.retain(|slot| self.slots.owner(*slot) == Owner::Clearing);
            if !clearing.is_empty() {
                self.purges.push(purge);
                continue;
            }
            for lock in purge.locks {
                let _ = self.table.unlock(lock, LvbUpdate::Keep, &mut self.effects);
            }
            if let Some(event) = purge.event {
                self.log(event);
            }
            self.run_effects(now);
        }
    }

    /// Whether a lock is on its way out.
    pub(super) fn is_leaving(&self, lock: LockId) -> bool {
        self.purges.iter().any(|purge| purge.locks.contains(&lock))
    }

    /// The owner of a lock that was on its way out has spoken of it: it stays. Its record may have been cleared.
    pub(super) fn spare(&mut self, now: Now, lock: LockId) {
        if !self.is_leaving(lock) || planted(Bug::NothingSpared) {
            return;
        }
        self.purges.iter_mut().for_each(|purge| purge.locks.retain(|leaving| *leaving != lock));
        if self.table.get(lock).is_some_and(|view| view.payload.slot == NO_SLOT) {
            self.place(now, lock);
        }
    }
}
