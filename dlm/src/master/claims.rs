//! What a restarted daemon does not remember: sessions that it is handed, and locks that clients claim (sections 6, 7).

use super::*;
use crate::limits::DETACHED_LIFETIME_MS;
use crate::planted::{Bug, planted};
use crate::slots::Owner;
use crate::table::{LvbUpdate, Standing};
use mxlock_proto::client::Claim;
use mxlock_proto::peer::{ClaimQuestion, ClaimVerdict, Pending as WirePending, Presence, ReportedLock};

impl Master {
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

    /// A session that its daemon does not remember: which of its locks stand?
    pub(super) fn claim(&mut self, now: Now, from: NodeId, question: ClaimQuestion) {
        if question.asked.iter().any(|&seq| self.is_being_granted(LockId { session: question.session, seq })) {
            // What is not on disk cannot be told: the answer comes after that.
            let incarnation = self.reported[&from];
            return self.deferred.push_back((from, incarnation, PeerMessage::Claim(question)));
        }
        let ClaimQuestion { session, process, mut claims, asked } = question;
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
        // What was granted before its client heard of it is its own as well: an orphan that was adopted has no other owner.
        let unheard = asked.into_iter().filter_map(|seq| self.unheard(LockId { session, seq }, &possible));
        claims.extend(unheard.collect::<Vec<Claim>>());
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
                // A PERSISTENT one that its session had lost before is still an orphan.
                let lost = view.payload.persistent && !planted(Bug::LostOrphanReleased);
                if lost {
                    self.orphan(now, lock)
                } else {
                    unwanted.push(lock)
                }
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

    /// Whether a possible holder was granted just before its daemon lost its memory, and no record says so yet.
    pub(super) fn is_being_granted(&self, lock: LockId) -> bool {
        self.table.get(lock).is_some_and(|view| {
            view.standing == Standing::Possible && matches!(view.payload.settling, Settling::Grant { .. })
        })
    }

    /// A lock that its client has asked for, and that its record says was granted, as a claim. To the client it is granted now:
    /// with a number of now, since a record may be written before its grant has one.
    fn unheard(&mut self, lock: LockId, possible: &[LockId]) -> Option<Claim> {
        possible.binary_search(&lock).ok()?;
        let view = self.table.get(lock)?;
        let (resource, range, mode) = (view.resource.clone(), Self::range_of(&view), view.granted?);
        self.token_counter += 1;
        let token = Token::new(self.reign, self.token_counter);
        Some(Claim { seq: lock.seq, resource, range, mode, token })
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
        if planted(Bug::ClaimRenewsIncarnation) {
            holder.incarnation = self.reported.get(&holder.node).copied().unwrap_or(holder.incarnation);
        }
        // The record keeps the old incarnation: until its daemon lists the session in a report, nobody may take its silence
        // about the lock for a word.
        holder.token = holder.token.max(claim.token);
        holder.abandoned = false;
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
}
