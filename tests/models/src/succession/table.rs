//! The one resource, and the settings of all nodes.

use mxlock_dlm::config::Config;
use mxlock_format::{
    ClusterKey, Geometry, Incarnation, NodeId, Resource, ResourceId, ResourceKind, SectorSize, Superblock, Timing, Uuid,
};

pub(super) fn resource() -> Resource {
    let id = ResourceId { volume: 1, ino: 1, offset: 0, ag: 0, kind: ResourceKind::Inode };
    Resource::typed(id).expect("an inode is a typed resource")
}

pub(super) fn node_id(node: usize) -> NodeId {
    NodeId::new(node as u32).expect("one of a few nodes")
}

/// Settings of a node's daemon. Sessions are named by the seed.
pub(super) fn config(node: usize, incarnation: u64, slots: u32) -> Config {
    Config {
        node: node_id(node),
        superblock: Superblock {
            geometry: Geometry { sector: SectorSize::S512, slot_count: slots },
            timing: Timing::FAST,
            lockspace: "model".into(),
            uuid: Uuid([1; 16]),
            key: ClusterKey([1; 32]),
            feature_level: 1,
        },
        node_uuid: Uuid([node as u8; 16]),
        boot_id: Uuid([node as u8; 16]),
        host: format!("node{node}"),
        incarnation: Incarnation(incarnation),
        seed: incarnation * 64 + node as u64,
        ballots_from: None,
        uncertain_until: None,
        addresses: vec![],
        fence_wait: true,
        orphan_lifetime_ms: 30_000,
        clear_behind_ms: 100,
        uid: 0,
        pid: 1,
        lockstate: String::new(),
        io: String::new(),
        scope: String::new(),
        version: String::new(),
        warnings: vec![],
    }
}
