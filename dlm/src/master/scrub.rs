//! Comparing disk with memory: at once after a recovery, then every R for 2D, then every minute (section 6.6).

use super::*;
use crate::io::{IoFault, TableChunk};
use crate::limits::TABLE_CHUNK_SLOTS;
use crate::slots::Owner;
use mxlock_format::{RECORD_BYTES, SectorImage, Timing};

/// Time between scrubs once the table has settled.
const CALM: Duration = Duration::from_secs(60);

/// A scrub reads one chunk at a time, so that it disturbs nobody.
#[derive(Clone)]
pub(super) struct Scrub {
    renew: Duration,
    watch: Duration,
    /// Until when to look every R.
    watch_until: BootTime,
    next: Option<BootTime>,
    reading: Option<(IoId, u32)>,
}

impl Scrub {
    pub(super) fn new(timing: &Timing) -> Scrub {
        Scrub {
            renew: Duration::from_millis(timing.renew_ms.into()),
            watch: Duration::from_millis(timing.dead_ms.into()) * 2,
            watch_until: BootTime(0),
            next: None,
            reading: None,
        }
    }

    pub(super) fn begin(&mut self, now: Now) {
        self.watch_until = now.boot + self.watch;
        self.next = Some(now.boot);
    }

    pub(super) fn deadline(&self) -> Option<BootTime> {
        self.next
    }

    pub(super) fn owns(&self, io: IoId) -> bool {
        self.reading.is_some_and(|(reading, _)| reading == io)
    }
}

impl Master {
    pub(super) fn start_scrub(&mut self, now: Now) {
        if self.scrub.next.is_some_and(|at| at <= now.boot) {
            self.scrub.next = None;
            self.scrub_chunk(0);
        }
    }

    fn scrub_chunk(&mut self, first_slot: u32) {
        let count = TABLE_CHUNK_SLOTS.min(self.slot_count - first_slot);
        let io = self.take_io();
        // What is being written now may be read half old, half new.
        for slot in self.slots.busy_slots().collect::<Vec<_>>() {
            self.slots.touch(slot, io);
        }
        self.scrub.reading = Some((io, first_slot));
        self.out.push_back(Output::ReadTable { io, first_slot, count });
    }

    pub(super) fn scrubbed(&mut self, now: Now, io: IoId, result: Result<TableChunk, IoFault>) {
        let Some((_, first_slot)) = self.scrub.reading.take() else { return };
        if self.draining {
            return;
        }
        // A chunk that cannot be read is looked at again by the next scrub.
        if let Ok(chunk) = result {
            let unreadable: BTreeSet<u32> = chunk.unreadable.iter().copied().collect();
            for (slot, bytes) in (first_slot..).zip(chunk.bytes.chunks_exact(RECORD_BYTES)) {
                let same = bytes == self.mirror.image(slot);
                if same || unreadable.contains(&slot) || self.slots.touched_since(slot, io) {
                    continue;
                }
                self.repair(slot, bytes);
            }
        }
        let next = first_slot + TABLE_CHUNK_SLOTS;
        if next < self.slot_count {
            self.scrub_chunk(next);
        } else {
            let pause = if now.boot < self.scrub.watch_until { self.scrub.renew } else { CALM };
            self.scrub.next = Some(now.boot + pause);
        }
    }

    /// A sector differs though nothing of ours was under way: a late write of an earlier master, or damage.
    fn repair(&mut self, slot: u32, found: &[u8]) {
        if self.slots.owner(slot) == Owner::Damaged {
            return;
        }
        self.log(Event::ScrubRepaired { slot });
        if mxlock_format::LockRecord::decode(slot, found).is_err() {
            let bytes = Box::new(found.try_into().expect("512 bytes"));
            self.out.push_back(Output::Quarantine { slot, bytes, reason: "it differed from memory".to_owned() });
        }
        let wanted = SectorImage(*self.mirror.image(slot));
        self.rewrite(slot, wanted);
    }
}
