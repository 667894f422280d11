//! What the disk, the daemons and the world are at one moment.

use crate::kept::Kept;
use mxlock_dlm::cluster::agreement::Proposer;
use mxlock_format::{Block, Incarnation, NodeId, View};

/// What of a heartbeat sector matters here.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Sector {
    /// Who wrote it.
    pub(super) incarnation: Incarnation,
    /// Which machine that ran on.
    pub(super) host: u8,
    pub(super) block: Block,
    pub(super) view: Option<View>,
}

/// A sector as read: `None` if it is damaged.
pub(super) type Read = Option<Kept<Sector>>;

/// A turn of the heartbeat thread.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Beat {
    Idle,
    /// The image is on its way. `answers`: it carries the block of the phase under way.
    Writing {
        image: Kept<Sector>,
        answers: bool,
    },
    /// Sector by sector, in any order. `late`: an image that has not landed yet, where reads do not wait for that.
    Reading {
        image: Option<Kept<Sector>>,
        late: bool,
        answers: bool,
        got: [Option<Read>; 3],
    },
}

/// How far a daemon's claim of its slot is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Stage {
    /// It has not written yet.
    Watching,
    /// Written, but not read back.
    Confirming,
    Confirmed,
    /// It has ended, of itself or not.
    Ended,
}

/// How a daemon came to its slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Origin {
    /// It was its own.
    Own,
    /// It was an earlier daemon's of the same boot.
    Restart,
    /// It was another host's.
    Another,
}

/// A daemon.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Daemon {
    pub(super) slot: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) host: u8,
    pub(super) origin: Origin,
    pub(super) stage: Stage,
    pub(super) proposer: Proposer,
    /// The newest view it knows, and that its images carry.
    pub(super) view: Option<View>,
    /// Where a block may move without its view: the view that its images still carry.
    pub(super) held_back: Option<Option<View>>,
    /// It has not written for D: somebody may be about to take its slot.
    pub(super) was_silent: bool,
    /// It took another's slot: all of a good beat in which nothing was on its way to the slot lies behind it.
    pub(super) was_alone: bool,
    /// Nothing was on its way to the slot when the beat under way began.
    pub(super) began_alone: bool,
    /// The highest ballot of the next instance that its last read showed.
    pub(super) seen: mxlock_format::Ballot,
    pub(super) ballots_left: u8,
    pub(super) beat: Beat,
}

/// Writes that nobody waits for any more; each may land at any time, or never.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(super) struct Stray {
    /// Of a process that was killed: the kernel has not ended it, and keeps the guard.
    pub(super) hanging: Option<Kept<Sector>>,
    /// It ended in an error.
    pub(super) failed: Option<Kept<Sector>>,
}

/// What must never be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Wrong {
    /// Two views of one epoch.
    Split,
}

/// The whole.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct State {
    pub(super) disk: Vec<Read>,
    pub(super) strays: Vec<Stray>,
    pub(super) daemons: Vec<Kept<Daemon>>,
    /// The view of each epoch, the first one being epoch 1, as it was first chosen.
    pub(super) chosen: Vec<View>,
    pub(super) wrong: Option<Wrong>,
    /// A value of another node's was carried on.
    pub(super) carried: bool,
    /// A daemon that took a slot has brought a proposal to its end.
    pub(super) taker_chose: bool,
    pub(super) failures_left: u8,
    pub(super) crashes_left: u8,
    pub(super) takes_left: u8,
    pub(super) damages_left: u8,
    pub(super) losses_left: u8,
}
