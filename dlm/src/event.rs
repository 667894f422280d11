//! What happened, for the log: ten lines tell the story of a failover.

use mxlock_format::{Epoch, Incarnation, LockId, NodeId, NodeSet, View};
use std::fmt;

/// How important an event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Severity {
    Debug,
    Info,
    Warn,
    Error,
}

/// Something that an operator may want to read.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Event {
    SlotClaimed {
        node: NodeId,
        incarnation: Incarnation,
    },
    SlotConfirmed {
        node: NodeId,
    },
    NodeSilent {
        node: NodeId,
        silent_ms: u64,
    },
    NodeGone {
        node: NodeId,
        why: GoneReason,
    },
    FencingBlocked {
        node: NodeId,
    },
    ElectionStarted {
        epoch: Epoch,
    },
    /// A proposal met a higher ballot or a newer view and was given up.
    ElectionLost {
        epoch: Epoch,
    },
    /// A proposer found a value that another ballot may have chosen, and carries it on.
    ValueAdopted {
        epoch: Epoch,
        from: NodeId,
    },
    ViewCommitted {
        view: View,
        own_proposal: bool,
    },
    LeaseLost,
    LeaseRegained {
        epoch: Epoch,
    },
    Excluded {
        epoch: Epoch,
    },
    Resigned {
        epoch: Epoch,
        successor: Option<NodeId>,
    },
    Isolated {
        master: NodeId,
    },
    DamagedHeartbeat {
        node: NodeId,
        reason: String,
    },
    /// It had been taken for replaced.
    MemberBack {
        node: NodeId,
    },
    /// These slots, or some of them, could not be read: they are tried again.
    TableReadFailed {
        first_slot: u32,
        count: u32,
        fault: String,
    },
    TableRead {
        records: u64,
        stale: u64,
        damaged: u64,
    },
    RecoveryReports {
        reported: NodeSet,
        possible: NodeSet,
        locks: u64,
        waiters: u64,
        possible_holders: u64,
    },
    RecoveryDone {
        epoch: Epoch,
        locks: u64,
    },
    Purged {
        node: NodeId,
        locks: u64,
    },
    LateReport {
        node: NodeId,
        locks: u64,
        dropped: u64,
    },
    ClaimsJudged {
        node: NodeId,
        standing: u64,
        released: u64,
    },
    DeadlockBroken {
        victim: LockId,
        requests: u64,
    },
    OrphanExpired {
        node: NodeId,
        locks: u64,
    },
    ScrubRepaired {
        slot: u32,
    },
    WriteFailed {
        slot: u32,
        fault: String,
    },
    HeartbeatLate {
        late_ms: u64,
    },
    PeerFault {
        node: NodeId,
        fault: PeerFault,
    },
}

/// Why a node is gone as master and member (section 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum GoneReason {
    Resigned,
    Replaced,
    Dead,
    FenceAcked,
    Left,
}

/// Each way in which a peer can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum PeerFault {
    /// A frame for another incarnation of this node, or from another one than the link's.
    WrongIncarnation,
    /// A number was skipped.
    Gap,
    /// A message that only a master may send, from a node that is not the master.
    NotMaster,
    /// A message to a master, but this node is not.
    NotForMe,
    /// A lock of a session that is not the sender's.
    ForeignLock,
}

/// Why the core stops the daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum StopReason {
    /// SIGTERM, all done.
    Shutdown,
    /// `mxlock leave`.
    Left,
    /// The own sector shows another incarnation: two daemons use one slot.
    ForeignIncarnation { found: Incarnation },
    /// The own sector does not hold what was written.
    SectorChanged,
    /// A slot that was to be claimed is in use by another node.
    SlotBusy { host: String },
}

impl Event {
    /// How important it is.
    pub fn severity(&self) -> Severity {
        match self {
            Event::LeaseLost | Event::Excluded { .. } | Event::DamagedHeartbeat { .. } | Event::WriteFailed { .. } => {
                Severity::Error
            }
            Event::NodeSilent { .. }
            | Event::FencingBlocked { .. }
            | Event::Isolated { .. }
            | Event::ScrubRepaired { .. }
            | Event::OrphanExpired { .. }
            | Event::TableReadFailed { .. }
            | Event::MemberBack { .. }
            | Event::HeartbeatLate { .. }
            | Event::PeerFault { .. } => Severity::Warn,
            Event::ElectionLost { .. } | Event::TableRead { .. } => Severity::Debug,
            _ => Severity::Info,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::SlotClaimed { node, .. } => write!(f, "claimed slot {node}, confirming it"),
            Event::SlotConfirmed { node } => write!(f, "slot {node} is ours"),
            Event::NodeSilent { node, silent_ms } => write!(f, "node {node} has been silent for {silent_ms} ms"),
            Event::NodeGone { node, why } => write!(
                f,
                "node {node} is gone: {}",
                match why {
                    GoneReason::Resigned => "it resigned",
                    GoneReason::Replaced => "its daemon was restarted",
                    GoneReason::Dead => "it has been silent for the dead time",
                    GoneReason::FenceAcked => "the operator vouches that it is off",
                    GoneReason::Left => "it left",
                }
            ),
            Event::FencingBlocked { node } => {
                write!(f, "blocked on fencing node {node}: switch it off and run 'mxlock fence-ack {node} --yes'")
            }
            Event::ElectionStarted { epoch } => write!(f, "standing for election in epoch {epoch}"),
            Event::ElectionLost { epoch } => write!(f, "gave up the proposal for epoch {epoch}: another one is ahead"),
            Event::ValueAdopted { epoch, from } => {
                write!(f, "carrying on the proposal of node {from} for epoch {epoch}")
            }
            Event::ViewCommitted { view, .. } => {
                write!(f, "view {}: master {}, {:?}, members {:?}", view.epoch, view.master, view.phase, view.members)
            }
            Event::LeaseLost => write!(f, "the lease is lost: no lock is granted until this node is confirmed"),
            Event::LeaseRegained { epoch } => write!(f, "the lease is regained: confirmed in view {epoch}"),
            Event::Excluded { epoch } => {
                write!(f, "excluded in view {epoch}: this node's locks are lost, joining again")
            }
            Event::Resigned { epoch, successor: Some(next) } => {
                write!(f, "resigned as master of view {epoch} in favour of node {next}")
            }
            Event::Resigned { epoch, successor: None } => write!(f, "resigned as master of view {epoch}"),
            Event::Isolated { master } => write!(f, "isolated: no link to master {master} for the dead time"),
            Event::DamagedHeartbeat { node, reason } => {
                write!(f, "the heartbeat sector of node {node} is damaged ({reason}): view changes wait for its repair")
            }
            Event::MemberBack { node } => {
                write!(f, "an older heartbeat of node {node} was seen, but it goes on: all members are heard again")
            }
            Event::TableReadFailed { first_slot, count, fault } => {
                let last = first_slot + count - 1;
                write!(f, "cannot read slots {first_slot} to {last} of the table ({fault}): trying again")
            }
            Event::TableRead { records, stale, damaged } => {
                write!(f, "read the table: {records} records, {stale} stale, {damaged} damaged")
            }
            Event::RecoveryReports { reported, possible, locks, waiters, possible_holders } => write!(
                f,
                "reports of {reported:?} (not of {possible:?}): {locks} locks, {waiters} waiting, {possible_holders} possible holders"
            ),
            Event::RecoveryDone { epoch, locks } => write!(f, "recovery of epoch {epoch} done: {locks} locks stand"),
            Event::Purged { node, locks } => write!(f, "released {locks} locks of node {node}"),
            Event::LateReport { node, locks, dropped } => {
                write!(f, "node {node} has spoken: {locks} locks stand, {dropped} are released")
            }
            Event::ClaimsJudged { node, standing, released } => {
                write!(f, "a session on node {node} is back: {standing} locks stand, {released} are released")
            }
            Event::DeadlockBroken { victim, requests: 1 } => {
                write!(f, "a deadlock of one request is broken: {victim}, which waits for its own owner, is refused")
            }
            Event::DeadlockBroken { victim, requests } => {
                write!(f, "a deadlock of {requests} requests is broken: the youngest one, {victim}, is refused")
            }
            Event::OrphanExpired { node, locks } => {
                write!(f, "{locks} orphaned locks of node {node} were not claimed in time and are released")
            }
            Event::ScrubRepaired { slot } => write!(f, "slot {slot} differed from memory and was repaired"),
            Event::WriteFailed { slot, fault } => write!(f, "writing slot {slot} failed: {fault}"),
            Event::HeartbeatLate { late_ms } => write!(f, "the heartbeat is {late_ms} ms late"),
            Event::PeerFault { node, fault } => write!(f, "dropped a frame of node {node}: {fault:?}"),
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Shutdown => write!(f, "stopped as asked"),
            StopReason::Left => write!(f, "left the cluster"),
            StopReason::ForeignIncarnation { .. } => write!(
                f,
                "another daemon writes this node's heartbeat sector: give each daemon a slot of its own (--node)"
            ),
            StopReason::SectorChanged => {
                write!(f, "this node's heartbeat sector does not hold what was written: check the shared disk")
            }
            StopReason::SlotBusy { host } => {
                write!(f, "the slot is in use by host {host}: choose another one (--node)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::SessionId;

    /// A request can wait for a lock of its own owner: a cycle of one.
    #[test]
    fn deadlocks_are_told_by_their_size() {
        let victim = LockId { session: SessionId(7), seq: 3 };
        let text = |requests| Event::DeadlockBroken { victim, requests }.to_string();
        assert_eq!(
            [text(1), text(2)],
            [
                format!("a deadlock of one request is broken: {victim}, which waits for its own owner, is refused"),
                format!("a deadlock of 2 requests is broken: the youngest one, {victim}, is refused"),
            ]
        );
    }
}
