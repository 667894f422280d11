//! The lock table from records and reports (sections 6.3 to 6.5).
//!
//! A member that lived through has the final word about its own locks. Of owners that cannot be asked every record
//! stays, as a possible holder. Records of nodes that are no members any more go, but for PERSISTENT ones.

use super::members::standing_of;
use super::*;
use crate::limits::TABLE_CHUNK_SLOTS;
use crate::planted::{Bug, planted};
use crate::slots::Owner;
use crate::table::{LvbUpdate, Restored, Standing};
use mxlock_format::{LockRecord, LockState, Lvb, LvbSequence, RECORD_BYTES};
use mxlock_proto::LockFlags;
use mxlock_proto::peer::{Pending, Presence, ReportedLock};

/// What a recovery has found out.
pub(super) struct Found {
    /// Records that count, with their slots.
    pub(super) records: Vec<(u32, LockRecord)>,
    /// Slots that could not be read or decoded, and why.
    pub(super) damaged: Vec<(u32, String)>,
    pub(super) reports: BTreeMap<NodeId, (Incarnation, Report)>,
    /// Members that live but were not heard.
    pub(super) unheard: NodeSet,
}

/// Which records belong to which reported lock.
#[derive(Default)]
struct Word {
    said: BTreeMap<LockId, (NodeId, Incarnation, ReportedLock)>,
    by_place: BTreeMap<StandingKey, Vec<LockId>>,
    /// Whom a member speaks for: its incarnation, and sessions that have come back to it.
    incarnations: BTreeMap<NodeId, Incarnation>,
    sessions: BTreeSet<(NodeId, SessionId)>,
    slot_of: BTreeMap<LockId, u32>,
}

impl Word {
    fn new(reports: BTreeMap<NodeId, (Incarnation, Report)>) -> Word {
        let mut word = Word::default();
        for (node, (incarnation, report)) in reports {
            word.incarnations.insert(node, incarnation);
            word.sessions.extend(report.sessions.iter().map(|session| (node, *session)));
            for lock in report.locks {
                let key = (lock.lock.session, lock.resource.clone(), lock.range.unwrap_or(ByteRange::ALL));
                word.by_place.entry(key).or_default().push(lock.lock);
                word.said.insert(lock.lock, (node, incarnation, lock));
            }
        }
        word
    }

    /// Of two records of one lock (it was released and asked for again under its name, and the older one was being cleared) the
    /// one that covers what its owner holds comes first, then the newer one.
    fn rank(&self, record: &LockRecord) -> (bool, Token) {
        let granted = self.said.get(&record.lock).and_then(|(_, _, lock)| lock.granted);
        let held = record.state != LockState::Waiting;
        let covers = |mode| (held && record.mode.covers(mode)) || record.wanted.covers(mode);
        (granted.is_some_and(covers), record.token)
    }

    /// The record names a reported lock.
    fn takes_by_name(&mut self, slot: u32, record: &LockRecord) -> bool {
        let named = self
            .said
            .get(&record.lock)
            .is_some_and(|(node, _, lock)| *node == record.owner && lock.resource == record.resource);
        if named && !self.slot_of.contains_key(&record.lock) {
            self.slot_of.insert(record.lock, slot);
            // The place that the old master gave, if it died before it could say so (section 6: the old place).
            if let Some((_, _, lock)) = self.said.get_mut(&record.lock)
                && lock.granted.is_none()
                && let Some(pending) = lock.pending.as_mut().filter(|pending| pending.position == 0)
            {
                pending.position = record.queue_position;
            }
            if let Some((_, _, lock)) = self.said.get_mut(&record.lock) {
                let granted = (record.state == LockState::Granted).then_some(record.mode);
                given_at_once(lock, granted, record.queue_position);
                if planted(Bug::RecordBeforeOwner) && granted.is_some() {
                    (lock.granted, lock.releasing) = (granted, false);
                }
            }
            return true;
        }
        false
    }

    /// Whether the member that had this lock has spoken, and knows all about it.
    fn is_of_speaker(&self, record: &LockRecord) -> bool {
        let spoke = self.incarnations.get(&record.owner);
        spoke == Some(&record.owner_incarnation) || (spoke.is_some() && planted(Bug::AnyIncarnationSpeaks))
    }

    /// A lock of an incarnation that was excluded: its session may live, but has lost it.
    fn is_abandoned(&self, record: &LockRecord) -> bool {
        record.persistent && record.state != LockState::Waiting && !self.is_of_speaker(record)
    }

    fn speaks_for(&self, record: &LockRecord) -> bool {
        self.is_of_speaker(record) || self.sessions.contains(&(record.owner, record.lock.session))
    }

    /// Finds for reported locks without a record of their own the ones that stand for them (section 7): records of earlier
    /// locks of the same session on the same resource and range. Several may be there, of which all but one were being
    /// cleared: it is the newest that covers the lock. What is left over.
    fn take_by_place(&mut self, records: Vec<(u32, LockRecord)>) -> Vec<LockRecord> {
        let mut by_place: BTreeMap<StandingKey, Vec<(u32, LockRecord)>> = BTreeMap::new();
        for (slot, record) in records {
            let key = (record.lock.session, record.resource.clone(), record.range.unwrap_or(ByteRange::ALL));
            by_place.entry(key).or_default().push((slot, record));
        }
        for (key, standing) in &mut by_place {
            for id in self.by_place.get(key).into_iter().flatten() {
                let Some((_, _, lock)) = self.said.get(id).filter(|_| !self.slot_of.contains_key(id)) else { continue };
                let rank = |(_, record): &(u32, LockRecord)| {
                    let held = record.state != LockState::Waiting;
                    let covers = |mode| (held && record.mode.covers(mode)) || record.wanted.covers(mode);
                    (lock.granted.is_none_or(covers), record.lock.seq)
                };
                let best = (0..standing.len()).max_by_key(|&at| match planted(Bug::AnyRecordStands) {
                    true => (false, 0),
                    false => rank(&standing[at]),
                });
                if let Some(at) = best {
                    self.slot_of.insert(*id, standing.remove(at).0);
                }
            }
        }
        by_place.into_values().flatten().map(|(_, record)| record).collect()
    }

    /// Locks with what their owners gave up of them counted as gone, and the resources whose value is doubtful for it.
    fn settle_given_up(&mut self) -> Vec<Resource> {
        let mut doubtful = Vec::new();
        self.said.retain(|_, (_, _, lock)| {
            // A holder that died may have been changing it, and the old master not have heard of that.
            let dead = lock.presence == Presence::Gone && lock.granted.is_some_and(|mode| mode >= Mode::PW);
            let left = give_up(lock);
            doubtful.extend((dead || left.value_doubtful).then(|| lock.resource.clone()));
            !left.nothing
        });
        self.settle_swaps();
        doubtful
    }

    /// Orphans that somebody has adopted, and perhaps released since, before their daemons were told: they have no record
    /// any more. Where a damaged record may have been theirs, only those on whose resource there is a lock that was
    /// adopted.
    fn adopted(&self, damaged: bool) -> BTreeSet<LockId> {
        if planted(Bug::AdoptedComesBack) {
            return BTreeSet::new();
        }
        let by: BTreeSet<&Resource> = self
            .said
            .values()
            .filter(|(_, _, lock)| lock.adopted && lock.granted.is_some())
            .map(|(_, _, lock)| &lock.resource)
            .collect();
        let orphans = self.said.values().filter(|(_, _, lock)| lock.presence == Presence::Gone);
        let bare = orphans.filter(|(_, _, lock)| !self.slot_of.contains_key(&lock.lock));
        bare.filter(|(_, _, lock)| !damaged || by.contains(&lock.resource)).map(|(_, _, lock)| lock.lock).collect()
    }

    /// PR and CW permit neither what the other does. Whether the old master carried such a conversion out shows in what
    /// it gave to others afterwards.
    fn settle_swaps(&mut self) {
        let mut swaps: Vec<(Token, LockId)> = self
            .said
            .values()
            .filter(|(_, _, lock)| swapped(lock).is_some())
            .map(|(_, _, lock)| (lock.token, lock.lock))
            .collect();
        swaps.sort();
        for (_, id) in swaps {
            let (_, _, lock) = &self.said[&id];
            let span = lock.range.unwrap_or(ByteRange::ALL);
            let taken = self.said.values().any(|(_, _, other)| {
                let clash = other.granted.zip(lock.granted).is_some_and(|(theirs, mine)| !theirs.compatible(mine));
                let meet = other.range.unwrap_or(ByteRange::ALL).overlaps(span);
                // Parts that one session holds may overlap (OWN), which proves nothing.
                let own = (other.lock.session, other.transaction) == (id.session, lock.transaction)
                    && (other.range.is_some() || lock.range.is_some());
                other.lock != id && other.resource == lock.resource && meet && clash && !own
            });
            if taken && let Some((_, _, lock)) = self.said.get_mut(&id) {
                lock.granted = swapped(lock);
            }
        }
    }
}

impl Master {
    /// Puts the table and the mirror together; the first slots of the chunks that have to be written.
    pub(super) fn rebuild(&mut self, now: Now, found: Found) -> Vec<u32> {
        let Found { mut records, damaged, reports, unheard } = found;
        let reported: NodeSet = reports.keys().copied().collect();
        let mut word = Word::new(reports);
        records.sort_by_key(|(slot, record)| (std::cmp::Reverse(word.rank(record)), *slot));
        let mut values: Vec<(Resource, Lvb)> = Vec::new();
        let mut doubtful: Vec<Resource> = Vec::new();
        let mut possible_holders = 0;

        for (_, record) in &records {
            self.next_position = self.next_position.max(record.queue_position);
            values.extend(record.lvb.clone().map(|lvb| (record.resource.clone(), lvb)));
        }
        // The newest value that a lock carries whose owner has spoken.
        let mut vouched: BTreeMap<Resource, LvbSequence> = BTreeMap::new();
        let mut vouch = |resource: &Resource, lvb: &Option<Lvb>| {
            if let Some(lvb) = lvb {
                let known = vouched.entry(resource.clone()).or_default();
                *known = (*known).max(lvb.sequence);
            }
        };
        word.said.values().for_each(|(_, _, lock)| vouch(&lock.resource, &lock.lvb));
        records.retain(|(slot, record)| {
            let named = word.takes_by_name(*slot, record);
            // The record of a request that waits says what the value was when it was written: only those of holders are
            // brought up to date.
            if named && word.said.get(&record.lock).is_some_and(|(_, _, lock)| lock.granted.is_some()) {
                vouch(&record.resource, &record.lvb);
            }
            !named
        });
        doubtful.extend(word.settle_given_up());
        let mut spoken_for = Vec::new();
        for (slot, record) in records {
            let held = record.state != LockState::Waiting;
            let writer = Self::may_write_value(Some(record.mode.max(record.wanted)));
            if word.speaks_for(&record) && word.is_abandoned(&record) {
                // Its session does not speak of it any more. Had it been released, its record would have gone first.
                self.restore_record(now, slot, record, Standing::Orphan);
            } else if word.speaks_for(&record) {
                spoken_for.push((slot, record));
            } else if self.members.contains(record.owner) {
                possible_holders += u64::from(self.restore_record(now, slot, record, Standing::Possible));
            } else {
                // A dead node may have been changing the value (section 5).
                if writer && !planted(Bug::DeadNodesValueStands) {
                    doubtful.push(record.resource.clone());
                }
                if record.persistent && held {
                    self.restore_record(now, slot, record, Standing::Orphan);
                }
            }
        }
        for record in word.take_by_place(spoken_for) {
            // Its owner ended it, and the old master may have died before it heard how: perhaps by a death.
            if Self::may_write_value(Some(record.mode.max(record.wanted))) {
                doubtful.push(record.resource);
            }
        }
        let adopted = word.adopted(!damaged.is_empty());
        let (mut locks, mut waiters) = (0, 0);
        for (id, (node, incarnation, mut lock)) in word.said {
            if adopted.contains(&id) {
                // The master that gave it away may not have come to tell its daemon.
                self.send(node, PeerMessage::Lost { lock: id, reason: LossReason::Adopted });
                continue;
            }
            let done = take_done(&mut lock);
            if !keep_pending(&mut lock) {
                continue;
            }
            locks += u64::from(lock.granted.is_some());
            waiters += u64::from(lock.pending.is_some());
            let slot = word.slot_of.get(&id).copied().unwrap_or(NO_SLOT);
            self.restore_reported(node, incarnation, lock, slot);
            self.answer_done(id, done);
        }
        for (resource, lvb) in values {
            self.table.restore_value(&resource, lvb);
            // A record of a lock that was released, or may have been, can be older than a value that went with the last
            // lock of its resource.
            let newest = self.table.lvb(&resource).map(|lvb| lvb.sequence);
            if newest > vouched.get(&resource).copied() {
                doubtful.push(resource);
            }
        }
        if !damaged.is_empty() {
            // A record that cannot be read may have carried a newer value than any that can.
            doubtful.extend(self.table.locks().map(|view| view.resource.clone()));
        }
        for resource in doubtful {
            if self.table.lvb(&resource).is_some() {
                self.table.update_value(&resource, LvbUpdate::Invalidate);
            }
        }
        self.log(Event::RecoveryReports { reported, possible: unheard, locks, waiters, possible_holders });
        let forgetful = NodeSet(self.members.0 & !reported.0 & !unheard.0);
        self.judge_damage(now, damaged, forgetful, unheard);
        self.stamp()
    }

    /// A lock of an owner that cannot be asked; whether it is a new one.
    fn restore_record(&mut self, now: Now, slot: u32, record: LockRecord, standing: Standing) -> bool {
        let lock = record.lock;
        let held = record.state != LockState::Waiting;
        if !held && planted(Bug::WaitingRecordsDropped) {
            return false;
        }
        let restored = Restored {
            lock,
            resource: record.resource,
            granted: held.then_some(record.mode),
            wanted: (record.state != LockState::Granted)
                .then_some(record.wanted)
                .filter(|_| standing != Standing::Orphan && !(held && planted(Bug::WantedOfPossibleForgotten))),
            standing,
            position: record.queue_position,
            range: record.range.unwrap_or(ByteRange::ALL),
            flags: LockFlags::NONE,
            lvb: None,
            payload: Holder {
                process: record.process,
                transaction: record.transaction,
                token: record.token,
                since_ms: record.granted_at_ms,
                incarnation: record.owner_incarnation,
                slot,
                orphan_lifetime_ms: record.orphan_lifetime_ms,
                op: 0,
                node: record.owner,
                persistent: record.persistent,
                gone: standing == Standing::Orphan,
                abandoned: standing == Standing::Orphan || record.orphan && record.persistent,
                settling: Settling::Nothing,
                hushed: false,
            },
        };
        if self.table.restore(restored).is_err() {
            return false;
        }
        self.slots.set_owner(slot, Owner::Lock(lock));
        if standing == Standing::Possible && (!self.lives(record.owner) || planted(Bug::UnheardExpires)) {
            self.expire_later(now, lock);
        }
        true
    }

    /// The owner of a conversion that counts as carried out is told so, once the table stands.
    pub(super) fn answer_done(&mut self, lock: LockId, done: Option<Pending>) {
        let Some(pending) = done else { return };
        let Some(holder) = self.table.payload_mut(lock) else { return };
        holder.op = pending.op;
        let (mode, was) = (pending.wanted, Some(pending.wanted));
        let lvb = LvbTransfer::None;
        let grant = Grant { lock, mode, was, alternative: false, demoted: false, lvb };
        self.effects.push(Effect::Granted(grant));
    }

    /// Whether a member is there, though it was not heard: its clients may hold what its records say. A record may name
    /// an earlier incarnation, from which its session was claimed.
    fn lives(&self, node: NodeId) -> bool {
        self.recovery.as_ref().is_some_and(|recovery| recovery.awaits(node))
    }

    /// A lock as its owner reported it.
    pub(super) fn restore_reported(&mut self, node: NodeId, incarnation: Incarnation, lock: ReportedLock, slot: u32) {
        let id = lock.lock;
        let position = lock.pending.as_ref().map_or(0, |pending| pending.position);
        self.next_position = self.next_position.max(position);
        let position = if planted(Bug::FifoLost) { 1 } else { position };
        let restored = Restored {
            lock: id,
            resource: lock.resource,
            granted: lock.granted,
            wanted: lock.pending.as_ref().map(|pending| pending.wanted),
            standing: standing_of(lock.presence, lock.granted),
            position,
            range: lock.range.unwrap_or(ByteRange::ALL),
            flags: lock.pending.as_ref().map_or(LockFlags::NONE, |pending| pending.flags),
            lvb: lock.lvb,
            payload: Holder {
                process: lock.process,
                transaction: lock.transaction,
                token: lock.token,
                since_ms: lock.granted_at_ms,
                incarnation,
                slot,
                orphan_lifetime_ms: lock.orphan_lifetime_ms,
                op: lock.pending.as_ref().map_or(0, |pending| pending.op),
                node,
                persistent: lock.persistent,
                gone: lock.presence == Presence::Gone,
                abandoned: false,
                settling: Settling::Nothing,
                hushed: false,
            },
        };
        if self.table.restore(restored).is_ok() && slot != NO_SLOT {
            self.slots.set_owner(slot, Owner::Lock(id));
        }
    }

    /// Gives every lock its place and its record the stamp of this reign; everything else becomes zero.
    fn stamp(&mut self) -> Vec<u32> {
        let mut unplaced: Vec<(u64, LockId)> = Vec::new();
        let elsewhere = planted(Bug::RewrittenElsewhere);
        for view in self.table.locks().filter(|view| view.payload.slot == NO_SLOT || elsewhere) {
            unplaced.push((if view.granted.is_some() { 0 } else { view.position }, view.lock));
        }
        unplaced.sort();
        for (_, lock) in unplaced {
            // A full table: those that wait do without a record; those that hold had one before.
            let home = self.table.get(lock).expect("just listed").resource.home_slot(self.slot_count);
            if let Some(slot) = self.slots.place(home) {
                self.slots.set_owner(slot, Owner::Lock(lock));
                self.table.payload_mut(lock).expect("just listed").slot = slot;
            }
        }
        let mut images: Vec<(u32, LockRecord)> = self
            .table
            .locks()
            .filter(|view| view.payload.slot != NO_SLOT)
            .map(|view| (view.payload.slot, self.record_of(&view)))
            .collect();
        images.sort_by_key(|(slot, _)| *slot);
        let mut images = images.into_iter().peekable();
        let mut changed = Vec::new();
        for first_slot in (0..self.slot_count).step_by(TABLE_CHUNK_SLOTS as usize) {
            let end = self.slot_count.min(first_slot.saturating_add(TABLE_CHUNK_SLOTS));
            let mut differs = false;
            for slot in first_slot..end {
                let image = match images.next_if(|(at, _)| *at == slot) {
                    Some((_, record)) => {
                        self.durable[slot as usize] = Some(Self::durable_of(&record));
                        record.encode().0
                    }
                    None if self.slots.owner(slot) == Owner::Damaged => continue,
                    None => [0; RECORD_BYTES],
                };
                if image != *self.mirror.image(slot) {
                    self.mirror.set(slot, &image);
                    differs = true;
                }
            }
            if differs {
                changed.push(first_slot);
            }
        }
        changed
    }
}

/// What waits at no place that anybody knows of is not in the table yet: its member sends it again. So is what does not
/// wait at all. Whether anything is left of the lock.
pub(super) fn keep_pending(lock: &mut ReportedLock) -> bool {
    lock.pending.take_if(|pending| pending.position == 0 || never_waits(pending.flags));
    lock.granted.is_some() || lock.pending.is_some()
}

/// What is left of a lock whose unlock or conversion an earlier master was asked for.
pub(super) struct Left {
    /// It was to end.
    pub(super) nothing: bool,
    /// Whether its value was written, and how many others have written theirs since, is not known.
    pub(super) value_doubtful: bool,
}

/// An unlock or down-conversion that an earlier master was asked for counts as carried out. That master may have done it,
/// granted others what was free, and heard their values: then asking for it again would bring an old value back, or put
/// two locks in conflict into the table. Its owner relies on nothing more in any case.
pub(super) fn give_up(lock: &mut ReportedLock) -> Left {
    let writer = |mode: Option<Mode>| mode.is_some_and(|mode| mode >= Mode::PW);
    if lock.releasing {
        return Left { nothing: true, value_doubtful: writer(lock.granted) };
    }
    let wanted = lock.pending.as_ref().map(|pending| pending.wanted);
    let (Some(granted), Some(wanted)) = (lock.granted, wanted) else {
        return Left { nothing: false, value_doubtful: false };
    };
    if !granted.covers(wanted) {
        return Left { nothing: false, value_doubtful: false };
    }
    lock.granted = Some(wanted);
    // In PW or EX nobody else can have written.
    Left { nothing: false, value_doubtful: writer(Some(granted)) && !writer(Some(wanted)) }
}

/// A request that does not wait has no place to go back to, and an adopted orphan has no other name any more: if the
/// record says that it was granted, it was.
pub(super) fn given_at_once(lock: &mut ReportedLock, recorded: Option<Mode>, position: u64) {
    if let Some(pending) = lock.pending.as_mut()
        && lock.granted.is_none()
        && never_waits(pending.flags)
        && recorded == Some(pending.wanted)
    {
        pending.position = position.max(1);
        lock.granted = recorded;
    }
}

/// Whether a request with these flags is granted or denied at once.
pub(super) fn never_waits(flags: LockFlags) -> bool {
    flags.contains(LockFlags::NOQUEUE) || flags.contains(LockFlags::EXPEDITE)
}

/// The mode that a lock is being converted to which covers its own as little as it is covered.
fn swapped(lock: &ReportedLock) -> Option<Mode> {
    let wanted = lock.pending.as_ref()?.wanted;
    lock.granted.filter(|granted| !granted.covers(wanted) && !wanted.covers(*granted)).map(|_| wanted)
}

/// Takes out a conversion that turned out to be carried out, if its member does not send it again.
pub(super) fn take_done(lock: &mut ReportedLock) -> Option<Pending> {
    let granted = lock.granted;
    lock.pending.take_if(|pending| pending.position != 0 && granted == Some(pending.wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::QualifiedName;

    fn reported(seq: u64, token: u64, granted: Mode, wanted: Option<Mode>) -> ReportedLock {
        ReportedLock {
            lock: LockId { session: SessionId(seq), seq },
            resource: Resource::named(QualifiedName::new(b"", b"data").unwrap()),
            range: None,
            granted: Some(granted),
            pending: wanted.map(|wanted| Pending { op: 1, wanted, flags: LockFlags::NONE, position: 9 }),
            token: Token(token),
            granted_at_ms: 0,
            process: Process { pid: 1, start_time: 0, uid: 0 },
            transaction: 0,
            persistent: false,
            presence: Presence::Here,
            orphan_lifetime_ms: 0,
            lvb: None,
            releasing: false,
            adopted: false,
        }
    }

    /// What is left of reported locks, and whether their resource's value is doubtful.
    fn left_of(locks: Vec<ReportedLock>) -> (Vec<(u64, Mode)>, bool) {
        let report = Report { epoch: Epoch(1), sessions: vec![], locks, last: true };
        let mut word = Word::new(BTreeMap::from([(NodeId::new(0).unwrap(), (Incarnation(1), report))]));
        let doubtful = !word.settle_given_up().is_empty();
        let left = word.said.values().filter_map(|(_, _, lock)| Some((lock.lock.seq, lock.granted?)));
        (left.collect(), doubtful)
    }

    /// I1, I9: what an earlier master was asked to take back it may have given to others: the table must not hold both, and
    /// a value that may have been written, and written over, is not valid.
    #[test]
    fn what_was_given_up_does_not_come_back() {
        let other = reported(2, 7, Mode::EX, None);
        let mut released = reported(1, 5, Mode::EX, None);
        released.releasing = true;
        assert_eq!(left_of(vec![released, other.clone()]), (vec![(2, Mode::EX)], true));
        let down = reported(1, 5, Mode::EX, Some(Mode::NL));
        assert_eq!(left_of(vec![down, other.clone()]), (vec![(1, Mode::NL), (2, Mode::EX)], true));
        let reader = reported(1, 5, Mode::PR, Some(Mode::NL));
        assert_eq!(left_of(vec![reader, other]), (vec![(1, Mode::NL), (2, Mode::EX)], false));
        // In PW nobody else can have written since.
        assert_eq!(left_of(vec![reported(1, 5, Mode::EX, Some(Mode::PW))]), (vec![(1, Mode::PW)], false));
        // Nothing is given up on the way up.
        assert_eq!(left_of(vec![reported(1, 5, Mode::PR, Some(Mode::EX))]), (vec![(1, Mode::PR)], false));
    }

    /// Section 7: EXPEDITE and NOQUEUE never wait, whatever place a record gives them.
    #[test]
    fn what_never_waits_is_not_queued_by_a_recovery() {
        for (flags, kept) in [(LockFlags::NONE, true), (LockFlags::EXPEDITE, false), (LockFlags::NOQUEUE, false)] {
            let mut lock = reported(1, 5, Mode::NL, Some(Mode::NL));
            lock.granted = None;
            lock.pending = lock.pending.map(|pending| Pending { flags, ..pending });
            assert_eq!(keep_pending(&mut lock.clone()), kept, "{flags:?}");
            given_at_once(&mut lock, Some(Mode::NL), 7);
            assert_eq!(lock.granted.is_some(), !kept, "its record says that it was granted");
        }
    }

    /// I1: a conversion between PR and CW was carried out if somebody else holds what only that made possible.
    #[test]
    fn a_swap_of_pr_and_cw_shows_in_what_others_hold() {
        let swap = reported(1, 5, Mode::PR, Some(Mode::CW));
        let cw = reported(2, 7, Mode::CW, None);
        assert_eq!(left_of(vec![swap.clone(), cw]).0, vec![(1, Mode::CW), (2, Mode::CW)]);
        let pr = reported(2, 7, Mode::PR, None);
        assert_eq!(left_of(vec![swap.clone(), pr]).0, vec![(1, Mode::PR), (2, Mode::PR)]);
        // One session's locks on the whole of it do not overlap against the rules; on parts they may (OWN).
        let lock = LockId { session: swap.lock.session, seq: 2 };
        let own = ReportedLock { lock, ..reported(2, 7, Mode::CW, None) };
        assert_eq!(left_of(vec![swap.clone(), own.clone()]).0, vec![(1, Mode::CW), (2, Mode::CW)]);
        let part = ReportedLock { range: ByteRange::new(0, 9), ..own };
        assert_eq!(left_of(vec![swap, part]).0, vec![(1, Mode::PR), (2, Mode::CW)]);
    }
}
