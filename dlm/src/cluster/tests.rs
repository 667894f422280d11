//! Each rule by itself, on a scripted disk. What only shows when nodes meet is in [`super::sim`].

use super::sim::{config, fresh_region};
use super::*;
use crate::event::{GoneReason, StopReason};
use crate::io::{Beat, BeatRead, BeatWrite, IoFault};
use mxlock_format::{Ballot, Block, Fault, HeartbeatError, Phase, Uuid};

const R: u64 = 200;
const L: u64 = 800;
const D: u64 = 1_500;

fn n(node: u32) -> NodeId {
    NodeId::new(node).unwrap()
}

fn set(nodes: &[u32]) -> NodeSet {
    nodes.iter().map(|&node| n(node)).collect()
}

/// One node under test, a disk, and others whose sectors the test writes.
struct Bench {
    cluster: Cluster,
    disk: Box<Region>,
    now_ms: u64,
    image: Option<(ImageId, Heartbeat)>,
    hb_seq: u64,
    log: Vec<Action>,
}

impl Bench {
    fn at(ms: u64) -> BootTime {
        BootTime(ms * 1_000_000)
    }

    fn with(config: &Config, kind: ClaimKind, disk: Box<Region>) -> Bench {
        let now_ms = 100_000;
        let candidate = Candidate { node: config.node, kind };
        let cluster = Cluster::new(Bench::at(now_ms), config, candidate, &disk);
        let mut bench = Bench { cluster, disk, now_ms, image: None, hb_seq: 0, log: Vec::new() };
        bench.drain();
        bench
    }

    /// Slot 0 of a lockstate.
    fn new(disk: Box<Region>) -> Bench {
        Bench::with(&config(0, 0, 1_000), ClaimKind::Free, disk)
    }

    /// Master of an active view, alone on a fresh lockstate.
    fn master() -> Bench {
        let mut bench = Bench::new(fresh_region(100));
        bench.run(4 * R);
        bench.cluster.activate(bench.now());
        bench.run(R);
        assert!(bench.cluster.is_master(bench.now()) && bench.cluster.is_member());
        assert_eq!(bench.view().phase, Phase::Active);
        bench
    }

    /// Master of a view whose other member is node 1.
    fn with_member() -> Bench {
        let mut bench = Bench::master();
        bench.put(1, NodeState::Joining, |_| {});
        bench.run(R);
        bench.cluster.admit(bench.now(), n(1), Incarnation(2_001), Epoch(100));
        bench.put(1, NodeState::Member, |_| {});
        bench.run(R);
        assert_eq!(bench.view().members, set(&[0, 1]));
        bench
    }

    /// A member of a view whose master is node 1; D after the claim, so that it may cast ballots.
    fn as_member() -> Bench {
        let mut bench = Bench::new(with_view(view(110, 1, &[1])));
        bench.run_with(D + R, |bench| bench.beats(1));
        let wanted = bench.cluster.wants_join().expect("a wish to join");
        assert_eq!(wanted, Epoch(110));
        let admitting = View { epoch: Epoch(111), members: set(&[0, 1]), ..view(110, 1, &[1]) };
        bench.put(1, NodeState::Member, |master| set_view(master, admitting));
        bench.cluster.admitted(bench.now(), admitting);
        bench.run_with(R, |bench| bench.beats(1));
        assert!(bench.cluster.is_member());
        bench
    }

    fn now(&self) -> BootTime {
        Bench::at(self.now_ms)
    }

    fn view(&self) -> View {
        *self.cluster.view().expect("a view")
    }

    fn own(&self) -> &Heartbeat {
        self.disk[self.cluster.node().index()].as_ref().unwrap()
    }

    fn drain(&mut self) -> bool {
        let mut urgent = false;
        while let Some(action) = self.cluster.poll() {
            if let Action::Publish { image, heartbeat, urgent: now } = &action {
                self.image = Some((*image, (**heartbeat).clone()));
                urgent |= now;
            }
            urgent |= matches!(action, Action::Look);
            self.log.push(action);
        }
        urgent
    }

    /// Writes the newest image; `None` before there is one.
    fn write(&mut self) -> Option<BeatWrite> {
        let (image, heartbeat) = self.image.clone()?;
        self.hb_seq += 1;
        let slot = heartbeat.node.index();
        self.disk[slot] = Ok(Heartbeat { hb_seq: self.hb_seq, boottime_ns: self.now().0, ..heartbeat });
        Some(BeatWrite { image, hb_seq: self.hb_seq, started: self.now(), result: Ok(()) })
    }

    fn read(&self) -> BeatRead {
        BeatRead { issued: self.now(), ended: self.now(), region: self.disk.clone() }
    }

    fn deliver(&mut self, write: Option<BeatWrite>, read: Option<Result<BeatRead, IoFault>>) -> bool {
        let now = self.now();
        self.cluster.on_beat(now, Beat { write, read });
        self.drain()
    }

    /// One good beat of no duration. True if another one is wanted at once.
    fn beat(&mut self) -> bool {
        let write = self.write();
        let read = self.read();
        self.deliver(write, Some(Ok(read)))
    }

    /// Beats every R/4, and at once where that is wanted, for so long.
    fn run(&mut self, ms: u64) {
        self.run_with(ms, |_| {});
    }

    fn run_with(&mut self, ms: u64, mut before_each: impl FnMut(&mut Bench)) {
        let until = self.now_ms + ms;
        loop {
            before_each(self);
            // A bounded number: agreement does not wait for the tick.
            for _ in 0..10 {
                if !self.beat() {
                    break;
                }
            }
            if self.now_ms >= until {
                return;
            }
            self.now_ms += R / 4;
            let now = self.now();
            self.cluster.on_time(now);
            self.drain();
        }
    }

    /// Another node's sector: incarnation 2000 + node, a new pulse.
    fn put(&mut self, node: u32, state: NodeState, change: impl FnOnce(&mut Heartbeat)) {
        let sector = self.disk[node as usize].as_mut().unwrap();
        if sector.incarnation == Incarnation(0) {
            sector.incarnation = Incarnation(2_000 + u64::from(node));
            sector.node_uuid = Uuid([node as u8 + 1; 16]);
            sector.host = format!("host{node}");
        }
        sector.state = state;
        sector.hb_seq += 1;
        change(sector);
    }

    fn beats(&mut self, node: u32) {
        self.disk[node as usize].as_mut().unwrap().hb_seq += 1;
    }

    fn saw(&self, matching: impl Fn(&Action) -> bool) -> bool {
        self.log.iter().any(matching)
    }

    fn stop_reason(&self) -> Option<StopReason> {
        self.log.iter().find_map(|action| match action {
            Action::Stop(reason) => Some(reason.clone()),
            _ => None,
        })
    }
}

fn view(epoch: u64, master: u32, members: &[u32]) -> View {
    View {
        epoch: Epoch(epoch),
        master: n(master),
        master_incarnation: Incarnation(2_000 + u64::from(master)),
        phase: Phase::Active,
        members: set(members),
        owed: NodeSet::EMPTY,
        table_epoch: Epoch(epoch - 1),
        feature_level: 1,
    }
}

fn set_view(heartbeat: &mut Heartbeat, view: View) {
    heartbeat.epoch = view.epoch;
    heartbeat.view = Some(view);
}

/// A disk on which every member of the view is on disk and knows it.
fn with_view(view: View) -> Box<Region> {
    let mut bench = Bench::new(fresh_region(100));
    for node in view.members.with(view.master).iter() {
        bench.put(node.get(), NodeState::Member, |sector| set_view(sector, view));
    }
    bench.disk
}

fn damaged(node: u32) -> Result<Heartbeat, HeartbeatError> {
    Err(HeartbeatError { node: n(node), fault: Fault::Zero })
}

fn failed() -> IoFault {
    IoFault::Failed("injected".into())
}

// -- Claiming a slot (section 4) -----------------------------------------------------------------------------------

fn uuid(host: u8) -> Uuid {
    Uuid([host + 1; 16])
}

/// The boot of `config(_, 0, _)`.
const BOOT: Uuid = Uuid([1; 16]);

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
    region[40] = Ok(Heartbeat::empty(n(40), &super::sim::superblock(), Epoch(100)));
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
    (own.node_uuid, own.block) = (uuid(0), block);
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

// -- Agreement (section 4) ------------------------------------------------------------------------------------------

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

// -- Leases (section 5) ---------------------------------------------------------------------------------------------

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

// -- Judging others (section 5) -------------------------------------------------------------------------------------

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

// -- Mastership (section 4) -----------------------------------------------------------------------------------------

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
    (own.node_uuid, own.state, own.writes_uncertain) = (uuid(0), NodeState::Resigned, true);
    let mut bench = Bench::with(&config(0, 0, 1_000), ClaimKind::OwnSameBoot, disk);
    bench.run(D - R / 4);
    assert!(bench.own().writes_uncertain && !bench.cluster.is_master(bench.now()));
    bench.run(R);
    assert!(bench.cluster.is_master(bench.now()));
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
