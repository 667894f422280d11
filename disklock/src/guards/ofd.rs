//! Open-file-description byte locks: they belong to the open file, not to the process, so that threads and forks do
//! not lose them by closing another descriptor of the same file.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::ops::Range;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Shared,
    Exclusive,
    Unlock,
}

fn description(kind: Kind, bytes: Range<u64>) -> libc::flock {
    let l_type = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
        Kind::Unlock => libc::F_UNLCK,
    };
    libc::flock {
        l_type: l_type as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: bytes.start as libc::off_t,
        l_len: (bytes.end - bytes.start) as libc::off_t,
        l_pid: 0,
    }
}

/// Sets a lock without waiting. `Ok(false)`: somebody else has one that conflicts.
pub(super) fn try_lock(file: &File, kind: Kind, bytes: Range<u64>) -> Result<bool, Errno> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&description(kind, bytes))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether a lock of this kind could be set, without setting it.
pub(super) fn would_lock(file: &File, kind: Kind, bytes: Range<u64>) -> Result<bool, Errno> {
    let mut lock = description(kind, bytes);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) == libc::F_UNLCK)
}
