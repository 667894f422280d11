//! A node's lease (DESIGN section 5): how long it may act without having seen its heartbeat succeed again.

use crate::time::BootTime;
use std::time::Duration;

/// The arithmetic of the lease. Whether it counts (a loss is latched) is [`super::Cluster`]'s matter.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    length: Duration,
    good: Option<BootTime>,
}

impl Lease {
    pub(super) fn new(length: Duration) -> Lease {
        Lease { length, good: None }
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// A beat was good: its write, which began at `started`, succeeded, and the read issued after it showed the own sector
    /// as written, so that up to then nobody had taken the slot. The start counts, not the end: others may have seen the
    /// value as soon as it began, and count their D from there. A write whose read failed counts for nothing: the
    /// clients' page, which is told of good beats, would end before the lease does.
    pub(super) fn renewed(&mut self, started: BootTime) {
        self.good = self.good.max(Some(started));
    }

    /// End of the lease: start of the last good beat + L.
    pub(super) fn until(&self) -> Option<BootTime> {
        Some(self.good? + self.length)
    }

    pub(super) fn runs_at(&self, now: BootTime) -> bool {
        self.until().is_some_and(|until| now < until)
    }

    /// Start of the newest beat that was good in both halves.
    pub(super) fn last_good(&self) -> Option<BootTime> {
        self.good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> BootTime {
        BootTime(ms * 1_000_000)
    }

    /// Section 5: the lease counts from the *start* of the last good beat; reports that overtake each other never shorten
    /// a lease that was already promised.
    #[test]
    fn counts_from_the_start_and_never_goes_back() {
        let mut lease = Lease::new(Duration::from_millis(800));
        assert_eq!(lease.until(), None);
        lease.renewed(at(300));
        assert_eq!(lease.until(), Some(at(1100)));
        lease.renewed(at(100));
        assert_eq!(lease.until(), Some(at(1100)));
        assert!(lease.runs_at(at(1099)) && !lease.runs_at(at(1100)));
    }
}
