//! Frames between a client and its local daemon (unix socket).
//!
//! A session is one conversation. The client numbers its locks itself (`seq`, never used twice in a session) and
//! numbers each operation on a lock (`op`), so that every request can be sent again after a reconnect without harm.
//! Every operation ends in exactly one [`Answer`] (I7). Events may come at any time.

use crate::{flags::LockFlags, report, why::Why};
use mxlock_format::{ByteRange, Mode, NodeId, Process, Resource, SessionId, Token};
use serde::{Deserialize, Serialize};

/// Version of the client protocol that this build speaks.
pub const CLIENT_PROTOCOL: u16 = 1;

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// First frame of every connection.
    Hello(Hello),
    /// A new lock.
    Lock(LockRequest),
    /// A change of mode.
    Convert(ConvertRequest),
    /// The end of a lock, in whatever state it is: granted, converting or waiting.
    Unlock(UnlockRequest),
    /// Ends a waiting request (`Denied(Cancelled)`) or conversion (the lock keeps its old mode).
    Cancel {
        /// The lock whose pending operation ends.
        seq: u64,
    },
    /// Take over an orphan: one with this resource and mode, owned by this uid (or any, for uid 0).
    Adopt(AdoptRequest),
    /// Ends the session: every lock that is not PERSISTENT is released.
    Bye,
    /// An administrative question or order.
    Admin {
        /// Comes back with the reply.
        id: u64,
        /// What is asked.
        request: AdminRequest,
    },
}

/// Opens a session or takes one up again.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub struct Hello {
    /// [`CLIENT_PROTOCOL`] of the client.
    pub version: u16,
    /// After a lost connection or a restart of the daemon: the session to take up. It must be the same process.
    pub resume: Option<SessionId>,
    /// With `resume`: the locks that the client believes it holds, so that a daemon that has lost its
    /// memory can claim them again. Operations that were not answered are sent again afterwards.
    pub claims: Vec<Claim>,
    /// With `resume`: the client's numbers of locks that it has asked for, or asked to adopt, and has heard nothing of. A daemon
    /// that has lost its memory may have been granted them.
    pub asked: Vec<u64>,
    /// The process that the locks are for, when it is not the connecting one (`mxlock lock --pid`). It must belong to
    /// the same user, or the caller be uid 0.
    pub on_behalf_of: Option<u32>,
}

impl Hello {
    /// The greeting that opens a new session for the connecting process.
    pub fn first() -> Hello {
        Hello { version: CLIENT_PROTOCOL, resume: None, claims: vec![], asked: vec![], on_behalf_of: None }
    }
}

/// A lock that a client believes it holds.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The client's number for the lock.
    pub seq: u64,
    /// What is locked.
    pub resource: Resource,
    /// The part of it.
    pub range: Option<ByteRange>,
    /// The mode that was granted last, or what is left of it in any case: while it is being converted, what both modes
    /// permit; while it is being unlocked, NL.
    pub mode: Mode,
    /// The token of the grant.
    pub token: Token,
}

/// Asks for a new lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockRequest {
    /// The client's number for the lock.
    pub seq: u64,
    /// What to lock.
    pub resource: Resource,
    /// How.
    pub mode: Mode,
    /// Options.
    pub flags: LockFlags,
    /// Which part; `None` is all of it.
    pub range: Option<ByteRange>,
    /// Give up after this time. `None` waits for ever, `Some(0)` behaves as NOQUEUE.
    pub timeout_ms: Option<u64>,
    /// Transaction id, 0 for none.
    pub transaction: u64,
    /// How long the lock outlives its process; `None` is the default (released at once when the process is gone).
    pub orphan_lifetime_ms: Option<u32>,
}

/// Asks for another mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvertRequest {
    /// Which lock.
    pub seq: u64,
    /// Number of this operation: 1 for the first after the grant, and so on.
    pub op: u32,
    /// The new mode.
    pub mode: Mode,
    /// Options.
    pub flags: LockFlags,
    /// Give up after this time.
    pub timeout_ms: Option<u64>,
    /// On a down-conversion from PW or EX: the new value, 1..=64 bytes.
    pub lvb: Option<Vec<u8>>,
}

/// Ends a lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnlockRequest {
    /// Which lock.
    pub seq: u64,
    /// From PW or EX: the new value, 1..=64 bytes.
    pub lvb: Option<Vec<u8>>,
    /// Say that the value can no longer be trusted.
    pub invalidate_lvb: bool,
}

/// Takes over an orphan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdoptRequest {
    /// The client's own number for the lock from now on.
    pub seq: u64,
    /// What is locked.
    pub resource: Resource,
    /// The part of it that the orphan must have; `None` is all of it.
    pub range: Option<ByteRange>,
    /// The mode that the orphan must hold; where there is one in another mode only, the answer is `Denied(Busy)`.
    pub mode: Mode,
    /// Whether it outlives its new owner as well.
    pub persistent: bool,
}

/// What a daemon sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// Answers `Hello`. The descriptor of the lease page travels with it.
    Welcome(Welcome),
    /// `Hello` was refused; the connection ends.
    Refused(Refusal),
    /// The one end of an operation.
    Answer {
        /// Which lock.
        seq: u64,
        /// Which operation: 0 for the request itself, the convert's number, or `u32::MAX` for unlock.
        op: u32,
        /// How it ended.
        answer: Answer,
    },
    /// Somebody waits for a lock that this one blocks.
    Bast {
        /// Which lock.
        seq: u64,
        /// The mode that is wanted.
        wanted: Mode,
    },
    /// A lock of this session has ended without its doing (administrator, unclaimed).
    Lost {
        /// Which lock.
        seq: u64,
        /// Why.
        reason: LossReason,
    },
    /// The node's lease is lost: no lock of this session may be relied on until `LeaseRegained`.
    LeaseLost,
    /// The node was confirmed: the session's locks stand as before.
    LeaseRegained,
    /// Answers `Admin`.
    Admin {
        /// The question's id.
        id: u64,
        /// The reply.
        reply: AdminReply,
    },
}

/// Answers `Hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The session. It stays valid over reconnects of the same process.
    pub session: SessionId,
    /// This node.
    pub node: NodeId,
    /// Claims that did not stand: these locks are lost.
    pub lost: Vec<u64>,
    /// The lockspace's grace time: what depends on a lost lock must have ended by deadline + grace.
    pub grace_ms: u32,
    /// The daemon's version text.
    pub daemon: String,
}

/// Why `Hello` was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Refusal {
    Version { daemon: u16 },
    UnknownSession,
    NotYourSession,
    NoSuchProcess,
    Permission,
    TooManySessions,
    ShuttingDown,
    BadFrame,
}

/// The one end of an operation (I7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// The lock is held in `mode`.
    Granted(Grant),
    /// A conversion that would have deadlocked was granted after its lock had been demoted to NL in between.
    GrantedDemoted(Grant),
    /// Not granted; a lock that was held before (conversion) is held in its old mode.
    Denied(Denial),
    /// The lock is no more.
    Unlocked,
    /// A conversion with CONVDEADLK was not granted, and the lock has been demoted to NL on the way, or may have been: it
    /// holds NL.
    DeniedDemoted(Denial),
}

impl Answer {
    /// Whether the lock is held.
    pub fn is_grant(&self) -> bool {
        matches!(self, Answer::Granted(_) | Answer::GrantedDemoted(_))
    }
}

/// A grant. It counts only while `CLOCK_BOOTTIME < valid_until_ns`, at the moment it is acted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// The granted mode.
    pub mode: Mode,
    /// The fencing token.
    pub token: Token,
    /// The resource's value block, where it has one and the mode reads it.
    pub lvb: Option<LvbValue>,
    /// End of the node's lease as known at the grant; the lease page has the current one.
    pub valid_until_ns: u64,
}

/// A value block as a client sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LvbValue {
    /// 1..=64 bytes.
    pub bytes: Vec<u8>,
    /// False after a holder of PW or EX died or gave no value.
    pub valid: bool,
}

/// Why a request was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Denial {
    /// It conflicts, and the request does not wait.
    Busy,
    /// Its time ran out.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// It would deadlock.
    Deadlock,
    /// No free slot in the lockstate for its record.
    TableFull,
    /// The node has lost its lease.
    LeaseLost,
    /// No master has reached this node for the dead time.
    Isolated,
    /// The record could not be written.
    Io,
    /// The request contradicts itself (flags, mode, value length).
    Invalid,
    /// No such lock in this session, or no such orphan.
    NotFound,
    /// The lock is busy with another operation.
    InProgress,
    /// A limit of the daemon (locks per session, locks per node).
    Limit,
    /// The damaged lockstate may hold a conflicting lock (section 6).
    Damaged,
    /// Not allowed for this user.
    Permission,
    /// The session has ended.
    SessionOver,
    /// The daemon is going down.
    ShuttingDown,
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Denial::Busy => "it is held in a conflicting mode",
            Denial::TimedOut => "the time to wait has run out",
            Denial::Cancelled => "the request was cancelled",
            Denial::Deadlock => "it would deadlock",
            Denial::TableFull => "the lockstate has no free slot for its record",
            Denial::LeaseLost => "this node has lost its lease",
            Denial::Isolated => "this node has had no connection to the master for the dead time",
            Denial::Io => "the record could not be written to the lockstate",
            Denial::Invalid => "the request contradicts itself",
            Denial::NotFound => "there is no such lock",
            Denial::InProgress => "another operation on this lock is under way",
            Denial::Limit => "a limit of the daemon is reached",
            Denial::Damaged => "a damaged record may hold a conflicting lock",
            Denial::Permission => "the user may not do this",
            Denial::SessionOver => "the session has ended",
            Denial::ShuttingDown => "the daemon is going down",
        })
    }
}

/// Why a held lock was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LossReason {
    /// The node was excluded while it could not renew its lease.
    Excluded,
    /// It was not claimed within its orphan lifetime.
    Expired,
    /// Somebody adopted it while its session was away.
    Adopted,
    /// The node leaves the cluster.
    Left,
}

/// An administrative question or order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AdminRequest {
    /// The node, its lockspace, the view.
    Status,
    /// The slots in use.
    Nodes,
    /// Locks: all, or those on one resource.
    Locks {
        /// Only on this resource.
        resource: Option<Resource>,
    },
    /// Locks of a session started on behalf of `pid` by the calling user (`mxlock unlock`).
    UnlockFor {
        /// The process that the lock is for.
        pid: u32,
        /// What is locked.
        resource: Resource,
    },
    /// Move mastership, to `to` if given.
    Handover {
        /// The preferred successor.
        to: Option<NodeId>,
    },
    /// Leave the cluster for good.
    Leave {
        /// Release this node's locks instead of refusing.
        release: bool,
    },
    /// The operator vouches that `node` is off.
    FenceAck {
        /// The node.
        node: NodeId,
    },
    /// Waits until the node grants locks.
    WaitReady {
        /// Give up after this time.
        timeout_ms: Option<u64>,
    },
    /// The daemon's counters, for `mxlock-bench` (CPU time is read from /proc).
    Counters,
    /// Who waits for whom, from this resource on.
    Why {
        /// Where to begin.
        resource: Resource,
    },
    /// The commands of processes on a node's machine.
    Commands {
        /// The node.
        node: NodeId,
        /// Which processes; at most 256.
        processes: Vec<Process>,
    },
}

/// Answers an [`AdminRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AdminReply {
    /// Done.
    Ok,
    /// The state of the node.
    Status(Box<report::Status>),
    /// The slots in use.
    Nodes(Vec<report::Node>),
    /// Locks, in parts; `last` closes the list.
    Locks {
        /// This part.
        locks: Vec<report::Lock>,
        /// Whether it is the last one.
        last: bool,
    },
    /// Counters.
    Counters(report::Counters),
    /// It cannot be done.
    Failed {
        /// What kind of failure, for the exit code.
        kind: FailureKind,
        /// One sentence: what, where, what to do.
        message: String,
    },
    /// Who waits for whom.
    Why(Box<Why>),
    /// Commands, in the order of the question; `None` for a process that is gone.
    Commands(Vec<Option<String>>),
}

/// Kinds of administrative failure; each maps to one exit code of INTERFACE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum FailureKind {
    /// 1
    NotFound,
    /// 64
    Usage,
    /// 69
    Unreachable,
    /// 75
    NotNow,
    /// 77
    Permission,
}
