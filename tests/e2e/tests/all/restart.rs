//! Daemons that die and come back: locks belong to the clients (DESIGN sections 6 and 7; issue 2).

use mxlock_e2e::wait::{PATIENCE, until_true};
use mxlock_e2e::{Cluster, Held, Setup, alone};
use std::time::Instant;

/// The lock is there with its token, claimed by its client, and nobody else gets it.
#[track_caller]
fn still_held(cluster: &Cluster, held: &Held, name: &str, owner: u64) {
    until_true(&format!("'{name}' is claimed again"), PATIENCE, || {
        assert!(held.command_runs(), "the command was ended: {}", held.errors());
        let said = cluster.mxlock((owner as usize + 1) % 3, &["--json", "locks", name]);
        let Ok(document) = serde_json::from_str::<serde_json::Value>(&said.out) else { return false };
        let locks = document["locks"].as_array().expect("a list of locks");
        locks.iter().any(|lock| {
            lock["state"] == "granted" && lock["orphan"] == false && lock["possible"] == false && lock["owner"] == owner
        })
    });
    let mut records = cluster.inspector().records_of(name);
    records.retain(|record| record.state == "granted");
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].token, held.granted());
    for node in 0..cluster.daemons.len() {
        cluster.mxlock(node, &["run", "-n", name, "--", "true"]).refused(1, name);
    }
}

fn killed_and_restarted(victim: usize) {
    let mut cluster = Setup::new().steady().start();
    let held = cluster.hold(victim, &["alpha"]);
    let other = cluster.hold((victim + 1) % 3, &["beta"]);
    let waiter = cluster.request((victim + 2) % 3, &["alpha"]);
    cluster.await_waiters((victim + 1) % 3, "alpha", 1);

    cluster.daemons[victim].kill();
    let began = Instant::now();
    cluster.daemons[victim].start();
    cluster.daemons[victim].ready();
    println!("measured: node {victim} grants locks again {:?} after its start", began.elapsed());
    assert!(waiter.is_granted().is_none(), "another node got the lock");
    still_held(&cluster, &held, "alpha", victim as u64);
    assert!(other.command_runs());
    assert!(waiter.is_granted().is_none(), "another node got the lock");
    assert_eq!(held.release(), 0);
    waiter.granted();
    assert_eq!(waiter.release(), 0);
    assert_eq!(other.release(), 0);
    cluster.inspector().verify();
    cluster.stop();
}

/// `kill -9` and restart before exclusion: the clients reconnect and keep their locks; nobody else ever got them (I5).
#[test]
fn a_restarted_daemon_keeps_its_locks() {
    let Some(_turn) = alone() else { return };
    killed_and_restarted(2);
}

/// The same for the master: its new incarnation proves that the old one is gone as master, not that its locks are.
#[test]
fn a_restarted_master_keeps_its_locks() {
    let Some(_turn) = alone() else { return };
    killed_and_restarted(0);
}

/// A daemon that does not come back: the commands of its `mxlock run`s are ended before anybody else gets their locks.
#[test]
fn commands_end_before_others_get_their_locks() {
    let Some(_turn) = alone() else { return };
    let mut cluster = Setup::new().start();
    let names = ["alpha", "beta", "gamma"];
    let mut held: Vec<Held> = names.iter().map(|name| cluster.hold(1, &[name])).collect();
    let mut waiters: Vec<Held> = Vec::new();
    for name in names {
        waiters.push(cluster.request(2, &[name]));
        cluster.await_waiters(0, name, 1);
    }
    cluster.daemons[1].kill();
    for (waiter, held) in waiters.into_iter().zip(&mut held) {
        waiter.granted_within(cluster.failover_limit());
        assert!(!held.command_runs(), "granted while the old holder's command runs");
        assert_eq!(held.end(), 75, "{}", held.errors());
        assert!(held.errors().contains("mxlock: "), "it says why: {}", held.errors());
        assert_eq!(waiter.release(), 0);
    }
}

/// All daemons killed and restarted: the locks of clients that are still alive are still theirs (I5).
#[test]
fn locks_outlive_all_daemons() {
    let Some(_turn) = alone() else { return };
    let mut cluster = Setup::new().steady().start();
    let held: Vec<Held> = (0..3).map(|node| cluster.hold(node, &[&format!("of-{node}")])).collect();
    for daemon in &mut cluster.daemons {
        daemon.kill();
    }
    for daemon in &mut cluster.daemons {
        daemon.start();
    }
    for daemon in &mut cluster.daemons {
        daemon.ready();
    }
    for (node, held) in held.iter().enumerate() {
        still_held(&cluster, held, &format!("of-{node}"), node as u64);
    }
    for held in held {
        assert_eq!(held.release(), 0);
    }
    cluster.inspector().verify();
    cluster.stop();
}

/// A client that ends while its daemon is away leaves nothing behind: its orphan ends with its process.
#[test]
fn a_lock_whose_client_died_with_the_daemon_is_freed() {
    let Some(_turn) = alone() else { return };
    let mut cluster = Setup::new().config("orphan_lifetime_ms = 1000\n").start();
    let mut held = cluster.hold(1, &["alpha"]);
    let waiter = cluster.request(0, &["alpha"]);
    cluster.await_waiters(2, "alpha", 1);
    cluster.daemons[1].kill();
    held.kill();
    cluster.daemons[1].start();
    cluster.daemons[1].ready();
    waiter.granted();
    assert!(!held.command_runs());
    assert_eq!(waiter.release(), 0);
    cluster.stop();
}
