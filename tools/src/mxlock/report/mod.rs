//! What `mxlock status`, `nodes`, `locks` and `why` print, for people and as JSON.

mod commands;
mod json;
#[cfg(test)]
mod tests;
mod why;
mod why_json;

pub(super) use commands::Commands;
pub(super) use json::{LocksJson, NodesJson, StatusJson};
pub(super) use why::why;
pub(super) use why_json::WhyJson;

use crate::common::names::show_range;
use crate::common::table::{Facts, Table};
use crate::common::text::{duration_ms, hex, utc};
use mxlock_format::{LockState, NodeId, NodeState, Phase, Timing, Token};
use mxlock_proto::report::{Condition, Lock, Node, Status};

/// `status` for people.
pub(super) fn status(status: &Status) -> String {
    let mut facts = Facts::default();
    facts.add("lockspace", format!("{} ({})", status.lockspace, status.uuid));
    facts.add("lockstate", format!("{}, {}, io {}", status.lockstate, status.scope, status.io));
    facts.add(
        "node",
        format!("{} on {}, {}, incarnation {}", status.node, status.host, node_state(status.state), status.incarnation),
    );
    facts.add("condition", status.condition.to_string());
    facts.add("view", view(status));
    facts.add("members", list(&status.members));
    facts.add("lease", status.lease_left_ms.map_or("lost".to_owned(), |left| format!("{} left", duration_ms(left))));
    facts.add("timing", timing(&status.timing));
    facts.add("protection", &status.protection);
    let bound = status.failover_bound_ms.map(|ms| format!("within {} ({})", duration_ms(ms), status.failover_formula));
    facts.add("failover", bound.unwrap_or_else(|| status.failover_formula.clone()));
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
pub(super) fn not_ready(status: &Status) -> Option<String> {
    if status.condition == Condition::Ready {
        return None;
    }
    let mut sentence = format!("node {} does not grant locks: {}", status.node, status.condition);
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
pub(super) fn nodes(nodes: &[Node]) -> String {
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
pub(super) fn locks(locks: &[Lock], commands: &Commands) -> String {
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
            modes(lock),
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

fn modes(lock: &Lock) -> String {
    match lock.state {
        LockState::Granted => lock.mode.to_string(),
        LockState::Waiting => format!("-> {}", lock.wanted),
        _ => format!("{} -> {}", lock.mode, lock.wanted),
    }
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
