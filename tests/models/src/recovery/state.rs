//! What there is: the disk, the view, a master, two nodes and their clients.

use mxlock_dlm::table::Standing;
use mxlock_format::Mode;

/// Nodes whose clients take locks. The master lives on a third one.
pub(super) const NODES: usize = 2;
/// Record slots at most; a scope may have fewer.
pub(super) const SLOTS: usize = 3;
/// Sessions at most; a scope may have fewer.
pub(super) const SESSIONS: usize = 3;

/// A value that nobody has given: what a holder of PW or EX leaves behind that died.
pub(super) const NO_VALUE: u8 = 0;

/// A lock: the session that asked for it, and that session's own number for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Id {
    pub(super) session: u8,
    pub(super) seq: u8,
}

/// A lock value block with its sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Value {
    pub(super) epoch: u8,
    pub(super) n: u8,
    pub(super) valid: bool,
    pub(super) bytes: u8,
}

impl Value {
    pub(super) fn sequence(self) -> (u8, u8) {
        (self.epoch, self.n)
    }
}

/// A record as it is in its sector.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Record {
    pub(super) id: Id,
    pub(super) node: u8,
    pub(super) incarnation: u8,
    /// `None` for a waiting one.
    pub(super) granted: Option<Mode>,
    /// What it waits for; `None` for a granted one.
    pub(super) wanted: Option<Mode>,
    pub(super) stamp: u8,
    pub(super) position: u8,
    pub(super) token: (u8, u8),
    pub(super) persistent: bool,
    pub(super) value: Option<Value>,
}

/// What a promise may rest on (`Durable` in `persist.rs`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Durable {
    pub(super) mode: Mode,
    pub(super) wanted: Mode,
    pub(super) granted: bool,
    pub(super) value: (u8, u8),
}

impl Durable {
    pub(super) fn of(record: &Record) -> Durable {
        let mode = record.granted.unwrap_or(Mode::NL);
        Durable {
            mode,
            wanted: record.wanted.unwrap_or(mode),
            granted: record.granted.is_some(),
            value: record.value.map_or((0, 0), Value::sequence),
        }
    }

    /// Whether it names a lock with at least that mode, as granted or wanted.
    pub(super) fn covers(self, mode: Mode, must_be_granted: bool) -> bool {
        (self.mode.covers(mode) && self.granted) || (!must_be_granted && self.wanted.covers(mode))
    }

    /// What two have in common.
    pub(super) fn meet(self, other: Durable) -> Durable {
        let weaker = |a: Mode, b: Mode| match (a.covers(b), b.covers(a)) {
            (true, _) => b,
            (_, true) => a,
            _ => Mode::CR,
        };
        Durable {
            mode: weaker(self.mode, other.mode),
            wanted: weaker(self.wanted, other.wanted),
            granted: self.granted && other.granted,
            value: self.value.min(other.value),
        }
    }
}

/// A sector write under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Write {
    pub(super) reign: u8,
    pub(super) slot: u8,
    /// `None` zeroes the sector.
    pub(super) image: Option<Record>,
    /// The lock for which it was issued.
    pub(super) lock: Option<Id>,
    /// Nobody waits for it any more, though it may land.
    pub(super) late: bool,
}

/// Whose a slot is (`slots.rs`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) enum Owner {
    #[default]
    Free,
    Lock(Id),
    /// Of a lock that was released; its session may take it again on the strength of it, if it is the newest of these.
    Standing(Id, bool),
    Clearing,
}

/// What the master knows of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Slot {
    pub(super) owner: Owner,
    pub(super) durable: Option<Durable>,
    /// The last image that was issued.
    pub(super) mirror: Option<Record>,
    pub(super) dirty: bool,
    pub(super) behind: bool,
}

/// What a lock's owner has not been told yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Settling {
    Nothing,
    Grant(Duty),
    Release { answer: bool },
}

/// What a grant has to do with the value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Duty {
    None,
    Read,
    Written(u8),
}

/// A lock in the master's table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Lock {
    pub(super) id: Id,
    pub(super) node: u8,
    pub(super) incarnation: u8,
    pub(super) granted: Option<Mode>,
    pub(super) wanted: Option<Mode>,
    pub(super) standing: Standing,
    pub(super) position: u8,
    pub(super) slot: Option<u8>,
    pub(super) persistent: bool,
    pub(super) gone: bool,
    /// Its lifetime as an orphan is running.
    pub(super) expires: bool,
    pub(super) token: (u8, u8),
    pub(super) settling: Settling,
}

impl mxlock_dlm::table::Payload for Lock {}

/// An unlock that is acknowledged when its value is in a record that stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Wait {
    pub(super) slot: u8,
    pub(super) value: (u8, u8),
    pub(super) node: u8,
    pub(super) id: Id,
}

/// Locks on their way out (section 5); slots as bits.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Purge {
    pub(super) locks: Vec<Id>,
    pub(super) marking: u8,
    pub(super) clearing: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Phase {
    /// The view {recovering} stands, the table is read: the members are heard.
    Hearing,
    /// Step 5.
    Rewriting,
    /// The view {active} stands.
    Active,
}

/// What a member told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Report {
    pub(super) incarnation: u8,
    /// Its sessions, as bits.
    pub(super) sessions: u8,
    pub(super) locks: Vec<Owned>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Master {
    pub(super) reign: u8,
    pub(super) phase: Phase,
    pub(super) slots: [Slot; SLOTS],
    /// By id.
    pub(super) locks: Vec<Lock>,
    pub(super) value: Option<Value>,
    pub(super) values: u8,
    pub(super) next_position: u8,
    pub(super) tokens: u8,
    /// Incarnations that have reported.
    pub(super) reported: [Option<u8>; NODES],
    /// Incarnations that it sees in the sectors.
    pub(super) seen: [u8; NODES],
    /// Members that lived through and have not been heard yet, as bits.
    pub(super) awaited: u8,
    pub(super) records: Vec<(u8, Record)>,
    pub(super) reports: [Option<Report>; NODES],
    pub(super) late: [Option<Report>; NODES],
    pub(super) waits: Vec<Wait>,
    pub(super) purges: Vec<Purge>,
}

/// An operation that has no outcome yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Pending {
    pub(super) wanted: Mode,
    pub(super) value: Option<u8>,
    pub(super) noqueue: bool,
    /// The place that a master gave it; 0 for none.
    pub(super) position: u8,
}

/// A lock as its owner's daemon knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Owned {
    pub(super) id: Id,
    pub(super) granted: Option<Mode>,
    pub(super) pending: Option<Pending>,
    /// An unlock waits for its answer.
    pub(super) unlocking: Option<Option<u8>>,
    pub(super) persistent: bool,
    pub(super) gone: bool,
    pub(super) token: (u8, u8),
    pub(super) value: Option<Value>,
}

/// From a daemon to the master.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Up {
    Report(Report),
    Lock { id: Id, wanted: Mode, persistent: bool, noqueue: bool },
    Convert { id: Id, wanted: Mode, value: Option<u8> },
    Unlock { id: Id, value: Option<u8>, invalidate: bool, answer: bool },
    Adopt { id: Id, mode: Mode },
    Gone { session: u8 },
    Claim { session: u8, held: Option<Held> },
}

/// From the master to a daemon.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Down {
    Granted { id: Id, mode: Mode, token: (u8, u8), value: Option<Value>, read: bool },
    Queued { id: Id, position: u8 },
    Denied { id: Id },
    Unlocked { id: Id },
    Lost { id: Id },
    Claimed { session: u8, known: bool, told: Vec<Owned> },
}

/// A node: its daemon, and the two directions of its link to the master.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Node {
    pub(super) up: bool,
    pub(super) incarnation: u8,
    /// Its sector says `member`: this incarnation was admitted.
    pub(super) admitted: bool,
    pub(super) lease: bool,
    pub(super) reported: bool,
    /// The sessions that it knows, as bits.
    pub(super) sessions: u8,
    pub(super) locks: Vec<Owned>,
    pub(super) to_master: Vec<Up>,
    pub(super) from_master: Vec<Down>,
}

/// What a client was told that it holds, less what it has given up since.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Held {
    pub(super) seq: u8,
    pub(super) mode: Mode,
    pub(super) token: (u8, u8),
    pub(super) persistent: bool,
}

/// What a client has asked for and waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Asking {
    Nothing,
    Lock { seq: u8 },
    Convert { wanted: Mode, value: Option<u8> },
    Unlock { seq: u8, token: (u8, u8), value: Option<u8> },
}

/// A client: one session, one lock at a time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Client {
    /// Its process lives.
    pub(super) lives: bool,
    /// Its session goes on at the daemon that runs now.
    pub(super) attached: bool,
    pub(super) held: Option<Held>,
    pub(super) asking: Asking,
    /// The last number that it used.
    pub(super) seq: u8,
    /// New locks and conversions that it may still ask for.
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
    /// Record writes that end in an error.
    pub(super) errors: u8,
    /// Writes of a dead master that land after its successor has read the table (A2 fails).
    pub(super) late: u8,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct State {
    pub(super) disk: [Option<Record>; SLOTS],
    /// Sorted.
    pub(super) writes: Vec<Write>,
    /// The view: its epoch (one for each reign), its table epoch, its members as bits.
    pub(super) epoch: u8,
    pub(super) table_epoch: u8,
    pub(super) members: u8,
    pub(super) master: Option<Master>,
    pub(super) nodes: [Node; NODES],
    pub(super) clients: [Client; SESSIONS],
    pub(super) faults: Faults,
    /// The value that was written last, as an all-knowing observer sees it; `NO_VALUE` after the death of its writer.
    pub(super) written: u8,
    /// Values that were given out so far.
    pub(super) values: u8,
    /// The highest token that was given.
    pub(super) token: (u8, u8),
    /// PERSISTENT locks whose owners died, until they are adopted.
    pub(super) left: Vec<Id>,
    /// PERSISTENT locks whose release was acknowledged.
    pub(super) ended: Vec<Id>,
    /// A client was told a value as valid that is not the last one written.
    pub(super) stale_read: bool,
    /// A client was told a valid value by a master that did not see it written.
    pub(super) old_read: bool,
    /// A token was not above all earlier ones.
    pub(super) old_token: bool,
}
