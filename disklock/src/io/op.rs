//! What a backend carries out, one system call at a time. A read that fails is tried again sector by sector, so that a bad
//! sector costs no other.

use super::{AlignedBuf, Durability, IoFault, RecordDone};
use mxlock_format::{Geometry, RECORD_BYTES, sector_to_image};
use std::sync::Arc;

/// One operation. The backend hands it back through `Scheduler::finished`.
#[derive(Debug)]
pub(super) enum DeviceOp {
    Write(DeviceWrite),
    Read(DeviceRead),
    /// fdatasync for a batch.
    Sync(BatchId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchId(pub(super) usize);

#[derive(Debug)]
pub(super) enum Payload {
    Buffer(AlignedBuf),
    /// A prefix of the shared zeros.
    Zeros(Arc<AlignedBuf>),
}

#[derive(Debug)]
pub(super) struct DeviceWrite {
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) payload: Payload,
    pub(super) durability: Durability,
    /// The earliest deadline of its members.
    pub(super) deadline_ns: Option<u64>,
    pub(super) first_slot: u32,
    pub(super) slot_count: u32,
    pub(super) ios: Vec<u64>,
    pub(super) batch: Option<BatchId>,
}

impl DeviceWrite {
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.payload {
            Payload::Buffer(buf) => &buf[..self.len],
            Payload::Zeros(zeros) => &zeros[..self.len],
        }
    }

    pub(super) fn expired(&self, now_ns: u64) -> bool {
        self.deadline_ns.is_some_and(|deadline| now_ns >= deadline)
    }
}

#[derive(Debug)]
pub(super) struct DeviceRead {
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) buf: AlignedBuf,
    io: u64,
    first_slot: u32,
    count: u32,
    /// Reading sector by sector, after the whole failed: this is the current one.
    single: Option<u32>,
    unreadable: Vec<(u32, IoFault)>,
}

impl DeviceRead {
    pub(super) fn new(io: u64, first_slot: u32, count: u32, geometry: Geometry) -> DeviceRead {
        let len = count as usize * geometry.sector.bytes();
        DeviceRead {
            offset: geometry.slot_offset(first_slot),
            len,
            buf: AlignedBuf::zeroed(len),
            io,
            first_slot,
            count,
            single: None,
            unreadable: Vec::new(),
        }
    }

    /// Where the bytes go.
    pub(super) fn target(&mut self) -> &mut [u8] {
        let at = self.single.map_or(0, |i| i as usize * self.len);
        &mut self.buf[at..at + self.len]
    }

    /// It has ended so. Whether it has to be issued again, for the next sector by itself.
    pub(super) fn goes_on(&mut self, result: Result<usize, IoFault>, geometry: Geometry) -> bool {
        let whole = result.and_then(|got| IoFault::check(self.len, Ok(got)));
        let next = match (self.single, whole) {
            (None, Ok(())) => self.count,
            (None, Err(_)) if self.count > 1 => 0,
            (at, result) => {
                let at = at.unwrap_or(0);
                if let Err(fault) = result {
                    self.target().fill(0);
                    self.unreadable.push((self.first_slot + at, fault));
                }
                at + 1
            }
        };
        if next < self.count {
            self.single = Some(next);
            self.len = geometry.sector.bytes();
            self.offset = geometry.slot_offset(self.first_slot + next);
        }
        next < self.count
    }

    /// What it has read.
    pub(super) fn into_done(mut self, geometry: Geometry) -> RecordDone {
        let (records, behind) = to_records(&self.buf, self.first_slot, geometry);
        self.unreadable.extend(behind);
        RecordDone::TableRead { io: self.io, first_slot: self.first_slot, records, unreadable: self.unreadable }
    }
}

/// The 512-byte records of consecutive sectors, and the slots whose sectors have something behind them.
pub(crate) fn to_records(sectors: &[u8], first_slot: u32, geometry: Geometry) -> (Vec<u8>, Vec<(u32, IoFault)>) {
    let size = geometry.sector.bytes();
    let mut records = Vec::with_capacity(sectors.len() / size * RECORD_BYTES);
    let mut behind = Vec::new();
    for (slot, sector) in (first_slot..).zip(sectors.chunks_exact(size)) {
        match sector_to_image(sector) {
            Ok(record) => records.extend_from_slice(record),
            Err(_) => {
                records.extend_from_slice(&sector[..RECORD_BYTES]);
                behind.push((slot, IoFault::TailNotZero));
            }
        }
    }
    (records, behind)
}
