//! A cluster started from an image: the core that `mxlockd` runs, on a disk with these bytes, with the clients that lived.
//!
//! The disk, the network and the sockets are perfect here and take a fixed time each: what the cluster does while they
//! are not is for the simulator. What this one has instead is a beginning that real daemons left behind.

mod checks;
mod clients;
mod disk;
mod node;

use crate::history::History;
use clients::Caller;
use disk::Disk;
use mxlock_dlm::io::{Input, Region};
use mxlock_dlm::time::{BootTime, Now};
use mxlock_format::{Epoch, NodeId, Superblock, Uuid, View};
use mxlock_proto::client::{Request, Response};
use mxlock_proto::peer::PeerFrame;
use node::Host;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Nanoseconds of CLOCK_BOOTTIME.
pub(crate) type Time = u64;
pub(crate) const MS: Time = 1_000_000;

/// A write lands, a read ends.
const DISK: Time = MS / 10;
/// A frame arrives.
const NETWORK: Time = MS / 10;
/// A request or response arrives.
const SOCKET: Time = MS / 20;
/// A daemon needs this long to start.
const START: Time = 20 * MS;
/// Longest time until service has resumed, whoever is gone: D, an election, an orphan lifetime, and room.
const RESUMED_WITHIN: Time = 30_000 * MS;
/// Where a cluster cannot go on without an operator: for so long it is watched that it grants nothing.
const STOPPED_FOR: Time = 8_000 * MS;

/// What the crash took with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Crash {
    /// All daemons. Their clients live and come back.
    Daemons,
    /// All daemons, and their clients are silent: they do not come back while anybody waits for them.
    Silent,
    /// All daemons, and one host for good.
    Host(NodeId),
    /// The machines: no client lives, and each host has a new boot id.
    Power,
}

/// A disk as a crash could have left it.
#[derive(Clone, Debug)]
pub struct Image {
    /// The lockstate.
    pub bytes: Vec<u8>,
    /// A sector that is half old, half new.
    pub torn: Option<usize>,
}

/// How a cluster went that was started from an image.
#[derive(Clone, Copy, Default, Debug)]
pub struct Outcome {
    /// From the crash until every name had been granted anew.
    pub resumed_ms: u64,
    /// Locks that clients still relied on when the crash came.
    pub held: u64,
    /// Of these, locks that they kept.
    pub kept: u64,
    /// It stopped, as it must with a damaged heartbeat sector.
    pub stopped: bool,
}

/// Something that happens at a time.
enum Happening {
    Start { host: usize },
    Beat { host: usize, run: u32 },
    BeatLands { host: usize, run: u32 },
    BeatDone { host: usize, run: u32, issued: Time, region: Box<Region> },
    Wake { host: usize, run: u32 },
    Tell { host: usize, run: u32, input: Box<Input> },
    Lands { host: usize, run: u32, io: u64, first: usize, bytes: Vec<u8> },
    Links,
    Frame { link: u64, to: usize, frame: Box<PeerFrame> },
    Connect { caller: usize },
    Request { conn: u64, request: Box<Request> },
    Response { conn: u64, response: Box<Response> },
    Look,
}

struct Due {
    at: Time,
    number: u64,
    what: Happening,
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

/// A client connection.
struct Conn {
    caller: usize,
    host: usize,
    run: u32,
}

/// Everything.
struct World<'a> {
    history: &'a History,
    crash: Crash,
    began: Time,
    now: Time,
    queue: BinaryHeap<Reverse<Due>>,
    next: u64,
    superblock: Superblock,
    disk: Disk,
    hosts: Vec<Host>,
    links: BTreeMap<(usize, usize), u64>,
    callers: Vec<Caller>,
    conns: BTreeMap<u64, Conn>,
    views: BTreeMap<Epoch, View>,
    /// Damaged record slots that nobody has reported.
    unreported: BTreeSet<u32>,
    /// A heartbeat sector is damaged, and somebody has said so.
    heartbeat_damage: Option<bool>,
    torn: Option<usize>,
    released: bool,
    settled_at: Option<Time>,
    resumed_at: Option<Time>,
    outcome: Outcome,
    failure: Option<String>,
    trace: bool,
}

/// Starts a cluster from an image and watches it until it is at rest.
///
/// # Errors
/// The rule that was broken, and how.
pub fn replay(history: &History, image: Image, crash: Crash, trace: bool) -> Result<Outcome, String> {
    let mut world = World::new(history, image, crash, trace);
    world.run();
    match world.failure.take() {
        Some(failure) => Err(failure),
        None => Ok(world.outcome),
    }
}

impl<'a> World<'a> {
    fn new(history: &'a History, image: Image, crash: Crash, trace: bool) -> World<'a> {
        let disk = Disk::new(image.bytes);
        let heartbeat_damage = disk.region.iter().any(Result::is_err).then_some(false);
        let unreported = disk.damaged();
        let mut world = World {
            history,
            crash,
            began: history.now_ns,
            now: history.now_ns,
            queue: BinaryHeap::new(),
            next: 0,
            superblock: history.superblock.clone(),
            disk,
            hosts: Vec::new(),
            links: BTreeMap::new(),
            callers: Vec::new(),
            conns: BTreeMap::new(),
            views: history.views.clone(),
            unreported,
            heartbeat_damage,
            torn: image.torn,
            released: false,
            settled_at: None,
            resumed_at: None,
            outcome: Outcome::default(),
            failure: None,
            trace,
        };
        world.make_hosts();
        world.make_callers();
        world.schedule(world.began, Happening::Look);
        world
    }

    /// The hosts whose daemons have been seen on the disk by now.
    fn make_hosts(&mut self) {
        let owners: Vec<(NodeId, Uuid, Uuid)> = self.history.owners.clone();
        for (node, node_uuid, boot_id) in owners {
            let boot_id = if self.crash == Crash::Power { Uuid(mangle(boot_id.0)) } else { boot_id };
            let host = self.hosts.len();
            self.hosts.push(Host::new(node, node_uuid, boot_id));
            if self.crash != Crash::Host(node) {
                self.schedule(self.began + START + host as u64 * MS, Happening::Start { host });
            }
        }
    }

    fn schedule(&mut self, at: Time, what: Happening) {
        self.next += 1;
        self.queue.push(Reverse(Due { at: at.max(self.now), number: self.next, what }));
    }

    fn clock(&self) -> Now {
        Now { boot: BootTime(self.now), wall_ms: 1_800_000_000_000 + (self.now - self.began) / MS }
    }

    fn fail(&mut self, why: String) {
        let after = (self.now - self.began) / MS;
        self.failure.get_or_insert_with(|| format!("{why} ({after} ms after the crash)"));
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>6}.{:03} {}", (self.now - self.began) / MS, (self.now - self.began) / 1_000 % 1_000, what());
        }
    }

    fn run(&mut self) {
        while self.failure.is_none() && !self.is_over() {
            let Some(Reverse(due)) = self.queue.pop() else {
                return self.fail("nothing happens any more".to_owned());
            };
            self.now = due.at;
            self.dispatch(due.what);
        }
        if self.failure.is_none() {
            self.at_rest();
        }
    }

    fn dispatch(&mut self, what: Happening) {
        match what {
            Happening::Start { host } => self.start(host),
            Happening::Beat { host, run } => self.beat(host, run),
            Happening::BeatLands { host, run } => self.beat_lands(host, run),
            Happening::BeatDone { host, run, issued, region } => self.beat_done(host, run, issued, region),
            Happening::Wake { host, run } => self.wake(host, run),
            Happening::Tell { host, run, input } => self.tell(host, run, *input),
            Happening::Lands { host, run, io, first, bytes } => self.lands(host, run, io, first, &bytes),
            Happening::Links => self.links(),
            Happening::Frame { link, to, frame } => self.frame(link, to, *frame),
            Happening::Connect { caller } => self.connect(caller),
            Happening::Request { conn, request } => self.request(conn, *request),
            Happening::Response { conn, response } => self.response(conn, *response),
            Happening::Look => self.look(),
        }
    }
}

/// Another id, made of this one.
fn mangle(mut id: [u8; 16]) -> [u8; 16] {
    id[0] ^= 0x5a;
    id
}
