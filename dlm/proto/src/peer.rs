//! Frames between daemons.
//!
//! Every frame carries both incarnations and the sender's view (section 6). Between two incarnations frames are
//! delivered once and in order: the core numbers them, keeps them until they are acknowledged and sends them again
//! after a reconnect, so that a lost TCP connection is no event for the lock protocol.

use crate::{
    client::{AdminReply, AdminRequest, Denial, LossReason, LvbValue},
    flags::LockFlags,
};
use mxlock_format::{ByteRange, Epoch, Incarnation, LockId, Mode, NodeId, Process, Resource, SessionId, Token, View};
use serde::{Deserialize, Serialize};

/// Lowest and highest peer protocol version that this build speaks.
pub const PEER_PROTOCOLS: (u16, u16) = (1, 1);

/// One frame on a peer link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerFrame {
    /// The sender.
    pub from: NodeId,
    /// The sender's incarnation.
    pub from_incarnation: Incarnation,
    /// The incarnation that the frame is for.
    pub to_incarnation: Incarnation,
    /// Number of the message; 0 when the frame only acknowledges.
    pub seq: u64,
    /// All messages up to this one have arrived.
    pub ack: u64,
    /// The newest view that the sender acts in.
    pub epoch: Epoch,
    /// What it says.
    pub message: Option<PeerMessage>,
}

/// What daemons say to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// To the master: admit me; or, when my lease was lost, confirm me in a view above `above`.
    Join {
        /// Only a view with a greater epoch will do.
        above: Epoch,
    },
    /// From the master, after a view was committed: your incarnation is a member of it.
    Admitted {
        /// The view.
        view: View,
    },
    /// Look at the disk: a view was committed or a node resigned.
    Look,
    /// Member to new master: a part of what I hold and wait for. All parts are one step (section 6).
    Report(Report),
    /// Member to master: operations on locks, in order.
    Operation(Operation),
    /// Member to master: the connection of a session is lost, or back, or its process has ended.
    Session {
        /// The session.
        session: SessionId,
        /// What became of it.
        presence: Presence,
    },
    /// Master to member: how an operation ended.
    Outcome(Outcome),
    /// Master to member: the request is queued, at this place.
    Queued {
        /// The lock.
        lock: LockId,
        /// The operation.
        op: u32,
        /// Its place in the order of requests.
        position: u64,
    },
    /// Master to member: somebody waits for this lock.
    Bast {
        /// The lock.
        lock: LockId,
        /// The mode that is wanted.
        wanted: Mode,
    },
    /// Member to master: sessions of mine whose locks I do not remember; which of these stand?
    Claim(ClaimQuestion),
    /// Master to member: these stand.
    Claimed(ClaimVerdict),
    /// Master to a member that was restarted: a session that lives as long as its process, without a connection, and so
    /// claims nothing itself (`mxlock lock`).
    Inherit {
        /// The session.
        session: SessionId,
        /// Its process, to be watched.
        process: Process,
        /// Its locks.
        locks: Vec<ReportedLock>,
    },
    /// Master to member: a lock ended without its owner's doing.
    Lost {
        /// The lock.
        lock: LockId,
        /// Why.
        reason: LossReason,
    },
    /// Member to master: an administrative request that only the master can carry out.
    Ask {
        /// Comes back with the reply.
        id: u64,
        /// Who asks.
        process: Process,
        /// What.
        request: AdminRequest,
    },
    /// Master to member.
    Reply {
        /// The question's id.
        id: u64,
        /// The reply, perhaps one of several parts.
        reply: AdminReply,
    },
}

/// What a member knows of a session's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Presence {
    /// Connected.
    Here,
    /// The connection is lost, the process lives: its locks are orphans.
    Away,
    /// The process has ended: what is left of it may be adopted.
    Gone,
}

/// A part of a member's report to a new master.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub struct Report {
    /// The view whose master is told.
    pub epoch: Epoch,
    /// Sessions that the member speaks for: what it does not report of them is not held.
    pub sessions: Vec<SessionId>,
    /// Locks held, and requests that wait at a place that an earlier master gave them. All others are sent again as
    /// operations afterwards.
    pub locks: Vec<ReportedLock>,
    /// Whether this part is the last one.
    pub last: bool,
}

/// A lock as its owner's side knows it.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub struct ReportedLock {
    /// The lock.
    pub lock: LockId,
    /// What is locked.
    pub resource: Resource,
    /// Which part.
    pub range: Option<ByteRange>,
    /// The mode held; `None` for a new request that waits.
    pub granted: Option<Mode>,
    /// The operation that is waiting: the mode wanted, its number and flags.
    pub pending: Option<Pending>,
    /// Token of the last grant.
    pub token: Token,
    /// CLOCK_REALTIME of the last grant, for people only.
    pub granted_at_ms: u64,
    /// The owner's process.
    pub process: Process,
    /// Transaction id, 0 for none.
    pub transaction: u64,
    /// Outlives its owner.
    pub persistent: bool,
    /// What became of its session.
    pub presence: Presence,
    /// How long it outlives its session.
    pub orphan_lifetime_ms: u32,
    /// The resource's value as this holder knows it.
    pub lvb: Option<mxlock_format::Lvb>,
    /// Its unlock was sent and not answered: it may be over already.
    pub releasing: bool,
    /// It was somebody else's orphan.
    pub adopted: bool,
}

/// A waiting operation.
#[derive(Clone, Copy, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub struct Pending {
    /// Number of the operation.
    pub op: u32,
    /// The mode wanted.
    pub wanted: Mode,
    /// Its flags.
    pub flags: LockFlags,
    /// Its place in the order of requests; 0 when the member was not told, and only the record can say.
    pub position: u64,
}

/// An operation on a lock.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub struct Operation {
    /// The lock.
    pub lock: LockId,
    /// Number of the operation: 0 for the request, then one per conversion, `u32::MAX` for unlock.
    pub op: u32,
    /// What to do.
    pub kind: OperationKind,
}

/// The kinds of operation.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub enum OperationKind {
    /// A new lock.
    Lock(Box<NewLock>),
    /// Another mode.
    Convert {
        /// The mode wanted.
        mode: Mode,
        /// Options.
        flags: LockFlags,
        /// A new value.
        lvb: Option<Vec<u8>>,
    },
    /// The end of the lock, in whatever state it is.
    Unlock {
        /// A new value.
        lvb: Option<Vec<u8>>,
        /// The value cannot be trusted any more.
        invalidate_lvb: bool,
        /// The member waits for an outcome (value to keep, or PERSISTENT).
        answer: bool,
    },
    /// The end of the waiting operation `op`.
    Cancel,
    /// Take over an orphan as this lock.
    Adopt(Box<NewLock>),
    /// The one who asked to adopt a PERSISTENT lock as this one will not hear of it: if it was adopted, it is an orphan again.
    Disown,
}

/// A new lock as its owner's daemon asks for it.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub struct NewLock {
    /// What to lock.
    pub resource: Resource,
    /// How.
    pub mode: Mode,
    /// Options.
    pub flags: LockFlags,
    /// Which part.
    pub range: Option<ByteRange>,
    /// The owner's process.
    pub process: Process,
    /// Transaction id, 0 for none.
    pub transaction: u64,
    /// How long it outlives its session.
    pub orphan_lifetime_ms: u32,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub struct Outcome {
    /// The lock.
    pub lock: LockId,
    /// The operation.
    pub op: u32,
    /// How it ended.
    pub result: OutcomeResult,
}

/// The ways in which an operation ends.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub enum OutcomeResult {
    /// Granted.
    Granted {
        /// The mode.
        mode: Mode,
        /// The token.
        token: Token,
        /// CLOCK_REALTIME of the grant.
        granted_at_ms: u64,
        /// The lock was demoted to NL while it waited.
        demoted: bool,
        /// The resource's value with its sequence, where the mode reads it.
        lvb: Option<mxlock_format::Lvb>,
    },
    /// Not granted.
    Denied(Denial),
    /// The lock is no more.
    Unlocked,
    /// A conversion was not granted, and its lock holds NL only: it was demoted while it waited (CONVDEADLK).
    DeniedDemoted(Denial),
}

impl From<&mxlock_format::Lvb> for LvbValue {
    fn from(lvb: &mxlock_format::Lvb) -> LvbValue {
        LvbValue { bytes: lvb.bytes.clone(), valid: lvb.valid }
    }
}

/// A session that was taken up again by a daemon that has lost its memory.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub struct ClaimQuestion {
    /// The session.
    pub session: SessionId,
    /// Its process, as the daemon sees it.
    pub process: Process,
    /// What it believes it holds.
    pub claims: Vec<crate::client::Claim>,
    /// Locks that it has asked for without hearing of them: where the record says that they were granted, they stand.
    pub asked: Vec<u64>,
}

/// Which claims stand; all other locks of the session are released.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub struct ClaimVerdict {
    /// The session.
    pub session: SessionId,
    /// Locks that stand, as the master knows them.
    pub standing: Vec<ReportedLock>,
    /// Whether the session is known at all to belong to this process.
    pub known: bool,
}
