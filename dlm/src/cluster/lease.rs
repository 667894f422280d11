//! A node's lease (DESIGN section 5): how long it may act without having seen its heartbeat succeed again.

use crate::time::BootTime;
use std::time::Duration;

/// The arithmetic of the lease. Whether it counts (a loss is latched) is [`super::Cluster`]'s matter.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    length: Duration,
    written: Option<BootTime>,
    read: Option<BootTime>,
}

impl Lease {
    pub(super) fn new(length: Duration) -> Lease {
        Lease { length, written: None, read: None }
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// A heartbeat write that succeeded began at `started`. The start counts, not the end: others may have seen the
    /// value as soon as it began, and count their D from there.
    pub(super) fn wrote(&mut self, started: BootTime) {
        self.written = self.written.max(Some(started));
    }

    /// A read that showed the own sector as written was issued at `issued`: up to then nobody had taken the slot.
    pub(super) fn read_back(&mut self, issued: BootTime) {
        self.read = self.read.max(Some(issued));
    }

    /// End of the lease: min(start of the last good write, start of the last good read) + L.
    pub(super) fn until(&self) -> Option<BootTime> {
        Some(self.written?.min(self.read?) + self.length)
    }

    pub(super) fn runs_at(&self, now: BootTime) -> bool {
        self.until().is_some_and(|until| now < until)
    }

    /// Start of the newest beat that was good in both halves.
    pub(super) fn last_good(&self) -> Option<BootTime> {
        Some(self.written?.min(self.read?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> BootTime {
        BootTime(ms * 1_000_000)
    }

    /// Section 5: the lease counts from the *start* of the last good write and read, whichever is earlier.
    #[test]
    fn counts_from_the_earlier_start() {
        let mut lease = Lease::new(Duration::from_millis(800));
        assert_eq!(lease.until(), None);
        lease.wrote(at(100));
        assert_eq!(lease.until(), None, "a write alone proves nothing");
        lease.read_back(at(150));
        assert_eq!(lease.until(), Some(at(900)));
        lease.wrote(at(300));
        assert_eq!(lease.until(), Some(at(950)), "the read back of the second write failed");
        assert!(lease.runs_at(at(949)) && !lease.runs_at(at(950)));
    }

    /// Reports that overtake each other never shorten a lease that was already promised.
    #[test]
    fn never_goes_back() {
        let mut lease = Lease::new(Duration::from_millis(800));
        lease.wrote(at(300));
        lease.read_back(at(310));
        lease.wrote(at(100));
        assert_eq!(lease.until(), Some(at(1100)));
    }
}
