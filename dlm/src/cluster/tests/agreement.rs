//! Agreement (section 4).

use super::*;

/// A fresh lockstate, just before the beat that makes the lone node stand for election.
fn before_election() -> Bench {
    let mut bench = Bench::new(fresh_region(100));
    bench.run(2 * R - R / 4);
    bench.now_ms += R / 4;
    bench.beat();
    assert_eq!(bench.image.as_ref().unwrap().1.block.instance, Epoch(101));
    bench
}

/// A phase uses only a read that was issued after a write of its block had ended; a read that another beat issued
/// before does not count, even if it shows the own block.
#[test]
fn a_phase_waits_for_its_own_beat() {
    let mut bench = before_election();
    // This beat wrote the image before; its read happens to show the new block, and nobody else.
    let (image, _) = bench.image.clone().unwrap();
    let mut early = bench.write().unwrap();
    early.image = ImageId(image.0 - 1);
    let read = bench.read();
    bench.log.clear();
    bench.deliver(Some(early), Some(Ok(read)));
    assert!(!bench.saw(|action| matches!(action, Action::ViewLearned { .. })));
    assert_eq!(bench.image.as_ref().unwrap().1.block.value, None, "phase 2 began on a read of before");
}

/// A higher ballot in the same instance: abort, and come back after a while.
#[test]
fn a_higher_ballot_aborts_and_backs_off() {
    let mut bench = before_election();
    bench.put(1, NodeState::Joining, |other| {
        other.block = Block { instance: Epoch(101), promised: Ballot(64 * 9 + 1), ..Block::default() };
    });
    bench.beat();
    assert_eq!(bench.own().block.value, None);
    assert!(bench.saw(|action| matches!(action, Action::Log(Event::ElectionLost { .. }))));
    assert!(bench.cluster.view().is_none());
    bench.run(4 * R);
    assert_eq!(bench.view().master, n(0), "a rival that went away does not block for ever");
    assert!(bench.own().block.promised > Ballot(64 * 9 + 1));
}

/// The value with the highest ballot is carried on, and chosen for whom it names; blocks of lower instances are empty.
#[test]
fn an_accepted_value_is_carried_on() {
    let mut bench = before_election();
    let theirs = View { phase: Phase::Recovering, ..view(101, 1, &[1]) };
    let accepted =
        |ballot, value| Block { instance: Epoch(101), promised: Ballot(ballot), accepted: Ballot(ballot), value };
    bench.put(1, NodeState::Joining, |other| other.block = accepted(63, Some(theirs)));
    bench.put(2, NodeState::Joining, |other| other.block = accepted(2, Some(view(101, 2, &[2]))));
    bench.put(3, NodeState::Joining, |other| {
        let old = View { epoch: Epoch(99), ..view(98, 3, &[3]) };
        other.block = Block { instance: Epoch(99), promised: Ballot(900), accepted: Ballot(900), value: Some(old) };
    });
    bench.run(0);
    assert_eq!(bench.view(), theirs);
    assert!(bench.saw(|action| matches!(action, Action::Log(Event::ValueAdopted { from, .. }) if *from == n(1))));
    assert!(!bench.cluster.is_master(bench.now()));
}

/// A committed view of this instance or later is adopted instead.
#[test]
fn a_committed_view_ends_the_proposal() {
    let mut bench = before_election();
    let theirs = view(105, 1, &[1]);
    bench.put(1, NodeState::Member, |other| set_view(other, theirs));
    bench.run(R / 4);
    assert_eq!(bench.view(), theirs);
    assert_eq!(bench.own().block.value, None);
}

/// After a heartbeat write that ended in an error, no ballot for D.
#[test]
fn no_ballot_for_d_after_a_failed_write() {
    let mut bench = Bench::new(fresh_region(100));
    bench.run(2 * R - R / 4);
    let write = bench.write().map(|write| BeatWrite { result: Err(failed()), ..write });
    bench.deliver(write, None);
    bench.run(D - R / 4);
    assert!(bench.cluster.is_slot_confirmed());
    assert_eq!(bench.own().block, Block::default());
    bench.run(R / 4);
    assert!(bench.cluster.is_master(bench.now()));
}

/// A damaged sector may hold the only accepted value: no view changes until it is rewritten. Reported once, and only
/// when a second read shows it too.
#[test]
fn damage_stops_view_changes() {
    let mut bench = Bench::with_member();
    bench.log.clear();
    let good = std::mem::replace(&mut bench.disk[9], damaged(9));
    let reports = |bench: &Bench| {
        let is = |action: &&Action| matches!(action, Action::Log(Event::DamagedHeartbeat { .. }));
        bench.log.iter().filter(is).count()
    };
    bench.now_ms += R;
    assert!(bench.beat(), "looks again at once");
    assert_eq!(reports(&bench), 0);
    bench.run(2 * D);
    assert_eq!((reports(&bench), bench.cluster.damaged()), (1, vec![n(9)]));
    assert_eq!(bench.view().members, set(&[0, 1]), "excluded in spite of the damage");
    bench.disk[9] = good;
    bench.run(R);
    assert_eq!(bench.view().members, set(&[0]));
}

/// Damage that shows only in a phase's own read ends the proposal: a higher ballot may have been there.
#[test]
fn damage_in_a_phase_read_ends_the_proposal() {
    for phase in [1, 2] {
        let mut bench = before_election();
        if phase == 2 {
            bench.beat();
        }
        let good = std::mem::replace(&mut bench.disk[9], damaged(9));
        bench.beat();
        assert!(bench.cluster.view().is_none(), "chosen in phase {phase}");
        bench.run(R);
        assert_eq!(bench.own().block.value.is_some(), phase == 2);
        bench.disk[9] = good;
        bench.run(R);
        assert!(bench.cluster.is_master(bench.now()));
    }
}
