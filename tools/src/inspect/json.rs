//! The JSON documents of `mxlock-inspect`. Keys are a contract (INTERFACE.md): add, never rename.

use super::image::Image;
use crate::common::json::{RangeJson, ResourceJson, decimal};
use crate::common::text::hex;
use mxlock_format::{
    Block, Epoch, Geometry, Heartbeat, HeartbeatError, Incarnation, LockRecord, LockState, NodeId, NodeState, Phase,
    SessionId, Timing, Token, View,
};
use serde::Serialize;

/// A heartbeat sector; of a damaged one only `node`, `active` and `damage` are known.
#[derive(Serialize)]
pub(super) struct HeartbeatJson {
    node: NodeId,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
    #[serde(flatten)]
    content: Option<HeartbeatContent>,
}

#[derive(Serialize)]
struct HeartbeatContent {
    state: NodeState,
    host: String,
    addresses: Vec<String>,
    #[serde(serialize_with = "decimal")]
    epoch: Epoch,
    timestamp_ms: u64,
    lock_count: u64,
    #[serde(serialize_with = "decimal")]
    incarnation: Incarnation,
    #[serde(serialize_with = "decimal")]
    hb_seq: u64,
    #[serde(serialize_with = "decimal")]
    boottime_ns: u64,
    node_uuid: String,
    boot_id: String,
    protocols: (u16, u16),
    reachable: Vec<NodeId>,
    fence_target: Option<NodeId>,
    successor: Option<NodeId>,
    writes_uncertain: bool,
    ballot: BlockJson,
    view: Option<ViewJson>,
}

#[derive(Serialize)]
struct BlockJson {
    #[serde(serialize_with = "decimal")]
    instance: Epoch,
    #[serde(serialize_with = "decimal")]
    promised: u64,
    #[serde(serialize_with = "decimal")]
    accepted: u64,
    value: Option<ViewJson>,
}

/// A view.
#[derive(Serialize)]
pub(super) struct ViewJson {
    #[serde(serialize_with = "decimal")]
    epoch: Epoch,
    master: NodeId,
    #[serde(serialize_with = "decimal")]
    master_incarnation: Incarnation,
    members: Vec<NodeId>,
    owed: Vec<NodeId>,
    phase: Phase,
    #[serde(serialize_with = "decimal")]
    table_epoch: Epoch,
    feature_level: u16,
}

/// A lock record.
#[derive(Serialize)]
pub(super) struct LockJson {
    slot: u32,
    /// Slots behind its home slot.
    distance: u32,
    /// Its stamp is below the table epoch: it does not count.
    stale: bool,
    #[serde(flatten)]
    resource: ResourceJson,
    owner: NodeId,
    mode: String,
    wanted: String,
    state: LockState,
    #[serde(serialize_with = "decimal")]
    epoch: Epoch,
    #[serde(serialize_with = "decimal")]
    token: Token,
    lock_id: String,
    #[serde(serialize_with = "decimal")]
    session: SessionId,
    #[serde(serialize_with = "decimal")]
    seq: u64,
    #[serde(serialize_with = "decimal")]
    owner_incarnation: Incarnation,
    #[serde(serialize_with = "decimal")]
    table_epoch: Epoch,
    #[serde(serialize_with = "decimal")]
    queue_position: u64,
    granted_at_ms: u64,
    pid: u32,
    #[serde(serialize_with = "decimal")]
    pid_start_time: u64,
    uid: u32,
    #[serde(serialize_with = "decimal")]
    transaction: u64,
    range: Option<RangeJson>,
    persistent: bool,
    orphan: bool,
    orphan_lifetime_ms: u32,
    lvb: Option<LvbJson>,
}

#[derive(Serialize)]
struct LvbJson {
    hex: String,
    valid: bool,
    #[serde(serialize_with = "decimal")]
    epoch: Epoch,
    #[serde(serialize_with = "decimal")]
    n: u64,
}

/// `heartbeats`.
#[derive(Serialize)]
pub(super) struct HeartbeatsDocument {
    /// All slots but the empty ones, or all.
    pub(super) heartbeats: Vec<HeartbeatJson>,
}

/// `locks` and `resource`.
#[derive(Serialize)]
pub(super) struct LocksDocument {
    /// The valid records.
    pub(super) locks: Vec<LockJson>,
    /// The record sectors that are neither empty nor valid.
    pub(super) damaged: Vec<DamageJson>,
}

/// `slot`.
#[derive(Serialize)]
pub(super) struct SlotDocument {
    /// The slot.
    pub(super) slot: u32,
    /// Whether it is all zero.
    pub(super) empty: bool,
    /// Why it is not valid.
    pub(super) damage: Option<String>,
    /// Its record.
    pub(super) lock: Option<LockJson>,
}

/// A damaged record sector.
#[derive(Serialize)]
pub(super) struct DamageJson {
    slot: u32,
    damage: String,
}

/// `view`.
#[derive(Serialize)]
pub(super) struct ViewDocument {
    /// The newest committed view; `null` before the first one.
    pub(super) view: Option<ViewJson>,
}

/// `summary`.
#[derive(Serialize)]
pub(super) struct SummaryDocument {
    lockspace: String,
    uuid: String,
    feature_level: u16,
    geometry: GeometryJson,
    bytes: u64,
    timing: Timing,
    view: Option<ViewJson>,
    nodes: NodeCounts,
    slots_used: usize,
    granted: usize,
    converting: usize,
    waiting: usize,
    orphans: usize,
    stale: usize,
    damaged_heartbeats: usize,
    damaged_slots: usize,
}

#[derive(Serialize)]
struct GeometryJson {
    sector_bytes: usize,
    slot_count: u32,
}

impl From<Geometry> for GeometryJson {
    fn from(geometry: Geometry) -> GeometryJson {
        GeometryJson { sector_bytes: geometry.sector.bytes(), slot_count: geometry.slot_count }
    }
}

/// How many node slots are in which state.
#[derive(Serialize, Default, Clone, Copy)]
#[allow(missing_docs)]
pub(super) struct NodeCounts {
    pub(super) empty: usize,
    pub(super) joining: usize,
    pub(super) member: usize,
    pub(super) resigned: usize,
    pub(super) left: usize,
}

impl NodeCounts {
    /// Counts an image's good sectors.
    pub(super) fn of(image: &Image) -> NodeCounts {
        let mut counts = NodeCounts::default();
        for heartbeat in image.good_heartbeats() {
            *match heartbeat.state {
                NodeState::Empty => &mut counts.empty,
                NodeState::Joining => &mut counts.joining,
                NodeState::Member => &mut counts.member,
                NodeState::Resigned => &mut counts.resigned,
                NodeState::Left => &mut counts.left,
            } += 1;
        }
        counts
    }
}

impl SummaryDocument {
    /// Of a whole image.
    pub(super) fn of(image: &Image) -> SummaryDocument {
        let superblock = &image.superblock;
        let in_state = |state| image.records().filter(|(_, record)| record.state == state).count();
        SummaryDocument {
            lockspace: superblock.lockspace.clone(),
            uuid: superblock.uuid.to_string(),
            feature_level: superblock.feature_level,
            geometry: GeometryJson::from(superblock.geometry),
            bytes: superblock.geometry.total_bytes(),
            timing: superblock.timing,
            view: image.view().map(ViewJson::from),
            nodes: NodeCounts::of(image),
            slots_used: image.slots.len(),
            granted: in_state(LockState::Granted),
            converting: in_state(LockState::Converting),
            waiting: in_state(LockState::Waiting),
            orphans: image.records().filter(|(_, record)| record.orphan).count(),
            stale: image.records().filter(|(_, record)| image.is_stale(record)).count(),
            damaged_heartbeats: image.heartbeats.iter().filter(|heartbeat| heartbeat.is_err()).count(),
            damaged_slots: image.damaged_slots().count(),
        }
    }
}

impl LocksDocument {
    /// The records that `wanted` chooses, and all damage.
    pub(super) fn of(image: &Image, wanted: impl Fn(&LockRecord) -> bool) -> LocksDocument {
        LocksDocument {
            locks: image
                .records()
                .filter(|(_, record)| wanted(record))
                .map(|(slot, record)| LockJson::new(image, slot, record))
                .collect(),
            damaged: image.damaged_slots().map(|(slot, damage)| DamageJson { slot, damage }).collect(),
        }
    }
}

impl HeartbeatJson {
    /// A sector, damaged or not.
    pub(super) fn new(heartbeat: &Result<Heartbeat, HeartbeatError>) -> HeartbeatJson {
        match heartbeat {
            Err(error) => {
                HeartbeatJson { node: error.node, active: false, damage: Some(error.fault.to_string()), content: None }
            }
            Ok(heartbeat) => HeartbeatJson {
                node: heartbeat.node,
                active: heartbeat.state.is_active(),
                damage: None,
                content: Some(HeartbeatContent::from(heartbeat)),
            },
        }
    }
}

impl From<&Heartbeat> for HeartbeatContent {
    fn from(heartbeat: &Heartbeat) -> HeartbeatContent {
        HeartbeatContent {
            state: heartbeat.state,
            host: heartbeat.host.clone(),
            addresses: heartbeat.addresses.iter().map(ToString::to_string).collect(),
            epoch: heartbeat.epoch,
            timestamp_ms: heartbeat.timestamp_ms,
            lock_count: heartbeat.lock_count,
            incarnation: heartbeat.incarnation,
            hb_seq: heartbeat.hb_seq,
            boottime_ns: heartbeat.boottime_ns,
            node_uuid: heartbeat.node_uuid.to_string(),
            boot_id: heartbeat.boot_id.to_string(),
            protocols: heartbeat.protocols,
            reachable: heartbeat.reachable.iter().collect(),
            fence_target: heartbeat.fence_target,
            successor: heartbeat.successor,
            writes_uncertain: heartbeat.writes_uncertain,
            ballot: BlockJson::from(&heartbeat.block),
            view: heartbeat.view.as_ref().map(ViewJson::from),
        }
    }
}

impl From<&Block> for BlockJson {
    fn from(block: &Block) -> BlockJson {
        BlockJson {
            instance: block.instance,
            promised: block.promised.0,
            accepted: block.accepted.0,
            value: block.value.as_ref().map(ViewJson::from),
        }
    }
}

impl From<&View> for ViewJson {
    fn from(view: &View) -> ViewJson {
        ViewJson {
            epoch: view.epoch,
            master: view.master,
            master_incarnation: view.master_incarnation,
            members: view.members.iter().collect(),
            owed: view.owed.iter().collect(),
            phase: view.phase,
            table_epoch: view.table_epoch,
            feature_level: view.feature_level,
        }
    }
}

impl LockJson {
    /// A record in its slot.
    pub(super) fn new(image: &Image, slot: u32, record: &LockRecord) -> LockJson {
        LockJson {
            slot,
            distance: image.distance(slot, record),
            stale: image.is_stale(record),
            resource: ResourceJson::from(&record.resource),
            owner: record.owner,
            mode: record.mode.to_string(),
            wanted: record.wanted.to_string(),
            state: record.state,
            epoch: record.epoch,
            token: record.token,
            lock_id: record.lock.to_string(),
            session: record.lock.session,
            seq: record.lock.seq,
            owner_incarnation: record.owner_incarnation,
            table_epoch: record.table_epoch,
            queue_position: record.queue_position,
            granted_at_ms: record.granted_at_ms,
            pid: record.process.pid,
            pid_start_time: record.process.start_time,
            uid: record.process.uid,
            transaction: record.transaction,
            range: record.range.map(RangeJson::from),
            persistent: record.persistent,
            orphan: record.orphan,
            orphan_lifetime_ms: record.orphan_lifetime_ms,
            lvb: record.lvb.as_ref().map(|lvb| LvbJson {
                hex: hex(&lvb.bytes),
                valid: lvb.valid,
                epoch: lvb.sequence.epoch,
                n: lvb.sequence.n,
            }),
        }
    }
}
