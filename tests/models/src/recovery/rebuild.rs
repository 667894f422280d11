//! A new master: what it makes of records and reports (`dlm/src/master/{recovery,rebuild}.rs`).

use super::Step;
use super::catalogue::Left;
use super::state::*;
use super::table::{lock_id, resource};
use mxlock_dlm::table::{LockFlags, LvbUpdate, Restored, Standing};
use mxlock_format::{ByteRange, Mode};

/// What waits at no place that anybody knows of is not in the table yet, nor is what does not wait at all.
pub(super) fn keep_pending(owned: &mut Owned) -> bool {
    owned.pending.take_if(|pending| pending.position == 0 || pending.noqueue);
    owned.granted.is_some() || owned.pending.is_some()
}

pub(super) fn standing_of(owned: &Owned) -> Standing {
    if owned.gone && owned.granted.is_some() { Standing::Orphan } else { Standing::Confirmed }
}

/// The mode that a lock in PW or EX, which its owner no longer relies on, is being converted down to.
fn gives_up(owned: &Owned) -> Option<Mode> {
    let wanted = owned.pending?.wanted;
    owned.granted.filter(|granted| *granted >= Mode::PW && granted.covers(wanted) && *granted != wanted).map(|_| wanted)
}

fn writes(mode: Option<Mode>) -> bool {
    mode.is_some_and(|mode| mode >= Mode::PW)
}

impl Step<'_> {
    /// Commits the view {recovering} and reads the table. Nobody else writes any more.
    pub(super) fn elect(&mut self) {
        let reign = self.state.epoch + 1;
        self.state.epoch = reign;
        let floor = self.state.table_epoch;
        if self.without(Left::EpochAfterRewrite) {
            self.state.table_epoch = reign;
        }
        let accept = |record: &Record| record.stamp >= floor || self.without(Left::OldStampsDoNotCount);
        let disk = self.state.disk.iter().zip(0..);
        let mut records: Vec<(u8, Record)> = disk.filter_map(|(record, slot)| Some((slot, (*record)?))).collect();
        records.retain(|(_, record)| accept(record));
        let mut slots = [Slot::default(); SLOTS];
        for (slot, record) in slots.iter_mut().zip(self.state.disk) {
            slot.mirror = record;
        }
        let mut awaited = 0;
        for (node, bit) in self.state.nodes.iter().zip(0..) {
            if node.admitted && self.state.members & (1 << bit) != 0 {
                awaited |= 1 << bit;
            }
        }
        self.state.master = Some(Master {
            reign,
            phase: Phase::Hearing,
            slots,
            locks: vec![],
            value: None,
            values: 0,
            next_position: 0,
            tokens: 0,
            reported: [None; NODES],
            seen: self.state.nodes.each_ref().map(|node| node.incarnation),
            awaited,
            records,
            reports: [const { None }; NODES],
            late: [const { None }; NODES],
            waits: vec![],
            purges: vec![],
        });
    }

    /// A member's report: part of the recovery, or late.
    pub(super) fn report(&mut self, from: u8, report: Report) {
        let at = usize::from(from);
        let master = self.master_mut();
        master.reported[at] = Some(report.incarnation);
        match master.phase {
            Phase::Hearing => {
                master.awaited &= !(1 << from);
                master.reports[at] = Some(report);
            }
            Phase::Rewriting => master.late[at] = Some(report),
            Phase::Active => self.late_report(from, report),
        }
    }

    /// Steps 3 to 5: the table from records and reports; the sectors that differ are written.
    pub(super) fn rebuild(&mut self) {
        let mut records = std::mem::take(&mut self.master_mut().records);
        let reports = std::mem::take(&mut self.master_mut().reports);
        let mut said: Vec<(u8, u8, Owned, Option<u8>)> = Vec::new();
        for (report, node) in reports.iter().zip(0..) {
            let locks = report.iter().flat_map(|report| report.locks.iter().map(|owned| (report.incarnation, *owned)));
            said.extend(locks.map(|(incarnation, owned)| (node, incarnation, owned, None)));
        }
        let highest = records.iter().map(|(_, record)| record.position).max();
        self.master_mut().next_position = highest.unwrap_or(0);
        let values: Vec<Value> = records.iter().filter_map(|(_, record)| record.value).collect();
        let mut vouched: Option<(u8, u8)> = None;
        for (.., owned, _) in &said {
            vouched = vouched.max(owned.value.map(Value::sequence));
        }

        if !self.without(Left::FinalWord) {
            records.retain(|(slot, record)| !takes_by_name(&mut said, *slot, record, &mut vouched));
        } else {
            // Without the rule, a record's word comes before its owner's.
            let told = |record: &Record| said.iter().any(|(.., owned, _)| owned.id == record.id);
            let (heard, rest): (Vec<_>, Vec<_>) = records.into_iter().partition(|(_, record)| told(record));
            for (slot, record) in heard {
                self.restore_record(slot, record, Standing::Confirmed);
                said.retain(|(.., owned, _)| owned.id != record.id);
            }
            records = rest;
        }
        let mut doubtful = false;
        let mut standing: Vec<(u8, Record)> = Vec::new();
        for (slot, record) in records {
            let report = reports[usize::from(record.node)].as_ref();
            let speaks = report.is_some_and(|report| {
                report.incarnation == record.incarnation
                    || report.sessions & (1 << record.id.session) != 0
                    || self.without(Left::SpeaksForOwn)
            });
            if speaks && !self.without(Left::FinalWord) {
                standing.push((slot, record));
            } else if self.state.members & (1 << record.node) != 0 {
                let skip = (record.granted.is_none() && self.without(Left::WaitingRecordsBlock))
                    || self.without(Left::PossibleHolders);
                if !skip {
                    self.restore_record(slot, record, Standing::Possible);
                }
            } else {
                // A dead node may have been changing the value.
                doubtful |= writes(record.granted) || writes(record.wanted);
                if record.persistent && record.granted.is_some() {
                    self.restore_record(slot, record, Standing::Orphan);
                }
            }
        }
        // Of several records of released locks, the one that stands for a lock is the newest that covers it.
        for (.., owned, at) in said.iter_mut().filter(|(.., at)| at.is_none()) {
            let newest = !self.without(Left::NewestStands);
            let stands = |(_, record): &&(u8, Record)| record.id.session == owned.id.session;
            let rank = |(_, record): &&(u8, Record)| {
                let covers = owned.granted.is_none_or(|mode| Durable::of(record).covers(mode, false));
                (covers, record.id)
            };
            let best =
                if newest { standing.iter().filter(stands).max_by_key(rank) } else { standing.iter().find(stands) };
            if let Some(&(slot, _)) = best {
                standing.retain(|(other, _)| *other != slot);
                *at = Some(slot);
            }
        }
        let newest = values.iter().map(|value| value.sequence()).max();
        for (node, incarnation, mut owned, slot) in said {
            let since = newest > owned.value.map(Value::sequence);
            if owned.unlocking.is_some() && (slot.is_none() || since) {
                doubtful |= writes(owned.granted);
                continue;
            }
            if let Some(mode) = gives_up(&owned).filter(|_| since) {
                owned.granted = Some(mode);
            }
            if keep_pending(&mut owned) {
                self.restore_owned(node, incarnation, owned, slot);
            }
        }
        for value in values {
            self.restore_value(value);
            if self.master().value.map(Value::sequence) > vouched {
                doubtful = true;
            }
        }
        if doubtful && self.master().value.is_some() && !self.without(Left::DoubtAfterDeath) {
            self.update_value(LvbUpdate::Invalidate);
        }
        self.stamp();
        self.master_mut().phase = Phase::Rewriting;
    }

    fn restore_value(&mut self, value: Value) {
        if self.master().locks.is_empty() {
            return;
        }
        let rank = |value: Value| (value.sequence(), !value.valid);
        let master = self.master_mut();
        if master.value.is_none_or(|known| rank(known) < rank(value)) {
            master.value = Some(value);
        }
        if value.epoch == master.reign {
            master.values = master.values.max(value.n);
        }
    }

    fn insert(&mut self, lock: Lock) -> bool {
        let restored = Restored {
            lock: lock_id(lock.id),
            resource: resource(),
            granted: lock.granted,
            wanted: lock.wanted,
            standing: lock.standing,
            position: lock.position.into(),
            range: ByteRange::ALL,
            flags: LockFlags::NONE,
            lvb: None,
            payload: lock,
        };
        let fits = self.with_table(|table, _| table.restore(restored)).is_ok();
        if let (true, Some(slot)) = (fits, lock.slot) {
            self.slot(slot).owner = Owner::Lock(lock.id);
        }
        fits
    }

    /// A lock of an owner that cannot be asked.
    fn restore_record(&mut self, slot: u8, record: Record, standing: Standing) {
        let converting = record.granted.is_some() && record.wanted.is_some();
        let half = converting && standing == Standing::Possible && self.without(Left::WantedBlocks);
        let wanted = record.wanted.filter(|_| standing != Standing::Orphan && !half);
        let lock = Lock {
            id: record.id,
            node: record.node,
            incarnation: record.incarnation,
            granted: record.granted,
            wanted,
            standing,
            position: record.position,
            slot: Some(slot),
            persistent: record.persistent,
            gone: standing == Standing::Orphan,
            expires: false,
            token: record.token,
            settling: Settling::Nothing,
        };
        // Its sessions may have been claimed back from an earlier incarnation, which the record still names.
        let unheard = self.master().awaited & (1 << record.node) != 0
            && (self.state.nodes[usize::from(record.node)].incarnation == record.incarnation
                || !self.without(Left::UnheardDoNotExpire));
        if self.insert(lock) && standing == Standing::Possible && !unheard {
            self.expire_later(record.id);
        }
    }

    /// A lock as its owner reported it.
    pub(super) fn restore_owned(&mut self, node: u8, incarnation: u8, owned: Owned, slot: Option<u8>) {
        let position = owned.pending.map_or(0, |pending| pending.position);
        let lock = Lock {
            id: owned.id,
            node,
            incarnation,
            granted: owned.granted,
            wanted: owned.pending.map(|pending| pending.wanted),
            standing: standing_of(&owned),
            position,
            slot,
            persistent: owned.persistent,
            gone: owned.gone,
            expires: false,
            token: owned.token,
            settling: Settling::Nothing,
        };
        self.master_mut().next_position = self.master().next_position.max(position);
        if self.insert(lock)
            && let Some(value) = owned.value
        {
            self.restore_value(value);
        }
    }

    /// Gives every lock its place and its record the stamp of this reign; everything else becomes zero.
    fn stamp(&mut self) {
        if self.without(Left::RewriteInPlace) {
            for slot in &mut self.master_mut().slots {
                slot.owner = Owner::Free;
            }
            self.master_mut().locks.iter_mut().for_each(|lock| lock.slot = None);
        }
        let mut unplaced: Vec<(u8, Id)> = Vec::new();
        for lock in self.master().locks.iter().filter(|lock| lock.slot.is_none()) {
            unplaced.push((if lock.granted.is_some() { 0 } else { lock.position }, lock.id));
        }
        unplaced.sort();
        for (_, id) in unplaced {
            let mut free = 0..self.world.bounds.slots;
            let free = free.find(|slot| self.master().slots[usize::from(*slot)].owner == Owner::Free);
            if let Some(slot) = free {
                self.slot(slot).owner = Owner::Lock(id);
                self.lock_mut(id).expect("listed").slot = Some(slot);
            }
        }
        let reign = self.master().reign;
        for slot in 0..self.world.bounds.slots {
            let image = match self.slot(slot).owner {
                Owner::Lock(id) => self.lock(id).copied().map(|lock| self.record_of(&lock)),
                _ => None,
            };
            let entry = self.slot(slot);
            entry.durable = image.as_ref().map(Durable::of);
            if entry.mirror != image {
                entry.mirror = image;
                self.state.writes.push(Write { reign, slot, image, lock: None, late: false });
            }
        }
        self.state.writes.sort();
    }

    /// The view {active}: waiting requests are resumed in their order.
    pub(super) fn activate(&mut self) {
        self.state.table_epoch = self.master().reign;
        self.master_mut().phase = Phase::Active;
        self.take_deferred();
        self.with_table(|table, effects| table.resume_all(effects));
        self.run_effects();
        for node in 0..NODES as u8 {
            if let Some(report) = self.master_mut().late[usize::from(node)].take() {
                self.late_report(node, report);
            }
        }
        for node in 0..NODES as u8 {
            self.admit(node);
        }
    }
}

/// The record names a reported lock.
fn takes_by_name(
    said: &mut [(u8, u8, Owned, Option<u8>)],
    slot: u8,
    record: &Record,
    vouched: &mut Option<(u8, u8)>,
) -> bool {
    let Some((_, _, owned, at)) =
        said.iter_mut().find(|(node, _, owned, _)| *node == record.node && owned.id == record.id)
    else {
        return false;
    };
    if at.is_none() {
        *vouched = (*vouched).max(record.value.map(Value::sequence));
        *at = Some(slot);
        // The place that the old master gave, if it died before it could say so.
        if owned.granted.is_none()
            && let Some(pending) = owned.pending.as_mut().filter(|pending| pending.position == 0)
        {
            pending.position = record.position;
        }
        // A down-conversion that the old master had carried out, though its answer was lost.
        if record.wanted.is_none() && record.granted.is_some() && gives_up(owned) == record.granted {
            owned.granted = record.granted;
        }
        return true;
    }
    // A second record of the lock.
    false
}
