//! When a silent node counts as gone (DESIGN section 5, methods `wait` and the operator's `fence-ack`).

use super::liveness::{Liveness, Pulse};
use crate::event::GoneReason;
use crate::planted::{Bug, planted};
use mxlock_format::{MAX_NODES, NodeId};
use std::time::Duration;

/// What is to be thought of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Alive,
    /// Silent for `suspect_ms`, not yet for D.
    Suspect,
    /// Silent, and only an operator (or a fence agent) can release it.
    Blocked,
    Gone(GoneReason),
}

/// Why a `fence-ack` was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FenceAckError {
    /// Its heartbeat changed within 2R.
    #[error("node {node} is not silent: its heartbeat changed a moment ago; switch the machine off first")]
    NotSilent {
        /// The node.
        node: NodeId,
    },
    /// The operator named this node.
    #[error("node {node} is this node: a fence-ack is for another one that is off")]
    OwnNode {
        /// The node.
        node: NodeId,
    },
    /// Its sector is damaged or was not read yet.
    #[error("the heartbeat of node {node} is not known: check its sector with 'mxlock-inspect PATH heartbeats'")]
    Unknown {
        /// The node.
        node: NodeId,
    },
}

/// Fencing policy and the operator's word.
#[derive(Clone, Debug)]
pub(super) struct Fence {
    wait: bool,
    suspect: Duration,
    /// The heartbeat that the operator vouched for as the last one: another one voids it.
    acks: [Option<Pulse>; MAX_NODES],
}

impl Fence {
    pub(super) fn new(wait: bool, suspect: Duration) -> Fence {
        Fence { wait, suspect, acks: [None; MAX_NODES] }
    }

    /// The operator vouches that the node is off.
    pub(super) fn ack(&mut self, node: NodeId, liveness: &Liveness) -> Result<(), FenceAckError> {
        let pulse = liveness.pulse(node).ok_or(FenceAckError::Unknown { node })?;
        if liveness.is_fresh(node) {
            return Err(FenceAckError::NotSilent { node });
        }
        self.acks[node.index()] = Some(pulse);
        Ok(())
    }

    /// A read came back: a node that beats again is not off, whatever was said.
    pub(super) fn drop_void_acks(&mut self, liveness: &Liveness) {
        for node in NodeId::all() {
            let ack = &mut self.acks[node.index()];
            if ack.is_some() && *ack != liveness.pulse(node) {
                *ack = None;
            }
        }
    }

    pub(super) fn verdict(&self, node: NodeId, liveness: &Liveness) -> Verdict {
        if self.acks[node.index()].is_some_and(|ack| liveness.pulse(node) == Some(ack)) {
            return Verdict::Gone(GoneReason::FenceAcked);
        }
        let silence = liveness.silence(node);
        match self.wait {
            true if liveness.is_dead(node) => Verdict::Gone(GoneReason::Dead),
            true if silence >= self.suspect => Verdict::Suspect,
            false if planted(Bug::FailedFenceIgnored) && liveness.is_dead(node) => Verdict::Gone(GoneReason::Dead),
            // A failed fence is never silently replaced by time.
            false if silence >= self.suspect || liveness.is_dead(node) => Verdict::Blocked,
            _ => Verdict::Alive,
        }
    }
}
