//! A lockstate as it was read: every sector decoded, nothing believed that is not valid.

use mxlock_format::{
    Geometry, Heartbeat, HeartbeatError, LockRecord, NodeId, RECORD_BYTES, RecordError, Superblock, View,
};

/// One reading of a lockstate. A live one changes while it is read: sectors are whole, but not of one instant.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// What the good heartbeat sectors agreed on when the lockstate was opened.
    pub(super) superblock: Superblock,
    /// In slot order, all 64.
    pub(super) heartbeats: Vec<Result<Heartbeat, HeartbeatError>>,
    /// The slots that are not empty, in order.
    pub(super) slots: Vec<(u32, Result<LockRecord, RecordError>)>,
    /// Slots that the device could not read, or with bytes behind the record, and why.
    pub(super) unreadable: Vec<(u32, String)>,
}

impl Image {
    /// An image without records; they are added with [`Image::add_slots`].
    pub(super) fn new(superblock: Superblock, heartbeats: Vec<Result<Heartbeat, HeartbeatError>>) -> Image {
        Image { superblock, heartbeats, slots: Vec::new(), unreadable: Vec::new() }
    }

    /// Decodes consecutive records of 512 bytes, the first of which is slot `first`.
    pub(super) fn add_slots(&mut self, first: u32, records: &[u8]) {
        for (slot, bytes) in (first..).zip(records.chunks(RECORD_BYTES)) {
            if let Some(decoded) = LockRecord::decode(slot, bytes).transpose() {
                self.slots.push((slot, decoded));
            }
        }
    }

    /// Sector size and slot count.
    pub(super) fn geometry(&self) -> Geometry {
        self.superblock.geometry
    }

    /// The heartbeat sectors that are not damaged.
    pub(super) fn good_heartbeats(&self) -> impl Iterator<Item = &Heartbeat> {
        self.heartbeats.iter().filter_map(|heartbeat| heartbeat.as_ref().ok())
    }

    /// A node's heartbeat, unless it is damaged.
    pub(super) fn heartbeat(&self, node: NodeId) -> Option<&Heartbeat> {
        self.heartbeats.get(node.index())?.as_ref().ok()
    }

    /// The newest committed view that any node knows (section 4); `None` before the first one.
    pub(super) fn view(&self) -> Option<&View> {
        self.good_heartbeats().filter_map(|heartbeat| heartbeat.view.as_ref()).max_by_key(|view| view.epoch)
    }

    /// The valid records with their slots.
    pub(super) fn records(&self) -> impl Iterator<Item = (u32, &LockRecord)> {
        self.slots.iter().filter_map(|(slot, record)| Some((*slot, record.as_ref().ok()?)))
    }

    /// The record sectors that are damaged: their slots and what is wrong, without the slot.
    pub(super) fn damaged_slots(&self) -> impl Iterator<Item = (u32, String)> {
        let invalid =
            self.slots.iter().filter_map(|(slot, record)| Some((*slot, record.as_ref().err()?.fault.to_string())));
        invalid.chain(self.unreadable.iter().cloned())
    }

    /// How many slots behind its home slot a record stands.
    pub(super) fn distance(&self, slot: u32, record: &LockRecord) -> u32 {
        let slot_count = self.geometry().slot_count;
        let home = record.resource.home_slot(slot_count);
        if slot >= home { slot - home } else { slot + (slot_count - home) }
    }

    /// Whether a record's stamp is below the newest view's table epoch: then it does not count (section 6).
    pub(super) fn is_stale(&self, record: &LockRecord) -> bool {
        self.view().is_some_and(|view| record.table_epoch < view.table_epoch)
    }
}
