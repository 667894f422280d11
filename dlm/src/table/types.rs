//! What goes into the lock table and what comes out of it.

use super::LockFlags;
use mxlock_format::{ByteRange, LockId, Lvb, MAX_LVB_BYTES, Mode, Resource, SessionId};

/// What the table needs to know of the caller's part of a lock.
pub trait Payload {
    /// The transaction that the lock belongs to; 0: none.
    fn transaction(&self) -> u64 {
        0
    }
}

impl Payload for () {}

/// Who waits and who is waited for (section 7, "Deadlock"): the transaction where one was given, else the session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Owner {
    /// A transaction, whichever sessions and nodes its locks are of.
    Transaction(u64),
    /// A session.
    Session(SessionId),
}

/// A new lock that somebody wants.
#[derive(Clone, Debug)]
pub struct Request<P> {
    /// The lock's identity; no other lock in the table may have it.
    pub lock: LockId,
    /// What is to be locked.
    pub resource: Resource,
    /// The mode wanted.
    pub mode: Mode,
    /// How to treat the request.
    pub flags: LockFlags,
    /// Which bytes of the resource; `ByteRange::ALL` for a lock without a range.
    pub range: ByteRange,
    /// The place in the queue: queues are sorted by it. The caller hands out growing numbers, no two the same, and passes an
    /// old number again for a request that is sent again after a failover (I8). HEADQUE takes numbers in front of those:
    /// start high (`1 << 32`) and go in steps (of 16), so that there are some.
    pub position: u64,
    /// Whatever the caller wants to keep with the lock.
    pub payload: P,
}

/// A lock as a record or its owner reports it, for [`Table::restore`](super::Table::restore).
#[derive(Clone, Debug)]
pub struct Restored<P> {
    /// The lock's identity.
    pub lock: LockId,
    /// What is locked.
    pub resource: Resource,
    /// The mode held; `None` for a request that still waits for its first grant.
    pub granted: Option<Mode>,
    /// The mode asked for, while converting or waiting.
    pub wanted: Option<Mode>,
    /// How sure this is.
    pub standing: Standing,
    /// The place in the queue that the lock had; matters only with `wanted`.
    pub position: u64,
    /// The bytes of the resource.
    pub range: ByteRange,
    /// The flags of the last request or conversion.
    pub flags: LockFlags,
    /// The value block in the record. The newest one of a resource wins.
    pub lvb: Option<Lvb>,
    /// Whatever the caller wants to keep with the lock.
    pub payload: P,
}

/// How sure the table is that the lock's owner means it (DESIGN sections 1 and 6.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// The owner asked for it, or has spoken since the failover.
    Confirmed,
    /// Its session is gone and its lifetime has not run out. Holds like a confirmed lock.
    Orphan,
    /// A record whose owner cannot be asked. It blocks as a holder of its granted and of its wanted mode, may conflict
    /// with any other lock, is granted nothing, and is told nothing.
    Possible,
}

/// The queue a lock is in, as its owner sees it. A possible holder is shown by its record, though it only blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// Holds its mode and wants no other.
    Granted,
    /// Holds a mode and waits for another.
    Converting,
    /// Holds nothing yet.
    Waiting,
}

/// One lock, as it is now.
#[derive(Clone, Copy, Debug)]
pub struct LockView<'a, P> {
    /// The lock's identity.
    pub lock: LockId,
    /// What is locked.
    pub resource: &'a Resource,
    /// The mode held.
    pub granted: Option<Mode>,
    /// The mode waited for.
    pub wanted: Option<Mode>,
    /// How sure the table is of it.
    pub standing: Standing,
    /// The place in the queue; what a failover has to bring back. Can be smaller than the one asked for (HEADQUE).
    pub position: u64,
    /// The bytes of the resource.
    pub range: ByteRange,
    /// The flags of the last request or conversion.
    pub flags: LockFlags,
    /// Whether the granted mode was given up for the conversion that is waiting (CONVDEADLK).
    pub demoted: bool,
    /// Whether it was told of somebody that it is in the way of, in the mode that it holds now (BAST).
    pub told: bool,
    /// The caller's own.
    pub payload: &'a P,
}

impl<P> LockView<'_, P> {
    /// The queue that the owner sees the lock in.
    pub fn phase(&self) -> Phase {
        match (self.granted, self.wanted) {
            (Some(_), None) => Phase::Granted,
            (Some(_), Some(_)) => Phase::Converting,
            (None, _) => Phase::Waiting,
        }
    }
}

/// What to do with the resource's value block when a lock leaves, or converts down from, PW or EX. Ignored where the
/// lock is or was in a weaker mode, and for a conversion that reads the block.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum LvbUpdate {
    /// Leave it as it is (the kernel's unlock without VALBLK).
    #[default]
    Keep,
    /// Store these 1..=64 bytes, valid.
    Write(Vec<u8>),
    /// Say that it cannot be trusted: the holder died or gave no value (IVVALBLK).
    Invalidate,
}

impl LvbUpdate {
    pub(super) fn check(&self) -> Result<(), TableError> {
        match self {
            LvbUpdate::Write(bytes) if bytes.is_empty() || bytes.len() > MAX_LVB_BYTES => {
                Err(TableError::LvbLength(bytes.len()))
            }
            _ => Ok(()),
        }
    }
}

/// What an operation did with the resource's value block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LvbTransfer {
    /// Nothing.
    None,
    /// The lock may read it: pass on [`Table::lvb`](super::Table::lvb), as it is after the operation.
    Read,
    /// It, or its validity, was changed and has a new sequence.
    Written,
}

/// A mode was given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Grant {
    /// To whom.
    pub lock: LockId,
    /// Which mode.
    pub mode: Mode,
    /// The mode held before; `None` for a new lock.
    pub was: Option<Mode>,
    /// Whether it is the alternative mode (ALTPR, ALTCW) and not the one asked for.
    pub alternative: bool,
    /// Whether the lock gave up its granted mode on the way (CONVDEADLK).
    pub demoted: bool,
    /// What happened to the value block.
    pub lvb: LvbTransfer,
}

/// The immediate answer to a request or conversion.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// It was granted.
    Granted(Grant),
    /// It waits; an [`Effect`] will say how it ends.
    Queued {
        /// The place it was given.
        position: u64,
        /// Whether the lock now holds NL only (CONVDEADLK).
        demoted: bool,
    },
    /// It was refused. A new lock is not in the table; a converted one is as it was.
    Denied(DenyReason),
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DenyReason {
    /// It would have had to wait and said NOQUEUE (EAGAIN).
    WouldQueue,
    /// The conversion and one that waits already would wait for each other (EDEADLK).
    Deadlock,
}

/// Something that an operation did to another lock (or to the same one, later). Effects are pushed in the order in which
/// they must take effect; the operation's own outcome comes before all of them, except that of a demoted conversion,
/// whose `Demoted` comes first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// A queued request or conversion was granted.
    Granted(Grant),
    /// A converting lock gave up its granted mode and holds NL now (CONVDEADLK). Its owner must not rely on the old mode
    /// any more before anything that follows is granted.
    Demoted {
        /// The converting lock.
        lock: LockId,
    },
    /// A queued conversion ended without a grant; the lock keeps its granted mode. Only after a failover.
    Denied {
        /// The lock that was converting.
        lock: LockId,
        /// Why.
        reason: DenyReason,
    },
    /// A blocking notice (BAST): somebody waits for `wanted`, and `holder` is in the way.
    Bast {
        /// The lock to be told.
        holder: LockId,
        /// The mode that is wanted.
        wanted: Mode,
    },
}

/// A lock that is no longer in the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removed<P> {
    /// What it locked.
    pub resource: Resource,
    /// The mode it held.
    pub granted: Option<Mode>,
    /// The mode it waited for.
    pub wanted: Option<Mode>,
    /// Its bytes of the resource.
    pub range: ByteRange,
    /// How sure the table was of it.
    pub standing: Standing,
    /// Whether the value block was changed.
    pub lvb: LvbTransfer,
    /// The caller's own.
    pub payload: P,
}

/// The end of a cancellation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cancelled<P> {
    /// The waiting request is gone.
    Removed(Removed<P>),
    /// The conversion is gone; the lock holds `mode` (NL if it had been demoted).
    Reverted {
        /// The mode that is still held.
        mode: Mode,
    },
    /// The lock waits for nothing: the grant came first.
    NotWaiting,
}

/// Why a lock has to wait for another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Blocking {
    /// The other holds (or possibly holds) a mode that conflicts.
    Holds,
    /// The other is ahead in the queues, and the modes wanted conflict.
    Ahead,
    /// The other is ahead in the queues, and the modes wanted are compatible: it has only to be served.
    ServedFirst,
}

/// An operation that makes no sense. The table is unchanged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// No such lock.
    #[error("lock {0} is not in the lock table: it was released, refused or never requested")]
    Unknown(LockId),
    /// The id is taken.
    #[error("lock {0} is in the lock table already: use a new sequence number for a new request")]
    Duplicate(LockId),
    /// A conversion of a lock that still waits for something (EBUSY).
    #[error("lock {0} still waits for its last request: cancel it or wait before converting")]
    Busy(LockId),
    /// A conversion of a possible holder.
    #[error("lock {0} is only a possible holder: its session must confirm it before it can be converted")]
    NotConfirmed(LockId),
    /// Flags that exclude each other (EINVAL), with the kernel DLM's rules.
    #[error("flags {flags:?} are not allowed here: {rule}")]
    Flags {
        /// What was asked for.
        flags: LockFlags,
        /// The rule that was broken.
        rule: &'static str,
    },
    /// A value block of a wrong size.
    #[error("a lock value block of {0} bytes was given: 1 to {MAX_LVB_BYTES} are allowed")]
    LvbLength(usize),
    /// A restored lock with neither a granted nor a wanted mode.
    #[error("lock {0} was reported with no mode at all: a lock holds or wants one")]
    NoMode(LockId),
    /// More locks than indices.
    #[error("the lock table has no room for another lock: {} are in use", u32::MAX)]
    Full,
}
