//! The owner thread's one loop: sockets, wake-ups and record I/O behind one trait (section 2).

use super::{EpollLoop, RecordIo, UringLoop, probe_uring};
use crate::DiskError;
use mxlock_format::Geometry;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// Which loop to run (`--io uring|pwrite`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One io_uring for everything.
    Uring,
    /// epoll for sockets, writer threads for records.
    Threads,
}

/// Something on a descriptor has ended.
#[derive(Debug)]
pub struct Event {
    /// The caller's number for the request.
    pub token: u64,
    /// What happened.
    pub outcome: Outcome,
}

/// How a request ended. A cancelled one ends with ECANCELED.
#[derive(Debug)]
pub enum Outcome {
    /// `poll_readable`: there is something to read, or the other end is gone.
    Readable(io::Result<()>),
    /// `accept`: a connection.
    Accepted(io::Result<OwnedFd>),
    /// `recv`: the bytes were appended to the buffer; 0 is the end of the stream.
    Received {
        /// The buffer that was handed in.
        buf: Vec<u8>,
        /// Bytes appended.
        result: io::Result<usize>,
    },
    /// `send`: so many bytes from `from` on were taken; perhaps not all.
    Sent {
        /// The buffer that was handed in.
        buf: Vec<u8>,
        /// Bytes taken.
        result: io::Result<usize>,
    },
}

/// Completion-style socket operations and record I/O on one thread.
///
/// Each request ends in exactly one [`Event`]. A descriptor has at most one of accept, receive or poll, and at most
/// one send, under way. It must stay open until these have ended: [`EventLoop::cancel`] ends them. It is in blocking
/// mode (io_uring answers EAGAIN instead of waiting on an O_NONBLOCK descriptor). Buffers are owned by the loop while
/// the kernel may use them.
pub trait EventLoop: RecordIo {
    /// Waits until `fd` (eventfd, pidfd, signalfd, timerfd...) is readable.
    fn poll_readable(&mut self, fd: BorrowedFd<'_>, token: u64);
    /// Accepts one connection, close-on-exec.
    fn accept(&mut self, fd: BorrowedFd<'_>, token: u64);
    /// Receives into the spare capacity of `buf`, which must have some.
    fn recv(&mut self, fd: BorrowedFd<'_>, token: u64, buf: Vec<u8>);
    /// Sends `buf[from..]` or a first part of it.
    fn send(&mut self, fd: BorrowedFd<'_>, token: u64, buf: Vec<u8>, from: usize);
    /// Asks that all requests on the descriptor end; those that have not ended by themselves report ECANCELED.
    fn cancel(&mut self, fd: RawFd);
    /// Issues everything queued, waits until something has ended or the time is over, and takes the events. Record
    /// completions are taken with [`RecordIo::completions`].
    ///
    /// # Errors
    /// Only what makes the loop unusable.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;
    /// Which one it is.
    fn backend(&self) -> Backend;
}

/// Makes the loop on the thread that will run it. Where io_uring is asked for but not permitted, it says so in the
/// log and takes the other.
///
/// # Errors
/// [`DiskError::Io`] where not even that can be made.
pub fn open_event_loop(wanted: Backend, file: File, geometry: Geometry) -> Result<Box<dyn EventLoop>, DiskError> {
    if wanted == Backend::Uring {
        match probe_uring() {
            Ok(()) => match UringLoop::new(&file, geometry) {
                Ok(uring) => return Ok(Box::new(uring)),
                Err(error) => tracing::warn!(%error, "io_uring cannot be set up: writer threads and epoll are used"),
            },
            Err(reason) => tracing::warn!(%reason, "io_uring is not available: writer threads and epoll are used"),
        }
    }
    EpollLoop::new(file, geometry)
        .map(|epoll| Box::new(epoll) as Box<dyn EventLoop>)
        .map_err(|e| DiskError::io("set up an event loop for", "the record writes".as_ref(), e))
}
