//! What a master tells about who waits for whom: the contents of `mxlock why`.

use crate::report::Lock;
use mxlock_format::{LockId, NodeId};
use serde::{Deserialize, Serialize};

/// The locks on one resource, and those that the chain of waiting leads to from there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The locks: holders, conversions and new requests of the resource that was asked about, each queue in its order; then
    /// those of other resources that their owners wait for, nearest first.
    pub locks: Vec<WhyLock>,
    /// Locks that are left out of `locks` because there are too many.
    pub omitted: u64,
    /// A cycle that nothing will break: waiting locks, each of whose owners waits for the owner of the next, and the last
    /// for the first.
    pub cycle: Vec<LockId>,
    /// Whether the search for a cycle was given up because the graph is too large.
    pub search_ended_early: bool,
    /// The nodes of these locks.
    pub nodes: Vec<WhyNode>,
    /// CLOCK_REALTIME of the answer on the master, to which the times of the locks are related.
    pub now_ms: u64,
}

/// A lock with what it waits for, and what would end it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyLock {
    /// The lock.
    pub lock: Lock,
    /// Whom its owner is, where it is not the session: a transaction; 0 for none.
    pub transaction: u64,
    /// What it waits for, the last in its queue first; nothing if it does not wait.
    pub blockers: Vec<Blocker>,
    /// Further ones that are left out.
    pub blockers_omitted: u64,
    /// Its request carries NODLCKWT: it does not count as something that its owner waits for.
    pub nodlckwt: bool,
    /// It carries NODLCKBLK: it does not count as something that others wait for.
    pub nodlckblk: bool,
    /// Its holder was sent a blocking notice for the mode that it holds now.
    pub told: bool,
    /// What would end it.
    pub until: Until,
}

/// A lock in the way of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// Which.
    pub lock: LockId,
    /// How.
    pub how: How,
}

/// How a lock is in the way of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It holds, or possibly holds, a mode that conflicts.
    Holds,
    /// It is ahead in the queue, for a mode that will conflict.
    Ahead,
    /// It is ahead in the queue, and compatible: it has only to be served.
    ServedFirst,
}

/// What ends a lock, as far as the master knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// It waits.
    Served,
    /// Its owner releases it.
    Released,
    /// It is granted in memory, and its owner is told when the record is on disk.
    Written,
    /// It is released, and goes when its record is cleared.
    Cleared,
    /// Its client has lost the connection to its daemon: until it is back, or the orphan's lifetime is over.
    Reconnected,
    /// Its process has ended: until somebody adopts it, or its lifetime is over.
    Adopted,
    /// The owner's daemon cannot be asked, or has forgotten: until it has spoken, or so many milliseconds have passed
    /// (`None`: however long it takes).
    Reported {
        /// What is left of its lifetime.
        left_ms: Option<u64>,
    },
}

/// A node as the master sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyNode {
    /// The node.
    pub node: NodeId,
    /// Its host; empty when its heartbeat cannot be read.
    pub host: String,
    /// Since its heartbeat was last seen to change.
    pub silent_ms: Option<u64>,
    /// Whether it is connected to the master.
    pub reachable: bool,
    /// Whether it is silent for so long that it is about to be excluded.
    pub suspect: bool,
    /// Whether its recovery waits for somebody to fence it.
    pub blocked_on_fencing: bool,
}

impl Why {
    /// The lock with this id.
    pub fn get(&self, lock: LockId) -> Option<&WhyLock> {
        self.locks.iter().find(|entry| entry.lock.lock == lock)
    }
}
