//! Members that come back without memory or speak late, and their sessions that come and go (sections 6 and 7).

use super::*;
use crate::slots::Owner;
use crate::table::{LvbUpdate, Standing};
use mxlock_proto::peer::{Presence, Report, ReportedLock};

impl Master {
    /// A new incarnation has taken the slot of `node`: what the old one owned are possible holders until their sessions
    /// have spoken or their lifetimes, counted from now, have ended (sections 6 and 7).
    pub(crate) fn replaced(&mut self, now: Now, node: NodeId, incarnation: Incarnation) {
        if self.reported.get(&node) == Some(&incarnation) {
            // It has spoken already, and what it has claimed is its own.
            return;
        }
        self.reported.remove(&node);
        self.stop_awaiting(node, Some(incarnation));
        self.damage_heard(now, node, true);
        let mut locks: Vec<LockId> = self
            .table
            .locks()
            .filter(|view| view.payload.node == node && view.payload.incarnation != incarnation)
            .filter(|view| !view.payload.gone && !matches!(view.payload.settling, Settling::Release { .. }))
            .map(|view| view.lock)
            .collect();
        locks.sort();
        for lock in locks {
            if self.table.get(lock).is_some_and(|view| view.standing != Standing::Possible) {
                // It has been claimed since an earlier restart: that one's end is not its end.
                self.forget_expiry(lock);
            }
            let _ = self.table.set_standing(lock, Standing::Possible, &mut self.effects);
            self.expire_later(now, lock);
        }
        self.advance_recovery(now);
        if self.active {
            self.run_effects(now);
        }
    }

    /// A session lost or regained its connection, or its process ended. For people, and for adoption.
    pub(super) fn session(&mut self, now: Now, node: NodeId, session: SessionId, presence: Presence) {
        let standing = if presence == Presence::Here { Standing::Confirmed } else { Standing::Orphan };
        let mut locks: Vec<LockId> = self
            .table
            .locks()
            .filter(|view| view.lock.session == session && view.payload.node == node)
            .filter(|view| view.granted.is_some() && view.standing != Standing::Possible && !view.payload.abandoned)
            .map(|view| view.lock)
            .collect();
        locks.sort();
        for lock in locks {
            let view = self.table.get(lock).expect("just listed");
            let dies = presence == Presence::Gone && !view.payload.gone && Self::may_write_value(view.granted);
            // Whoever adopts it gets what it is, and not what its process was waiting for.
            let (granted, wanted) = (view.granted, view.wanted.filter(|_| presence != Presence::Gone));
            if dies {
                // It may have been changing what the value stands for (section 7).
                let resource = view.resource.clone();
                self.doubt_value(now, &resource);
            }
            self.table.payload_mut(lock).expect("just listed").gone = presence == Presence::Gone;
            let _ = self.table.restate(lock, granted, wanted, standing, &mut self.effects);
            let slot = self.table.get(lock).expect("still there").payload.slot;
            if slot != NO_SLOT {
                self.write_later(now, slot);
            }
        }
    }

    /// A report that comes when the table stands already: of a member that could not be reached, or has just been
    /// admitted. Its word is final for what it speaks of.
    pub(super) fn late_report(&mut self, now: Now, from: NodeId, incarnation: Incarnation, report: Report) {
        let (mut stand, mut spoken) = (0, BTreeSet::new());
        for reported in report.locks {
            stand += 1;
            spoken.insert(reported.lock);
            self.confirm(now, from, incarnation, reported);
        }
        let sessions: BTreeSet<SessionId> = report.sessions.into_iter().collect();
        let dropped: Vec<LockId> = self
            .table
            .locks()
            .filter(|view| view.payload.node == from && view.standing == Standing::Possible)
            .filter(|view| view.payload.incarnation == incarnation || sessions.contains(&view.lock.session))
            .map(|view| view.lock)
            // What is on its way out leaves when its record is cleared.
            .filter(|lock| !spoken.contains(lock) && !self.is_leaving(*lock))
            .collect();
        if stand + dropped.len() > 0 {
            self.log(Event::LateReport { node: from, locks: stand as u64, dropped: dropped.len() as u64 });
        }
        // A PERSISTENT one that its session had lost before is still an orphan; its end would have been acknowledged after that
        // of its record.
        let is_abandoned = |lock: &LockId| {
            self.table.get(*lock).is_some_and(|view| {
                let holder = view.payload;
                holder.persistent && view.granted.is_some() && holder.incarnation != incarnation
            })
        };
        let (mut abandoned, dropped): (Vec<LockId>, Vec<LockId>) = dropped.into_iter().partition(is_abandoned);
        abandoned.sort();
        abandoned.into_iter().for_each(|lock| self.orphan(now, lock));
        // Their owner ended them without an answer, perhaps by a death.
        self.withdraw(now, dropped, LvbUpdate::Invalidate);
        // What it does not speak for was an earlier incarnation's: until now it could have been claimed.
        let mut rest: Vec<LockId> = self
            .table
            .locks()
            .filter(|view| view.payload.node == from && view.standing == Standing::Possible)
            .map(|view| view.lock)
            .collect();
        rest.sort();
        rest.into_iter().for_each(|lock| self.expire_later(now, lock));
        self.bequeath(from);
        self.damage_heard(now, from, false);
        self.forgive_damage();
        self.run_effects(now);
    }

    /// The owner's word about one lock.
    fn confirm(&mut self, now: Now, from: NodeId, incarnation: Incarnation, mut reported: ReportedLock) {
        let range = reported.range.unwrap_or(ByteRange::ALL);
        let lock = reported.lock;
        // A request that waits has the place that its record says.
        if reported.presence == Presence::Gone && Self::may_write_value(reported.granted) {
            self.doubt_value(now, &reported.resource);
        }
        let known = self.table.get(lock).and_then(|view| view.granted).filter(|_| !self.is_leaving(lock));
        super::rebuild::given_at_once(&mut reported, known, 1);
        // Before what does not wait is dropped: its owner has still to hear of it.
        let done = super::rebuild::take_done(&mut reported);
        let waits = reported.pending.as_ref().is_some_and(|pending| !super::rebuild::never_waits(pending.flags));
        let waits_here = waits && reported.granted.is_none() && self.table.contains(lock);
        if !waits_here && !super::rebuild::keep_pending(&mut reported) {
            // It is sent again; what the record says of it is not held.
            let known = self.table.contains(lock).then_some(lock);
            return self.withdraw(now, known.into_iter().collect(), LvbUpdate::Keep);
        }
        // What was asked of an earlier master is over (section 6): see `give_up`.
        let left = super::rebuild::give_up(&mut reported);
        if left.value_doubtful {
            self.doubt_value(now, &reported.resource);
        }
        if left.nothing {
            let known = self.table.contains(lock).then_some(lock);
            let known = known.or_else(|| self.possible_like(lock.session, &reported.resource, range, reported.granted));
            return match known.filter(|known| self.outlives_its_release(*known)) {
                Some(known) => self.release_reported(now, known, from, incarnation, &reported),
                None => self.withdraw(now, known.into_iter().collect(), LvbUpdate::Invalidate),
            };
        }
        if !self.table.contains(lock) {
            match self.possible_like(lock.session, &reported.resource, range, reported.granted) {
                Some(known) => {
                    let slot = self.table.get(known).expect("just found").payload.slot;
                    let _ = self.table.rename(known, lock);
                    if slot != NO_SLOT {
                        self.slots.set_owner(slot, Owner::Lock(lock));
                    }
                }
                None if self.was_adopted(&reported) => {
                    return self.send(from, PeerMessage::Lost { lock, reason: LossReason::Adopted });
                }
                None => {
                    self.restore_reported(from, incarnation, reported.clone(), NO_SLOT);
                    if !self.table.contains(lock) {
                        return;
                    }
                    self.place(now, lock);
                }
            }
        }
        let wanted = reported.pending.as_ref().map(|pending| pending.wanted);
        let standing = standing_of(reported.presence, reported.granted);
        self.spare(now, lock);
        let holder = self.table.payload_mut(lock).expect("known or renamed");
        holder.node = from;
        holder.incarnation = incarnation;
        holder.token = reported.token;
        holder.process = reported.process;
        holder.gone = reported.presence == Presence::Gone;
        holder.abandoned = false;
        holder.op = reported.pending.as_ref().map_or(0, |pending| pending.op);
        // Also what is new to the table is served only here: those in its way are told, and it may be granted at once.
        let _ = self.table.restate(lock, reported.granted, wanted, standing, &mut self.effects);
        self.settle(now, lock);
        self.answer_done(lock, done);
    }

    /// An orphan without a record: somebody has adopted it, and its daemon was not told. Where a damaged record may have
    /// been its own, only one that is in the way of what is held.
    fn was_adopted(&self, reported: &ReportedLock) -> bool {
        let Some(mode) = reported.granted.filter(|_| reported.presence == Presence::Gone) else { return false };
        if self.damaged.is_empty() && !planted(Bug::AdoptedComesBackLate) {
            return true;
        }
        let range = reported.range.unwrap_or(ByteRange::ALL);
        let clash = |view: LockView<'_, Holder>| {
            // What is its own may overlap it (OWN).
            let own = (view.lock.session, view.payload.transaction) == (reported.lock.session, reported.transaction);
            !own && view.range.overlaps(range) && view.granted.is_some_and(|held| !held.compatible(mode))
        };
        self.table.locks_on(&reported.resource).any(clash)
    }

    /// Whether the record of a lock may leave an orphan if it is released before it is cleared.
    fn outlives_its_release(&self, lock: LockId) -> bool {
        self.table.get(lock).is_some_and(|view| {
            let slot = view.payload.slot;
            slot != NO_SLOT && view.granted.is_some() && (view.payload.persistent || self.may_say_persistent(slot))
        })
    }

    /// A PERSISTENT lock whose owner has asked an earlier master for its end: it asks again, and is answered when the record is
    /// cleared.
    fn release_reported(
        &mut self,
        now: Now,
        known: LockId,
        node: NodeId,
        incarnation: Incarnation,
        reported: &ReportedLock,
    ) {
        let lock = reported.lock;
        let slot = self.table.get(known).expect("just found").payload.slot;
        if known != lock && self.table.rename(known, lock).is_ok() {
            self.slots.set_owner(slot, Owner::Lock(lock));
        }
        let Some(holder) = self.table.payload_mut(lock) else { return };
        (holder.node, holder.incarnation) = (node, incarnation);
        // What it had come to hold before that: others may have the rest of what the record says.
        let _ = self.table.restate(lock, reported.granted, None, Standing::Confirmed, &mut self.effects);
        self.clear_then_release(now, lock, LvbUpdate::Invalidate, false);
    }

    /// Takes away locks that their owner says it does not hold: their records are cleared behind.
    pub(super) fn withdraw(&mut self, now: Now, mut locks: Vec<LockId>, value: LvbUpdate) {
        locks.sort();
        for lock in locks {
            if let Ok(removed) = self.table.unlock(lock, value.clone(), &mut self.effects) {
                let slot = removed.payload.slot;
                if slot != NO_SLOT {
                    self.slots.set_owner(slot, Owner::Clearing);
                    // A PERSISTENT one would be an orphan if the master died before that.
                    if removed.payload.persistent { self.write_now(slot) } else { self.write_later(now, slot) }
                }
                if removed.lvb == LvbTransfer::Written {
                    self.refresh_values(now, &removed.resource);
                }
            }
        }
    }

    /// The possible holder of this session on this resource and range whose record stands for a lock in `mode`: it may name
    /// an earlier lock (section 7), and there may be older ones that were being cleared.
    pub(super) fn possible_like(
        &self,
        session: SessionId,
        resource: &Resource,
        range: ByteRange,
        mode: Option<Mode>,
    ) -> Option<LockId> {
        let covers = |held: Option<Mode>| mode.is_none_or(|mode| held.is_some_and(|held| held.covers(mode)));
        self.table
            .locks_on(resource)
            .filter(|view| view.standing != Standing::Confirmed && !self.is_leaving(view.lock))
            .filter(|view| view.lock.session == session && view.range == range)
            .map(|view| (covers(view.granted) || covers(view.wanted), view.lock))
            .max()
            .map(|(_, lock)| lock)
    }

    /// The value of a resource may not be the last that was written (I9).
    pub(super) fn doubt_value(&mut self, now: Now, resource: &Resource) {
        if self.table.lvb(resource).is_some() {
            self.table.update_value(resource, LvbUpdate::Invalidate);
            self.refresh_values(now, resource);
        }
    }
}

/// How the table sees a lock of a session that is here or not.
pub(super) fn standing_of(presence: Presence, granted: Option<Mode>) -> Standing {
    if presence == Presence::Here || granted.is_none() { Standing::Confirmed } else { Standing::Orphan }
}
