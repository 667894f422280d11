//! What the models need to see of a master, and what time does to it when they say so.

use super::*;
use std::hash::{Hash, Hasher};

impl Master {
    /// All that a later step may depend on. Left out: settings, counters, times (the models let things happen at any
    /// time), and the numbers of I/O, of which the models know what each is about.
    pub(crate) fn digest(&self, hasher: &mut impl Hasher) {
        let Master { reign, active, draining, members, slot_count, table, slots, mirror, durable, .. } = self;
        let Master { standing, behind, writes, lvb_waits, purges, adoptions, reported, .. } = self;
        let Master { partial_reports, expiries, expiry_of, damaged, saved, recovery, deferred, token_counter, .. } =
            self;
        let Master { next_position, lease_until, effects, orders, out, .. } = self;
        (reign, active, draining, members, durable, reported, adoptions).hash(hasher);
        table.digest(hasher);
        slots.digest(hasher);
        (0..*slot_count).for_each(|slot| mirror.image(slot).hash(hasher));
        let mut keys: Vec<_> = standing.iter().collect();
        keys.sort();
        keys.hash(hasher);
        let mut waiting: Vec<u32> = behind.iter().map(|(_, slot)| *slot).collect();
        waiting.sort_unstable();
        waiting.hash(hasher);
        let mut under_way: Vec<_> = writes.iter().map(|(io, info)| (slots.slot_of(*io), info)).collect();
        under_way.sort_by_key(|(slot, _)| *slot);
        under_way.hash(hasher);
        lvb_waits.hash(hasher);
        for purge::Purge { locks, marking, clearing, .. } in purges {
            (locks, marking, clearing).hash(hasher);
        }
        let mut expiring: Vec<LockId> = expiries.iter().map(|(_, lock)| *lock).collect();
        expiring.sort();
        let ends: Vec<&LockId> = expiry_of.keys().collect();
        (partial_reports, expiring, ends, damaged, saved).hash(hasher);
        if let Some(recovery) = recovery {
            recovery.digest(hasher);
        }
        for (node, incarnation, message) in deferred {
            (node, incarnation).hash(hasher);
            crate::model::digest_message(message, hasher);
        }
        // While it recovers, some wait for the view {active}.
        (token_counter, next_position, lease_until.is_some(), effects).hash(hasher);
        assert!(orders.is_empty() && out.is_empty(), "a step was not carried out to its end");
    }

    /// The slots that are looked at again behind.
    pub(crate) fn slots_behind(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = self.behind.iter().map(|(_, slot)| *slot).collect();
        slots.sort_unstable();
        slots
    }

    /// `clear_behind_ms` is over for one slot.
    pub(crate) fn look_behind(&mut self, now: Now, slot: u32) {
        self.behind_due.remove(&slot);
        self.behind.retain(|(_, other)| *other != slot);
        self.behind.insert((now.boot, slot));
        self.write_behind(now);
        self.run_effects(now);
    }

    /// The nodes of which possible holders are in the table whose lifetime is running.
    pub(crate) fn nodes_with_orphans(&self) -> NodeSet {
        let possible = self.expiries.iter().filter_map(|(_, lock)| self.table.get(*lock));
        let possible = possible.filter(|view| view.standing == crate::table::Standing::Possible);
        possible.filter(|view| !self.is_leaving(view.lock)).map(|view| view.payload.node).collect()
    }

    /// The lifetimes of what a node left are over.
    pub(crate) fn end_lifetimes(&mut self, now: Now, node: NodeId) {
        let of_node = |lock: &LockId| self.table.get(*lock).is_none_or(|view| view.payload.node == node);
        let (over, rest): (BTreeSet<_>, BTreeSet<_>) =
            self.expiries.iter().copied().partition(|(_, lock)| of_node(lock));
        self.expiries = rest;
        for (_, lock) in over {
            self.expiries.insert((now.boot, lock));
            self.expiry_of.insert(lock, now.boot);
        }
        self.expire_orphans(now);
        self.run_effects(now);
    }

    /// The members that have not been heard count as unreachable; whether any was waited for.
    pub(crate) fn lose_patience(&mut self, now: Now) -> bool {
        let lost = self.recovery.as_mut().is_some_and(|recovery| recovery.lose_patience(now));
        self.advance_recovery(now);
        lost
    }

    /// Whether members are waited for.
    pub(crate) fn is_hearing(&self) -> bool {
        self.recovery.as_ref().is_some_and(|recovery| recovery.deadline().is_some())
    }

    /// All locks of the table.
    pub(crate) fn table(&self) -> &Table<Holder> {
        &self.table
    }

    /// Whether nothing is on its way: no write, no purge, nobody who has to be told.
    pub(crate) fn is_at_rest(&self) -> bool {
        let settled = |view: LockView<'_, Holder>| view.payload.settling == Settling::Nothing;
        self.active
            && self.writes.is_empty()
            && self.behind.is_empty()
            && self.purges.is_empty()
            && self.lvb_waits.is_empty()
            && self.deferred.is_empty()
            && self.adoptions.is_empty()
            && self.standing.is_empty()
            && self.table.locks().all(settled)
    }
}
