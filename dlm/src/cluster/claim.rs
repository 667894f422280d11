//! Which slot a daemon takes, and what it must wait for before it writes there (DESIGN section 4, "Claiming a slot").

use super::liveness::Pulse;
use crate::io::Region;
use crate::time::BootTime;
use mxlock_format::{Heartbeat, NodeId, NodeSet, NodeState, Uuid, View};
use std::ops::Range;
use std::time::Duration;

/// A slot that may be tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The slot.
    pub node: NodeId,
    /// In which way it may be taken.
    pub kind: ClaimKind,
}

/// How a slot is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClaimKind {
    /// This installation's, from this boot: at once. The guard says that the old daemon's writes have ended.
    OwnSameBoot,
    /// This installation's, from another boot: after D unchanged, because it may be a clone's.
    OwnOtherBoot,
    /// Never used since the format, or left: at once.
    Free,
    /// Another host's that is no member and owed nothing: after D unchanged.
    Foreign {
        /// That host.
        host: String,
    },
}

impl ClaimKind {
    /// Whether D must pass with the sector unchanged before the first write.
    pub const fn waits(&self) -> bool {
        matches!(self, ClaimKind::OwnOtherBoot | ClaimKind::Foreign { .. })
    }

    /// Whether a former owner's last write may still land: then no ballot is cast for D after the claim.
    const fn was_anothers(&self) -> bool {
        matches!(self, ClaimKind::Free | ClaimKind::Foreign { .. })
    }
}

/// Why no slot can be claimed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Exit code 75.
    #[error(
        "slot {node} belongs to host '{host}', which is a member or owed its recovery: choose another one (--node)"
    )]
    Busy {
        /// The slot.
        node: NodeId,
        /// Whose it is.
        host: String,
    },
    /// Exit code 65.
    #[error(
        "the heartbeat sector of slot {node} is damaged ({reason}): take another slot (--node), or let the daemon that owns it write it anew"
    )]
    Damaged {
        /// The slot.
        node: NodeId,
        /// What is wrong with it.
        reason: String,
    },
    /// Exit code 75.
    #[error("all 64 slots are in use: free one with 'mxlock forget NODE' on a running node")]
    Full,
}

/// The committed view with the highest epoch in a region.
pub(super) fn newest_view(region: &Region) -> Option<View> {
    region.iter().flatten().filter_map(|heartbeat| heartbeat.view).max_by_key(|view| view.epoch)
}

/// The slots to try, best first, in a region as just read. `wish`: `--node N`; `remembered`: the slot used before.
/// The driver takes the guard of the first one that it can (section 8) and only then makes its
/// [`super::Cluster`], which looks at the sector again before it writes.
///
/// Without a wish: the own slot, then never-used ones in order, then those left or given up, longest unchanged first.
///
/// # Errors
/// The wished slot is busy, the wished or remembered one is damaged, or there is none.
pub fn candidates(
    region: &Region,
    wish: Option<NodeId>,
    remembered: Option<NodeId>,
    node_uuid: Uuid,
    boot_id: Uuid,
) -> Result<Vec<Candidate>, ClaimError> {
    let kept = newest_view(region).map_or(NodeSet::EMPTY, |view| NodeSet(view.members.0 | view.owed.0));
    for node in [wish, remembered.filter(|_| wish.is_none())].into_iter().flatten() {
        if let Err(error) = &region[node.index()] {
            return Err(ClaimError::Damaged { node, reason: error.fault.to_string() });
        }
    }
    let judge = |heartbeat: &Heartbeat| judge(heartbeat, kept, node_uuid, boot_id);
    if let Some(node) = wish {
        let Ok(heartbeat) = &region[node.index()] else { return Err(ClaimError::Full) };
        let kind = judge(heartbeat).ok_or_else(|| ClaimError::Busy { node, host: heartbeat.host.clone() })?;
        return Ok(vec![Candidate { node, kind }]);
    }
    let mut found: Vec<_> = region
        .iter()
        .flatten()
        .filter_map(|heartbeat| {
            let kind = judge(heartbeat)?;
            let rank = match kind {
                _ if remembered == Some(heartbeat.node) && heartbeat.node_uuid == node_uuid => 0,
                ClaimKind::OwnSameBoot | ClaimKind::OwnOtherBoot => 1,
                ClaimKind::Free if heartbeat.state == NodeState::Empty => 2,
                ClaimKind::Free => 3,
                ClaimKind::Foreign { .. } => 4,
            };
            Some(((rank, heartbeat.timestamp_ms, heartbeat.node), kind))
        })
        .collect();
    found.sort_by_key(|&(key, _)| key);
    if found.is_empty() {
        return Err(ClaimError::Full);
    }
    Ok(found.into_iter().map(|((.., node), kind)| Candidate { node, kind }).collect())
}

/// How this installation may take a slot; `None`: not at all. `kept`: members and owed nodes.
fn judge(heartbeat: &Heartbeat, kept: NodeSet, node_uuid: Uuid, boot_id: Uuid) -> Option<ClaimKind> {
    let active = heartbeat.state.is_active();
    if (active || kept.contains(heartbeat.node)) && heartbeat.node_uuid == node_uuid {
        let same_boot = heartbeat.boot_id == boot_id;
        return Some(if same_boot { ClaimKind::OwnSameBoot } else { ClaimKind::OwnOtherBoot });
    }
    match active {
        _ if kept.contains(heartbeat.node) => None,
        false => Some(ClaimKind::Free),
        true => Some(ClaimKind::Foreign { host: heartbeat.host.clone() }),
    }
}

/// How far a claim is.
#[derive(Clone, Debug)]
enum Stage {
    /// Only reading.
    Watching,
    /// Written; read back since then, or not yet. `successor`: the lease that the former daemon of this boot had.
    /// `looked`: a read at the end of the two periods was asked for.
    Confirming { successor: Option<Range<BootTime>>, since: Option<BootTime>, looked: bool },
    /// Ours.
    Confirmed,
}

/// The times of a beat whose write was found by its read.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoodBeat {
    /// When its write began.
    pub started: BootTime,
    /// When its read was issued.
    pub issued: BootTime,
    /// When its read ended.
    pub ended: BootTime,
}

/// What a read means for a claim that has not written yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Watch {
    /// Go on reading.
    Wait,
    /// Take it: write.
    Take,
    /// Somebody else is there.
    Busy {
        host: String,
    },
    Damaged,
}

/// The claim of one slot.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    candidate: Candidate,
    node_uuid: Uuid,
    boot_id: Uuid,
    /// The sector as it was when the slot was chosen.
    first: Pulse,
    stage: Stage,
    /// No ballot before, because the slot was another's. `None` until the first good beat.
    votes_from: Option<BootTime>,
    /// No view existed when the slot was taken.
    fresh_lockstate: bool,
    /// The view kept the slot for this installation then: nobody else can be about to take it.
    was_kept: bool,
}

impl Claim {
    pub(super) fn new(candidate: Candidate, node_uuid: Uuid, boot_id: Uuid, region: &Region) -> Claim {
        let sector = &region[candidate.node.index()];
        let first = sector.as_ref().map_or(Pulse { incarnation: Default::default(), hb_seq: 0 }, Pulse::of);
        let stage = Stage::Watching;
        Claim { candidate, node_uuid, boot_id, first, stage, votes_from: None, fresh_lockstate: false, was_kept: false }
    }

    /// A read while nothing has been written yet. `unchanged_for_dead_time`: liveness's word on the own slot. `lease`: L.
    pub(super) fn watch(&mut self, region: &Region, unchanged_for_dead_time: bool, lease: Duration) -> Watch {
        let Stage::Watching = self.stage else { return Watch::Wait };
        let Ok(sector) = &region[self.candidate.node.index()] else { return Watch::Damaged };
        let view = newest_view(region);
        let changed = Pulse::of(sector) != self.first;
        let kept = view.is_some_and(|view| NodeSet(view.members.0 | view.owed.0).contains(self.candidate.node));
        let still = match self.candidate.kind {
            // The old daemon of this boot may have written until its guard was released.
            ClaimKind::OwnSameBoot => (sector.node_uuid, sector.boot_id) == (self.node_uuid, self.boot_id),
            ClaimKind::OwnOtherBoot => !changed,
            ClaimKind::Free => !changed && !kept && !sector.state.is_active(),
            ClaimKind::Foreign { .. } => !changed && !kept,
        };
        if !still {
            return Watch::Busy { host: sector.host.clone() };
        }
        if self.candidate.kind.waits() && !unchanged_for_dead_time {
            return Watch::Wait;
        }
        self.fresh_lockstate = view.is_none();
        self.was_kept = kept;
        let same_boot = self.candidate.kind == ClaimKind::OwnSameBoot;
        let last = BootTime(sector.boottime_ns);
        let successor = same_boot.then(|| last..last + lease);
        self.stage = Stage::Confirming { successor, since: None, looked: false };
        Watch::Take
    }

    /// A beat whose write and read were good. True when the slot has just been confirmed: read back over two
    /// heartbeat periods; or at once, where the write began within the lease of the former daemon of this boot. Then the
    /// sector has changed before anyone can have found it unchanged for D, so nobody is about to take it, and the
    /// guard keeps other daemons of this host away (docs/decisions/007).
    pub(super) fn good_beat(&mut self, beat: GoodBeat, renew: Duration, dead: Duration) -> bool {
        let Stage::Confirming { successor, since, .. } = &mut self.stage else { return false };
        let GoodBeat { started, issued, ended } = beat;
        let Some(since) = *since else {
            *since = Some(ended);
            let confirmed = successor.as_ref().is_some_and(|lease| lease.contains(&started));
            // An own slot that no view keeps may be another's by now, whose first write lands later (docs/decisions/009).
            let wait = self.candidate.kind.was_anothers() || !confirmed && !self.was_kept;
            self.votes_from = Some(if wait && !self.fresh_lockstate { ended + dead } else { ended });
            if confirmed {
                self.stage = Stage::Confirmed;
            }
            return confirmed;
        };
        if issued < since + renew * 2 {
            return false;
        }
        self.stage = Stage::Confirmed;
        true
    }

    /// When the two heartbeat periods end. A read is worth while then: by the next tick, up to R later, the clients of a
    /// daemon that was restarted may have lost their lease.
    pub(super) fn periods_end(&self, renew: Duration) -> Option<BootTime> {
        match self.stage {
            Stage::Confirming { since: Some(since), looked: false, .. } => Some(since + renew * 2),
            _ => None,
        }
    }

    /// True once, when the two heartbeat periods have ended.
    pub(super) fn is_to_look(&mut self, now: BootTime, renew: Duration) -> bool {
        let due = self.periods_end(renew).is_some_and(|end| end <= now);
        if let Stage::Confirming { looked, .. } = &mut self.stage {
            *looked |= due;
        }
        due
    }

    /// Taken, but nothing could be written: everything is to be looked at again.
    pub(super) fn watch_again(&mut self) {
        self.stage = Stage::Watching;
    }

    pub(super) fn is_watching(&self) -> bool {
        matches!(self.stage, Stage::Watching)
    }

    pub(super) fn is_confirmed(&self) -> bool {
        matches!(self.stage, Stage::Confirmed)
    }

    /// Whether the slot's owner may cast ballots.
    pub(super) fn may_vote(&self, now: BootTime) -> bool {
        self.is_confirmed() && self.votes_from.is_some_and(|from| from <= now)
    }

    /// No ballot before, as far as the claim goes; `None` as long as that is not known.
    pub(super) fn ballots_from(&self) -> Option<BootTime> {
        self.votes_from
    }

    pub(super) fn votes_from(&self) -> Option<BootTime> {
        self.votes_from.filter(|_| self.is_confirmed())
    }
}
