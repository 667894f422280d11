//! A host and its daemon as the core's driver.
//!
//! | file | subject |
//! |---|---|
//! | `life` | how a daemon starts and ends |
//! | `drive` | the event loop: inputs, wake-ups, pauses, deaths between two outputs |
//! | `beat` | the heartbeat thread |
//! | `carry` | what the core wants done |

mod beat;
mod carry;
mod drive;
mod life;

pub use beat::Thread;

use crate::clock::{Clock, Time};
use crate::dice::Dice;
use crate::world::{Event, World};
use mxlock_dlm::Core;
use mxlock_dlm::io::{ConnId, Input, IoId};
use mxlock_dlm::time::BootTime;
use mxlock_format::{Incarnation, NodeId, Uuid, View};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// A machine.
pub struct Host {
    /// Its clock since its last boot.
    pub clock: Clock,
    /// How fast its clocks run.
    pub drift_ppm: i64,
    /// Which boot it is.
    pub boot: u32,
    /// How often a daemon was started.
    pub runs: u32,
    /// It is suspended until then: no process runs, no frame is taken, the clock goes on.
    pub asleep_until: Time,
    /// Its state directory was copied from another host.
    pub cloned: bool,
    /// Whether it is on.
    pub on: bool,
    /// Its power fails with its next write.
    pub power: Option<PowerCut>,
    /// Which installation.
    pub node_uuid: Uuid,
    /// Which boot, as on disk.
    pub boot_id: Uuid,
    /// `--node`.
    pub wish: Option<NodeId>,
    /// The slot that its state directory remembers.
    pub remembered: Option<NodeId>,
    /// The daemon, when it runs.
    pub daemon: Option<Daemon>,
    /// The run that is reading the region before its start.
    pub starting: Option<u32>,
    /// The last run, and when it ended.
    pub ended: Option<(u32, Time)>,
    /// What its daemons leave for the next one about their heartbeat writes; `None` after a boot.
    pub note: Option<BeatNote>,
    /// When a start is due.
    pub start_at: Option<Time>,
    /// Lease pages by daemon run; a page outlives its daemon.
    pub pages: BTreeMap<u32, Option<BootTime>>,
    /// Under which incarnation, where it is not the first one of the run.
    pub page_incarnations: BTreeMap<u32, Incarnation>,
}

/// `disklock/src/note.rs` in the fake world.
#[derive(Clone, Copy)]
pub struct BeatNote {
    node: NodeId,
    writing: bool,
    bad: Option<BootTime>,
    ballots: BootTime,
    inherited: bool,
    /// Until when a record write may land that has failed.
    uncertain: BootTime,
}

impl BeatNote {
    /// No ballot before the first time, if there was a note; until the second one a record write may land.
    fn open(
        note: &mut Option<BeatNote>,
        node: NodeId,
        now: BootTime,
        dead: Duration,
    ) -> (Option<BootTime>, Option<BootTime>) {
        let old = note.filter(|note| note.node == node);
        let bad = old.map_or(Some(now), |old| if old.writing { Some(now) } else { old.bad });
        let ballots = old.map_or(BootTime::default(), |old| old.ballots);
        let uncertain = old.map_or(BootTime::default(), |old| old.uncertain);
        *note = Some(BeatNote { node, writing: false, bad, ballots, inherited: true, uncertain });
        (old.map(|_| bad.map_or(BootTime::default(), |at| at + dead).max(ballots)), old.map(|_| uncertain))
    }

    /// A record write has ended in an error.
    pub fn record_failed(&mut self, until: BootTime) {
        self.uncertain = until;
    }

    fn begins(&mut self, core_votes_from: Option<BootTime>) {
        if let Some(from) = core_votes_from {
            self.ballots = from;
            if std::mem::take(&mut self.inherited) {
                self.bad = None;
            }
        }
        self.writing = true;
    }

    fn ended(&mut self, well: bool, now: BootTime) {
        self.writing = false;
        if !well {
            self.bad = Some(now);
            self.inherited = false;
        }
    }
}

/// A power failure that waits for the host's next write: of records, if they are to be overdue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PowerCut {
    /// For how long the host is off then.
    pub off_for: Time,
    /// What is under way lands long after A2 allows.
    pub overdue: bool,
}

/// What is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// The core's thread only.
    Core,
    /// The whole process.
    Process,
}

/// A running daemon.
pub struct Daemon {
    /// Unique in the world.
    pub run: u32,
    /// The code under test.
    pub core: Box<Core>,
    /// Its slot.
    pub node: NodeId,
    /// Its incarnation, on links.
    pub incarnation: Incarnation,
    /// Its incarnation, as it last published it.
    pub shown: Incarnation,
    /// Inputs not handled yet.
    pub inbox: VecDeque<Input>,
    /// When a wake-up is scheduled.
    pub wake_at: Option<Time>,
    /// Wake-ups without time passing: a core that asks for ever more of them spins.
    pub spins: u32,
    /// Whether it is paused.
    pub paused: Option<Pause>,
    /// Steps of the heartbeat thread that wait for the end of a pause.
    pub held_steps: Vec<Event>,
    /// The heartbeat thread.
    pub thread: Thread,
    /// When the core last ran.
    pub last_core_run: Time,
    /// Peers to keep links with.
    pub peers: BTreeMap<NodeId, Incarnation>,
    /// Processes to watch.
    pub watched: BTreeSet<u32>,
    /// Open client connections.
    pub conns: BTreeSet<ConnId>,
    /// The newest committed view that it has told of.
    pub view: Option<View>,
    /// It has resigned as master, and says so in its heartbeat.
    pub resigned: bool,
    /// Record sectors that it is writing.
    pub writing: BTreeMap<IoId, (u32, u32)>,
    /// It has taken its clients' lease away because it leaves; its own goes on until it has handed over.
    pub leaving: bool,
    /// It was told to leave.
    pub asked_to_leave: bool,
    /// It was told to stop.
    pub stopping: bool,
    /// Inputs since the invariants were last checked.
    pub unchecked: u32,
    /// What happens between two outputs: its ordinals are those of the outputs.
    pub boundaries: Dice,
    /// Everything else that is drawn for this run.
    pub dice: Dice,
}

impl Host {
    /// A machine that is switched on at `now`.
    pub fn new(now: Time, drift_ppm: i64, offset: Time, node_uuid: Uuid, boot_id: Uuid) -> Host {
        Host {
            clock: Clock::new(now, offset, drift_ppm, 1_750_000_000_000),
            drift_ppm,
            boot: 0,
            runs: 0,
            asleep_until: 0,
            cloned: false,
            on: true,
            power: None,
            node_uuid,
            boot_id,
            wish: None,
            remembered: None,
            daemon: None,
            starting: None,
            ended: None,
            note: None,
            start_at: None,
            pages: BTreeMap::new(),
            page_incarnations: BTreeMap::new(),
        }
    }

    /// The incarnation that the lease page of `run` names: a lock that was granted under another one is lost.
    pub fn page_incarnation(&self, run: u32) -> Incarnation {
        self.page_incarnations.get(&run).copied().unwrap_or_default()
    }

    /// Whether the lease page of `run` says that its lease stands.
    pub fn page_valid(&self, run: u32, now: Time) -> bool {
        self.on && self.pages.get(&run).copied().flatten().is_some_and(|until| self.clock.boot(now) < until)
    }
}

impl World {
    /// Whether the daemon of a host believes to be master: its newest view names it, it has not resigned, its lease stands. Who
    /// leaves takes its page back before.
    pub fn acts_as_master(&self, host: usize) -> bool {
        let me = &self.hosts[host];
        let Some(daemon) = &me.daemon else { return false };
        let named = |view: &View| view.master == daemon.node && view.master_incarnation == daemon.shown;
        let leaves = || {
            let length = Duration::from_millis(self.timing.lease_ms.into());
            daemon.leaving && self.oracles.leases.stands(daemon.run, me.clock.boot(self.now), length)
        };
        daemon.view.is_some_and(|view| named(&view))
            && !daemon.resigned
            && (me.page_valid(daemon.run, self.now) || leaves())
    }
}
