//! Looking at the table.

use super::entry::{Lock, ModeSet, Queue};
use super::{Blocking, LockFlags, LockView, Payload, Standing, Table};
use mxlock_format::{LockId, Lvb, Resource};

impl<P: Payload> Table<P> {
    /// How many locks there are, in all queues.
    pub fn len(&self) -> usize {
        self.locks.len()
    }

    /// Whether there is no lock at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the lock is in the table.
    pub fn contains(&self, lock: LockId) -> bool {
        self.find_index(lock).is_some()
    }

    /// The lock, if it is in the table.
    pub fn get(&self, lock: LockId) -> Option<LockView<'_, P>> {
        Some(self.view(&self.locks[self.find_index(lock)?]))
    }

    /// The caller's part of a lock, to be changed; but not its transaction ([`Table::set_payload`]).
    pub fn payload_mut(&mut self, lock: LockId) -> Option<&mut P> {
        let i = self.find_index(lock)?;
        Some(&mut self.locks[i].payload)
    }

    /// All locks, in an order that depends on the history of operations only.
    pub fn locks(&self) -> impl Iterator<Item = LockView<'_, P>> {
        self.locks.iter().map(|(_, lock)| self.view(lock))
    }

    /// The locks on one resource: holders, then conversions and new requests in their order.
    pub fn locks_on(&self, resource: &Resource) -> impl Iterator<Item = LockView<'_, P>> {
        self.find_resource(resource)
            .into_iter()
            .flat_map(|r| self.walk_holders(r).chain(self.walk(r, Queue::Waiting)))
            .map(|(_, lock)| self.view(lock))
    }

    /// All that a later step may depend on, but for the places in memory.
    #[cfg(feature = "model")]
    pub(crate) fn digest(&self, hasher: &mut impl std::hash::Hasher)
    where
        P: std::hash::Hash,
    {
        use std::hash::Hash;
        let Table { locks: _, resources, by_id: _, by_resource: _, hasher: _, waiting: _, owned: _, .. } = self;
        let Table { changed, epoch, lvb_writes, fresh, .. } = self;
        (changed, epoch, lvb_writes, fresh).hash(hasher);
        let mut names: Vec<_> = resources.iter().map(|(r, resource)| (&resource.name, r)).collect();
        names.sort();
        for (name, r) in names {
            (name, resources[r].lvb()).hash(hasher);
            for (_, lock) in self.walk_holders(r).chain(self.walk(r, Queue::Waiting)) {
                let Lock { id, range, position, resource: _, prev: _, next: _, flags, .. } = lock;
                let Lock { granted, wanted, queue, standing, told, demoted, payload, .. } = lock;
                (id, range, position, flags).hash(hasher);
                (granted, wanted, queue, standing, told, demoted, payload).hash(hasher);
            }
        }
    }

    /// The resources that have locks.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.resources.iter().map(|(_, resource)| &resource.name)
    }

    /// How many resources have locks.
    pub fn resource_count(&self) -> usize {
        self.resources.len()
    }

    /// The value block of a resource. `None`: never written and never invalidated since its oldest lock came. With no
    /// bytes: invalidated, and never written before.
    pub fn lvb(&self, resource: &Resource) -> Option<&Lvb> {
        self.resources[self.find_resource(resource)?].lvb()
    }

    /// Whom a queued lock waits for: the edges of the wait-for graph (section 7). Empty for a lock that waits for nothing.
    /// A lock that both holds a mode in the way and is ahead is listed once, as holding. Holders come first, then those
    /// ahead, the nearest first.
    pub fn blockers(&self, lock: LockId) -> impl Iterator<Item = (LockId, Blocking)> {
        self.find_index(lock).into_iter().flat_map(|i| self.in_the_way(i)).map(|(j, why)| (self.locks[j].id, why))
    }

    /// The same by index.
    pub(super) fn in_the_way(&self, i: u32) -> impl Iterator<Item = (u32, Blocking)> {
        let me = &self.locks[i];
        let waits = me.wanted.filter(|_| me.standing != Standing::Possible);
        waits.into_iter().flat_map(move |wanted| {
            let in_order = !me.flags.contains(LockFlags::NOORDER);
            let overlaps = |other: &Lock<P>| other.range.overlaps(me.range);
            let own = me.own();
            let holds = move |other: &Lock<P>| {
                other.queue != Queue::Waiting && other.held().conflicts(wanted) && own != Some(other.belongs_to())
            };
            let holders = self.walk_holders(me.resource).filter(move |&(j, other)| j != i && holds(other));
            let ahead = self.walk_ahead(i).filter(move |&(_, other)| in_order && !holds(other));
            let holders = holders.filter(move |&(_, other)| overlaps(other)).map(|(j, _)| (j, Blocking::Holds));
            let ahead = ahead.filter(move |&(_, other)| overlaps(other)).map(move |(j, other)| {
                let clash = other.wanted.is_some_and(|its| !its.compatible(wanted));
                (j, if clash { Blocking::Ahead } else { Blocking::ServedFirst })
            });
            holders.chain(ahead)
        })
    }

    fn view<'a>(&'a self, lock: &'a Lock<P>) -> LockView<'a, P> {
        LockView {
            lock: lock.id,
            resource: &self.resources[lock.resource].name,
            granted: lock.granted,
            wanted: lock.wanted,
            standing: lock.standing,
            position: lock.position,
            range: lock.range,
            flags: lock.flags,
            demoted: lock.demoted,
            told: lock.told != ModeSet::EMPTY,
            payload: &lock.payload,
        }
    }
}
