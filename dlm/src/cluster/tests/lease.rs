//! Leases (section 5).

use super::*;

/// The loss is latched: good beats alone do not end it. A master resigns by it, and may be elected again; its
/// incarnation, and so its sessions' locks, stand.
#[test]
fn a_lost_lease_comes_back_only_by_a_view() {
    let mut bench = Bench::as_member();
    let incarnation = bench.cluster.incarnation();
    bench.log.clear();
    bench.now_ms += L + 1;
    bench.beats(1);
    bench.beat();
    assert!(bench.saw(|action| *action == Action::LeaseLost));
    bench.run_with(2 * R, |bench| bench.beats(1));
    assert_eq!(bench.cluster.lease_until(), None);
    let above = bench.cluster.wants_join().expect("a wish to be confirmed");
    assert_eq!(above, bench.view().epoch);
    bench.cluster.admitted(bench.now(), bench.view());
    assert_eq!(bench.cluster.lease_until(), None, "a view of before the loss confirms nothing");

    let confirming = View { epoch: above.next(), ..bench.view() };
    bench.put(1, NodeState::Member, |master| set_view(master, confirming));
    bench.run(R / 4);
    assert_eq!(bench.cluster.lease_until(), None, "the master has not spoken");
    bench.cluster.admitted(bench.now(), confirming);
    bench.drain();
    assert!(bench.cluster.lease_until().is_some());
    assert!(bench.saw(|action| *action == Action::LeaseRegained { epoch: confirming.epoch }));
    assert_eq!(bench.cluster.incarnation(), incarnation);
}

/// An exclusion that is under way when the node comes back may still be chosen: only a view above it confirms.
#[test]
fn a_proposal_under_way_does_not_confirm() {
    let mut bench = Bench::as_member();
    let next = bench.view().epoch.next();
    bench.now_ms += L + 1;
    bench.put(1, NodeState::Member, |master| {
        master.block = Block { instance: next, promised: Ballot(65), ..Block::default() };
    });
    bench.run_with(R, |bench| bench.beats(1));
    assert_eq!(bench.cluster.wants_join(), Some(next));
    bench.cluster.admitted(bench.now(), View { epoch: next, ..bench.view() });
    assert_eq!(bench.cluster.lease_until(), None);
}

/// A wish that was made before another stall is void: what the master answers to it may have been overtaken.
#[test]
fn a_stall_voids_the_wish() {
    let mut bench = Bench::as_member();
    bench.now_ms += L + 1;
    bench.run_with(R, |bench| bench.beats(1));
    let above = bench.cluster.wants_join().unwrap();
    bench.now_ms += L + 1;
    bench.cluster.admitted(bench.now(), View { epoch: above.next(), ..bench.view() });
    assert_eq!(bench.cluster.lease_until(), None);
    bench.run_with(R, |bench| bench.beats(1));
    assert_eq!(bench.cluster.wants_join(), Some(above.next()));
}

/// A lone master that lost its lease resigns, elects itself above the loss, and goes on under its incarnation.
#[test]
fn a_lone_master_recovers_its_lease() {
    let mut bench = Bench::master();
    let (incarnation, epoch) = (bench.cluster.incarnation(), bench.view().epoch);
    bench.log.clear();
    bench.now_ms += L + 1;
    bench.cluster.on_time(bench.now());
    bench.drain();
    assert!(!bench.cluster.is_master(bench.now()));
    assert_eq!(bench.image.as_ref().unwrap().1.state, NodeState::Resigned);
    bench.run(2 * R);
    assert!(bench.cluster.is_master(bench.now()) && bench.view().epoch > epoch);
    assert_eq!(bench.view().phase, Phase::Recovering);
    assert_eq!(bench.cluster.incarnation(), incarnation);
    assert!(bench.saw(|action| matches!(action, Action::LeaseRegained { .. })));
    assert_eq!(bench.own().state, NodeState::Member);
}

/// Excluded: a new incarnation goes on as a joiner; what the old one held is gone.
#[test]
fn exclusion_gives_a_new_incarnation() {
    let mut bench = Bench::as_member();
    let old = bench.cluster.incarnation();
    let without = View { epoch: bench.view().epoch.next(), members: set(&[1]), ..bench.view() };
    bench.put(1, NodeState::Member, |master| set_view(master, without));
    bench.run_with(R, |bench| bench.beats(1));
    assert!(bench.saw(|action| *action == Action::Excluded { epoch: without.epoch }));
    assert_ne!(bench.cluster.incarnation(), old);
    assert_eq!((bench.own().incarnation, bench.own().state), (bench.cluster.incarnation(), NodeState::Joining));
    assert!(!bench.cluster.is_member() && bench.cluster.lease_until().is_none());
    assert_eq!(bench.cluster.wants_join(), Some(without.epoch));
}

/// A beat whose read failed extends nothing: the core's lease ends when the clients' page says so, not when a good write
/// and an older good read would allow it.
#[test]
fn half_a_beat_extends_nothing() {
    let mut bench = Bench::master();
    let until = bench.cluster.lease_until();
    bench.now_ms += R;
    let write = bench.write();
    bench.deliver(write, Some(Err(IoFault::Failed("no".into()))));
    assert_eq!(bench.cluster.lease_until(), until);
    bench.now_ms += L;
    bench.beat();
    assert!(bench.log.contains(&Action::LeaseLost));
}

/// The lease counts from the start of the write, however long the beat took: others count their D from there.
#[test]
fn a_slow_beat_extends_the_lease_from_its_start() {
    let mut bench = Bench::master();
    let write = bench.write();
    let started = bench.now();
    bench.now_ms += L / 2;
    let read = bench.read();
    bench.now_ms += L / 4;
    bench.deliver(write, Some(Ok(read)));
    assert_eq!(bench.cluster.lease_until(), Some(started + Duration::from_millis(L)));
}

/// Section 5: a lost lease comes back by a view above all that was committed or proposed at the time. What a sector says that could
/// not be read may be above all others (simulator seed 3205848: it came back by a view that was older than the loss).
#[test]
fn what_could_not_be_read_is_no_bound_for_a_new_lease() {
    let mut bench = Bench::as_member();
    let next = bench.view().epoch.next();
    bench.now_ms += L + 1;
    let at_work = |master: &mut Heartbeat| {
        master.block = Block { instance: next, promised: Ballot(65), ..Block::default() };
    };
    bench.put(1, NodeState::Member, at_work);
    let sector = bench.disk[1].clone();
    bench.disk[1] = damaged(1);
    bench.run(R / 2);
    assert!(bench.saw(|action| *action == Action::LeaseLost));
    assert_eq!(bench.cluster.wants_join(), None);
    bench.disk[1] = sector;
    bench.run_with(R, |bench| bench.beats(1));
    assert_eq!(bench.cluster.wants_join(), Some(next));
}
