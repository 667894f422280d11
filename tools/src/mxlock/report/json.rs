//! `mxlock status`, `nodes` and `locks` as JSON documents. Keys are a contract: add, never rename.

use super::commands::Commands;
use crate::common::json::{RangeJson, ResourceJson, decimal};
use crate::common::text::hex;
use mxlock_format::{Epoch, Incarnation, LockState, NodeId, NodeState, Phase, Timing, Token};
use mxlock_proto::report::{Condition, Lock, Node, Status};
use serde::Serialize;

/// `status` as JSON.
#[derive(Serialize)]
pub(in crate::mxlock) struct StatusJson<'a> {
    lockspace: &'a str,
    uuid: String,
    lockstate: &'a str,
    node: NodeId,
    host: &'a str,
    #[serde(serialize_with = "decimal")]
    incarnation: Incarnation,
    state: NodeState,
    condition: Condition,
    ready: bool,
    #[serde(serialize_with = "decimal")]
    epoch: Epoch,
    phase: Option<Phase>,
    master: Option<NodeId>,
    master_reachable: bool,
    members: &'a [NodeId],
    #[serde(serialize_with = "decimal")]
    table_epoch: Epoch,
    timing: Timing,
    lease_left_ms: Option<u64>,
    protection: &'a str,
    failover_bound_ms: Option<u64>,
    failover_formula: &'a str,
    blocked: &'a [String],
    warnings: &'a [String],
    locks_held: u64,
    locks_waiting: u64,
    orphans: u64,
    possible_holders: u64,
    slots_used: u64,
    slot_count: u64,
    damaged_sectors: u64,
    io: &'a str,
    scope: &'a str,
}

impl<'a> From<&'a Status> for StatusJson<'a> {
    fn from(status: &'a Status) -> StatusJson<'a> {
        StatusJson {
            lockspace: &status.lockspace,
            uuid: status.uuid.to_string(),
            lockstate: &status.lockstate,
            node: status.node,
            host: &status.host,
            incarnation: status.incarnation,
            state: status.state,
            condition: status.condition,
            ready: status.condition == Condition::Ready,
            epoch: status.epoch,
            phase: status.phase,
            master: status.master,
            master_reachable: status.master_reachable,
            members: &status.members,
            table_epoch: status.table_epoch,
            timing: status.timing,
            lease_left_ms: status.lease_left_ms,
            protection: &status.protection,
            failover_bound_ms: status.failover_bound_ms,
            failover_formula: &status.failover_formula,
            blocked: &status.blocked,
            warnings: &status.warnings,
            locks_held: status.locks_held,
            locks_waiting: status.locks_waiting,
            orphans: status.orphans,
            possible_holders: status.possible_holders,
            slots_used: status.slots_used,
            slot_count: status.slot_count,
            damaged_sectors: status.damaged_sectors,
            io: &status.io,
            scope: &status.scope,
        }
    }
}

/// `nodes` as JSON.
#[derive(Serialize)]
pub(in crate::mxlock) struct NodesJson<'a> {
    nodes: Vec<NodeJson<'a>>,
}

#[derive(Serialize)]
struct NodeJson<'a> {
    node: NodeId,
    state: NodeState,
    member: bool,
    master: bool,
    host: &'a str,
    addresses: Vec<String>,
    heartbeat_age_ms: Option<u64>,
    reachable: bool,
    locks: u64,
    #[serde(serialize_with = "decimal")]
    incarnation: Incarnation,
    #[serde(serialize_with = "decimal")]
    epoch: Epoch,
    damaged: bool,
}

impl<'a> From<&'a [Node]> for NodesJson<'a> {
    fn from(nodes: &'a [Node]) -> NodesJson<'a> {
        let node = |node: &'a Node| NodeJson {
            node: node.node,
            state: node.state,
            member: node.member,
            master: node.master,
            host: &node.host,
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            heartbeat_age_ms: node.heartbeat_age_ms,
            reachable: node.reachable,
            locks: node.locks,
            incarnation: node.incarnation,
            epoch: node.epoch,
            damaged: node.damaged,
        };
        NodesJson { nodes: nodes.iter().map(node).collect() }
    }
}

/// `locks` as JSON.
#[derive(Serialize)]
pub(in crate::mxlock) struct LocksJson {
    locks: Vec<LockJson>,
}

/// One lock.
#[derive(Serialize)]
pub(super) struct LockJson {
    #[serde(flatten)]
    resource: ResourceJson,
    owner: NodeId,
    pid: u32,
    uid: u32,
    command: Option<String>,
    mode: String,
    wanted: String,
    state: LockState,
    queue_place: Option<u32>,
    since_ms: u64,
    #[serde(serialize_with = "decimal")]
    token: Token,
    lock_id: String,
    range: Option<RangeJson>,
    persistent: bool,
    orphan: bool,
    possible: bool,
    lvb: Option<String>,
    lvb_valid: bool,
    slot: Option<u32>,
}

impl LocksJson {
    pub(in crate::mxlock) fn new(locks: &[Lock], commands: &Commands) -> LocksJson {
        LocksJson { locks: locks.iter().map(|lock| LockJson::new(lock, commands)).collect() }
    }
}

impl LockJson {
    pub(super) fn new(lock: &Lock, commands: &Commands) -> LockJson {
        LockJson {
            resource: ResourceJson::from(&lock.resource),
            owner: lock.node,
            pid: lock.process.pid,
            uid: lock.process.uid,
            command: commands.of(lock).map(str::to_owned),
            mode: lock.mode.to_string(),
            wanted: lock.wanted.to_string(),
            state: lock.state,
            queue_place: lock.queue_place,
            since_ms: lock.since_ms,
            token: lock.token,
            lock_id: lock.lock.to_string(),
            range: lock.range.map(RangeJson::from),
            persistent: lock.persistent,
            orphan: lock.orphan,
            possible: lock.possible,
            lvb: lock.lvb.as_deref().map(hex),
            lvb_valid: lock.lvb_valid,
            slot: lock.slot,
        }
    }
}
