//! The lock-record table as the master keeps it: the mirror of every sector, where each record is, and which writes
//! are under way (sections 3 and 7).
//!
//! Finding a record never probes the disk, so clearing one never breaks another's look-up (PROTOTYPE 1). Writes to one
//! slot are never in flight together: a change of a busy slot is written when the write under way has ended.

use crate::io::IoId;
use crate::planted::{Bug, planted};
use mxlock_format::{LockId, RECORD_BYTES, SectorImage};
use std::collections::BTreeMap;

/// What is believed to be on disk: 512 bytes for each slot, whatever the sector size. While a write is under way, what
/// it writes.
#[derive(Clone)]
pub struct Mirror {
    bytes: Vec<u8>,
}

impl Mirror {
    fn new(slot_count: u32) -> Mirror {
        Mirror { bytes: vec![0; slot_count as usize * RECORD_BYTES] }
    }

    /// The 512 bytes of a slot.
    pub fn image(&self, slot: u32) -> &[u8; RECORD_BYTES] {
        let start = slot as usize * RECORD_BYTES;
        self.bytes[start..start + RECORD_BYTES].try_into().expect("a slice of 512 bytes")
    }

    /// The bytes of `count` slots.
    pub fn images(&self, first_slot: u32, count: u32) -> &[u8] {
        &self.bytes[first_slot as usize * RECORD_BYTES..(first_slot + count) as usize * RECORD_BYTES]
    }

    /// Number of slots.
    pub fn slot_count(&self) -> u32 {
        (self.bytes.len() / RECORD_BYTES) as u32
    }

    pub(crate) fn set(&mut self, slot: u32, image: &[u8; RECORD_BYTES]) {
        let start = slot as usize * RECORD_BYTES;
        self.bytes[start..start + RECORD_BYTES].copy_from_slice(image);
    }

    pub(crate) fn fill(&mut self, first_slot: u32, bytes: &[u8]) {
        let start = first_slot as usize * RECORD_BYTES;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn is_zero(&self, slot: u32) -> bool {
        self.image(slot) == &[0; RECORD_BYTES]
    }
}

/// Who a slot belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) enum Owner {
    /// Nobody: the sector is zero, or is being zeroed.
    #[default]
    Free,
    /// A lock of the table.
    Lock(LockId),
    /// A released lock whose record still stands (section 7); to be cleared.
    Standing(LockId),
    /// Nobody any more, but the record has yet to be cleared.
    Clearing,
    /// A damaged record that must be kept (section 6).
    Damaged,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    owner: Owner,
    /// A write of this slot is under way.
    busy: bool,
    /// The slot changed while it was busy.
    dirty: bool,
    /// The slot is in the queue of changes to be written behind.
    behind: bool,
    /// Number of the last write, so that a read that overlapped it is not compared.
    last_io: u64,
}

/// The slots of a master.
#[derive(Clone)]
pub(crate) struct Slots {
    entries: Vec<Entry>,
    /// One bit for each slot that is not free; makes a full table answer at once (PROTOTYPE 7).
    used: Vec<u64>,
    used_count: u32,
    in_flight: BTreeMap<IoId, u32>,
}

impl Slots {
    pub(crate) fn new(slot_count: u32) -> Slots {
        let mut used = vec![0; (slot_count as usize).div_ceil(64)];
        // Bits behind the last slot are never free.
        if !slot_count.is_multiple_of(64) {
            *used.last_mut().expect("at least one word") = u64::MAX << (slot_count % 64);
        }
        Slots { entries: vec![Entry::default(); slot_count as usize], used, used_count: 0, in_flight: BTreeMap::new() }
    }

    pub(crate) fn new_mirror(slot_count: u32) -> Mirror {
        Mirror::new(slot_count)
    }

    pub(crate) fn used_count(&self) -> u32 {
        self.used_count
    }

    pub(crate) fn owner(&self, slot: u32) -> Owner {
        self.entries[slot as usize].owner
    }

    /// The first free slot from `home`, wrapping around (section 3); `None` when the table is full.
    pub(crate) fn place(&self, home: u32) -> Option<u32> {
        let first_word = home as usize / 64;
        let words = self.used.len();
        // The first word is looked at twice: from `home` on at first, below it at last.
        (0..=words).find_map(|step| {
            let word = (first_word + step) % words;
            let mut taken = self.used[word];
            if step == 0 {
                taken |= (1_u64 << (home % 64)) - 1;
            }
            (taken != u64::MAX).then(|| word as u32 * 64 + (!taken).trailing_zeros())
        })
    }

    pub(crate) fn set_owner(&mut self, slot: u32, owner: Owner) {
        let entry = &mut self.entries[slot as usize];
        let (was, is) = (entry.owner != Owner::Free, owner != Owner::Free);
        entry.owner = owner;
        self.used[slot as usize / 64] =
            self.used[slot as usize / 64] & !(1 << (slot % 64)) | u64::from(is) << (slot % 64);
        self.used_count = self.used_count + u32::from(is) - u32::from(was);
    }

    pub(crate) fn is_busy(&self, slot: u32) -> bool {
        self.entries[slot as usize].busy
    }

    pub(crate) fn mark_dirty(&mut self, slot: u32) {
        self.entries[slot as usize].dirty = true;
    }

    /// Puts the slot into the queue of writes behind, once; whether it was not there.
    pub(crate) fn enter_behind(&mut self, slot: u32) -> bool {
        !std::mem::replace(&mut self.entries[slot as usize].behind, true)
    }

    pub(crate) fn leave_behind(&mut self, slot: u32) {
        self.entries[slot as usize].behind = false;
    }

    pub(crate) fn started(&mut self, slot: u32, io: IoId) {
        let entry = &mut self.entries[slot as usize];
        assert!(!entry.busy || planted(Bug::ClearOvertakesGrant), "writes to slot {slot} would overlap");
        entry.busy = true;
        entry.dirty = false;
        entry.last_io = io.0;
        self.in_flight.insert(io, slot);
    }

    /// The slot of a write that ended, and whether it changed meanwhile.
    pub(crate) fn ended(&mut self, io: IoId) -> Option<(u32, bool)> {
        let slot = self.in_flight.remove(&io)?;
        let entry = &mut self.entries[slot as usize];
        entry.busy = false;
        Some((slot, std::mem::replace(&mut entry.dirty, false)))
    }

    /// The slot of a write under way.
    #[cfg(feature = "model")]
    pub(crate) fn slot_of(&self, io: IoId) -> Option<u32> {
        self.in_flight.get(&io).copied()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether a write of this slot was under way at any time since the I/O `since` was issued.
    pub(crate) fn touched_since(&self, slot: u32, since: IoId) -> bool {
        let entry = &self.entries[slot as usize];
        entry.busy || entry.last_io > since.0
    }

    /// Marks a slot as not comparable with what the I/O `io` reads.
    pub(crate) fn touch(&mut self, slot: u32, io: IoId) {
        self.entries[slot as usize].last_io = io.0 + 1;
    }

    /// All that a later step may depend on: not the numbers of I/O.
    #[cfg(feature = "model")]
    pub(crate) fn digest(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Slots { entries, used: _, used_count: _, in_flight: _ } = self;
        for Entry { owner, busy, dirty, behind, last_io: _ } in entries {
            (owner, busy, dirty, behind).hash(hasher);
        }
    }

    /// The slots that are being written.
    pub(crate) fn busy_slots(&self) -> impl Iterator<Item = u32> {
        self.in_flight.values().copied()
    }
}

/// A record image on the heap, aligned for direct I/O.
pub(crate) fn boxed(image: SectorImage) -> Box<SectorImage> {
    Box::new(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::SessionId;
    use proptest::prelude::*;

    fn lock(n: u64) -> Owner {
        Owner::Lock(LockId { session: SessionId(1), seq: n })
    }

    proptest! {
        /// Section 3: the first free slot from the home slot, wrapping around, exactly as a linear probe finds it.
        #[test]
        fn placement_is_linear_probing(count in 1_u32..200, taken in proptest::collection::vec(any::<u32>(), 0..250), home: u32) {
            let mut slots = Slots::new(count);
            for t in taken {
                slots.set_owner(t % count, lock(1));
            }
            let home = home % count;
            let expected = mxlock_format::probe(home, count).find(|&s| slots.owner(s) == Owner::Free);
            prop_assert_eq!(slots.place(home), expected);
        }
    }

    /// PROTOTYPE 7: a full table says so after one pass over a bitmap, not over the disk.
    #[test]
    fn a_full_table_answers() {
        let mut slots = Slots::new(65_536);
        for slot in 0..65_536 {
            slots.set_owner(slot, lock(u64::from(slot)));
        }
        assert_eq!(slots.place(12_345), None);
        assert_eq!(slots.used_count(), 65_536);
        slots.set_owner(12_344, Owner::Free);
        assert_eq!(slots.place(12_345), Some(12_344));
    }

    /// Section 7: writes to overlapping sectors are never in flight together.
    #[test]
    #[should_panic(expected = "would overlap")]
    fn two_writes_of_one_slot_never_overlap() {
        let mut slots = Slots::new(64);
        slots.started(3, IoId(1));
        slots.started(3, IoId(2));
    }
}
