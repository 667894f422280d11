//! Byte-range locks with the rules of fcntl(2), for programs that hand on the range locks of others, as file servers do.

mod plan;
mod set;
#[cfg(test)]
mod tests;

use crate::client::Client;
use crate::error::ClientError;
use crate::lock::Lock;
use crate::options::LockSpec;
use mxlock_format::{ByteRange, LockId, Mode, NodeId, Process, Resource, Token};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{AdminReply, AdminRequest, Denial};
use set::{How, Locks, Set};
use std::time::Duration;

/// How a range is locked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RangeMode {
    /// With others (F_RDLCK): PR.
    Shared,
    /// Alone (F_WRLCK): EX.
    Exclusive,
}

impl RangeMode {
    /// The mode of the lock behind it.
    pub const fn mode(self) -> Mode {
        match self {
            RangeMode::Shared => Mode::PR,
            RangeMode::Exclusive => Mode::EX,
        }
    }
}

/// A lock that is in the way (F_GETLK).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeConflict {
    /// The bytes that it covers.
    pub range: ByteRange,
    /// Its mode; also another than PR and EX, if its owner is another kind of program.
    pub mode: Mode,
    /// The node of its owner.
    pub node: NodeId,
    /// Its owner's process on that node.
    pub process: Process,
}

/// The byte ranges of one resource that one owner has locked, with the rules of fcntl(2): a new lock replaces what it
/// overlaps of the owner's own, divides it, or joins it; a part can be unlocked or get another mode; and a byte that stays
/// locked is so at every moment. After an error everything is as it was before.
///
/// It differs from fcntl(2) where that is known to hurt: locks end with this value and not with any close of the file, and a
/// request that conflicts waits its turn, so that a stream of readers does not keep a writer out for ever. Only one that
/// covers bytes that the owner holds already does not wait for those ahead of it, since they may wait for it.
///
/// There should be one value for each owner and resource: two of the same client with the same `owner` would not exclude
/// each other.
///
/// ```no_run
/// use mxlock_client::{ByteRange, Client, ConnectOptions, LockSpec, PosixRanges, RangeMode};
///
/// let client = Client::connect(ConnectOptions::default())?;
/// let resource = LockSpec::name("file-17")?.resource;
/// let mut ranges = PosixRanges::new(&client, resource, 4711);
/// ranges.lock(ByteRange::new(0, 99).unwrap(), RangeMode::Exclusive)?;
/// ranges.lock(ByteRange::new(50, 59).unwrap(), RangeMode::Shared)?;
/// ranges.unlock(ByteRange::new(90, 99).unwrap())?;
/// assert_eq!(ranges.held().len(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PosixRanges<'c> {
    locks: ClientLocks<'c>,
    set: Set<Lock<'c>>,
}

#[derive(Debug)]
struct ClientLocks<'c> {
    client: &'c Client,
    resource: Resource,
    owner: u64,
}

impl<'c> Locks for ClientLocks<'c> {
    type Held = Lock<'c>;
    type Error = ClientError;

    fn acquire(&self, range: ByteRange, mode: RangeMode, how: How) -> Result<Lock<'c>, ClientError> {
        let order = if how.out_of_turn { LockFlags::NOORDER } else { LockFlags::NONE };
        let at_once = if how.wait == Some(Duration::ZERO) { LockFlags::NOQUEUE } else { LockFlags::NONE };
        self.client.lock(&LockSpec {
            mode: mode.mode(),
            flags: LockFlags::OWN | order | at_once,
            range: Some(range),
            timeout: how.wait,
            transaction: self.transaction(),
            ..LockSpec::new(self.resource.clone())
        })
    }

    fn release(&self, lock: Lock<'c>) {
        // Where the answer is lost with the connection, the client asks again by itself, or the lock ends with the session.
        let _ = lock.unlock(None);
    }

    fn would_wait(error: &ClientError) -> bool {
        matches!(error, ClientError::Denied { denial: Denial::Busy, .. })
    }
}

impl ClientLocks<'_> {
    /// The owner, as the whole lockspace knows it: other clients have other owners of the same number. Sessions are random
    /// numbers of 64 bits, and the factor is odd, so that no two owners of one session meet.
    fn transaction(&self) -> u64 {
        let session = self.client.session_id().map_or(0, |session| session.0);
        match self.owner {
            0 => 0,
            owner => (session ^ owner.wrapping_mul(0x9E37_79B9_7F4A_7C15)).max(1),
        }
    }
}

impl<'c> PosixRanges<'c> {
    /// Nothing locked yet. `owner` stands for whoever the locks are for, by a number that is the client's own: owners exclude
    /// each other also within one client, and deadlocks are found between them. 0 is the client itself.
    pub fn new(client: &'c Client, resource: Resource, owner: u64) -> PosixRanges<'c> {
        PosixRanges { locks: ClientLocks { client, resource, owner }, set: Set::new() }
    }

    /// Locks `range` and waits for it (F_SETLKW).
    ///
    /// # Errors
    /// As [`Client::lock`]; among them `Denied(Deadlock)`. [`ClientError::Lost`] when a range was lost before.
    pub fn lock(&mut self, range: ByteRange, mode: RangeMode) -> Result<(), ClientError> {
        self.change(range, Some(mode), None)
    }

    /// Locks `range` if that is possible without waiting (F_SETLK).
    ///
    /// # Errors
    /// As [`PosixRanges::lock`]; `Denied(Busy)` when it is not.
    pub fn try_lock(&mut self, range: ByteRange, mode: RangeMode) -> Result<(), ClientError> {
        self.change(range, Some(mode), Some(Duration::ZERO))
    }

    /// Locks `range`, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`PosixRanges::lock`]; `Denied(TimedOut)`.
    pub fn lock_timeout(&mut self, range: ByteRange, mode: RangeMode, timeout: Duration) -> Result<(), ClientError> {
        self.change(range, Some(mode), Some(timeout))
    }

    /// Unlocks `range`, or what is locked of it (F_UNLCK).
    ///
    /// # Errors
    /// When what remains of a lock needs new ones and there is no room for them, or the connection's.
    pub fn unlock(&mut self, range: ByteRange) -> Result<(), ClientError> {
        self.change(range, None, Some(Duration::ZERO))
    }

    /// Somebody else's lock that would keep this owner from locking `range` now (F_GETLK): the first by its bytes. Those who
    /// only wait are not in the way.
    ///
    /// # Errors
    /// As [`Client::admin`].
    pub fn conflict(&self, range: ByteRange, mode: RangeMode) -> Result<Option<RangeConflict>, ClientError> {
        let resource = Some(self.locks.resource.clone());
        let AdminReply::Locks { locks, .. } = self.locks.client.admin(AdminRequest::Locks { resource })? else {
            return Err(ClientError::Usage("the daemon gave another answer than was asked for".into()));
        };
        let session = self.locks.client.session_id();
        let own = |lock: LockId| {
            Some(lock.session) == session && self.set.pieces.iter().any(|piece| piece.lock.seq() == lock.seq)
        };
        let clash = |held: Mode| !held.compatible(mode.mode());
        let conflicts = locks.into_iter().filter(|lock| !own(lock.lock)).filter_map(|lock| {
            let covered = lock.range.unwrap_or(ByteRange::ALL);
            let held = clash(lock.mode) || lock.possible && clash(lock.wanted);
            (held && covered.overlaps(range)).then_some(RangeConflict {
                range: covered,
                mode: lock.mode,
                node: lock.node,
                process: lock.process,
            })
        });
        Ok(conflicts.min_by_key(|conflict| conflict.range.start()))
    }

    /// What is locked, by its bytes; neighbours of one mode are one.
    pub fn held(&self) -> Vec<(ByteRange, RangeMode)> {
        self.set.held()
    }

    /// The highest fencing token of what is locked: hand it to whatever the locks protect.
    pub fn token(&self) -> Option<Token> {
        self.set.pieces.iter().map(|piece| piece.lock.token()).max()
    }

    /// Whether all that is locked may be relied on at this moment; see [`Lock::is_valid`].
    pub fn is_valid(&self) -> bool {
        self.set.pieces.iter().all(|piece| piece.lock.is_valid())
    }

    fn change(&mut self, range: ByteRange, mode: Option<RangeMode>, wait: Option<Duration>) -> Result<(), ClientError> {
        if let Some(loss) = self.set.pieces.iter().find_map(|piece| piece.lock.loss()) {
            return Err(ClientError::Lost { resource: self.locks.resource.clone(), loss });
        }
        self.set.change(&self.locks, range, mode, wait)
    }
}
