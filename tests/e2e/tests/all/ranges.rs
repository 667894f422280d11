//! Byte ranges with the rules of fcntl(2), over two nodes (`PosixRanges`), and orphans of ranges.

use mxlock_client::{ByteRange, Client, ClientError, Denial, LockSpec, Mode, PosixRanges, RangeMode};
use mxlock_e2e::wait::{PATIENCE, until};
use mxlock_e2e::{Cluster, Setup, shared};
use std::time::Duration;

const WAIT: Duration = PATIENCE;

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).expect("a start before its end")
}

fn of<'c>(client: &'c Client, name: &str, owner: u64) -> PosixRanges<'c> {
    PosixRanges::new(client, LockSpec::name(name).expect("a name").resource, owner)
}

#[track_caller]
fn denied(result: Result<(), ClientError>, why: Denial) {
    match result {
        Err(ClientError::Denied { denial, .. }) => assert_eq!(denial, why),
        other => panic!("not {why:?}: {other:?}"),
    }
}

/// A part is downgraded and another unlocked: the other node gets those bytes in these modes, and no others.
fn a_part_can_be_given_away(cluster: &Cluster) {
    let (one, two) = (cluster.client(1), cluster.client(2));
    let (mut ours, mut theirs) = (of(&one, "parts", 7), of(&two, "parts", 7));
    ours.lock(range(0, 99), RangeMode::Exclusive).expect("it is free");
    let token = ours.token();
    denied(theirs.try_lock(range(50, 59), RangeMode::Shared), Denial::Busy);
    let conflict = theirs.conflict(range(50, 59), RangeMode::Shared).expect("an answer").expect("a conflict");
    assert_eq!((conflict.range, conflict.mode, conflict.node.get()), (range(0, 99), Mode::EX, 1));
    assert_eq!(conflict.process.pid, std::process::id());
    assert_eq!(
        ours.conflict(range(0, 99), RangeMode::Exclusive).expect("an answer"),
        None,
        "one's own is not in the way"
    );
    ours.lock(range(50, 59), RangeMode::Shared).expect("a downgrade");
    ours.unlock(range(90, u64::MAX)).expect("an end");
    let held = [
        (range(0, 49), RangeMode::Exclusive),
        (range(50, 59), RangeMode::Shared),
        (range(60, 89), RangeMode::Exclusive),
    ];
    assert_eq!(ours.held(), held);
    assert!(ours.token() > token && ours.is_valid());
    theirs.lock_timeout(range(50, 59), RangeMode::Shared, WAIT).expect("it is shared now");
    theirs.lock_timeout(range(90, 200), RangeMode::Exclusive, WAIT).expect("it is free now");
    for (range, mode) in [(range(49, 49), RangeMode::Shared), (range(59, 60), RangeMode::Shared)] {
        denied(theirs.try_lock(range, mode), Denial::Busy);
    }
    assert_eq!(theirs.conflict(range(90, 300), RangeMode::Exclusive).expect("an answer"), None);
    cluster.inspector().verify();
    // The upgrade waits for the other reader; what was held before is held meanwhile, and after.
    denied(ours.try_lock(range(50, 59), RangeMode::Exclusive), Denial::Busy);
    denied(ours.lock_timeout(range(40, 69), RangeMode::Exclusive, Duration::from_millis(50)), Denial::TimedOut);
    assert_eq!(ours.held(), held);
    theirs.unlock(range(50, 59)).expect("an end");
    ours.lock_timeout(range(50, 59), RangeMode::Exclusive, WAIT).expect("nobody else reads it");
    assert_eq!(ours.held(), [(range(0, 89), RangeMode::Exclusive)]);
    let records = cluster.inspector().records_of("parts");
    assert!(records.len() >= 2, "one for each node, and what is being cleared: {records:?}");
}

/// Somebody waits for what is held. To enlarge, divide or upgrade that is no deadlock with who waits, and does not wait for
/// it; two that want each other's bytes are one.
fn who_waits_is_not_in_the_way(cluster: &Cluster) {
    let (one, two) = (cluster.client(1), cluster.client(2));
    let mut ours = of(&one, "crowd", 1);
    ours.lock(range(0, 9), RangeMode::Exclusive).expect("it is free");
    let spec = LockSpec::name("crowd").expect("a name").range(range(5, 14));
    let waiting = two.submit_lock(&LockSpec { transaction: 3, ..spec }).expect("it is asked for");
    cluster.await_waiters(0, "crowd", 1);
    ours.lock_timeout(range(2, 30), RangeMode::Exclusive, WAIT).expect("those who wait do so for this owner");
    ours.lock_timeout(range(7, 8), RangeMode::Shared, WAIT).expect("a downgrade never waits");
    ours.lock_timeout(range(7, 8), RangeMode::Exclusive, WAIT).expect("nobody else has it");
    // Whoever holds nothing there waits its turn.
    let mut third = of(&one, "crowd", 4);
    denied(third.try_lock(range(14, 14), RangeMode::Shared), Denial::Busy);
    ours.unlock(range(0, 14)).expect("an end");
    until("the waiter gets its bytes", PATIENCE, || {
        two.poll_events(Some(Duration::from_millis(20))).expect("events");
        two.guard(waiting).map(drop)
    });
    third.lock_timeout(range(14, 14), RangeMode::Shared, WAIT).expect("it is free");
    // Two owners on two nodes, crosswise.
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            let client = cluster.client(2);
            let mut theirs = of(&client, "crowd", 2);
            theirs.lock(range(40, 49), RangeMode::Exclusive).expect("it is free");
            ready.send(()).expect("somebody listens");
            theirs.lock(range(20, 20), RangeMode::Exclusive)
        });
        is_ready.recv().expect("the other thread");
        cluster.await_waiters(0, "crowd", 1);
        denied(ours.lock(range(45, 45), RangeMode::Exclusive), Denial::Deadlock);
        assert_eq!(ours.held(), [(range(15, 30), RangeMode::Exclusive)], "what was held is held");
        ours.unlock(ByteRange::ALL).expect("an end");
        other.join().expect("the other thread").expect("the youngest is refused, the other is served");
    });
}

/// The daemons recover with overlapping locks of one owner as with any others, and the ranges stay what they are.
fn ranges_survive_a_failover(cluster: &mut Cluster) {
    let one = cluster.client(1);
    let mut ours = of(&one, "kept", 1);
    ours.lock(range(0, 99), RangeMode::Exclusive).expect("it is free");
    ours.lock(range(10, 19), RangeMode::Shared).expect("a downgrade");
    cluster.let_ballots_begin();
    cluster.daemons[0].kill();
    cluster.other_master(0, cluster.failover_limit());
    ours.unlock(range(20, 99)).expect("an end");
    assert_eq!(ours.held(), [(range(0, 9), RangeMode::Exclusive), (range(10, 19), RangeMode::Shared)]);
    let two = cluster.client(2);
    let mut theirs = of(&two, "kept", 1);
    theirs.lock_timeout(range(20, 99), RangeMode::Exclusive, WAIT).expect("it is free");
    denied(theirs.try_lock(range(9, 9), RangeMode::Shared), Denial::Busy);
    theirs.try_lock(range(10, 19), RangeMode::Shared).expect("it is shared");
    cluster.inspector().verify();
}

/// `mxlock run --persistent --range` that is killed leaves an orphan of that part, which is adopted by that part.
fn an_orphan_of_a_range(cluster: &Cluster) {
    let mut held = cluster.hold(1, &["--persistent", "--range", "0-99", "image"]);
    let mut other = cluster.hold(1, &["--persistent", "--range", "100-", "image"]);
    held.kill();
    other.kill();
    until("they are orphans", PATIENCE, || {
        let said = cluster.mxlock(2, &["--json", "locks", "image"]).ok();
        (said.matches("\"orphan\": true").count() == 2).then_some(())
    });
    cluster.mxlock(2, &["adopt", "image", "--", "true"]).refused(1, "image");
    cluster.mxlock(2, &["adopt", "--range", "0-9", "image", "--", "true"]).refused(1, "image");
    cluster.mxlock(2, &["run", "-n", "--range", "5-6", "image", "--", "true"]).refused(1, "image");
    cluster.mxlock(2, &["adopt", "--range", "0-99", "image", "--", "true"]).ok();
    cluster.mxlock(2, &["run", "-w", "60", "--range", "0-99", "image", "--", "true"]).ok();
    cluster.mxlock(2, &["run", "-n", "--range", "100-100", "image", "--", "true"]).refused(1, "image");
    cluster.mxlock(1, &["adopt", "--range", "100-", "image", "--", "true"]).ok();
}

#[test]
fn ranges_have_the_rules_of_fcntl_on_all_nodes() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().start();
    a_part_can_be_given_away(&cluster);
    who_waits_is_not_in_the_way(&cluster);
    an_orphan_of_a_range(&cluster);
    ranges_survive_a_failover(&mut cluster);
    cluster.stop();
}
