//! Members that die, come back without memory, or speak late; orphans and their adoption
//! (`dlm/src/master/{members,orphans,purge}.rs`).

use super::Step;
use super::catalogue::Left;
use super::state::*;
use super::table::lock_id;
use mxlock_dlm::table::{LvbTransfer, LvbUpdate, Standing};
use mxlock_format::Mode;

fn writes(mode: Option<Mode>) -> bool {
    mode.is_some_and(|mode| mode >= Mode::PW)
}

impl Step<'_> {
    /// A node was excluded: its PERSISTENT granted locks become orphans, all others are released.
    pub(super) fn purge_node(&mut self, node: u8) {
        self.master_mut().reported[usize::from(node)] = None;
        let of_node: Vec<Lock> = self.master().locks.iter().filter(|lock| lock.node == node).copied().collect();
        let (staying, leaving): (Vec<Lock>, Vec<Lock>) = of_node.into_iter().partition(|lock| {
            lock.persistent && lock.granted.is_some() && !matches!(lock.settling, Settling::Release { .. })
        });
        for lock in staying {
            self.orphan(lock.id);
        }
        self.purge(leaving.into_iter().map(|lock| lock.id).collect());
        self.run_effects();
    }

    /// Makes a held lock an orphan that anybody who may can adopt.
    fn orphan(&mut self, id: Id) {
        let Some(&lock) = self.lock(id) else { return };
        self.lock_mut(id).expect("looked up").gone = true;
        if writes(lock.granted) && !self.without(Left::DoubtAfterDeath) {
            self.invalidate_value();
        }
        self.restate(id, lock.granted, None, Standing::Orphan);
        if let Some(slot) = lock.slot {
            self.write_later(slot);
        }
    }

    /// Releases locks whose owners cannot be asked: first the values that they may have been changing are marked in the
    /// records that stay, then their own records are cleared, then they leave memory.
    pub(super) fn purge(&mut self, locks: Vec<Id>) {
        for &id in &locks {
            if let Some(lock) = self.lock_mut(id) {
                lock.settling = Settling::Nothing;
                let Lock { granted, wanted, .. } = *lock;
                self.restate(id, granted, wanted, Standing::Possible);
            }
        }
        let mut marking = 0;
        for &id in &locks {
            let Some(&lock) = self.lock(id) else { continue };
            let wrote = writes(lock.granted) || writes(lock.wanted);
            if !wrote || self.master().value.is_none() || self.without(Left::DoubtAfterDeath) {
                continue;
            }
            self.update_value(LvbUpdate::Invalidate);
            let staying = self.master().locks.iter().filter(|lock| !locks.contains(&lock.id));
            let slots: Vec<u8> = staying.filter_map(|lock| lock.slot).collect();
            for slot in slots {
                self.write_now(slot);
                marking |= 1 << slot;
            }
        }
        self.master_mut().purges.push(Purge { locks, marking, clearing: None });
        self.advance_purges();
    }

    pub(super) fn advance_purges(&mut self) {
        for mut purge in std::mem::take(&mut self.master_mut().purges) {
            for slot in 0..self.world.bounds.slots {
                if !self.is_busy(slot) {
                    purge.marking &= !(1 << slot);
                }
            }
            if purge.marking != 0 {
                self.master_mut().purges.push(purge);
                continue;
            }
            if purge.clearing.is_none() {
                let mut clearing = 0;
                for &id in &purge.locks {
                    let Some(slot) = self.lock(id).and_then(|lock| lock.slot) else { continue };
                    if self.slot(slot).owner != Owner::Lock(id) {
                        continue;
                    }
                    self.slot(slot).owner = Owner::Clearing;
                    self.lock_mut(id).expect("looked up").slot = None;
                    self.write_now(slot);
                    clearing |= 1 << slot;
                }
                purge.clearing = Some(clearing);
            }
            for slot in 0..self.world.bounds.slots {
                if self.slot(slot).owner != Owner::Clearing {
                    purge.clearing = purge.clearing.map(|bits| bits & !(1 << slot));
                }
            }
            if purge.clearing != Some(0) {
                self.master_mut().purges.push(purge);
                continue;
            }
            for id in purge.locks {
                self.unlock_in_table(id, None);
            }
            self.run_effects();
        }
    }

    /// Its owner has spoken: a lock that was on its way out stays.
    pub(super) fn spare(&mut self, id: Id) {
        if self.without(Left::PurgeSpares) {
            return;
        }
        let mut spared = false;
        for purge in &mut self.master_mut().purges {
            let before = purge.locks.len();
            purge.locks.retain(|other| *other != id);
            spared |= purge.locks.len() < before;
        }
        if spared && self.lock(id).is_some_and(|lock| lock.slot.is_none()) {
            self.place(id);
        }
    }

    pub(super) fn is_leaving(&self, id: Id) -> bool {
        self.lock(id).is_some() && self.master().purges.iter().any(|purge| purge.locks.contains(&id))
    }

    /// A new incarnation has taken the slot of `node`: what the old one owned are possible holders, for a lifetime.
    pub(super) fn replaced(&mut self, node: u8, incarnation: u8) {
        let at = usize::from(node);
        self.master_mut().seen[at] = incarnation;
        self.master_mut().awaited &= !(1 << node);
        self.master_mut().reports[at].take_if(|report| report.incarnation != incarnation);
        self.master_mut().late[at].take_if(|report| report.incarnation != incarnation);
        if self.master().reported[at] == Some(incarnation) {
            return;
        }
        self.master_mut().reported[at] = None;
        let of_node: Vec<Lock> = self.master().locks.iter().filter(|lock| lock.node == node).copied().collect();
        for lock in of_node {
            let leaving = matches!(lock.settling, Settling::Release { .. });
            if lock.incarnation != incarnation && !lock.gone && !leaving {
                self.restate(lock.id, lock.granted, lock.wanted, Standing::Possible);
                self.expire_later(lock.id);
            }
        }
        if self.master().phase == Phase::Active {
            self.run_effects();
        } else {
            self.defer_effects();
        }
    }

    /// Gives a lock whose owner has lost its memory the rest of its life.
    pub(super) fn expire_later(&mut self, id: Id) {
        if let Some(lock) = self.lock_mut(id) {
            lock.expires = true;
        }
    }

    /// The lifetimes of a node's orphans have ended.
    pub(super) fn expire(&mut self, node: u8) {
        let mut leaving = Vec::new();
        let mut staying = Vec::new();
        let all: Vec<Id> = self.master().locks.iter().map(|lock| lock.id).collect();
        for id in all {
            let twice = self.is_leaving(id) && !self.without(Left::PurgeSpares);
            let lock = self.lock_mut(id).expect("listed");
            if lock.node != node || lock.standing != Standing::Possible || !std::mem::take(&mut lock.expires) || twice {
                continue;
            }
            if lock.persistent && lock.granted.is_some() { staying.push(lock.id) } else { leaving.push(lock.id) }
        }
        for id in staying {
            self.orphan(id);
        }
        self.purge(leaving);
        self.run_effects();
    }

    /// A session's process ended and left PERSISTENT locks.
    pub(super) fn gone(&mut self, node: u8, session: u8) {
        let mut left = self.master().locks.clone();
        left.retain(|lock| lock.id.session == session && lock.node == node);
        for lock in left.into_iter().filter(|lock| lock.granted.is_some() && lock.standing != Standing::Possible) {
            self.lock_mut(lock.id).expect("listed").gone = true;
            self.restate(lock.id, lock.granted, lock.wanted, Standing::Orphan);
            if let Some(slot) = lock.slot {
                self.write_later(slot);
            }
        }
    }

    /// A report that comes when the table stands already.
    pub(super) fn late_report(&mut self, from: u8, report: Report) {
        let mut spoken = Vec::new();
        for owned in &report.locks {
            spoken.push(owned.id);
            self.confirm(from, report.incarnation, *owned);
        }
        let mut dropped = self.master().locks.clone();
        dropped.retain(|lock| {
            let speaks = lock.incarnation == report.incarnation || report.sessions & (1 << lock.id.session) != 0;
            let speaks = speaks || self.without(Left::SpeaksForOwn);
            lock.node == from && lock.standing == Standing::Possible && speaks && !spoken.contains(&lock.id)
        });
        for lock in dropped {
            self.withdraw(lock.id, LvbUpdate::Keep);
        }
        // What it does not speak for was an earlier incarnation's.
        let possible = |lock: &&mut Lock| lock.node == from && lock.standing == Standing::Possible;
        self.master_mut().locks.iter_mut().filter(possible).for_each(|lock| lock.expires = true);
        self.run_effects();
    }

    /// Takes away a lock that its owner says it does not hold: its record is cleared behind.
    fn withdraw(&mut self, id: Id, value: LvbUpdate) {
        let Some(slot) = self.lock(id).map(|lock| lock.slot) else { return };
        let transfer = self.unlock_in_table(id, Some(value));
        if let Some(slot) = slot {
            self.slot(slot).owner = Owner::Clearing;
            self.write_later(slot);
        }
        if transfer == Some(LvbTransfer::Written) {
            self.refresh_values();
        }
    }

    /// The possible holder of this session whose record stands for a lock in this mode.
    fn possible_like(&self, session: u8, mode: Mode) -> Option<Id> {
        let covers = |held: Option<Mode>| held.is_some_and(|held| held.covers(mode));
        let mut like = self
            .master()
            .locks
            .iter()
            .filter(|lock| lock.standing != Standing::Confirmed && lock.id.session == session);
        if self.without(Left::NewestStands) {
            return like.next().map(|lock| lock.id);
        }
        like.filter(|lock| covers(lock.granted) || covers(lock.wanted)).map(|lock| lock.id).max()
    }

    fn rename(&mut self, known: Id, id: Id) {
        self.with_table(|table, _| table.rename(lock_id(known), lock_id(id))).expect("a new name");
        if let Some(slot) = self.lock(id).expect("renamed").slot {
            self.slot(slot).owner = Owner::Lock(id);
        }
    }

    /// The owner's word about one lock.
    fn confirm(&mut self, from: u8, incarnation: u8, mut owned: Owned) {
        let id = owned.id;
        let known = self.lock(id).is_some();
        let waits_here = owned.granted.is_none() && known;
        if !waits_here && !super::rebuild::keep_pending(&mut owned) {
            return;
        }
        if !known && owned.unlocking.is_some() {
            return;
        }
        if !known {
            let mode = owned.granted.unwrap_or(Mode::NL);
            match self.possible_like(id.session, mode) {
                Some(old) => self.rename(old, id),
                None => {
                    self.restore_owned(from, incarnation, owned, None);
                    self.place(id);
                    return self.settle(id);
                }
            }
        }
        let standing = super::rebuild::standing_of(&owned);
        self.spare(id);
        let lock = self.lock_mut(id).expect("known or renamed");
        lock.node = from;
        lock.incarnation = incarnation;
        lock.token = owned.token;
        lock.gone = owned.gone;
        lock.expires = false;
        self.restate(id, owned.granted, owned.pending.map(|pending| pending.wanted), standing);
        self.settle(id);
    }

    /// A session that its daemon does not remember: which of its locks stand?
    pub(super) fn claim(&mut self, from: u8, session: u8, held: Option<Held>) {
        let of_session = |lock: &&Lock| lock.node == from && lock.id.session == session;
        let possible: Vec<Id> = self
            .master()
            .locks
            .iter()
            .filter(of_session)
            .filter(|lock| lock.standing == Standing::Possible)
            .map(|lock| lock.id)
            .collect();
        if possible.is_empty() {
            return self.send(from, Down::Claimed { session, known: false, told: vec![] });
        }
        let standing = held.and_then(|held| self.claimed(session, held, &possible));
        let mut told: Vec<Owned> = standing.map(|id| self.owned(id)).into_iter().collect();
        let mut unwanted = Vec::new();
        for id in possible.into_iter().filter(|id| Some(*id) != standing) {
            let Some(&lock) = self.lock(id).filter(|lock| lock.standing == Standing::Possible) else { continue };
            if lock.granted.is_some() {
                unwanted.push(id);
                continue;
            }
            // As it is before anything is granted: a grant is told when it is on disk.
            told.push(self.owned(id));
            self.spare(id);
            self.restate(id, None, lock.wanted, Standing::Confirmed);
        }
        for id in unwanted {
            // Its daemon has lost its memory, and with it a value that an unlock was to write.
            self.withdraw(id, LvbUpdate::Invalidate);
        }
        self.send(from, Down::Claimed { session, known: true, told });
    }

    fn claimed(&mut self, session: u8, held: Held, possible: &[Id]) -> Option<Id> {
        let id = Id { session, seq: held.seq };
        let known = if possible.contains(&id) {
            id
        } else {
            self.possible_like(session, held.mode).filter(|known| possible.contains(known))?
        };
        let lock = *self.lock(known)?;
        let covers = |mode: Option<Mode>| mode.is_some_and(|mode| mode.covers(held.mode));
        if !covers(lock.granted) && !covers(lock.wanted) {
            return None;
        }
        if known != id {
            self.rename(known, id);
        }
        if self.without(Left::ClaimKeepsIncarnation) {
            let incarnation = self.state.nodes[usize::from(lock.node)].incarnation;
            self.lock_mut(id).expect("known or renamed").incarnation = incarnation;
        }
        // What is asked for again, and may write a value, finds the mode that it had. If the client was told of a later
        // grant than the record names, it has what it says.
        let newest = lock.token >= held.token;
        let kept =
            lock.granted.filter(|granted| newest && known == id && granted.covers(held.mode)).unwrap_or(held.mode);
        if !newest && (writes(lock.granted) || writes(lock.wanted)) && !writes(Some(held.mode)) {
            self.invalidate_value();
        }
        self.spare(id);
        let lock_now = self.lock_mut(id).expect("known or renamed");
        lock_now.expires = false;
        lock_now.token = lock.token.max(held.token);
        self.restate(id, Some(kept), None, Standing::Confirmed);
        if let Some(slot) = lock.slot {
            self.write_later(slot);
        }
        Some(id)
    }

    /// A lock as the master knows it, for its owner's daemon.
    fn owned(&self, id: Id) -> Owned {
        let lock = self.lock(id).expect("a lock to be told");
        let pending =
            lock.wanted.map(|wanted| Pending { wanted, value: None, noqueue: false, position: lock.position });
        Owned {
            id,
            granted: lock.granted,
            pending,
            unlocking: None,
            persistent: lock.persistent,
            gone: false,
            token: lock.token,
            value: self.master().value,
        }
    }

    /// Takes an orphan over. Its process must have ended, or its node be gone.
    pub(super) fn adopt(&mut self, node: u8, incarnation: u8, id: Id, mode: Mode) {
        let orphan = self.master().locks.iter().find(|lock| {
            let ended = lock.standing == Standing::Orphan && lock.gone;
            let ended = ended || (self.without(Left::OrphanWaits) && lock.standing == Standing::Possible);
            ended && lock.granted == Some(mode)
        });
        let Some(&known) = orphan else { return self.send(node, Down::Denied { id }) };
        self.rename(known.id, id);
        self.state.left.retain(|left| *left != known.id);
        if self.state.members & (1 << known.node) != 0 {
            self.send(known.node, Down::Lost { id: known.id });
        }
        if let Some(slot) = known.slot
            && !self.without(Left::AdoptionIsWritten)
        {
            self.slot(slot).durable = None;
        }
        let token = self.take_token();
        let lock = self.lock_mut(id).expect("just renamed");
        lock.node = node;
        lock.incarnation = incarnation;
        lock.persistent = false;
        lock.gone = false;
        lock.expires = false;
        lock.token = token;
        lock.settling = Settling::Grant(Duty::Read);
        self.restate(id, known.granted, None, Standing::Confirmed);
        if known.slot.is_none() && !self.place(id) {
            return self.refuse_for_space(id);
        }
        self.settle(id);
    }
}
