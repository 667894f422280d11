//! Members that die, come back without memory, or speak late; orphans and who may adopt them (sections 5, 6 and 7).

use super::*;
use crate::limits::DETACHED_LIFETIME_MS;
use crate::planted::{Bug, planted};
use crate::slots::Owner;
use crate::table::{LvbUpdate, Standing};
use mxlock_proto::LockFlags;
use mxlock_proto::client::Claim;
use mxlock_proto::peer::{
    ClaimQuestion, ClaimVerdict, NewLock, Pending as WirePending, Presence, Report, ReportedLock,
};

/// Locks on their way out, in the order of section 5: first the values that they may have been changing are marked in
/// the records that stay, then their own records are cleared, then they leave memory and waiters are granted.
#[derive(Clone)]
pub(super) struct Purge {
    pub(super) locks: Vec<LockId>,
    /// Slots that must have been written before the records are cleared.
    pub(super) marking: BTreeSet<u32>,
    /// Slots that must have been cleared before the locks leave.
    pub(super) clearing: Option<BTreeSet<u32>>,
    event: Option<Event>,
}

impl Master {
    /// A node was excluded: its PERSISTENT granted locks become orphans, all others are released.
    pub(crate) fn purge_node(&mut self, now: Now, node: NodeId) {
        self.stop_awaiting(node, None);
        self.reported.remove(&node);
        self.damage_heard(now, node, false);
        let mut leaving = Vec::new();
        let mut staying = Vec::new();
        for view in self.table.locks().filter(|view| view.payload.node == node) {
            let settled = view.granted.is_some() && !matches!(view.payload.settling, Settling::Release { .. });
            if view.payload.persistent && settled { staying.push(view.lock) } else { leaving.push(view.lock) }
        }
        staying.sort();
        for lock in staying {
            self.orphan(now, lock);
        }
        let event = Event::Purged { node, locks: leaving.len() as u64 };
        self.purge(now, leaving, Some(event));
    }

    /// Makes a held lock an orphan that lives until it is adopted or purged.
    fn orphan(&mut self, now: Now, lock: LockId) {
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

    /// Releases locks whose owners cannot be asked.
    pub(super) fn purge(&mut self, now: Now, mut locks: Vec<LockId>, event: Option<Event>) {
        locks.sort();
        // On their way out they still block, and are granted nothing.
        for &lock in &locks {
            if let Some(holder) = self.table.payload_mut(lock) {
                holder.settling = Settling::Nothing;
                let _ = self.table.set_standing(lock, Standing::Possible, &mut self.effects);
            }
        }
        let mut marking = BTreeSet::new();
        for &lock in &locks {
            let Some(view) = self.table.get(lock) else { continue };
            let wrote = Self::may_write_value(view.granted) || Self::may_write_value(view.wanted);
            let resource = view.resource.clone();
            if !wrote || self.table.lvb(&resource).is_none() {
                continue;
            }
            self.table.update_value(&resource, LvbUpdate::Invalidate);
            let stays = |id: &LockId| locks.binary_search(id).is_err();
            let slots: Vec<u32> = self
                .table
                .locks_on(&resource)
                .filter(|view| stays(&view.lock) && view.payload.slot != NO_SLOT)
                .map(|view| view.payload.slot)
                .collect();
            for slot in slots {
                self.write_now(slot);
                marking.insert(slot);
            }
        }
        self.purges.push(Purge { locks, marking, clearing: None, event });
        self.advance_purges(now);
    }

    pub(super) fn advance_purges(&mut self, now: Now) {
        for mut purge in std::mem::take(&mut self.purges) {
            purge.marking.retain(|slot| self.slots.is_busy(*slot));
            if !purge.marking.is_empty() {
                self.purges.push(purge);
                continue;
            }
            let first = purge.clearing.is_none();
            let clearing = purge.clearing.get_or_insert_default();
            if first {
                for &lock in &purge.locks {
                    let Some(view) = self.table.get(lock) else { continue };
                    let slot = view.payload.slot;
                    if slot == NO_SLOT || self.slots.owner(slot) != Owner::Lock(lock) {
                        continue;
                    }
                    self.slots.set_owner(slot, Owner::Clearing);
                    self.table.payload_mut(lock).expect("still there").slot = NO_SLOT;
                    self.write_now(slot);
                    clearing.insert(slot);
                }
            }
            clearing.retain(|slot| self.slots.owner(*slot) == Owner::Clearing);
            if !clearing.is_empty() {
                self.purges.push(purge);
                continue;
            }
            for lock in purge.locks {
                let _ = self.table.unlock(lock, LvbUpdate::Keep, &mut self.effects);
            }
            if let Some(event) = purge.event {
                self.log(event);
            }
            self.run_effects(now);
        }
    }

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

    fn forget_expiry(&mut self, lock: LockId) {
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
            .filter(|lock| !spoken.contains(lock))
            .collect();
        if stand + dropped.len() > 0 {
            self.log(Event::LateReport { node: from, locks: stand as u64, dropped: dropped.len() as u64 });
        }
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

    /// Hands a restarted daemon the sessions that live without a connection: its predecessor's, on the same machine.
    pub(super) fn bequeath(&mut self, node: NodeId) {
        let mut sessions: BTreeMap<SessionId, (Process, Vec<LockId>)> = BTreeMap::new();
        for view in self.table.locks().filter(|view| view.payload.node == node) {
            let holder = view.payload;
            if view.standing == Standing::Possible
                && view.granted.is_some()
                && holder.orphan_lifetime_ms == DETACHED_LIFETIME_MS
            {
                sessions.entry(view.lock.session).or_insert((holder.process, vec![])).1.push(view.lock);
            }
        }
        for (session, (process, mut ids)) in sessions {
            ids.sort();
            for lock in &ids {
                let granted = self.table.get(*lock).and_then(|view| view.granted);
                let _ = self.table.restate(*lock, granted, None, Standing::Confirmed, &mut self.effects);
            }
            let locks = ids.into_iter().filter_map(|lock| self.reported_lock(lock)).collect();
            self.send(node, PeerMessage::Inherit { session, process, locks });
        }
    }

    /// Takes away locks that their owner says it does not hold: their records are cleared behind.
    fn withdraw(&mut self, now: Now, mut locks: Vec<LockId>, value: LvbUpdate) {
        locks.sort();
        for lock in locks {
            if let Ok(removed) = self.table.unlock(lock, value.clone(), &mut self.effects) {
                let slot = removed.payload.slot;
                if slot != NO_SLOT {
                    self.slots.set_owner(slot, Owner::Clearing);
                    self.write_later(now, slot);
                }
                if removed.lvb == LvbTransfer::Written {
                    self.refresh_values(now, &removed.resource);
                }
            }
        }
    }

    /// The possible holder of this session on this resource and range whose record stands for a lock in `mode`: it may name
    /// an earlier lock (section 7), and there may be older ones that were being cleared.
    fn possible_like(
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

    /// Whether a lock is on its way out.
    pub(super) fn is_leaving(&self, lock: LockId) -> bool {
        self.purges.iter().any(|purge| purge.locks.contains(&lock))
    }

    /// The owner of a lock that was on its way out has spoken of it: it stays. Its record may have been cleared.
    pub(super) fn spare(&mut self, now: Now, lock: LockId) {
        if !self.is_leaving(lock) {
            return;
        }
        self.purges.iter_mut().for_each(|purge| purge.locks.retain(|leaving| *leaving != lock));
        if self.table.get(lock).is_some_and(|view| view.payload.slot == NO_SLOT) {
            self.place(now, lock);
        }
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
            return self.withdraw(now, known.into_iter().collect(), LvbUpdate::Invalidate);
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

    /// The value of a resource may not be the last that was written (I9).
    pub(super) fn doubt_value(&mut self, now: Now, resource: &Resource) {
        if self.table.lvb(resource).is_some() {
            self.table.update_value(resource, LvbUpdate::Invalidate);
            self.refresh_values(now, resource);
        }
    }

    /// A session that its daemon does not remember: which of its locks stand?
    pub(super) fn claim(&mut self, now: Now, from: NodeId, question: ClaimQuestion) {
        let ClaimQuestion { session, process, claims } = question;
        let mut possible: Vec<LockId> = self
            .table
            .locks()
            .filter(|view| view.payload.node == from && view.lock.session == session)
            .filter(|view| view.standing == Standing::Possible)
            // What is held and on its way out has lived long enough; what waits may wait on.
            .filter(|view| view.granted.is_none() || !self.is_leaving(view.lock))
            .map(|view| view.lock)
            .collect();
        possible.sort();
        let same = |view: &LockView<'_, Holder>| view.payload.process == process;
        let known = !possible.is_empty() && possible.iter().all(|lock| self.table.get(*lock).is_some_and(|v| same(&v)));
        let mut saved = Vec::new();
        for claim in claims.iter().filter(|_| known || possible.is_empty()) {
            if self.possible_record(session, claim, &possible).is_none() {
                saved.extend(self.claimed_from_damage(now, from, session, process, claim));
            }
        }
        if !known && saved.is_empty() {
            let verdict = ClaimVerdict { session, standing: vec![], known: false };
            return self.send(from, PeerMessage::Claimed(verdict));
        }
        let mut standing = saved;
        for claim in claims {
            if let Some(lock) = self.claimed(now, session, &claim, &possible) {
                standing.push(lock);
            }
        }
        let mut told: Vec<ReportedLock> = standing.iter().filter_map(|lock| self.reported_lock(*lock)).collect();
        // What waited keeps its place: the client asks again for what it still wants, and lets go of the rest.
        let rest: Vec<LockId> = possible.into_iter().filter(|lock| !standing.contains(lock)).collect();
        let mut unwanted = Vec::new();
        for lock in rest {
            let Some(view) = self.table.get(lock).filter(|view| view.standing == Standing::Possible) else { continue };
            let wanted = view.wanted;
            if view.granted.is_some() {
                unwanted.push(lock);
                continue;
            }
            // As it is before anything is granted: a grant has a number, and is told, when it is on disk.
            told.extend(self.reported_lock(lock));
            self.spare(now, lock);
            let _ = self.table.restate(lock, None, wanted, Standing::Confirmed, &mut self.effects);
        }
        self.log(Event::ClaimsJudged { node: from, standing: told.len() as u64, released: unwanted.len() as u64 });
        // Its daemon has lost its memory, and with it a value that an unlock was to write.
        self.withdraw(now, unwanted, LvbUpdate::Invalidate);
        self.send(from, PeerMessage::Claimed(ClaimVerdict { session, standing: told, known: true }));
        self.forgive_damage();
    }

    /// The possible holder that may be the lock of a claim: the lock itself, or one whose record stands for it.
    pub(super) fn possible_record(&self, session: SessionId, claim: &Claim, possible: &[LockId]) -> Option<LockId> {
        let lock = LockId { session, seq: claim.seq };
        if possible.binary_search(&lock).is_ok() {
            return Some(lock);
        }
        let range = claim.range.unwrap_or(ByteRange::ALL);
        self.possible_like(session, &claim.resource, range, Some(claim.mode))
            .filter(|known| possible.binary_search(known).is_ok())
    }

    fn claimed(&mut self, now: Now, session: SessionId, claim: &Claim, possible: &[LockId]) -> Option<LockId> {
        let lock = LockId { session, seq: claim.seq };
        let range = claim.range.unwrap_or(ByteRange::ALL);
        let known = self.possible_record(session, claim, possible)?;
        let view = self.table.get(known)?;
        let covered = view.granted.is_some_and(|mode| mode.covers(claim.mode))
            || view.wanted.is_some_and(|mode| mode.covers(claim.mode));
        if !covered || *view.resource != claim.resource || view.range != range {
            return None;
        }
        let (slot, granted) = (view.payload.slot, view.granted);
        let told_since = claim.token > view.payload.token;
        let writer = Self::may_write_value(granted) || Self::may_write_value(view.wanted);
        if known != lock {
            self.table.rename(known, lock).ok()?;
            if slot != NO_SLOT {
                self.slots.set_owner(slot, Owner::Lock(lock));
            }
        }
        let holder = self.table.payload_mut(lock).expect("known or renamed");
        // The record keeps the old incarnation: until its daemon lists the session in a report, nobody may take its silence
        // about the lock for a word.
        holder.token = holder.token.max(claim.token);
        // A down-conversion that was asked for comes again: until then the lock keeps its mode. One that gave up PW or EX,
        // or an unlock, may have been carried out by an earlier master, and others have written values since (I9).
        let gave_up = writer && !Self::may_write_value(Some(claim.mode));
        // A client that was told of a later grant than the record names has what it says, and not what the record says.
        let kept = granted.filter(|granted| known == lock && !gave_up && !told_since && granted.covers(claim.mode));
        let kept = kept.unwrap_or(claim.mode);
        if gave_up {
            self.doubt_value(now, &claim.resource);
        }
        let _ = self.table.restate(lock, Some(kept), None, Standing::Confirmed, &mut self.effects);
        if slot != NO_SLOT {
            self.write_later(now, slot);
        }
        Some(lock)
    }

    /// A lock as the master knows it, for its owner's daemon.
    fn reported_lock(&self, lock: LockId) -> Option<ReportedLock> {
        let view = self.table.get(lock)?;
        let holder = view.payload;
        Some(ReportedLock {
            lock,
            resource: view.resource.clone(),
            range: Self::range_of(&view),
            granted: view.granted,
            pending: view.wanted.map(|wanted| WirePending {
                op: holder.op,
                wanted,
                flags: view.flags,
                position: view.position,
            }),
            token: holder.token,
            granted_at_ms: holder.since_ms,
            process: holder.process,
            transaction: holder.transaction,
            persistent: holder.persistent,
            presence: Presence::Here,
            orphan_lifetime_ms: holder.orphan_lifetime_ms,
            lvb: self.table.lvb(view.resource).cloned(),
            releasing: false,
            adopted: false,
        })
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
        if self.members.contains(owner) {
            self.adoptions.insert(lock, (owner, known));
        }
        if slot != NO_SLOT {
            self.slots.set_owner(slot, Owner::Lock(lock));
            // The promise to the new owner rests on a record that names it.
            if !planted(Bug::AdoptionUnwritten) {
                self.durable[slot as usize] = None;
            }
        }
        self.token_counter += 1;
        let token = Token::new(self.reign, self.token_counter);
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

/// How the table sees a lock of a session that is here or not.
pub(super) fn standing_of(presence: Presence, granted: Option<Mode>) -> Standing {
    if presence == Presence::Here || granted.is_none() { Standing::Confirmed } else { Standing::Orphan }
}
