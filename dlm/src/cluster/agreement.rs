//! Disk Paxos (Gafni and Lamport 2003) on one disk: how one view per epoch is chosen (DESIGN section 4, I4).
//!
//! The block of a node is in its heartbeat sector. In each of two phases a proposer publishes its block, waits until a
//! write that began afterwards has completed, and then uses the read of that same beat, which was issued after it: an
//! earlier read is never used, even if it shows the own block.
//!
//! Public because the model in `tests/models` explores this very code.

use crate::io::{ImageId, Region};
use crate::planted::{Bug, planted};
use crate::time::BootTime;
use mxlock_format::{Ballot, Block, Epoch, NodeId, View};

/// With which right a view is proposed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Right {
    /// The master of the view before, while its lease is valid.
    Master,
    /// Its master is gone.
    Election,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Phase {
    /// The ballot is being announced. `wish`: what is proposed unless another value may have been chosen.
    Prepare { wish: View },
    /// The value is being accepted.
    Accept { value: View },
}

/// A proposal under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Attempt {
    /// The epoch that is to be agreed on.
    pub instance: Epoch,
    /// With which right.
    pub right: Right,
    ballot: Ballot,
    phase: Phase,
    /// The image that carries this phase's block; `None` until it has been handed out.
    image: Option<ImageId>,
}

impl Attempt {
    /// The value that phase 2 would write if no other one stands; `None` once it is written.
    pub fn wish(&self) -> Option<&View> {
        match &self.phase {
            Phase::Prepare { wish } => Some(wish),
            Phase::Accept { .. } => None,
        }
    }
}

/// What a phase's read led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
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
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proposer {
    me: NodeId,
    /// What the own sector says, or is to say.
    pub block: Block,
    /// What is being proposed.
    pub attempt: Option<Attempt>,
    /// Not before: back-off after a defeat.
    pub retry_at: Option<BootTime>,
    /// Not before: a heartbeat write ended in an error and may still land.
    pub banned_until: Option<BootTime>,
    /// Defeats in a row: the back-off grows with them.
    pub defeats: u32,
}

impl Proposer {
    /// A proposer that has promised and accepted nothing.
    pub fn new(me: NodeId) -> Proposer {
        let block = Block::default();
        Proposer { me, block, attempt: None, retry_at: None, banned_until: None, defeats: 0 }
    }

    /// Phase 1 of a new ballot: above every one that is known in this instance. The caller publishes the block.
    ///
    /// False when the own block is at a later instance already.
    pub fn begin(
        &mut self,
        blocks: impl Iterator<Item = Option<(NodeId, Block)>> + Clone,
        wish: View,
        right: Right,
    ) -> bool {
        let instance = wish.epoch;
        if instance < self.block.instance {
            return false;
        }
        if instance > self.block.instance {
            // A block of a lower instance counts as empty: its view is committed, and is in the same image.
            self.block = Block { instance, ..Block::default() };
        }
        let known = others(blocks, self.me).filter(|(_, block)| block.instance == instance);
        let highest = known.map(|(_, block)| block.promised).max().unwrap_or(Ballot::NONE).max(self.block.promised);
        let ballot = highest.next_for(self.me);
        self.block.promised = ballot;
        self.attempt = Some(Attempt { instance, right, ballot, phase: Phase::Prepare { wish }, image: None });
        true
    }

    /// The block was published as `image`.
    pub fn published(&mut self, image: ImageId) {
        if let Some(attempt) = &mut self.attempt {
            attempt.image.get_or_insert(image);
        }
    }

    /// Whether a beat that wrote `image` carried the phase's block.
    pub fn is_answered_by(&self, image: ImageId) -> bool {
        self.attempt.as_ref().and_then(|attempt| attempt.image).is_some_and(|mine| image >= mine)
    }

    /// The phase's read: issued after the phase's block had been written, and with the own sector as written.
    pub fn on_read(&mut self, blocks: impl Iterator<Item = Option<(NodeId, Block)>> + Clone) -> Step {
        let Some(attempt) = &mut self.attempt else { return Step::Beaten };
        if blocks.clone().any(|block| block.is_none()) {
            self.attempt = None;
            return Step::Damaged;
        }
        let (instance, ballot) = (attempt.instance, attempt.ballot);
        let skips = planted(Bug::NoBallotReread) && matches!(attempt.phase, Phase::Accept { .. });
        let ahead = |other: &Block| other.instance > instance || other.instance == instance && other.promised > ballot;
        if !skips && others(blocks.clone(), self.me).any(|(_, other)| ahead(&other)) {
            self.attempt = None;
            return Step::Beaten;
        }
        match attempt.phase.clone() {
            Phase::Prepare { wish } => {
                let accepted = others(blocks, self.me)
                    .chain([(self.me, self.block)])
                    .filter(|(_, block)| block.instance == instance)
                    .filter_map(|(node, block)| Some((block.accepted, block.value?, node)))
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
    pub fn may_begin(&self, now: BootTime) -> bool {
        self.attempt.is_none() && [self.retry_at, self.banned_until].into_iter().flatten().all(|at| at <= now)
    }

    /// After a heartbeat write that ended in an error no ballot is cast for D: the old block may still land.
    pub fn ban(&mut self, until: BootTime) {
        self.banned_until = self.banned_until.max(Some(until));
        self.attempt = None;
    }
}

/// The blocks of a region; `None` where a sector cannot be read.
pub fn blocks(region: &Region) -> impl Iterator<Item = Option<(NodeId, Block)>> + Clone + '_ {
    region.iter().map(|sector| sector.as_ref().ok().map(|heartbeat| (heartbeat.node, heartbeat.block)))
}

/// The blocks of all other nodes.
fn others(blocks: impl Iterator<Item = Option<(NodeId, Block)>>, me: NodeId) -> impl Iterator<Item = (NodeId, Block)> {
    blocks.flatten().filter(move |&(node, _)| node != me)
}
