//! Who waits for whom, from one resource on, for people (`mxlock why`).
//!
//! The edges are those of the wait-for graph ([`Table::blockers`], decision 008), also where NODLCKWT or NODLCKBLK keeps
//! them from counting as a deadlock: somebody wants to know why something does not end. A cycle is searched for by the
//! same code as the detector's. One that counts is never found here, because it was broken when it closed.

use super::deadlock::Follow;
use super::entry::Queue;
use super::{Blocking, Owner, Payload, Standing, Table};
use hashbrown::HashSet;
use mxlock_format::{LockId, Resource};
use std::collections::BTreeSet;

/// How far to look. A resource can have a million locks, and the master has other things to do.
#[derive(Clone, Copy, Debug)]
pub struct ChainLimits {
    /// Locks that are listed.
    pub locks: usize,
    /// Blockers that are listed of each.
    pub blockers: usize,
    /// Locks that are looked at, counted every time.
    pub steps: usize,
}

/// A lock of the chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The lock.
    pub lock: LockId,
    /// What it waits for: those that hold, then those ahead, the nearest first.
    pub blockers: Vec<(LockId, Blocking)>,
    /// Further ones.
    pub blockers_omitted: usize,
}

/// Who waits for whom, from one resource on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    /// The locks of the resource, each queue in its order; then what their blockers' owners wait for, and so on.
    pub links: Vec<Link>,
    /// Locks of the resource that are not listed.
    pub omitted: usize,
    /// A cycle that the chain leads to: waiting locks, each of whose owners waits for the owner of the next.
    pub cycle: Option<Vec<LockId>>,
    /// Whether there were steps enough. If not, there may be more links, and a cycle.
    pub complete: bool,
}

/// The locks of a chain, in the order in which they were met.
struct Listed {
    order: Vec<u32>,
    known: HashSet<u32>,
    most: usize,
    complete: bool,
}

impl Listed {
    fn add(&mut self, i: u32) {
        if self.known.contains(&i) {
            return;
        }
        if self.order.len() < self.most {
            self.known.insert(i);
            self.order.push(i);
        } else {
            self.complete = false;
        }
    }
}

impl<P: Payload> Table<P> {
    /// The chain of waiting that begins at the locks of `resource`.
    pub fn chain(&self, resource: &Resource, limits: &ChainLimits) -> Chain {
        let Some(r) = self.find_resource(resource) else { return Chain { complete: true, ..Chain::default() } };
        let mut listed = Listed { order: Vec::new(), known: HashSet::new(), most: limits.locks, complete: true };
        // Ten thousand readers must not hide the writers that wait for them.
        let (mut count, share) = (0, (limits.locks / 4).max(1));
        for queue in [Queue::Granted, Queue::Converting, Queue::Waiting] {
            for (n, (i, _)) in self.walk(r, queue).enumerate() {
                count += 1;
                if n < share {
                    listed.add(i);
                }
            }
        }
        let mut steps = limits.steps;
        let mut links = Vec::new();
        let mut waited_for: BTreeSet<Owner> = BTreeSet::new();
        let mut at = 0;
        while let Some(&i) = listed.order.get(at) {
            at += 1;
            let link = self.link_of(i, limits, &mut steps, |j, why| {
                listed.add(j);
                let owner = self.owner(j);
                // What has only to be served does not wait for its owner. A session that waits for itself may do so because
                // the thread that holds the lock waits for something else.
                let possible = self.locks[j].standing == Standing::Possible;
                if why != Blocking::ServedFirst && !possible && waited_for.insert(owner) {
                    self.waits_of(owner).for_each(|waiting| listed.add(waiting));
                }
            });
            links.push(link);
        }
        let omitted = count - listed.order.iter().filter(|&&i| self.locks[i].resource == r).count();
        let search = |owner: &Owner| self.search(*owner, Follow::All, &mut steps);
        let cycle = waited_for.iter().find_map(search);
        Chain { links, omitted, cycle, complete: listed.complete && steps > 0 }
    }

    /// A lock with its blockers, each of which is also passed to `each`.
    fn link_of(&self, i: u32, limits: &ChainLimits, steps: &mut usize, mut each: impl FnMut(u32, Blocking)) -> Link {
        let (mut blockers, mut blockers_omitted) = (Vec::new(), 0);
        for (j, why) in self.in_the_way(i).take(*steps) {
            *steps -= 1;
            if blockers.len() < limits.blockers {
                each(j, why);
                blockers.push((self.locks[j].id, why));
            } else {
                blockers_omitted += 1;
            }
        }
        Link { lock: self.locks[i].id, blockers, blockers_omitted }
    }

    /// What an owner waits for.
    fn waits_of(&self, owner: Owner) -> impl Iterator<Item = u32> {
        self.waiting.range((owner, 0)..=(owner, u32::MAX)).map(|&(_, waiting)| waiting)
    }
}
