//! One io_uring for sockets, wake-ups and record writes.
//!
//! Every request in the ring has an entry in a slab that owns the memory the kernel reads or writes; the entry's
//! index is the `user_data`. Entries are freed by their completion alone.

use super::op::DeviceOp;
use super::schedule::Scheduler;
use super::{Backend, Durability, Event, EventLoop, IoFault, Outcome, RecordDone, RecordIo, RecordWrite};
use crate::clock::boottime_ns;
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, squeue};
use mxlock_format::Geometry;
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

const SUBMISSION_ENTRIES: u32 = 1024;
const COMPLETION_ENTRIES: u32 = 8192;
/// So often in a row may the kernel be short of memory, or of room for completions.
const MAX_REFUSALS: usize = 10_000;
/// `user_data` of cancel requests, whose own result says nothing.
const IGNORED: u64 = u64::MAX;

/// Whether this process may use io_uring, and the kernel has all that we need (Linux 5.11).
///
/// # Errors
/// One sentence that says what is missing: a seccomp filter or `kernel.io_uring_disabled` answers EPERM, a kernel
/// without it ENOSYS.
pub fn probe_uring() -> Result<(), String> {
    let ring = IoUring::new(8).map_err(|e| format!("io_uring_setup: {e}"))?;
    if !ring.params().is_feature_ext_arg() {
        return Err("this kernel's io_uring cannot wait with a timeout (before Linux 5.11)".into());
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|e| format!("io_uring probe: {e}"))?;
    let needed = [
        ("read", opcode::Read::CODE),
        ("write", opcode::Write::CODE),
        ("fsync", opcode::Fsync::CODE),
        ("accept", opcode::Accept::CODE),
        ("recv", opcode::Recv::CODE),
        ("send", opcode::Send::CODE),
        ("poll", opcode::PollAdd::CODE),
        ("cancel", opcode::AsyncCancel::CODE),
    ];
    match needed.into_iter().find(|&(_, code)| !probe.is_supported(code)) {
        Some((name, _)) => Err(format!("this kernel's io_uring cannot {name}")),
        None => Ok(()),
    }
}

enum SocketOp {
    Poll,
    Accept,
    Recv(Vec<u8>),
    Send(Vec<u8>, usize),
}

enum Op {
    Disk(DeviceOp),
    Socket { op: SocketOp, fd: RawFd, token: u64 },
}

/// The io_uring event loop. It stays on the thread that made it.
pub struct UringLoop {
    /// `None` only while it is being dropped.
    ring: Option<IoUring>,
    file: File,
    scheduler: Scheduler,
    ops: Vec<Option<Op>>,
    free: Vec<usize>,
    live: usize,
    ready: Vec<DeviceOp>,
    /// Entries that found the submission queue full.
    backlog: std::collections::VecDeque<squeue::Entry>,
    events: Vec<Event>,
    /// The ring is set up for a single issuer.
    not_send: PhantomData<*const ()>,
}

impl UringLoop {
    /// A ring whose record writes go through a duplicate of `file`, that is through the same open file description:
    /// the one that carries the per-node guard.
    ///
    /// # Errors
    /// Whatever io_uring_setup says.
    pub fn new(file: &File, geometry: Geometry) -> io::Result<UringLoop> {
        let file = file.try_clone()?;
        let quick = IoUring::builder()
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .build(SUBMISSION_ENTRIES);
        let ring = match quick {
            // Before Linux 6.1.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                IoUring::builder().setup_cqsize(COMPLETION_ENTRIES).build(SUBMISSION_ENTRIES)?
            }
            other => other?,
        };
        Ok(UringLoop {
            ring: Some(ring),
            file,
            scheduler: Scheduler::new(geometry),
            ops: Vec::new(),
            free: Vec::new(),
            live: 0,
            ready: Vec::new(),
            backlog: std::collections::VecDeque::new(),
            events: Vec::new(),
            not_send: PhantomData,
        })
    }

    fn ring(&mut self) -> &mut IoUring {
        self.ring.as_mut().expect("the ring lives as long as the loop")
    }

    /// Puts an op into the slab and its entry into the ring's queue.
    fn start(&mut self, op: Op) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.ops.push(None);
            self.ops.len() - 1
        });
        let file = Fd(self.file.as_raw_fd());
        let op = self.ops[index].insert(op);
        let entry = match op {
            Op::Disk(DeviceOp::Write(write)) => {
                let bytes = write.bytes();
                let flags = if write.durability == Durability::Each { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(file, bytes.as_ptr(), bytes.len() as u32)
                    .offset(write.offset)
                    .rw_flags(flags)
                    .build()
            }
            Op::Disk(DeviceOp::Read(read)) => {
                let offset = read.offset;
                let target = read.target();
                opcode::Read::new(file, target.as_mut_ptr(), target.len() as u32).offset(offset).build()
            }
            Op::Disk(DeviceOp::Sync(_)) => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
            Op::Socket { op, fd, .. } => {
                let fd = Fd(*fd);
                match op {
                    SocketOp::Poll => opcode::PollAdd::new(fd, libc::POLLIN as u32).build(),
                    SocketOp::Accept => opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
                        .flags(libc::SOCK_CLOEXEC)
                        .build(),
                    SocketOp::Recv(buf) => {
                        let spare = buf.spare_capacity_mut();
                        opcode::Recv::new(fd, spare.as_mut_ptr().cast(), spare.len() as u32).build()
                    }
                    SocketOp::Send(buf, from) => {
                        let rest = &buf[*from..];
                        opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32).flags(libc::MSG_NOSIGNAL).build()
                    }
                }
            }
        };
        self.enqueue(entry.user_data(index as u64));
        self.live += 1;
    }

    fn enqueue(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() {
            self.backlog.push_back(entry);
            return;
        }
        // SAFETY: every address in an entry points into memory owned by the slab entry that `user_data` names. It is
        // neither freed nor touched before that entry's completion; if the loop is dropped first, it is leaked.
        let pushed = unsafe { self.ring().submission().push(&entry) };
        if pushed.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// Moves what waited into the submission queue; false while some still waits.
    fn refill(&mut self) -> bool {
        while let Some(entry) = self.backlog.front() {
            let ring = self.ring.as_mut().expect("the ring lives as long as the loop");
            // SAFETY: as in `enqueue`.
            if unsafe { ring.submission().push(entry) }.is_err() {
                return false;
            }
            self.backlog.pop_front();
        }
        true
    }

    /// Gives everything queued to the kernel and reaps. With `wait`, blocks for a completion or the timeout.
    ///
    /// It does not return while anything is queued: a record write that the kernel takes later might be late.
    fn enter(&mut self, wait: bool, timeout: Option<Duration>) -> io::Result<()> {
        for _ in 0..MAX_REFUSALS {
            // The lease check and the system call belong together: nothing of ours runs in between.
            self.issue_records();
            let all_in = self.refill();
            let time = timeout.map(Timespec::from);
            let args = match &time {
                Some(time) => SubmitArgs::new().timespec(time),
                None => SubmitArgs::new(),
            };
            let want = usize::from(wait && all_in);
            let refused = match self.ring().submitter().submit_with_args(want, &args) {
                Ok(_) => false,
                Err(e) => match e.raw_os_error() {
                    Some(libc::ETIME | libc::EINTR) => false,
                    Some(libc::EBUSY | libc::EAGAIN) => true,
                    _ => return Err(e),
                },
            };
            self.reap();
            if all_in && !refused {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "the kernel refused to take requests again and again"))
    }

    fn issue_records(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        self.scheduler.take_ready(boottime_ns(), &mut ready);
        for op in ready.drain(..) {
            self.start_disk(op);
        }
        self.ready = ready;
    }

    fn start_disk(&mut self, op: DeviceOp) {
        let late = matches!(&op, DeviceOp::Write(write) if write.expired(boottime_ns()));
        if late {
            if let Some(next) = self.scheduler.finished(op, Err(IoFault::Expired)) {
                self.start(Op::Disk(next));
            }
        } else {
            self.start(Op::Disk(op));
        }
    }

    fn reap(&mut self) {
        let mut followers = Vec::new();
        loop {
            let Some(entry) = self.ring().completion().next() else { break };
            if entry.user_data() == IGNORED {
                continue;
            }
            let index = entry.user_data() as usize;
            let op = self.ops[index].take().expect("a request completes once");
            self.free.push(index);
            self.live -= 1;
            let result = match entry.result() {
                n if n < 0 => Err(Errno::from_raw(-n)),
                n => Ok(n as usize),
            };
            match op {
                Op::Disk(op) => followers.extend(self.scheduler.finished(op, result.map_err(IoFault::Os))),
                Op::Socket { op, token, .. } => self.events.push(Event { token, outcome: outcome(op, result) }),
            }
        }
        for op in followers {
            self.start_disk(op);
        }
    }
}

fn outcome(op: SocketOp, result: Result<usize, Errno>) -> Outcome {
    let result = result.map_err(io::Error::from);
    match op {
        SocketOp::Poll => Outcome::Readable(result.map(drop)),
        SocketOp::Accept => Outcome::Accepted(result.map(|fd| {
            // SAFETY: a successful accept made this descriptor, and it is ours alone.
            unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
        })),
        SocketOp::Recv(mut buf) => {
            if let Ok(got) = result {
                // SAFETY: the kernel has written `got` bytes into the spare capacity, which began at `len`.
                unsafe { buf.set_len(buf.len() + got) };
            }
            Outcome::Received { buf, result }
        }
        SocketOp::Send(buf, _) => Outcome::Sent { buf, result },
    }
}

impl RecordIo for UringLoop {
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
        if let Err(error) = self.enter(false, None) {
            tracing::error!(%error, "io_uring does not take requests");
        }
    }

    fn completions(&mut self, done: &mut Vec<RecordDone>) {
        self.scheduler.completions(done);
    }

    fn in_flight(&self) -> usize {
        self.scheduler.in_flight()
    }

    fn chunk_slots(&self) -> u32 {
        self.scheduler.chunk_slots()
    }
}

impl EventLoop for UringLoop {
    fn poll_readable(&mut self, fd: BorrowedFd<'_>, token: u64) {
        self.start(Op::Socket { op: SocketOp::Poll, fd: fd.as_raw_fd(), token });
    }

    fn accept(&mut self, fd: BorrowedFd<'_>, token: u64) {
        self.start(Op::Socket { op: SocketOp::Accept, fd: fd.as_raw_fd(), token });
    }

    fn recv(&mut self, fd: BorrowedFd<'_>, token: u64, buf: Vec<u8>) {
        assert!(buf.capacity() > buf.len(), "a receive buffer has room");
        self.start(Op::Socket { op: SocketOp::Recv(buf), fd: fd.as_raw_fd(), token });
    }

    fn send(&mut self, fd: BorrowedFd<'_>, token: u64, buf: Vec<u8>, from: usize) {
        assert!(from < buf.len(), "there is something to send");
        self.start(Op::Socket { op: SocketOp::Send(buf, from), fd: fd.as_raw_fd(), token });
    }

    fn cancel(&mut self, fd: RawFd) {
        for index in 0..self.ops.len() {
            if matches!(self.ops[index], Some(Op::Socket { fd: of, .. }) if of == fd) {
                self.enqueue(opcode::AsyncCancel::new(index as u64).build().user_data(IGNORED));
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let idle = self.events.is_empty() && !self.scheduler.has_completions();
        self.enter(idle, timeout)?;
        events.append(&mut self.events);
        Ok(())
    }

    fn backend(&self) -> Backend {
        Backend::Uring
    }
}

impl Drop for UringLoop {
    fn drop(&mut self) {
        drop(self.ring.take());
        if self.live > 0 {
            // The kernel ends what is under way some time after the ring is closed; a hung device may never end it.
            std::mem::forget(std::mem::take(&mut self.ops));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::open_event_loop;
    use mxlock_format::SectorSize;

    const GEOMETRY: Geometry = Geometry { sector: SectorSize::S512, slot_count: 64 };

    /// Makes io_uring_setup fail with EPERM for the calling thread, as container runtimes do.
    fn forbid_io_uring() {
        nix::sys::prctl::set_no_new_privs().unwrap();
        let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
        let filter = [
            // The system call's number is the first field of seccomp_data.
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_io_uring_setup as u32, 0, 1),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program and the filter live across the call, which copies them.
        let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    /// Issue 2, item 3: automatic fall-back where io_uring is forbidden.
    #[test]
    fn a_seccomp_filter_makes_it_fall_back() {
        assert_eq!(probe_uring(), Ok(()), "this machine has io_uring");
        // The filter holds for this thread alone, and for those that it starts.
        std::thread::spawn(|| {
            forbid_io_uring();
            let reason = probe_uring().unwrap_err();
            assert!(reason.contains("io_uring_setup: Operation not permitted"), "{reason}");

            let file = tempfile::tempfile().unwrap();
            file.set_len(GEOMETRY.total_bytes()).unwrap();
            let mut fallback = open_event_loop(Backend::Uring, file, GEOMETRY).unwrap();
            assert_eq!(fallback.backend(), Backend::Threads);
            fallback.write(RecordWrite { io: 1, slot: 3, image: None, deadline_ns: None });
            let (mut done, mut events) = (Vec::new(), Vec::new());
            while fallback.in_flight() > 0 {
                fallback.wait(Some(Duration::from_secs(1)), &mut events).unwrap();
                fallback.completions(&mut done);
            }
            assert!(matches!(done[..], [RecordDone::Written { io: 1, result: Ok(()) }]));
        })
        .join()
        .unwrap();
    }

    /// More requests than the rings have room for.
    #[test]
    fn a_full_submission_queue_is_no_error() {
        let file = tempfile::tempfile().unwrap();
        let mut io = UringLoop::new(&file, GEOMETRY).unwrap();
        let kicks: Vec<_> = (0..10).map(|_| nix::sys::eventfd::EventFd::from_value(1).unwrap()).collect();
        let count = 3 * COMPLETION_ENTRIES as usize;
        for token in 0..count {
            io.poll_readable(std::os::fd::AsFd::as_fd(&kicks[token % kicks.len()]), token as u64);
        }
        let mut events = Vec::new();
        while events.len() < count {
            io.wait(Some(Duration::from_secs(5)), &mut events).unwrap();
        }
        let mut tokens: Vec<u64> = events.iter().map(|e| e.token).collect();
        tokens.sort_unstable();
        assert!(tokens.into_iter().eq(0..count as u64));
    }
}
