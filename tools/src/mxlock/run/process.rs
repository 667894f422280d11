//! COMMAND as a child process that cannot outlive the one that holds its locks.
//!
//! The child stays in mxlock's process group, so terminal and job control work as under flock(1). The kernel kills it
//! when mxlock dies (PR_SET_PDEATHSIG). Mxlock is the reaper of all its descendants (PR_SET_CHILD_SUBREAPER), so none of
//! them can hide from [`Family::signal`] by letting its parent die.
#![allow(unsafe_code)]

use crate::common::ending::descendants;
use nix::errno::Errno;
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The signals that are passed on to COMMAND.
pub(super) const FORWARDED: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// The signals that mxlock reads from a descriptor while COMMAND runs.
pub(super) fn watched_signals() -> SigSet {
    FORWARDED.into_iter().chain([Signal::SIGCHLD]).collect()
}

/// How COMMAND ended, as an exit code: its own, or 128+N when signal N ended it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ended(pub(super) u8);

/// COMMAND and everything that it started.
pub(super) struct Family {
    child: Pid,
    ended: Option<Ended>,
    /// Neither COMMAND nor any descendant is left.
    gone: bool,
}

impl Family {
    /// Starts COMMAND with mxlock's own arguments' environment plus `environment`.
    ///
    /// # Errors
    /// That of execve(2) or fork(2).
    pub(super) fn start(command: &[OsString], environment: &[(&str, &OsStr)]) -> io::Result<Family> {
        set_child_subreaper(true)?;
        // An inherited SIG_IGN would make the kernel throw exit statuses away.
        // SAFETY: SIG_DFL installs no handler.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
        let mut old_mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched_signals()), Some(&mut old_mask))?;

        let (program, arguments) = command.split_first().expect("the command line has a COMMAND");
        let mut prepared = Command::new(program);
        prepared.args(arguments).envs(environment.iter().copied());
        die_with_parent(&mut prepared, Signal::SIGKILL);
        // SAFETY: sigprocmask is async-signal-safe, and nothing is allocated.
        unsafe {
            prepared.pre_exec(move || Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&old_mask), None)?));
        }
        let child = prepared.spawn()?;
        Ok(Family { child: Pid::from_raw(child.id() as i32), ended: None, gone: false })
    }

    /// Collects whoever has ended, and says whether COMMAND has.
    pub(super) fn reap(&mut self) -> Option<Ended> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.child => self.ended = Some(Ended(code as u8)),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.child => {
                    self.ended = Some(Ended(128 + signal as i32 as u8));
                }
                Ok(WaitStatus::StillAlive) => return self.ended,
                Err(e) => {
                    self.gone |= e == Errno::ECHILD;
                    return self.ended;
                }
                Ok(_) => {}
            }
        }
    }

    /// Sends a signal to COMMAND alone.
    pub(super) fn signal_command(&self, signal: Signal) {
        if self.ended.is_none() {
            // Until it is reaped its number cannot belong to another process.
            let _ = kill(self.child, signal);
        }
    }

    /// Sends a signal to COMMAND and all its descendants; says how many there are.
    pub(super) fn signal(&mut self, signal: Signal) -> usize {
        self.reap();
        let all = descendants(getpid());
        for &pid in &all {
            let _ = kill(pid, signal);
        }
        all.len()
    }

    /// Whether COMMAND and all its descendants are gone.
    pub(super) fn is_gone(&mut self) -> bool {
        self.reap();
        self.gone
    }
}

/// Lets the kernel send a signal to the child when the thread that starts it ends.
pub(in crate::mxlock) fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = getpid();
    // SAFETY: between fork and exec only prctl and getppid are called: both are async-signal-safe, and nothing is
    // allocated.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(signal)?;
            if getppid() != parent {
                // The parent died before the line above: nobody would end this process.
                return Err(Errno::ESRCH.into());
            }
            Ok(())
        });
    }
}

/// A duplicate of an inherited descriptor, both closed on exec: COMMAND does not inherit it.
///
/// # Errors
/// When the number is no open descriptor.
pub(super) fn take_descriptor(number: u32) -> io::Result<File> {
    let raw = RawFd::try_from(number).map_err(|_| io::Error::from(Errno::EBADF))?;
    // SAFETY: F_GETFD tells whether the number is open and touches nothing; mxlock has opened nothing itself yet, so an
    // open number is one that the caller passed, and nobody in this process closes it.
    let inherited = unsafe {
        if libc::fcntl(raw, libc::F_GETFD) < 0 {
            return Err(io::Error::last_os_error());
        }
        BorrowedFd::borrow_raw(raw)
    };
    let own: OwnedFd = inherited.try_clone_to_owned()?;
    nix::fcntl::fcntl(inherited, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(File::from(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_descriptor_is_refused() {
        assert!(take_descriptor(1_000_000).is_err());
        assert!(take_descriptor(u32::MAX).is_err());
    }
}
