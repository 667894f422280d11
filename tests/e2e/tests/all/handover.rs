//! Planned changes of the master: nobody waits for long (DESIGN section 4, "Planned handover"; issue 2).

use mxlock_e2e::referee::{Interval, Witness, judge};
use mxlock_e2e::wait::PATIENCE;
use mxlock_e2e::{Cluster, Setup, alone};
use std::time::Duration;

/// Longest pause of a client that locks in a loop.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A busy machine makes a pause longer, and nothing makes it shorter: one good try of these shows what is to be shown.
const TRIES: usize = 4;

/// Clients that lock in a loop: on these nodes, each with a name of its own, and one more for a common name.
fn loopers(cluster: &Cluster, nodes: &[usize]) -> Vec<Witness> {
    let mut all = Vec::new();
    for node in nodes {
        let socket = cluster.daemons[*node].socket();
        for (what, name) in [("own", format!("own-{node}")), ("common", "common".to_owned())] {
            let args = ["--name", &name, "--hold-ms", "0"];
            all.push(Witness::start(cluster.directory(), &format!("{what}-{node}"), &socket, &args));
        }
    }
    progress(&all);
    all
}

#[track_caller]
fn progress(witnesses: &[Witness]) {
    for witness in witnesses {
        witness.progress(20, PATIENCE);
    }
}

/// The longest time that a client was without a lock between two grants.
#[track_caller]
fn longest_pause(witnesses: Vec<Witness>) -> Duration {
    let of_each: Vec<Vec<Interval>> = witnesses.into_iter().map(Witness::finish).collect();
    judge(&of_each.concat()).unwrap_or_else(|e| panic!("{e}"));
    let pauses = of_each.iter().flat_map(|of_one| of_one.windows(2));
    let longest = pauses.map(|pair| pair[1].granted_ns - pair[0].ended_ns).max();
    Duration::from_nanos(longest.expect("there are grants"))
}

/// A few tries, until the longest pause of one is short enough.
#[track_caller]
fn pauses_are_short(what: &str, pause_of_a_try: impl Fn() -> Duration) {
    let mut pauses = Vec::new();
    while pauses.len() < TRIES && pauses.last().is_none_or(|pause| *pause >= LONGEST_PAUSE) {
        pauses.push(pause_of_a_try());
        println!("measured: the longest pause {what} was {:?}", pauses[pauses.len() - 1]);
    }
    assert!(pauses.last().is_some_and(|pause| *pause < LONGEST_PAUSE), "the longest pause {what}: {pauses:?}");
}

/// `mxlock handover`: to a node of the operator's choice, without anybody noticing.
#[test]
fn a_handover_pauses_clients_for_less_than_a_second() {
    let Some(_turn) = alone() else { return };
    pauses_are_short("over two handovers", || {
        let mut cluster = Setup::new().start();
        cluster.let_ballots_begin();
        let held = cluster.hold(0, &["alpha"]);
        let witnesses = loopers(&cluster, &[0, 1, 2]);
        cluster.mxlock(0, &["handover", "2"]).ok();
        assert_eq!(cluster.other_master(0, cluster.failover_limit()), 2, "the one that was named");
        progress(&witnesses);
        cluster.mxlock(0, &["handover", "1"]).ok();
        assert_eq!(cluster.other_master(2, cluster.failover_limit()), 1, "asked through a node that is not master");
        progress(&witnesses);
        let pause = longest_pause(witnesses);
        assert!(held.command_runs());
        assert_eq!(held.release(), 0);
        cluster.inspector().verify();
        cluster.stop();
        pause
    });
}

/// SIGTERM of the master hands over and stops; the clients of the others see a short pause, and the locks of its own
/// clients are kept until it is back.
#[test]
fn sigterm_of_the_master_pauses_clients_for_less_than_a_second() {
    let Some(_turn) = alone() else { return };
    pauses_are_short("at the master's SIGTERM", || {
        let mut cluster = Setup::new().steady().start();
        cluster.let_ballots_begin();
        let held = cluster.hold(0, &["alpha"]);
        let witnesses = loopers(&cluster, &[1, 2]);
        assert_eq!(cluster.daemons[0].terminate(), 0);
        cluster.daemons[0].start();
        let master = cluster.other_master(0, cluster.failover_limit());
        cluster.daemons[0].ready();
        progress(&witnesses);
        let pause = longest_pause(witnesses);
        assert!(held.command_runs(), "{}", held.errors());
        cluster.mxlock(master, &["run", "-n", "alpha", "--", "true"]).refused(1, "alpha");
        assert_eq!(held.release(), 0);
        cluster.inspector().verify();
        cluster.stop();
        pause
    });
}

/// `mxlock leave` is refused while locks are held (75), and takes the node out at once when none are.
#[test]
fn leaving_is_for_nodes_without_locks() {
    let Some(_turn) = alone() else { return };
    let mut cluster = Setup::new().start();
    let held = cluster.hold(0, &["alpha"]);
    cluster.mxlock(0, &["leave"]).refused(75, "lock");
    assert_eq!(held.release(), 0);
    cluster.mxlock(0, &["leave"]).ok();
    assert_eq!(cluster.daemons[0].end(), 0);
    cluster.other_master(0, cluster.failover_limit());
    assert_eq!(cluster.inspector().heartbeat(0)["state"], "left");
    cluster.mxlock(1, &["run", "-n", "alpha", "--", "true"]).ok();
    cluster.stop();
}
