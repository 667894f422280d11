//! Carrying a plan out.

use super::RangeMode;
use super::plan::{Piece, Plan, merged};
use mxlock_format::ByteRange;
use std::time::Duration;

/// How a lock is to be asked for. The owner's own locks are never in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct How {
    /// Not behind those who wait, who may wait for this owner.
    pub(super) out_of_turn: bool,
    /// Longest wait; `None` for ever.
    pub(super) wait: Option<Duration>,
}

impl How {
    /// For what the owner holds already.
    const KEPT: How = How { out_of_turn: true, wait: Some(Duration::ZERO) };
}

/// Where the locks of one owner on one resource come from: a client, or a test's table.
pub(super) trait Locks {
    type Held;
    type Error;

    fn acquire(&self, range: ByteRange, mode: RangeMode, how: How) -> Result<Self::Held, Self::Error>;
    /// The new locks are held: these can go.
    fn release(&self, lock: Self::Held);
    /// Whether a request was refused only because it would have had to wait.
    fn would_wait(error: &Self::Error) -> bool;
}

/// The locks of one owner on one resource: no two overlap, except while they change.
#[derive(Debug)]
pub(super) struct Set<H> {
    pub(super) pieces: Vec<Piece<H>>,
}

impl<H> Set<H> {
    pub(super) const fn new() -> Set<H> {
        Set { pieces: Vec::new() }
    }

    pub(super) fn held(&self) -> Vec<(ByteRange, RangeMode)> {
        merged(&self.pieces)
    }

    /// Brings `range` into `mode`, or unlocks it.
    ///
    /// # Errors
    /// Of the locks. Everything is as it was then.
    pub(super) fn change<L: Locks<Held = H>>(
        &mut self,
        locks: &L,
        range: ByteRange,
        mode: Option<RangeMode>,
        wait: Option<Duration>,
    ) -> Result<(), L::Error> {
        let Plan { wanted, has_some, merged, rest, mut replaced, merging } = Plan::new(&self.pieces, range, mode);
        let mut fresh: Vec<Piece<H>> = Vec::new();
        if let Some((range, mode)) = wanted {
            let how = How { out_of_turn: has_some, wait };
            // Where nobody is in the way, what it joins is part of the same request.
            let joined = merged.map(|merged| {
                let at_once = How { wait: Some(Duration::ZERO), ..how };
                (merged, locks.acquire(merged, mode, at_once))
            });
            match joined {
                Some((range, Ok(lock))) => {
                    replaced.extend(merging);
                    fresh.push(Piece { range, mode, lock });
                }
                Some((_, Err(error))) if !L::would_wait(&error) => return Err(error),
                _ => fresh.push(Piece { range, mode, lock: locks.acquire(range, mode, how)? }),
            }
        }
        for (range, mode) in rest {
            match locks.acquire(range, mode, How::KEPT) {
                Ok(lock) => fresh.push(Piece { range, mode, lock }),
                Err(error) => {
                    fresh.into_iter().for_each(|piece| locks.release(piece.lock));
                    return Err(error);
                }
            }
        }
        let mut pieces = Vec::new();
        for (at, piece) in std::mem::take(&mut self.pieces).into_iter().enumerate() {
            if replaced.contains(&at) {
                locks.release(piece.lock);
            } else {
                pieces.push(piece);
            }
        }
        pieces.extend(fresh);
        self.pieces = pieces;
        Ok(())
    }
}
