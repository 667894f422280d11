//! Locks of three nodes on one disk: exclusion, sharing, order, and what the disk says (DESIGN section 7).

use mxlock_e2e::wait::until_true;
use mxlock_e2e::{Cluster, Setup, alone, shared};
use std::time::Duration;

/// `clear_behind_ms` is 100; the rest is for a loaded machine.
const CLEARED: Duration = Duration::from_secs(20);

/// I1: while one node holds EX, no other gets the lock; the record of the held lock is on disk (I3) and gone soon after
/// the release.
fn ex_excludes_and_is_on_disk(cluster: &Cluster) {
    let held = cluster.hold(1, &["alpha"]);
    let token = held.granted();
    for node in [0, 2] {
        for mode in ["EX", "PW", "PR", "CW", "CR"] {
            let said = cluster.mxlock(node, &["run", "-n", "-m", mode, "alpha", "--", "true"]);
            said.refused(1, "alpha");
        }
    }
    let records = cluster.inspector().records_of("alpha");
    assert_eq!(records.len(), 1, "{records:?}");
    let record = &records[0];
    assert_eq!((record.owner, record.mode.as_str(), record.state.as_str()), (1, "EX", "granted"));
    assert_eq!(record.token, token);
    assert_eq!(held.release(), 0);
    until_true("the record is cleared", CLEARED, || cluster.inspector().records_of("alpha").is_empty());
    cluster.mxlock(0, &["run", "-n", "alpha", "--", "true"]).ok();
}

/// PR is compatible with PR and with nothing that writes.
fn pr_shares(cluster: &Cluster) {
    let readers: Vec<_> = (0..3).map(|node| cluster.hold(node, &["-s", "beta"])).collect();
    let records = cluster.inspector().records_of("beta");
    let owners: std::collections::BTreeSet<u64> = records.iter().map(|record| record.owner).collect();
    assert_eq!(owners.into_iter().collect::<Vec<_>>(), [0, 1, 2], "{records:?}");
    assert!(records.iter().all(|record| record.mode == "PR"), "{records:?}");
    cluster.mxlock(1, &["run", "-n", "beta", "--", "true"]).refused(1, "beta");
    // PROTOTYPE 11: PR and CW are incompatible.
    cluster.mxlock(1, &["run", "-n", "-m", "CW", "beta", "--", "true"]).refused(1, "beta");
    let writer = cluster.request(2, &["beta"]);
    cluster.await_waiters(0, "beta", 1);
    // PROTOTYPE 14: a new reader does not barge past a waiting writer.
    cluster.mxlock(0, &["run", "-n", "-s", "beta", "--", "true"]).refused(1, "beta");
    for reader in readers {
        assert!(writer.is_granted().is_none(), "a writer beside readers");
        assert_eq!(reader.release(), 0);
    }
    writer.granted();
    assert_eq!(writer.release(), 0);
}

/// A waiter gets the lock when the holder's command ends, with a larger token (I2).
fn a_waiter_is_granted_when_the_command_ends(cluster: &Cluster) {
    let holder = cluster.hold(2, &["gamma"]);
    let first = holder.granted();
    let waiter = cluster.request(0, &["gamma"]);
    cluster.await_waiters(1, "gamma", 1);
    assert!(waiter.is_granted().is_none());
    assert_eq!(holder.release(), 0);
    assert!(waiter.granted() > first, "tokens grow");
    assert_eq!(waiter.release(), 0);
}

/// I8, PROTOTYPE 12: first come, first served, over all nodes.
fn waiters_are_served_in_order(cluster: &Cluster) {
    let mut holder = cluster.hold(0, &["delta"]);
    let mut waiters = Vec::new();
    for (already, node) in [1, 2, 0, 2, 1].into_iter().enumerate() {
        waiters.push(cluster.request(node, &["delta"]));
        cluster.await_waiters(2, "delta", already + 1);
    }
    let mut token = holder.granted();
    while !waiters.is_empty() {
        assert_eq!(holder.release(), 0);
        holder = waiters.remove(0);
        let next = holder.granted();
        assert!(next > token, "tokens grow");
        token = next;
        assert!(waiters.iter().all(|waiter| waiter.is_granted().is_none()), "one at a time, in order");
    }
    assert_eq!(holder.release(), 0);
}

/// I10: at rest the table on the disk is what the daemons have: nothing.
fn at_rest_the_disk_is_clean(cluster: &mut Cluster) {
    until_true("all records are cleared", CLEARED, || cluster.inspector().records().is_empty());
    cluster.inspector().verify();
    cluster.stop();
    cluster.inspector().verify();
}

fn basics(setup: Setup) -> Cluster {
    let mut cluster = setup.start();
    ex_excludes_and_is_on_disk(&cluster);
    pr_shares(&cluster);
    a_waiter_is_granted_when_the_command_ends(&cluster);
    waiters_are_served_in_order(&cluster);
    at_rest_the_disk_is_clean(&mut cluster);
    cluster
}

/// The main road: a file on XFS, io_uring.
#[test]
fn three_nodes_lock_through_a_file_on_xfs() {
    let Some(_turn) = shared() else { return };
    let cluster = basics(Setup::new());
    assert!(cluster.daemons.iter().all(|daemon| !daemon.log().contains("io_uring is not available")));
}

/// A whole block device.
#[test]
fn three_nodes_lock_through_a_bare_device() {
    let Some(_turn) = shared() else { return };
    basics(Setup::new().bare());
}

/// PROTOTYPE 9: sectors of 4,096 bytes, without being told.
#[test]
fn three_nodes_lock_through_a_device_with_4096_byte_sectors() {
    let Some(_turn) = shared() else { return };
    let cluster = basics(Setup::new().bare().sector(4_096));
    let summary = cluster.inspector().json(&["summary"]);
    assert_eq!(summary["geometry"]["sector_bytes"], 4_096, "{summary}");
}

/// PROTOTYPE 9: the same through a file on such a device.
#[test]
fn three_nodes_lock_through_a_file_on_a_device_with_4096_byte_sectors() {
    let Some(_turn) = shared() else { return };
    let cluster = basics(Setup::new().sector(4_096));
    let summary = cluster.inspector().json(&["summary"]);
    assert_eq!(summary["geometry"]["sector_bytes"], 4_096, "{summary}");
}

/// Writer threads and epoll, as asked for.
#[test]
fn three_nodes_lock_without_io_uring() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().io("pwrite").start();
    assert_eq!(cluster.daemons[1].status().io, "pwrite");
    ex_excludes_and_is_on_disk(&cluster);
    waiters_are_served_in_order(&cluster);
    at_rest_the_disk_is_clean(&mut cluster);
}

/// Where a seccomp filter forbids io_uring the daemon falls back, and its log says so.
#[test]
fn a_daemon_that_may_not_use_io_uring_says_so_and_works() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).prepare();
    let wrapper = mxlock_e2e::command::program("mxlock-without-uring").display().to_string();
    cluster.daemons[1].wrap(&[&wrapper]);
    for daemon in &mut cluster.daemons {
        daemon.start();
        daemon.ready();
    }
    assert_eq!(cluster.daemons[0].status().io, "uring");
    assert_eq!(cluster.daemons[1].status().io, "pwrite");
    let log = cluster.daemons[1].log();
    assert!(log.contains("io_uring is not available"), "{log}");
    let held = cluster.hold(1, &["alpha"]);
    cluster.mxlock(0, &["run", "-n", "alpha", "--", "true"]).refused(1, "alpha");
    assert_eq!(held.release(), 0);
    cluster.stop();
}

/// The timing and the number of slots that users get: 2 s, 8 s, 3 s, 15 s; 65,536.
#[test]
fn three_nodes_lock_with_default_timing() {
    let Some(_turn) = shared() else { return };
    basics(Setup::new().defaults());
}

/// A slot is found without being named, and the same one after a restart.
#[test]
fn a_node_finds_a_slot_by_itself_and_takes_it_again() {
    let Some(_turn) = alone() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let mut third = cluster.daemon_in("auto", 1, "auto");
    third.start();
    third.ready();
    let slot = third.status().node;
    assert_eq!(slot.get(), 2, "the lowest one that was never used");
    assert_eq!(third.terminate(), 0);
    third.start();
    third.ready();
    assert_eq!(third.status().node, slot);
    assert_eq!(third.terminate(), 0);
    cluster.stop();
}
