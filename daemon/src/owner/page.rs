//! The lease page: a sealed memfd that every client maps (DESIGN section 5; layout in `mxlock_proto::page`).
#![allow(unsafe_code)]

use mxlock_dlm::time::BootTime;
use mxlock_format::Incarnation;
use mxlock_proto::page::{LeasePage, PAGE_BYTES, PageWords};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// The daemon's writable view of the page, and the descriptor that clients get. They cannot write: the seals forbid
/// every writable mapping and write(2) after ours.
#[derive(Debug)]
pub(crate) struct SharedPage {
    fd: OwnedFd,
    start: NonNull<c_void>,
}

impl SharedPage {
    /// A new page; the lease is not held.
    pub(crate) fn new(incarnation: Incarnation, grace_ms: u32) -> io::Result<SharedPage> {
        let fd = memfd_create(c"mxlock-lease", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(&fd, PAGE_BYTES as i64)?;
        let length = NonZeroUsize::new(PAGE_BYTES).expect("a page has bytes");
        // SAFETY: a new shared mapping at an address that the kernel chooses; nothing else of ours is touched.
        let start =
            unsafe { mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &fd, 0) }?;
        let page = SharedPage { fd, start };
        LeasePage::init(page.words(), incarnation, grace_ms);
        // Shrinking would kill whoever reads; the rest keeps clients from writing. Sealed last: nothing changes it.
        let seals = SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::from_bits_retain(libc::F_SEAL_FUTURE_WRITE)
            | SealFlag::F_SEAL_SEAL;
        fcntl(&page.fd, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(page)
    }

    /// The lease runs until then; `None`: it is lost.
    pub(crate) fn set(&self, until: Option<BootTime>) {
        if let Ok(page) = LeasePage::open(self.words()) {
            page.set_deadline_ns(until.map_or(0, |time| time.0));
        }
    }

    /// The node goes on under this incarnation: the next lease is not that of the locks it had before.
    pub(crate) fn set_incarnation(&self, incarnation: Incarnation) {
        if let Ok(page) = LeasePage::open(self.words()) {
            page.set_incarnation(incarnation);
        }
    }

    fn words(&self) -> &PageWords {
        // SAFETY: the mapping is `PAGE_BYTES` long, page-aligned and lives as long as `self`; the words are atomics, so
        // shared access is all that is ever needed.
        unsafe { self.start.cast::<PageWords>().as_ref() }
    }
}

impl AsFd for SharedPage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start, PAGE_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_proto::page::LeasePage;
    use std::os::unix::fs::FileExt;

    /// Section 5: a client maps the page read-only, sees the deadline, and can neither write nor cut it.
    #[test]
    fn clients_read_and_cannot_write() {
        let page = SharedPage::new(Incarnation(7), 300).unwrap();
        page.set(Some(BootTime(42)));
        let file = std::fs::File::from(page.as_fd().try_clone_to_owned().unwrap());
        let mut bytes = [0; PAGE_BYTES];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes[16..24].try_into().unwrap()), 42);
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(8192).is_err());
        let length = NonZeroUsize::new(PAGE_BYTES).unwrap();
        // SAFETY: the mapping must fail; if it did not, nothing would use it.
        let writable = unsafe { mmap(None, length, ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &file, 0) };
        assert!(writable.is_err());
        page.set(None);
        page.set_incarnation(Incarnation(8));
        let seen = LeasePage::open(page.words()).unwrap();
        assert_eq!((seen.deadline_ns(), seen.incarnation()), (0, Incarnation(8)));
    }
}
