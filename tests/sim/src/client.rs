//! A client process as the world sees it: what it was told, what it believes, what it asks.

use crate::clock::Time;
use crate::dice::Dice;
use mxlock_dlm::io::ConnId;
use mxlock_format::{ByteRange, Incarnation, LockId, Mode, Process, SessionId, Token};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{Claim, Request};
use std::collections::{BTreeMap, BTreeSet};

/// `op` of an unlock.
pub const UNLOCK: u32 = u32::MAX;

/// A client process with at most one session.
pub struct Client {
    /// Its host.
    pub host: usize,
    /// What the kernel says of it.
    pub process: Process,
    /// Whether it runs.
    pub alive: bool,
    /// Its connection.
    pub conn: Option<ConnId>,
    /// Whether `Welcome` has come on it.
    pub welcomed: bool,
    /// The daemon run whose lease page it maps.
    pub page: Option<u32>,
    /// Its session.
    pub session: Option<SessionId>,
    /// It heard `LeaseLost` and not yet `LeaseRegained`.
    pub lease_lost: bool,
    /// Its locks by number.
    pub locks: BTreeMap<u64, Held>,
    /// The next lock's number.
    pub next_seq: u64,
    /// Locks that it likes to have at once.
    pub appetite: usize,
    /// Operations that were sent again and answered: the answer may come once more, since the two crossed.
    pub echoes: BTreeSet<(u64, u32)>,
    /// Its session was taken up by a daemon that knew it only from records: a request that was over may come back from
    /// its record, and is let go of when it is granted.
    pub from_records: bool,
    /// When it last lost its connection.
    pub away_since: Option<Time>,
    /// Its own randomness.
    pub dice: Dice,
}

/// A lock of a client.
#[derive(Debug)]
pub struct Held {
    /// Index of the resource.
    pub resource: usize,
    /// The part of it.
    pub range: Option<ByteRange>,
    /// The transaction that it belongs to; 0 for none.
    pub transaction: u64,
    /// The mode last told as granted.
    pub told: Option<Mode>,
    /// The mode that the client acts on.
    pub believed: Option<Mode>,
    /// What the lease page named when the grant came, or was confirmed.
    pub incarnation: Incarnation,
    /// Token of the last grant.
    pub token: Token,
    /// When the last grant was asked for.
    pub asked_at: Time,
    /// When the last grant came.
    pub told_at: Time,
    /// The client means to keep it until then.
    pub keep_until: Time,
    /// Operations without an answer.
    pub ops: BTreeMap<u32, Op>,
    /// Number of the next conversion.
    pub next_op: u32,
    /// Unlock was sent.
    pub unlocking: bool,
    /// Cancel was sent for the operation under way.
    pub cancelled: bool,
    /// It outlives its process and its node.
    pub persistent: bool,
    /// How long it outlives its process otherwise, milliseconds.
    pub lifetime_ms: Option<u32>,
}

/// An operation without an answer.
#[derive(Debug)]
pub struct Op {
    /// As it was sent.
    pub request: Request,
    /// When it was first sent.
    pub sent: Time,
    /// The greatest token told to anybody before.
    pub token_floor: Token,
    /// Whether section 7's plain order holds for it.
    pub plain: bool,
    /// Plain requests that were queued on the resource before it was sent.
    pub behind: Vec<LockId>,
    /// The value that it writes.
    pub value: Option<u64>,
    /// It says that values up to this one are not to be trusted.
    pub invalidates: Option<u64>,
    /// Sent again after a lost connection or daemon.
    pub resent: bool,
    /// The smallest token granted to a plain request that came later.
    pub overtaken_by: Option<Token>,
    /// The lock was claimed without what this conversion may have given up (CONVDEADLK).
    pub demoted: bool,
}

impl Op {
    /// What is left in any case, while this is under way, of a lock that was told in `mode`.
    pub fn leaves(&self, mode: Mode) -> Mode {
        match &self.request {
            Request::Convert(convert) => left_by(mode, convert.mode, convert.flags),
            Request::Unlock(_) => Mode::NL,
            _ => mode,
        }
    }

    /// Whether all of `mode` may be given up for it, though it asks for more (CONVDEADLK).
    pub fn may_demote(&self, mode: Mode) -> bool {
        matches!(&self.request, Request::Convert(convert) if may_demote(mode, convert.mode, convert.flags))
    }
}

impl Held {
    /// A lock that was only asked for.
    pub fn new(resource: usize, range: Option<ByteRange>, keep_until: Time) -> Held {
        Held {
            resource,
            range,
            transaction: 0,
            told: None,
            believed: None,
            incarnation: Incarnation::default(),
            token: Token(0),
            asked_at: 0,
            told_at: Time::MAX,
            keep_until,
            ops: BTreeMap::new(),
            next_op: 1,
            unlocking: false,
            cancelled: false,
            persistent: false,
            lifetime_ms: None,
        }
    }

    /// What a client that reconnects says it has: what is under way may be settled already.
    pub fn claimed(&self) -> Option<Mode> {
        Some(self.ops.values().fold(self.told?, |mode, op| op.leaves(mode)))
    }

    /// Whether it is PERSISTENT, or may be when what is under way is done.
    pub fn may_outlive(&self) -> bool {
        let asked = |op: &Op| match &op.request {
            Request::Convert(convert) => convert.flags.contains(LockFlags::PERSISTENT),
            _ => false,
        };
        self.persistent || self.ops.values().any(asked)
    }

    /// The bytes it covers.
    pub fn span(&self) -> ByteRange {
        self.range.unwrap_or(ByteRange::ALL)
    }
}

impl Client {
    /// A process that has no connection yet.
    pub fn new(host: usize, process: Process, appetite: usize, dice: Dice) -> Client {
        Client {
            host,
            process,
            alive: true,
            conn: None,
            welcomed: false,
            page: None,
            session: None,
            lease_lost: false,
            locks: BTreeMap::new(),
            next_seq: 1,
            appetite,
            echoes: BTreeSet::new(),
            from_records: false,
            away_since: None,
            dice,
        }
    }

    /// The locks to claim when a session is taken up again, as the client library does: what is left in any case of the
    /// mode that was told, whatever became of the operations under way.
    pub fn claims(&self, resources: &[mxlock_format::Resource]) -> Vec<Claim> {
        self.locks
            .iter()
            .filter_map(|(&seq, held)| {
                let mode = held.claimed()?;
                Some(Claim {
                    seq,
                    resource: resources[held.resource].clone(),
                    range: held.range,
                    mode,
                    token: held.token,
                })
            })
            .collect()
    }

    /// The locks that it has asked for without hearing of them.
    pub fn asked(&self) -> Vec<u64> {
        let unheard = |held: &Held| held.told.is_none() && held.ops.contains_key(&0);
        self.locks.iter().filter(|(_, held)| unheard(held)).map(|(&seq, _)| seq).collect()
    }

    /// A lock's identity.
    pub fn lock_id(&self, seq: u64) -> Option<LockId> {
        self.session.map(|session| LockId { session, seq })
    }
}

/// What a client may still do while a conversion is under way: the server may have settled it already.
pub fn meet(old: Mode, new: Mode) -> Mode {
    if old.covers(new) {
        new
    } else if new.covers(old) {
        old
    } else {
        Mode::CR
    }
}

/// Whether a conversion may be granted, or denied, after the old mode was given to others (CONVDEADLK).
pub fn may_demote(old: Mode, new: Mode, flags: LockFlags) -> bool {
    flags.contains(LockFlags::CONVDEADLK) && old != Mode::NL && !old.covers(new)
}

/// What a client may still do while a conversion with these flags is under way.
pub fn left_by(old: Mode, new: Mode, flags: LockFlags) -> Mode {
    if may_demote(old, new, flags) { Mode::NL } else { meet(old, new) }
}

/// Whether section 7's order holds for a new request with these flags.
pub fn is_plain(flags: LockFlags, range: Option<ByteRange>) -> bool {
    flags == LockFlags::NONE && range.is_none()
}
