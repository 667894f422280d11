//! `mxlock why`: the chain of who waits for whom over nodes and resources (docs/json.md, decision 008).

use mxlock_client::{Client, LockFlags, LockSpec};
use mxlock_e2e::wait::{PATIENCE, until};
use mxlock_e2e::{Cluster, Setup, shared};
use serde_json::Value;

fn spec(name: &str) -> LockSpec {
    LockSpec::name(name).expect("a name")
}

/// What `mxlock --json why NAME` says on a node.
#[track_caller]
fn why(cluster: &Cluster, node: usize, name: &str) -> Value {
    serde_json::from_str(&cluster.mxlock(node, &["--json", "why", name]).ok()).expect("a document")
}

/// Locks as `NAME STATE NODE`, in the order of the answer.
fn lines(document: &Value) -> Vec<String> {
    let locks = document["locks"].as_array().expect("locks");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    locks.iter().map(|lock| format!("{} {} {}", text(&lock["name"]), text(&lock["state"]), lock["owner"])).collect()
}

/// Asks for a lock that has to wait, and waits until it does.
fn wait_for(cluster: &Cluster, client: &Client, name: &str, flags: LockFlags) {
    client.submit_lock(&spec(name).flags(flags)).expect("it is asked for");
    cluster.await_waiters(0, name, 1);
}

/// Node 2 waits for node 1, which waits for node 0: told on each node, with the names of the processes.
fn a_chain_of_three(cluster: &Cluster) {
    let held = cluster.hold(0, &["a"]);
    let (one, two) = (cluster.client(1), cluster.client(2));
    let _b = one.lock(&spec("b")).expect("b is free");
    wait_for(cluster, &one, "a", LockFlags::NONE);
    wait_for(cluster, &two, "b", LockFlags::NONE);
    for node in 0..3 {
        let document = why(cluster, node, "b");
        assert_eq!(lines(&document), ["b granted 1", "b waiting 2", "a waiting 1", "a granted 0"], "{document:#}");
        assert_eq!((&document["cycle"], &document["complete"]), (&Value::Array(vec![]), &true.into()));
        let locks = &document["locks"];
        for (waiter, blocker) in [(1, 0), (2, 3)] {
            assert_eq!(locks[waiter]["until"], "served");
            assert_eq!(locks[waiter]["blocked_by"][0]["lock_id"], locks[blocker]["lock_id"], "{document:#}");
            assert_eq!(locks[waiter]["blocked_by"][0]["how"], "holds");
            assert_eq!((&locks[blocker]["until"], &locks[blocker]["told"]), (&"released".into(), &true.into()));
        }
        let ours = std::fs::read_to_string("/proc/self/comm").expect("this program's name");
        assert_eq!(locks[0]["command"], ours.trim_end(), "{document:#}");
        assert_eq!(locks[3]["command"], "mxlock: cat", "what 'mxlock run' runs");
        let hosts: Vec<&Value> = document["nodes"].as_array().expect("nodes").iter().map(|n| &n["reachable"]).collect();
        assert_eq!(hosts, [true, true, true]);
    }
    let text = cluster.mxlock(2, &["why", "b"]).ok();
    assert_eq!(text.lines().count(), 5, "a title and one line a hop: {text}");
    assert!(text.contains("until it is released; its holder was asked to (BAST)") && !text.contains("cycle"), "{text}");
    assert_eq!(held.release(), 0);
}

/// Two nodes wait for each other, and a flag keeps that from being a deadlock: `why` shows the cycle and the flag.
fn a_cycle_that_does_not_count(cluster: &Cluster) {
    let (zero, one) = (cluster.client(0), cluster.client(1));
    let _x = zero.lock(&spec("x")).expect("x is free");
    let _y = one.lock(&spec("y")).expect("y is free");
    wait_for(cluster, &zero, "y", LockFlags::NODLCKWT);
    wait_for(cluster, &one, "x", LockFlags::NONE);
    let document = why(cluster, 2, "x");
    let waiting = |name: &str| {
        let locks = document["locks"].as_array().expect("locks");
        locks.iter().find(|lock| lock["name"] == name && lock["state"] == "waiting").expect("it waits").clone()
    };
    let cycle = document["cycle"].as_array().expect("a cycle");
    assert_eq!(cycle.len(), 2, "{document:#}");
    for lock in [waiting("x"), waiting("y")] {
        assert!(cycle.contains(&lock["lock_id"]), "{document:#}");
        assert_eq!(lock["nodlckwt"], lock["name"] == "y");
    }
    let text = cluster.mxlock(1, &["why", "y"]).ok();
    assert!(text.contains("cycle: ") && text.contains("(NODLCKWT)"), "{text}");
    // Without the flag it is a deadlock, and gone before anybody can ask.
    let (two, three) = (cluster.client(0), cluster.client(1));
    let _x = two.lock(&spec("x2")).expect("x2 is free");
    let _y = three.lock(&spec("y2")).expect("y2 is free");
    wait_for(cluster, &two, "y2", LockFlags::NONE);
    let error = three.lock(&spec("x2")).expect_err("the youngest is refused");
    assert!(error.to_string().contains("deadlock"), "{error}");
    let document = why(cluster, 2, "y2");
    assert_eq!(document["cycle"], Value::Array(vec![]), "{document:#}");
}

/// A lock that nobody waits for, and none at all.
fn nothing_to_wait_for(cluster: &Cluster) {
    let held = cluster.hold(1, &["quiet"]);
    let text = cluster.mxlock(2, &["why", "quiet"]).ok();
    assert!(text.contains("in nobody's way") && text.ends_with("nobody waits for quiet\n"), "{text}");
    assert_eq!(lines(&why(cluster, 0, "quiet")), ["quiet granted 1"]);
    assert_eq!(held.release(), 0);
    let said = until("it is gone", PATIENCE, || {
        Some(cluster.mxlock(2, &["why", "quiet"])).filter(|said| said.out.starts_with("nobody"))
    });
    assert_eq!((said.code, said.out.as_str()), (1, "nobody holds or waits for quiet\n"));
}

/// A dead client's PERSISTENT lock: nobody will release it, and `why` says what would.
fn an_orphan(cluster: &Cluster) {
    let mut held = cluster.hold(1, &["--persistent", "kept"]);
    let waiter = cluster.request(2, &["kept"]);
    cluster.await_waiters(0, "kept", 1);
    held.kill();
    let text = until("it is an orphan", PATIENCE, || {
        Some(cluster.mxlock(0, &["why", "kept"]).ok()).filter(|text| text.contains("orphan"))
    });
    assert!(text.contains("orphan of a dead client: until it is adopted ('mxlock adopt') or purged"), "{text}");
    assert_eq!(why(cluster, 0, "kept")["locks"][0]["until"], "adopted");
    cluster.mxlock(0, &["adopt", "kept", "--", "true"]).ok();
    waiter.granted();
    assert_eq!(waiter.release(), 0);
}

#[test]
fn why_shows_who_waits_for_whom() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().start();
    a_chain_of_three(&cluster);
    a_cycle_that_does_not_count(&cluster);
    nothing_to_wait_for(&cluster);
    an_orphan(&cluster);
    cluster.stop();
}

/// Without a master nobody knows: that is said, with why (INTERFACE.md: 69).
#[test]
fn without_a_master_why_says_so() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let held = cluster.hold(1, &["a"]);
    cluster.daemons[0].kill();
    let said =
        until("node 1 notices", PATIENCE, || Some(cluster.mxlock(1, &["why", "a"])).filter(|said| said.code != 0));
    assert_eq!(said.code, 69, "{}", said.err);
    assert!(said.err.contains("no active master") || said.err.contains("did not answer"), "{}", said.err);
    cluster.other_master(0, cluster.failover_limit());
    until("the new master tells", PATIENCE, || {
        Some(cluster.mxlock(1, &["why", "a"])).filter(|said| said.code == 0 && said.out.contains("held"))
    });
    assert_eq!(held.release(), 0);
    cluster.stop();
}
