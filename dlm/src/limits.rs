//! Every bound of the core, with what happens at it.

/// Locks (held, converting or waiting) of one session; the next request is denied with `Limit`.
pub const MAX_LOCKS_PER_SESSION: usize = 65_536;
/// Sessions of one daemon; the next `Hello` is refused with `TooManySessions`.
pub const MAX_SESSIONS: usize = 16_384;
/// Locks (held, converting or waiting) that a master keeps; the next request is denied with `Limit`. Waiting requests
/// need no slot (section 7), so this is above the slot count.
pub const MAX_LOCKS: usize = 1 << 21;
/// Locks in one part of a member's report, of a claim's verdict, or of a listing.
pub const REPORT_PART_LOCKS: usize = 256;
/// Slots in one read or write of the table (1 MiB of 512-byte sectors).
pub const TABLE_CHUNK_SLOTS: u32 = 2_048;
/// Locks that `mxlock why` is shown; what is left out is counted.
pub const WHY_LOCKS: usize = 256;
/// Blockers that it is shown of each: a reply of all of them stays below `MAX_CLIENT_FRAME`.
pub const WHY_BLOCKERS: usize = 8;
/// Locks that the master looks at to answer it (some 10 ms); then it says that there may be more.
pub const WHY_STEPS: usize = 1 << 18;
/// Processes whose commands one question asks for.
pub const NAMED_PROCESSES: usize = 256;
/// Times that a chunk is read of which some sectors cannot be read; then they count as damaged. One of which none can be
/// read is tried for D.
pub const TABLE_CHUNK_TRIES: u32 = 3;
/// Table chunks in flight at once.
pub const TABLE_CHUNKS_IN_FLIGHT: usize = 4;
/// Messages to one peer that are sent but not acknowledged; further ones wait.
pub const LINK_WINDOW: usize = 1_024;
/// Received messages after which an acknowledgement is sent at once.
pub const LINK_ACK_EVERY: u64 = 64;
/// Longest time that a client may ask its locks to outlive it, milliseconds (one day).
pub const MAX_ORPHAN_LIFETIME_MS: u32 = 86_400_000;
/// The orphan lifetime in the record of a lock that is held for a process without a connection (`mxlock lock`): as long
/// as the process lives.
pub const DETACHED_LIFETIME_MS: u32 = u32::MAX;
/// Longest wait that a client may ask for, milliseconds (ten years); longer ones are for ever.
pub const MAX_TIMEOUT_MS: u64 = 315_360_000_000;
