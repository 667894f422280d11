//! The world: true time, and all that lives in it. One seed determines everything.
//!
//! | file | subject |
//! |---|---|
//! | `events.rs` | the queue of events: what can happen, in which order it does, and what has to wait |
//! | `landing.rs` | what lands on the disk, and what the oracles make of it |
//! | `beliefs.rs` | what clients believe that they hold, and what must be true of it |

mod beliefs;
mod events;
mod landing;

pub use events::Event;

use crate::client::Client;
use crate::clock::{MS, SEC, Time};
use crate::coverage::Coverage;
use crate::dice::{Dice, both, mix};
use crate::disk::Disk;
use crate::faults::Fault;
use crate::net::Net;
use crate::node::Host;
use crate::oracle::{Oracles, Rule};
use crate::scenario::Scenario;
use crate::setup::Setup;
use crate::trouble::Troubles;
use events::Due;
use mxlock_dlm::config::Config;
use mxlock_dlm::io::ConnId;
use mxlock_format::{
    ClusterKey, Epoch, Geometry, Incarnation, NodeId, Process, QualifiedName, Resource, ResourceId, ResourceKind,
    Superblock, Timing,
};
use mxlock_proto::report::Status;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

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
