//! `mxlock why` for people: one line for each lock, with what it waits for or what would end it.

use super::{Commands, modes, state_name};
use crate::common::names::show_range;
use crate::common::table::Table;
use crate::common::text::{count, duration_ms};
use mxlock_format::{LockState, Resource};
use mxlock_proto::report::Lock;
use mxlock_proto::why::{How, Until, Why, WhyLock, WhyNode};

/// Blockers that a line names; the rest is counted.
const NAMED: usize = 3;

/// `why` for people.
pub(in crate::mxlock) fn why(resource: &Resource, why: &Why, commands: &Commands) -> String {
    if why.locks.is_empty() {
        return format!("nobody holds or waits for {resource}\n");
    }
    let mut table = Table::new(&["RESOURCE", "MODE", "STATE", ">FOR", "NODE", ">PID", "COMMAND", "WHY"]);
    for entry in &why.locks {
        let lock = &entry.lock;
        table.row([
            lock.range.map_or(lock.resource.to_string(), |range| format!("{} {}", lock.resource, show_range(range))),
            modes(lock),
            state(lock),
            duration_ms(why.now_ms.saturating_sub(lock.since_ms)),
            node(why, lock),
            lock.process.pid.to_string(),
            commands.of(lock).unwrap_or("-").to_owned(),
            if entry.until == Until::Served { waits_for(why, entry) } else { ends(why, entry) },
        ]);
    }
    let mut text = table.to_string();
    if why.omitted > 0 {
        text.push_str(&format!("{} more on {resource}: see 'mxlock locks'\n", count(why.omitted as usize, "lock")));
    }
    if !why.locks.iter().any(|entry| entry.until == Until::Served && entry.lock.resource == *resource) {
        text.push_str(&format!("nobody waits for {resource}\n"));
    }
    text.push_str(&cycle(why));
    if why.search_ended_early {
        text.push_str("the chain goes on: too many locks to follow all of it\n");
    }
    text
}

fn state(lock: &Lock) -> String {
    let name = if lock.state == LockState::Granted { "held" } else { state_name(lock.state) };
    lock.queue_place.map_or(name.to_owned(), |place| format!("{name} #{place}"))
}

fn node(why: &Why, lock: &Lock) -> String {
    match why.nodes.iter().find(|node| node.node == lock.node) {
        Some(node) if !node.host.is_empty() => format!("{} ({})", node.node, node.host),
        _ => lock.node.to_string(),
    }
}

/// `pid 42 on node 1`, with its transaction, which is whom others wait for.
fn who(entry: &WhyLock) -> String {
    let Lock { process, node, .. } = &entry.lock;
    let transaction = match entry.transaction {
        0 => String::new(),
        transaction => format!(" (transaction {transaction})"),
    };
    format!("pid {} on node {node}{transaction}", process.pid)
}

/// What a request waits for. Of those ahead the nearest is enough: the others are in the way of that one.
fn waits_for(why: &Why, entry: &WhyLock) -> String {
    let of = |wanted: fn(How) -> bool| {
        entry.blockers.iter().filter(move |blocker| wanted(blocker.how)).filter_map(|blocker| why.get(blocker.lock))
    };
    let holders: Vec<String> = of(|how| how == How::Holds).map(who).collect();
    let mut text = String::new();
    if !holders.is_empty() {
        text = format!("for {}", holders[..holders.len().min(NAMED)].join(", "));
        let more = holders.len().saturating_sub(NAMED) + entry.blockers_omitted as usize;
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
    }
    if let Some(ahead) = of(|how| how != How::Holds).next() {
        text.push_str(if text.is_empty() { "" } else { ", " });
        text.push_str(&format!("behind {}", who(ahead)));
    }
    if text.is_empty() {
        text = "for its turn".to_owned();
    }
    if entry.nodlckwt {
        text.push_str(" (NODLCKWT)");
    }
    text
}

/// What would end a lock.
fn ends(why: &Why, entry: &WhyLock) -> String {
    let node = why.nodes.iter().find(|node| node.node == entry.lock.node);
    let trouble = node.and_then(trouble).map(|trouble| format!("; {trouble}")).unwrap_or_default();
    let blocks = why.locks.iter().flat_map(|other| &other.blockers).any(|blocker| blocker.lock == entry.lock.lock);
    let text = match entry.until {
        Until::Served | Until::Released if !blocks => "in nobody's way".to_owned(),
        Until::Served | Until::Released if entry.told => {
            "until it is released; its holder was asked to (BAST)".to_owned()
        }
        Until::Served | Until::Released => "until it is released; its holder was not asked to".to_owned(),
        Until::Written => "until it is released; its record is being written".to_owned(),
        Until::Cleared => "until its record is cleared: it is released already".to_owned(),
        Until::Reconnected => "until its client reconnects, or its time as an orphan is over".to_owned(),
        Until::Adopted if entry.lock.persistent => {
            "orphan of a dead client: until it is adopted ('mxlock adopt') or purged".to_owned()
        }
        Until::Adopted => "orphan of a dead client: until it is adopted, or its time is over".to_owned(),
        Until::Reported { left_ms: Some(left) } => {
            format!("possible holder: until node {} reports, at most {}", entry.lock.node, duration_ms(left))
        }
        Until::Reported { left_ms: None } => format!("possible holder: until node {} reports", entry.lock.node),
    };
    let flag = if entry.nodlckblk { " (NODLCKBLK)" } else { "" };
    format!("{text}{flag}{trouble}")
}

/// What is wrong with a node, and what will come of it.
fn trouble(node: &WhyNode) -> Option<String> {
    let WhyNode { node: number, silent_ms, .. } = node;
    let silent = duration_ms(silent_ms.unwrap_or(0));
    if node.blocked_on_fencing {
        return Some(format!(
            "node {number} is silent for {silent} and waits to be fenced: switch it off, then 'mxlock fence-ack {number} --yes'"
        ));
    }
    if node.suspect {
        return Some(format!("node {number} is silent for {silent}: it is recovered when it counts as dead"));
    }
    (!node.reachable).then(|| format!("node {number} has no connection to the master"))
}

/// A cycle, and why nothing breaks it.
fn cycle(why: &Why) -> String {
    let cycle: Vec<&WhyLock> = why.cycle.iter().filter_map(|lock| why.get(*lock)).collect();
    let Some(first) = cycle.first() else { return String::new() };
    let hop = |entry: &&WhyLock| format!("{} waits for {}", who(entry), entry.lock.resource);
    let hops: Vec<String> = cycle.iter().map(hop).collect();
    format!(
        "cycle: {} -> {}\nnothing breaks it, since a request or lock in it carries NODLCKWT or NODLCKBLK: end one of these processes\n",
        hops.join(" -> "),
        who(first)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::{LockId, Mode, NodeId, Process, QualifiedName, SessionId, Token};
    use mxlock_proto::why::Blocker;

    const NOW_MS: u64 = 1_790_000_060_000;

    fn node(slot: u32) -> NodeId {
        NodeId::new(slot).unwrap()
    }

    fn id(seq: u64) -> LockId {
        LockId { session: SessionId(10), seq }
    }

    fn held(seq: u64, name: &str, slot: u32) -> WhyLock {
        let lock = Lock {
            resource: Resource::named(QualifiedName::new(b"", name.as_bytes()).unwrap()),
            lock: id(seq),
            node: node(slot),
            process: Process { pid: 100 + slot, start_time: 7, uid: 0 },
            mode: Mode::EX,
            wanted: Mode::EX,
            state: LockState::Granted,
            queue_place: None,
            since_ms: NOW_MS - 1_000 * seq,
            token: Token(5),
            range: None,
            persistent: false,
            orphan: false,
            possible: false,
            lvb: None,
            lvb_valid: false,
            slot: None,
        };
        WhyLock {
            lock,
            transaction: 0,
            blockers: vec![],
            blockers_omitted: 0,
            nodlckwt: false,
            nodlckblk: false,
            told: false,
            until: Until::Released,
        }
    }

    fn waiting(seq: u64, name: &str, slot: u32, blockers: &[(u64, How)]) -> WhyLock {
        let mut entry = held(seq, name, slot);
        entry.lock.state = LockState::Waiting;
        entry.lock.mode = Mode::NL;
        entry.lock.queue_place = Some(1);
        entry.until = Until::Served;
        entry.blockers = blockers.iter().map(|&(seq, how)| Blocker { lock: id(seq), how }).collect();
        entry
    }

    fn healthy(slot: u32) -> WhyNode {
        WhyNode {
            node: node(slot),
            host: format!("host{slot}"),
            silent_ms: Some(100),
            reachable: true,
            suspect: false,
            blocked_on_fencing: false,
        }
    }

    fn told(locks: Vec<WhyLock>) -> Why {
        let nodes = (0..3).map(healthy).collect();
        Why { locks, omitted: 0, cycle: vec![], search_ended_early: false, nodes, now_ms: NOW_MS }
    }

    fn shown(told: &Why) -> String {
        let resource = Resource::named(QualifiedName::new(b"", b"a").unwrap());
        why(&resource, told, &Commands::default())
    }

    /// Three hops: who waits for a, whose holder waits for b, whose holder waits for nothing.
    #[test]
    fn a_chain_is_one_line_a_hop() {
        let mut all = vec![
            held(1, "a", 1),
            waiting(2, "a", 0, &[(1, How::Holds)]),
            waiting(3, "a", 2, &[(1, How::Holds), (2, How::Ahead)]),
            waiting(4, "b", 1, &[(5, How::Holds)]),
            held(5, "b", 2),
        ];
        all[0].told = true;
        let mut commands = Commands::default();
        commands.add(node(2), &[all[4].lock.process], vec![Some("backup.sh".to_owned())]);
        let told = told(all);
        let resource = told.locks[0].lock.resource.clone();
        assert_eq!(
            why(&resource, &told, &commands),
            "\
RESOURCE  MODE   STATE         FOR  NODE       PID  COMMAND    WHY
a         EX     held        1.0 s  1 (host1)  101  -          until it is released; its holder was asked to (BAST)
a         -> EX  waiting #1  2.0 s  0 (host0)  100  -          for pid 101 on node 1
a         -> EX  waiting #1  3.0 s  2 (host2)  102  backup.sh  for pid 101 on node 1, behind pid 100 on node 0
b         -> EX  waiting #1  4.0 s  1 (host1)  101  -          for pid 102 on node 2
b         EX     held        5.0 s  2 (host2)  102  backup.sh  until it is released; its holder was not asked to
"
        );
    }

    #[test]
    fn a_cycle_says_why_it_stays() {
        let mut locks = vec![
            held(1, "a", 1),
            waiting(2, "a", 0, &[(1, How::Holds)]),
            waiting(3, "b", 1, &[(4, How::Holds)]),
            held(4, "b", 0),
        ];
        locks[1].nodlckwt = true;
        locks[2].transaction = 7;
        let text = shown(&Why { cycle: vec![id(2), id(3)], ..told(locks) });
        assert!(text.contains("for pid 101 on node 1 (NODLCKWT)\n"), "{text}");
        let cycle = "cycle: pid 100 on node 0 waits for a -> pid 101 on node 1 (transaction 7) waits for b -> pid 100 on node 0\n";
        assert!(text.contains(cycle), "{text}");
    }

    /// Each thing that a lock can wait to be ended by has its words.
    #[test]
    fn what_ends_a_lock() {
        let ends = |change: &dyn Fn(&mut Why)| {
            let mut told = told(vec![held(1, "a", 1), waiting(2, "a", 0, &[(1, How::Holds)])]);
            change(&mut told);
            shown(&told).lines().nth(1).unwrap().split("  -        ").nth(1).unwrap().to_owned()
        };
        let until = |until: Until| ends(&|told| told.locks[0].until = until);
        assert_eq!(until(Until::Adopted), "orphan of a dead client: until it is adopted, or its time is over");
        assert_eq!(until(Until::Reconnected), "until its client reconnects, or its time as an orphan is over");
        assert_eq!(until(Until::Cleared), "until its record is cleared: it is released already");
        assert_eq!(until(Until::Reported { left_ms: None }), "possible holder: until node 1 reports");
        let limited = until(Until::Reported { left_ms: Some(2_500) });
        assert_eq!(limited, "possible holder: until node 1 reports, at most 2.5 s");
        let persistent = ends(&|told| {
            told.locks[0].until = Until::Adopted;
            told.locks[0].lock.persistent = true;
        });
        assert_eq!(persistent, "orphan of a dead client: until it is adopted ('mxlock adopt') or purged");
        let fence = ends(&|told| {
            told.nodes[1].silent_ms = Some(20_000);
            told.nodes[1].blocked_on_fencing = true;
        });
        assert!(fence.ends_with(
            "node 1 is silent for 20.0 s and waits to be fenced: switch it off, then 'mxlock fence-ack 1 --yes'"
        ));
        let cut = ends(&|told| told.nodes[1].reachable = false);
        assert!(cut.ends_with("; node 1 has no connection to the master"), "{cut}");
        let silent = ends(&|told| told.nodes[1].suspect = true);
        assert!(silent.ends_with("it is recovered when it counts as dead"), "{silent}");
    }

    #[test]
    fn nothing_to_wait_for() {
        assert_eq!(shown(&told(vec![])), "nobody holds or waits for a\n");
        let text = shown(&told(vec![held(1, "a", 1)]));
        assert!(text.contains("in nobody's way\n") && text.ends_with("nobody waits for a\n"), "{text}");
        let text = shown(&Why { omitted: 2, search_ended_early: true, ..told(vec![held(1, "a", 1)]) });
        assert!(
            text.contains("2 locks more on a: see 'mxlock locks'\n") && text.contains("the chain goes on"),
            "{text}"
        );
    }
}
