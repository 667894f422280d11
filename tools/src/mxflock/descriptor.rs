//! The descriptor that a lock hangs on: opening it, its path, and its flock(2) lock, which shows how long it lives.
//!
//! A lock of flock(2) belongs to the *open file description*: it lasts until all descriptors of it are closed, in
//! whatever processes, or until it is removed through any of them. The kernel shows the process that took it, in
//! `/proc/locks` while it stands and in `/proc/PID/fdinfo/N` for every descriptor of the description. The keeper takes one
//! and takes no other, so its own process id tells this lock from all others on the machine.
#![allow(unsafe_code)]

use crate::common::failure::{Code, Failure, without_os_code};
use mxlock_format::Mode;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Opens FILE as flock(1) does: for reading, made if need be; a directory as it is. COMMAND inherits it.
///
/// # Errors
/// With flock(1)'s codes: 66 when it cannot be opened, 73 when it cannot be made.
pub(super) fn open(path: &Path) -> Result<File, Failure> {
    let made = File::options().read(true).custom_flags(libc::O_NOCTTY | libc::O_CREAT).mode(0o666).open(path);
    let file = match made {
        // open(2): O_CREAT and a directory do not go together.
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => {
            File::options().read(true).custom_flags(libc::O_NOCTTY).open(path)
        }
        other => other,
    };
    let file = file.map_err(|e| {
        let code = match e.kind() {
            io::ErrorKind::OutOfMemory => 71,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !path.exists() => 73,
            _ => 66,
        };
        let reason = without_os_code(&e);
        Failure::new(Code::No(code), format!("cannot open lock file {}: {reason}", path.display()))
    })?;
    Ok(file)
}

/// A second descriptor for a number that the caller has open. It is closed on exec; the caller's is not.
///
/// # Errors
/// 65, as flock(1), when it is not open.
pub(super) fn inherited(number: RawFd) -> Result<OwnedFd, Failure> {
    let closed = |e: Errno| {
        let reason = without_os_code(&e.into());
        Failure::new(Code::Data, format!("{number}: {reason}: open it first, as in 'exec {number}>FILE'"))
    };
    // SAFETY: F_DUPFD_CLOEXEC reads the number and makes a new descriptor; on a number that is not open it only fails.
    let duplicate = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    let duplicate = Errno::result(duplicate).map_err(closed)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// Lets COMMAND inherit a descriptor, or not.
pub(super) fn inherit(descriptor: impl AsFd, yes: bool) -> io::Result<()> {
    let flags = if yes { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fcntl(descriptor, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// The path of an open file, as the kernel knows it: absolute, without symbolic links.
///
/// # Errors
/// When it has none: a pipe, or a file that was removed.
pub(super) fn path_of(descriptor: BorrowedFd<'_>) -> Result<PathBuf, Failure> {
    let shown = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
        .map_err(|e| Failure::system("find the path of", "the descriptor in /proc", &e))?;
    let links = std::fs::metadata(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).map_or(0, |found| found.nlink());
    if !shown.has_root() || links == 0 {
        let sentence = format!("{} has no path to lock: give a name with --name", shown.display());
        return Err(Failure::new(Code::Data, sentence));
    }
    Ok(shown)
}

/// Takes the flock(2) lock without waiting; false: another description has it. One that the description has already in the
/// same mode stays as it is, its taker as well.
pub(super) fn flock(descriptor: BorrowedFd<'_>, mode: Mode) -> io::Result<bool> {
    let operation = if mode == Mode::PR { libc::LOCK_SH } else { libc::LOCK_EX };
    match call_flock(descriptor, operation | libc::LOCK_NB) {
        Ok(()) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes the flock(2) lock of a description, whoever took it.
pub(super) fn unflock(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    Ok(call_flock(descriptor, libc::LOCK_UN)?)
}

fn call_flock(descriptor: BorrowedFd<'_>, operation: i32) -> Result<(), Errno> {
    loop {
        // SAFETY: flock(2) on an open descriptor touches no memory.
        match Errno::result(unsafe { libc::flock(descriptor.as_raw_fd(), operation) }) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// A lock of flock(2) as the kernel shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shown {
    /// Who took it.
    pub(super) taker: Pid,
    /// PR or EX.
    pub(super) mode: Mode,
}

/// The flock(2) lock of the description behind a descriptor of this process.
pub(super) fn lock_of(descriptor: BorrowedFd<'_>) -> Option<Shown> {
    let text = std::fs::read(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd())).ok()?;
    text.split(|&b| b == b'\n').filter_map(|line| line.strip_prefix(b"lock:")).find_map(parse_lock)
}

/// Whether the lock that this process has taken stands.
pub(super) fn stands(taker: Pid) -> io::Result<bool> {
    let text = std::fs::read("/proc/locks")?;
    Ok(text.split(|&b| b == b'\n').filter_map(parse_lock).any(|lock| lock.taker == taker))
}

/// The processes that have a descriptor of the description whose lock `taker` took.
pub(super) fn holders(taker: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let descriptors = std::fs::read_dir(entry.path().join("fdinfo")).into_iter().flatten().flatten();
        let has_it = |path: PathBuf| {
            let text = std::fs::read(path).unwrap_or_default();
            let mut locks = text.split(|&b| b == b'\n').filter_map(|line| line.strip_prefix(b"lock:"));
            locks.any(|line| parse_lock(line).is_some_and(|lock| lock.taker == taker))
        };
        if descriptors.into_iter().any(|descriptor| has_it(descriptor.path())) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

/// A line of /proc/locks: `1: FLOCK  ADVISORY  WRITE 4242 fd:00:1234 0 EOF`. Waiting ones (`1: -> FLOCK`) are no locks.
fn parse_lock(line: &[u8]) -> Option<Shown> {
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.split_whitespace().skip(1);
    if words.next() != Some("FLOCK") {
        return None;
    }
    let mode = match words.nth(1)? {
        "READ" => Mode::PR,
        _ => Mode::EX,
    };
    Some(Shown { taker: Pid::from_raw(words.next()?.parse().ok()?), mode })
}

/// Wakes the keeper, which watches for descriptors of the file being closed. Where that fails the keeper looks by itself a
/// little later.
pub(super) fn wake_keeper(descriptor: BorrowedFd<'_>) {
    drop(File::open(format!("/proc/self/fd/{}", descriptor.as_raw_fd())));
}

/// Whether a process is one of this program.
pub(super) fn is_mxflock(pid: Pid) -> bool {
    std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| OsStr::from_bytes(name.trim_ascii_end()) == "mxflock")
}

/// A descriptor that is readable once a process has ended; `None` when there is no such process.
pub(super) fn watch_process(pid: Pid) -> io::Result<Option<OwnedFd>> {
    // SAFETY: pidfd_open(2) takes two numbers and touches no memory.
    let made = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    match Errno::result(made) {
        // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
        Ok(descriptor) => Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })),
        Err(Errno::ESRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Closes all descriptors from 3 on, but for these.
///
/// # Safety
/// Nothing in this process may use any other descriptor afterwards.
pub(super) unsafe fn close_others(kept: &[RawFd]) {
    let mut next = 3;
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    for number in kept.into_iter().map(|number| number as u32).chain([u32::MAX]) {
        if next < number {
            // SAFETY: the caller vouches that nobody uses the numbers in between; without the system call (before Linux
            // 5.9) they stay open.
            unsafe { libc::syscall(libc::SYS_close_range, next, number.saturating_sub(1), 0) };
        }
        next = number.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let held = parse_lock(b"12: FLOCK  ADVISORY  WRITE 4242 fd:00:1234 0 EOF");
        assert_eq!(held, Some(Shown { taker: Pid::from_raw(4_242), mode: Mode::EX }));
        assert_eq!(parse_lock(b"\t1: FLOCK  ADVISORY  READ 7 00:2f:1 0 EOF").map(|lock| lock.mode), Some(Mode::PR));
        for other in ["1: -> FLOCK  ADVISORY  WRITE 1 fd:00:1 0 EOF", "2: POSIX  ADVISORY  WRITE 1 fd:00:1 0 EOF", ""] {
            assert_eq!(parse_lock(other.as_bytes()), None, "{other}");
        }
    }

    /// What everything here rests on: the lock is the description's, not the descriptor's, and the kernel shows who took it.
    #[test]
    fn a_lock_lasts_as_long_as_its_description() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = file.reopen().unwrap();
        let second = first.try_clone().unwrap();
        assert!(flock(first.as_fd(), Mode::EX).unwrap());
        let own = Pid::this();
        assert_eq!(lock_of(second.as_fd()), Some(Shown { taker: own, mode: Mode::EX }));
        assert!(stands(own).unwrap() && holders(own).contains(&own));
        assert!(!flock(file.reopen().unwrap().as_fd(), Mode::PR).unwrap(), "another description is kept out");
        drop(first);
        assert!(stands(own).unwrap());
        drop(second);
        assert!(!stands(own).unwrap());
        assert_eq!(holders(own), []);
    }

    #[test]
    fn paths() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = file.reopen().unwrap();
        assert_eq!(path_of(open.as_fd()).unwrap(), file.path().canonicalize().unwrap());
        drop(file);
        assert_eq!(path_of(open.as_fd()).unwrap_err().code, Code::Data, "removed");
        let (pipe, _) = io::pipe().unwrap();
        assert_eq!(path_of(pipe.as_fd()).unwrap_err().code, Code::Data);
        assert_eq!(inherited(1_000_000).unwrap_err().code, Code::Data);
        assert_eq!(open_code("/nonexistent/file"), 66);
    }

    fn open_code(path: &str) -> u8 {
        super::open(Path::new(path)).unwrap_err().code.number()
    }
}
