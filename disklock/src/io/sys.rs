//! System calls that nix does not wrap safely.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

mod ioctl {
    nix::ioctl_read_bad!(blksszget, libc::BLKSSZGET, libc::c_int);
    nix::ioctl_read_bad!(blkpbszget, nix::request_code_none!(0x12, 123), libc::c_uint);
    nix::ioctl_read!(blkgetsize64, 0x12, 114, libc::size_t);
}

/// Writes `buf` at `offset` so that it is on stable storage when the call returns, through a descriptor that was
/// opened without O_DSYNC. One descriptor serves both kinds of write, so the per-node guard that sits on it
/// (section 8) covers both.
pub(crate) fn pwrite_dsync(fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> Result<usize, Errno> {
    let iov = libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() };
    // SAFETY: `iov` describes `buf`, which outlives the call; pwritev2 only reads through it.
    let wrote = unsafe { libc::pwritev2(fd.as_raw_fd(), &iov, 1, offset as libc::off_t, libc::RWF_DSYNC) };
    Errno::result(wrote).map(|n| n as usize)
}

/// What the file demands of O_DIRECT offsets and lengths, in bytes. `None`: the kernel (before 6.1) or the file
/// system does not say, or has no O_DIRECT.
pub(crate) fn direct_alignment(fd: BorrowedFd<'_>) -> Option<u32> {
    // SAFETY: an all-zero statx is a valid value of that plain C struct.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is an empty C string and `stat` is writable for the duration of the call.
    let rc =
        unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &raw mut stat) };
    (rc == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0 && stat.stx_dio_offset_align != 0)
        .then_some(stat.stx_dio_offset_align)
}

/// Logical and physical sector size and length of a block device, in bytes.
pub(crate) fn device_geometry(fd: BorrowedFd<'_>) -> Result<(u32, u32, u64), Errno> {
    let (mut logical, mut physical, mut bytes) = (0, 0, 0);
    // SAFETY: each of the three ioctls writes one integer of the type that its wrapper demands.
    unsafe {
        ioctl::blksszget(fd.as_raw_fd(), &mut logical)?;
        ioctl::blkpbszget(fd.as_raw_fd(), &mut physical)?;
        ioctl::blkgetsize64(fd.as_raw_fd(), &mut bytes)?;
    }
    Ok((logical as u32, physical, bytes as u64))
}

/// Pins `buf` in memory, so that a heartbeat never waits for a page to come back from a slow disk.
pub(crate) fn lock_memory(buf: &[u8]) -> Result<(), Errno> {
    // SAFETY: mlock does not touch the contents; the range is that of a live slice. The kernel drops the lock
    // when the pages are unmapped.
    Errno::result(unsafe { libc::mlock(buf.as_ptr().cast(), buf.len()) }).map(drop)
}

/// Gives the calling thread SCHED_FIFO at the lowest real-time priority: above all ordinary work.
pub(crate) fn make_realtime() -> Result<(), Errno> {
    // SAFETY: sched_param is a plain C struct of integers.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = 1;
    // SAFETY: pid 0 is the calling thread and `param` lives across the call.
    Errno::result(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &param) })
        .map(drop)
}
