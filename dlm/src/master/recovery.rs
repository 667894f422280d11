//! A new master: read the table back, hear the members, rewrite it, begin (section 6).
//!
//! A crash anywhere in between leaves a table that the next master reads correctly: the view still says
//! `table_epoch = old`, and both the old stamps and the new ones are at or above it.

use super::rebuild::Found;
use super::*;
use crate::io::{IoFault, TableChunk};
use crate::limits::{TABLE_CHUNK_SLOTS, TABLE_CHUNK_TRIES, TABLE_CHUNKS_IN_FLIGHT};
use crate::planted::{Bug, planted};
use mxlock_format::LockRecord;
use mxlock_proto::peer::Report;

/// Where a recovery is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Stage {
    /// Writes of an earlier reign of this node are still under way.
    Settling,
    Reading,
    Hearing,
    Rewriting,
    /// Everything is on disk; the view {active} is being agreed on.
    Committing,
}

/// What came when the table was built already, and waits until it is on disk.
#[derive(Clone, Default)]
pub(super) struct Late {
    /// Members that were excluded.
    pub(super) lost: Vec<NodeId>,
    /// Members that spoke.
    pub(super) reports: Vec<(NodeId, Incarnation, Report)>,
}

/// Chunks of the table that could not be read, or not as a whole: what stands there may be in order.
#[derive(Clone, Default)]
struct Refused {
    chunks: Vec<u32>,
    /// How often each was tried.
    tries: BTreeMap<u32, u32>,
    /// When they are read again.
    again: Option<BootTime>,
    /// When what still cannot be read counts as damaged.
    lost: Option<BootTime>,
}

impl Refused {
    /// A few sectors that cannot be read are damaged if that does not change; where none can be read the disk is away, or
    /// the path to it, which no lease outlives.
    fn is_read_again(&mut self, now: Now, first_slot: u32, whole: bool, dead: Duration) -> bool {
        let lost = *self.lost.get_or_insert(now.boot + dead);
        let tries = self.tries.entry(first_slot).or_default();
        *tries += 1;
        let again = now.boot < lost && (whole || *tries < TABLE_CHUNK_TRIES);
        if again {
            self.chunks.push(first_slot);
        }
        again
    }
}

/// The state of a recovery.
#[derive(Clone)]
pub(super) struct Recovery {
    stage: Stage,
    /// Records stamped below it do not count.
    floor: Epoch,
    /// Members that can be asked: they lived through with this incarnation.
    awaited: BTreeMap<NodeId, Incarnation>,
    /// When those that have not spoken count as unreachable.
    patience: BootTime,
    reports: BTreeMap<NodeId, (Incarnation, Report)>,
    late: Late,
    next_slot: u32,
    chunks: BTreeMap<IoId, (u32, u32)>,
    refused: Refused,
    records: Vec<(u32, LockRecord)>,
    damaged: Vec<(u32, String)>,
    stale: u64,
    to_write: VecDeque<u32>,
}

impl Recovery {
    pub(super) fn awaits(&self, node: NodeId) -> bool {
        self.awaited.contains_key(&node)
    }

    #[cfg(feature = "model")]
    pub(super) fn digest(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Recovery { stage, floor, awaited, patience: _, reports, late, next_slot, chunks, .. } = self;
        let Recovery { records, damaged, stale: _, to_write, .. } = self;
        (stage, floor, awaited, reports, &late.lost, &late.reports, next_slot, damaged, to_write).hash(hasher);
        chunks.values().for_each(|chunk| chunk.hash(hasher));
        for (slot, record) in records {
            (slot, record.encode().0).hash(hasher);
        }
    }

    /// Whether it waits for members, which may go on for ever or end now.
    #[cfg(feature = "model")]
    pub(super) fn lose_patience(&mut self, now: Now) -> bool {
        let waits = self.stage == Stage::Hearing && self.awaits_anybody();
        self.patience = if waits { now.boot } else { self.patience };
        waits
    }

    pub(super) fn awaits_anybody(&self) -> bool {
        !self.awaited.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<BootTime> {
        match self.stage {
            Stage::Reading => self.refused.again,
            Stage::Hearing if !self.awaited.is_empty() => Some(self.patience),
            _ => None,
        }
    }
}

impl Master {
    /// Begins the reign of the view {recovering} that was just committed. `awaited`: the members that lived through.
    pub(crate) fn new(
        now: Now,
        config: &Config,
        view: &View,
        awaited: BTreeMap<NodeId, Incarnation>,
        first_io: u64,
        earlier_writes: bool,
    ) -> Master {
        let (clear_behind, orphan_floor, orphan_lifetime) = Self::settings(config);
        let slot_count = config.superblock.geometry.slot_count;
        let dead = Duration::from_millis(config.superblock.timing.dead_ms.into());
        let renew = Duration::from_millis(config.superblock.timing.renew_ms.into());
        let mut table = Table::new();
        table.set_epoch(view.epoch);
        let mut master = Master {
            reign: view.epoch,
            active: false,
            active_since: now.boot,
            draining: false,
            members: view.members,
            slot_count,
            clear_behind,
            orphan_floor,
            orphan_lifetime,
            dead,
            renew,
            table,
            slots: Slots::new(slot_count),
            mirror: Slots::new_mirror(slot_count),
            durable: vec![None; slot_count as usize],
            standing: Map::default(),
            standing_keys: Map::default(),
            behind: BTreeSet::new(),
            behind_due: Map::default(),
            writes: BTreeMap::new(),
            passing: BTreeSet::new(),
            lvb_waits: BTreeMap::new(),
            purges: Vec::new(),
            adoptions: BTreeMap::new(),
            reported: BTreeMap::new(),
            partial_reports: BTreeMap::new(),
            expiries: BTreeSet::new(),
            expiry_of: BTreeMap::new(),
            damaged: BTreeSet::new(),
            damage_claimed_until: None,
            damage_unheard: NodeSet::EMPTY,
            saved: BTreeSet::new(),
            recovery: Some(Box::new(Recovery {
                stage: Stage::Settling,
                floor: view.table_epoch,
                awaited,
                patience: now.boot + renew * 2,
                reports: BTreeMap::new(),
                late: Late::default(),
                next_slot: 0,
                chunks: BTreeMap::new(),
                refused: Refused::default(),
                records: Vec::new(),
                damaged: Vec::new(),
                stale: 0,
                to_write: VecDeque::new(),
            })),
            deferred: VecDeque::new(),
            scrub: Scrub::new(&config.superblock.timing),
            token_counter: 0,
            next_position: 1 << 32,
            next_io: first_io,
            lease_until: None,
            effects: Vec::new(),
            counters: Counters::default(),
            orders: VecDeque::new(),
            out: VecDeque::new(),
        };
        if !earlier_writes {
            master.settled(now);
        }
        master
    }

    /// The last I/O number that was used.
    pub(crate) fn last_io(&self) -> u64 {
        self.next_io
    }

    /// I/O that is under way, to be awaited by the next reign of this node.
    pub(crate) fn writes_in_flight(&self) -> Vec<IoId> {
        let rewriting = self.recovery.as_ref().filter(|r| r.stage == Stage::Rewriting);
        let chunks = rewriting.into_iter().flat_map(|recovery| recovery.chunks.keys().copied());
        self.writes.keys().copied().chain(chunks).collect()
    }

    /// Whether any write is under way.
    pub(crate) fn is_writing(&self) -> bool {
        let rewriting = self.recovery.as_ref().is_some_and(|r| r.stage == Stage::Rewriting && !r.chunks.is_empty());
        rewriting || !self.writes.is_empty()
    }

    pub(super) fn table_io_in_flight(&self) -> usize {
        self.recovery.as_ref().map_or(0, |recovery| recovery.chunks.len())
    }

    /// No write of an earlier reign of this node is under way any more: the table can be read.
    pub(crate) fn settled(&mut self, now: Now) {
        if let Some(recovery) = self.recovery.as_mut().filter(|recovery| recovery.stage == Stage::Settling) {
            recovery.stage = Stage::Reading;
            self.read_on();
            self.advance_recovery(now);
        }
    }

    fn read_on(&mut self) {
        let slot_count = self.slot_count;
        let Some(mut recovery) = self.recovery.take() else { return };
        while recovery.next_slot < slot_count && recovery.chunks.len() < TABLE_CHUNKS_IN_FLIGHT {
            let first_slot = recovery.next_slot;
            recovery.next_slot += TABLE_CHUNK_SLOTS.min(slot_count - first_slot);
            self.read_chunk(&mut recovery, first_slot);
        }
        self.recovery = Some(recovery);
    }

    fn read_chunk(&mut self, recovery: &mut Recovery, first_slot: u32) {
        let count = TABLE_CHUNK_SLOTS.min(self.slot_count - first_slot);
        let io = self.take_io();
        recovery.chunks.insert(io, (first_slot, count));
        self.out.push_back(Output::ReadTable { io, first_slot, count });
    }

    /// Reads again what could not be read.
    fn read_again(&mut self, now: Now) {
        let Some(mut recovery) = self.recovery.take() else { return };
        if recovery.refused.again.take_if(|at| *at <= now.boot).is_some() {
            for first_slot in std::mem::take(&mut recovery.refused.chunks) {
                self.read_chunk(&mut recovery, first_slot);
            }
        }
        self.recovery = Some(recovery);
    }

    /// A chunk of the table was read, for the recovery or for a scrub.
    pub(crate) fn table_read(&mut self, now: Now, io: IoId, result: Result<TableChunk, IoFault>) {
        if self.scrub.owns(io) {
            return self.scrubbed(now, io, result);
        }
        let Some(recovery) = &mut self.recovery else { return };
        let Some((first_slot, count)) = recovery.chunks.remove(&io) else { return };
        let (unreadable, fault) = match &result {
            Ok(chunk) => (chunk.unreadable.len(), "it cannot be read".to_owned()),
            Err(fault) => (count as usize, fault.to_string()),
        };
        if unreadable > 0 && recovery.refused.is_read_again(now, first_slot, unreadable == count as usize, self.dead) {
            recovery.refused.again.get_or_insert(now.boot + self.renew / 4);
            self.log(Event::TableReadFailed { first_slot, count, fault });
        } else if let Ok(chunk) = result {
            self.mirror.fill(first_slot, &chunk.bytes);
            recovery.damaged.extend(chunk.unreadable.iter().map(|slot| (*slot, fault.clone())));
            for slot in first_slot..first_slot + count {
                if self.mirror.is_zero(slot) {
                    continue;
                }
                match LockRecord::decode(slot, self.mirror.image(slot)) {
                    Ok(Some(_)) if planted(Bug::ScanStopsEarly) && recovery.records.len() >= 8 => {}
                    Ok(Some(record)) if record.table_epoch >= recovery.floor || planted(Bug::StampIgnored) => {
                        recovery.records.push((slot, record));
                    }
                    Ok(Some(_)) => recovery.stale += 1,
                    Ok(None) => {}
                    Err(error) => recovery.damaged.push((slot, error.to_string())),
                }
            }
        } else {
            recovery.damaged.extend((first_slot..first_slot + count).map(|slot| (slot, fault.clone())));
        }
        if !self.draining {
            self.read_on();
            self.advance_recovery(now);
        }
    }

    /// A member's report: part of a recovery, or late.
    pub(super) fn report(&mut self, now: Now, from: NodeId, incarnation: Incarnation, report: Report) {
        if report.epoch != self.reign {
            return;
        }
        let mut whole = match self.partial_reports.remove(&from) {
            Some((known, whole)) if known == incarnation => whole,
            _ => Report { epoch: report.epoch, sessions: vec![], locks: vec![], last: false },
        };
        whole.sessions.extend(report.sessions);
        whole.locks.extend(report.locks);
        if !report.last {
            self.partial_reports.insert(from, (incarnation, whole));
            return;
        }
        self.reported.insert(from, incarnation);
        match &mut self.recovery {
            Some(recovery) if recovery.stage <= Stage::Hearing => {
                recovery.awaited.remove(&from);
                recovery.reports.insert(from, (incarnation, whole));
                self.advance_recovery(now);
            }
            Some(recovery) => recovery.late.reports.push((from, incarnation, whole)),
            None => self.late_report(now, from, incarnation, whole),
        }
    }

    /// A member is not to be waited for any more: it was excluded, or replaced by the incarnation `but`.
    pub(super) fn stop_awaiting(&mut self, node: NodeId, but: Option<Incarnation>) {
        if self.partial_reports.get(&node).is_some_and(|(incarnation, _)| Some(*incarnation) != but) {
            self.partial_reports.remove(&node);
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.late.reports.retain(|(from, incarnation, _)| *from != node || Some(*incarnation) == but);
            if recovery.awaited.get(&node).is_some_and(|incarnation| Some(*incarnation) != but) {
                recovery.awaited.remove(&node);
            }
            if recovery.reports.get(&node).is_some_and(|(incarnation, _)| Some(*incarnation) != but) {
                recovery.reports.remove(&node);
            }
        }
    }

    /// A member was excluded during the recovery; whether there is one. Once the table is built, its locks leave when the
    /// view {active} is committed.
    pub(super) fn lost_during_recovery(&mut self, node: NodeId) -> bool {
        self.stop_awaiting(node, None);
        match &mut self.recovery {
            Some(recovery) => {
                if recovery.stage > Stage::Hearing {
                    recovery.late.lost.push(node);
                }
                true
            }
            None => false,
        }
    }

    /// Goes on as far as what is known allows.
    pub(super) fn advance_recovery(&mut self, now: Now) {
        let slot_count = self.slot_count;
        self.read_again(now);
        let Some(recovery) = &mut self.recovery else { return };
        let reading = !recovery.chunks.is_empty() || !recovery.refused.chunks.is_empty();
        if recovery.stage == Stage::Reading && !reading && recovery.next_slot >= slot_count {
            recovery.stage = Stage::Hearing;
            let (records, stale) = (recovery.records.len() as u64, recovery.stale);
            let damaged = recovery.damaged.len() as u64;
            self.log(Event::TableRead { records, stale, damaged });
        }
        let Some(recovery) = &mut self.recovery else { return };
        if recovery.stage == Stage::Hearing && (recovery.awaited.is_empty() || recovery.patience <= now.boot) {
            recovery.stage = Stage::Rewriting;
            let found = Found {
                records: std::mem::take(&mut recovery.records),
                damaged: std::mem::take(&mut recovery.damaged),
                reports: std::mem::take(&mut recovery.reports),
                unheard: recovery.awaited.keys().copied().collect(),
            };
            let changed = self.rebuild(now, found);
            if let Some(recovery) = &mut self.recovery {
                recovery.to_write = changed.into();
            }
            self.write_on();
        }
    }

    /// Writes the chunks that differ, a few at a time; not one of them after the lease (section 6.5).
    pub(crate) fn write_on(&mut self) {
        let Some(mut recovery) = self.recovery.take() else { return };
        if recovery.stage == Stage::Rewriting {
            while let (Some(deadline), true) = (self.lease_until, recovery.chunks.len() < TABLE_CHUNKS_IN_FLIGHT) {
                let Some(first_slot) = recovery.to_write.pop_front() else { break };
                let count = TABLE_CHUNK_SLOTS.min(self.slot_count - first_slot);
                let io = self.take_io();
                recovery.chunks.insert(io, (first_slot, count));
                self.out.push_back(Output::WriteTable { io, first_slot, count, deadline });
            }
            if recovery.chunks.is_empty() && recovery.to_write.is_empty() {
                recovery.stage = Stage::Committing;
                self.orders.push_back(Order::Activate);
            }
        }
        self.recovery = Some(recovery);
    }

    /// A chunk of the rewritten table is on disk; whether `io` was one.
    pub(super) fn rewritten(&mut self, io: IoId, result: &Result<(), IoFault>) -> bool {
        let Some(recovery) = &mut self.recovery else { return false };
        let Some((first_slot, _)) = recovery.chunks.remove(&io) else { return false };
        match result {
            Ok(()) if !self.draining => self.write_on(),
            Ok(()) => {}
            Err(fault) => {
                if *fault != IoFault::Expired {
                    self.log(Event::WriteFailed { slot: first_slot, fault: fault.to_string() });
                }
                self.draining = true;
                self.orders.push_back(Order::Resign { uncertain: *fault != IoFault::Expired });
            }
        }
        true
    }

    /// The recovery is over: hands out what had to wait for its end.
    pub(super) fn finish_recovery(&mut self) -> Late {
        self.recovery.take().map(|recovery| recovery.late).unwrap_or_default()
    }
}
