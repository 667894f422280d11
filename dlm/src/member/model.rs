//! What the models need to see of a member, and what time does to it when they say so.

use super::*;
use std::hash::{Hash, Hasher};

impl Member {
    /// All that a later step may depend on; settings and times are left out, as of the master.
    pub(crate) fn digest(&self, hasher: &mut impl Hasher) {
        let Member { incarnation, conns, sessions, locks, claims, timeouts, orphans, taken_back, .. } = self;
        let Member { next_order, reported, lease_until, refusing, to_master, out, .. } = self;
        (incarnation, conns, sessions, claims, timeouts, orphans, taken_back).hash(hasher);
        let mut owned: Vec<_> = locks.iter().collect();
        owned.sort_by_key(|(id, _)| **id);
        owned.hash(hasher);
        (next_order, reported, lease_until.is_some(), refusing).hash(hasher);
        assert!(to_master.is_empty() && out.is_empty(), "a step was not carried out to its end");
    }

    /// Requests whose time may run out.
    pub(crate) fn timed(&self) -> Vec<LockId> {
        self.timeouts.iter().map(|(_, id)| *id).collect()
    }

    /// The time of one request is over.
    pub(crate) fn end_wait(&mut self, id: LockId) {
        self.timeouts.retain(|(_, other)| *other != id);
        self.time_out(id);
    }

    /// Sessions whose orphans have a lifetime that is running.
    pub(crate) fn orphaned(&self) -> Vec<SessionId> {
        self.orphans.iter().map(|(_, id)| *id).collect()
    }

    /// The lifetime of a session's orphans is over.
    pub(crate) fn end_lifetime(&mut self, id: SessionId) {
        self.orphans_expired(id);
    }

    /// Whether the daemon knows the session, or waits for the master's word about it.
    pub(crate) fn knows(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id) || self.claims.contains_key(&id)
    }
}
