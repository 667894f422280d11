//! What `mxlock why` shows: who waits for whom, and what would end it.

use super::listing::Places;
use super::*;
use crate::limits::{WHY_BLOCKERS, WHY_LOCKS, WHY_STEPS};
use crate::table::{Blocking, ChainLimits, Link, Standing};
use mxlock_proto::LockFlags;
use mxlock_proto::why::{Blocker, How, Until, Why, WhyLock};

const LIMITS: ChainLimits = ChainLimits { locks: WHY_LOCKS, blockers: WHY_BLOCKERS, steps: WHY_STEPS };

impl Master {
    /// The chain of waiting that begins at a resource. What is known of the nodes is for the core to add.
    pub(crate) fn why(&self, now: Now, resource: &Resource) -> Why {
        let chain = self.table.chain(resource, &LIMITS);
        let mut places = self.places(chain.links.iter().map(|link| link.lock));
        let mut why = Why {
            locks: chain.links.iter().filter_map(|link| self.explained(now, link, &mut places)).collect(),
            omitted: chain.omitted as u64,
            cycle: chain.cycle.unwrap_or_default(),
            search_ended_early: !chain.complete,
            nodes: Vec::new(),
            now_ms: now.wall_ms,
        };
        if why.cycle.iter().any(|lock| why.get(*lock).is_none()) {
            // The locks of a cycle that was found beyond what is listed could not be shown.
            why.cycle.clear();
            why.search_ended_early = true;
        }
        why
    }

    /// The places in their queues of these locks.
    fn places(&self, locks: impl Iterator<Item = LockId>) -> BTreeMap<LockId, u32> {
        let wanted: BTreeSet<LockId> = locks.collect();
        let resources: BTreeSet<&Resource> =
            wanted.iter().filter_map(|lock| Some(self.table.get(*lock)?.resource)).collect();
        let mut places = BTreeMap::new();
        for resource in resources {
            let mut count = Places::default();
            for view in self.table.locks_on(resource) {
                if let Some(place) = count.next(view.phase()).filter(|_| wanted.contains(&view.lock)) {
                    places.insert(view.lock, place);
                }
            }
        }
        places
    }

    fn explained(&self, now: Now, link: &Link, places: &mut BTreeMap<LockId, u32>) -> Option<WhyLock> {
        let view = self.table.get(link.lock)?;
        let how = |why| match why {
            Blocking::Holds => How::Holds,
            Blocking::Ahead => How::Ahead,
            Blocking::ServedFirst => How::ServedFirst,
        };
        Some(WhyLock {
            lock: self.listed(&view, places.remove(&link.lock)),
            transaction: view.payload.transaction,
            blockers: link.blockers.iter().map(|&(lock, why)| Blocker { lock, how: how(why) }).collect(),
            blockers_omitted: link.blockers_omitted as u64,
            nodlckwt: view.wanted.is_some() && view.flags.contains(LockFlags::NODLCKWT),
            nodlckblk: view.flags.contains(LockFlags::NODLCKBLK),
            told: view.told,
            until: self.until(now, &view),
        })
    }

    /// What would end a lock, or what it waits for.
    fn until(&self, now: Now, view: &LockView<'_, Holder>) -> Until {
        let holder = view.payload;
        if self.is_leaving(view.lock) || matches!(holder.settling, Settling::Release { .. }) {
            return Until::Cleared;
        }
        match view.standing {
            Standing::Possible => {
                let expiry = self.expiry_of.get(&view.lock);
                let left = |at: BootTime| u64::try_from(at.since(now.boot).as_millis()).unwrap_or(u64::MAX);
                Until::Reported { left_ms: expiry.map(|at| left(*at)) }
            }
            _ if view.wanted.is_some() => Until::Served,
            Standing::Orphan if holder.gone => Until::Adopted,
            Standing::Orphan => Until::Reconnected,
            Standing::Confirmed if holder.settling != Settling::Nothing => Until::Written,
            Standing::Confirmed => Until::Released,
        }
    }
}
