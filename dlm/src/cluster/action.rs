//! What the cluster asks of the core, or tells it.

use crate::event::{Event, StopReason};
use crate::io::ImageId;
use crate::time::BootTime;
use mxlock_format::{Epoch, Heartbeat, Incarnation, NodeId, View};

/// What the cluster wants done, or has found out.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Publish this as the own heartbeat.
    Publish {
        /// Its number.
        image: ImageId,
        /// Its contents.
        heartbeat: Box<Heartbeat>,
        /// Begin a beat at once.
        urgent: bool,
        /// As long as nothing has been written: not to be begun after this.
        begin_by: Option<BootTime>,
    },
    /// No ballot is cast before; for the next daemon in this slot (docs/decisions/009).
    BallotsFrom(BootTime),
    /// Begin a beat at once: something is to be seen on disk.
    Look,
    /// The slot was read back, for as long as its claim asks: it is ours.
    SlotConfirmed,
    /// A committed view that is newer than all before; ascending, but epochs may be skipped.
    ViewLearned {
        /// The view.
        view: View,
        /// This node's proposer brought it to its end.
        own: bool,
    },
    /// The node is confirmed and its lease runs until then.
    LeaseExtended {
        /// End of the lease.
        until: BootTime,
    },
    /// The lease ran out. The loss is latched (section 5). A master has resigned by it.
    LeaseLost,
    /// The latched loss ended: a view above it confirms this incarnation, whose locks stand.
    LeaseRegained {
        /// That view.
        epoch: Epoch,
    },
    /// This node is to be (re)admitted: send `Join { above }` to the master, and again from time to time, until
    /// [`Cluster::wants_join`](super::Cluster::wants_join) changes.
    WantsJoin {
        /// Only a view with a greater epoch will do.
        above: Epoch,
    },
    /// To the master: a joiner is on disk; its `Join` is to be expected.
    Joiner {
        /// Its slot.
        node: NodeId,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// To the master: a member's daemon was restarted. The old incarnation is gone; its locks are orphans.
    MemberReplaced {
        /// Its slot.
        node: NodeId,
        /// The new incarnation: a joiner.
        incarnation: Incarnation,
    },
    /// A member that was announced as replaced beats as before: what the sector had shown was an older write that landed
    /// late, or a read that was out of date. What it said meanwhile was not heard.
    MemberBack {
        /// The member.
        node: NodeId,
    },
    /// To the master: the node is a member of the view; tell it with `Admitted { view }`.
    Admitted {
        /// Its slot.
        node: NodeId,
        /// Which start of it.
        incarnation: Incarnation,
        /// The view.
        view: View,
    },
    /// This node was excluded: its locks are gone. It has a new incarnation and goes on as a joiner.
    Excluded {
        /// The view without it.
        epoch: Epoch,
    },
    /// For the log.
    Log(Event),
    /// The daemon must end. Nothing follows.
    Stop(StopReason),
}
