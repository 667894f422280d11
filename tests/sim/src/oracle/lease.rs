//! Section 5: the lease of a node, as the page that its clients map tells it.
//!
//! It ends L after the start of the last write of the own heartbeat, or of the last read of the region, that succeeded,
//! whichever began earlier. Once it has run out it stands again only by a view that was committed since.

use crate::clock::{MS, Time};
use mxlock_dlm::io::Beat;
use mxlock_dlm::time::BootTime;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is known of a daemon run.
#[derive(Default)]
struct Run {
    /// Start of the last write that succeeded, on the clock of its host.
    wrote: Option<BootTime>,
    /// Start of the last read that succeeded.
    read: Option<BootTime>,
    /// When the lease ends that the page shows, in true time.
    page: Option<Time>,
    /// When it ran out or was taken back, if it has not stood again since; in true time.
    over_since: Option<Time>,
}

impl Run {
    /// When the lease ends that the last good beat gives.
    fn good_until(&self, length: Duration) -> Option<BootTime> {
        Some(self.wrote?.min(self.read?) + length)
    }
}

/// The leases of all daemon runs.
#[derive(Default)]
pub struct Leases {
    runs: BTreeMap<u32, Run>,
}

impl Leases {
    /// The heartbeat thread has done a turn.
    pub fn beat(&mut self, run: u32, beat: &Beat) {
        let known = self.runs.entry(run).or_default();
        let wrote = beat.write.as_ref().filter(|write| write.result.is_ok());
        known.wrote = known.wrote.max(wrote.map(|write| write.started));
        if let (Some(_), Some(Ok(read))) = (wrote, &beat.read) {
            known.read = known.read.max(Some(read.issued));
        }
    }

    /// Whether a daemon has a lease by its beats, on the clock of its host: it need not show it.
    pub fn stands(&self, run: u32, now: BootTime, length: Duration) -> bool {
        self.runs.get(&run).is_some_and(|known| known.good_until(length) > Some(now))
    }

    /// A daemon writes its page: the end of its lease on its own clock and in true time. `now`: it writes, and decided to
    /// (it may have been stopped in between, with nobody to take the old word for its last). `length`: L; `newest_view`:
    /// when the newest view was committed.
    ///
    /// # Errors
    /// The lease is longer than the last beat allows, or stands again without a view.
    pub fn page(
        &mut self,
        run: u32,
        until: Option<(BootTime, Time)>,
        (now, decided): (Time, Time),
        length: Duration,
        newest_view: Option<Time>,
    ) -> Result<(), String> {
        let known = self.runs.entry(run).or_default();
        let before = std::mem::replace(&mut known.page, until.map(|(_, end)| end));
        if let Some(end) = before.filter(|&end| end <= now || until.is_none()) {
            known.over_since.get_or_insert(end.min(now));
        }
        let Some((until, end)) = until else { return Ok(()) };
        let Some(limit) = known.good_until(length) else {
            return Err(format!("run {run} has a lease until {until:?} without a good beat"));
        };
        if until > limit {
            return Err(format!("run {run} has a lease until {until:?}, but its last good beat is good for {limit:?}"));
        }
        if end <= now {
            // The daemon was paused before it could say so: it does not stand.
            return Ok(());
        }
        match known.over_since.take() {
            Some(since) if decided > since && newest_view.is_none_or(|at| at <= since) => {
                Err(format!("run {run}: its lease was over at {} ms and stands again without a view", since / MS))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SEC;
    use mxlock_dlm::io::{BeatRead, BeatWrite, ImageId, Region};
    use mxlock_format::{ClusterKey, Epoch, Geometry, Heartbeat, NodeId, SectorSize, Superblock, Timing, Uuid};

    const L: Duration = Duration::from_secs(8);

    fn at(s: u64) -> BootTime {
        BootTime(s * SEC)
    }

    fn until(s: u64) -> Option<(BootTime, Time)> {
        Some((at(s), s * SEC))
    }

    fn region() -> Box<Region> {
        let superblock = Superblock {
            geometry: Geometry { sector: SectorSize::S512, slot_count: 64 },
            timing: Timing::FAST,
            lockspace: "test".to_owned(),
            uuid: Uuid([7; 16]),
            key: ClusterKey([9; 32]),
            feature_level: 1,
        };
        let sectors: Vec<_> = NodeId::all().map(|node| Ok(Heartbeat::empty(node, &superblock, Epoch(1)))).collect();
        Box::new(sectors.try_into().expect("64 sectors"))
    }

    fn beat(started: BootTime, issued: BootTime) -> Beat {
        let write = BeatWrite { image: ImageId(1), hb_seq: 1, started, result: Ok(()) };
        Beat { write: Some(write), read: Some(Ok(BeatRead { issued, ended: issued, region: region() })) }
    }

    #[test]
    fn a_lease_that_is_too_long_is_seen() {
        let mut leases = Leases::default();
        assert!(leases.page(1, until(9), (SEC, SEC), L, None).is_err(), "no beat yet");
        leases.beat(1, &beat(at(1), at(2)));
        assert!(leases.page(1, until(9), (2 * SEC, 2 * SEC), L, None).is_ok());
        assert!(leases.page(1, until(10), (2 * SEC, 2 * SEC), L, None).is_err(), "the write began at 1");
    }

    #[test]
    fn a_lease_that_comes_back_by_itself_is_seen() {
        let mut leases = Leases::default();
        for (run, view, fine) in [(1, 5 * SEC, false), (2, 11 * SEC, true)] {
            leases.beat(run, &beat(at(1), at(1)));
            assert!(leases.page(run, until(9), (SEC, SEC), L, Some(0)).is_ok());
            leases.beat(run, &beat(at(10), at(10)));
            assert_eq!(leases.page(run, until(18), (12 * SEC, 12 * SEC), L, Some(view)).is_ok(), fine);
        }
    }
}
