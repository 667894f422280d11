//! Records: the disk is always a superset of the truth (section 7; `dlm/src/master/persist.rs`).

use super::Step;
use super::catalogue::Left;
use super::state::*;

impl Step<'_> {
    pub(super) fn is_busy(&self, slot: u8) -> bool {
        let reign = self.master().reign;
        self.state.writes.iter().any(|write| write.slot == slot && write.reign == reign)
    }

    pub(super) fn slot(&mut self, slot: u8) -> &mut Slot {
        &mut self.master_mut().slots[usize::from(slot)]
    }

    fn first_slot(&self, wanted: impl Fn(&Slot) -> bool) -> Option<u8> {
        (0..self.world.bounds.slots).find(|slot| wanted(&self.master().slots[usize::from(*slot)]))
    }

    /// Finds a slot for a lock that has none: the one whose record still stands, or a free one.
    pub(super) fn place(&mut self, id: Id) -> bool {
        let stands = |slot: &Slot| matches!(slot.owner, Owner::Standing(old, true) if old.session == id.session);
        let clearing =
            |slot: &Slot| slot.owner == Owner::Clearing && slot.durable.is_some_and(|durable| durable.granted);
        let (slot, reused) = if let Some(slot) = self.first_slot(stands) {
            (Some(slot), true)
        } else if self.without(Left::ReuseBeforeClear)
            && let Some(slot) = self.first_slot(clearing)
        {
            (Some(slot), true)
        } else {
            let free = self.first_slot(|slot| slot.owner == Owner::Free);
            (free.or_else(|| self.evict_standing()), false)
        };
        let Some(slot) = slot else { return false };
        self.slot(slot).owner = Owner::Lock(id);
        self.lock_mut(id).expect("a lock to be placed").slot = Some(slot);
        if reused {
            self.write_later(slot);
        }
        true
    }

    /// In a full table: the slot of a released lock whose record only stands.
    fn evict_standing(&mut self) -> Option<u8> {
        let slot = (0..self.world.bounds.slots).find(|slot| {
            matches!(self.master().slots[usize::from(*slot)].owner, Owner::Standing(_, true)) && !self.is_busy(*slot)
        })?;
        *self.slot(slot) = Slot { owner: Owner::Clearing, durable: None, ..*self.slot(slot) };
        Some(slot)
    }

    /// Brings a lock's owner and record up to date: tells what the disk allows, writes what it lacks.
    pub(super) fn settle(&mut self, id: Id) {
        let Some(&lock) = self.lock(id) else { return };
        let Some(slot) = lock.slot else { return };
        let Settling::Grant(duty) = lock.settling else {
            if lock.wanted.is_some() {
                self.write_now(slot)
            } else {
                self.write_later(slot)
            }
            return;
        };
        let Some(mode) = lock.granted else { return };
        let reign = self.master().reign;
        let must_be_granted = lock.persistent && !self.without(Left::PersistentGrantedRecord);
        let ready = self.slot(slot).durable.is_some_and(|durable| {
            let carried = match duty {
                Duty::Written(n) => durable.value >= (reign, n) || self.without(Left::ValueInRecord),
                Duty::None | Duty::Read => true,
            };
            carried && durable.covers(mode, must_be_granted)
        });
        if !ready && !self.without(Left::RecordBeforeGrant) {
            return self.write_now(slot);
        }
        let value = self.master().value.filter(|_| duty != Duty::None);
        self.lock_mut(id).expect("still there").settling = Settling::Nothing;
        self.send(lock.node, Down::Granted { id, mode, token: lock.token, value, read: duty == Duty::Read });
        self.write_later(slot);
    }

    /// The records of all holders carry the value; they are brought up to date behind.
    pub(super) fn refresh_values(&mut self) {
        let slots: Vec<u8> =
            self.master().locks.iter().filter(|lock| lock.granted.is_some()).filter_map(|lock| lock.slot).collect();
        slots.into_iter().for_each(|slot| self.write_later(slot));
    }

    /// An unlock changed the value: acknowledges it once a lock that stays carries it, if one stays.
    pub(super) fn acknowledge_value(&mut self, node: u8, id: Id) {
        self.refresh_values();
        let locks = &self.master().locks;
        let settled = locks.iter().filter(|lock| lock.settling == Settling::Nothing);
        let stays = settled.filter_map(|lock| lock.slot.map(|slot| (lock.granted.is_none(), slot))).min();
        let stays = stays.or_else(|| locks.iter().filter_map(|lock| lock.slot.map(|slot| (true, slot))).min());
        match stays.filter(|_| !self.without(Left::ValueInRecord)) {
            Some((_, slot)) => {
                let value = self.master().value.map_or((0, 0), Value::sequence);
                self.master_mut().waits.push(Wait { slot, value, node, id });
                self.master_mut().waits.sort();
                self.write_now(slot);
            }
            None => self.send(node, Down::Unlocked { id }),
        }
    }

    pub(super) fn record_of(&self, lock: &Lock) -> Record {
        let both = !self.without(Left::BothModes) || lock.granted.is_none();
        Record {
            id: lock.id,
            node: lock.node,
            incarnation: lock.incarnation,
            // Without the rule, a converting record says only what is wanted.
            granted: if both || lock.wanted.is_none() { lock.granted } else { lock.wanted },
            wanted: lock.wanted.filter(|_| both),
            stamp: self.master().reign,
            position: lock.position,
            token: lock.token,
            persistent: lock.persistent,
            value: self.master().value,
        }
    }

    /// Writes a slot as its owner stands, if the disk says something else.
    pub(super) fn write_now(&mut self, slot: u8) {
        if self.is_busy(slot) && !self.without(Left::OneWriteAtATime) {
            self.slot(slot).dirty = true;
            return;
        }
        match self.slot(slot).owner {
            Owner::Lock(id) => {
                let Some(&lock) = self.lock(id) else { return };
                if let Settling::Release { .. } = lock.settling {
                    return self.issue(slot, None, Some(id));
                }
                let record = self.record_of(&lock);
                if self.slot(slot).mirror != Some(record) {
                    self.issue(slot, Some(record), Some(id));
                }
            }
            Owner::Clearing => self.issue(slot, None, None),
            Owner::Free | Owner::Standing(..) => {}
        }
    }

    fn issue(&mut self, slot: u8, image: Option<Record>, lock: Option<Id>) {
        let reign = self.master().reign;
        let meet = !self.without(Left::WhatBothSay);
        let reuse = self.without(Left::ReuseBeforeClear);
        let entry = self.slot(slot);
        entry.mirror = image;
        match image {
            Some(record) if meet => {
                entry.durable = entry.durable.map(|old| old.meet(Durable::of(&record)));
            }
            None if !reuse => entry.durable = None,
            _ => {}
        }
        self.state.writes.push(Write { reign, slot, image, lock, late: false });
        self.state.writes.sort();
    }

    /// Looks at a slot again later.
    pub(super) fn write_later(&mut self, slot: u8) {
        let nothing_to_do = match self.slot(slot).owner {
            Owner::Lock(id) => {
                let record = self.lock(id).copied().map(|lock| self.record_of(&lock));
                !self.is_busy(slot) && self.slot(slot).mirror == record
            }
            Owner::Free => true,
            Owner::Standing(..) | Owner::Clearing => false,
        };
        self.slot(slot).behind = !nothing_to_do;
    }

    /// `clear_behind_ms` is over: clears what was released, brings up to date what changed.
    pub(super) fn write_behind(&mut self, slot: u8) {
        self.slot(slot).behind = false;
        if let Owner::Standing(..) = self.slot(slot).owner {
            self.slot(slot).owner = Owner::Clearing;
        }
        self.write_now(slot);
    }

    /// A lock left the table: its record stands for a while.
    pub(super) fn released(&mut self, lock: &Lock) {
        let Some(slot) = lock.slot else { return };
        if lock.granted.is_some() && !lock.persistent {
            for other in &mut self.master_mut().slots {
                if let Owner::Standing(old, reusable) = &mut other.owner {
                    *reusable &= old.session != lock.id.session;
                }
            }
            self.slot(slot).owner = Owner::Standing(lock.id, true);
        } else {
            self.slot(slot).owner = Owner::Clearing;
        }
        self.write_later(slot);
    }

    /// A record write of this master ended well.
    pub(super) fn record_written(&mut self, write: Write) {
        let slot = write.slot;
        self.slot(slot).durable = write.image.map(|record| Durable::of(&record));
        if let Owner::Lock(id) = self.slot(slot).owner
            && write.lock.is_some_and(|written| written.session != id.session)
            && !self.without(Left::AdoptionIsWritten)
        {
            // It was adopted while the record of its former owner was being written.
            self.slot(slot).durable = None;
        }
        if write.image.is_none() {
            self.cleared(slot, write.lock);
        }
        self.values_written(slot);
        if let Owner::Lock(id) = self.slot(slot).owner
            && self.lock(id).is_some_and(|lock| matches!(lock.settling, Settling::Grant(_)))
        {
            self.settle(id);
        }
        if std::mem::take(&mut self.slot(slot).dirty) {
            self.write_now(slot);
        }
        self.advance_purges();
        self.run_effects();
    }

    fn cleared(&mut self, slot: u8, cleared: Option<Id>) {
        match self.slot(slot).owner {
            Owner::Clearing => self.slot(slot).owner = Owner::Free,
            Owner::Lock(id) if cleared == Some(id) => {
                let Some(&Lock { settling: Settling::Release { answer }, node, .. }) = self.lock(id) else { return };
                self.slot(slot).owner = Owner::Free;
                self.lock_mut(id).expect("still there").slot = None;
                self.unlock_in_table(id, None);
                if answer {
                    self.send(node, Down::Unlocked { id });
                }
            }
            _ => {}
        }
    }

    /// Acknowledges the unlocks whose value this slot carries now.
    fn values_written(&mut self, slot: u8) {
        let carried = self.slot(slot).durable.map(|durable| durable.value);
        let waits = std::mem::take(&mut self.master_mut().waits);
        let (done, open): (Vec<Wait>, Vec<Wait>) =
            waits.into_iter().partition(|wait| wait.slot == slot && carried.is_none_or(|value| value >= wait.value));
        self.master_mut().waits = open;
        for wait in done {
            self.send(wait.node, Down::Unlocked { id: wait.id });
        }
    }
}
