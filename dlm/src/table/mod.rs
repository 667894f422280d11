//! The master's lock table: who holds what, who waits in which order, who must be told (DESIGN section 7).
//!
//! Pure queue logic: no I/O, no clock, no records, no sessions. The caller asks for something and gets an outcome, and a
//! list of effects on other locks in the order in which they must take effect. What is granted here is not promised to
//! anybody before the caller has put it on disk.
//!
//! The rules are those of the Linux kernel DLM (fs/dlm/lock.c), with these differences, each explained at its place:
//! * byte ranges: two locks meet only where they overlap, for conflicts and for order alike;
//! * OWN: what the same session holds in the same transaction is not in the way of a new request;
//! * possible holders, which may conflict with what is granted already;
//! * order survives a failover, so conversions are served in order after one;
//! * no request waits for the next event although it could be granted: HEADQUE that would be first, NOORDER with QUECVT,
//!   NOORDER behind a demotion;
//! * the alternative mode is tried before a conversion counts as deadlocked, and nobody is demoted once queued;
//! * a HEADQUE conversion stays behind those that it would wait for;
//! * notices follow the lattice of modes instead of their numbers, and go to converting holders too.
//!
//! | file | subject |
//! |---|---|
//! | `types.rs` | what goes in and comes out |
//! | `entry.rs`, `slab.rs` | what is stored, and where |
//! | `queues.rs` | linking, counting, places in a queue |
//! | `grant.rs` | the grant test and the service of the queues |
//! | `deadlock.rs` | who waits for whom, and cycles of it |
//! | `chain.rs` | who waits for whom, for people |
//! | `notices.rs` | blocking notices |
//! | `lvb.rs` | value blocks |
//! | `recover.rs` | building a table from reports; possible holders |
//! | `query.rs` | looking at it |
//! | `invariants.rs` | what must be true of it |

mod chain;
mod deadlock;
mod entry;
mod grant;
mod invariants;
mod lvb;
mod notices;
mod query;
mod queues;
mod recover;
mod slab;
#[cfg(test)]
mod tests;
mod types;

pub use chain::{Chain, ChainLimits, Link};
pub use invariants::InvariantViolation;
pub use mxlock_proto::LockFlags;
pub use types::*;

use entry::{List, Lock, ModeSet, Queue, Res};
use grant::{Ask, Verdict};
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use mxlock_format::{Epoch, LockId, Mode, Resource};
use slab::{NIL, Slab};
use std::collections::BTreeSet;
use std::hash::BuildHasher;

/// The lock table. `P` is what the caller keeps with each lock.
#[derive(Clone, Debug)]
pub struct Table<P> {
    locks: Slab<Lock<P>>,
    resources: Slab<Res>,
    /// Indices by lock id and by resource. Nothing ever iterates over these two, so that the order of everything the
    /// table does depends on its inputs only, and not on the hasher's keys.
    by_id: HashTable<u32>,
    by_resource: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The locks in the converting and waiting queues, by owner.
    waiting: BTreeSet<(Owner, u32)>,
    /// Locks that were queued, granted or given to another owner where somebody waits, since the last search for cycles.
    changed: Vec<LockId>,
    /// How many locks each owner has, in any queue. Most that wait have no other lock.
    owned: HashMap<Owner, u32>,
    /// The epoch of LVB sequences written from now on, and the number of those so far.
    epoch: Epoch,
    lvb_writes: u64,
    /// Locks that got a mode during the current operation; empty between operations.
    fresh: Vec<u32>,
    /// Nothing is granted that could conflict with a lock that nobody knows of.
    held_back: bool,
}

impl<P: Payload> Default for Table<P> {
    fn default() -> Table<P> {
        Table::new()
    }
}

impl<P: Payload> Table<P> {
    /// An empty table.
    pub fn new() -> Table<P> {
        Table {
            locks: Slab::new(),
            resources: Slab::new(),
            by_id: HashTable::new(),
            by_resource: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            waiting: BTreeSet::new(),
            changed: Vec::new(),
            owned: HashMap::new(),
            epoch: Epoch::default(),
            lvb_writes: 0,
            fresh: Vec::new(),
            held_back: false,
        }
    }

    /// Sets the table epoch that LVB sequences carry from now on. A new master calls it before it restores anything.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.lvb_writes = 0;
        }
    }

    /// Asks for a new lock. Granted, queued, or with NOQUEUE denied; only in the first two cases it is in the table.
    ///
    /// # Errors
    /// `Duplicate`, `Flags`, `Full`; nothing has happened then.
    pub fn request(&mut self, request: Request<P>, effects: &mut Vec<Effect>) -> Result<Outcome, TableError> {
        check_request_flags(request.flags, request.mode)?;
        let id_hash = self.hasher.hash_one(request.lock);
        if self.by_id.find(id_hash, |&i| self.locks[i].id == request.lock).is_some() {
            return Err(TableError::Duplicate(request.lock));
        }
        if !self.locks.has_room() || !self.resources.has_room() {
            return Err(TableError::Full);
        }
        let Request { lock: id, resource, mode, flags, range, position, payload } = request;
        let r = self.find_or_add_resource(resource);
        let after = self.place(r, Queue::Waiting, position, flags.contains(LockFlags::HEADQUE));
        let own = flags.contains(LockFlags::OWN).then(|| (id.session, payload.transaction()));
        let ask = Ask { me: NIL, granted: None, own, range, flags, after, first: true };
        let verdict = self.judge(r, &ask, mode);
        if verdict == Verdict::Wait && flags.contains(LockFlags::NOQUEUE) {
            if flags.contains(LockFlags::NOQUEUEBAST) {
                self.notify_holders(r, NIL, range, mode, effects);
            }
            return Ok(Outcome::Denied(DenyReason::WouldQueue));
        }
        let mut lock = Lock {
            id,
            range,
            position,
            resource: r,
            prev: NIL,
            next: NIL,
            flags,
            granted: None,
            wanted: Some(mode),
            queue: Queue::Waiting,
            standing: Standing::Confirmed,
            told: ModeSet::EMPTY,
            demoted: false,
            payload,
        };
        let Verdict::Grant { mode: given, alternative } = verdict else {
            lock.position = self.fitting_position(r, Queue::Waiting, after, position);
            let position = lock.position;
            let i = self.add_lock(lock, id_hash);
            self.link(i, Queue::Waiting, after);
            self.notify_holders(r, i, range, mode, effects);
            return Ok(Outcome::Queued { position, demoted: false });
        };
        let i = self.add_lock(lock, id_hash);
        let grant = self.give(i, given, alternative);
        self.link_granted(i);
        self.notify_holder(i, effects);
        Ok(Outcome::Granted(grant))
    }

    /// Asks for another mode of a lock that is granted. On `Denied` the lock is as it was.
    ///
    /// `lvb` is used where the value block is written: from PW to PW or down, from EX to any. Such a conversion never
    /// waits.
    ///
    /// # Errors
    /// `Unknown`, `Busy`, `NotConfirmed`, `Flags`, `LvbLength`; nothing has happened then.
    pub fn convert(
        &mut self,
        lock: LockId,
        mode: Mode,
        flags: LockFlags,
        position: u64,
        lvb: LvbUpdate,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, TableError> {
        let i = self.find(lock)?;
        let Lock { standing, granted, wanted, range, resource: r, .. } = self.locks[i];
        if standing == Standing::Possible {
            return Err(TableError::NotConfirmed(lock));
        }
        let (Some(held), None) = (granted, wanted) else { return Err(TableError::Busy(lock)) };
        check_conversion_flags(flags, held, mode)?;
        lvb.check()?;

        let at_head = flags.contains(LockFlags::HEADQUE);
        let mut after = self.place_conversion(r, mode, range, position, at_head);
        let mut ask = Ask { me: i, granted, own: None, range, flags, after, first: true };
        let mut verdict = self.judge(r, &ask, mode);
        if verdict == Verdict::Deadlock {
            if flags.contains(LockFlags::CONVDEADLK) {
                // Those that its old mode blocked come first, then it has another try.
                self.demote(i, effects);
                self.serve_converting(r, effects);
                after = self.place_conversion(r, mode, range, position, at_head);
                ask = Ask { granted: Some(Mode::NL), after, ..ask };
                verdict = self.judge(r, &ask, mode);
            } else if !flags.contains(LockFlags::NODLCKWT) {
                return Ok(Outcome::Denied(DenyReason::Deadlock));
            }
        }
        if let Verdict::Grant { mode: given, alternative } = verdict {
            self.locks[i].flags = flags;
            self.count(i, false);
            let mut grant = self.give(i, given, alternative);
            self.count(i, true);
            self.note_change(i);
            if grant.lvb == LvbTransfer::Written {
                grant.lvb = self.update_lvb(r, lvb);
            }
            self.fresh.push(i);
            self.serve(r, effects);
            return Ok(Outcome::Granted(grant));
        }
        if flags.contains(LockFlags::NOQUEUE) {
            if flags.contains(LockFlags::NOQUEUEBAST) {
                self.notify_holders(r, i, range, mode, effects);
            }
            return Ok(Outcome::Denied(DenyReason::WouldQueue));
        }
        self.unlink(i);
        let position = self.fitting_position(r, Queue::Converting, after, position);
        let lock = &mut self.locks[i];
        (lock.wanted, lock.flags, lock.position) = (Some(mode), flags, position);
        let demoted = lock.demoted;
        self.link(i, Queue::Converting, after);
        if demoted {
            // The mode given up may have been all that a NOORDER request waited for. (The kernel leaves it waiting until
            // something else happens.)
            self.serve_waiting(r, effects);
        }
        self.notify_fresh(effects);
        self.notify_holders(r, i, range, mode, effects);
        Ok(Outcome::Queued { position, demoted })
    }

    /// Removes a lock, whatever it holds or waits for, and serves those that it was in the way of.
    ///
    /// `lvb` is used if the lock holds (or, being a possible holder, may hold) PW or EX.
    ///
    /// # Errors
    /// `Unknown`, `LvbLength`; nothing has happened then.
    pub fn unlock(
        &mut self,
        lock: LockId,
        lvb: LvbUpdate,
        effects: &mut Vec<Effect>,
    ) -> Result<Removed<P>, TableError> {
        let i = self.find(lock)?;
        lvb.check()?;
        Ok(self.remove(i, lvb, effects))
    }

    /// Takes back a request or conversion that waits. The grant may have come first: see [`Cancelled`].
    ///
    /// # Errors
    /// `Unknown`.
    pub fn cancel(&mut self, lock: LockId, effects: &mut Vec<Effect>) -> Result<Cancelled<P>, TableError> {
        let i = self.find(lock)?;
        let entry = &self.locks[i];
        match (entry.granted, entry.wanted) {
            (_, None) => Ok(Cancelled::NotWaiting),
            (None, Some(_)) => Ok(Cancelled::Removed(self.remove(i, LvbUpdate::Keep, effects))),
            (Some(mode), Some(_)) => {
                let r = entry.resource;
                self.end_conversion(i);
                self.serve(r, effects);
                Ok(Cancelled::Reverted { mode })
            }
        }
    }

    /// Forgets what a lock was told, and tells it again of those it blocks: for a client that took the lock over, or
    /// reconnected and may have missed notices.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn rebast(&mut self, lock: LockId, effects: &mut Vec<Effect>) -> Result<(), TableError> {
        let i = self.find(lock)?;
        self.locks[i].told = ModeSet::EMPTY;
        self.notify_holder(i, effects);
        Ok(())
    }

    /// Gives a lock another id: it was adopted by another session.
    ///
    /// # Errors
    /// `Unknown`, `Duplicate`; nothing has happened then.
    pub fn rename(&mut self, lock: LockId, new: LockId) -> Result<(), TableError> {
        let i = self.find(lock)?;
        if self.contains(new) {
            return Err(TableError::Duplicate(new));
        }
        self.change_owner(i, |table| {
            table.forget_id(i);
            table.locks[i].id = new;
            table.remember_id(i, table.hasher.hash_one(new));
        });
        Ok(())
    }

    /// Replaces the caller's part of a lock: it belongs to somebody else now, perhaps to another transaction.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn set_payload(&mut self, lock: LockId, payload: P) -> Result<(), TableError> {
        let i = self.find(lock)?;
        self.change_owner(i, |table| table.locks[i].payload = payload);
        Ok(())
    }

    /// Back to the granted queue in the mode that is held.
    fn end_conversion(&mut self, i: u32) {
        self.unlink(i);
        let lock = &mut self.locks[i];
        (lock.wanted, lock.demoted) = (None, false);
        self.link_granted(i);
    }

    fn remove(&mut self, i: u32, lvb: LvbUpdate, effects: &mut Vec<Effect>) -> Removed<P> {
        let Lock { resource: r, .. } = self.locks[i];
        let may_write = self.locks[i].held().iter().any(|mode| mode >= Mode::PW);
        self.unlink(i);
        self.disown(i);
        self.forget_id(i);
        let Lock { granted, wanted, range, standing, payload, .. } = self.locks.remove(i);
        if [Queue::Granted, Queue::Converting, Queue::Waiting].into_iter().all(|queue| self.list(r, queue).is_empty()) {
            let resource = self.remove_resource(r);
            return Removed { resource, granted, wanted, range, standing, lvb: LvbTransfer::None, payload };
        }
        let lvb = if may_write { self.update_lvb(r, lvb) } else { LvbTransfer::None };
        self.serve(r, effects);
        let resource = self.resources[r].name.clone();
        Removed { resource, granted, wanted, range, standing, lvb, payload }
    }

    fn find_index(&self, lock: LockId) -> Option<u32> {
        self.by_id.find(self.hasher.hash_one(lock), |&i| self.locks[i].id == lock).copied()
    }

    fn find(&self, lock: LockId) -> Result<u32, TableError> {
        self.find_index(lock).ok_or(TableError::Unknown(lock))
    }

    fn find_resource(&self, resource: &Resource) -> Option<u32> {
        self.by_resource.find(self.hasher.hash_one(resource), |&r| self.resources[r].name == *resource).copied()
    }

    fn find_or_add_resource(&mut self, resource: Resource) -> u32 {
        let Table { resources, by_resource, hasher, .. } = self;
        let hash = hasher.hash_one(&resource);
        let same = |&r: &u32| resources[r].name == resource;
        let rehash = |&r: &u32| hasher.hash_one(&resources[r].name);
        match by_resource.entry(hash, same, rehash) {
            Entry::Occupied(found) => *found.get(),
            Entry::Vacant(place) => {
                let r = resources.insert(Res { name: resource, granted: List::EMPTY, more: None });
                place.insert(r);
                r
            }
        }
    }

    fn remove_resource(&mut self, r: u32) -> Resource {
        let name = self.resources.remove(r).name;
        let entry = self.by_resource.find_entry(self.hasher.hash_one(&name), |&index| index == r);
        entry.expect("every resource is in the index").remove();
        name
    }

    fn add_lock(&mut self, lock: Lock<P>, id_hash: u64) -> u32 {
        let i = self.locks.insert(lock);
        self.remember_id(i, id_hash);
        self.own(i);
        i
    }

    fn remember_id(&mut self, i: u32, hash: u64) {
        let Table { locks, by_id, hasher, .. } = self;
        by_id.insert_unique(hash, i, |&index| hasher.hash_one(locks[index].id));
    }

    fn forget_id(&mut self, i: u32) {
        let hash = self.hasher.hash_one(self.locks[i].id);
        let entry = self.by_id.find_entry(hash, |&index| index == i);
        entry.expect("every lock is in the index").remove();
    }
}

/// The kernel's rules for a new request (`set_lock_args`).
fn check_request_flags(flags: LockFlags, mode: Mode) -> Result<(), TableError> {
    let rule = if flags.contains(LockFlags::QUECVT) || flags.contains(LockFlags::CONVDEADLK) {
        "QUECVT and CONVDEADLK are for conversions only"
    } else if flags.contains(LockFlags::EXPEDITE) && mode != Mode::NL {
        "EXPEDITE is for NL only"
    } else if flags.contains(LockFlags::EXPEDITE | LockFlags::NOQUEUE) {
        "EXPEDITE and NOQUEUE exclude each other"
    } else {
        return Ok(());
    };
    Err(TableError::Flags { flags, rule })
}

/// The kernel's rules for a conversion (`set_lock_args`, `validate_lock_args`, `__quecvt_compat_matrix`).
fn check_conversion_flags(flags: LockFlags, held: Mode, mode: Mode) -> Result<(), TableError> {
    let rule = if flags.contains(LockFlags::EXPEDITE) {
        "EXPEDITE is for new requests only"
    } else if flags.contains(LockFlags::OWN) {
        "OWN is for new requests only"
    } else if flags.contains(LockFlags::CONVDEADLK | LockFlags::NOQUEUE) {
        "CONVDEADLK and NOQUEUE exclude each other"
    } else if flags.contains(LockFlags::QUECVT) && held.covers(mode) {
        "QUECVT is not for a conversion to the same or a weaker mode"
    } else {
        return Ok(());
    };
    Err(TableError::Flags { flags, rule })
}
