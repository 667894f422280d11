//! While COMMAND runs: its end, signals for it, notices, and the lease.

use super::process::{Ended, FORWARDED, Family, watched_signals};
use crate::common::app::say;
use crate::common::ending::kill_time_ns;
use crate::common::failure::Failure;
use mxlock_client::{Client, Event, boottime_ns};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::AsFd;
use std::time::Duration;

/// Longest sleep: the clock of poll(2) stands still while the machine sleeps, that of the lease does not.
const LONGEST_NAP: Duration = Duration::from_secs(1);
/// While COMMAND is being ended, how often its descendants are looked for.
const KILL_INTERVAL: Duration = Duration::from_millis(20);

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// COMMAND ended by itself while the locks were held, with this exit code.
    Command(u8),
    /// A lock was lost, for this reason; COMMAND and its descendants are gone.
    Lost(String),
}

/// The watch over COMMAND and the locks that it runs under.
pub(super) struct Watch<'a> {
    client: &'a Client,
    family: Family,
    signals: SignalFd,
    on_bast: Option<Signal>,
}

impl<'a> Watch<'a> {
    /// Starts watching; the signals were blocked when COMMAND was started.
    pub(super) fn new(client: &'a Client, family: Family, on_bast: Option<Signal>) -> Result<Watch<'a>, Failure> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&watched_signals(), flags)
            .map_err(|e| Failure::system("watch", "signals", &e.into()))?;
        Ok(Watch { client, family, signals, on_bast })
    }

    /// Returns when COMMAND has ended, by itself or because a lock was lost.
    pub(super) fn until_the_end(mut self) -> End {
        loop {
            // In this order: a machine that slept may have lost the lock before COMMAND ended. The lease is asked after
            // the events, because the daemon writes the page before it says so.
            let ended = self.family.reap();
            if let Some(reason) = self.lost_event().or_else(|| self.lost_lease()) {
                self.end_command(&reason);
                return End::Lost(reason);
            }
            if let Some(Ended(code)) = ended {
                return End::Command(code);
            }
            self.sleep(LONGEST_NAP, true);
            self.take_signals();
        }
    }

    fn lost_event(&mut self) -> Option<String> {
        let events = match self.client.poll_events(Some(Duration::ZERO)) {
            Ok(events) => events,
            // The client connects again by itself; what it cannot mend shows as the lease's end.
            Err(_) => return None,
        };
        for event in events {
            match event {
                Event::Lost { loss, .. } => return Some(format!("a lock is lost: {loss}")),
                Event::LeaseLost => return Some("this node has lost its lease".to_owned()),
                Event::Bast { .. } => {
                    if let Some(signal) = self.on_bast {
                        self.family.signal_command(signal);
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn lost_lease(&self) -> Option<String> {
        match self.client.lease() {
            Some(lease) if lease.is_valid() => None,
            _ => Some("the lease's deadline has passed and the daemon does not answer".to_owned()),
        }
    }

    /// Waits for something to happen. Until the locks are lost the daemon may also have something to say.
    fn sleep(&self, longest: Duration, with_daemon: bool) {
        let until_deadline = self
            .client
            .lease()
            .map_or(Duration::ZERO, |lease| Duration::from_nanos(lease.deadline_ns().saturating_sub(boottime_ns())));
        let nap = if with_daemon { longest.min(until_deadline) } else { longest };
        // Rounded up: waking too early would spin.
        let timeout = PollTimeout::from(nap.as_millis() as u16 + 1);
        let signals = PollFd::new(self.signals.as_fd(), PollFlags::POLLIN);
        // An interrupted or failed poll is a short sleep: the loop looks at everything again.
        let _ = match self.client.as_fd() {
            Ok(daemon) if with_daemon => poll(&mut [signals, PollFd::new(daemon, PollFlags::POLLIN)], timeout),
            _ => poll(&mut [signals], timeout),
        };
    }

    /// Passes signals on. One that the terminal sent has reached COMMAND already, which is in the same process group.
    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = Signal::try_from(info.ssi_signo as i32).ok().filter(|signal| FORWARDED.contains(signal));
            if let Some(signal) = signal.filter(|_| info.ssi_code != libc::SI_KERNEL) {
                self.family.signal_command(signal);
            }
        }
    }

    /// SIGTERM at once, SIGKILL after three quarters of the grace time, until nobody is left (section 5: what depends
    /// on a lost lock must have ended by deadline + grace).
    fn end_command(&mut self, reason: &str) {
        say("mxlock", &format!("{reason}: ending COMMAND"));
        self.family.signal(Signal::SIGTERM);
        // A stopped process does not see SIGTERM before it is continued.
        self.family.signal(Signal::SIGCONT);
        let kill_at_ns = self.client.lease().map_or(0, |lease| kill_time_ns(&lease, boottime_ns()));
        while !self.family.is_gone() {
            let now = boottime_ns();
            if now >= kill_at_ns {
                self.family.signal(Signal::SIGKILL);
                self.sleep(KILL_INTERVAL, false);
            } else {
                self.sleep(KILL_INTERVAL.min(Duration::from_nanos(kill_at_ns - now)), false);
            }
            self.take_signals();
        }
    }
}
