//! Orphans: locks whose owners are gone, how long they live, and who may adopt them (section 7).

use super::*;
use crate::limits::DETACHED_LIFETIME_MS;
use crate::slots::Owner;
use crate::table::{LvbUpdate, Standing};
use mxlock_proto::LockFlags;
use mxlock_proto::peer::NewLock;

impl Master {
    /// Makes a held lock an orphan that lives until it is adopted or purged.
    pub(super) fn orphan(&mut self, now: Now, lock: LockId) {
        let Some(view) = self.table.get(lock) else { return };
        let (granted, slot, value) = (view.granted, view.payload.slot, Self::may_write_value(view.granted));
        let resource = view.resource.clone();
        let holder = self.table.payload_mut(lock).expect("still there");
        (holder.gone, holder.abandoned) = (true, true);
        if value && self.table.lvb(&resource).is_some() {
            self.table.update_value(&resource, LvbUpdate::Invalidate);
            self.refresh_values(now, &resource);
        }
        let _ = self.table.restate(lock, granted, None, Standing::Orphan, &mut self.effects);
        if slot != NO_SLOT {
            self.write_later(now, slot);
        }
    }

    /// Gives a lock whose owner has lost its memory the rest of its life. After it a PERSISTENT one can be adopted.
    pub(super) fn expire_later(&mut self, now: Now, lock: LockId) {
        let Some(view) = self.table.get(lock) else { return };
        // A restarted daemon watches the process of a detached session; if it does not come back, its node is excluded.
        if view.payload.orphan_lifetime_ms == DETACHED_LIFETIME_MS && view.granted.is_some() {
            return;
        }
        let own = Duration::from_millis(view.payload.orphan_lifetime_ms.into());
        let lifetime = if own.is_zero() { self.orphan_lifetime } else { own.max(self.orphan_floor) };
        let lifetime = if planted(Bug::OrphanEndsAtOnce) { Duration::ZERO } else { lifetime };
        if planted(Bug::OrphanNeverEnds) {
            return;
        }
        // Whoever is silent through several restarts has one life.
        let at = *self.expiry_of.entry(lock).or_insert(now.boot + lifetime);
        self.expiries.insert((at, lock));
    }

    pub(super) fn forget_expiry(&mut self, lock: LockId) {
        if let Some(at) = self.expiry_of.remove(&lock) {
            self.expiries.remove(&(at, lock));
        }
    }

    pub(super) fn expire_orphans(&mut self, now: Now) {
        let mut over: BTreeMap<NodeId, Vec<LockId>> = BTreeMap::new();
        while let Some(&(at, lock)) = self.expiries.first() {
            if at > now.boot {
                break;
            }
            self.forget_expiry(lock);
            let Some(view) = self.table.get(lock).filter(|view| view.standing == Standing::Possible) else { continue };
            if self.is_leaving(lock) {
                continue;
            }
            if view.payload.persistent && view.granted.is_some() {
                self.orphan(now, lock);
            } else {
                over.entry(view.payload.node).or_default().push(lock);
            }
        }
        self.end_damage_claims(now);
        for (node, locks) in over {
            let event = Event::OrphanExpired { node, locks: locks.len() as u64 };
            self.purge(now, locks, Some(event));
        }
        self.forgive_damage();
    }

    /// Whether a lock is in conflict with one that does not belong to `owner` (session and transaction): its own owner could have
    /// both (OWN), this one cannot.
    fn is_in_the_way(&self, lock: LockId, owner: (SessionId, u64)) -> bool {
        let Some(mine) = self.table.get(lock) else { return false };
        let clash = |other: LockView<'_, Holder>| {
            other.lock != lock
                && other.range.overlaps(mine.range)
                && (other.lock.session, other.payload.transaction) != owner
                && other.granted.zip(mine.granted).is_some_and(|(theirs, mode)| !theirs.compatible(mode))
        };
        self.table.locks_on(mine.resource).any(clash)
    }

    /// Nobody will hear of this adoption: an orphan that became this lock is one again.
    pub(super) fn disown(&mut self, now: Now, node: NodeId, lock: LockId, op: u32) {
        match self.table.get(lock) {
            Some(view) if view.granted.is_some() && !self.is_leaving(lock) => self.orphan(now, lock),
            Some(_) => {}
            None => self.deny(node, lock, op, Denial::NotFound),
        }
    }

    /// Takes an orphan over. Its process must have ended, or its node be gone: then nobody relies on it (section 7).
    pub(super) fn adopt(
        &mut self,
        now: Now,
        node: NodeId,
        incarnation: Incarnation,
        lock: LockId,
        op: u32,
        new: NewLock,
    ) {
        if self.table.contains(lock) {
            // An earlier master had done it, and the answer is on its way.
            return;
        }
        let orphans = || {
            let all = self.table.locks_on(&new.resource);
            all.filter(|view| view.standing == Standing::Orphan && view.payload.gone && view.granted.is_some())
                .filter(|view| view.range == new.range.unwrap_or(ByteRange::ALL))
        };
        let other_mode = orphans().next().is_some();
        let orphan = orphans()
            .filter(|view| view.granted == Some(new.mode))
            .map(|view| (view.lock, view.payload.process.uid, view.payload.node, view.payload.slot))
            .min();
        let Some((known, uid, owner, slot)) = orphan else {
            let why = if other_mode { Denial::Busy } else { Denial::NotFound };
            return self.deny(node, lock, op, why);
        };
        if uid != new.process.uid && new.process.uid != 0 {
            return self.deny(node, lock, op, Denial::Permission);
        }
        if self.is_in_the_way(known, (lock.session, new.transaction)) {
            return self.deny(node, lock, op, Denial::Busy);
        }
        if self.table.rename(known, lock).is_err() {
            return self.deny(node, lock, op, Denial::Invalid);
        }
        // It may be one that was adopted and disowned before a record said so.
        let mut former = self.adoptions.remove(&known).unwrap_or_default();
        if self.members.contains(owner) {
            former.push((owner, known));
        }
        if !former.is_empty() {
            self.adoptions.insert(lock, former);
        }
        if slot != NO_SLOT {
            self.slots.set_owner(slot, Owner::Lock(lock));
            // The promise to the new owner rests on a record that names it.
            if !planted(Bug::AdoptionUnwritten) {
                self.durable[slot as usize] = None;
            }
        }
        self.token_counter += 1;
        let token = self.token();
        let holder = Holder {
            process: new.process,
            transaction: new.transaction,
            token,
            since_ms: now.wall_ms,
            incarnation,
            slot,
            orphan_lifetime_ms: new.orphan_lifetime_ms,
            op,
            node,
            persistent: new.flags.contains(LockFlags::PERSISTENT),
            gone: false,
            abandoned: false,
            settling: Settling::Grant { demoted: false, value: ValueDuty::Read },
            hushed: false,
        };
        let _ = self.table.set_payload(lock, holder);
        let _ = self.table.set_standing(lock, Standing::Confirmed, &mut self.effects);
        let _ = self.table.rebast(lock, &mut self.effects);
        if slot == NO_SLOT && !self.place(now, lock) {
            return self.refuse_for_space(lock);
        }
        self.settle(now, lock);
    }
}
