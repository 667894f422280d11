//! What must be true of the table between any two operations. For tests, the simulator and debug builds: it looks at
//! everything, and on each resource at every pair.

use super::entry::{Lock, ModeCounts, ModeSet, Queue};
use super::grant::Verdict;
use super::slab::NIL;
use super::{LockFlags, Payload, Standing, Table};
use mxlock_format::{LockId, Mode, Resource};

/// A broken promise: a bug in this module, or a caller that restored what cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum InvariantViolation {
    #[error("locks {a} and {b} on {resource} hold modes that conflict on bytes that both cover (I1)")]
    Conflict { resource: Resource, a: LockId, b: LockId },
    #[error("lock {lock} on {resource} waits, but nothing is in its way (I8)")]
    LostWakeUp { resource: Resource, lock: LockId },
    #[error("lock {lock} on {resource} converts behind {ahead}, which waits for it")]
    ConversionDeadlock { resource: Resource, lock: LockId, ahead: LockId },
    #[error("lock {lock} on {resource} is queued behind one with a later position (I8)")]
    Unsorted { resource: Resource, lock: LockId },
    #[error("lock {holder} on {resource} was not told that {wanted} is waited for")]
    NotTold { resource: Resource, holder: LockId, wanted: Mode },
    #[error("resource {resource} is kept without a lock")]
    EmptyResource { resource: Resource },
    #[error("lock {lock} on {resource} is in the wrong queue or wrongly linked")]
    Misplaced { resource: Resource, lock: LockId },
    #[error("the counts of {resource} do not add up")]
    Counts { resource: Resource },
    #[error("an index does not agree with the table: {locks} locks, {resources} resources")]
    Index { locks: usize, resources: usize },
    #[error("an operation left something undone")]
    Unfinished,
}

impl<P: Payload> Table<P> {
    /// Checks the whole table: I1 over confirmed locks and orphans, order and progress (I8), that every holder in the way
    /// was told, and that lists, counts and indices agree. Not to be expected between `restore` and `resume_all`.
    pub fn check_invariants(&self) -> Result<(), InvariantViolation> {
        if !self.fresh.is_empty() {
            return Err(InvariantViolation::Unfinished);
        }
        let mut linked = 0;
        for (r, _) in self.resources.iter() {
            linked += self.check_lists(r)?;
            self.check_counts(r)?;
            self.check_conflicts(r)?;
            self.check_blocked(r)?;
        }
        self.check_indices(linked)
    }

    fn name(&self, r: u32) -> Resource {
        self.resources[r].name.clone()
    }

    /// Links, queues and order; returns how many locks the resource has.
    fn check_lists(&self, r: u32) -> Result<usize, InvariantViolation> {
        let mut linked = 0;
        for queue in [Queue::Granted, Queue::Converting, Queue::Waiting] {
            let mut previous = NIL;
            for (i, lock) in self.walk(r, queue) {
                let fits = lock.resource == r && lock.queue == queue && lock.home() == queue && lock.prev == previous;
                if !fits || (lock.granted, lock.wanted) == (None, None) {
                    return Err(InvariantViolation::Misplaced { resource: self.name(r), lock: lock.id });
                }
                let sorted = previous == NIL || self.locks[previous].position <= lock.position;
                if queue != Queue::Granted && !sorted {
                    return Err(InvariantViolation::Unsorted { resource: self.name(r), lock: lock.id });
                }
                previous = i;
                linked += 1;
            }
            if self.list(r, queue).tail != previous {
                return Err(InvariantViolation::Counts { resource: self.name(r) });
            }
        }
        if linked == 0 { Err(InvariantViolation::EmptyResource { resource: self.name(r) }) } else { Ok(linked) }
    }

    fn check_counts(&self, r: u32) -> Result<(), InvariantViolation> {
        let (mut held, mut wanted) = (ModeCounts::default(), ModeCounts::default());
        self.walk_holders(r).for_each(|(_, lock)| held.add(lock.held()));
        self.walk_blocked(r).for_each(|(_, lock)| wanted.add(lock.wanted.into_iter().collect::<ModeSet>()));
        let everyone = self.walk_holders(r).chain(self.walk(r, Queue::Waiting));
        let ranged = everyone.filter(|(_, lock)| lock.is_ranged()).count();
        let unordered = self.walk_blocked(r).filter(|(_, lock)| lock.flags.contains(LockFlags::NOORDER)).count();
        let right = match &self.resources[r].more {
            None => self.walk(r, Queue::Granted).count() == 1,
            Some(more) => {
                let counted = (more.held, more.wanted, more.ranged as usize, more.unordered as usize);
                counted == (held, wanted, ranged, unordered)
            }
        };
        if right { Ok(()) } else { Err(InvariantViolation::Counts { resource: self.name(r) }) }
    }

    /// I1. Possible holders may conflict with anything.
    fn check_conflicts(&self, r: u32) -> Result<(), InvariantViolation> {
        let sure = |(_, lock): &(u32, &Lock<P>)| lock.standing != Standing::Possible;
        for (i, a) in self.walk_holders(r).filter(sure) {
            for (_, b) in self.walk_holders(r).filter(sure).take_while(|&(j, _)| j != i) {
                let compatible = a.granted.zip(b.granted).is_none_or(|(a, b)| a.compatible(b));
                // With OWN, locks of one session and transaction.
                if !compatible && a.range.overlaps(b.range) && a.belongs_to() != b.belongs_to() {
                    return Err(InvariantViolation::Conflict { resource: self.name(r), a: a.id, b: b.id });
                }
            }
        }
        Ok(())
    }

    /// Everybody who waits has a reason, and those in the way know.
    fn check_blocked(&self, r: u32) -> Result<(), InvariantViolation> {
        for (i, lock) in self.walk_blocked(r) {
            let (ask, wanted) = self.queued_ask(i);
            if matches!(self.judge(r, &ask, wanted), Verdict::Grant { .. }) {
                return Err(InvariantViolation::LostWakeUp { resource: self.name(r), lock: lock.id });
            }
            for (_, holder) in self.walk_holders(r).filter(|&(j, _)| j != i) {
                let in_the_way = holder.range.overlaps(lock.range)
                    && holder.standing != Standing::Possible
                    && holder.granted.is_some_and(|held| !held.compatible(wanted));
                if in_the_way && !holder.told.covers(wanted) {
                    return Err(InvariantViolation::NotTold { resource: self.name(r), holder: holder.id, wanted });
                }
            }
            if lock.queue == Queue::Waiting || lock.flags.contains(LockFlags::NODLCKWT) {
                continue;
            }
            for (_, earlier) in self.walk(r, Queue::Converting).take_while(|&(j, _)| j != i) {
                let waits_for_it = lock.granted.zip(earlier.wanted).is_some_and(|(held, its)| !held.compatible(its));
                if waits_for_it && earlier.range.overlaps(lock.range) {
                    let (lock, ahead) = (lock.id, earlier.id);
                    return Err(InvariantViolation::ConversionDeadlock { resource: self.name(r), lock, ahead });
                }
            }
        }
        Ok(())
    }

    fn check_indices(&self, linked: usize) -> Result<(), InvariantViolation> {
        let (locks, resources) = (self.locks.len(), self.resources.len());
        let found = self.locks.iter().all(|(i, lock)| self.find_index(lock.id) == Some(i))
            && self.resources.iter().all(|(r, resource)| self.find_resource(&resource.name) == Some(r));
        let waiting = || self.locks.iter().filter(|(_, lock)| lock.queue != Queue::Granted);
        let by_owner = waiting().all(|(i, _)| self.waiting.contains(&(self.owner(i), i)))
            && self.waiting.len() == waiting().count()
            && self.owned.values().map(|&count| count as usize).sum::<usize>() == locks;
        let agree = by_owner && linked == locks && self.by_id.len() == locks && self.by_resource.len() == resources;
        if found && agree { Ok(()) } else { Err(InvariantViolation::Index { locks, resources }) }
    }
}
