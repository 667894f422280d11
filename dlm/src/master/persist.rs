//! Records: the disk is always a superset of the truth (section 7, "Persistence").

use super::*;
use crate::io::IoFault;
use crate::planted::{Bug, planted};
use crate::slots::{Owner, boxed};
use crate::table::{LvbUpdate, Phase, Standing};
use mxlock_format::{LockRecord, LockState, LvbSequence, RECORD_BYTES, SectorImage};

/// What the last completed write of a slot says: what a promise may rest on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Durable {
    mode: Mode,
    wanted: Mode,
    granted: bool,
    /// Whether it outlives its owner, where that is certain.
    persistent: Option<bool>,
    /// Which value of its resource the record carries.
    pub(super) lvb: LvbSequence,
}

impl Durable {
    /// Whether a record like this names the lock "with at least that mode as granted or wanted". A PERSISTENT lock needs one
    /// that says so and is granted; one that is not needs one that does not say so, or its death would leave an orphan.
    fn covers(&self, mode: Mode, persistent: bool) -> bool {
        let named = (self.mode.covers(mode) && self.granted)
            || ((!persistent || planted(Bug::PersistentOnWaiting)) && self.wanted.covers(mode));
        named && self.persistent == Some(persistent)
    }

    /// What is certain while a write is under way: either record may be the one on disk.
    fn meet(self, other: Durable) -> Durable {
        let weaker = |a: Mode, b: Mode| match (a.covers(b), b.covers(a)) {
            (true, _) => b,
            (_, true) => a,
            // PR and CW permit no more than CR in common.
            _ => Mode::CR,
        };
        Durable {
            mode: weaker(self.mode, other.mode),
            wanted: weaker(self.wanted, other.wanted),
            granted: self.granted && other.granted,
            persistent: self.persistent.filter(|_| self.persistent == other.persistent),
            lvb: self.lvb.min(other.lvb),
        }
    }
}

/// What a lock's owner has not been told yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Settling {
    #[default]
    Nothing,
    /// Granted, but no record says so yet.
    Grant { demoted: bool, value: ValueDuty },
    /// A lock whose record is cleared before it is released; with `wrote`, its release changed the value.
    Release { answer: bool, wrote: bool },
}

/// A write under way.
#[derive(Clone, Copy, Hash, Debug)]
pub(super) struct WriteInfo {
    durable: Option<Durable>,
    lock: Option<LockId>,
}

impl Master {
    /// Finds a slot for a lock that has none: the one whose record still stands, or a free one (section 3).
    pub(super) fn place(&mut self, now: Now, lock: LockId) -> bool {
        let view = self.table.get(lock).expect("a lock to be placed");
        let key = (lock.session, view.resource.clone(), view.range);
        let slot = if let Some(slot) = self.standing.remove(&key) {
            self.standing_keys.remove(&slot);
            self.counters.standing_reuses += 1;
            // At rest the record must say what memory says (I10): look at it again behind.
            self.write_later(now, slot);
            slot
        } else {
            let home = key.1.home_slot(self.slot_count);
            let Some(slot) = self.slots.place(home).or_else(|| self.evict_standing()) else { return false };
            slot
        };
        self.slots.set_owner(slot, Owner::Lock(lock));
        self.table.payload_mut(lock).expect("still there").slot = slot;
        true
    }

    /// Brings a lock's owner and record up to date: tells what the disk allows, writes what it lacks.
    pub(super) fn settle(&mut self, now: Now, lock: LockId) {
        let Some(view) = self.table.get(lock) else { return };
        let (slot, persistent) = (view.payload.slot, view.payload.persistent);
        let Settling::Grant { demoted, value } = view.payload.settling else {
            if slot != NO_SLOT {
                match view.phase() {
                    // Written while it waits, so that the grant need not.
                    Phase::Waiting | Phase::Converting => self.write_now(slot),
                    Phase::Granted => self.write_later(now, slot),
                }
            }
            return;
        };
        let (Some(mode), true) = (view.granted, slot != NO_SLOT) else { return };
        let ready = self.durable[slot as usize].is_some_and(|durable| {
            let carried = match value {
                ValueDuty::Written(n) => durable.lvb >= LvbSequence { epoch: self.reign, n },
                ValueDuty::None | ValueDuty::Read => true,
            };
            carried && durable.covers(mode, persistent)
        });
        if !ready && !planted(Bug::AckBeforeRecord) {
            return self.write_now(slot);
        }
        let (node, op) = (view.payload.node, view.payload.op);
        // Its daemon has lost its memory since, and would give it back.
        let restarted = self.reported.get(&node) != Some(&view.payload.incarnation);
        let forgotten = view.standing == Standing::Possible || view.payload.gone && restarted;
        let result = OutcomeResult::Granted {
            mode,
            token: view.payload.token,
            granted_at_ms: view.payload.since_ms,
            demoted,
            lvb: self.table.lvb(view.resource).filter(|_| value != ValueDuty::None).cloned(),
        };
        let holder = self.table.payload_mut(lock).expect("still there");
        holder.settling = Settling::Nothing;
        let hushed = std::mem::take(&mut holder.hushed);
        // Not before the record names the new owner: until then the old one speaks for it.
        self.tell_adopted(lock);
        if !forgotten {
            self.outcome(node, lock, op, result);
        }
        self.write_later(now, slot);
        if hushed {
            let _ = self.table.rebast(lock, &mut self.effects);
        }
    }

    /// Whether the record in `slot`, as it is on disk, may leave an orphan.
    pub(super) fn may_say_persistent(&self, slot: u32) -> bool {
        let durable = self.durable.get(slot as usize).copied().flatten();
        durable.is_some_and(|durable| durable.persistent != Some(false))
    }

    /// What a lock's record says when it is written now.
    pub(super) fn record_of(&self, view: &LockView<'_, Holder>) -> LockRecord {
        let holder = view.payload;
        let mode = view.granted.unwrap_or(Mode::NL);
        LockRecord {
            resource: view.resource.clone(),
            owner: holder.node,
            owner_incarnation: holder.incarnation,
            mode,
            wanted: view.wanted.unwrap_or(mode),
            state: match view.phase() {
                Phase::Granted => LockState::Granted,
                Phase::Converting => LockState::Converting,
                Phase::Waiting => LockState::Waiting,
            },
            granted_at_ms: holder.since_ms,
            epoch: if view.granted.is_some() { holder.token.table_epoch() } else { self.reign },
            lock: view.lock,
            token: holder.token,
            table_epoch: match view.granted {
                Some(_) if planted(Bug::StampNotRenewed) => holder.token.table_epoch(),
                _ => self.reign,
            },
            queue_position: view.position,
            persistent: holder.persistent,
            orphan: view.standing == Standing::Orphan,
            process: holder.process,
            transaction: holder.transaction,
            range: Self::range_of(view),
            orphan_lifetime_ms: holder.orphan_lifetime_ms,
            lvb: self.table.lvb(view.resource).cloned(),
        }
    }

    pub(super) fn durable_of(record: &LockRecord) -> Durable {
        Durable {
            mode: record.mode,
            wanted: record.wanted,
            granted: record.state != LockState::Waiting,
            persistent: Some(record.persistent),
            lvb: record.lvb.as_ref().map(|lvb| lvb.sequence).unwrap_or_default(),
        }
    }

    /// Writes a slot as its owner stands, if the disk says something else.
    pub(super) fn write_now(&mut self, slot: u32) {
        if self.slots.is_busy(slot) && !planted(Bug::ClearOvertakesGrant) {
            return self.slots.mark_dirty(slot);
        }
        match self.slots.owner(slot) {
            Owner::Lock(lock) => {
                let Some(view) = self.table.get(lock) else { return };
                if let Settling::Release { .. } = view.payload.settling {
                    if self.passes_value_on(lock) {
                        self.passing.insert(slot);
                        return;
                    }
                    return self.clear(slot, Some(lock));
                }
                let mut record = self.record_of(&view);
                let durable = Self::durable_of(&record);
                if planted(Bug::WantedNotRecorded) && view.phase() == Phase::Converting {
                    (record.wanted, record.state) = (record.mode, LockState::Granted);
                }
                let image = record.encode();
                if image.0 == *self.mirror.image(slot) {
                    return;
                }
                self.issue(slot, Some(boxed(image)), Some(durable), Some(lock));
            }
            Owner::Clearing => self.clear(slot, None),
            Owner::Free | Owner::Standing(_) | Owner::Damaged => {}
        }
    }

    fn clear(&mut self, slot: u32, lock: Option<LockId>) {
        self.issue(slot, None, None, lock);
    }

    /// Writes a slot again as the mirror has it (section 6.6).
    pub(super) fn rewrite(&mut self, slot: u32, image: SectorImage) {
        if image.is_zero() {
            return self.clear(slot, None);
        }
        let lock = match self.slots.owner(slot) {
            Owner::Lock(lock) => Some(lock),
            _ => None,
        };
        self.issue(slot, Some(boxed(image)), self.durable[slot as usize], lock);
    }

    fn issue(&mut self, slot: u32, image: Option<Box<SectorImage>>, durable: Option<Durable>, lock: Option<LockId>) {
        // Without a lease nothing is written; this master is about to end (section 5).
        let Some(deadline) = self.lease_until else { return };
        let deadline = if planted(Bug::WriteAfterLease) { BootTime(u64::MAX) } else { deadline };
        let io = self.take_io();
        self.slots.started(slot, io);
        match &image {
            Some(image) => {
                self.counters.records_written += 1;
                self.mirror.set(slot, &image.0);
                let now = &mut self.durable[slot as usize];
                if !planted(Bug::InFlightRecordTrusted) {
                    *now = now.zip(durable).map(|(old, new)| old.meet(new));
                }
            }
            None => {
                self.counters.records_cleared += 1;
                self.mirror.set(slot, &[0; RECORD_BYTES]);
                // Nothing rests on a record that is about to go.
                if !planted(Bug::StandingReusedLate) {
                    self.durable[slot as usize] = None;
                }
            }
        }
        self.writes.insert(io, WriteInfo { durable, lock });
        self.out.push_back(Output::WriteRecord { io, slot, image, deadline });
    }

    /// Looks at a slot again after `clear_behind_ms`.
    pub(super) fn write_later(&mut self, now: Now, slot: u32) {
        let due = now.boot + self.clear_behind;
        if self.slots.enter_behind(slot) {
            self.behind.insert((due, slot));
        } else if matches!(self.slots.owner(slot), Owner::Standing(_)) {
            // Released again: the record may stand for the whole time once more.
            self.behind_due.insert(slot, due);
        }
    }

    /// Clears what was released and brings up to date what changed, in one batch.
    pub(super) fn write_behind(&mut self, now: Now) {
        while let Some(&(due, slot)) = self.behind.first() {
            if due > now.boot {
                break;
            }
            self.behind.pop_first();
            if let Some(later) = self.behind_due.remove(&slot).filter(|later| *later > now.boot)
                && matches!(self.slots.owner(slot), Owner::Standing(_))
            {
                self.behind.insert((later, slot));
                continue;
            }
            self.slots.leave_behind(slot);
            if let Owner::Standing(_) = self.slots.owner(slot) {
                if planted(Bug::RecordNotCleared) {
                    continue;
                }
                self.give_up_standing(slot);
            }
            self.write_now(slot);
        }
    }

    /// In a full table: the slot of a released lock whose record only stands. The new record is written over it.
    fn evict_standing(&mut self) -> Option<u32> {
        let idle = |slot: &u32| !self.slots.is_busy(*slot);
        let slot = self.standing_keys.keys().copied().filter(idle).min()?;
        self.give_up_standing(slot);
        self.durable[slot as usize] = None;
        Some(slot)
    }

    /// The record of a slot may not be reused any more.
    fn give_up_standing(&mut self, slot: u32) {
        if !planted(Bug::StandingReusedLate)
            && let Some(key) = self.standing_keys.remove(&slot)
        {
            self.standing.remove(&key);
        }
        self.slots.set_owner(slot, Owner::Clearing);
    }

    /// A lock left the table: its record stands for a while, or is cleared at once.
    pub(super) fn released(&mut self, now: Now, lock: LockId, removed: &crate::table::Removed<Holder>, at_once: bool) {
        self.counters.releases += 1;
        let slot = removed.payload.slot;
        if slot == NO_SLOT {
            return;
        }
        let reusable = !at_once && removed.granted.is_some() && !removed.payload.persistent;
        if reusable {
            self.slots.set_owner(slot, Owner::Standing(lock));
            let key = (lock.session, removed.resource.clone(), removed.range);
            if let Some(older) = self.standing.insert(key.clone(), slot) {
                self.standing_keys.remove(&older);
            }
            self.standing_keys.insert(slot, key);
            self.write_later(now, slot);
        } else {
            self.slots.set_owner(slot, Owner::Clearing);
            if at_once { self.write_now(slot) } else { self.write_later(now, slot) }
        }
    }

    /// A record write ended.
    pub(super) fn record_written(&mut self, now: Now, io: IoId, result: Result<(), IoFault>) {
        let Some(info) = self.writes.remove(&io) else { return };
        let Some((slot, dirty)) = self.slots.ended(io) else { return };
        if let Err(fault) = result
            && !planted(Bug::WriteErrorIgnored)
        {
            return self.write_failed(slot, info, fault);
        }
        // Adopted while its former owner's record was being written: that record names nobody who holds it. Nor does that of an
        // earlier adoption by the same session, which its client took back.
        let adopted = match (self.slots.owner(slot), info.lock) {
            (Owner::Lock(owner), Some(written)) => {
                owner.session != written.session || owner != written && self.adoptions.contains_key(&owner)
            }
            _ => false,
        };
        self.durable[slot as usize] = info.durable.filter(|_| !adopted);
        if info.durable.is_none() {
            self.cleared(now, slot, info);
        }
        if self.draining {
            return;
        }
        self.values_written(slot);
        for slot in std::mem::take(&mut self.passing) {
            self.write_now(slot);
        }
        if let Owner::Lock(lock) = self.slots.owner(slot)
            && self.saved.remove(&lock)
        {
            self.forgive_damage();
        }
        if let Owner::Lock(lock) = self.slots.owner(slot)
            && self.table.get(lock).is_some_and(|view| matches!(view.payload.settling, Settling::Grant { .. }))
        {
            self.settle(now, lock);
        }
        if dirty {
            self.write_now(slot);
        }
        self.handle_deferred(now);
    }

    fn cleared(&mut self, now: Now, slot: u32, info: WriteInfo) {
        match self.slots.owner(slot) {
            Owner::Clearing => self.slots.set_owner(slot, Owner::Free),
            Owner::Lock(lock) if info.lock == Some(lock) => {
                let Some(view) = self.table.get(lock) else { return };
                let Settling::Release { answer, wrote } = view.payload.settling else { return };
                let (node, resource) = (view.payload.node, view.resource.clone());
                self.slots.set_owner(slot, Owner::Free);
                self.table.payload_mut(lock).expect("still there").slot = NO_SLOT;
                if self.table.unlock(lock, LvbUpdate::Keep, &mut self.effects).is_ok() {
                    self.counters.releases += 1;
                }
                let op = crate::member::UNLOCK_OP;
                match answer && !self.draining {
                    true if wrote => self.acknowledge_value(now, &resource, node, lock, op),
                    true => self.outcome(node, lock, op, OutcomeResult::Unlocked),
                    false => {}
                }
            }
            _ => {}
        }
    }

    /// The requester gets the error, nothing is granted, and the master resigns (section 7).
    fn write_failed(&mut self, slot: u32, info: WriteInfo, fault: IoFault) {
        if fault != IoFault::Expired {
            self.log(Event::WriteFailed { slot, fault: fault.to_string() });
        }
        let settling = info.lock.and_then(|lock| self.table.get(lock));
        // A conversion may have given a mode up, which others have got since: its owner must not believe in it again. It is
        // asked for again at the next master.
        let refusable = |view: &LockView<'_, Holder>| {
            // An orphan that is being adopted is no one else's until it is known which record is on disk.
            let adopted = self.adoptions.contains_key(&view.lock);
            matches!(view.payload.settling, Settling::Grant { .. }) && view.payload.op == 0 && !adopted
        };
        if let Some(view) = settling.filter(refusable) {
            let (lock, node, op) = (view.lock, view.payload.node, view.payload.op);
            let why = if fault == IoFault::Expired { Denial::LeaseLost } else { Denial::Io };
            self.deny(node, lock, op, why);
        }
        self.draining = true;
        self.orders.push_back(Order::Resign { uncertain: fault != IoFault::Expired });
    }
}
