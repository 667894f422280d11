//! Disk Paxos (Gafni and Lamport 2003) on one disk: how one view per epoch is chosen (DESIGN section 4, I4).
//!
//! The block of a node is in its heartbeat sector. In each of two phases a proposer publishes its block, waits until a
//! write that began afterwards has completed, and then uses the read of that same beat, which was issued after it: an
//! earlier read is never used, even if it shows the own block.

use crate::io::{ImageId, Region};
use crate::time::BootTime;
use mxlock_format::{Ballot, Block, Epoch, Heartbeat, NodeId, View};

/// With which right a view is proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Right {
    /// The master of the view before, while its lease is valid.
    Master,
    /// Its master is gone.
    Election,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The ballot is being announced. `wish`: what is proposed unless another value may have been chosen.
    Prepare { wish: View },
    /// The value is being accepted.
    Accept { value: View },
}

/// A proposal under way.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) instance: Epoch,
    pub(super) right: Right,
    ballot: Ballot,
    phase: Phase,
    /// The image that carries this phase's block; `None` until it has been handed out.
    image: Option<ImageId>,
}

impl Attempt {
    /// The value that phase 2 would write if no other one stands; `None` once it is written.
    pub(super) fn wish(&self) -> Option<&View> {
        match &self.phase {
            Phase::Prepare { wish } => Some(wish),
            Phase::Accept { .. } => None,
        }
    }
}

/// What a phase's read led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The block has changed: publish it.
    Publish {
        /// A value of this node is carried on, because it may have been chosen.
        adopted: Option<NodeId>,
    },
    /// The value is chosen.
    Chosen(View),
    /// A higher ballot, or a later instance, is about.
    Beaten,
    /// A sector cannot be read: it may hold the only accepted value.
    Damaged,
}

/// One node's proposer. Its block is also its acceptor's state; it never goes back.
#[derive(Clone, Debug)]
pub(super) struct Proposer {
    me: NodeId,
    pub(super) block: Block,
    pub(super) attempt: Option<Attempt>,
    /// Not before: back-off after a defeat.
    pub(super) retry_at: Option<BootTime>,
    /// Not before: a heartbeat write ended in an error and may still land.
    pub(super) banned_until: Option<BootTime>,
    /// Defeats in a row: the back-off grows with them.
    pub(super) defeats: u32,
}

impl Proposer {
    pub(super) fn new(me: NodeId) -> Proposer {
        let block = Block::default();
        Proposer { me, block, attempt: None, retry_at: None, banned_until: None, defeats: 0 }
    }

    /// Phase 1 of a new ballot: above every one that is known in this instance. The caller publishes the block.
    pub(super) fn begin(&mut self, region: &Region, wish: View, right: Right) -> bool {
        let instance = wish.epoch;
        if instance < self.block.instance {
            return false;
        }
        if instance > self.block.instance {
            // A block of a lower instance counts as empty: its view is committed, and is in the same image.
            self.block = Block { instance, ..Block::default() };
        }
        let known = others(region, self.me).filter(|other| other.block.instance == instance);
        let highest = known.map(|other| other.block.promised).max().unwrap_or(Ballot::NONE).max(self.block.promised);
        let ballot = highest.next_for(self.me);
        self.block.promised = ballot;
        self.attempt = Some(Attempt { instance, right, ballot, phase: Phase::Prepare { wish }, image: None });
        true
    }

    /// The block was published as `image`.
    pub(super) fn published(&mut self, image: ImageId) {
        if let Some(attempt) = &mut self.attempt {
            attempt.image.get_or_insert(image);
        }
    }

    /// Whether a beat that wrote `image` carried the phase's block.
    pub(super) fn is_answered_by(&self, image: ImageId) -> bool {
        self.attempt.as_ref().and_then(|attempt| attempt.image).is_some_and(|mine| image >= mine)
    }

    /// The phase's read: issued after the phase's block had been written, and with the own sector as written.
    pub(super) fn on_read(&mut self, region: &Region) -> Step {
        let Some(attempt) = &mut self.attempt else { return Step::Beaten };
        if region.iter().any(Result::is_err) {
            self.attempt = None;
            return Step::Damaged;
        }
        let (instance, ballot) = (attempt.instance, attempt.ballot);
        if others(region, self.me).any(|other| {
            other.block.instance > instance || other.block.instance == instance && other.block.promised > ballot
        }) {
            self.attempt = None;
            return Step::Beaten;
        }
        match attempt.phase.clone() {
            Phase::Prepare { wish } => {
                let accepted = others(region, self.me)
                    .map(|other| (other.block, other.node))
                    .chain([(self.block, self.me)])
                    .filter(|(block, _)| block.instance == instance)
                    .filter_map(|(block, node)| Some((block.accepted, block.value?, node)))
                    .max_by_key(|&(accepted, ..)| accepted);
                let (value, from) = accepted.map_or((wish, None), |(_, value, node)| (value, Some(node)));
                self.block.accepted = ballot;
                self.block.value = Some(value);
                attempt.phase = Phase::Accept { value };
                attempt.image = None;
                Step::Publish { adopted: from }
            }
            Phase::Accept { value } => {
                self.attempt = None;
                self.defeats = 0;
                Step::Chosen(value)
            }
        }
    }

    /// Whether a ballot may be cast now, as far as own failures and defeats go.
    pub(super) fn may_begin(&self, now: BootTime) -> bool {
        self.attempt.is_none() && [self.retry_at, self.banned_until].into_iter().flatten().all(|at| at <= now)
    }

    /// After a heartbeat write that ended in an error no ballot is cast for D: the old block may still land.
    pub(super) fn ban(&mut self, until: BootTime) {
        self.banned_until = self.banned_until.max(Some(until));
        self.attempt = None;
    }
}

/// The sectors of all other nodes.
fn others(region: &Region, me: NodeId) -> impl Iterator<Item = &Heartbeat> {
    region.iter().flatten().filter(move |heartbeat| heartbeat.node != me)
}
