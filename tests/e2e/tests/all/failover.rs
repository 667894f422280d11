//! Death of the master, with locks on it and on others (DESIGN section 6; issue 2).

use mxlock_e2e::referee::{Interval, Witness, judge};
use mxlock_e2e::wait::{PATIENCE, until_true};
use mxlock_e2e::{Cluster, Held, Setup, alone};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// Never, for a witness: it holds until it is told to end.
const ALWAYS: &str = "3600000";

/// Witnesses that work on all nodes of a cluster: per node one that contends for a common name, one that reads another
/// common name among writers, one with a name of its own, and one that holds a lock all the time.
struct Witnesses(Vec<Vec<Witness>>);

impl Witnesses {
    fn start(cluster: &Cluster) -> Witnesses {
        let of_node = |node: usize| {
            let socket = cluster.daemons[node].socket();
            let start = |what: &str, args: &[&str]| {
                Witness::start(cluster.directory(), &format!("{what}-{node}"), &socket, args)
            };
            let own = format!("own-{node}");
            let kept = format!("kept-{node}");
            vec![
                start("contender", &["--name", "contended", "--hold-ms", "3"]),
                start("reader", &["--name", "read", "--mode", if node == 0 { "EX" } else { "PR" }, "--hold-ms", "5"]),
                start("loner", &["--name", &own, "--hold-ms", "1"]),
                start("keeper", &["--name", &kept, "--hold-ms", ALWAYS]),
            ]
        };
        let witnesses = Witnesses((0..cluster.daemons.len()).map(of_node).collect());
        witnesses.progress(0..cluster.daemons.len(), PATIENCE);
        witnesses
    }

    /// All of some nodes go on, and hold what they are to keep.
    #[track_caller]
    fn progress(&self, nodes: impl IntoIterator<Item = usize>, limit: Duration) {
        for node in nodes {
            for witness in &self.0[node][..3] {
                witness.progress(2, limit);
            }
            until_true("the keeper holds", limit, || !self.0[node][3].intervals().is_empty());
        }
    }

    /// Ends them and lets the referee judge; all intervals, by node.
    #[track_caller]
    fn judge(self) -> Vec<Vec<Interval>> {
        let finish = |of_node: Vec<Witness>| of_node.into_iter().flat_map(Witness::finish).collect();
        let by_node: Vec<Vec<Interval>> = self.0.into_iter().map(finish).collect();
        judge(&by_node.concat()).unwrap_or_else(|e| panic!("{e}"));
        by_node
    }
}

/// The keeper of a node had its lock from the first to the last moment.
#[track_caller]
fn never_moved(intervals: &[Interval], node: usize) {
    let kept: Vec<_> = intervals.iter().filter(|interval| interval.name == format!("kept-{node}")).collect();
    assert_eq!(kept.len(), 1, "the lock of a survivor moved: {kept:?}");
}

/// The heart of it. `kill -9` of the master while locks are held on it and on the others: within D + 2R + 3 s another
/// node is master; the survivors' locks never moved, the dead node's locks are purged, who waited for them gets them in
/// order, with growing tokens; nobody ever held what another held (I1, I2, I5, I8).
#[test]
fn the_master_is_killed_and_the_others_go_on() {
    let Some(_turn) = alone() else { return };
    let mut cluster = Setup::new().start();
    let witnesses = Witnesses::start(&cluster);
    let mut on_master = cluster.hold(0, &["wanted"]);
    let shared_on_master = cluster.hold(0, &["-s", "shared"]);
    let survivor = cluster.hold(1, &["survivor"]);
    let token = on_master.granted();
    let mut waiters: Vec<Held> = Vec::new();
    for (already, node) in [1, 2, 1].into_iter().enumerate() {
        waiters.push(cluster.request(node, &["wanted"]));
        cluster.await_waiters(2, "wanted", already + 1);
    }
    let writer = cluster.request(2, &["shared"]);
    cluster.await_waiters(1, "shared", 1);

    let gaps = cluster.gaps();
    let killed = Instant::now();
    cluster.daemons[0].kill();
    let master = cluster.other_master(0, cluster.failover_limit());
    let elected = killed.elapsed();

    let mut token = token;
    let mut first_grant = None;
    for _ in 0..3 {
        let waiter = waiters.remove(0);
        let next = waiter.granted_within(cluster.failover_limit());
        first_grant.get_or_insert_with(|| killed.elapsed());
        assert!(!on_master.command_runs(), "granted while the old holder's command runs");
        assert!(next > token, "tokens grow");
        token = next;
        assert!(waiters.iter().all(|other| other.is_granted().is_none()), "one at a time, in the old order");
        assert_eq!(waiter.release(), 0);
    }
    let first_grant = first_grant.expect("there was one");
    cluster.judge_failover(first_grant, gaps);
    writer.granted();
    assert_eq!(on_master.end(), 75, "{}", on_master.errors());
    assert!(!shared_on_master.command_runs());
    println!(
        "measured: node {master} is master after {elected:?}, the dead node's lock was granted after {first_grant:?}"
    );

    let records = cluster.inspector().records();
    assert!(records.iter().all(|record| record.owner != 0), "locks of the dead node are left: {records:?}");
    assert_eq!(cluster.inspector().records_of("survivor").len(), 1);
    cluster.mxlock(2, &["run", "-n", "survivor", "--", "true"]).refused(1, "survivor");
    assert_eq!(writer.release(), 0);
    assert_eq!(survivor.release(), 0);

    witnesses.progress([1, 2], PATIENCE);
    cluster.daemons[0].start();
    cluster.daemons[0].ready();
    witnesses.progress([0, 1, 2], PATIENCE);
    let by_node = witnesses.judge();
    never_moved(&by_node[1], 1);
    never_moved(&by_node[2], 2);
    cluster.inspector().verify();
    cluster.stop();
}

/// The same with a node that is not master.
#[test]
fn another_node_is_killed_and_the_rest_goes_on() {
    let Some(_turn) = alone() else { return };
    let mut cluster = Setup::new().start();
    let witnesses = Witnesses::start(&cluster);
    let held = cluster.hold(2, &["wanted"]);
    let token = held.granted();
    let waiter = cluster.request(0, &["wanted"]);
    cluster.await_waiters(0, "wanted", 1);
    let gaps = cluster.gaps();
    let killed = Instant::now();
    cluster.daemons[2].kill();
    waiter.granted_within(cluster.failover_limit());
    let took = killed.elapsed();
    cluster.judge_failover(took, gaps);
    println!("measured: the dead node's lock was granted after {took:?}");
    assert!(!held.command_runs(), "granted while the old holder's command runs");
    assert!(waiter.granted() > token, "tokens grow");
    assert_eq!(waiter.release(), 0);
    assert_eq!(cluster.master(), 0, "the master stays");
    witnesses.progress([0, 1], PATIENCE);
    let by_node = witnesses.judge();
    never_moved(&by_node[0], 0);
    never_moved(&by_node[1], 1);
    cluster.inspector().verify();
}

/// Section 5: a master that was stopped (SIGSTOP) for longer than D is excluded; when it goes on it notices that, grants
/// nothing, and is admitted anew without help. Its clients knew from the lease page (I1).
#[test]
fn a_master_that_sleeps_too_long_wakes_up_harmless() {
    let Some(_turn) = alone() else { return };
    let mut cluster = Setup::new().start();
    let witnesses = Witnesses::start(&cluster);
    let held = cluster.hold(0, &["wanted"]);
    let waiter = cluster.request(1, &["wanted"]);
    cluster.await_waiters(2, "wanted", 1);
    cluster.daemons[0].signal(Signal::SIGSTOP);
    cluster.other_master(0, cluster.failover_limit());
    waiter.granted_within(cluster.failover_limit());
    assert!(!held.command_runs(), "granted while the old holder's command runs");
    cluster.daemons[0].signal(Signal::SIGCONT);
    cluster.daemons[0].ready();
    witnesses.progress([0, 1, 2], PATIENCE);
    assert_eq!(waiter.release(), 0);
    let by_node = witnesses.judge();
    never_moved(&by_node[1], 1);
    never_moved(&by_node[2], 2);
    cluster.stop();
}

/// Section 5: a short stop, within L, is nothing.
#[test]
fn a_short_pause_of_a_daemon_moves_nothing() {
    let Some(_turn) = alone() else { return };
    let mut cluster = Setup::new().steady().start();
    let witnesses = Witnesses::start(&cluster);
    let epoch = cluster.inspector().view().map(|view| view.epoch);
    cluster.daemons[1].signal(Signal::SIGSTOP);
    // R: shorter than anybody's patience.
    std::thread::sleep(Duration::from_millis(cluster.timing().renew_ms.into()));
    cluster.daemons[1].signal(Signal::SIGCONT);
    witnesses.progress([0, 1, 2], PATIENCE);
    assert_eq!(cluster.inspector().view().map(|view| view.epoch), epoch, "nobody was excluded");
    let by_node = witnesses.judge();
    for (node, intervals) in by_node.iter().enumerate() {
        never_moved(intervals, node);
    }
    cluster.stop();
}

/// Section 5: "A lost TCP connection by itself proves nothing". A member whose cable is pulled keeps its locks, and goes
/// on when the cable is back.
#[test]
fn a_member_without_network_keeps_its_locks() {
    let Some(_turn) = alone() else { return };
    let mut cluster = Setup::new().start();
    let held = cluster.hold(2, &["alpha"]);
    cluster.network.plug(2, false);
    until_true("the master misses node 2", PATIENCE, || {
        let said = cluster.mxlock(0, &["--json", "nodes"]);
        let nodes: serde_json::Value = serde_json::from_str(&said.out).expect("a document");
        nodes["nodes"].as_array().expect("a list").iter().any(|node| node["node"] == 2 && node["reachable"] == false)
    });
    let until = Instant::now() + 2 * cluster.dead_time();
    while Instant::now() < until {
        cluster.mxlock(0, &["run", "-n", "alpha", "--", "true"]).refused(1, "alpha");
        assert!(held.command_runs());
    }
    cluster.network.plug(2, true);
    cluster.daemons[2].ready();
    assert_eq!(held.release(), 0);
    cluster.mxlock(0, &["run", "-w", "60", "alpha", "--", "true"]).ok();
    cluster.stop();
}

/// The disk is what counts: a lockstate that is held together by three daemons is not formatted under them, not even by
/// force (section 8).
#[test]
fn a_lockstate_in_use_is_not_formatted() {
    let Some(_turn) = alone() else { return };
    let mut cluster = Setup::new().nodes(1).start();
    let lockstate = cluster.lockstate();
    cluster.format(&["--force"]).refused(75, &path(&lockstate));
    cluster.mxlock(0, &["run", "-n", "alpha", "--", "true"]).ok();
    cluster.stop();
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
