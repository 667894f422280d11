//! Values for the tests of this crate: arbitrary valid ones, and a few with names.
#![allow(dead_code, unreachable_pub)]

use mxlock_format::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

pub fn node(slot: u32) -> NodeId {
    NodeId::new(slot).unwrap()
}

/// A superblock like that of `mxlockd format --slots 64`.
pub fn superblock() -> Superblock {
    Superblock {
        geometry: Geometry { sector: SectorSize::S512, slot_count: DEFAULT_SLOT_COUNT },
        timing: Timing::FAST,
        lockspace: "default".to_owned(),
        uuid: Uuid(*b"lockspace's uuid"),
        key: ClusterKey(*b"0123456789abcdef0123456789ABCDEF"),
        feature_level: FEATURE_LEVEL,
    }
}

/// A settled lock on the name `db/orders`.
pub fn granted() -> LockRecord {
    LockRecord {
        resource: Resource::named(QualifiedName::new(b"db", b"orders").unwrap()),
        owner: node(3),
        owner_incarnation: Incarnation(0x0102_0304_0506_0708),
        mode: Mode::EX,
        wanted: Mode::EX,
        state: LockState::Granted,
        granted_at_ms: 1_790_000_000_000,
        epoch: Epoch(490_001),
        lock: LockId { session: SessionId(0x1122_3344_5566_7788), seq: 9 },
        token: Token::new(Epoch(490_000), 77),
        table_epoch: Epoch(490_000),
        queue_position: 1_234,
        persistent: false,
        orphan: false,
        process: Process { pid: 4_242, start_time: 987_654, uid: 1_000 },
        transaction: 0,
        range: None,
        orphan_lifetime_ms: 30_000,
        lvb: None,
    }
}

/// Puts a right checksum on `image`, as somebody would who writes nonsense on purpose.
pub fn reseal(image: &mut [u8; RECORD_BYTES]) {
    let crc = checksum(image);
    image[RECORD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
}

prop_compose! {
    pub fn any_node()(slot in 0..MAX_NODES as u32) -> NodeId {
        node(slot)
    }
}

pub fn any_mode() -> impl Strategy<Value = Mode> {
    proptest::sample::select(Mode::ALL.to_vec())
}

/// Timing that passes `Timing::check`, from the shortest to some that need all 32 bits.
fn any_timing() -> impl Strategy<Value = Timing> {
    (MIN_RENEW_MS as u32..100_000_000, 2u32..12, 1u32..500_000_000, 0u32..500_000_000, 0u32..1_000_000).prop_map(
        |(renew_ms, renewals, grace_ms, spare_ms, delay_ms)| {
            let lease_ms = renew_ms * renewals;
            let sum_ms = u64::from(renew_ms) + u64::from(lease_ms) + u64::from(grace_ms);
            let dead_ms = (sum_ms * 105).div_ceil(100) as u32 + spare_ms;
            Timing { renew_ms, lease_ms, grace_ms, dead_ms, suspect_ms: lease_ms + grace_ms + delay_ms }
        },
    )
}

pub fn any_superblock() -> impl Strategy<Value = Superblock> {
    let geometry = (any::<bool>(), MIN_SLOT_COUNT..=MAX_SLOT_COUNT).prop_map(|(big, slot_count)| Geometry {
        sector: if big { SectorSize::S4096 } else { SectorSize::S512 },
        slot_count,
    });
    (geometry, any_timing(), "[A-Za-z0-9_-][A-Za-z0-9._-]{0,31}", any::<[u8; 16]>(), any::<[u8; 32]>(), any::<u16>())
        .prop_map(|(geometry, timing, lockspace, uuid, key, feature_level)| Superblock {
            geometry,
            timing,
            lockspace,
            uuid: Uuid(uuid),
            key: ClusterKey(key),
            feature_level,
        })
}

pub fn any_view() -> impl Strategy<Value = View> {
    (any_node(), 0..=MAX_EPOCH.0, any::<[u64; 3]>(), any::<bool>(), any::<u16>(), 0..=MAX_EPOCH.0).prop_map(
        |(master, epoch, [incarnation, members, owed], active, feature_level, table_epoch)| View {
            epoch: Epoch(epoch),
            master,
            master_incarnation: Incarnation(incarnation),
            phase: if active { Phase::Active } else { Phase::Recovering },
            members: NodeSet(members),
            owed: NodeSet(owed),
            table_epoch: Epoch(table_epoch.min(epoch)),
            feature_level,
        },
    )
}

fn any_block() -> impl Strategy<Value = Block> {
    (any::<[u64; 3]>(), option::of(any_view())).prop_map(|([instance, a, b], value)| match value {
        None => Block { instance: Epoch(instance), promised: Ballot(a), ..Block::default() },
        Some(view) => Block {
            instance: view.epoch,
            promised: Ballot(a.max(b).max(1)),
            accepted: Ballot(a.min(b).max(1)),
            value: Some(view),
        },
    })
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
    let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
    let mapped = any::<[u8; 4]>().prop_map(|v4| IpAddr::V6(std::net::Ipv4Addr::from(v4).to_ipv6_mapped()));
    (prop_oneof![v4, v6, mapped], any::<u16>()).prop_map(SocketAddr::from)
}

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9.-]{0,64}", "\\PC{0,16}", "[a-z]{64}"].prop_filter("fits", |host| host.len() <= MAX_HOST_BYTES)
}

pub fn any_heartbeat() -> impl Strategy<Value = Heartbeat> {
    let who = (any_node(), any::<[[u8; 16]; 2]>(), any_host(), proptest::sample::select(NodeState::ALL.to_vec()));
    let counts = (any::<[u64; 7]>(), any::<(u16, u16)>(), any::<bool>());
    let nodes = (option::of(any_node()), option::of(any_node()));
    let agreement = (any_block(), option::of(any_view()));
    (any_superblock(), who, counts, nodes, vec(any_address(), 0..=MAX_ADDRESSES), agreement).prop_map(
        |(superblock, (node, [node_uuid, boot_id], host, state), counts, nodes, addresses, (block, view))| {
            let ([timestamp_ms, epoch, lock_count, incarnation, hb_seq, boottime_ns, reachable], p, uncertain) = counts;
            Heartbeat {
                node,
                timestamp_ms,
                epoch: view.map_or(Epoch(epoch & MAX_EPOCH.0), |view| view.epoch),
                lock_count,
                superblock,
                node_uuid: Uuid(node_uuid),
                boot_id: Uuid(boot_id),
                host,
                incarnation: Incarnation(incarnation),
                hb_seq,
                boottime_ns,
                state,
                addresses,
                protocols: (p.0.min(p.1), p.0.max(p.1)),
                reachable: NodeSet(reachable),
                fence_target: nodes.0,
                successor: nodes.1,
                writes_uncertain: uncertain,
                block,
                view,
            }
        },
    )
}

pub fn any_name() -> impl Strategy<Value = QualifiedName> {
    (vec(1u8.., 0..=MAX_NAMESPACE_BYTES), vec(1u8.., 1..=MAX_NAME_BYTES))
        .prop_map(|(namespace, name)| QualifiedName::new(&namespace, &name).unwrap())
}

pub fn any_resource() -> impl Strategy<Value = Resource> {
    let typed = (any::<[u64; 3]>(), any::<u32>(), 1u8..=5).prop_map(|([volume, ino, offset], ag, kind)| {
        let kind = ResourceKind::from_number(kind).unwrap();
        Resource::typed(ResourceId { volume, ino, offset, ag, kind }).unwrap()
    });
    prop_oneof![typed, any_name().prop_map(Resource::named)]
}

fn any_range() -> impl Strategy<Value = ByteRange> {
    any::<(u64, u64)>().prop_map(|(a, b)| ByteRange::new(a.min(b), a.max(b)).unwrap())
}

fn any_lvb() -> impl Strategy<Value = Lvb> {
    (vec(any::<u8>(), 0..=MAX_LVB_BYTES), any::<(u64, u64)>(), any::<bool>())
        .prop_map(|(bytes, (epoch, n), valid)| Lvb { bytes, sequence: LvbSequence { epoch: Epoch(epoch), n }, valid })
}

/// Modes and states that go together.
fn any_standing() -> impl Strategy<Value = (LockState, Mode, Mode)> {
    (0..3, any_mode(), any_mode()).prop_map(|(state, mode, wanted)| match state {
        0 => (LockState::Waiting, Mode::NL, wanted),
        1 => (LockState::Granted, mode, mode),
        _ => (LockState::Converting, mode, wanted),
    })
}

pub fn any_record() -> impl Strategy<Value = LockRecord> {
    let owner = (any_node(), any::<(u32, u64, u32)>());
    let options = (any::<[bool; 2]>(), any::<u32>(), option::of(any_range()), option::of(any_lvb()));
    (any_resource(), owner, any_standing(), any::<[u64; 9]>(), options).prop_map(
        |(resource, (owner, (pid, start_time, uid)), (state, mode, wanted), n, options)| {
            let ([persistent, orphan], orphan_lifetime_ms, range, lvb) = options;
            LockRecord {
                resource,
                owner,
                owner_incarnation: Incarnation(n[0]),
                mode,
                wanted,
                state,
                granted_at_ms: n[1],
                epoch: Epoch(n[2]),
                lock: LockId { session: SessionId(n[3]), seq: n[4] },
                token: Token(n[5]),
                table_epoch: Epoch(n[6]),
                queue_position: n[7],
                persistent,
                orphan,
                process: Process { pid, start_time, uid },
                transaction: n[8],
                range,
                orphan_lifetime_ms,
                lvb,
            }
        },
    )
}
