//! Record I/O by ordinary system calls, on threads that may block.

use super::op::DeviceOp;
use super::schedule::Scheduler;
use super::{Durability, IoFault, RecordDone, RecordIo, RecordWrite, sys};
use crate::clock::boottime_ns;
use crossbeam_channel::{Receiver, Sender, unbounded};
use mxlock_format::Geometry;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Writer threads; so many synchronous writes can be under way (BASELINES.md: depth 16 reaches 40k writes/s).
pub const WRITER_THREADS: usize = 16;

type Finished = (DeviceOp, Result<usize, IoFault>);

/// Record I/O with `pread`, `pwritev2` and `fdatasync` on [`WRITER_THREADS`] threads.
pub struct ThreadRecordIo {
    scheduler: Scheduler,
    /// `None` only while it is being dropped. Its bound is that of the scheduler's writes in flight.
    work: Option<Sender<DeviceOp>>,
    finished: Receiver<Finished>,
    kick: Arc<EventFd>,
    ready: Vec<DeviceOp>,
}

impl ThreadRecordIo {
    /// Starts the threads on `file`, the descriptor that carries the per-node guard.
    ///
    /// # Errors
    /// Where no thread or eventfd can be made.
    pub fn new(file: File, geometry: Geometry) -> io::Result<ThreadRecordIo> {
        let (work, jobs) = unbounded();
        let (done, finished) = unbounded();
        let kick = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let file = Arc::new(file);
        for _ in 0..WRITER_THREADS {
            let (jobs, done, kick, file) = (jobs.clone(), done.clone(), Arc::clone(&kick), Arc::clone(&file));
            // Never joined: a hung device may never let it go. It keeps the descriptor, and so the guard, until then.
            std::thread::Builder::new().name("mxlock-io".into()).spawn(move || run(&file, &jobs, &done, &kick))?;
        }
        Ok(ThreadRecordIo { scheduler: Scheduler::new(geometry), work: Some(work), finished, kick, ready: Vec::new() })
    }

    /// Becomes readable when something has ended; [`RecordIo::completions`] resets it.
    pub fn wakeup(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// Whether [`RecordIo::completions`] has something to give.
    pub(super) fn has_completions(&self) -> bool {
        self.scheduler.has_completions()
    }

    fn hand_out(&self, op: DeviceOp) {
        let work = self.work.as_ref().expect("the channel lives as long as the backend");
        // It cannot fail: a thread ends only after the channel is closed. A thread that panicked takes its request
        // with it, and the request never ends, which the core treats like a write that never ended.
        let _ = work.send(op);
    }

    fn collect(&mut self) {
        // Reset before the channel is drained: what ends in between kicks again.
        let _ = self.kick.read();
        while let Ok((op, result)) = self.finished.try_recv() {
            if let Some(next) = self.scheduler.finished(op, result) {
                self.hand_out(next);
            }
        }
    }
}

fn run(file: &File, jobs: &Receiver<DeviceOp>, done: &Sender<Finished>, kick: &EventFd) {
    for mut op in jobs {
        let result = carry_out(file, &mut op);
        if done.send((op, result)).is_err() {
            return;
        }
        // It fails only when the counter is full, that is when a wake-up is pending anyway.
        let _ = kick.write(1);
    }
}

fn carry_out(file: &File, op: &mut DeviceOp) -> Result<usize, IoFault> {
    let result = match op {
        DeviceOp::Write(write) => {
            // The last look at the clock before the system call (section 5).
            if write.expired(boottime_ns()) {
                return Err(IoFault::Expired);
            }
            match write.durability {
                Durability::Each => sys::pwrite_dsync(file.as_fd(), write.bytes(), write.offset),
                Durability::Batch => nix::sys::uio::pwrite(file, write.bytes(), write.offset as i64),
            }
        }
        DeviceOp::Read(read) => {
            let offset = read.offset as i64;
            nix::sys::uio::pread(file, read.target(), offset)
        }
        DeviceOp::Sync(_) => nix::unistd::fdatasync(file).map(|()| 0),
    };
    match result {
        // Nothing was transferred: a signal does not make a record write fail.
        Err(Errno::EINTR) => carry_out(file, op),
        other => other.map_err(IoFault::Os),
    }
}

impl RecordIo for ThreadRecordIo {
    fn write(&mut self, write: RecordWrite<'_>) {
        self.scheduler.write(write);
    }

    fn write_table(&mut self, io: u64, first_slot: u32, records: &[u8], deadline_ns: Option<u64>) {
        self.scheduler.write_table(io, first_slot, records, deadline_ns);
    }

    fn read_table(&mut self, io: u64, first_slot: u32, count: u32) {
        self.scheduler.read_table(io, first_slot, count);
    }

    fn submit(&mut self) {
        self.collect();
        let mut ready = std::mem::take(&mut self.ready);
        self.scheduler.take_ready(boottime_ns(), &mut ready);
        ready.drain(..).for_each(|op| self.hand_out(op));
        self.ready = ready;
    }

    fn completions(&mut self, done: &mut Vec<RecordDone>) {
        self.collect();
        self.scheduler.completions(done);
    }

    fn in_flight(&self) -> usize {
        self.scheduler.in_flight()
    }

    fn chunk_slots(&self) -> u32 {
        self.scheduler.chunk_slots()
    }
}

impl Drop for ThreadRecordIo {
    fn drop(&mut self) {
        drop(self.work.take());
    }
}
