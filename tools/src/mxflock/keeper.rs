//! The keeper: the process that has the session with the daemon and keeps the lock for as long as the file's open
//! description has its lock of flock(2), that is until the last descriptor is closed or somebody unlocks.

use super::arguments::Request;
use super::channel::{self, Word};
use super::{descriptor, presence};
use crate::common::app::say;
use crate::common::ending::{descendants, kill_time_ns};
use crate::common::failure::{Code, Failure};
use mxlock_client::{Client, ClientError, ConnectOptions, Event, Lock, LockSpec, boottime_ns};
use mxlock_format::{Mode, Resource};
use mxlock_proto::client::Denial;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a flock(2) lock is tried that a plain flock(1) on this machine has.
const FLOCK_INTERVAL: Duration = Duration::from_millis(20);
/// The kernel reports that a descriptor is closed a moment before its lock is gone: the lock is looked for after these
/// times, in milliseconds, and then once more after the last one.
const LOOKS_MS: [u16; 7] = [0, 1, 2, 5, 10, 30, 100];
/// How often the lock is looked for when nothing is reported: it may have been unlocked by plain flock(1). The clock of
/// poll(2) also stands still while the machine sleeps, that of the lease does not.
const LONGEST_NAP_MS: u16 = 1_000;
/// How long the keeper of an earlier lock is given to release it, and how often it is looked for.
const RELEASING: Duration = Duration::from_millis(200);
const RELEASING_INTERVAL: Duration = Duration::from_millis(2);
/// While processes are being ended, how often they are looked for.
const KILL_INTERVAL: Duration = Duration::from_millis(20);
/// Longest wait for the answer to the release: with this process the session ends, and the lock with it.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// What the keeper needs of the process that starts it.
pub(super) struct Orders<'a> {
    pub(super) request: &'a Request,
    pub(super) mode: Mode,
    pub(super) resource: Resource,
    /// A descriptor of the description that the lock hangs on. The keeper closes it.
    pub(super) descriptor: OwnedFd,
    pub(super) front: UnixStream,
    /// The process that runs COMMAND and is to survive a loss, to tell of it.
    pub(super) spared: Option<Pid>,
}

/// Takes the lock, keeps it, releases it. Ends when the lock is gone.
pub(super) fn keep(orders: Orders<'_>) {
    let front = match orders.front.try_clone() {
        Ok(front) => front,
        Err(e) => return channel::say(&orders.front, &Word::failed(Failure::system("keep", "the lock", &e))),
    };
    match keep_until_the_end(orders) {
        Ok(()) => channel::say(&front, &Word::Released),
        // This had to be said earlier.
        Err(Word::Lost(_)) => {}
        Err(word) => channel::say(&front, &word),
    }
}

fn keep_until_the_end(orders: Orders<'_>) -> Result<(), Word> {
    let watch = watch_closes(&orders.descriptor).map_err(Word::failed)?;
    let waiting = Arc::new(AtomicBool::new(true));
    // A front that is interrupted takes its request with it. It is the only one who knows of it, so nothing has to be
    // wound up: the daemon ends the session with the process.
    let front = orders.front.try_clone().map_err(|e| Word::failed(Failure::system("keep", "the lock", &e)))?;
    let still_waiting = Arc::clone(&waiting);
    std::thread::spawn(move || {
        let _ = (&front).read(&mut [0]);
        if still_waiting.load(Ordering::Acquire) {
            std::process::exit(0);
        }
    });
    let options = ConnectOptions::new(orders.request.lockspace.as_deref().unwrap_or(mxlock_client::DEFAULT_LOCKSPACE));
    let options = ConnectOptions { socket: orders.request.socket.clone(), ..options };
    let client = Client::connect(options).map_err(|e| Word::failed(e.into()))?;
    let started = Instant::now();
    let spec =
        LockSpec { mode: orders.mode, timeout: orders.request.timeout, ..LockSpec::new(orders.resource.clone()) };
    let lock = ask(&client, &spec, &orders)?;
    take_flock(&orders, &client, started)?;
    let_go_of_stderr().map_err(|e| Word::failed(Failure::system("keep", "the lock", &e)))?;
    if let Some(reason) = lost(&client, &lock) {
        return Err(Word::failed(Failure::new(Code::NotNow, reason)));
    }
    waiting.store(false, Ordering::Release);
    // Without it a `mxflock -n` that follows may come a moment too early.
    let shown = presence::show(&spec.resource).ok();
    channel::say(&orders.front, &Word::Granted(lock.token().0));
    let Orders { descriptor, front, spared, .. } = orders;
    // Whoever else has the description keeps the lock alive, this process does not.
    drop(descriptor);
    let result = stay(&client, &lock, &watch, &front, spared);
    drop(lock);
    client.close(RELEASE_PATIENCE);
    drop(shown);
    result
}

/// Asks for the lock. A refusal on the spot may come from a keeper on this machine whose file is free again: that one is
/// waited for.
fn ask<'c>(client: &'c Client, spec: &LockSpec, orders: &Orders<'_>) -> Result<Lock<'c>, Word> {
    let started = Instant::now();
    loop {
        // Seen before the question: one that releases the lock after the answer may be gone by then.
        let seen = presence::any(&spec.resource);
        let word = match client.lock(spec) {
            Ok(lock) => return Ok(lock),
            Err(error) => refusal(error),
        };
        let busy = word == Word::Conflict { timed_out: false };
        if !busy || started.elapsed() >= RELEASING || !seen || !is_free(orders) {
            return Err(word);
        }
        client.poll_events(Some(RELEASING_INTERVAL)).map_err(|e| Word::failed(e.into()))?;
    }
}

/// Whether nobody on this machine has the file locked.
fn is_free(orders: &Orders<'_>) -> bool {
    let descriptor = orders.descriptor.as_fd();
    let free = descriptor::flock(descriptor, orders.mode).unwrap_or(false);
    let _ = descriptor::unflock(descriptor);
    free
}

/// Hears of every descriptor of the file that is closed for good.
fn watch_closes(descriptor: &OwnedFd) -> Result<Inotify, Failure> {
    let failed = |e: nix::Error| Failure::system("watch", "the lock file", &e.into());
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(failed)?;
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    watch.add_watch(path.as_str(), AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_CLOSE_NOWRITE).map_err(failed)?;
    Ok(watch)
}

fn refusal(error: ClientError) -> Word {
    match error {
        ClientError::Denied { denial: Denial::TimedOut, .. } => Word::Conflict { timed_out: true },
        ClientError::Denied { denial: Denial::Busy | Denial::Deadlock | Denial::Cancelled, .. } => {
            Word::Conflict { timed_out: false }
        }
        other => Word::failed(other.into()),
    }
}

/// Takes the lock of flock(2) too, which only a plain flock(1) on this machine can have.
fn take_flock(orders: &Orders<'_>, client: &Client, started: Instant) -> Result<(), Word> {
    let failed = |e: std::io::Error| Word::failed(Failure::system("lock", "the file with flock(2)", &e));
    let timeout = orders.request.timeout;
    while !descriptor::flock(orders.descriptor.as_fd(), orders.mode).map_err(failed)? {
        if timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
            return Err(Word::Conflict { timed_out: timeout != Some(Duration::ZERO) });
        }
        client.poll_events(Some(FLOCK_INTERVAL)).map_err(|e| Word::failed(e.into()))?;
    }
    match descriptor::stands(getpid()) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let sentence =
                "the kernel does not show the file's lock in /proc/locks: is /proc that of another namespace?";
            Err(Word::failed(Failure::new(Code::Io, sentence)))
        }
        Err(e) => Err(Word::failed(Failure::system("read", "/proc/locks", &e))),
    }
}

/// Standard error may be the locked file itself: then the keeper would keep its own lock alive.
fn let_go_of_stderr() -> std::io::Result<()> {
    let stderr = std::io::stderr();
    if descriptor::lock_of(stderr.as_fd()).is_some_and(|lock| lock.taker == getpid()) {
        nix::unistd::dup2_stderr(File::options().write(true).open("/dev/null")?)?;
    }
    Ok(())
}

/// Returns when the description has no lock any more, or the lock is lost.
fn stay(
    client: &Client,
    lock: &Lock<'_>,
    watch: &Inotify,
    front: &UnixStream,
    spared: Option<Pid>,
) -> Result<(), Word> {
    let own = getpid();
    let mut looks = 0;
    loop {
        if let Some(reason) = lost(client, lock) {
            channel::say(front, &Word::Lost(reason.clone()));
            if spared.is_none() {
                say("mxflock", &format!("{reason}: ending the processes that rely on the lock"));
            }
            end_holders(client, own, spared);
            return Err(Word::Lost(reason));
        }
        // What cannot be read is no end.
        if matches!(descriptor::stands(own), Ok(false)) {
            return Ok(());
        }
        let nap = LOOKS_MS.get(looks).copied().unwrap_or_else(|| nap_ms(client));
        looks = (looks + 1).min(LOOKS_MS.len());
        let mut waited = vec![PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        if let Ok(daemon) = client.as_fd() {
            waited.push(PollFd::new(daemon, PollFlags::POLLIN));
        }
        // An interrupted or failed poll is a short sleep: the loop looks at everything again.
        let _ = poll(&mut waited, PollTimeout::from(nap));
        if watch.read_events().is_ok() {
            looks = 0;
        }
    }
}

/// Until the lease's deadline, but not long.
fn nap_ms(client: &Client) -> u16 {
    let left_ns = client.lease().map_or(0, |lease| lease.deadline_ns().saturating_sub(boottime_ns()));
    // Rounded up: waking too early would spin.
    u16::try_from(left_ns / 1_000_000 + 1).unwrap_or(u16::MAX).min(LONGEST_NAP_MS)
}

/// Why the lock is lost, if it is. The lease is asked after the events, because the daemon writes the page before it says so.
fn lost(client: &Client, lock: &Lock<'_>) -> Option<String> {
    // The client connects again by itself; what it cannot mend shows as the lease's end.
    for event in client.poll_events(Some(Duration::ZERO)).unwrap_or_default() {
        match event {
            Event::Lost { loss, .. } => return Some(format!("the lock on '{}' is lost: {loss}", lock.resource())),
            Event::LeaseLost => return Some("this node has lost its lease".to_owned()),
            _ => {}
        }
    }
    (!lock.is_valid()).then(|| "the lease's deadline has passed and the daemon does not answer".to_owned())
}

/// SIGTERM at once, SIGKILL after three quarters of the grace time, for all who have the description and what they started
/// (section 5: what depends on a lost lock must have ended by deadline + grace).
fn end_holders(client: &Client, own: Pid, spared: Option<Pid>) {
    let kill_at_ns = client.lease().map_or(0, |lease| kill_time_ns(&lease, boottime_ns()));
    let mut asked = BTreeSet::new();
    loop {
        let holders = descriptor::holders(own);
        // Descendants of a holder need not have the description themselves.
        let below = holders.iter().flat_map(|&holder| descendants(holder));
        let ends: BTreeSet<Pid> =
            holders.iter().copied().chain(below).filter(|&pid| pid != own && Some(pid) != spared).collect();
        if ends.is_empty() {
            return;
        }
        let late = boottime_ns() >= kill_at_ns;
        for pid in ends {
            if late {
                let _ = kill(pid, Signal::SIGKILL);
            } else if asked.insert(pid) {
                let _ = kill(pid, Signal::SIGTERM);
                // A stopped process does not see SIGTERM before it is continued.
                let _ = kill(pid, Signal::SIGCONT);
            }
        }
        std::thread::sleep(KILL_INTERVAL);
    }
}
