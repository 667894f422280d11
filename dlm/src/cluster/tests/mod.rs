//! Each rule by itself, on a scripted disk. What only shows when nodes meet is in [`super::sim`].

mod agreement;
mod claim;
mod lease;
mod liveness;
mod mastership;

use super::sim::{config, fresh_region};
use super::*;
use crate::event::{Event, GoneReason, StopReason};
use crate::io::{Beat, BeatRead, BeatWrite, ImageId, IoFault};
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
    begin_by: Option<BootTime>,
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
        let mut bench = Bench { cluster, disk, now_ms, image: None, begin_by: None, hb_seq: 0, log: Vec::new() };
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
            if let Action::Publish { image, heartbeat, urgent: now, begin_by } = &action {
                self.image = Some((*image, (**heartbeat).clone()));
                self.begin_by = *begin_by;
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

fn uuid(host: u8) -> Uuid {
    Uuid([host + 1; 16])
}

/// The boot of `config(_, 0, _)`.
const BOOT: Uuid = Uuid([1; 16]);
