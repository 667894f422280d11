//! What the tests of several machines begin with: settings, names, requests and what members say of them.

use crate::config::Config;
use crate::io::TableChunk;
use crate::time::BootTime;
use mxlock_format::{
    ClusterKey, Geometry, Incarnation, LockId, LockRecord, Mode, NodeId, Process, QualifiedName, RECORD_BYTES,
    Resource, SectorImage, SectorSize, Superblock, Timing, Token, Uuid,
};
use mxlock_proto::LockFlags;
use mxlock_proto::client::LockRequest;
use mxlock_proto::peer::{NewLock, Presence, ReportedLock};

/// Slots of the table.
pub(crate) const SLOTS: u32 = 64;
/// Profile `fast` divided by ten.
pub(crate) const TIMING: Timing =
    Timing { renew_ms: 200, lease_ms: 800, grace_ms: 300, dead_ms: 1_500, suspect_ms: 1_100 };

pub(crate) fn superblock() -> Superblock {
    Superblock {
        geometry: Geometry { sector: SectorSize::S512, slot_count: SLOTS },
        timing: TIMING,
        lockspace: "test".to_owned(),
        uuid: Uuid([7; 16]),
        key: ClusterKey([9; 32]),
        feature_level: 1,
    }
}

pub(crate) fn config(node: u32, incarnation: u64) -> Config {
    Config {
        node: NodeId::new(node).unwrap(),
        superblock: superblock(),
        node_uuid: Uuid([1; 16]),
        boot_id: Uuid([2; 16]),
        host: format!("host{node}"),
        incarnation: Incarnation(incarnation),
        seed: 5,
        addresses: vec![],
        ballots_from: Some(BootTime::default()),
        uncertain_until: None,
        fence_wait: true,
        orphan_lifetime_ms: 2_000,
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

pub(crate) fn process(pid: u32) -> Process {
    Process { pid, start_time: 1, uid: 0 }
}

pub(crate) fn named(name: &str) -> Resource {
    Resource::named(QualifiedName::new(b"", name.as_bytes()).unwrap())
}

/// What a client asks for that wants nothing special.
pub(crate) fn lock_request(seq: u64, name: &str, mode: Mode) -> LockRequest {
    LockRequest {
        seq,
        resource: named(name),
        mode,
        flags: LockFlags::NONE,
        range: None,
        timeout_ms: None,
        transaction: 0,
        orphan_lifetime_ms: None,
    }
}

/// What a member asks its master for on behalf of such a client.
pub(crate) fn new_lock(name: &str, mode: Mode) -> NewLock {
    NewLock {
        resource: named(name),
        mode,
        flags: LockFlags::NONE,
        range: None,
        process: process(42),
        transaction: 0,
        orphan_lifetime_ms: 0,
    }
}

/// What a member says of such a lock that it has.
pub(crate) fn reported(lock: LockId, name: &str, mode: Mode, token: Token) -> ReportedLock {
    ReportedLock {
        lock,
        resource: named(name),
        range: None,
        granted: Some(mode),
        pending: None,
        token,
        granted_at_ms: 0,
        process: process(42),
        transaction: 0,
        persistent: false,
        presence: Presence::Here,
        orphan_lifetime_ms: 0,
        lvb: None,
        releasing: false,
        adopted: false,
    }
}

/// A read of a table that is in memory.
pub(crate) fn read_table(slots: &[SectorImage], first_slot: u32, count: u32) -> TableChunk {
    let range = first_slot as usize..(first_slot + count) as usize;
    let bytes: Vec<u8> = slots[range].iter().flat_map(|image| image.0).collect();
    assert_eq!(bytes.len(), count as usize * RECORD_BYTES);
    TableChunk { first_slot, bytes, unreadable: vec![] }
}

/// The records of a table, with their slots. What cannot be read is none.
pub(crate) fn records(slots: &[SectorImage]) -> Vec<(u32, LockRecord)> {
    let decode = |(slot, image): (u32, &SectorImage)| Some((slot, LockRecord::decode(slot, &image.0).ok()??));
    (0..).zip(slots).filter_map(decode).collect()
}
