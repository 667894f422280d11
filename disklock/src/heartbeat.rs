//! The heartbeat thread: the only writer of the own sector (DESIGN sections 4, 5; I6).
//!
//! One turn, a *beat*, writes the newest image and then reads the region of all 64 sectors. A beat begins every R, and
//! at once where the core asks. The thread has its own descriptor and buffers, so that table traffic cannot delay it
//! (PROTOTYPE 15).

use crate::clock::{boottime_ns, realtime_ms};
use crate::io::{AlignedBuf, IoFault, sys};
use crate::note::BeatNote;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mxlock_format::{Fault, Geometry, Heartbeat, HeartbeatError, MAX_NODES, NodeId, fill_sector};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The 64 heartbeat sectors of one read.
pub type Region = [Result<Heartbeat, HeartbeatError>; MAX_NODES];

/// One turn of the heartbeat thread. Times are CLOCK_BOOTTIME in ns.
#[derive(Clone, Debug)]
pub struct Beat {
    /// `None` before the first image was published, and when the own sector was found to be another node's.
    pub write: Option<BeatWrite>,
    /// The read that was issued after the write had ended, well or not.
    pub read: Result<BeatRead, IoFault>,
}

/// The write half of a beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeatWrite {
    /// The image that was written.
    pub image: u64,
    /// The number that the thread stamped; one more for each write, failed ones included.
    pub hb_seq: u64,
    /// When the write began.
    pub started_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// After an error the write may still land.
    pub result: Result<(), IoFault>,
}

/// The read half of a beat.
#[derive(Clone, Debug)]
pub struct BeatRead {
    /// When the read was issued.
    pub issued_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// What it returned. A sector that the device cannot read is an error of that sector alone.
    pub region: Box<Region>,
}

/// What the thread works with.
pub struct HeartbeatConfig {
    /// The thread's own open file description, O_DIRECT and O_DSYNC ([`crate::Lockstate::open_heartbeat_file`]).
    pub file: File,
    /// The own slot.
    pub node: NodeId,
    /// The lockstate's.
    pub geometry: Geometry,
    /// R.
    pub renew: Duration,
    /// CLOCK_BOOTTIME in ns of the owner loop's last turn, kept up to date by that loop.
    pub core_alive: Arc<AtomicU64>,
    /// Gets each beat. Bounded by the rule that the thread stops when the owner loop does.
    pub beats: Sender<Beat>,
    /// Written after each beat, to wake the owner loop.
    pub kick: Arc<EventFd>,
    /// For the next daemon, where this one is a daemon.
    pub note: Option<BeatNote>,
}

struct Image {
    id: u64,
    heartbeat: Heartbeat,
    begin_by_ns: Option<u64>,
}

#[derive(Default)]
struct Shared {
    newest: Option<Image>,
    /// The last image that is on disk.
    written: u64,
    /// The last image whose write ended in an error.
    failed: Option<(u64, IoFault)>,
    urgent: bool,
    /// The core's word for the note, until it is in there.
    ballots_from_ns: Option<u64>,
    stop: bool,
}

struct Link {
    shared: Mutex<Shared>,
    /// A write has ended.
    ended: Condvar,
    wake: EventFd,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // No code panics with the lock held and half-made changes.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It fails only when the counter is full, that is when a wake-up is pending anyway.
        let _ = self.wake.write(1);
    }
}

/// The handle of a running heartbeat thread. Dropping it tells the thread to end.
pub struct HeartbeatThread {
    link: Arc<Link>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// Why [`HeartbeatThread::publish_and_wait`] cannot say that the image is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The write ended in an error.
    #[error("the own heartbeat could not be written: {0}")]
    Failed(IoFault),
    /// It has not ended; it may still land.
    #[error("the own heartbeat was not written in time")]
    Timeout,
}

impl HeartbeatThread {
    /// Starts the thread. Until something is published, it only reads.
    ///
    /// # Errors
    /// Where the process may have no more threads or descriptors.
    pub fn spawn(config: HeartbeatConfig) -> io::Result<HeartbeatThread> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        // The owner thread is alive: it calls this.
        config.core_alive.fetch_max(boottime_ns(), Ordering::AcqRel);
        let link = Arc::new(Link { shared: Mutex::default(), ended: Condvar::new(), wake });
        let (end, ended) = bounded::<()>(0);
        let worker = Worker::new(config, Arc::clone(&link), timer);
        let thread = std::thread::Builder::new().name("mxlock-heart".into()).spawn(move || {
            // Dropped with the thread, which tells `stop`.
            let _end = end;
            worker.run();
        })?;
        Ok(HeartbeatThread { link, ended, thread: Some(thread) })
    }

    /// Hands over a newer image; the thread stamps `hb_seq`, `timestamp_ms` and `boottime_ns`. It is written by the
    /// next beat that begins; `urgent`: at once, or right after the beat under way. An image that was never written
    /// is forgotten when a newer one comes. `begin_by_ns`: as long as this thread has written nothing, the write is not
    /// begun after this time of CLOCK_BOOTTIME, but ends as [`IoFault::Expired`].
    ///
    /// # Panics
    /// If `image` is not above the last one, or the heartbeat is not one that can be encoded.
    pub fn publish(&self, image: u64, heartbeat: Heartbeat, urgent: bool, begin_by_ns: Option<u64>) {
        if let Err(fault) = heartbeat.check() {
            panic!("image {image} of the own heartbeat cannot be written: {fault}");
        }
        let mut shared = self.link.lock();
        let last = shared.newest.as_ref().map_or(0, |newest| newest.id);
        assert!(image > last, "image {image} is not newer than {last}");
        shared.newest = Some(Image { id: image, heartbeat, begin_by_ns });
        shared.urgent |= urgent;
        drop(shared);
        if urgent {
            self.link.wake();
        }
    }

    /// For the note, from the next write on: no ballot is cast before.
    pub fn set_ballots_from(&self, ns: u64) {
        self.link.lock().ballots_from_ns = Some(ns);
    }

    /// Begins a beat at once, or right after the one under way.
    pub fn look(&self) {
        self.link.lock().urgent = true;
        self.link.wake();
    }

    /// Publishes and waits until the image, or a newer one, is on disk: for a clean end.
    ///
    /// # Errors
    /// [`PublishError`], when the image may not be on disk.
    pub fn publish_and_wait(&self, image: u64, heartbeat: Heartbeat, timeout: Duration) -> Result<(), PublishError> {
        let until = Instant::now() + timeout;
        self.publish(image, heartbeat, true, None);
        let mut shared = self.link.lock();
        loop {
            if shared.written >= image {
                return Ok(());
            }
            if let Some((_, fault)) = shared.failed.filter(|&(id, _)| id >= image) {
                return Err(PublishError::Failed(fault));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(PublishError::Timeout);
            }
            (shared, _) = self.link.ended.wait_timeout(shared, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the thread after the beat under way. False: it has not ended within `timeout`, because the device hangs;
    /// its write may still land.
    pub fn stop(mut self, timeout: Duration) -> bool {
        self.tell_to_stop();
        let ended = self.ended.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected);
        if let Some(thread) = self.thread.take().filter(|_| ended) {
            // A panic of the thread has been printed by the panic hook.
            let _ = thread.join();
        }
        ended
    }

    fn tell_to_stop(&self) {
        self.link.lock().stop = true;
        self.link.wake();
    }
}

impl Drop for HeartbeatThread {
    fn drop(&mut self) {
        self.tell_to_stop();
    }
}

enum Wake {
    Stop,
    /// Something asked for a beat.
    Urgent,
    /// R has passed.
    Tick,
}

struct Worker {
    config: HeartbeatConfig,
    link: Arc<Link>,
    timer: TimerFd,
    sector: AlignedBuf,
    region: AlignedBuf,
    hb_seq: u64,
    /// When the last write that ended well began.
    wrote_ns: Option<u64>,
    /// The next scheduled beat: start + n * R, so that lateness does not add up.
    next_tick_ns: u64,
    suspended: bool,
}

impl Worker {
    fn new(config: HeartbeatConfig, link: Arc<Link>, timer: TimerFd) -> Worker {
        let sector = AlignedBuf::zeroed(config.geometry.sector.bytes());
        let region = AlignedBuf::zeroed(config.geometry.heartbeat_region_bytes());
        Worker {
            config,
            link,
            timer,
            sector,
            region,
            hb_seq: 0,
            wrote_ns: None,
            next_tick_ns: boottime_ns(),
            suspended: false,
        }
    }

    fn run(mut self) {
        let node = self.config.node;
        if let Err(errno) = sys::make_realtime() {
            tracing::debug!(%node, %errno, "the heartbeat thread has no real-time priority");
        }
        for buf in [&self.sector, &self.region] {
            if let Err(errno) = sys::lock_memory(buf) {
                tracing::debug!(%node, %errno, "the heartbeat thread's buffers are not locked in memory");
            }
        }
        loop {
            match self.wait() {
                Wake::Stop => return,
                Wake::Urgent => {}
                Wake::Tick => {
                    let due_ns = self.next_tick_ns;
                    let renew_ns = self.renew_ns();
                    // Ticks that passed while a beat or the machine stood still are not made up for.
                    let passed = boottime_ns().saturating_sub(due_ns) / renew_ns;
                    self.next_tick_ns = due_ns + (passed + 1) * renew_ns;
                    if self.core_stands_still() {
                        continue;
                    }
                }
            }
            let beat = self.beat();
            if self.config.beats.send(beat).is_err() {
                return;
            }
            let _ = self.config.kick.write(1);
        }
    }

    fn renew_ns(&self) -> u64 {
        (self.config.renew.as_nanos() as u64).max(1)
    }

    fn wait(&mut self) -> Wake {
        loop {
            let _ = self.link.wake.read();
            {
                let mut shared = self.link.lock();
                if shared.stop {
                    return Wake::Stop;
                }
                if std::mem::take(&mut shared.urgent) {
                    return Wake::Urgent;
                }
            }
            if boottime_ns() >= self.next_tick_ns {
                return Wake::Tick;
            }
            let at = TimeSpec::from_duration(Duration::from_nanos(self.next_tick_ns));
            // Absolute and on CLOCK_BOOTTIME: after a sleep of the machine it rings at once.
            let armed = self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME);
            // Without a timer (which cannot be) it looks every 10 ms.
            let timeout = if armed.is_ok() { PollTimeout::NONE } else { PollTimeout::from(10u8) };
            let mut fds = [
                PollFd::new(self.link.wake.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            ];
            // EINTR: round again.
            let _ = poll(&mut fds, timeout);
        }
    }

    /// Section 5: no renewal for a core that has not run for 2R.
    fn core_stands_still(&mut self) -> bool {
        let silent_ns = boottime_ns().saturating_sub(self.config.core_alive.load(Ordering::Acquire));
        let still = silent_ns > 2 * self.renew_ns();
        if still != self.suspended {
            self.suspended = still;
            let node = self.config.node;
            if still {
                tracing::error!(%node, silent_ms = silent_ns / 1_000_000, "the core does not run: the heartbeat is not renewed");
            } else {
                tracing::warn!(%node, "the core runs again: the heartbeat is renewed");
            }
        }
        still
    }

    fn beat(&mut self) -> Beat {
        let began_ns = boottime_ns();
        let write = self.write_own();
        let read = self.read_region();
        let took_ns = boottime_ns() - began_ns;
        if took_ns > 2 * self.renew_ns() {
            tracing::warn!(
                node = %self.config.node,
                took_ms = took_ns / 1_000_000,
                renew_ms = self.config.renew.as_millis() as u64,
                "a heartbeat took more than two renewals: the storage is slow"
            );
        }
        Beat { write, read }
    }

    fn write_own(&mut self) -> Option<BeatWrite> {
        let (image, mut heartbeat, begin_by_ns, ballots_from_ns) = {
            let mut shared = self.link.lock();
            let ballots_from_ns = shared.ballots_from_ns.take();
            let newest = shared.newest.as_ref()?;
            (newest.id, newest.heartbeat.clone(), newest.begin_by_ns, ballots_from_ns)
        };
        if let (Some(note), Some(ns)) = (&mut self.config.note, ballots_from_ns) {
            note.core_votes_from(ns);
        }
        if self.is_anothers(&heartbeat) {
            return None;
        }
        let started_ns = boottime_ns();
        if self.wrote_ns.is_none() && begin_by_ns.is_some_and(|by| started_ns > by) {
            let (hb_seq, result) = (self.hb_seq, Err(IoFault::Expired));
            return Some(BeatWrite { image, hb_seq, started_ns, ended_ns: started_ns, result });
        }
        self.hb_seq += 1;
        heartbeat.hb_seq = self.hb_seq;
        heartbeat.timestamp_ms = realtime_ms();
        heartbeat.boottime_ns = started_ns;
        fill_sector(&heartbeat.encode(), &mut self.sector);
        let offset = self.config.geometry.heartbeat_offset(self.config.node);
        if let Some(note) = &mut self.config.note {
            note.begins();
        }
        let wrote = retry(|| nix::sys::uio::pwrite(&self.config.file, &self.sector, offset as i64));
        let result = IoFault::check(self.sector.len(), wrote);
        let ended_ns = boottime_ns();
        if let Some(note) = &mut self.config.note {
            note.ended(result.is_ok(), ended_ns);
        }

        if result.is_ok() {
            self.wrote_ns = Some(started_ns);
        }
        let mut shared = self.link.lock();
        match result {
            Ok(()) => shared.written = image,
            Err(fault) => shared.failed = Some((image, fault)),
        }
        drop(shared);
        self.link.ended.notify_all();
        Some(BeatWrite { image, hb_seq: self.hb_seq, started_ns, ended_ns, result })
    }

    /// Whether another node has written the own sector since this one did (section 4). Two nodes on two hosts that claim
    /// a slot in the same moment write it in turn, and each finds its own image when it reads after its own write: so
    /// the sector is looked at before a write, too. Not in a burst of beats: the first one of it has looked.
    fn is_anothers(&mut self, own: &Heartbeat) -> bool {
        let quiet_ns = self.renew_ns() / 2;
        if self.wrote_ns.is_none_or(|wrote_ns| boottime_ns().saturating_sub(wrote_ns) < quiet_ns) {
            return false;
        }
        let offset = self.config.geometry.heartbeat_offset(self.config.node);
        let read = retry(|| nix::sys::uio::pread(&self.config.file, &mut self.sector, offset as i64));
        if IoFault::check(self.sector.len(), read).is_err() {
            return false;
        }
        Heartbeat::decode(self.config.node, &self.sector)
            .is_ok_and(|found| (found.node_uuid, found.boot_id) != (own.node_uuid, own.boot_id))
    }

    fn read_region(&mut self) -> Result<BeatRead, IoFault> {
        let issued_ns = boottime_ns();
        let unreadable = read_sectors(&self.config.file, 0, &mut self.region, self.config.geometry.sector.bytes())?;
        let ended_ns = boottime_ns();
        Ok(BeatRead { issued_ns, ended_ns, region: decode_region(&self.region, &unreadable, self.config.geometry) })
    }
}

fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Fills `buf` with one read; if that fails, sector by sector, so that a bad sector costs no other. Returns the
/// indices of the sectors that cannot be read, whose bytes are zero.
///
/// # Errors
/// The fault of the whole read, when not a single sector can be read.
pub(crate) fn read_sectors(
    file: &File,
    offset: u64,
    buf: &mut [u8],
    sector: usize,
) -> Result<Vec<(usize, IoFault)>, IoFault> {
    let whole = retry(|| nix::sys::uio::pread(file, buf, offset as i64));
    let Err(fault) = IoFault::check(buf.len(), whole) else { return Ok(Vec::new()) };
    let count = buf.len() / sector;
    let mut unreadable = Vec::new();
    for (i, bytes) in buf.chunks_exact_mut(sector).enumerate() {
        let at = offset + (i * sector) as u64;
        if let Err(fault) = IoFault::check(sector, retry(|| nix::sys::uio::pread(file, bytes, at as i64))) {
            bytes.fill(0);
            unreadable.push((i, fault));
        }
    }
    if unreadable.len() == count { Err(fault) } else { Ok(unreadable) }
}

pub(crate) fn decode_region(bytes: &[u8], unreadable: &[(usize, IoFault)], geometry: Geometry) -> Box<Region> {
    let mut sectors = bytes.chunks_exact(geometry.sector.bytes());
    let mut nodes = NodeId::all();
    Box::new(std::array::from_fn(|i| {
        let node = nodes.next().expect("64 nodes");
        let sector = sectors.next().expect("64 sectors");
        match unreadable.iter().find(|&&(bad, _)| bad == i) {
            Some((_, fault)) => Err(HeartbeatError { node, fault: Fault::Unreadable { errno: fault.errno() as i32 } }),
            None => Heartbeat::decode(node, sector),
        }
    }))
}
