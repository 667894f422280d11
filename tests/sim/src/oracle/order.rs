//! I8: new requests on a resource are served in order, except those that asked for an exception; failover keeps it.
//!
//! A request whose `waiting` record was on disk when another one was sent came first. Both being plain (no flag, whole
//! resource) and in conflict, the first one must not get the greater token. (Requests that do not conflict may pass one
//! whose owner could not be asked in a recovery: until it has spoken it blocks like a holder, not like a waiter.)

use mxlock_format::LockId;
use std::collections::BTreeMap;

/// The queued requests that the oracle knows of.
#[derive(Default)]
pub struct Order {
    /// Locks whose `waiting` record is or was on disk, with their resource.
    queued: BTreeMap<LockId, usize>,
}

impl Order {
    /// A `waiting` record of a plain request reached the disk.
    pub fn queued(&mut self, lock: LockId, resource: usize) {
        self.queued.insert(lock, resource);
    }

    /// The request has ended, or its order is not promised any more.
    pub fn forget(&mut self, lock: LockId) {
        self.queued.remove(&lock);
    }

    /// What is queued on a resource.
    pub fn on(&self, resource: usize) -> Vec<LockId> {
        self.queued.iter().filter(|(_, on)| **on == resource).map(|(lock, _)| *lock).collect()
    }
}
