//! What a daemon tells about itself: the contents of `mxlock status`, `nodes` and `locks`.

use mxlock_format::{
    ByteRange, Epoch, Incarnation, LockId, LockState, Mode, NodeId, NodeState, Phase, Process, Resource, Timing, Token,
    Uuid,
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Whether this node grants locks, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Claiming its slot.
    Starting,
    /// Waiting to be admitted by a master.
    Joining,
    /// No master is known, or an election is under way.
    Electing,
    /// The master is rebuilding the table.
    Recovering,
    /// Locks are granted.
    Ready,
    /// The lease is lost.
    LeaseLost,
    /// No connection to the master.
    Isolated,
    /// Recovery waits for a fence.
    FencingBlocked,
    /// View changes wait for the repair of a damaged heartbeat sector.
    Damaged,
    /// Going down.
    Stopping,
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Condition::Starting => "starting: it claims its slot",
            Condition::Joining => "joining: it waits for the master to admit it",
            Condition::Electing => "electing: there is no master",
            Condition::Recovering => "recovering: the master rebuilds the lock table",
            Condition::Ready => "ready",
            Condition::LeaseLost => "its lease is lost",
            Condition::Isolated => "isolated: no connection to the master",
            Condition::FencingBlocked => "blocked on fencing",
            Condition::Damaged => "blocked by a damaged heartbeat sector",
            Condition::Stopping => "stopping",
        })
    }
}

/// `mxlock status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Status {
    pub lockspace: String,
    pub uuid: Uuid,
    pub lockstate: String,
    pub node: NodeId,
    pub host: String,
    pub incarnation: Incarnation,
    pub state: NodeState,
    pub condition: Condition,
    pub epoch: Epoch,
    pub phase: Option<Phase>,
    pub master: Option<NodeId>,
    pub members: Vec<NodeId>,
    pub table_epoch: Epoch,
    pub timing: Timing,
    /// Milliseconds of lease left; `None` when it is lost.
    pub lease_left_ms: Option<u64>,
    /// `advisory` while no fence agent, reservation or watchdog is in force.
    pub protection: String,
    /// Upper bound of a failover, and how it is made up; `None`: it waits for the operator.
    pub failover_bound_ms: Option<u64>,
    pub failover_formula: String,
    /// What is blocked and why, one sentence each.
    pub blocked: Vec<String>,
    pub locks_held: u64,
    pub locks_waiting: u64,
    pub orphans: u64,
    pub possible_holders: u64,
    pub slots_used: u64,
    pub slot_count: u64,
    /// `uring` or `pwrite`.
    pub io: String,
    /// `shared`, or `this host only`.
    pub scope: String,
    /// Whether this node can reach its master.
    pub master_reachable: bool,
    pub damaged_sectors: u64,
    pub warnings: Vec<String>,
}

/// A line of `mxlock nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Node {
    pub node: NodeId,
    pub state: NodeState,
    pub member: bool,
    pub master: bool,
    pub host: String,
    pub addresses: Vec<SocketAddr>,
    /// Since its heartbeat was last seen to change, on this node's clock.
    pub heartbeat_age_ms: Option<u64>,
    pub reachable: bool,
    pub locks: u64,
    pub incarnation: Incarnation,
    pub epoch: Epoch,
    /// The slot's sector is damaged: its other fields are unknown.
    pub damaged: bool,
}

/// A line of `mxlock locks`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Lock {
    pub resource: Resource,
    pub lock: LockId,
    pub node: NodeId,
    pub process: Process,
    pub mode: Mode,
    pub wanted: Mode,
    pub state: LockState,
    /// Place among the waiting or converting requests of its resource, from 1.
    pub queue_place: Option<u32>,
    pub since_ms: u64,
    pub token: Token,
    pub range: Option<ByteRange>,
    pub persistent: bool,
    pub orphan: bool,
    /// Its owner cannot be asked; it blocks as if it held (section 6).
    pub possible: bool,
    /// The value block of the resource, if it has one.
    pub lvb: Option<Vec<u8>>,
    pub lvb_valid: bool,
    pub slot: Option<u32>,
}

/// Counters since the daemon's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Counters {
    pub grants: u64,
    pub denials: u64,
    pub releases: u64,
    pub records_written: u64,
    pub records_cleared: u64,
    pub standing_reuses: u64,
    pub views: u64,
    pub pid: u32,
}
