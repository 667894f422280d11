//! The lock-record sector: one per lock, written by the master alone (I6).

use crate::{ByteRange, Epoch, Incarnation, LockId, Mode, NodeId, Resource, Token};
use serde::{Deserialize, Serialize};

/// Longest lock value block, bytes.
pub const MAX_LVB_BYTES: usize = 64;

/// A lock's state, with the numbers that are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
#[allow(missing_docs)]
pub enum LockState {
    Unlocked = 0,
    Waiting = 1,
    Granted = 2,
    Converting = 3,
    Blocked = 4,
}

/// When an LVB was written: greater is newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LvbSequence {
    pub epoch: Epoch,
    pub n: u64,
}

/// A lock value block: 1..=64 bytes, when it was written, and whether it can be trusted (I9).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Lvb {
    pub bytes: Vec<u8>,
    pub sequence: LvbSequence,
    /// False after a holder of PW or EX died or gave no value.
    pub valid: bool,
}

/// The client process that owns a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Process id on the owner's host.
    pub pid: u32,
    /// Its start time (field 22 of /proc/PID/stat), so that a reused pid is told apart.
    pub start_time: u64,
    /// Its user id.
    pub uid: u32,
}

/// A decoded lock-record sector.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct LockRecord {
    pub resource: Resource,
    pub owner: NodeId,
    pub owner_incarnation: Incarnation,
    /// Granted mode; NL for a new request that waits.
    pub mode: Mode,
    /// Wanted mode; equals `mode` for a settled lock.
    pub wanted: Mode,
    pub state: LockState,
    /// CLOCK_REALTIME, for people only.
    pub granted_at_ms: u64,
    /// Epoch of the grant.
    pub epoch: Epoch,
    pub lock: LockId,
    pub token: Token,
    /// The stamp (section 6).
    pub table_epoch: Epoch,
    /// Place in the queue of requests; grows over the lockspace's life.
    pub queue_position: u64,
    pub persistent: bool,
    pub orphan: bool,
    pub process: Process,
    /// Transaction id; 0 is none.
    pub transaction: u64,
    /// `None`: the whole resource.
    pub range: Option<ByteRange>,
    pub orphan_lifetime_ms: u32,
    pub lvb: Option<Lvb>,
}
