//! What there is: the disk, the view, a master, nodes with members, their clients.

use crate::kept::{Hashed, Kept};
use mxlock_dlm::model::{ModelMaster, ModelMember, digest_message};
use mxlock_format::{Epoch, LockId, LockRecord, LockState, Mode, RECORD_BYTES, SessionId, Token};
use mxlock_proto::peer::PeerMessage;
use std::hash::{Hash, Hasher};

/// Nodes whose clients take locks. The master lives on a third one.
pub(super) const NODES: usize = 2;
/// Record slots at most; a scope may have fewer.
pub(super) const SLOTS: usize = 3;

/// What a record says, as far as the properties ask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Summary {
    pub(super) lock: LockId,
    pub(super) stamp: Epoch,
    pub(super) granted: Option<Mode>,
    pub(super) wanted: Mode,
    pub(super) persistent: bool,
}

impl Summary {
    /// Whether it names a lock with at least this mode, as granted or wanted (section 7).
    fn covers(&self, mode: Mode, persistent: bool) -> bool {
        self.granted.is_some_and(|granted| granted.covers(mode)) || (!persistent && self.wanted.covers(mode))
    }
}

/// A sector with a record.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Image {
    pub(super) bytes: [u8; RECORD_BYTES],
    pub(super) says: Summary,
}

impl Hash for Image {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl Image {
    /// `None` for a sector of zeros.
    pub(super) fn new(bytes: &[u8; RECORD_BYTES]) -> Option<Kept<Image>> {
        let record = LockRecord::decode(0, bytes).expect("a master writes good records")?;
        let says = Summary {
            lock: record.lock,
            stamp: record.table_epoch,
            granted: (record.state != LockState::Waiting).then_some(record.mode),
            wanted: record.wanted,
            persistent: record.persistent,
        };
        Some(Kept::new(Image { bytes: *bytes, says }))
    }
}

/// A sector, or what is to be written there.
pub(super) type Sector = Option<Kept<Image>>;

/// A sector write under way.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Write {
    pub(super) reign: Epoch,
    pub(super) slot: u32,
    pub(super) image: Sector,
    /// Part of which I/O: several sectors of a rewritten table are one.
    pub(super) io: u64,
    /// It may land after a successor has read the table.
    pub(super) late: bool,
}

impl Hash for Write {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.reign, self.slot, &self.image, self.late).hash(state);
    }
}

/// A message on a link.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Message(pub(super) PeerMessage);

impl Hash for Message {
    fn hash<H: Hasher>(&self, state: &mut H) {
        digest_message(&self.0, state);
    }
}

/// A node: its daemon, and the two directions of its link to the master.
#[derive(Clone, PartialEq, Hash, Debug)]
pub(super) struct Node {
    pub(super) up: bool,
    pub(super) incarnation: u64,
    /// Its sector says `member`: this incarnation was admitted.
    pub(super) admitted: bool,
    pub(super) lease: bool,
    /// `mxlock leave` was asked for; then it is gone for good.
    pub(super) leaving: bool,
    pub(super) member: Hashed<ModelMember>,
    pub(super) to_master: Vec<Message>,
    pub(super) from_master: Vec<Message>,
}

/// What a client was told that it holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Held {
    pub(super) seq: u64,
    pub(super) mode: Mode,
    pub(super) token: Token,
    pub(super) persistent: bool,
}

/// What a client may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Ask {
    Lock(Mode),
    Persistent(Mode),
    /// With an orphan lifetime.
    Lingering(Mode),
    /// With a time limit.
    Timed(Mode),
    NoQueue(Mode),
    Adopt(Mode),
    AdoptPersistent(Mode),
    Convert(Mode, Mode),
}

impl Ask {
    pub(super) fn is_persistent(self) -> bool {
        matches!(self, Ask::Persistent(_) | Ask::AdoptPersistent(_))
    }

    pub(super) fn is_adoption(self) -> bool {
        matches!(self, Ask::Adopt(_) | Ask::AdoptPersistent(_))
    }
}

/// What a client has asked for and not been answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Asking {
    New(Ask),
    Convert { op: u32, wanted: Mode, value: Option<u8> },
    Unlock { value: Option<u8> },
}

/// A client: one process, one lock at a time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Client {
    /// Its process lives.
    pub(super) lives: bool,
    /// Its session; none before it has greeted a daemon, and after one did not know it.
    pub(super) session: Option<SessionId>,
    /// It has a connection to its daemon.
    pub(super) connected: bool,
    /// The daemon has welcomed it on this connection.
    pub(super) attached: bool,
    /// It has passed its deadline while it was away, and takes leave when it is back.
    pub(super) overdue: bool,
    pub(super) held: Option<Held>,
    pub(super) asking: Option<Asking>,
    /// The last number that it used for a lock, and for a conversion.
    pub(super) seq: u64,
    pub(super) op: u32,
    /// What it may still ask for.
    pub(super) asks: u8,
}

/// What may still go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Faults {
    /// Daemons that crash, to be restarted.
    pub(super) crashes: u8,
    /// Nodes that are excluded.
    pub(super) exclusions: u8,
    /// Leases that are lost by nodes that stay up.
    pub(super) leases: u8,
    /// Clients' processes that end.
    pub(super) deaths: u8,
    /// Connections of clients that break.
    pub(super) cuts: u8,
    /// Record writes that end in an error.
    pub(super) errors: u8,
    /// Nodes that leave.
    pub(super) leaves: u8,
    /// Masters that die.
    pub(super) deposed: u8,
    /// Masters that hand over.
    pub(super) handovers: u8,
    /// Writes of a master that dies which land after its successor has read the table (A2 fails).
    pub(super) late: u8,
}

/// The master at work.
#[derive(Clone, PartialEq, Hash, Debug)]
pub(super) struct Reign {
    pub(super) epoch: Epoch,
    pub(super) master: Hashed<ModelMaster>,
    /// Its table is on disk: the view {active} can be committed.
    pub(super) rewritten: bool,
    pub(super) draining: bool,
    /// The incarnations that it sees in the sectors.
    pub(super) seen: [u64; NODES],
}

/// What an observer who sees everything remembers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Ghost {
    /// By mode, the highest token that anybody was told.
    pub(super) tokens: [u64; 6],
    /// PERSISTENT locks whose owners are dead.
    pub(super) left: Vec<LockId>,
    /// PERSISTENT locks that were released, and orphans that somebody else has.
    pub(super) ended: Vec<LockId>,
    /// An adoption was taken back unheard: if it was carried out, the lock was released.
    pub(super) renounced: bool,
    /// The value that was written last; 0 after the death of a writer.
    pub(super) written: u8,
    /// Values that were given out so far.
    pub(super) values: u8,
    /// What went wrong, as the property says.
    pub(super) broken: Option<Broken>,
    pub(super) shown: Shown,
}

/// A property that a step broke.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Broken {
    Token,
    Torn,
    Value,
}

/// What happened at all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Shown {
    pub(super) adopted: bool,
    pub(super) claimed: bool,
    pub(super) swapped: bool,
}

/// Everything.
#[derive(Clone, PartialEq, Hash, Debug)]
pub(super) struct State {
    pub(super) disk: [Sector; SLOTS],
    /// By slot.
    pub(super) writes: Vec<Write>,
    /// The epoch of the newest reign, the table epoch, and the members, as bits.
    pub(super) epoch: Epoch,
    pub(super) table_epoch: Epoch,
    pub(super) members: u8,
    pub(super) reign: Option<Reign>,
    pub(super) nodes: [Node; NODES],
    pub(super) clients: Vec<Client>,
    pub(super) faults: Faults,
    pub(super) ghost: Ghost,
}

impl State {
    pub(super) fn active(&self) -> Option<&Reign> {
        self.reign.as_ref().filter(|reign| reign.master.is_active())
    }

    /// The nodes that are dead for all that others can see, as bits.
    pub(super) fn dead(&self) -> u8 {
        let dead = (0..NODES).filter(|node| !self.nodes[*node].up || !self.nodes[*node].lease);
        dead.map(|node| 1 << node).sum::<u8>() & self.members
    }

    pub(super) fn is_member(&self, node: usize) -> bool {
        self.members & (1 << node) != 0
    }

    /// Whether the disk names a lock of the session with at least this mode, however the writes under way end.
    pub(super) fn is_named(&self, session: SessionId, mode: Mode, persistent: bool) -> bool {
        let names = |sector: &Sector| {
            sector.as_ref().is_some_and(|image| {
                let says = &image.says;
                says.lock.session == session && says.stamp >= self.table_epoch && says.covers(mode, persistent)
            })
        };
        (0..).zip(&self.disk).any(|(slot, sector)| {
            let mut writes = self.writes.iter().filter(|write| write.slot == slot);
            names(sector) && writes.all(|write| names(&write.image))
        })
    }
}

/// What two modes both permit.
pub(super) fn common(a: Mode, b: Mode) -> Mode {
    match (a.covers(b), b.covers(a)) {
        (true, _) => b,
        (_, true) => a,
        _ => Mode::CR,
    }
}
