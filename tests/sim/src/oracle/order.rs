//! I8: new requests on a resource are served in order, except those that asked for an exception; failover keeps it.
//!
//! A request whose `waiting` record was on disk when another one was sent came first. Both being plain (no flag, whole
//! resource) and in conflict, the first one must not get the greater token. (Requests that do not conflict may pass one
//! whose owner could not be asked in a recovery: until it has spoken it blocks like a holder, not like a waiter.)

use mxlock_format::{LockId, Token};
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

    /// Whether a request that was queued before another one and conflicts with it got its grant after that one.
    ///
    /// # Errors
    /// It did: `later` is the smaller token of the two.
    pub fn check(earlier: LockId, granted: Token, later: Option<Token>) -> Result<(), String> {
        match later {
            Some(later) if later < granted => {
                Err(format!("{earlier:?} got {granted:?} after a later request had got {later:?}"))
            }
            _ => Ok(()),
        }
    }

    /// What is queued on a resource.
    pub fn on(&self, resource: usize) -> Vec<LockId> {
        self.queued.iter().filter(|(_, on)| **on == resource).map(|(lock, _)| *lock).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::{Epoch, SessionId};

    #[test]
    fn a_request_that_was_overtaken_is_seen() {
        let lock = |seq| LockId { session: SessionId(1), seq };
        let mut order = Order::default();
        order.queued(lock(1), 0);
        order.queued(lock(2), 3);
        assert_eq!(order.on(0), [lock(1)]);
        let token = |n| Token::new(Epoch(4), n);
        assert!(Order::check(lock(1), token(5), None).is_ok());
        assert!(Order::check(lock(1), token(5), Some(token(6))).is_ok());
        assert!(Order::check(lock(1), token(5), Some(token(4))).is_err());
        order.forget(lock(1));
        assert!(order.on(0).is_empty());
    }
}
