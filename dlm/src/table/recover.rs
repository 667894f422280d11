//! Building a table from reports, and settling what is only possible (DESIGN section 6).

use super::entry::{Lock, ModeSet, Queue};
use super::slab::NIL;
use super::{DenyReason, Effect, LockFlags, Payload, Restored, Standing, Table, TableError};
use mxlock_format::{LockId, Mode};
use std::hash::BuildHasher;

impl<P: Payload> Table<P> {
    /// Puts a lock where its record or its owner says it was, and tests nothing. Conversions and waiting requests go to
    /// their queue by position, and those with one position by id. When all are in, call
    /// [`resume_all`](Table::resume_all); until then, call nothing that grants.
    ///
    /// # Errors
    /// `Duplicate`, `NoMode`, `Full`; nothing has happened then.
    pub fn restore(&mut self, restored: Restored<P>) -> Result<(), TableError> {
        let Restored { lock: id, resource, granted, wanted, standing, position, range, flags, lvb, payload } = restored;
        if self.contains(id) {
            return Err(TableError::Duplicate(id));
        }
        if granted.is_none() && wanted.is_none() {
            return Err(TableError::NoMode(id));
        }
        if !self.locks.has_room() || !self.resources.has_room() {
            return Err(TableError::Full);
        }
        let r = self.find_or_add_resource(resource);
        let told = ModeSet::EMPTY;
        let (prev, next, queue) = (NIL, NIL, Queue::Granted);
        let lock = Lock {
            id,
            range,
            position,
            resource: r,
            prev,
            next,
            flags,
            granted,
            wanted,
            queue,
            standing,
            told,
            demoted: false,
            payload,
        };
        let i = self.add_lock(lock, self.hasher.hash_one(id));
        self.link_home(i, false);
        if let Some(lvb) = lvb {
            self.restore_lvb(r, lvb);
        }
        Ok(())
    }

    /// From now on, until [`Table::release`], nothing is granted but NL, and what its owner holds already: somebody may hold
    /// a lock that is not in the table, on whichever resource.
    pub fn hold_back(&mut self) {
        self.held_back = true;
    }

    /// Whatever is held is in the table: queues are served again. Whether they were not.
    pub fn release(&mut self, effects: &mut Vec<Effect>) -> bool {
        let was = std::mem::take(&mut self.held_back);
        if was {
            self.resume_all(effects);
        }
        was
    }

    /// Looks at every queue and grants what can be granted: the end of a recovery. All notices are sent (again).
    pub fn resume_all(&mut self, effects: &mut Vec<Effect>) {
        let resources: Vec<u32> = self.resources.iter().filter(|(_, res)| res.more.is_some()).map(|(r, _)| r).collect();
        for r in resources {
            self.end_deadlocks(r, effects);
            self.serve(r, effects);
            let holders: Vec<u32> = self.walk_holders(r).map(|(i, _)| i).collect();
            holders.into_iter().for_each(|i| self.notify_holder(i, effects));
        }
    }

    /// Says how sure a lock is, with the modes that it has: a possible holder was confirmed or is an orphan, an orphan
    /// was adopted, a session is gone.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn set_standing(
        &mut self,
        lock: LockId,
        standing: Standing,
        effects: &mut Vec<Effect>,
    ) -> Result<(), TableError> {
        let i = self.find(lock)?;
        let Lock { granted, wanted, .. } = self.locks[i];
        self.restate(lock, granted, wanted, standing, effects)
    }

    /// The owner's word about its lock: what it holds, what it waits for (at the place in the queue that it had), and the
    /// new standing. Nobody is granted anything in between, as would happen if the lock were removed and restored.
    ///
    /// # Errors
    /// `Unknown`, `NoMode` (use [`unlock`](Table::unlock) for a lock that the owner does not have); nothing has happened
    /// then.
    pub fn restate(
        &mut self,
        lock: LockId,
        granted: Option<Mode>,
        wanted: Option<Mode>,
        standing: Standing,
        effects: &mut Vec<Effect>,
    ) -> Result<(), TableError> {
        let i = self.find(lock)?;
        if granted.is_none() && wanted.is_none() {
            return Err(TableError::NoMode(lock));
        }
        self.unlink(i);
        let entry = &mut self.locks[i];
        if granted != entry.granted {
            entry.told = ModeSet::EMPTY;
        }
        (entry.granted, entry.wanted, entry.standing) = (granted, wanted, standing);
        entry.demoted &= wanted.is_some();
        let (r, range) = (entry.resource, entry.range);
        self.link_home(i, true);
        self.end_deadlocks(r, effects);
        self.serve(r, effects);
        self.notify_holder(i, effects);
        let entry = &self.locks[i];
        if let (Some(wanted), Queue::Converting | Queue::Waiting) = (entry.wanted, entry.queue) {
            self.notify_holders(r, i, range, wanted, effects);
        }
        Ok(())
    }

    /// Links lock `i` into the queue that its modes and standing call for, by position. A conversion that joins others
    /// that are in `service` must not make one of them wait for ever.
    fn link_home(&mut self, i: u32, service: bool) {
        let Lock { id, resource: r, range, position, wanted, .. } = self.locks[i];
        let queue = self.locks[i].home();
        let mut after = match queue {
            Queue::Granted => return self.link_granted(i),
            Queue::Converting if service => {
                self.place_conversion(r, wanted.expect("a converting lock wants a mode"), range, position, false)
            }
            Queue::Converting | Queue::Waiting => self.place(r, queue, position, false),
        };
        while after != NIL && self.locks[after].position == position && self.locks[after].id > id {
            after = self.locks[after].prev;
        }
        self.locks[i].position = self.fitting_position(r, queue, after, position);
        self.link(i, queue, after);
    }

    /// Ends the conversions that wait for one behind which they are queued and that waits for them. At the first try of
    /// a conversion this is prevented; a failover can bring it about, if it restores fewer locks or another order. The
    /// later one is demoted (CONVDEADLK), left alone (NODLCKWT) or refused, as it would have been at its first try. (The
    /// kernel grants conversions without regard to order after a failover, since it does not keep the order.)
    fn end_deadlocks(&mut self, r: u32, effects: &mut Vec<Effect>) {
        let mut i = self.list(r, Queue::Converting).head;
        while i != NIL {
            let lock = &self.locks[i];
            let next = lock.next;
            let in_the_way = self.walk(r, Queue::Converting).take_while(|&(j, _)| j != i).any(|(_, earlier)| {
                let clash = |(held, wanted): (Mode, Mode)| !held.compatible(wanted);
                earlier.range.overlaps(lock.range) && lock.granted.zip(earlier.wanted).is_some_and(clash)
            });
            if in_the_way && lock.flags.contains(LockFlags::CONVDEADLK) {
                self.demote(i, effects);
            } else if in_the_way && !lock.flags.contains(LockFlags::NODLCKWT) {
                effects.push(Effect::Denied { lock: lock.id, reason: DenyReason::Deadlock });
                self.end_conversion(i);
            }
            i = next;
        }
    }
}
