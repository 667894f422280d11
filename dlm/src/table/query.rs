//! Looking at the table.

use super::entry::{Lock, Queue};
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
    /// A lock that both holds a mode in the way and is ahead is listed once, as holding.
    pub fn blockers(&self, lock: LockId) -> impl Iterator<Item = (LockId, Blocking)> {
        let queued = self.find_index(lock).map(|i| (i, &self.locks[i])).and_then(|(i, me)| {
            let waits = me.wanted.is_some() && me.standing != Standing::Possible;
            waits.then_some((i, me, me.wanted?))
        });
        queued.into_iter().flat_map(move |(i, me, wanted)| {
            let in_order = !me.flags.contains(LockFlags::NOORDER);
            let overlaps = move |other: &&(u32, &Lock<P>)| other.1.range.overlaps(me.range);
            // Once it has met itself, those that follow in its own queue are behind it.
            let mut behind = false;
            self.walk_holders(me.resource).chain(self.walk(me.resource, Queue::Waiting)).filter_map(move |entry| {
                let (j, other) = entry;
                if j == i {
                    behind = true;
                    return None;
                }
                if !overlaps(&&entry) {
                    return None;
                }
                if other.queue != Queue::Waiting && other.held().conflicts(wanted) {
                    return Some((other.id, Blocking::Holds));
                }
                (other.queue != Queue::Granted && in_order && !behind).then_some((other.id, Blocking::Ahead))
            })
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
            payload: &lock.payload,
        }
    }
}
