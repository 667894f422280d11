//! Sector I/O: buffers, the planner, and the two backends for record writes (DESIGN sections 2, 7).
//!
//! `unsafe` lives in this module and nowhere else in the crate.
#![allow(unsafe_code)]

mod buf;
mod epoll;
mod event_loop;
mod fault;
mod op;
mod plan;
mod schedule;
pub(crate) mod sys;
mod threads;
mod uring;

pub use buf::{AlignedBuf, BUFFER_ALIGN};
pub use epoll::EpollLoop;
pub use event_loop::{Backend, Event, EventLoop, Outcome, open_event_loop};
pub use fault::IoFault;
pub(crate) use op::to_records;
pub use plan::{BATCH_CROSSING, Durability, MAX_MERGED_CLEARS, PlannedWrite, Ready, WritePlan, plan};
pub use schedule::{MAX_BATCH_WRITES, MAX_BATCHES_IN_FLIGHT, MAX_WRITES_IN_FLIGHT};
pub use threads::{ThreadRecordIo, WRITER_THREADS};
pub use uring::{UringLoop, probe_uring};

use mxlock_format::SectorImage;

/// Largest table read or write, bytes: 1 MiB requests run at the device's full speed (BASELINES.md).
pub const CHUNK_BYTES: usize = 1 << 20;

/// One lock-record write.
#[derive(Clone, Copy, Debug)]
pub struct RecordWrite<'a> {
    /// The caller's number for it; comes back in [`RecordDone`].
    pub io: u64,
    /// The slot. A slot is never written twice at once.
    pub slot: u32,
    /// The record; `None` zeros the sector.
    pub image: Option<&'a SectorImage>,
    /// CLOCK_BOOTTIME in ns after which it must not be issued (section 5: no record write after the lease).
    pub deadline_ns: Option<u64>,
}

/// The end of a request to a [`RecordIo`].
#[derive(Debug)]
pub enum RecordDone {
    /// A record or table write is on stable storage, or is not.
    Written {
        /// The caller's number.
        io: u64,
        /// After anything but `Ok` and [`IoFault::Expired`] the sectors' contents are unknown.
        result: Result<(), IoFault>,
    },
    /// A table read ended.
    TableRead {
        /// The caller's number.
        io: u64,
        /// The first slot.
        first_slot: u32,
        /// 512 bytes for each slot, whatever the sector size; zero where the device failed.
        records: Vec<u8>,
        /// Slots that could not be read even alone, or whose sector has bytes behind the record (PROTOTYPE 10).
        unreadable: Vec<(u32, IoFault)>,
    },
}

impl RecordDone {
    /// Whether it was a write that ended in an error after it was issued: what it wrote may land yet.
    pub fn may_land_later(&self) -> bool {
        matches!(self, RecordDone::Written { result: Err(fault), .. } if *fault != IoFault::Expired)
    }
}

/// Lock-record I/O of the owner thread. Everything goes through the one descriptor that carries the per-node guard
/// (section 8).
///
/// Requests are gathered; [`RecordIo::submit`] issues them, grouped as [`plan()`] says.
pub trait RecordIo {
    /// Queues a record write.
    ///
    /// # Panics
    /// If the slot does not exist, or a write to it has not ended (section 7).
    fn write(&mut self, write: RecordWrite<'_>);

    /// Queues a sequential write of whole records, 512 bytes each, at most [`CHUNK_BYTES`] on the device. Durable
    /// when it is reported done.
    ///
    /// # Panics
    /// Like `write`, for each slot; or if `records` is not whole records.
    fn write_table(&mut self, io: u64, first_slot: u32, records: &[u8], deadline_ns: Option<u64>);

    /// Queues a sequential read of `count` slots, at most [`CHUNK_BYTES`] on the device. If it fails, each sector
    /// is read by itself, so that a bad one is reported by its slot and costs no other (PROTOTYPE 6, 10).
    ///
    /// # Panics
    /// If a slot does not exist, or `count` is 0 or too large.
    fn read_table(&mut self, io: u64, first_slot: u32, count: u32);

    /// Issues what can be issued.
    fn submit(&mut self);

    /// Takes what has ended, in no particular order.
    fn completions(&mut self, done: &mut Vec<RecordDone>);

    /// Requests that have not ended, the queued ones included.
    fn in_flight(&self) -> usize;

    /// Most slots of one table read or write.
    fn chunk_slots(&self) -> u32;
}
