//! Claiming a slot (section 4).

use super::*;

/// A fresh lockstate: any slot, the first one first; the wished one only.
#[test]
fn candidates_on_a_fresh_lockstate() {
    let region = fresh_region(100);
    let found = candidates(&region, None, None, uuid(0), BOOT).unwrap();
    assert_eq!(found.len(), 64);
    assert_eq!(found[0], Candidate { node: n(0), kind: ClaimKind::Free });
    let wished = candidates(&region, Some(n(9)), Some(n(3)), uuid(0), BOOT).unwrap();
    assert_eq!(wished, [Candidate { node: n(9), kind: ClaimKind::Free }]);
}

/// Own slot: at once with the same boot, after D with another one. It comes before free ones.
#[test]
fn candidates_prefer_the_own_slot() {
    let region = with_view(view(110, 5, &[5, 7]));
    let own = |boot| candidates(&region, None, Some(n(7)), uuid(7), boot).unwrap().remove(0);
    assert_eq!(own(Uuid::default()), Candidate { node: n(7), kind: ClaimKind::OwnSameBoot });
    assert_eq!(own(BOOT), Candidate { node: n(7), kind: ClaimKind::OwnOtherBoot });
    let forgotten = candidates(&region, None, None, uuid(7), BOOT).unwrap().remove(0);
    assert_eq!(forgotten.node, n(7), "the state directory's memory is not needed");
}

/// Another host's slot: never while it is a member or owed; after D when it was excluded, and last of all.
#[test]
fn candidates_leave_members_and_owed_alone() {
    let mut region = with_view(View { owed: set(&[7]), ..view(110, 5, &[5]) });
    let mut other = region[5].clone().unwrap();
    (other.node, other.node_uuid, other.host) = (n(7), uuid(7), "host7".into());
    region[7] = Ok(other.clone());
    (other.node, other.node_uuid, other.host) = (n(8), uuid(8), "host8".into());
    region[8] = Ok(other);
    for busy in [5, 7] {
        let error = candidates(&region, Some(n(busy)), None, uuid(0), BOOT).unwrap_err();
        assert_eq!(error, ClaimError::Busy { node: n(busy), host: format!("host{busy}") });
    }
    let found = candidates(&region, None, None, uuid(0), BOOT).unwrap();
    assert_eq!(found.len(), 62);
    assert_eq!(found[61], Candidate { node: n(8), kind: ClaimKind::Foreign { host: "host8".into() } });
}

/// Left slots come after never-used ones, the longest unchanged first; the one used before comes first of all.
#[test]
fn candidates_reuse_left_slots_in_order() {
    let mut region = fresh_region(100);
    for (node, timestamp_ms) in (0..64).zip([9, 5, 7].into_iter().cycle()) {
        let sector = region[node].as_mut().unwrap();
        (sector.state, sector.timestamp_ms, sector.node_uuid) = (NodeState::Left, timestamp_ms, uuid(node as u8));
    }
    region[40] = Ok(Heartbeat::empty(n(40), &crate::testing::superblock(), Epoch(100)));
    let order = |remembered, host| -> Vec<u32> {
        let found = candidates(&region, None, remembered, uuid(host), BOOT).unwrap();
        found.iter().take(3).map(|candidate| candidate.node.get()).collect()
    };
    assert_eq!(order(None, 200), [40, 1, 4]);
    assert_eq!(order(Some(n(12)), 12), [12, 40, 1]);
    assert_eq!(order(Some(n(12)), 200), [40, 1, 4], "somebody else used it since");
}

/// Section 4: a damaged sector may hold the only accepted value; it is not taken, and its owner is told so.
#[test]
fn candidates_refuse_damage() {
    let mut region = fresh_region(100);
    region[3] = damaged(3);
    let error = candidates(&region, Some(n(3)), None, uuid(0), BOOT).unwrap_err();
    assert!(matches!(error, ClaimError::Damaged { node, .. } if node == n(3)));
    assert!(candidates(&region, None, Some(n(3)), uuid(0), BOOT).is_err());
    assert_eq!(candidates(&region, None, None, uuid(0), BOOT).unwrap().len(), 63);
}

/// "Confirmed by reading it back over two heartbeat periods"; then a lone node becomes master within the same beats.
#[test]
fn a_lone_node_is_master_right_after_confirmation() {
    let mut bench = Bench::new(fresh_region(100));
    bench.run(2 * R - R / 4);
    assert!(!bench.cluster.is_slot_confirmed() && bench.cluster.view().is_none());
    bench.run(R / 4);
    assert!(bench.cluster.is_slot_confirmed() && bench.cluster.is_master(bench.now()) && bench.cluster.is_member());
    let view = bench.view();
    assert_eq!((view.epoch, view.phase, view.members), (Epoch(101), Phase::Recovering, set(&[0])));
    assert_eq!(view.table_epoch, Epoch(100));
    bench.cluster.activate(bench.now());
    bench.run(0);
    assert_eq!((bench.view().phase, bench.view().table_epoch), (Phase::Active, Epoch(101)));
}

/// The two periods end between two ticks: a read is asked for right then. With one only at the next tick a daemon that
/// was restarted would take 3R of its clients' L for the claim.
#[test]
fn a_slot_is_confirmed_when_the_two_periods_end() {
    let mut bench = Bench::new(fresh_region(100));
    // One that reads, one that writes.
    assert!(bench.beat());
    bench.beat();
    let written = bench.now();
    let end = written + Duration::from_millis(2 * R);
    assert_eq!(bench.cluster.next_deadline(), Some(end));
    bench.now_ms += 2 * R;
    bench.log.clear();
    bench.cluster.on_time(bench.now());
    assert!(bench.drain() && matches!(bench.log[0], Action::Look), "{:?}", bench.log);
    assert_ne!(bench.cluster.next_deadline(), Some(end), "it looks once");
    bench.beat();
    assert!(bench.cluster.is_slot_confirmed());
}

/// Own slot, same boot: confirmed by the first read that shows the claim, if that was written within the lease of the
/// former daemon. Afterwards, and for any other slot, it takes the two periods (docs/decisions/007).
#[test]
fn a_restart_within_the_lease_is_confirmed_at_once() {
    let confirmed = |kind: ClaimKind, down_ms: u64| {
        let members: &[u32] = if kind == ClaimKind::Free { &[1] } else { &[0, 1] };
        let mut disk = with_view(view(110, 1, members));
        let own = disk[0].as_mut().unwrap();
        (own.node_uuid, own.boot_id, own.boottime_ns) = (uuid(0), BOOT, Bench::at(100_000 - down_ms).0);
        if kind == ClaimKind::Free {
            own.state = NodeState::Left;
        }
        let mut bench = Bench::with(&config(0, 0, 1_000), kind, disk);
        bench.beat();
        bench.beat();
        assert!(bench.image.is_some());
        let at_once = bench.cluster.is_slot_confirmed();
        bench.run_with(2 * R, |bench| bench.beats(1));
        assert!(bench.cluster.is_slot_confirmed());
        at_once
    };
    assert!(confirmed(ClaimKind::OwnSameBoot, L - 1));
    assert!(!confirmed(ClaimKind::OwnSameBoot, L));
    assert!(!confirmed(ClaimKind::Free, 1));
}

/// A daemon that was restarted does not vote before its predecessor's last write, which ended in an error or never,
/// can land no more; the slot is its own all the same (docs/decisions/009).
#[test]
fn a_restarted_daemon_inherits_the_ban() {
    let mut disk = with_view(view(110, 0, &[0]));
    let own = disk[0].as_mut().unwrap();
    (own.node_uuid, own.boot_id, own.boottime_ns) = (uuid(0), BOOT, Bench::at(100_000 - R).0);
    let config = Config { ballots_from: Some(Bench::at(100_000 + D)), ..config(0, 0, 1_000) };
    let mut bench = Bench::with(&config, ClaimKind::OwnSameBoot, disk);
    bench.run(D - R / 4);
    assert!(bench.cluster.is_slot_confirmed() && bench.own().block == Block::default());
    bench.run(R);
    assert!(bench.cluster.is_master(bench.now()));
}

/// Whoever takes a slot begins its first write within R of its look there, or looks again: a process that was stopped in
/// between finds out that another node has the slot by now (docs/decisions/012).
#[test]
fn a_first_write_that_comes_late_is_not_begun() {
    let late = |bench: &mut Bench| {
        let (image, _) = bench.image.clone().unwrap();
        bench.now_ms += 3 * R;
        assert!(bench.begin_by.unwrap() < bench.now());
        let write = BeatWrite { image, hb_seq: 0, started: bench.now(), result: Err(IoFault::Expired) };
        let read = bench.read();
        bench.deliver(Some(write), Some(Ok(read)))
    };
    let looked = || {
        let mut bench = Bench::new(fresh_region(100));
        let read = bench.read();
        assert!(bench.deliver(None, Some(Ok(read))));
        assert_eq!(bench.begin_by, Some(Bench::at(100_000 + R)));
        bench
    };

    let mut bench = looked();
    assert!(late(&mut bench), "it is still free: at once");
    assert_eq!(bench.begin_by, Some(bench.now() + Duration::from_millis(R)));
    bench.run(3 * R);
    assert!(bench.cluster.is_master(bench.now()), "a write that was not begun bans no ballot");
    assert_eq!(bench.begin_by, None);

    // Whoever tore it, it was not this node, which has written nothing.
    let mut bench = looked();
    bench.disk[0] = Err(HeartbeatError { node: n(0), fault: Fault::Checksum { stored: 1, computed: 2 } });
    late(&mut bench);
    assert!(bench.log.contains(&Action::Stop(StopReason::SectorChanged)), "{:?}", bench.log);

    let mut bench = looked();
    bench.put(0, NodeState::Member, |other| other.host = "faster".to_owned());
    late(&mut bench);
    let is = |action: &Action| matches!(action, Action::Stop(StopReason::SlotBusy { host }) if host == "faster");
    assert!(bench.log.iter().any(is), "{:?}", bench.log);
}

/// A first write that fails may have landed or not: both go on.
#[test]
fn a_first_write_that_fails_is_repeated_after_a_look() {
    for landed in [false, true] {
        let mut bench = Bench::new(fresh_region(100));
        let read = bench.read();
        bench.deliver(None, Some(Ok(read)));
        let before = bench.disk.clone();
        let write = bench.write().map(|write| BeatWrite { result: Err(IoFault::Failed("no".into())), ..write });
        if !landed {
            bench.disk = before;
        }
        bench.now_ms += 10;
        let read = bench.read();
        bench.deliver(write, Some(Ok(read)));
        assert_eq!(bench.begin_by, Some(bench.now() + Duration::from_millis(R)), "landed: {landed}");
        bench.run(D + 4 * R);
        assert!(bench.cluster.is_master(bench.now()), "landed: {landed}");
    }
}

/// What the driver is told to keep for the next daemon of the slot: nothing to wait for on a fresh lockstate, D after
/// the claim of another slot, and D after a write that failed (docs/decisions/009).
#[test]
fn the_next_daemon_is_told_from_when_it_may_vote() {
    let told = |bench: &Bench| {
        bench.log.iter().rev().find_map(|action| match action {
            Action::BallotsFrom(from) => Some(*from),
            _ => None,
        })
    };
    let mut bench = Bench::new(fresh_region(100));
    assert_eq!(told(&bench), None);
    let began = bench.now();
    bench.run(R);
    assert!(told(&bench).is_some_and(|from| from >= began && from <= bench.now()), "a fresh lockstate");
    let failed = bench.write().map(|write| BeatWrite { result: Err(IoFault::Failed("no".into())), ..write });
    let read = bench.read();
    bench.deliver(failed, Some(Ok(read)));
    assert_eq!(told(&bench), Some(bench.now() + Duration::from_millis(D)));

    let mut bench = Bench::new(with_view(view(110, 1, &[1])));
    let began = bench.now();
    bench.run_with(R, |bench| bench.beats(1));
    assert!(told(&bench).is_some_and(|from| from >= began + Duration::from_millis(D)), "a slot of others");
}

/// A restarted daemon is a member again, and a master that was restarted is master again, well before the leases of
/// its clients end: they keep their locks (section 6).
#[test]
fn a_restarted_master_stands_before_its_clients_lose_their_lease() {
    let mut disk = with_view(view(110, 0, &[0]));
    let own = disk[0].as_mut().unwrap();
    (own.node_uuid, own.boot_id, own.boottime_ns) = (uuid(0), BOOT, Bench::at(100_000 - R).0);
    let mut bench = Bench::with(&config(0, 0, 1_000), ClaimKind::OwnSameBoot, disk);
    bench.run(R);
    assert!(bench.cluster.is_master(bench.now()) && bench.cluster.is_member());
}

/// The first write does not wait for the next tick, also where a view was found, which by itself is no news in a hurry.
#[test]
fn a_claim_is_written_at_once() {
    for disk in [fresh_region(100), with_view(view(110, 1, &[1]))] {
        let mut bench = Bench::new(disk);
        assert!(bench.beat() && bench.image.is_some());
    }
}

/// Nothing is written before the sector has been looked at, whatever the candidate list said.
#[test]
fn a_slot_that_was_taken_meanwhile_is_left_alone() {
    let mut bench = Bench::new(fresh_region(100));
    bench.put(0, NodeState::Joining, |_| {});
    bench.beat();
    assert_eq!(bench.stop_reason(), Some(StopReason::SlotBusy { host: "host0".into() }));
    assert!(bench.image.is_none());
}

/// Own slot, other boot: nothing is written for D; a change means that a clone is at work.
#[test]
fn another_boots_slot_is_watched_for_d() {
    let start = |changes_at: Option<u64>| {
        let mut disk = with_view(view(110, 1, &[0, 1]));
        disk[0].as_mut().unwrap().node_uuid = uuid(0);
        let mut bench = Bench::with(&config(0, 9, 1_000), ClaimKind::OwnOtherBoot, disk);
        let begin = bench.now_ms;
        bench.run_with(D - R / 4, |bench| {
            bench.beats(1);
            if changes_at == Some(bench.now_ms - begin) {
                bench.beats(0);
            }
        });
        assert!(bench.image.is_none(), "written before D");
        bench.run_with(R / 4, |bench| bench.beats(1));
        bench
    };
    let bench = start(None);
    assert_eq!((bench.own().incarnation, bench.own().state), (Incarnation(1_000), NodeState::Joining));
    let bench = start(Some(1_000));
    assert_eq!(bench.stop_reason(), Some(StopReason::SlotBusy { host: "host0".into() }));
}

/// The taker's first write carries the ballot fields and the newest committed view.
#[test]
fn the_first_write_carries_block_and_view() {
    let newest = view(112, 1, &[0, 1]);
    let mut disk = with_view(view(110, 1, &[0, 1]));
    let block = Block { instance: Epoch(112), promised: Ballot(128), accepted: Ballot(64), value: Some(newest) };
    let own = disk[0].as_mut().unwrap();
    (own.node_uuid, own.boot_id, own.block) = (uuid(0), BOOT, block);
    set_view(disk[1].as_mut().unwrap(), newest);
    let mut bench = Bench::with(&config(0, 0, 1_000), ClaimKind::OwnSameBoot, disk);
    bench.beat();
    bench.beat();
    assert_eq!(bench.own().incarnation, Incarnation(1_000));
    assert_eq!((bench.own().block, bench.own().view), (block, Some(newest)));
}

/// A slot that was another's casts no ballot for D after the claim: the former owner's last write may still land.
#[test]
fn a_taken_slot_waits_d_for_its_first_ballot() {
    // No master alive: node 1 resigned and is gone.
    let mut disk = with_view(view(110, 1, &[1]));
    disk[1].as_mut().unwrap().state = NodeState::Resigned;
    let mut bench = Bench::new(disk);
    bench.run(D - R / 4);
    assert!(bench.cluster.is_slot_confirmed());
    assert_eq!(bench.own().block, Block::default());
    bench.run(2 * R);
    assert!(bench.cluster.is_master(bench.now()));
}

/// A node that no view keeps a slot for, and that has not written for D, may be losing it to another host, whose first
/// write lands on what it accepts: no ballot for D. A member's slot is taken by nobody (docs/decisions/009).
#[test]
fn a_node_that_was_silent_for_d_may_be_losing_its_slot() {
    for (kept, mut bench) in [(false, Bench::new(with_view(view(110, 1, &[1])))), (true, Bench::as_member())] {
        bench.run_with(D + 2 * R, |bench| bench.beats(1));
        bench.put(1, NodeState::Resigned, |_| {});
        bench.now_ms += D;
        bench.run(D - R);
        assert_eq!(bench.cluster.is_master(bench.now()), kept);
        bench.run(2 * R);
        assert!(bench.cluster.is_master(bench.now()));
    }
}

/// So may a daemon that is started again when the lease of its predecessor has passed.
#[test]
fn a_late_restart_waits_for_its_first_ballot_where_no_view_keeps_the_slot() {
    for (down_ms, members) in [(L, &[1][..]), (L, &[0, 1]), (L - 1, &[1])] {
        let mut disk = with_view(view(110, 1, members));
        disk[1].as_mut().unwrap().state = NodeState::Resigned;
        let own = disk[0].as_mut().unwrap();
        (own.node_uuid, own.boot_id, own.boottime_ns) = (uuid(0), BOOT, Bench::at(100_000 - down_ms).0);
        own.state = NodeState::Joining;
        let mut bench = Bench::with(&config(0, 0, 1_000), ClaimKind::OwnSameBoot, disk);
        bench.run(D - R);
        assert_eq!(bench.cluster.is_master(bench.now()), (down_ms, members) != (L, &[1][..]));
        bench.run(2 * R);
        assert!(bench.cluster.is_master(bench.now()));
    }
}

/// "A node that reads a foreign incarnation in its own sector stops at once."
#[test]
fn a_foreign_incarnation_in_the_own_sector_stops() {
    let mut bench = Bench::master();
    let write = bench.write();
    bench.put(0, NodeState::Joining, |own| own.incarnation = Incarnation(77));
    let read = bench.read();
    bench.deliver(write, Some(Ok(read)));
    assert_eq!(bench.stop_reason(), Some(StopReason::ForeignIncarnation { found: Incarnation(77) }));
    assert!(!bench.cluster.is_master(bench.now()));
}

/// Two nodes that write one sector in turn would each find what it wrote itself. So the thread looks before it writes, and
/// leaves another's sector alone; its node stops, confirmed or not.
#[test]
fn a_foreign_sector_before_a_write_stops() {
    for periods in [1, 4] {
        let mut bench = Bench::new(fresh_region(100));
        bench.run(periods * R);
        bench.put(0, NodeState::Joining, |own| (own.incarnation, own.node_uuid) = (Incarnation(77), uuid(7)));
        let read = bench.read();
        bench.deliver(None, Some(Ok(read)));
        assert_eq!(bench.stop_reason(), Some(StopReason::ForeignIncarnation { found: Incarnation(77) }));
    }
}

/// "It must find its own block exactly as it wrote it or stop the node": a disk that loses writes is no disk.
#[test]
fn a_lost_write_stops() {
    let mut bench = Bench::master();
    let before = bench.disk.clone();
    let write = bench.write();
    bench.disk = before;
    let read = bench.read();
    bench.deliver(write, Some(Ok(read)));
    assert_eq!(bench.stop_reason(), Some(StopReason::SectorChanged));
}

/// "View changes stop until its owner rewrites it" (section 4): the owner finds its own sector damaged right after its
/// write. If it stopped, nobody could write the sector anew, since a daemon does not claim a damaged slot.
#[test]
fn damage_in_the_own_sector_is_written_over() {
    let mut bench = Bench::master();
    let until = bench.cluster.lease_until();
    let write = bench.write();
    bench.disk[0] = damaged(0);
    let read = bench.read();
    bench.deliver(write, Some(Ok(read)));
    assert_eq!(bench.stop_reason(), None);
    assert_eq!(bench.cluster.lease_until(), until, "not a good beat");
    bench.now_ms += R;
    bench.beat();
    assert_eq!(bench.own().state, NodeState::Member);
    assert!(bench.cluster.is_master(bench.now()) && bench.cluster.lease_until() > until);
}

/// A write that ended in an error may land late, over a newer one: that is no reason to stop, but no good beat either.
#[test]
fn a_failed_write_that_lands_late_is_overwritten() {
    let mut bench = Bench::master();
    let write = bench.write().map(|write| BeatWrite { result: Err(failed()), ..write });
    let late = bench.own().clone();
    bench.deliver(write, None);
    bench.now_ms += R;
    bench.beat();
    let until = bench.cluster.lease_until();
    bench.now_ms += R;
    let write = bench.write();
    bench.disk[0] = Ok(late);
    let read = bench.read();
    bench.deliver(write, Some(Ok(read)));
    assert_eq!(bench.stop_reason(), None);
    assert_eq!(bench.cluster.lease_until(), until, "not a good beat");
    bench.now_ms += R;
    bench.beat();
    assert!(bench.cluster.lease_until() > until);
}
