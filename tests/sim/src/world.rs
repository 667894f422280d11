//! The world: true time, the queue of events, and all that lives in it. One seed determines everything.

use crate::client::{Client, Held};
use crate::clock::{MS, SEC, Time};
use crate::coverage::Coverage;
use crate::dice::{Dice, both, mix};
use crate::disk::{Changed, Disk, Piece};
use crate::faults::Fault;
use crate::net::{Net, Pair};
use crate::node::Host;
use crate::oracle::exclusion::Belief;
use crate::oracle::landing::Landing;
use crate::oracle::values::Values;
use crate::oracle::{Oracles, Rule, stamps, superset};
use crate::scenario::Scenario;
use crate::setup::Setup;
use crate::trouble::Troubles;
use mxlock_dlm::config::Config;
use mxlock_dlm::io::{ConnId, IoFault, Region};
use mxlock_dlm::time::BootTime;
use mxlock_format::{
    ClusterKey, Epoch, Geometry, Incarnation, LockState, Mode, NodeId, Phase, Process, QualifiedName, Resource,
    ResourceId, ResourceKind, Superblock, Timing, Token,
};
use mxlock_proto::client::{Request, Response};
use mxlock_proto::peer::PeerFrame;
use mxlock_proto::report::Status;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Something that happens at a time.
#[allow(missing_docs)]
pub enum Event {
    Start { host: usize },
    Wake { host: usize, run: u32 },
    Resume { host: usize, run: u32 },
    BeatTick { host: usize, run: u32 },
    BeatLook { host: usize, run: u32 },
    BeatWritten { host: usize, run: u32, result: Result<(), IoFault> },
    BeatRead { host: usize, run: u32, issued: BootTime, region: Box<Region> },
    BeatReadFailed { host: usize, run: u32, fault: IoFault },
    Land { write: u64, piece: u8 },
    WriteDone { write: u64 },
    Sample { read: u64 },
    CheckLink { pair: Pair },
    LinkUp { pair: Pair, conn: u64, end: usize },
    LinkDown { pair: Pair, end: usize, conn: u64 },
    BreakLink { pair: Pair },
    Frame { pair: Pair, conn: u64, end: usize, frame: Box<PeerFrame> },
    PartitionNoticed { pair: Pair },
    Unblock { pair: Pair, end: usize },
    Opened { conn: ConnId },
    Request { conn: ConnId, request: Box<Request> },
    Disconnected { conn: ConnId },
    Response { conn: ConnId, response: Box<Response> },
    ConnLost { conn: ConnId },
    ProcessGone { host: usize, run: u32, process: Process },
    ClientStep { client: usize },
    Connect { client: usize },
    Reborn { client: usize },
    PowerFails { host: usize },
    PowerOn { host: usize },
    EndClone { host: usize },
    PullPlug { host: usize, node: NodeId },
    FenceAck { host: usize, node: NodeId },
    Format,
    Fault { kind: Fault, ordinal: u32 },
}

struct Due {
    at: Time,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Who is at the client's end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnOwner {
    /// A client process.
    Client(usize),
    /// The operator's command on a host.
    Operator(usize),
}

/// A client connection.
pub struct Conn {
    /// Its client's end.
    pub owner: ConnOwner,
    /// Its daemon's end.
    pub host: usize,
    /// Which daemon run.
    pub run: u32,
    /// Nothing overtakes on the way to the daemon.
    pub to_daemon: Time,
    /// Nothing overtakes on the way to the client.
    pub to_client: Time,
    /// Its delays.
    pub dice: Dice,
    /// The client's end is closed.
    pub client_closed: bool,
    /// The daemon's end is closed.
    pub daemon_closed: bool,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub rule: Rule,
    /// How.
    pub message: String,
    /// When, in true time.
    pub at: Time,
}

/// The trace: a hash of everything, and its text if wanted.
pub struct Log {
    /// Whether the text is printed.
    pub on: bool,
    hash: u64,
}

impl Log {
    /// Mixes a number into the hash.
    pub fn fold(&mut self, value: u64) {
        self.hash = mix(self.hash ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }

    /// Prints a line.
    pub fn line(&self, now: Time, text: &str) {
        println!("{:>5}.{:06} {text}", now / SEC, now % SEC / 1_000);
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// Everything.
pub struct World {
    /// True time.
    pub now: Time,
    queue: BinaryHeap<Reverse<Due>>,
    next_event: u64,
    /// The seed.
    pub seed: u64,
    /// What of it is played.
    pub scenario: Scenario,
    /// The parameters of this seed.
    pub setup: Setup,
    /// The kinds of fault that are played.
    pub kinds: BTreeSet<Fault>,
    /// The lockspace's timing.
    pub timing: Timing,
    /// The lockspace.
    pub superblock: Superblock,
    /// When the operator formats the lockstate anew, or did.
    pub formats_at: Option<Time>,
    /// Machines.
    pub hosts: Vec<Host>,
    /// The shared disk.
    pub disk: Disk,
    /// What may go wrong with the disk now.
    pub troubles: Troubles,
    /// The network.
    pub net: Net,
    /// Client processes.
    pub clients: Vec<Client>,
    /// Client connections.
    pub conns: BTreeMap<ConnId, Conn>,
    /// What is locked.
    pub resources: Vec<Resource>,
    /// The oracles.
    pub oracles: Oracles,
    /// What was met.
    pub coverage: Coverage,
    /// The first broken rule.
    pub failure: Option<Failure>,
    /// The trace.
    pub log: Log,
    /// Faults still happen.
    pub storm: bool,
    /// Why I1, I3, I5, I7, I8 and I9 are not judged any more: the disk lied to a recovery.
    pub excused: Option<String>,
    /// Until when a client neither acts nor reads.
    pub silent_until: Vec<Time>,
    /// How often each client acted, connected and was told something.
    ordinals: Vec<[u32; 3]>,
    /// Client connections so far, by owner.
    opened: BTreeMap<(bool, usize), u32>,
    /// The steps that clients took in the storm, for whoever shrinks a scenario.
    pub steps: Vec<(usize, u32)>,
    /// Outputs of all cores so far.
    pub outputs: u64,
    /// Those of the storm.
    pub storm_outputs: u64,
    /// The daemon that carries out this output dies after it.
    pub death_after: Option<u64>,
    /// The last daemon run's number.
    pub next_run: u32,
    /// The last connection's number.
    pub next_conn: u64,
    /// The last process id.
    pub next_pid: u32,
    /// Answers of the daemons to the operator's last question, by host.
    pub statuses: BTreeMap<usize, Status>,
}

impl World {
    /// The world of a scenario at its beginning: a formatted lockstate, machines that are on, daemons about to start.
    pub fn new(scenario: &Scenario, trace: bool) -> World {
        let seed = scenario.seed;
        let setup = scenario.setup();
        let dice = &mut Dice::new(seed, "world", 0);
        let timing = Timing::FAST;
        let superblock = Superblock {
            geometry: Geometry { sector: setup.sector, slot_count: setup.slot_count },
            timing,
            lockspace: "sim".to_owned(),
            uuid: dice.uuid(),
            key: ClusterKey([7; 32]),
            feature_level: mxlock_format::FEATURE_LEVEL,
        };
        let base = Epoch(dice.range(487_000, 490_000));
        let count = setup.hosts + setup.late_hosts;
        let hosts: Vec<Host> = (0..count).map(|host| machine(seed, host, &setup)).collect();
        let mut disk = Disk::new(seed, &superblock, base, count, setup.disk_latency);
        disk.hiccups_ppm = setup.noise.hiccups_ppm;
        let net = Net::new(seed, setup.net_latency);
        let resources = (0..setup.resources).map(resource).collect();
        let clients = setup.clients * count;
        let mut world = World {
            now: 0,
            queue: BinaryHeap::new(),
            next_event: 0,
            seed,
            scenario: scenario.clone(),
            setup,
            kinds: BTreeSet::new(),
            timing,
            superblock,
            formats_at: None,
            hosts,
            disk,
            troubles: Troubles::default(),
            net,
            clients: Vec::new(),
            conns: BTreeMap::new(),
            resources,
            oracles: Oracles::default(),
            coverage: Coverage::default(),
            failure: None,
            log: Log { on: trace, hash: seed },
            storm: true,
            excused: None,
            silent_until: vec![0; clients],
            ordinals: vec![[0; 3]; clients],
            opened: BTreeMap::new(),
            steps: Vec::new(),
            outputs: 0,
            storm_outputs: 0,
            death_after: scenario.death_after,
            next_run: 0,
            next_conn: 0,
            next_pid: 1_000,
            statuses: BTreeMap::new(),
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        let seed = self.seed;
        for host in 0..self.hosts.len() {
            let late = host >= self.setup.hosts;
            let mut dice = self.dice("arrival", host as u64);
            let at = if late { dice.range(60 * SEC, 300 * SEC) } else { dice.range(0, 3 * SEC) };
            self.schedule_start(host, at);
            for _ in 0..self.setup.clients {
                let client = self.clients.len();
                self.next_pid += 1;
                let process = Process { pid: self.next_pid, start_time: 0, uid: 1000 };
                let mut dice = Dice::new(seed, "client", client as u64);
                let appetite = match dice.below(10) {
                    0 => 24,
                    1..=3 => 4,
                    _ => 2,
                };
                self.clients.push(Client::new(host, process, appetite, dice));
                self.schedule(at + 100 * MS, Event::Connect { client });
                self.schedule(at + 200 * MS, Event::ClientStep { client });
            }
        }
        for planned in self.scenario.faults(&self.setup) {
            self.kinds.insert(planned.kind);
            self.schedule(planned.at, Event::Fault { kind: planned.kind, ordinal: planned.ordinal });
        }
    }

    /// The randomness of a component of this world.
    pub fn dice(&self, component: &str, index: u64) -> Dice {
        Dice::new(self.seed, component, index)
    }

    /// The delays of the next connection of an owner.
    pub fn socket_dice(&mut self, owner: ConnOwner) -> Dice {
        let (client, index) = match owner {
            ConnOwner::Client(client) => (true, client),
            ConnOwner::Operator(host) => (false, host),
        };
        let ordinal = self.opened.entry((client, index)).or_default();
        *ordinal += 1;
        let which = both(index, *ordinal);
        self.dice(if client { "socket" } else { "operator's socket" }, which)
    }

    /// What a core is told about its node.
    pub fn config(&self, host: usize, node: NodeId, incarnation: Incarnation) -> Config {
        let me = &self.hosts[host];
        Config {
            node,
            superblock: self.superblock.clone(),
            node_uuid: me.node_uuid,
            boot_id: me.boot_id,
            host: format!("host{host}"),
            incarnation,
            seed: mix(incarnation.0),
            addresses: vec![std::net::SocketAddr::from(([10, 0, 0, host as u8 + 1], 7600))],
            ballots_from: None,
            uncertain_until: None,
            fence_wait: self.setup.fence_wait,
            orphan_lifetime_ms: 30_000,
            clear_behind_ms: self.setup.clear_behind_ms,
            uid: 0,
            pid: 1,
            lockstate: "sim".to_owned(),
            io: "sim".to_owned(),
            scope: "shared".to_owned(),
            version: "sim".to_owned(),
            warnings: Vec::new(),
        }
    }

    /// Plans an event.
    pub fn schedule(&mut self, at: Time, event: Event) {
        self.next_event += 1;
        self.queue.push(Reverse(Due { at: at.max(self.now), number: self.next_event, event }));
    }

    /// Lets everything happen up to `until`, or to the first broken rule.
    pub fn run_until(&mut self, until: Time) {
        while self.failure.is_none() && self.queue.peek().is_some_and(|Reverse(due)| due.at <= until) {
            let Some(Reverse(due)) = self.queue.pop() else { break };
            self.now = due.at;
            self.log.fold(due.at);
            self.log.fold(due.number);
            let until = self.waits_until(&due.event);
            if until > self.now {
                self.schedule(until, due.event);
            } else {
                self.dispatch(due.event);
            }
        }
        if self.failure.is_none() {
            self.now = until;
        }
    }

    /// Lets one event happen.
    pub fn dispatch(&mut self, event: Event) {
        match event {
            Event::Start { host } => self.start_daemon(host),
            Event::Wake { host, run } => self.wake(host, run),
            Event::Resume { host, run } => self.resume(host, run),
            Event::BeatTick { host, run } => self.beat_tick(host, run),
            Event::BeatLook { host, run } => self.beat_look(host, run),
            Event::BeatWritten { host, run, result } => self.beat_written(host, run, result),
            Event::BeatRead { host, run, issued, region } => self.beat_read(host, run, issued, region),
            Event::BeatReadFailed { host, run, fault } => self.beat_read_failed(host, run, fault),
            Event::Land { write, piece } => self.land(write, piece),
            Event::WriteDone { write } => self.write_done(write),
            Event::Sample { read } => self.sample(read),
            Event::CheckLink { pair } => self.check_link(pair),
            Event::LinkUp { pair, conn, end } => self.link_up(pair, conn, end),
            Event::LinkDown { pair, end, conn } => self.link_down(pair, end, conn),
            Event::BreakLink { pair } => self.break_link(pair, 20 * MS),
            Event::Frame { pair, conn, end, frame } => self.frame_arrives(pair, conn, end, frame),
            Event::PartitionNoticed { pair } => self.partition_noticed(pair),
            Event::Unblock { pair, end } => self.unblock(pair, end),
            Event::Opened { conn } => self.opened(conn),
            Event::Request { conn, request } => self.request_arrives(conn, *request),
            Event::Disconnected { conn } => self.disconnected(conn),
            Event::Response { conn, response } => self.client_hears(conn, *response),
            Event::ConnLost { conn } => self.conn_lost(conn),
            Event::ProcessGone { host, run, process } => {
                self.tell(host, run, mxlock_dlm::io::Input::ProcessGone { process });
            }
            Event::ClientStep { client } => self.client_acts(client),
            Event::Connect { client } => {
                if self.scenario.has_client(client) {
                    self.draw_for_client(client, 1);
                    self.client_connect(client);
                }
            }
            Event::Reborn { client } => {
                if self.scenario.has_client(client) {
                    self.client_reborn(client);
                }
            }
            Event::PowerFails { host } => self.power_fails(host),
            Event::PowerOn { host } => self.power_on(host),
            Event::EndClone { host } => self.end_clone(host),
            Event::PullPlug { host, node } => self.pull_plug(host, node),
            Event::FenceAck { host, node } => self.fence_ack(host, node),
            Event::Format => self.format(),
            Event::Fault { kind, ordinal } => self.fault(kind, ordinal),
        }
    }

    /// Each thing that a client does or hears has its own randomness.
    fn draw_for_client(&mut self, client: usize, what: usize) -> u32 {
        let ordinal = &mut self.ordinals[client][what];
        *ordinal += 1;
        let ordinal = *ordinal;
        let name = ["step", "connect", "notice"][what];
        self.clients[client].dice = self.dice(name, both(client, ordinal));
        ordinal
    }

    /// A client's turn: it acts, unless the scenario leaves this step out.
    fn client_acts(&mut self, client: usize) {
        if !self.scenario.has_client(client) {
            return;
        }
        let step = self.draw_for_client(client, 0);
        if !self.storm || self.scenario.has_step(client, step) {
            self.steps.push((client, step));
            self.client_step(client);
        } else if self.clients[client].alive {
            let wait = self.clients[client].dice.spread(self.setup.think);
            self.schedule(self.now + wait, Event::ClientStep { client });
        }
    }

    fn client_hears(&mut self, conn: ConnId, response: Response) {
        if let Some(Conn { owner: ConnOwner::Client(client), .. }) = self.conns.get(&conn) {
            self.draw_for_client(*client, 2);
        }
        self.response_arrives(conn, response);
    }

    /// Until when an event must wait, because the host on which it would happen sleeps, or its client is silent.
    fn waits_until(&self, event: &Event) -> Time {
        let (host, client) = match event {
            Event::Start { host }
            | Event::Wake { host, .. }
            | Event::Resume { host, .. }
            | Event::BeatTick { host, .. }
            | Event::BeatLook { host, .. }
            | Event::BeatWritten { host, .. }
            | Event::BeatRead { host, .. }
            | Event::BeatReadFailed { host, .. }
            | Event::ProcessGone { host, .. } => (*host, None),
            Event::WriteDone { write } => match self.disk.writes.get(write) {
                Some(write) => (write.by.host, None),
                None => return 0,
            },
            Event::Sample { read } => match self.disk.reads.get(read) {
                Some(read) => (read.by.host, None),
                None => return 0,
            },
            Event::LinkUp { pair, end, .. } | Event::LinkDown { pair, end, .. } | Event::Frame { pair, end, .. } => {
                ([pair.0, pair.1][*end], None)
            }
            Event::Opened { conn } | Event::Request { conn, .. } | Event::Disconnected { conn } => {
                match self.conns.get(conn) {
                    Some(conn) => (conn.host, None),
                    None => return 0,
                }
            }
            Event::Response { conn, .. } | Event::ConnLost { conn } => match self.conns.get(conn) {
                Some(Conn { host, owner: ConnOwner::Client(client), .. }) => (*host, Some(*client)),
                Some(conn) => (conn.host, None),
                None => return 0,
            },
            Event::ClientStep { client } | Event::Connect { client } => {
                (self.clients[*client].host, Some(*client).filter(|_| matches!(event, Event::ClientStep { .. })))
            }
            _ => return 0,
        };
        self.hosts[host].asleep_until.max(client.map_or(0, |client| self.silent_until[client]))
    }

    /// Notes a broken rule; only the first one counts, and none that the disk's lies excuse.
    pub fn fail(&mut self, rule: Rule, message: String) {
        if self.excused.is_some() && matches!(rule, Rule::I1 | Rule::I3 | Rule::I5 | Rule::I7 | Rule::I8 | Rule::I9) {
            self.coverage.excused += 1;
            return;
        }
        let at = self.now;
        self.failure.get_or_insert(Failure { rule, message, at });
    }

    /// Notes what an oracle found.
    pub fn judge(&mut self, rule: Rule, verdict: Result<(), String>) {
        if let Err(message) = verdict {
            self.fail(rule, message);
        }
    }

    /// Prints a line of the trace, if it is wanted.
    pub fn trace(&self, text: impl FnOnce() -> String) {
        if self.log.on {
            self.log.line(self.now, &text());
        }
    }

    /// From now on the rules about locks are not judged: no software could have known better.
    pub fn excuse(&mut self, why: &str) {
        self.trace(|| format!("*** from now on I1, I3, I5, I7, I8 and I9 are not judged: {why}"));
        self.excused.get_or_insert_with(|| why.to_owned());
    }

    /// A piece of a write has reached the disk: the oracles of views and records look at it.
    pub fn landed(&mut self, run: u32, piece: Piece) {
        let now = self.now;
        let Piece::Heartbeat(node, _) = &piece else {
            if let Piece::Records(first, _) = &piece
                && self.setup.fence_wait
            {
                // A machine that an operator has switched off was vouched for at once: then a write may come later.
                let verdict = self.oracles.landing.landed(run, *first, self.oracles.views.newest().as_ref());
                self.judge(Rule::I6, verdict);
            }
            let changed = self.disk.land(&piece);
            return self.records_changed(changed);
        };
        let node = node.index();
        let before = self.disk.heartbeats[node].clone();
        self.disk.land(&piece);
        let Ok(after) = &self.disk.heartbeats[node] else { return };
        self.log.fold(after.hb_seq);
        let verdict = match &before {
            // A failed write that lands late goes back in time: that is the disk's doing, not its owner's.
            Ok(before) if before.incarnation == after.incarnation && after.hb_seq < before.hb_seq => {
                after.view.map_or(Ok(()), |view| self.oracles.views.committed(view, now))
            }
            Ok(before) => self.oracles.views.landed(before, after, now),
            Err(_) => Ok(()),
        };
        self.judge(Rule::I4, verdict);
        self.judge_exclusion(node);
        if let Ok(after) = self.disk.heartbeats[node].clone() {
            let verdict = self.oracles.ballots.landed(&after, &self.disk.heartbeats);
            self.judge(Rule::I4, verdict);
            let newest = self.oracles.views.newest();
            let verdict = Landing::resigned(&after, newest.as_ref(), self.disk.has_record_writes_of(run));
            self.judge(Rule::I6, verdict);
            self.ballot_landed(before.as_ref().ok(), &after);
        }
    }

    /// I5: whether what a heartbeat that has just landed carries excludes somebody without reason.
    fn judge_exclusion(&mut self, node: usize) {
        let now = self.now;
        let Ok(heartbeat) = &self.disk.heartbeats[node] else { return };
        let dead = u64::from(self.timing.dead_ms) * MS;
        self.oracles.judgement.landed(heartbeat.node, now, dead);
        let Some(value) = heartbeat.block.value else { return };
        let owner = |host: &Host| host.daemon.as_ref().is_some_and(|daemon| daemon.shown == value.master_incarnation);
        let (Some(before), Some(judge)) = (self.oracles.views.before(value.epoch), self.hosts.iter().position(owner))
        else {
            return;
        };
        if heartbeat.node != value.master || !self.oracles.judgement.is_new(&value) {
            return;
        }
        // A little less, for rounding.
        let limit = self.hosts[judge].clock.true_length(dead) - MS;
        let limit = self.setup.fence_wait.then_some(limit);
        let verdict = self.oracles.judgement.proposed(&before, &value, judge, now, limit);
        self.judge(Rule::I5, verdict);
    }

    /// A sector of a write is left half written.
    pub fn torn(&mut self, piece: &Piece, sector: usize, keep: usize) {
        let changed = self.disk.tear(piece, sector, keep);
        self.records_changed(changed);
    }

    /// A bit of a record flips.
    pub fn rot_record(&mut self, slot: u32, bit: usize) {
        let before = self.disk.records[slot as usize].as_ref().map(|record| record.lock);
        self.disk.rot_record(slot, bit);
        self.look_for_damage(slot, before);
    }

    fn look_for_damage(&mut self, slot: u32, before: Option<mxlock_format::LockId>) {
        let sound =
            self.disk.records[slot as usize].is_some() || self.disk.record_bytes(slot).iter().all(|byte| *byte == 0);
        self.oracles.damage.landed(slot, sound);
        if let Some(lock) = before.filter(|_| !sound) {
            self.oracles.orphans.damaged(lock);
            self.oracles.damage.hits(lock.session);
        }
    }

    /// Records have changed on the disk: the oracles of records look at them.
    pub fn records_changed(&mut self, all: Vec<Changed>) {
        for changed in all {
            self.log.fold(u64::from(changed.slot));
            self.look_for_damage(changed.slot, changed.before.as_ref().map(|record| record.lock));
            let after = self.disk.records[changed.slot as usize].clone();
            if let Some(record) = &after {
                self.log.fold(record.token.0);
                if record.state == LockState::Waiting
                    && let Some((client, seq)) = self.client_of(record.lock)
                    && let Some(held) = self.clients[client].locks.get(&seq)
                    && held.ops.get(&0).is_some_and(|op| op.plain)
                {
                    self.oracles.order.queued(record.lock, held.resource);
                }
            }
            if let (Some(before), Some(after), None) = (&changed.before, &after, &changed.promised)
                && self.oracles.views.newest().is_some_and(|view| view.phase == Phase::Recovering)
            {
                let known = self.client_of(before.lock).is_some();
                let verdict = stamps::rewritten(before, after, self.oracles.views.newest().as_ref(), known);
                self.judge(Rule::Stamps, verdict);
            }
            if let Some(before) = changed.before
                && let Some((client, seq)) = self.client_of(before.lock)
            {
                // The record may have stood for a later lock of the same session, too.
                let affected: Vec<u64> = self.clients[client]
                    .locks
                    .iter()
                    .filter(|(other, held)| **other == seq || self.resources[held.resource] == before.resource)
                    .map(|(&other, _)| other)
                    .collect();
                for seq in affected {
                    self.check_record(client, seq);
                }
            }
        }
    }

    /// A core has found a damaged record: there must be one, or it cannot be read.
    pub fn quarantined(&mut self, host: usize, slot: u32, reason: &str) {
        self.coverage.quarantined += 1;
        let trouble = self.kinds.iter().any(|kind| {
            matches!(kind, Fault::RotRecord | Fault::TornWrites | Fault::ReadErrors | Fault::LosePath | Fault::LoseDisk)
        }) || self.setup.noise.torn_ppm > 0;
        let verdict = self.oracles.damage.said(host, slot, reason, trouble);
        self.judge(Rule::I11, verdict);
    }

    /// The records that count for I3: where the disk broke its word, what it promised.
    fn stands_on_disk(
        &self,
        lock: mxlock_format::LockId,
        resource: &Resource,
        range: Option<mxlock_format::ByteRange>,
        mode: Mode,
    ) -> Result<(), String> {
        let promised = |record: &mxlock_format::LockRecord| superset::names(record, lock, resource, range, mode);
        if self.disk.broken.values().flatten().any(promised) {
            return Ok(());
        }
        superset::check(&self.disk.records, self.oracles.views.newest().as_ref(), lock, resource, range, mode)
    }

    /// The client and number of a lock that is alive.
    pub fn client_of(&self, lock: mxlock_format::LockId) -> Option<(usize, u64)> {
        let client = self.clients.iter().position(|client| client.alive && client.session == Some(lock.session))?;
        self.clients[client].locks.contains_key(&lock.seq).then_some((client, lock.seq))
    }

    /// I3 for one lock, if its client believes in it now.
    pub fn check_record(&mut self, client: usize, seq: u64) {
        if !self.believes(client, seq) {
            return;
        }
        let me = &self.clients[client];
        let (Some(lock), Some(held)) = (me.lock_id(seq), me.locks.get(&seq)) else { return };
        let Some(mode) = held.believed else { return };
        let resource = &self.resources[held.resource];
        let verdict = self.stands_on_disk(lock, resource, held.range, mode);
        self.judge(Rule::I3, verdict);
    }

    /// I3 for all locks of a client, unless a damaged record of it may be written back as it is.
    pub fn check_records(&mut self, client: usize) {
        let locks: Vec<u64> = self.clients[client].locks.keys().copied().collect();
        if !self.oracles.damage.has_hit(self.clients[client].session) {
            locks.into_iter().for_each(|seq| self.check_record(client, seq));
        }
    }

    /// I4: a host says that its own proposal was chosen.
    pub fn judge_choice(&mut self, host: usize, epoch: Epoch) {
        let Some(node) = self.hosts[host].daemon.as_ref().map(|daemon| daemon.node) else { return };
        let Ok(own) = &self.disk.heartbeats[node.index()] else { return };
        let verdict = self.oracles.ballots.chosen(own, epoch, &self.disk.heartbeats);
        self.judge(Rule::I4, verdict);
    }

    /// I4 at the moment when a daemon sends a grant: it is not of a master whose time was over.
    pub fn check_reign_before_telling(&mut self, host: usize, conn: ConnId, seq: u64, token: Token) {
        let Some(Conn { owner: ConnOwner::Client(client), run, .. }) = self.conns.get(&conn) else { return };
        let Some(lock) = self.clients[*client].lock_id(seq) else { return };
        let verdict = self.oracles.reigns.told(*run, lock, token);
        self.judge(Rule::I4, verdict.map_err(|error| format!("host {host}: {error}")));
    }

    /// I9 at the moment when a daemon acknowledges an operation that wrote a value, where another client has held a lock on
    /// the resource since before that.
    pub fn check_value_before_telling(&mut self, host: usize, conn: ConnId, seq: u64, op: u32) {
        let Some(Conn { owner: ConnOwner::Client(client), .. }) = self.conns.get(&conn) else { return };
        let writer = *client;
        let Some(held) = self.clients[writer].locks.get(&seq) else { return };
        let Some((value, sent, resent)) = held.ops.get(&op).and_then(|op| Some((op.value?, op.sent, op.resent))) else {
            return;
        };
        let resource = held.resource;
        let stays = (0..self.clients.len()).find(|&other| {
            let since_before = |held: &Held| held.resource == resource && held.told_at < sent && held.ops.is_empty();
            let mut locks = self.clients[other].locks.iter();
            other != writer && locks.any(|(&seq, held)| since_before(held) && self.believes(other, seq))
        });
        let Some(stays) = stays else { return };
        self.coverage.values_carried += 1;
        let promised = self.disk.broken.values().flatten();
        let records = self.disk.records.iter().flatten().chain(promised);
        let of_it = records.filter(|record| record.resource == self.resources[resource]);
        let in_doubt = resent || self.oracles.views.changed_at().is_some_and(|at| at >= sent);
        let verdict = Values::carried(value, in_doubt, of_it);
        self.judge(
            Rule::I9,
            verdict.map_err(|error| format!("host {host}, resource {resource}, held by client {stays}: {error}")),
        );
    }

    /// I3 at the moment when a daemon sends a grant.
    pub fn check_record_before_telling(&mut self, host: usize, conn: ConnId, seq: u64, mode: Mode) {
        let Some(Conn { owner: ConnOwner::Client(client), .. }) = self.conns.get(&conn) else { return };
        let me = &self.clients[*client];
        if !me.alive || me.conn != Some(conn) {
            return;
        }
        let (Some(lock), Some(held)) = (me.lock_id(seq), me.locks.get(&seq)) else { return };
        if held.unlocking {
            return;
        }
        let resource = &self.resources[held.resource];
        let verdict = self
            .stands_on_disk(lock, resource, held.range, mode)
            .map_err(|error| format!("host {host} tells a grant: {error}"));
        self.judge(Rule::I3, verdict);
    }

    /// Whether a client believes now that it holds a lock.
    pub fn believes(&self, client: usize, seq: u64) -> bool {
        self.clients[client].locks.get(&seq).is_some_and(|held| held.believed.is_some())
            && self.trusts(client)
            && self.is_of_this_incarnation(client, seq)
    }

    /// Whether the lease page names the incarnation under which a lock was granted.
    fn is_of_this_incarnation(&self, client: usize, seq: u64) -> bool {
        let me = &self.clients[client];
        let (Some(run), Some(held)) = (me.page, me.locks.get(&seq)) else { return false };
        held.incarnation == self.hosts[me.host].page_incarnation(run)
    }

    /// The incarnation that the page of a client names.
    pub fn incarnation_of(&self, client: usize) -> Incarnation {
        let me = &self.clients[client];
        me.page.map_or_else(Incarnation::default, |run| self.hosts[me.host].page_incarnation(run))
    }

    /// Whether a client may rely on its locks now: no loss was told, and its lease page stands.
    pub fn trusts(&self, client: usize) -> bool {
        let me = &self.clients[client];
        me.alive && !me.lease_lost && me.page.is_some_and(|run| self.hosts[me.host].page_valid(run, self.now))
    }

    /// Changes what a client believes of a lock; a new or stronger belief is checked (I1).
    pub fn set_belief(&mut self, client: usize, seq: u64, mode: Option<Mode>) {
        let Some(held) = self.clients[client].locks.get_mut(&seq) else { return };
        held.believed = mode;
        let (resource, span, transaction) = (held.resource, held.span(), held.transaction);
        let belief = mode.map(|mode| Belief { client, seq, mode, span, transaction });
        self.oracles.exclusion.set(resource, client, seq, belief);
        if mode.is_some() {
            self.check_exclusion(client, seq);
        }
    }

    /// I1 for one lock.
    pub fn check_exclusion(&mut self, client: usize, seq: u64) {
        let Some(held) = self.clients[client].locks.get(&seq) else { return };
        let verdict = self.oracles.exclusion.check(held.resource, client, seq, |belief| {
            self.trusts(belief.client)
                && self.is_of_this_incarnation(belief.client, belief.seq)
                && !self.lost_with_its_record(belief.client)
        });
        self.judge(Rule::I1, verdict);
    }

    /// The record of a client's lock was damaged, and the daemon that knew the lock as well is gone: both copies of one
    /// fact (`docs/faults.md`).
    fn lost_with_its_record(&self, client: usize) -> bool {
        let me = &self.clients[client];
        let run = self.hosts[me.host].daemon.as_ref().map(|daemon| daemon.run);
        self.oracles.damage.has_hit(me.session) && me.page != run
    }

    /// A lease page that had run out stands again: beliefs that rest on it begin anew.
    pub fn page_revived(&mut self, host: usize, run: u32) {
        let clients: Vec<usize> = (0..self.clients.len())
            .filter(|&client| self.clients[client].host == host && self.clients[client].page == Some(run))
            .collect();
        for client in clients {
            self.check_client(client);
        }
    }

    /// I1 and I3 for all locks of a client, after it began to rely on them again.
    pub fn check_client(&mut self, client: usize) {
        let locks: Vec<u64> = self.clients[client].locks.keys().copied().collect();
        for seq in locks {
            self.check_exclusion(client, seq);
            self.check_record(client, seq);
        }
    }

    /// Whether a process runs.
    pub fn process_lives(&self, pid: u32) -> bool {
        self.clients.iter().any(|client| client.alive && client.process.pid == pid) || pid < 1_000
    }
}

/// A machine with its clocks.
fn machine(seed: u64, host: usize, setup: &Setup) -> Host {
    let dice = &mut Dice::new(seed, "machine", host as u64);
    let limit = setup.drift_ppm;
    let drawn = dice.range(0, 2 * limit.unsigned_abs()) as i64 - limit;
    let drift = match (setup.drift_extreme, drawn > 0) {
        (true, true) => limit,
        (true, false) => -limit,
        _ => drawn,
    };
    let offset = dice.range(60 * SEC, 1_000_000 * SEC);
    Host::new(0, drift, offset, dice.uuid(), dice.uuid())
}

fn resource(index: usize) -> Resource {
    if index.is_multiple_of(3) {
        let id = ResourceId { volume: 1, ino: index as u64, offset: 0, ag: 0, kind: ResourceKind::Inode };
        return Resource::typed(id).expect("an inode is a typed resource");
    }
    let name = format!("resource-{index}");
    Resource::named(QualifiedName::new(b"sim", name.as_bytes()).expect("the name is short"))
}
