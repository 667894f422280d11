//! The disk: an image, decoded as far as it is looked at.

use super::Time;
use crate::history::record_in;
use mxlock_dlm::io::Region;
use mxlock_format::{Heartbeat, LockRecord, MAX_NODES, NodeId, RECORD_BYTES};
use std::collections::BTreeSet;

/// The lockstate.
pub(super) struct Disk {
    bytes: Vec<u8>,
    /// The heartbeat sectors, decoded.
    pub(super) region: Box<Region>,
    /// The record sectors, decoded; `None`: empty or damaged.
    pub(super) records: Vec<Option<LockRecord>>,
    /// Record writes that have not ended.
    pub(super) writing: BTreeSet<(usize, u64, usize, usize)>,
    /// When a record was last written.
    pub(super) last_write: Time,
}

impl Disk {
    pub(super) fn new(bytes: Vec<u8>) -> Disk {
        let region: Vec<_> = NodeId::all().map(|node| Heartbeat::decode(node, sector(&bytes, node.index()))).collect();
        let Ok(region) = region.into_boxed_slice().try_into() else { unreachable!("a region has one sector per node") };
        let slots = bytes.len() / RECORD_BYTES - MAX_NODES;
        let records = (0..slots).map(|slot| record_in(slot, sector(&bytes, MAX_NODES + slot))).collect();
        Disk { bytes, region, records, writing: BTreeSet::new(), last_write: 0 }
    }

    pub(super) fn slot(&self, slot: usize) -> &[u8] {
        sector(&self.bytes, MAX_NODES + slot)
    }

    pub(super) fn slots(&self, first: usize, count: usize) -> &[u8] {
        &self.bytes[(MAX_NODES + first) * RECORD_BYTES..][..count * RECORD_BYTES]
    }

    /// Record slots with something in them that is no record.
    pub(super) fn damaged(&self) -> BTreeSet<u32> {
        let bad = |slot: &usize| LockRecord::decode(*slot as u32, self.slot(*slot)).is_err();
        (0..self.records.len()).filter(bad).map(|slot| slot as u32).collect()
    }

    pub(super) fn write_heartbeat(&mut self, node: NodeId, image: &[u8]) {
        self.bytes[node.index() * RECORD_BYTES..][..RECORD_BYTES].copy_from_slice(image);
        self.region[node.index()] = Heartbeat::decode(node, image);
    }

    /// Writes records; returns those that stood there before and are another one now.
    pub(super) fn write_records(&mut self, now: Time, first: usize, records: &[u8]) -> Vec<LockRecord> {
        let mut replaced = Vec::new();
        for (at, image) in records.chunks_exact(RECORD_BYTES).enumerate() {
            let slot = first + at;
            let old = &mut self.bytes[(MAX_NODES + slot) * RECORD_BYTES..][..RECORD_BYTES];
            if old != image {
                old.copy_from_slice(image);
                self.last_write = now;
                let record = record_in(slot, image);
                replaced.extend(std::mem::replace(&mut self.records[slot], record));
            }
        }
        replaced
    }
}

fn sector(bytes: &[u8], at: usize) -> &[u8] {
    &bytes[at * RECORD_BYTES..][..RECORD_BYTES]
}
