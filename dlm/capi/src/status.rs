//! Statuses and errnos for what mxlockd says.

use crate::abi::{ECANCEL, EUNLOCK};
use libc::c_int;
use mxlock_client::{ClientError, Denial};
use nix::errno::Errno;

/// The status of a request that was not granted.
pub(crate) fn of_denial(denial: Denial) -> c_int {
    match denial {
        Denial::Busy => libc::EAGAIN,
        Denial::TimedOut => libc::ETIMEDOUT,
        Denial::Cancelled => ECANCEL,
        Denial::Deadlock => libc::EDEADLK,
        Denial::Invalid => libc::EINVAL,
        Denial::NotFound => libc::ENOENT,
        Denial::InProgress => libc::EBUSY,
        Denial::Permission => libc::EACCES,
        Denial::TableFull => libc::ENOSPC,
        Denial::Limit => libc::ENOMEM,
        // Io, Damaged, SessionOver.
        _ => libc::EIO,
    }
}

/// Whether the request is to be made again until it can be decided. The kernel DLM, too, lets requests wait while its cluster
/// has no quorum or recovers.
pub(crate) fn is_passing(denial: Denial) -> bool {
    matches!(denial, Denial::LeaseLost | Denial::Isolated | Denial::ShuttingDown)
}

/// Why a call failed.
pub(crate) fn of_error(error: &ClientError) -> Errno {
    match error {
        ClientError::Permission { .. } => Errno::EACCES,
        ClientError::Denied { denial, .. } => Errno::from_raw(of_denial(*denial)),
        ClientError::Usage(_) => Errno::EINVAL,
        ClientError::Io { source, .. } => Errno::from_raw(source.raw_os_error().unwrap_or(libc::EIO)),
        _ => Errno::ENOTCONN,
    }
}

/// What a synchronous call of the library without threads returns for a status, which it leaves in errno.
pub(crate) fn returned(status: c_int) -> c_int {
    Errno::set_raw(status);
    if status == 0 || status == EUNLOCK { 0 } else { -1 }
}
