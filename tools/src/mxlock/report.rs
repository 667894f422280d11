//! What `mxlock status`, `nodes` and `locks` print, for people and as JSON.

use crate::common::json::{RangeJson, ResourceJson, decimal};
use crate::common::names::show_range;
use crate::common::table::{Facts, Table};
use crate::common::text::{duration_ms, hex, utc};
use mxlock_format::{Epoch, Incarnation, LockState, NodeId, NodeState, Phase, Process, Timing, Token};
use mxlock_proto::report::{Condition, Lock, Node, Status};
use serde::Serialize;
use std::collections::HashMap;

/// `status` for people.
pub(crate) fn status(status: &Status) -> String {
    let mut facts = Facts::default();
    facts.add("lockspace", format!("{} ({})", status.lockspace, status.uuid));
    facts.add("lockstate", format!("{}, {}, io {}", status.lockstate, status.scope, status.io));
    facts.add(
        "node",
        format!("{} on {}, {}, incarnation {}", status.node, status.host, node_state(status.state), status.incarnation),
    );
    facts.add("condition", condition(status.condition));
    facts.add("view", view(status));
    facts.add("members", list(&status.members));
    facts.add("lease", status.lease_left_ms.map_or("lost".to_owned(), |left| format!("{} left", duration_ms(left))));
    facts.add("timing", timing(&status.timing));
    facts.add("protection", &status.protection);
    facts.add("failover", format!("within {} ({})", duration_ms(status.failover_bound_ms), status.failover_formula));
    facts.add(
        "locks",
        format!("{} held, {} waiting, {} orphans", status.locks_held, status.locks_waiting, status.orphans),
    );
    if status.possible_holders > 0 {
        facts.add("possible", format!("{} records block until their owners have spoken", status.possible_holders));
    }
    facts.add("table", format!("{} of {} slots used", status.slots_used, status.slot_count));
    if status.damaged_sectors > 0 {
        facts.add(
            "damage",
            format!("{} sectors: see mxlock-inspect {} verify", status.damaged_sectors, status.lockstate),
        );
    }
    for sentence in &status.blocked {
        facts.add("blocked", sentence);
    }
    for sentence in &status.warnings {
        facts.add("warning", sentence);
    }
    facts.to_string()
}

/// Why `status --check` says no, in one sentence; `None` when locks are granted.
pub(crate) fn not_ready(status: &Status) -> Option<String> {
    if status.condition == Condition::Ready {
        return None;
    }
    let mut sentence = format!("node {} does not grant locks: {}", status.node, condition(status.condition));
    if let Some(blocked) = status.blocked.first() {
        sentence = format!("{sentence}; {blocked}");
    }
    Some(sentence)
}

fn view(status: &Status) -> String {
    let Some(master) = status.master else { return format!("epoch {}, no master", status.epoch) };
    let role = if master == status.node {
        "this node".to_owned()
    } else if status.master_reachable {
        format!("node {master}")
    } else {
        format!("node {master}, not reachable")
    };
    let phase = match status.phase {
        Some(Phase::Active) => "active",
        Some(Phase::Recovering) => "recovering",
        None => "not confirmed",
    };
    format!("epoch {}, {phase}, master {role}, table epoch {}", status.epoch, status.table_epoch)
}

fn timing(timing: &Timing) -> String {
    let Timing { renew_ms, lease_ms, grace_ms, dead_ms, .. } = *timing;
    let [renew, lease, grace, dead] = [renew_ms, lease_ms, grace_ms, dead_ms].map(|ms| duration_ms(ms.into()));
    format!("renew {renew}, lease {lease}, grace {grace}, dead {dead}")
}

fn list(nodes: &[NodeId]) -> String {
    let numbers: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(" ") }
}

fn condition(condition: Condition) -> &'static str {
    match condition {
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
    }
}

fn node_state(state: NodeState) -> &'static str {
    match state {
        NodeState::Empty => "empty",
        NodeState::Joining => "joining",
        NodeState::Member => "member",
        NodeState::Resigned => "resigned",
        NodeState::Left => "left",
    }
}

/// `nodes` for people.
pub(crate) fn nodes(nodes: &[Node]) -> String {
    let mut table = Table::new(&[
        ">NODE",
        "STATE",
        "ROLE",
        "HOST",
        "ADDRESSES",
        ">HEARTBEAT",
        "TCP",
        ">LOCKS",
        "EPOCH",
        "INCARNATION",
    ]);
    for node in nodes {
        let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
        let role = match (node.master, node.member) {
            (true, _) => "master",
            (false, true) => "member",
            (false, false) => "-",
        };
        table.row([
            node.node.to_string(),
            if node.damaged { "DAMAGED" } else { node_state(node.state) }.to_owned(),
            role.to_owned(),
            node.host.clone(),
            if addresses.is_empty() { "-".to_owned() } else { addresses.join(" ") },
            node.heartbeat_age_ms.map_or("-".to_owned(), duration_ms),
            if node.reachable { "up" } else { "down" }.to_owned(),
            node.locks.to_string(),
            node.epoch.to_string(),
            node.incarnation.to_string(),
        ]);
    }
    table.to_string()
}

/// `locks` for people.
pub(crate) fn locks(locks: &[Lock], commands: &Commands) -> String {
    if locks.is_empty() {
        return "no locks\n".to_owned();
    }
    let mut table = Table::new(&[
        "RESOURCE", "MODE", "STATE", ">NODE", ">PID", ">UID", "COMMAND", "SINCE", "TOKEN", "RANGE", "LVB", "LOCK",
        "NOTES",
    ]);
    for lock in locks {
        table.row([
            lock.resource.to_string(),
            match lock.state {
                LockState::Granted => lock.mode.to_string(),
                LockState::Waiting => format!("-> {}", lock.wanted),
                _ => format!("{} -> {}", lock.mode, lock.wanted),
            },
            state(lock),
            lock.node.to_string(),
            lock.process.pid.to_string(),
            lock.process.uid.to_string(),
            commands.of(lock).unwrap_or("-").to_owned(),
            utc(lock.since_ms),
            if lock.token == Token(0) { "-".to_owned() } else { lock.token.to_string() },
            lock.range.map_or("all".to_owned(), show_range),
            value(lock),
            lock.lock.to_string(),
            notes(lock),
        ]);
    }
    table.to_string()
}

fn state(lock: &Lock) -> String {
    let name = state_name(lock.state);
    lock.queue_place.map_or(name.to_owned(), |place| format!("{name} #{place}"))
}

fn state_name(state: LockState) -> &'static str {
    match state {
        LockState::Unlocked => "unlocked",
        LockState::Waiting => "waiting",
        LockState::Granted => "granted",
        LockState::Converting => "converting",
        LockState::Blocked => "blocked",
    }
}

fn value(lock: &Lock) -> String {
    match &lock.lvb {
        None => "-".to_owned(),
        Some(bytes) if lock.lvb_valid => hex(bytes),
        Some(bytes) => format!("{} (not valid)", hex(bytes)),
    }
}

fn notes(lock: &Lock) -> String {
    let notes = [(lock.persistent, "persistent"), (lock.orphan, "orphan"), (lock.possible, "possible holder")];
    let set: Vec<&str> = notes.into_iter().filter(|(set, _)| *set).map(|(_, note)| note).collect();
    set.join(", ")
}

/// `status` as JSON.
#[derive(Serialize)]
pub(crate) struct StatusJson<'a> {
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
    failover_bound_ms: u64,
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
pub(crate) struct NodesJson<'a> {
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
pub(crate) struct LocksJson {
    locks: Vec<LockJson>,
}

#[derive(Serialize)]
struct LockJson {
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
    pub(crate) fn new(locks: &[Lock], commands: &Commands) -> LocksJson {
        let lock = |lock: &Lock| LockJson {
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
        };
        LocksJson { locks: locks.iter().map(lock).collect() }
    }
}

/// The command names of lock holders. Only this machine's processes can be looked up.
pub(crate) struct Commands {
    here: Option<NodeId>,
    names: HashMap<Process, String>,
}

impl Commands {
    /// Looks the holders on this machine's node `here` up in /proc; a process with another start time is another one.
    pub(crate) fn look_up(here: Option<NodeId>, locks: &[Lock]) -> Commands {
        let processes = locks.iter().filter(|lock| Some(lock.node) == here).map(|lock| lock.process);
        let names = processes.filter_map(|process| Some((process, command_name(process)?))).collect();
        Commands { here, names }
    }

    fn of(&self, lock: &Lock) -> Option<&str> {
        if Some(lock.node) != self.here {
            return None;
        }
        self.names.get(&lock.process).map(String::as_str)
    }
}

/// Field 2 of /proc/PID/stat, in parentheses, if field 22 is the start time.
fn command_name(process: Process) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let start_time: u64 = after.split_whitespace().nth(19)?.parse().ok()?;
    let name = before.split_once('(')?.1;
    (start_time == process.start_time).then(|| name.escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::{ByteRange, LockId, Mode, QualifiedName, Resource, SessionId, Uuid};

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
            failover_bound_ms: 19_000,
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
        assert!(
            text.contains("lease       lost\n") && text.contains("blocked     blocked on fencing node 2\n"),
            "{text}"
        );
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
        let commands = Commands { here: Some(node(0)), names: HashMap::new() };
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
        let waiting = Lock {
            queue_place: Some(2),
            token: Token(0),
            range: ByteRange::new(0, 9),
            ..lock(b"a", LockState::Waiting)
        };
        let commands =
            Commands { here: Some(node(1)), names: HashMap::from([(waiting.process, "backup.sh".to_owned())]) };
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

    /// The command of a process that runs, and not of one that has its number now.
    #[test]
    fn commands_are_looked_up_by_start_time() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let start_time = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        let me = Process { pid: std::process::id(), start_time, uid: 0 };
        assert!(command_name(me).is_some());
        assert_eq!(command_name(Process { start_time: start_time + 1, ..me }), None);
    }
}
