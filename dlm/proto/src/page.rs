//! The lease page: a sealed memfd of 4096 bytes that the daemon writes and every client maps read-only, so that a client
//! knows of a lost lease without the daemon (DESIGN section 5). It travels with `Welcome` as SCM_RIGHTS.
//!
//! ```text
//! word 0   magic "MXLKPAGE"          word 3   incarnation of the daemon
//! word 1   layout version            word 4   grace time, milliseconds
//! word 2   lease deadline, CLOCK_BOOTTIME nanoseconds; 0: lost       others: zero
//! ```
//!
//! Words are native u64 (one machine). After the page has been passed on only words 2 and 3 change. A node that was
//! excluded rejoins under a new incarnation: the daemon stores that *before* it sets a deadline again, so that a client
//! that only looks at the page never takes the new lease for that of its old locks. The daemon seals the file
//! with F_SEAL_SHRINK (else a client could get SIGBUS), F_SEAL_GROW and, after mapping it, F_SEAL_FUTURE_WRITE and
//! F_SEAL_SEAL. This file is the layout; who maps the page hands the words in.

use mxlock_format::Incarnation;
use std::sync::atomic::{AtomicU64, Ordering};

/// Size of the page and of its memfd.
pub const PAGE_BYTES: usize = 4096;
/// The page as words.
pub type PageWords = [AtomicU64; PAGE_BYTES / 8];
/// "MXLKPAGE" as a little-endian number.
pub const PAGE_MAGIC: u64 = u64::from_le_bytes(*b"MXLKPAGE");
/// Version of the layout.
pub const PAGE_VERSION: u64 = 1;

const MAGIC: usize = 0;
const VERSION: usize = 1;
const DEADLINE_NS: usize = 2;
const INCARNATION: usize = 3;
const GRACE_MS: usize = 4;

/// What is wrong with a lease page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// Not a lease page.
    #[error("the daemon's lease page has no magic number: what listens on the socket is not mxlockd")]
    Magic,
    /// Another layout.
    #[error("the daemon's lease page has version {0}, this program knows {PAGE_VERSION}: both need the same release")]
    Version(u64),
}

/// A lease page that somebody has mapped.
#[derive(Clone, Copy)]
pub struct LeasePage<'a>(&'a PageWords);

impl<'a> LeasePage<'a> {
    /// Fills in a new, zeroed page: the lease is not held yet. For the daemon.
    pub fn init(words: &'a PageWords, incarnation: Incarnation, grace_ms: u32) -> LeasePage<'a> {
        words[VERSION].store(PAGE_VERSION, Ordering::Relaxed);
        words[INCARNATION].store(incarnation.0, Ordering::Relaxed);
        words[GRACE_MS].store(u64::from(grace_ms), Ordering::Relaxed);
        words[MAGIC].store(PAGE_MAGIC, Ordering::Release);
        LeasePage(words)
    }

    /// The view on a page that was received.
    ///
    /// # Errors
    /// When it is not a page of this layout.
    pub fn open(words: &'a PageWords) -> Result<LeasePage<'a>, PageError> {
        if words[MAGIC].load(Ordering::Acquire) != PAGE_MAGIC {
            return Err(PageError::Magic);
        }
        match words[VERSION].load(Ordering::Relaxed) {
            PAGE_VERSION => Ok(LeasePage(words)),
            found => Err(PageError::Version(found)),
        }
    }

    /// Says until when the lease runs; 0: it is lost. For the daemon, *before* it says so on the socket.
    pub fn set_deadline_ns(self, boottime_ns: u64) {
        self.0[DEADLINE_NS].store(boottime_ns, Ordering::Release);
    }

    /// Says under which incarnation the node goes on. For the daemon, after the old lease and *before* the next one.
    pub fn set_incarnation(self, incarnation: Incarnation) {
        self.0[INCARNATION].store(incarnation.0, Ordering::Release);
    }

    /// The end of the lease in CLOCK_BOOTTIME nanoseconds; 0: it is lost.
    pub fn deadline_ns(self) -> u64 {
        self.0[DEADLINE_NS].load(Ordering::Acquire)
    }

    /// The incarnation that the deadline is for. A reader asks for the deadline first: then a deadline of a new
    /// incarnation comes with at least that incarnation.
    pub fn incarnation(self) -> Incarnation {
        Incarnation(self.0[INCARNATION].load(Ordering::Acquire))
    }

    /// The grace time: what depends on a lost lock must have ended by deadline + grace.
    pub fn grace_ms(self) -> u64 {
        self.0[GRACE_MS].load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for LeasePage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeasePage")
            .field("deadline_ns", &self.deadline_ns())
            .field("incarnation", &self.incarnation())
            .field("grace_ms", &self.grace_ms())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> PageWords {
        [const { AtomicU64::new(0) }; PAGE_BYTES / 8]
    }

    /// Section 5: a client knows the deadline, and a page that was never written to promises nothing.
    #[test]
    fn what_the_daemon_writes_is_what_a_client_reads() {
        let words = words();
        let daemon = LeasePage::init(&words, Incarnation(7), 3_000);
        let client = LeasePage::open(&words).unwrap();
        assert_eq!((client.deadline_ns(), client.incarnation(), client.grace_ms()), (0, Incarnation(7), 3_000));
        daemon.set_incarnation(Incarnation(8));
        daemon.set_deadline_ns(99);
        assert_eq!((client.deadline_ns(), client.incarnation()), (99, Incarnation(8)));
    }

    /// A foreign memfd is not believed.
    #[test]
    fn foreign_pages_are_refused() {
        let words = words();
        assert_eq!(LeasePage::open(&words).unwrap_err(), PageError::Magic);
        LeasePage::init(&words, Incarnation(1), 1);
        words[VERSION].store(2, Ordering::Relaxed);
        assert_eq!(LeasePage::open(&words).unwrap_err(), PageError::Version(2));
    }
}
