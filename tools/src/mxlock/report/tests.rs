//! Golden texts and JSON keys.

use super::commands::Commands;
use super::*;
use mxlock_format::{ByteRange, Epoch, Incarnation, LockId, Mode, Process, QualifiedName, Resource, SessionId, Uuid};

fn node(slot: u32) -> NodeId {
    NodeId::new(slot).unwrap()
}

fn example() -> Status {
    Status {
        lockspace: "default".to_owned(),
        uuid: Uuid([0x11; 16]),
        lockstate: "/mnt/.mxfs/lockstate".to_owned(),
        node: node(1),
        host: "alpha".to_owned(),
        incarnation: Incarnation(u64::MAX),
        state: NodeState::Member,
        condition: Condition::Ready,
        epoch: Epoch(498_002),
        phase: Some(Phase::Active),
        master: Some(node(0)),
        members: vec![node(0), node(1)],
        table_epoch: Epoch(498_001),
        timing: Timing::FAST,
        lease_left_ms: Some(6_500),
        protection: "advisory".to_owned(),
        failover_bound_ms: Some(19_000),
        failover_formula: "D + 2R".to_owned(),
        blocked: vec![],
        locks_held: 3,
        locks_waiting: 1,
        orphans: 0,
        possible_holders: 0,
        slots_used: 4,
        slot_count: 65_536,
        io: "uring".to_owned(),
        scope: "shared".to_owned(),
        master_reachable: true,
        damaged_sectors: 0,
        warnings: vec![],
    }
}

fn lock(name: &[u8], state: LockState) -> Lock {
    Lock {
        resource: Resource::named(QualifiedName::new(b"", name).unwrap()),
        lock: LockId { session: SessionId(10), seq: 1 },
        node: node(1),
        process: Process { pid: 42, start_time: 7, uid: 1_000 },
        mode: Mode::PR,
        wanted: Mode::EX,
        state,
        queue_place: None,
        since_ms: 1_790_000_000_000,
        token: Token(5),
        range: None,
        persistent: false,
        orphan: false,
        possible: false,
        lvb: None,
        lvb_valid: false,
        slot: Some(9),
    }
}

#[test]
fn status_for_people() {
    assert_eq!(
        status(&example()),
        "\
lockspace   default (11111111-1111-1111-1111-111111111111)
lockstate   /mnt/.mxfs/lockstate, shared, io uring
node        1 on alpha, member, incarnation 18446744073709551615
condition   ready
view        epoch 498002, active, master node 0, table epoch 498001
members     0 1
lease       6.5 s left
timing      renew 2.0 s, lease 8.0 s, grace 3.0 s, dead 15.0 s
protection  advisory
failover    within 19.0 s (D + 2R)
locks       3 held, 1 waiting, 0 orphans
table       4 of 65536 slots used
"
    );
}

#[test]
fn status_says_what_is_blocked() {
    let blocked = Status {
        condition: Condition::FencingBlocked,
        lease_left_ms: None,
        blocked: vec!["blocked on fencing node 2".to_owned()],
        ..example()
    };
    let text = status(&blocked);
    assert!(text.contains("lease       lost\n") && text.contains("blocked     blocked on fencing node 2\n"), "{text}");
    assert_eq!(
        not_ready(&blocked).unwrap(),
        "node 1 does not grant locks: blocked on fencing; blocked on fencing node 2"
    );
    assert_eq!(not_ready(&example()), None);
}

/// INTERFACE.md: 64-bit ids, tokens and epochs are decimal strings.
#[test]
fn json_has_long_numbers_as_strings() {
    let shown = serde_json::to_value(StatusJson::from(&example())).unwrap();
    assert_eq!((&shown["incarnation"], &shown["epoch"]), (&"18446744073709551615".into(), &"498002".into()));
    assert_eq!((&shown["condition"], &shown["ready"]), (&"ready".into(), &true.into()));
    let locks = [lock(b"a\xff", LockState::Granted)];
    let commands = Commands::default();
    let shown = serde_json::to_value(LocksJson::new(&locks, &commands)).unwrap();
    let shown = &shown["locks"][0];
    assert_eq!((&shown["token"], &shown["name_hex"]), (&"5".into(), &"61ff".into()));
    assert_eq!(shown["lock_id"], "000000000000000a.1");
}

#[test]
fn nodes_for_people() {
    let one = Node {
        node: node(3),
        state: NodeState::Member,
        member: true,
        master: true,
        host: "alpha".to_owned(),
        addresses: vec!["192.0.2.1:7600".parse().unwrap(), "[2001:db8::1]:7600".parse().unwrap()],
        heartbeat_age_ms: Some(1_200),
        reachable: true,
        locks: 2,
        incarnation: Incarnation(9),
        epoch: Epoch(5),
        damaged: false,
    };
    assert_eq!(
        nodes(&[one]),
        "\
NODE  STATE   ROLE    HOST   ADDRESSES                          HEARTBEAT  TCP  LOCKS  EPOCH  INCARNATION
   3  member  master  alpha  192.0.2.1:7600 [2001:db8::1]:7600      1.2 s  up       2  5      9
"
    );
}

#[test]
fn locks_for_people() {
    let waiting =
        Lock { queue_place: Some(2), token: Token(0), range: ByteRange::new(0, 9), ..lock(b"a", LockState::Waiting) };
    let mut commands = Commands::default();
    commands.add(node(1), &[waiting.process], vec![Some("backup.sh".to_owned())]);
    let granted = Lock { node: node(2), lvb: Some(vec![1, 2]), orphan: true, ..lock(b"a", LockState::Converting) };
    assert_eq!(
        locks(&[granted, waiting], &commands),
        "\
RESOURCE  MODE      STATE       NODE  PID   UID  COMMAND    SINCE                 TOKEN  RANGE  LVB               LOCK                NOTES
a         PR -> EX  converting     2   42  1000  -          2026-09-21T14:13:20Z  5      all    0102 (not valid)  000000000000000a.1  orphan
a         -> EX     waiting #2     1   42  1000  backup.sh  2026-09-21T14:13:20Z  -      0-9    -                 000000000000000a.1
"
    );
    assert_eq!(locks(&[], &commands), "no locks\n");
}
