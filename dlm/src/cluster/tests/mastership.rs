//! Mastership (section 4).

use super::*;

/// A named successor takes over from a resigned master within a few beats, and everybody stays a member.
#[test]
fn the_named_successor_goes_at_once() {
    let mut bench = Bench::as_member();
    bench.put(1, NodeState::Resigned, |master| master.successor = Some(n(0)));
    bench.run(0);
    assert!(bench.cluster.is_master(bench.now()));
    assert_eq!((bench.view().members, bench.view().phase), (set(&[0, 1]), Phase::Recovering));
}

/// Another one waits a little, in case the named successor is gone too.
#[test]
fn others_give_the_successor_time() {
    let mut bench = Bench::as_member();
    bench.put(5, NodeState::Joining, |_| {});
    bench.put(1, NodeState::Resigned, |master| master.successor = Some(n(5)));
    bench.run_with(R / 4, |bench| bench.beats(5));
    assert!(!bench.cluster.is_master(bench.now()));
    bench.run(R);
    assert!(bench.cluster.is_master(bench.now()));
}

/// "If any write had ended in error, the successor waits D" — also when the master's daemon was restarted since.
#[test]
fn uncertain_writes_are_waited_for() {
    for restarted in [false, true] {
        let mut bench = Bench::as_member();
        bench.put(1, NodeState::Resigned, |master| {
            master.writes_uncertain = true;
            if restarted {
                (master.state, master.incarnation) = (NodeState::Joining, Incarnation(3_001));
            }
        });
        bench.run_with(D - R / 4, |bench| bench.beats(1));
        assert!(!bench.cluster.is_master(bench.now()));
        bench.run_with(R, |bench| bench.beats(1));
        assert!(bench.cluster.is_master(bench.now()));
    }
}

/// A restarted daemon carries on the word of its predecessor that a write may still land.
#[test]
fn a_restart_does_not_make_writes_certain() {
    let mut disk = with_view(view(110, 0, &[0]));
    let own = disk[0].as_mut().unwrap();
    (own.node_uuid, own.boot_id) = (uuid(0), BOOT);
    (own.state, own.writes_uncertain) = (NodeState::Resigned, true);
    let mut bench = Bench::with(&config(0, 0, 1_000), ClaimKind::OwnSameBoot, disk);
    bench.run(D - R / 4);
    assert!(bench.own().writes_uncertain && !bench.cluster.is_master(bench.now()));
    bench.run(R);
    assert!(bench.cluster.is_master(bench.now()));
}

/// The same where the predecessor was killed before its sector could say so: its note does.
#[test]
fn a_kill_does_not_make_writes_certain() {
    for (until, waits) in [(100_000 + D, true), (100_000, false)] {
        let mut disk = with_view(view(110, 0, &[0]));
        let own = disk[0].as_mut().unwrap();
        (own.node_uuid, own.boot_id, own.boottime_ns) = (uuid(0), BOOT, Bench::at(100_000 - R).0);
        let config = Config { uncertain_until: Some(Bench::at(until)), ..config(0, 0, 1_000) };
        let mut bench = Bench::with(&config, ClaimKind::OwnSameBoot, disk);
        bench.run(D - R / 4);
        assert_eq!(bench.own().writes_uncertain, waits);
        assert_eq!(bench.cluster.is_master(bench.now()), !waits);
        bench.run(R);
        assert!(bench.cluster.is_master(bench.now()));
        // What fails in its own reign is news (simulator seed 1005018).
        assert!(!bench.own().writes_uncertain);
    }
}

/// A resignation counts for the views that the master knew when it wrote it, not for a later one that names it.
#[test]
fn a_resignation_of_an_earlier_view_does_not_count() {
    let mut bench = Bench::as_member();
    let next = View { epoch: bench.view().epoch.next(), phase: Phase::Recovering, ..bench.view() };
    let before = bench.view();
    bench.put(1, NodeState::Resigned, |master| set_view(master, before));
    bench.put(2, NodeState::Joining, |third| set_view(third, next));
    bench.run_with(2 * R, |bench| bench.beats(1));
    assert_eq!(bench.view(), next);
}

/// A replaced master is gone as master; as a member it stays, because its sessions' locks stand.
#[test]
fn a_replaced_master_stays_in_members() {
    let mut bench = Bench::as_member();
    bench.put(1, NodeState::Joining, |master| master.incarnation = Incarnation(3_001));
    bench.run_with(2 * R, |bench| bench.beats(1));
    assert!(bench.cluster.is_master(bench.now()));
    assert_eq!(bench.view().members, set(&[0, 1]));
    assert_eq!(bench.cluster.member_incarnation(n(1)), None);
    let replaced = Action::MemberReplaced { node: n(1), incarnation: Incarnation(3_001) };
    assert!(bench.saw(|action| *action == replaced));
}

/// What a late write of an earlier daemon, or a read that is out of date, shows of a member is taken back when the member
/// itself is seen again (simulator seeds 313 and 82501). A restart is not.
#[test]
fn a_member_that_was_taken_for_replaced_is_back() {
    for late_write in [true, false] {
        let mut bench = Bench::with_member();
        bench.put(1, NodeState::Joining, |member| member.incarnation = Incarnation(1_999));
        bench.run_with(R, |bench| bench.beats(1));
        let replaced = Action::MemberReplaced { node: n(1), incarnation: Incarnation(1_999) };
        assert!(bench.saw(|action| *action == replaced));
        if late_write {
            bench.put(1, NodeState::Member, |member| member.incarnation = Incarnation(2_001));
        }
        bench.run_with(2 * R, |bench| bench.beats(1));
        let back = bench.log.iter().filter(|action| **action == Action::MemberBack { node: n(1) }).count();
        assert_eq!(back, usize::from(late_write));
    }
}

/// A dead master is excluded by the view change that replaces it, after D.
#[test]
fn a_dead_master_is_excluded_by_its_successor() {
    let mut bench = Bench::as_member();
    bench.run(D - R / 2);
    assert!(!bench.cluster.is_master(bench.now()));
    bench.run(R);
    assert!(bench.cluster.is_master(bench.now()));
    assert_eq!(bench.view().members, set(&[0]));
}

/// A master that resigned does not come back by a proposal of before: whoever carries it on finds it resigned.
#[test]
fn an_older_proposal_does_not_revive_a_resigned_master() {
    let mut bench = Bench::with_member();
    bench.put(2, NodeState::Joining, |_| {});
    bench.beat();
    bench.cluster.admit(bench.now(), n(2), Incarnation(2_002), Epoch(100));
    bench.drain();
    bench.beat();
    let value = bench.image.as_ref().unwrap().1.block.value.expect("phase 2 has begun");
    bench.cluster.resign(bench.now(), Some(n(1)), false);
    bench.drain();
    bench.put(1, NodeState::Member, |other| set_view(other, value));
    bench.beat();
    bench.beat();
    assert_eq!(bench.view(), value);
    assert!(!bench.cluster.is_master(bench.now()));
    assert_eq!((bench.own().state, bench.own().epoch), (NodeState::Resigned, value.epoch));
}

/// Several wishes are one view: two joiners and the activation.
#[test]
fn wishes_are_folded_into_one_view() {
    let mut bench = Bench::new(fresh_region(100));
    bench.run(3 * R);
    for node in [1, 2] {
        bench.put(node, NodeState::Joining, |_| {});
    }
    bench.beat();
    let epoch = bench.view().epoch;
    for node in [1, 2] {
        bench.cluster.admit(bench.now(), n(node), Incarnation(2_000 + u64::from(node)), Epoch(100));
    }
    bench.cluster.activate(bench.now());
    bench.drain();
    bench.log.clear();
    bench.run(0);
    let view = bench.view();
    assert_eq!((view.epoch, view.members, view.phase), (epoch.next(), set(&[0, 1, 2]), Phase::Active));
    let told = bench.log.iter().filter(|action| matches!(action, Action::Admitted { .. })).count();
    assert_eq!(told, 2);
    assert_eq!(bench.cluster.member_incarnation(n(2)), Some(Incarnation(2_002)));
}

/// A member that is confirmed already is told so again without a view change; one that asks for a view above the
/// current one gets one.
#[test]
fn confirmation_makes_a_view_only_when_needed() {
    let mut bench = Bench::with_member();
    let epoch = bench.view().epoch;
    bench.log.clear();
    bench.cluster.admit(bench.now(), n(1), Incarnation(2_001), Epoch(epoch.0 - 1));
    bench.drain();
    assert!(bench.saw(|action| matches!(action, Action::Admitted { view, .. } if view.epoch == epoch)));
    bench.cluster.admit(bench.now(), n(1), Incarnation(2_001), epoch);
    bench.run(0);
    assert_eq!(bench.view().epoch, epoch.next());
    assert!(bench.saw(|action| matches!(action, Action::Admitted { view, .. } if view.epoch == epoch.next())));
}

/// I5: an incarnation that was a member and was excluded is not admitted again: others may have its locks.
#[test]
fn an_excluded_incarnation_is_not_admitted_again() {
    let mut bench = Bench::with_member();
    bench.run(2 * D);
    assert_eq!(bench.view().members, set(&[0]));
    bench.beats(1);
    bench.beat();
    bench.cluster.admit(bench.now(), n(1), Incarnation(2_001), bench.view().epoch);
    bench.run(R);
    assert_eq!(bench.view().members, set(&[0]));
    bench.put(1, NodeState::Joining, |sector| sector.incarnation = Incarnation(3_001));
    bench.beat();
    bench.cluster.admit(bench.now(), n(1), Incarnation(3_001), bench.view().epoch);
    bench.run(0);
    assert_eq!(bench.view().members, set(&[0, 1]));
}

/// Nobody acts on locks before `member` is on disk under its incarnation.
#[test]
fn membership_counts_once_it_is_written() {
    let mut bench = Bench::new(with_view(view(110, 1, &[1])));
    bench.run_with(3 * R, |bench| bench.beats(1));
    bench.cluster.admitted(bench.now(), View { epoch: Epoch(111), members: set(&[0, 1]), ..view(110, 1, &[1]) });
    bench.drain();
    assert!(!bench.cluster.is_member());
    bench.beats(1);
    bench.beat();
    assert!(bench.cluster.is_member());
}

/// The last node leaves: a view without it, then `left` on disk, then the end. The next one is not held up by it.
#[test]
fn the_last_node_leaves() {
    let mut bench = Bench::master();
    bench.cluster.leave(bench.now());
    bench.drain();
    bench.run(0);
    assert_eq!(bench.stop_reason(), Some(StopReason::Left));
    assert_eq!((bench.own().state, bench.own().view.unwrap().members), (NodeState::Left, NodeSet::EMPTY));

    let mut config = config(1, 0, 5_000);
    config.node = n(1);
    let mut next = Bench::with(&config, ClaimKind::Free, bench.disk);
    next.run(D + 3 * R);
    assert!(next.cluster.is_master(next.now()));
    assert_eq!(next.view().members, set(&[1]));
}

/// A member leaves once a view without it is committed; that is no exclusion.
#[test]
fn a_member_leaves_when_released() {
    let mut bench = Bench::as_member();
    bench.cluster.leave(bench.now());
    bench.run_with(R, |bench| bench.beats(1));
    assert_eq!(bench.stop_reason(), None);
    let without = View { epoch: bench.view().epoch.next(), members: set(&[1]), ..bench.view() };
    bench.put(1, NodeState::Member, |master| set_view(master, without));
    bench.run_with(R, |bench| bench.beats(1));
    assert_eq!(bench.stop_reason(), Some(StopReason::Left));
    assert!(!bench.saw(|action| matches!(action, Action::Excluded { .. })));
}

/// Whoever is about to leave leaves the election to others; but where nobody else stands, nobody could ever release it
/// (simulator seeds 18322, 36241 and 73567).
#[test]
fn a_node_that_leaves_stands_last() {
    let mut bench = Bench::as_member();
    bench.cluster.stand_last();
    bench.put(1, NodeState::Resigned, |_| ());
    bench.run_with(D - R, |bench| bench.beats(1));
    assert!(!bench.cluster.is_master(bench.now()));
    bench.run_with(3 * R, |bench| bench.beats(1));
    assert!(bench.cluster.is_master(bench.now()));
}

/// A deadline that has passed is not asked for again: the driver would spin.
#[test]
fn deadlines_lie_ahead() {
    let mut bench = Bench::with_member();
    bench.disk[9] = damaged(9);
    for _ in 0..200 {
        let now = bench.now();
        bench.cluster.on_time(now);
        bench.drain();
        let Some(at) = bench.cluster.next_deadline() else { break };
        assert!(at > now);
        bench.now_ms = at.0.div_ceil(1_000_000);
    }
    assert_eq!(bench.cluster.next_deadline(), None, "nothing is left to wait for but a beat");
}
