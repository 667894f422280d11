//! What can be wrong with a sector.

use crate::{
    FORMAT_VERSION, MAX_ADDRESSES, MAX_EPOCH, MAX_HOST_BYTES, MAX_LOCKSPACE_NAME_BYTES, MAX_LVB_BYTES, MAX_SLOT_COUNT,
    MIN_SLOT_COUNT, NodeId, ResourceError, TimingError,
};

/// A heartbeat sector that cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("heartbeat sector of node {node}: {fault}")]
pub struct HeartbeatError {
    /// Whose sector it is, by its place.
    pub node: NodeId,
    /// What is wrong with it.
    pub fault: Fault,
}

/// A lock-record sector that is neither empty nor a valid record. It is never treated as empty (section 3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lock record in slot {slot}: {fault}")]
pub struct RecordError {
    /// Its slot.
    pub slot: u32,
    /// What is wrong with it.
    pub fault: Fault,
}

/// The reason why a sector, or a value that was to be encoded, is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Fault {
    /// Found by whoever reads the device, never by `decode`.
    #[error("it cannot be read (errno {errno})")]
    Unreadable { errno: i32 },
    #[error("{0} bytes are not a sector: 512 or 4096 are")]
    Length(usize),
    #[error("byte {offset} is not zero: a 4096-byte sector uses only its first 512 bytes")]
    TailNotZero { offset: usize },
    /// Heartbeats only: they are never all zero, not even in a new lockstate.
    #[error("all bytes are zero")]
    Zero,
    #[error("the magic number is {found:#010x}, not 0x4d584c4b")]
    Magic { found: u32 },
    #[error("the checksum is {stored:#010x}, but the bytes have {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("layout version {0} is not known: this program knows version {FORMAT_VERSION}")]
    Version(u16),
    #[error("flags {0:#x} are not those of its state")]
    Flags(u32),
    #[error("extension flags {0:#04x} are not known")]
    Bits(u8),
    #[error("byte {offset} is not what version {FORMAT_VERSION} writes there: padding and unused bytes must be zero")]
    Stray { offset: usize },

    #[error("the sector says that it is node {0}'s")]
    WrongNode(u32),
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    #[error("node state {0} is not one of 0..=4")]
    NodeState(u8),
    #[error("the host name is not UTF-8 of 0..={MAX_HOST_BYTES} bytes without control characters")]
    Host,
    #[error("{0} addresses are more than the {MAX_ADDRESSES} that fit")]
    AddressCount(usize),
    #[error("address family {0} is not 4 or 6, or does not fit its bytes")]
    AddressFamily(u8),
    #[error("an IPv6 address has a scope or flow label: these mean nothing on another host")]
    ScopedAddress,
    #[error("protocol versions {lowest}..={highest} are no range")]
    Protocols { lowest: u16, highest: u16 },
    #[error("node number {0} is not in 0..=63")]
    NodeNumber(u32),
    #[error("view phase {0} is not one of 0..=2")]
    Phase(u8),
    #[error("epoch {0} is above {MAX_EPOCH}: tokens would wrap around")]
    EpochLimit(u64),
    #[error("the view's table epoch {table_epoch} is above its epoch {epoch}")]
    TableEpoch { epoch: u64, table_epoch: u64 },
    #[error("the committed view has epoch {view}, the sector {sector}")]
    ViewEpoch { sector: u64, view: u64 },
    #[error("the ballot block is not one that agreement can write: {0}")]
    Block(&'static str),

    #[error("lock mode {0} is not one of 0..=5")]
    Mode(u8),
    #[error("lock state {0} is not one of 0..=4")]
    LockState(u8),
    #[error("a lock cannot be {state} with mode {mode} granted and {wanted} wanted")]
    ModeForState { state: &'static str, mode: crate::Mode, wanted: crate::Mode },
    #[error(transparent)]
    Resource(#[from] ResourceError),
    #[error("the name has {0} bytes: at most 200 fit")]
    NameLength(u8),
    #[error("the resource id is not the hash of the name")]
    NameHash,
    #[error("a resource of type {0} has a name")]
    NameOnTyped(u8),
    #[error("the byte range {start}-{end} ends before it starts")]
    Range { start: u64, end: u64 },
    #[error("the lock value block has {0} bytes: at most {MAX_LVB_BYTES} fit")]
    LvbLength(usize),
}

/// What is wrong with the part that all heartbeat sectors share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum SuperblockError {
    #[error("'{}' is not a lockspace name: use 1..={MAX_LOCKSPACE_NAME_BYTES} of A-Z a-z 0-9 . _ -, and not '.' or '..'", .0.escape_debug())]
    Name(String),
    #[error("{0} slots are not in {MIN_SLOT_COUNT}..={MAX_SLOT_COUNT}")]
    SlotCount(u32),
    #[error("a sector size of {0} is neither 512 nor 4096")]
    SectorSize(u32),
    #[error(transparent)]
    Timing(#[from] TimingError),
}
