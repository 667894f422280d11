//! The lease page as a client sees it: one memory read tells whether locks may be relied on (DESIGN section 5).
#![allow(unsafe_code)]

use crate::{boottime_ns, error::ProtocolFault};
use memmap2::{MmapOptions, MmapRaw};
use mxlock_format::Incarnation;
use mxlock_proto::page::{LeasePage, PAGE_BYTES, PageWords};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// A node's lease, as its daemon writes it. Cheap to clone, and may be asked from any thread; a clone goes on showing
/// the daemon that it was taken from, so take a new one after [`crate::Event::Reconnected`].
#[derive(Clone, Debug)]
pub struct Lease {
    map: Arc<MmapRaw>,
    /// What an earlier start of the daemon promised. It holds until then whatever becomes of the new daemon: no other
    /// node may act before D after that promise.
    promised_ns: u64,
}

impl Lease {
    /// Maps the page that came with a welcome.
    pub(crate) fn map(page: &OwnedFd, promised_ns: u64) -> Result<Lease, ProtocolFault> {
        // The seal comes first: then the size that is read afterwards cannot shrink any more, and no access to the
        // mapping can raise SIGBUS.
        let seals = fcntl(page.as_fd(), FcntlArg::F_GET_SEALS).map_err(|_| ProtocolFault::PageSeals)?;
        let size = nix::sys::stat::fstat(page.as_fd()).map_err(|e| ProtocolFault::PageMap(e.into()))?.st_size;
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) || size != PAGE_BYTES as i64 {
            return Err(ProtocolFault::PageSeals);
        }
        let map =
            MmapOptions::new().len(PAGE_BYTES).map_raw_read_only(page.as_raw_fd()).map_err(ProtocolFault::PageMap)?;
        let lease = Lease { map: Arc::new(map), promised_ns };
        LeasePage::open(lease.words())?;
        Ok(lease)
    }

    fn words(&self) -> &PageWords {
        // SAFETY: the mapping is PAGE_BYTES long, page-aligned, lives as long as `self`, and cannot lose its memory
        // (F_SEAL_SHRINK was checked). Other processes write it, which atomics allow; this one only loads.
        unsafe { &*self.map.as_ptr().cast::<PageWords>() }
    }

    fn page(&self) -> Result<LeasePage<'_>, io::Error> {
        LeasePage::open(self.words()).map_err(io::Error::other)
    }

    /// The end of the lease in CLOCK_BOOTTIME nanoseconds; 0 when it is lost.
    pub fn deadline_ns(&self) -> u64 {
        self.page().map_or(0, LeasePage::deadline_ns).max(self.promised_ns)
    }

    /// Whether the lease runs at this moment.
    pub fn is_valid(&self) -> bool {
        boottime_ns() < self.deadline_ns()
    }

    /// What depends on a lost lock must have ended by deadline + grace.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.page().map_or(0, LeasePage::grace_ms))
    }

    /// The incarnation under which the daemon is a member.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.page().map_or(Incarnation(0), LeasePage::incarnation)
    }
}
