//! What `mxlock-inspect` prints for people.

use super::image::Image;
use super::json::NodeCounts;
use crate::common::names::show_range;
use crate::common::table::{Facts, Table};
use crate::common::text::{count, duration_ms, hex, utc};
use mxlock_format::{Heartbeat, HeartbeatError, LockRecord, LockState, NodeSet, NodeState, Phase, View};

/// `summary`.
pub(super) fn summary(image: &Image) -> String {
    let superblock = &image.superblock;
    let (geometry, timing) = (superblock.geometry, superblock.timing);
    let mut facts = Facts::default();
    facts.add("lockspace", &superblock.lockspace);
    facts.add("uuid", superblock.uuid);
    facts.add(
        "geometry",
        format!(
            "{} slots, sectors of {} bytes, {} bytes in all",
            geometry.slot_count,
            geometry.sector.bytes(),
            geometry.total_bytes()
        ),
    );
    facts.add(
        "timing",
        format!(
            "renew {}, lease {}, grace {}, dead {}",
            duration_ms(timing.renew_ms.into()),
            duration_ms(timing.lease_ms.into()),
            duration_ms(timing.grace_ms.into()),
            duration_ms(timing.dead_ms.into())
        ),
    );
    facts.add("view", image.view().map_or("none yet".to_owned(), view_line));
    let NodeCounts { empty: _, joining, member, resigned, left } = NodeCounts::of(image);
    facts.add("nodes", format!("{member} member, {joining} joining, {resigned} resigned, {left} left"));
    let in_state = |state| image.records().filter(|(_, record)| record.state == state).count();
    facts.add(
        "locks",
        format!(
            "{} granted, {} converting, {} waiting",
            in_state(LockState::Granted),
            in_state(LockState::Converting),
            in_state(LockState::Waiting)
        ),
    );
    facts.add("slots", format!("{} of {} used", image.slots.len(), geometry.slot_count));
    let damaged_heartbeats = image.heartbeats.iter().filter(|heartbeat| heartbeat.is_err()).count();
    let damaged_slots = image.damaged_slots().count();
    facts.add("damage", damage(damaged_heartbeats, damaged_slots));
    facts.to_string()
}

fn damage(heartbeats: usize, slots: usize) -> String {
    match (heartbeats, slots) {
        (0, 0) => "none".to_owned(),
        _ => format!("{} and {}", count(heartbeats, "heartbeat sector"), count(slots, "record sector")),
    }
}

/// `heartbeats`: the slots that were ever used, and damaged ones.
pub(super) fn heartbeats(image: &Image) -> String {
    let mut table =
        Table::new(&[">NODE", "STATE", "HOST", "ADDRESSES", "EPOCH", ">LOCKS", ">SEQUENCE", "WRITTEN", "INCARNATION"]);
    for heartbeat in image.heartbeats.iter().filter(|heartbeat| is_used(heartbeat)) {
        let row = match heartbeat {
            Err(e) => [e.node.to_string(), "DAMAGED".to_owned(), e.fault.to_string()]
                .into_iter()
                .chain(std::iter::repeat_n(String::new(), 6))
                .collect::<Vec<_>>(),
            Ok(heartbeat) => vec![
                heartbeat.node.to_string(),
                state(heartbeat.state).to_owned(),
                heartbeat.host.clone(),
                addresses(heartbeat),
                heartbeat.epoch.to_string(),
                heartbeat.lock_count.to_string(),
                heartbeat.hb_seq.to_string(),
                utc(heartbeat.timestamp_ms),
                heartbeat.incarnation.to_string(),
            ],
        };
        table.row(row);
    }
    if table.is_empty() { "no node has ever used this lockstate\n".to_owned() } else { table.to_string() }
}

/// Whether a heartbeat slot was ever used, or is damaged.
pub(super) fn is_used(heartbeat: &Result<Heartbeat, HeartbeatError>) -> bool {
    !matches!(heartbeat, Ok(heartbeat) if heartbeat.state == NodeState::Empty)
}

/// `node N`.
pub(super) fn node(heartbeat: &Heartbeat) -> String {
    let mut facts = Facts::default();
    facts.add("node", heartbeat.node);
    facts.add("state", state(heartbeat.state));
    facts.add("host", &heartbeat.host);
    facts.add("addresses", addresses(heartbeat));
    facts.add("protocols", format!("{} to {}", heartbeat.protocols.0, heartbeat.protocols.1));
    facts.add("incarnation", heartbeat.incarnation);
    facts.add("node uuid", heartbeat.node_uuid);
    facts.add("boot id", heartbeat.boot_id);
    facts.add("sequence", heartbeat.hb_seq);
    facts.add("written", utc(heartbeat.timestamp_ms));
    facts.add("boottime", format!("{} ns", heartbeat.boottime_ns));
    facts.add("locks", heartbeat.lock_count);
    facts.add("reachable", nodes(heartbeat.reachable));
    facts.add("fencing", heartbeat.fence_target.map_or("nobody".to_owned(), |node| format!("node {node}")));
    if heartbeat.state == NodeState::Resigned {
        facts.add("successor", heartbeat.successor.map_or("any".to_owned(), |node| format!("node {node}")));
        facts.add("writes", if heartbeat.writes_uncertain { "uncertain: its successor waits" } else { "all ended" });
    }
    let block = &heartbeat.block;
    facts.add(
        "ballot",
        format!("instance {}, promised {}, accepted {}", block.instance, block.promised, block.accepted),
    );
    facts.add("accepted", block.value.as_ref().map_or("nothing".to_owned(), view_line));
    facts.add("view", heartbeat.view.as_ref().map_or("none yet".to_owned(), view_line));
    facts.to_string()
}

/// `view`.
pub(super) fn view(view: &View) -> String {
    let mut facts = Facts::default();
    facts.add("epoch", view.epoch);
    facts.add("master", format!("node {}, incarnation {}", view.master, view.master_incarnation));
    facts.add("phase", phase(view.phase));
    facts.add("members", nodes(view.members));
    facts.add("owed", nodes(view.owed));
    facts.add("table epoch", view.table_epoch);
    facts.add("feature level", view.feature_level);
    facts.to_string()
}

/// `locks` and `resource`: the records that `wanted` chooses.
pub(super) fn locks(image: &Image, wanted: impl Fn(&LockRecord) -> bool) -> String {
    let mut table = Table::new(&[
        ">SLOT", "RESOURCE", ">NODE", "MODE", "STATE", ">PID", ">UID", "TOKEN", "SINCE", "RANGE", "LOCK", "NOTES",
    ]);
    for (slot, record) in image.records().filter(|(_, record)| wanted(record)) {
        table.row([
            slot.to_string(),
            record.resource.to_string(),
            record.owner.to_string(),
            mode(record),
            lock_state(record.state).to_owned(),
            record.process.pid.to_string(),
            record.process.uid.to_string(),
            record.token.to_string(),
            utc(record.granted_at_ms),
            record.range.map_or("all".to_owned(), show_range),
            record.lock.to_string(),
            notes(image, record),
        ]);
    }
    let mut text = if table.is_empty() { "no locks\n".to_owned() } else { table.to_string() };
    for (slot, damage) in image.damaged_slots() {
        text.push_str(&format!("lock record in slot {slot}: {damage}\n"));
    }
    text
}

/// `slot N` for a record.
pub(super) fn record(image: &Image, slot: u32, record: &LockRecord) -> String {
    let mut facts = Facts::default();
    facts.add("slot", format!("{slot}, {} behind its home slot", image.distance(slot, record)));
    facts.add("resource", &record.resource);
    facts.add("lock", record.lock);
    facts.add("state", lock_state(record.state));
    facts.add("mode", mode(record));
    facts.add("range", record.range.map_or("all".to_owned(), show_range));
    facts.add("owner", format!("node {}, incarnation {}", record.owner, record.owner_incarnation));
    let process = record.process;
    facts.add("process", format!("pid {}, start time {}, uid {}", process.pid, process.start_time, process.uid));
    facts.add("transaction", record.transaction);
    facts.add("token", record.token);
    facts.add("granted", format!("{} in epoch {}", utc(record.granted_at_ms), record.epoch));
    facts.add("stamp", record.table_epoch);
    facts.add("queue position", record.queue_position);
    facts.add("orphan lifetime", duration_ms(record.orphan_lifetime_ms.into()));
    if let Some(lvb) = &record.lvb {
        let validity = if lvb.valid { "valid" } else { "not valid" };
        facts.add(
            "value",
            format!("{} ({validity}, epoch {}, n {})", hex(&lvb.bytes), lvb.sequence.epoch, lvb.sequence.n),
        );
    }
    facts.add("notes", notes(image, record));
    facts.to_string()
}

/// `EX`, or `PR -> EX` for what waits or converts.
fn mode(record: &LockRecord) -> String {
    match record.state {
        LockState::Granted => record.mode.to_string(),
        LockState::Waiting => format!("-> {}", record.wanted),
        _ => format!("{} -> {}", record.mode, record.wanted),
    }
}

fn notes(image: &Image, record: &LockRecord) -> String {
    let notes = [
        (record.persistent, "persistent"),
        (record.orphan, "orphan"),
        (image.is_stale(record), "stale"),
        (record.lvb.is_some(), "value"),
    ];
    let set: Vec<&str> = notes.into_iter().filter(|(set, _)| *set).map(|(_, note)| note).collect();
    set.join(" ")
}

fn addresses(heartbeat: &Heartbeat) -> String {
    let all: Vec<String> = heartbeat.addresses.iter().map(ToString::to_string).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(" ") }
}

fn nodes(set: NodeSet) -> String {
    let all: Vec<String> = set.iter().map(|node| node.to_string()).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(" ") }
}

fn view_line(view: &View) -> String {
    format!("epoch {}, {}, master {}, members {}", view.epoch, phase(view.phase), view.master, nodes(view.members))
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Recovering => "recovering",
        Phase::Active => "active",
    }
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Empty => "empty",
        NodeState::Joining => "joining",
        NodeState::Member => "member",
        NodeState::Resigned => "resigned",
        NodeState::Left => "left",
    }
}

fn lock_state(state: LockState) -> &'static str {
    match state {
        LockState::Unlocked => "unlocked",
        LockState::Waiting => "waiting",
        LockState::Granted => "granted",
        LockState::Converting => "converting",
        LockState::Blocked => "blocked",
    }
}
