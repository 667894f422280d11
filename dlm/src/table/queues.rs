//! Linking locks into the queues of their resource, and keeping the counts right.

use super::entry::{List, Lock, ModeSet, More, Queue};
use super::slab::NIL;
use super::{Payload, Table};
use crate::planted::{Bug, planted};
use mxlock_format::{ByteRange, Mode};

/// The locks of one list, in order.
pub(super) struct Walk<'a, P> {
    table: &'a Table<P>,
    next: u32,
}

impl<'a, P> Iterator for Walk<'a, P> {
    type Item = (u32, &'a Lock<P>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == NIL {
            return None;
        }
        let index = self.next;
        let lock = &self.table.locks[index];
        self.next = lock.next;
        Some((index, lock))
    }
}

impl<P: Payload> Table<P> {
    pub(super) fn list(&self, r: u32, queue: Queue) -> List {
        self.resources[r].list(queue)
    }

    pub(super) fn walk(&self, r: u32, queue: Queue) -> Walk<'_, P> {
        Walk { table: self, next: self.list(r, queue).head }
    }

    /// All that hold something: the granted queue, then the converting one.
    pub(super) fn walk_holders(&self, r: u32) -> impl Iterator<Item = (u32, &Lock<P>)> {
        self.walk(r, Queue::Granted).chain(self.walk(r, Queue::Converting))
    }

    /// All that wait for something: the converting queue, then the waiting one.
    pub(super) fn walk_blocked(&self, r: u32) -> impl Iterator<Item = (u32, &Lock<P>)> {
        self.walk(r, Queue::Converting).chain(self.walk(r, Queue::Waiting))
    }

    /// Those that are served before lock `i`, which is in a queue: the nearest first, at last the first conversion.
    pub(super) fn walk_ahead(&self, i: u32) -> impl Iterator<Item = (u32, &Lock<P>)> {
        let Lock { resource: r, queue, prev, .. } = self.locks[i];
        let back = move |from: u32| {
            std::iter::successors(Some(from).filter(|&j| j != NIL), |&j| Some(self.locks[j].prev).filter(|&j| j != NIL))
        };
        let own = if queue == Queue::Granted { NIL } else { prev };
        let converting = if queue == Queue::Waiting { self.list(r, Queue::Converting).tail } else { NIL };
        back(own).chain(back(converting)).map(|j| (j, &self.locks[j]))
    }

    /// Makes sure that the resource has its shared part, with the counts of the one lock that it may have had.
    pub(super) fn share(&mut self, r: u32) -> &mut More {
        if self.resources[r].more.is_none() {
            let mut more = Box::new(More::new());
            for (_, lock) in self.walk(r, Queue::Granted) {
                more.held.add(lock.held());
                more.ranged += u32::from(lock.is_ranged());
            }
            self.resources[r].more = Some(more);
        }
        self.resources[r].more.as_mut().expect("set just now")
    }

    /// Links lock `i` into `queue`, behind `after` (`NIL`: at the head).
    pub(super) fn link(&mut self, i: u32, queue: Queue, after: u32) {
        let r = self.locks[i].resource;
        if queue != Queue::Granted || !self.resources[r].granted.is_empty() {
            self.share(r);
        }
        let list = self.list(r, queue);
        let before = if after == NIL { list.head } else { self.locks[after].next };
        let lock = &mut self.locks[i];
        (lock.queue, lock.prev, lock.next) = (queue, after, before);
        match after {
            NIL => self.resources[r].list_mut(queue).head = i,
            _ => self.locks[after].next = i,
        }
        match before {
            NIL => self.resources[r].list_mut(queue).tail = i,
            _ => self.locks[before].prev = i,
        }
        self.count(i, true);
        self.note_change(i);
    }

    /// Links lock `i` at the tail of the granted queue. (The kernel means to keep that queue sorted by mode; nothing
    /// depends on its order but the order of blocking notices.)
    pub(super) fn link_granted(&mut self, i: u32) {
        let tail = self.list(self.locks[i].resource, Queue::Granted).tail;
        self.link(i, Queue::Granted, tail);
    }

    /// Takes lock `i` out of its queue.
    pub(super) fn unlink(&mut self, i: u32) {
        self.count(i, false);
        let Lock { resource: r, queue, prev, next, .. } = self.locks[i];
        match prev {
            NIL => self.resources[r].list_mut(queue).head = next,
            _ => self.locks[prev].next = next,
        }
        match next {
            NIL => self.resources[r].list_mut(queue).tail = prev,
            _ => self.locks[next].prev = prev,
        }
    }

    /// Adds lock `i`, where it is linked now, to the counts of its resource, or takes it out.
    pub(super) fn count(&mut self, i: u32, add: bool) {
        let lock = &self.locks[i];
        let waits = lock.queue != Queue::Granted;
        if waits {
            let entry = (self.owner(i), i);
            let changed = if add { self.waiting.insert(entry) } else { self.waiting.remove(&entry) };
            debug_assert!(changed, "a lock is counted once");
        }
        let lock = &self.locks[i];
        let Some(more) = &mut self.resources[lock.resource].more else { return };
        let held = if lock.queue == Queue::Waiting { ModeSet::EMPTY } else { lock.held() };
        let wanted: ModeSet = if waits { lock.wanted.into_iter().collect() } else { ModeSet::EMPTY };
        let ranged = u32::from(lock.is_ranged());
        let unordered = u32::from(waits && lock.flags.contains(super::LockFlags::NOORDER));
        if add {
            more.held.add(held);
            more.wanted.add(wanted);
            more.ranged += ranged;
            more.unordered += unordered;
        } else {
            more.held.sub(held);
            more.wanted.sub(wanted);
            more.ranged -= ranged;
            more.unordered -= unordered;
        }
    }

    /// Behind which lock of `queue` a request with this position goes; `NIL` is the head.
    pub(super) fn place(&self, r: u32, queue: Queue, position: u64, at_head: bool) -> u32 {
        if at_head || planted(Bug::LifoWaiters) && queue == Queue::Waiting {
            return NIL;
        }
        let mut after = self.list(r, queue).tail;
        while after != NIL && self.locks[after].position > position {
            after = self.locks[after].prev;
        }
        after
    }

    /// Behind which conversion a new one goes. One that does not go to the tail (HEADQUE, or sent again after a
    /// failover) must not pass a conversion whose granted mode it would then wait for, because that one would wait for
    /// it in turn. (The kernel lets HEADQUE do that and leaves the two deadlocked.)
    pub(super) fn place_conversion(&self, r: u32, wanted: Mode, range: ByteRange, position: u64, at_head: bool) -> u32 {
        let place = self.place(r, Queue::Converting, position, at_head);
        let mut after = self.list(r, Queue::Converting).tail;
        while after != place {
            let other = &self.locks[after];
            if other.granted.is_some_and(|mode| !mode.compatible(wanted)) && other.range.overlaps(range) {
                return after;
            }
            after = other.prev;
        }
        place
    }

    /// `position`, or the nearest one that keeps the queue sorted for a lock behind `after`. Keeping HEADQUE's place in
    /// the number is what lets a failover restore it.
    pub(super) fn fitting_position(&self, r: u32, queue: Queue, after: u32, position: u64) -> u64 {
        let before = if after == NIL { self.list(r, queue).head } else { self.locks[after].next };
        let low = if after == NIL { 0 } else { self.locks[after].position };
        match before {
            NIL => position.max(low),
            _ if (low..=self.locks[before].position).contains(&position) => position,
            _ => self.locks[before].position.saturating_sub(1).max(low),
        }
    }
}
