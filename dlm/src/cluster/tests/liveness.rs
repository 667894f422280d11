//! Judging others (section 5).

use super::*;

/// A silent member is excluded after D, not before; its bit and the reason are logged.
#[test]
fn a_silent_member_is_excluded_after_d() {
    let mut bench = Bench::with_member();
    bench.beats(1);
    let begin = bench.now_ms;
    bench.run(D - R / 4);
    assert_eq!(bench.view().members, set(&[0, 1]), "{} ms of silence", bench.now_ms - begin);
    assert!(bench.saw(|action| matches!(action, Action::Log(Event::NodeSilent { .. }))));
    bench.run(R / 4);
    assert_eq!(bench.view().members, set(&[0]));
    let gone = Action::Log(Event::NodeGone { node: n(1), why: GoneReason::Dead });
    assert!(bench.saw(|action| *action == gone));
    assert_eq!(bench.view().owed, NodeSet::EMPTY);
}

/// With a recovery hook the excluded node is owed until the hook has succeeded.
#[test]
fn an_excluded_node_is_owed() {
    let mut bench = Bench::with_member();
    bench.cluster.set_recovery_hook(true);
    bench.run(2 * D);
    assert_eq!((bench.view().members, bench.view().owed), (set(&[0]), set(&[1])));
    bench.cluster.settle_owed(bench.now(), n(1));
    bench.run(0);
    assert_eq!(bench.view().owed, NodeSet::EMPTY);
}

/// After a gap in the own I/O silence starts anew: a disk that stalled for everybody condemns nobody.
#[test]
fn a_gap_condemns_nobody() {
    let mut bench = Bench::with_member();
    // Short enough that the lease survives, long enough to be a gap; then the others are silent for almost D.
    for _ in 0..3 {
        bench.now_ms += 2 * R + R / 4;
        bench.beat();
        bench.run(D - 2 * R);
    }
    assert_eq!(bench.view().members, set(&[0, 1]));
}

/// A node that comes back while its exclusion is being proposed is not excluded.
#[test]
fn a_node_that_comes_back_is_spared() {
    let mut bench = Bench::with_member();
    bench.beats(1);
    bench.run(D - R / 4);
    bench.now_ms += R / 4;
    bench.beat();
    assert_eq!(bench.image.as_ref().unwrap().1.block.instance, bench.view().epoch.next(), "the proposal is under way");
    bench.beats(1);
    bench.run_with(D, |bench| bench.beats(1));
    assert_eq!(bench.view().members, set(&[0, 1]));
}

/// Without `wait`, silence frees nothing: only `fence-ack` does, and only of a node that is silent. An ack is void
/// when the node beats again.
#[test]
fn without_wait_only_fence_ack_releases() {
    let mut config = config(0, 0, 1_000);
    config.fence_wait = false;
    let mut bench = Bench::with(&config, ClaimKind::Free, fresh_region(100));
    bench.run(3 * R);
    bench.put(1, NodeState::Joining, |_| {});
    bench.run(R);
    bench.cluster.admit(bench.now(), n(1), Incarnation(2_001), Epoch(100));
    bench.cluster.activate(bench.now());
    bench.put(1, NodeState::Member, |_| {});
    bench.run(R);
    assert_eq!(bench.view().members, set(&[0, 1]));
    assert_eq!(bench.cluster.fence_ack(bench.now(), n(1)), Err(FenceAckError::NotSilent { node: n(1) }));
    assert_eq!(bench.cluster.fence_ack(bench.now(), n(0)), Err(FenceAckError::OwnNode { node: n(0) }));

    bench.run(2 * D);
    assert_eq!((bench.view().members, bench.cluster.blocked_on()), (set(&[0, 1]), vec![n(1)]));
    let blocked = |action: &&Action| **action == Action::Log(Event::FencingBlocked { node: n(1) });
    assert_eq!(bench.log.iter().filter(blocked).count(), 1);

    // It beats in the very moment of the ack: void.
    bench.cluster.fence_ack(bench.now(), n(1)).unwrap();
    bench.drain();
    bench.beats(1);
    bench.run(2 * D);
    assert_eq!(bench.view().members, set(&[0, 1]));

    bench.cluster.fence_ack(bench.now(), n(1)).unwrap();
    bench.run(0);
    assert_eq!(bench.view().members, set(&[0]));
    let gone = Action::Log(Event::NodeGone { node: n(1), why: GoneReason::FenceAcked });
    assert!(bench.saw(|action| *action == gone));
}

/// A lost link: look at once, and every R/4 until the heartbeat changes. By itself it proves nothing.
#[test]
fn a_lost_link_looks_more_often() {
    let mut bench = Bench::with_member();
    bench.cluster.peer_lost(bench.now(), n(1));
    assert!(bench.drain());
    for _ in 0..4 {
        assert_eq!(bench.cluster.next_deadline(), Some(bench.now() + Duration::from_millis(R / 4)));
        bench.now_ms += R / 4;
        bench.cluster.on_time(bench.now());
        assert!(bench.drain());
        bench.beat();
    }
    bench.beats(1);
    bench.beat();
    bench.now_ms += R / 4;
    bench.cluster.on_time(bench.now());
    assert!(!bench.drain(), "still looking");
}
