//! What a core is told about its node before it starts.

use crate::time::BootTime;
use mxlock_format::{Incarnation, NodeId, Superblock, Uuid};
use std::net::SocketAddr;

/// A node's settings. Timing and geometry come from the superblock: all nodes use what is on disk.
#[derive(Clone, Debug)]
pub struct Config {
    /// The slot whose guard the driver holds (section 8).
    pub node: NodeId,
    /// What is the same for all nodes.
    pub superblock: Superblock,
    /// Which installation this is.
    pub node_uuid: Uuid,
    /// Which boot of its machine.
    pub boot_id: Uuid,
    /// Host name, at most 64 bytes.
    pub host: String,
    /// Which start of the daemon; drawn by the driver, not 0, different at each start.
    pub incarnation: Incarnation,
    /// Seed of the core's generator (back-off times, session ids): from the system's entropy, or the simulator's seed.
    pub seed: u64,
    /// No ballot before: what the daemon left that had this slot before, in this boot ([`crate::io::Output::BallotsFrom`],
    /// and D after its last heartbeat write that may still land; `docs/decisions/009`). `None`: nothing is known of it.
    pub ballots_from: Option<BootTime>,
    /// Until when a record write of that daemon may land which ended in an error; for elections to wait for.
    pub uncertain_until: Option<BootTime>,
    /// Where peers reach this node; at most 3.
    pub addresses: Vec<SocketAddr>,
    /// Whether silence for D counts as fenced (method `wait`); if not, only `fence-ack` frees a silent node's locks.
    pub fence_wait: bool,
    /// Lifetime of the orphans of a lost connection or a restart; raised to L + G where it is shorter.
    pub orphan_lifetime_ms: u32,
    /// Bound on the time between a release and the clearing of its record; 0: clear before acknowledging.
    pub clear_behind_ms: u32,
    /// The daemon's user: with uid 0 the one that may administrate.
    pub uid: u32,
    /// The daemon's process id, for `mxlock-bench`.
    pub pid: u32,
    /// For `status`: where the lockstate is.
    pub lockstate: String,
    /// For `status`: how I/O is done.
    pub io: String,
    /// For `status`: which hosts can share the lockstate.
    pub scope: String,
    /// For `status`: version text.
    pub version: String,
    /// For `status`: what the driver warns of (device timeouts, missing privileges).
    pub warnings: Vec<String>,
}
