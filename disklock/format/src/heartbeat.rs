//! The heartbeat sector: one per node, written by that node alone (I6).

use crate::{Ballot, Epoch, Incarnation, NodeId, NodeSet, Superblock, Uuid};
use std::net::SocketAddr;

/// Most TCP addresses that a heartbeat carries.
pub const MAX_ADDRESSES: usize = 3;
/// Longest host name that a heartbeat carries, bytes.
pub const MAX_HOST_BYTES: usize = 64;

/// What a slot's owner says it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum NodeState {
    /// Never used since the format.
    Empty = 0,
    /// Claimed; this incarnation is not (yet) a member. With the slot's bit in the view's members it says that an
    /// earlier incarnation was one, and is gone.
    Joining = 1,
    /// This incarnation was admitted.
    Member = 2,
    /// A member that gave mastership up.
    Resigned = 3,
    /// Left for good.
    Left = 4,
}

/// Whether a view's master is still rebuilding the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Phase {
    Recovering = 1,
    Active = 2,
}

/// The agreed configuration (section 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct View {
    pub epoch: Epoch,
    pub master: NodeId,
    pub master_incarnation: Incarnation,
    pub phase: Phase,
    /// Slots whose locks stand. A slot leaves only by exclusion or `leave`; a restarted daemon's slot stays.
    pub members: NodeSet,
    /// Excluded nodes whose recovery hook has not succeeded.
    pub owed: NodeSet,
    /// Records stamped below it do not count (section 6).
    pub table_epoch: Epoch,
    pub feature_level: u16,
}

/// A node's block of single-disk Disk Paxos (section 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Block {
    /// The epoch that is being agreed on.
    pub instance: Epoch,
    /// Highest ballot this node entered in `instance` (`mbal`).
    pub promised: Ballot,
    /// Ballot in which `value` was accepted (`bal`); `NONE` with `value: None`.
    pub accepted: Ballot,
    /// The accepted value (`inp`).
    pub value: Option<View>,
}

/// A decoded heartbeat sector.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Heartbeat {
    pub node: NodeId,
    /// CLOCK_REALTIME, for people only.
    pub timestamp_ms: u64,
    /// Newest committed epoch that the node knows; after a format, the epoch below the first view's.
    pub epoch: Epoch,
    pub lock_count: u64,
    pub superblock: Superblock,
    pub node_uuid: Uuid,
    pub boot_id: Uuid,
    /// At most 64 bytes of UTF-8.
    pub host: String,
    pub incarnation: Incarnation,
    pub hb_seq: u64,
    /// CLOCK_BOOTTIME of the write.
    pub boottime_ns: u64,
    pub state: NodeState,
    /// At most 3.
    pub addresses: Vec<SocketAddr>,
    /// Lowest and highest peer protocol version that the node speaks.
    pub protocols: (u16, u16),
    /// Nodes that this one has a live TCP link with.
    pub reachable: NodeSet,
    /// The node that this one is about to fence.
    pub fence_target: Option<NodeId>,
    /// With `Resigned`: who should stand for election first.
    pub successor: Option<NodeId>,
    /// A record write of this master ended in error or never ended: its successor waits D (section 4).
    pub writes_uncertain: bool,
    pub block: Block,
    /// The newest committed view that the node knows; its epoch equals `epoch`.
    pub view: Option<View>,
}
