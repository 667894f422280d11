//! Watching client processes: a pidfd each (DESIGN section 7, "process gone (pidfd)").

use super::wake::{Wake, WakeSet};
use crate::host::process::start_time;
use mxlock_format::Process;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

/// The processes that the core wants to hear the end of.
#[derive(Debug, Default)]
pub(crate) struct ProcessWatch {
    watched: HashMap<Process, Watched>,
    by_number: HashMap<u32, Process>,
    next_number: u32,
}

#[derive(Debug)]
struct Watched {
    number: u32,
    /// `None`: the kernel gave none (too many open files), so /proc is looked at now and then.
    pidfd: Option<OwnedFd>,
}

impl ProcessWatch {
    /// Watches `process`; false when it is gone.
    pub(crate) fn watch(&mut self, process: Process, wakes: &WakeSet) -> bool {
        if self.watched.contains_key(&process) {
            return true;
        }
        let pidfd = match pidfd_open(process.pid) {
            Ok(fd) => Some(fd),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return false,
            Err(error) => {
                tracing::warn!(pid = process.pid, %error, "no pidfd: the process is looked at every renewal instead");
                None
            }
        };
        // The descriptor is of whoever has the pid now: only the start time tells that it is the one that is meant.
        if start_time(process.pid) != Some(process.start_time) {
            return false;
        }
        self.next_number = self.next_number.wrapping_add(1);
        let number = self.next_number;
        let pidfd = pidfd.filter(|fd| wakes.when_readable(fd, Wake::Process(number)).is_ok());
        self.watched.insert(process, Watched { number, pidfd });
        self.by_number.insert(number, process);
        true
    }

    /// No more interest in `process`.
    pub(crate) fn unwatch(&mut self, process: Process, wakes: &WakeSet) {
        if let Some(watched) = self.watched.remove(&process) {
            self.by_number.remove(&watched.number);
            if let Some(fd) = watched.pidfd {
                wakes.remove(fd);
            }
        }
    }

    /// The process behind a wake-up; it has ended, and is forgotten.
    pub(crate) fn ended(&mut self, number: u32, wakes: &WakeSet) -> Option<Process> {
        let process = *self.by_number.get(&number)?;
        self.unwatch(process, wakes);
        Some(process)
    }

    /// Those without a pidfd that have ended; they are forgotten.
    pub(crate) fn sweep(&mut self, wakes: &WakeSet) -> Vec<Process> {
        let gone: Vec<Process> = self
            .watched
            .iter()
            .filter(|(process, watched)| watched.pidfd.is_none() && start_time(process.pid) != Some(process.start_time))
            .map(|(process, _)| *process)
            .collect();
        for &process in &gone {
            self.unwatch(process, wakes);
        }
        gone
    }
}

/// A descriptor that is readable when the process with this pid has ended.
#[allow(unsafe_code)]
fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0 as libc::c_long) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::process;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    #[test]
    fn the_end_of_a_process_wakes() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (wakes, mut watch) = (WakeSet::new().unwrap(), ProcessWatch::default());
        let it = process(child.id()).unwrap();
        assert!(watch.watch(it, &wakes));
        assert!(watch.watch(it, &wakes), "twice is once");
        let mut seen = Vec::new();
        wakes.take(&mut seen);
        assert_eq!(seen, []);
        drop(child.stdin.take());
        child.wait().unwrap();
        poll(&mut [PollFd::new(wakes.as_fd(), PollFlags::POLLIN)], PollTimeout::from(5_000u16)).unwrap();
        wakes.take(&mut seen);
        let [Wake::Process(number)] = seen[..] else { panic!("{seen:?}") };
        assert_eq!(watch.ended(number, &wakes), Some(it));
        assert_eq!(watch.ended(number, &wakes), None);
    }

    #[test]
    fn a_reused_pid_is_not_the_process() {
        let (wakes, mut watch) = (WakeSet::new().unwrap(), ProcessWatch::default());
        let me = process(std::process::id()).unwrap();
        assert!(!watch.watch(Process { start_time: me.start_time + 1, ..me }, &wakes));
        assert!(watch.watch(me, &wakes));
        watch.unwatch(me, &wakes);
        assert!(watch.by_number.is_empty());
    }
}
