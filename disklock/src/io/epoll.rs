//! The event loop for where io_uring is forbidden: epoll for sockets, writer threads for records.

use super::{Backend, Event, EventLoop, Outcome, RecordDone, RecordIo, RecordWrite, ThreadRecordIo};
use mxlock_format::Geometry;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, SockFlag, accept4, recv, send};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

const EVENTS_PER_WAIT: usize = 256;
/// The epoll key of the writer threads' eventfd; no descriptor has this number.
const RECORDS: u64 = u64::MAX;

enum ReadOp {
    Poll,
    Accept,
    Recv(Vec<u8>),
}

struct Send {
    token: u64,
    buf: Vec<u8>,
    from: usize,
}

#[derive(Default)]
struct Waiting {
    read: Option<(u64, ReadOp)>,
    send: Option<Send>,
}

impl Waiting {
    fn interest(&self) -> EpollFlags {
        let mut flags = EpollFlags::EPOLLONESHOT;
        flags.set(EpollFlags::EPOLLIN, self.read.is_some());
        flags.set(EpollFlags::EPOLLOUT, self.send.is_some());
        flags
    }
}

/// The epoll event loop.
pub struct EpollLoop {
    epoll: Epoll,
    records: ThreadRecordIo,
    waiting: HashMap<RawFd, Waiting>,
    events: Vec<Event>,
    ready: Vec<EpollEvent>,
}

impl EpollLoop {
    /// A loop whose writer threads use `file`, the descriptor that carries the per-node guard.
    ///
    /// # Errors
    /// Where the process may have no more threads or descriptors.
    pub fn new(file: File, geometry: Geometry) -> io::Result<EpollLoop> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let records = ThreadRecordIo::new(file, geometry)?;
        epoll.add(records.wakeup(), EpollEvent::new(EpollFlags::EPOLLIN, RECORDS))?;
        let ready = vec![EpollEvent::empty(); EVENTS_PER_WAIT];
        Ok(EpollLoop { epoll, records, waiting: HashMap::new(), events: Vec::new(), ready })
    }

    fn start_read(&mut self, fd: BorrowedFd<'_>, token: u64, op: ReadOp) {
        let waiting = self.waiting.entry(fd.as_raw_fd()).or_default();
        assert!(waiting.read.is_none(), "descriptor {} has a read under way", fd.as_raw_fd());
        waiting.read = Some((token, op));
        self.arm(fd);
    }

    /// One-shot, so that a descriptor without a request is never reported, and one that was closed without notice
    /// and came back under the same number is simply added again.
    fn arm(&mut self, fd: BorrowedFd<'_>) {
        let Some(waiting) = self.waiting.get(&fd.as_raw_fd()) else { return };
        let mut event = EpollEvent::new(waiting.interest(), fd.as_raw_fd() as u64);
        let armed = match self.epoll.modify(fd, &mut event) {
            Err(Errno::ENOENT) => self.epoll.add(fd, event),
            other => other,
        };
        if let Err(errno) = armed {
            self.fail(fd.as_raw_fd(), errno);
        }
    }

    /// Ends both requests of a descriptor with an error.
    fn fail(&mut self, fd: RawFd, errno: Errno) {
        let Some(waiting) = self.waiting.remove(&fd) else { return };
        if let Some((token, op)) = waiting.read {
            let outcome = match op {
                ReadOp::Poll => Outcome::Readable(Err(errno.into())),
                ReadOp::Accept => Outcome::Accepted(Err(errno.into())),
                ReadOp::Recv(buf) => Outcome::Received { buf, result: Err(errno.into()) },
            };
            self.events.push(Event { token, outcome });
        }
        if let Some(Send { token, buf, .. }) = waiting.send {
            self.events.push(Event { token, outcome: Outcome::Sent { buf, result: Err(errno.into()) } });
        }
    }

    fn ready(&mut self, raw: RawFd, flags: EpollFlags) {
        let Some(mut waiting) = self.waiting.remove(&raw) else { return };
        let broken = flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        if flags.contains(EpollFlags::EPOLLIN) || broken {
            waiting.read = waiting.read.and_then(|(token, op)| self.perform(raw, token, op));
        }
        if flags.contains(EpollFlags::EPOLLOUT) || broken {
            waiting.send = waiting.send.and_then(|send| self.perform_send(raw, send));
        }
        if waiting.read.is_some() || waiting.send.is_some() {
            self.waiting.insert(raw, waiting);
            // SAFETY: the caller keeps the descriptor open while a request of it is under way; the borrow ends here.
            self.arm(unsafe { BorrowedFd::borrow_raw(raw) });
        }
    }

    fn perform(&mut self, fd: RawFd, token: u64, op: ReadOp) -> Option<(u64, ReadOp)> {
        let outcome = match op {
            ReadOp::Poll => Outcome::Readable(Ok(())),
            ReadOp::Accept => match accept4(fd, SockFlag::SOCK_CLOEXEC) {
                Err(Errno::EAGAIN | Errno::EINTR) => return Some((token, ReadOp::Accept)),
                // SAFETY: accept4 has made this descriptor, and it is ours alone.
                Ok(raw) => Outcome::Accepted(Ok(unsafe { OwnedFd::from_raw_fd(raw) })),
                Err(errno) => Outcome::Accepted(Err(errno.into())),
            },
            ReadOp::Recv(mut buf) => {
                let start = buf.len();
                buf.resize(buf.capacity(), 0);
                let got = recv(fd, &mut buf[start..], MsgFlags::MSG_DONTWAIT);
                buf.truncate(start + got.unwrap_or(0));
                match got {
                    Err(Errno::EAGAIN | Errno::EINTR) => return Some((token, ReadOp::Recv(buf))),
                    result => Outcome::Received { buf, result: result.map_err(io::Error::from) },
                }
            }
        };
        self.events.push(Event { token, outcome });
        None
    }

    fn perform_send(&mut self, fd: RawFd, op: Send) -> Option<Send> {
        match send(fd, &op.buf[op.from..], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EAGAIN | Errno::EINTR) => Some(op),
            result => {
                let outcome = Outcome::Sent { buf: op.buf, result: result.map_err(io::Error::from) };
                self.events.push(Event { token: op.token, outcome });
                None
            }
        }
    }
}

impl RecordIo for EpollLoop {
    fn write(&mut self, write: RecordWrite<'_>) {
        self.records.write(write);
    }

    fn write_table(&mut self, io: u64, first_slot: u32, records: &[u8], deadline_ns: Option<u64>) {
        self.records.write_table(io, first_slot, records, deadline_ns);
    }

    fn read_table(&mut self, io: u64, first_slot: u32, count: u32) {
        self.records.read_table(io, first_slot, count);
    }

    fn submit(&mut self) {
        self.records.submit();
    }

    fn completions(&mut self, done: &mut Vec<RecordDone>) {
        self.records.completions(done);
    }

    fn in_flight(&self) -> usize {
        self.records.in_flight()
    }

    fn chunk_slots(&self) -> u32 {
        self.records.chunk_slots()
    }
}

impl EventLoop for EpollLoop {
    fn poll_readable(&mut self, fd: BorrowedFd<'_>, token: u64) {
        self.start_read(fd, token, ReadOp::Poll);
    }

    fn accept(&mut self, fd: BorrowedFd<'_>, token: u64) {
        self.start_read(fd, token, ReadOp::Accept);
    }

    fn recv(&mut self, fd: BorrowedFd<'_>, token: u64, buf: Vec<u8>) {
        assert!(buf.capacity() > buf.len(), "a receive buffer has room");
        self.start_read(fd, token, ReadOp::Recv(buf));
    }

    fn send(&mut self, fd: BorrowedFd<'_>, token: u64, buf: Vec<u8>, from: usize) {
        assert!(from < buf.len(), "there is something to send");
        // Most sends fit into the socket's buffer: then epoll is not needed.
        if let Some(op) = self.perform_send(fd.as_raw_fd(), Send { token, buf, from }) {
            let waiting = self.waiting.entry(fd.as_raw_fd()).or_default();
            assert!(waiting.send.is_none(), "descriptor {} has a send under way", fd.as_raw_fd());
            waiting.send = Some(op);
            self.arm(fd);
        }
    }

    fn cancel(&mut self, fd: RawFd) {
        self.fail(fd, Errno::ECANCELED);
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.records.submit();
        let idle = self.events.is_empty() && !self.records.has_completions();
        let timeout = match timeout {
            _ if !idle => EpollTimeout::ZERO,
            None => EpollTimeout::NONE,
            // Rounded up: waking a little early would make the caller spin until its time has come.
            Some(time) => {
                let ms = time.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128);
                EpollTimeout::try_from(ms as i32).unwrap_or(EpollTimeout::MAX)
            }
        };
        let mut ready = std::mem::take(&mut self.ready);
        let count = match self.epoll.wait(&mut ready, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for event in &ready[..count] {
            if event.data() != RECORDS {
                self.ready(event.data() as RawFd, event.events());
            }
        }
        self.ready = ready;
        events.append(&mut self.events);
        Ok(())
    }

    fn backend(&self) -> Backend {
        Backend::Threads
    }
}
