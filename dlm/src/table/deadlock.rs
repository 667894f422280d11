//! Deadlocks over the whole cluster: the wait-for graph and its cycles (DESIGN section 7, "Deadlock").
//!
//! The nodes are owners: transactions, and the sessions of locks without one. A request that waits needs out of its way
//! * those who hold what it conflicts with;
//! * those whose requests are ahead of it and conflict with it, since they will hold that before it is served;
//! * whatever the requests ahead of it need out of theirs, since they are served before it.
//!
//! It needs all of them, so every cycle is a deadlock, provided that an owner does nothing else while one of its requests
//! waits. For one that does there are NODLCKWT (this request does not keep its owner from releasing others) and NODLCKBLK
//! (this lock will be released whatever its owner waits for). A session does not wait for itself, because its threads may
//! wait for each other; a transaction does.
//!
//! Edges that an operation adds begin or end at the owner of a lock that it queued, granted or gave to somebody else, or
//! begin at the owner of one that waits behind a lock that it queued. So a search through the owners of these finds
//! every cycle at the moment when it closes.

use super::entry::{Lock, Queue};
use super::slab::NIL;
use super::{LockFlags, Owner, Payload, Standing, Table};
use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
use mxlock_format::{ByteRange, LockId, Mode};

/// Which edges of the graph a search follows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// Those that make a deadlock: not what NODLCKWT and NODLCKBLK leave out.
    Counting,
    /// Those too: for people, who want to know why something does not end.
    All,
}

/// What a search remembers.
struct Search {
    follow: Follow,
    /// Waiting locks that were reached, each from the one whose owner waits for its owner.
    from: HashMap<u32, u32>,
    /// Those that were not looked at yet, the last one next.
    todo: Vec<u32>,
    met: HashSet<Owner>,
    /// Resources whose holders were looked at for a mode: ten thousand readers are not looked at again for each of a
    /// thousand writers. With the holders in the way that did not count then: the lock itself, and those of whoever waited.
    looked: HashMap<(u32, Mode), Vec<u32>>,
    /// Waiting locks for which those ahead were looked at on behalf of one behind.
    passed: HashSet<u32>,
    /// Locks that were looked at, counted every time.
    steps: usize,
}

impl Search {
    fn new(follow: Follow) -> Search {
        Search {
            follow,
            from: HashMap::new(),
            todo: Vec::new(),
            met: HashSet::new(),
            looked: HashMap::new(),
            passed: HashSet::new(),
            steps: 0,
        }
    }

    /// Whether what this flag leaves out is left out here.
    fn leaves_out<P>(&self, lock: &Lock<P>, flag: LockFlags) -> bool {
        self.follow == Follow::Counting && lock.flags.contains(flag)
    }
}

/// A waiting lock whose edges are followed.
#[derive(Clone, Copy)]
struct Waiter {
    i: u32,
    owner: Owner,
    /// Where the search began.
    origin: Owner,
}

impl<P: Payload> Table<P> {
    /// A cycle of the wait-for graph through the owner of `lock`: waiting locks, each of whose owners waits for the owner
    /// of the next one, and the last for the first. `None`: there is no such cycle, or no such lock.
    pub fn find_cycle(&self, lock: LockId) -> Option<Vec<LockId>> {
        let i = self.find_index(lock)?;
        let origin = self.owner(i);
        // The common case: the last in a queue, of an owner that has nothing else. Nobody waits for it.
        let last = self.locks[i].queue == Queue::Waiting && self.locks[i].next == NIL;
        if last && self.owned.get(&origin) == Some(&1) {
            return None;
        }
        let mut unlimited = usize::MAX;
        self.search(origin, Follow::Counting, &mut unlimited)
    }

    /// A cycle through `origin`. Every lock that is looked at costs one of `steps`; without any left, none is found.
    pub(super) fn search(&self, origin: Owner, follow: Follow, steps: &mut usize) -> Option<Vec<LockId>> {
        let mut search = Search::new(follow);
        self.reach(&mut search, origin, NIL);
        while let Some(waiting) = search.todo.pop().filter(|_| search.steps < *steps) {
            if self.look(&mut search, waiting, origin) {
                let mut cycle: Vec<LockId> = std::iter::successors(Some(waiting), |i| search.from.get(i).copied())
                    .take_while(|&i| i != NIL)
                    .map(|i| self.locks[i].id)
                    .collect();
                cycle.reverse();
                return Some(cycle);
            }
        }
        *steps = steps.saturating_sub(search.steps);
        None
    }

    /// A cycle that some operation since the last call has closed; again and again, until there is none.
    pub fn next_cycle(&mut self) -> Option<Vec<LockId>> {
        while let Some(&lock) = self.changed.last() {
            let cycle = self.find_cycle(lock);
            if cycle.is_some() {
                return cycle;
            }
            self.changed.pop();
        }
        None
    }

    /// Lock `i` may be an end of a new edge, if anybody waits on its resource.
    pub(super) fn note_change(&mut self, i: u32) {
        let lock = &self.locks[i];
        let waits = |queue| !self.list(lock.resource, queue).is_empty();
        if !waits(Queue::Converting) && !waits(Queue::Waiting) {
            return;
        }
        self.changed.push(lock.id);
        // It is to be served before those behind it, which now need what it needs. (None, at the tail.)
        let mut behind = if lock.queue == Queue::Granted { NIL } else { lock.next };
        let waiting = self.list(lock.resource, Queue::Waiting).head;
        let mut rest = if lock.queue == Queue::Converting { waiting } else { NIL };
        while behind != NIL || rest != NIL {
            let j = if behind == NIL { std::mem::replace(&mut rest, NIL) } else { behind };
            self.changed.push(self.locks[j].id);
            behind = self.locks[j].next;
        }
    }

    /// `owner` is waited for: so are those that keep it waiting.
    fn reach(&self, search: &mut Search, owner: Owner, from: u32) {
        if !search.met.insert(owner) {
            return;
        }
        for &(_, waiting) in self.waiting.range((owner, 0)..=(owner, NIL)) {
            if !search.leaves_out(&self.locks[waiting], LockFlags::NODLCKWT) {
                search.from.insert(waiting, from);
                search.todo.push(waiting);
            }
        }
    }

    /// Follows the edges of one waiting lock. True if one leads to `origin`.
    fn look(&self, search: &mut Search, i: u32, origin: Owner) -> bool {
        let Lock { resource: r, range, flags, queue, wanted, prev, .. } = self.locks[i];
        let Some(wanted) = wanted else { return false };
        let me = Waiter { i, owner: self.owner(i), origin };
        let ranged = self.resources[r].may_have_ranges();
        if self.look_at_holders(search, me, i) {
            return true;
        }
        if flags.contains(LockFlags::NOORDER) || search.passed.contains(&i) {
            return false;
        }
        // Those that are to be served: the lock itself, and whoever is ahead.
        let mut before: Vec<(Mode, ByteRange)> = vec![(wanted, range)];
        let mut passed = vec![i];
        let (mut ahead, mut queue) = (prev, queue);
        loop {
            if ahead == NIL {
                if queue == Queue::Converting {
                    break;
                }
                // A new request is served when no one converts.
                queue = Queue::Converting;
                ahead = self.list(r, queue).tail;
                continue;
            }
            let (j, other) = (ahead, &self.locks[ahead]);
            ahead = other.prev;
            search.steps += 1;
            let Some(its) = other.wanted else { continue };
            let mut meeting = before.iter().filter(|(_, range)| other.range.overlaps(*range)).peekable();
            if meeting.peek().is_none() {
                continue;
            }
            if meeting.any(|(mode, _)| !mode.compatible(its)) && !search.leaves_out(other, LockFlags::NODLCKBLK) {
                if self.owner(j) == me.owner {
                    // What was left out for it counts for the others.
                    passed.clear();
                }
                if self.meet(search, me, j) {
                    return true;
                }
            }
            if self.look_at_holders(search, me, j) {
                return true;
            }
            let left_out = search.looked.get(&(r, its));
            if left_out.is_some_and(|locks| locks.iter().any(|&holder| self.owner(holder) == me.owner)) {
                passed.clear();
            }
            // It waits for those ahead of it in its turn, and with it all that are behind it.
            let known = !ranged && before.iter().any(|(mode, _)| *mode == its);
            if !known && !other.flags.contains(LockFlags::NOORDER) {
                before.push((its, other.range));
            }
            if !other.flags.contains(LockFlags::NOORDER) {
                passed.push(j);
            }
        }
        if !ranged {
            search.passed.extend(passed);
        }
        false
    }

    /// Follows the edges to those who hold what conflicts with the mode that lock `i` wants: `me`, or one ahead of it. True
    /// if one leads to the origin.
    fn look_at_holders(&self, search: &mut Search, me: Waiter, i: u32) -> bool {
        let Lock { resource: r, range, wanted: Some(mode), .. } = self.locks[i] else { return false };
        let own = self.locks[i].own();
        if !self.resources[r].may_have_ranges()
            && own.is_none()
            && let Some(left_out) = search.looked.get(&(r, mode)).cloned()
        {
            return left_out.into_iter().any(|j| j != i && self.meet(search, me, j));
        }
        let mut left_out = Vec::new();
        for (j, other) in self.walk_holders(r) {
            search.steps += 1;
            let in_the_way = other.range.overlaps(range)
                && other.standing != Standing::Possible
                && other.held().conflicts(mode)
                && own != Some(other.belongs_to())
                && !search.leaves_out(other, LockFlags::NODLCKBLK);
            if !in_the_way {
                continue;
            }
            if j == i || self.owner(j) == me.owner {
                left_out.push(j);
            }
            if j != i && self.meet(search, me, j) {
                return true;
            }
        }
        // (What is left out for OWN is in the way of others.)
        if own.is_none() {
            search.looked.insert((r, mode), left_out);
        }
        false
    }

    /// An edge to the owner of lock `j`. True if that is the origin.
    fn meet(&self, search: &mut Search, me: Waiter, j: u32) -> bool {
        let other = self.owner(j);
        if other == me.owner && matches!(other, Owner::Session(_)) {
            return false;
        }
        if other != me.origin {
            self.reach(search, other, me.i);
        }
        other == me.origin
    }

    /// Whose lock it is, as far as deadlocks go.
    pub(super) fn owner(&self, i: u32) -> Owner {
        let lock = &self.locks[i];
        match lock.payload.transaction() {
            0 => Owner::Session(lock.id.session),
            transaction => Owner::Transaction(transaction),
        }
    }

    /// Carries out a change after which lock `i` may be another owner's.
    pub(super) fn change_owner(&mut self, i: u32, change: impl FnOnce(&mut Table<P>)) {
        let waits = self.waiting.remove(&(self.owner(i), i));
        self.disown(i);
        change(self);
        self.own(i);
        if waits {
            self.waiting.insert((self.owner(i), i));
        }
        self.note_change(i);
    }

    /// Counts lock `i` among those of its owner.
    pub(super) fn own(&mut self, i: u32) {
        let owner = self.owner(i);
        *self.owned.entry(owner).or_insert(0) += 1;
    }

    /// Counts lock `i` out.
    pub(super) fn disown(&mut self, i: u32) {
        let Entry::Occupied(mut count) = self.owned.entry(self.owner(i)) else { unreachable!("every lock is counted") };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}
