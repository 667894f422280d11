//! Judging others by change of their heartbeat (DESIGN section 5).

use crate::io::BeatRead;
use crate::planted::{Bug, planted};
use crate::time::BootTime;
use mxlock_format::{Heartbeat, Incarnation, MAX_NODES, NodeId};
use std::time::Duration;

/// What identifies one heartbeat of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pulse {
    pub(super) incarnation: Incarnation,
    pub(super) hb_seq: u64,
}

impl Pulse {
    pub(super) fn of(heartbeat: &Heartbeat) -> Pulse {
        Pulse { incarnation: heartbeat.incarnation, hb_seq: heartbeat.hb_seq }
    }
}

/// What is known of one slot.
#[derive(Clone, Copy, Debug)]
struct Seen {
    pulse: Pulse,
    /// End of the read that first showed the pulse, or of the first read after a gap in our own I/O.
    since: BootTime,
    /// Issue of the newest read that still showed it.
    latest: BootTime,
    /// End of the read that first showed this incarnation with uncertain writes.
    uncertain_since: Option<BootTime>,
}

/// The silence of every slot, on the own clock.
#[derive(Clone, Debug)]
pub(super) struct Liveness {
    renew: Duration,
    dead: Duration,
    seen: [Option<Seen>; MAX_NODES],
    /// End of the last read that counted; `None` after a failure: the next one begins anew.
    last_end: Option<BootTime>,
}

impl Liveness {
    pub(super) fn new(renew: Duration, dead: Duration) -> Liveness {
        Liveness { renew, dead, seen: [None; MAX_NODES], last_end: None }
    }

    /// Own I/O failed: what the others did meanwhile is not known.
    pub(super) fn own_io_failed(&mut self) {
        self.last_end = None;
    }

    /// A read came back. `started`: when its beat began.
    ///
    /// Silence counts only while the own writes and reads complete within 2R; after a gap it starts anew for all, so
    /// that a machine that slept, or a disk that stalled for everyone, condemns nobody.
    pub(super) fn observe(&mut self, started: BootTime, read: &BeatRead) {
        let limit = self.renew * 2;
        let gap = !planted(Bug::SilenceAcrossStalls)
            && (read.ended.since(started) > limit
                || self.last_end.is_none_or(|last_end| read.ended.since(last_end) > limit));
        self.last_end = Some(read.ended);
        for (seen, sector) in self.seen.iter_mut().zip(read.region.iter()) {
            let Ok(heartbeat) = sector else {
                *seen = None;
                continue;
            };
            let pulse = Pulse::of(heartbeat);
            let before = seen.filter(|seen| !gap && seen.pulse == pulse);
            // A resigned master goes on beating, so this wait is not one for silence; a gap voids it all the same.
            let uncertain_since = seen
                .filter(|seen| !gap && seen.pulse.incarnation == pulse.incarnation)
                .and_then(|seen| seen.uncertain_since)
                .or(Some(read.ended))
                .filter(|_| heartbeat.writes_uncertain);
            let since = before.map_or(read.ended, |seen| seen.since);
            *seen = Some(Seen { pulse, since, latest: read.issued, uncertain_since });
        }
    }

    /// The last pulse seen.
    pub(super) fn pulse(&self, node: NodeId) -> Option<Pulse> {
        self.seen[node.index()].map(|seen| seen.pulse)
    }

    /// How long the node is known to have been silent: from the end of the read that first showed its pulse to the
    /// issue of the last one that did.
    pub(super) fn silence(&self, node: NodeId) -> Duration {
        self.seen[node.index()].map_or(Duration::ZERO, |seen| seen.latest.since(seen.since))
    }

    /// For people: how long ago its pulse was first seen.
    pub(super) fn age(&self, node: NodeId, now: BootTime) -> Option<Duration> {
        self.seen[node.index()].map(|seen| now.since(seen.since))
    }

    /// Whether its sector is known, and its pulse changed within 2R.
    pub(super) fn is_fresh(&self, node: NodeId) -> bool {
        self.seen[node.index()].is_some() && self.silence(node) < self.renew * 2
    }

    /// Silent for D.
    pub(super) fn is_dead(&self, node: NodeId) -> bool {
        self.silence(node) >= if planted(Bug::DeadTooShort) { self.dead / 3 } else { self.dead }
    }

    /// Whether a master's word that its writes are uncertain has been heard for D (section 4).
    pub(super) fn uncertainty_is_over(&self, node: NodeId) -> bool {
        self.seen[node.index()]
            .and_then(|seen| Some(seen.latest.since(seen.uncertain_since?) >= self.dead))
            .unwrap_or(false)
    }
}
