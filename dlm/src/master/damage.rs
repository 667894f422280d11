//! Damaged records: kept, never taken as empty, until nobody can be their owner any more (sections 3 and 6).

use super::*;
use crate::slots::Owner;
use crate::table::{LvbUpdate, Restored, Standing};
use mxlock_proto::LockFlags;
use mxlock_proto::client::Claim;

impl Master {
    /// Sections 3 and 6: a damaged record is never treated as empty. It is harmless if all owners have spoken. `forgetful`:
    /// members whose daemon was restarted; `unheard`: those that could not be asked. A damaged record may be theirs although
    /// no other one names them: until they have spoken or had time to claim it nothing is granted, on whatever name, since
    /// the name is what cannot be read (I1, I11; docs/decisions/016).
    pub(super) fn judge_damage(&mut self, now: Now, damaged: Vec<(u32, String)>, forgetful: NodeSet, unheard: NodeSet) {
        if !damaged.is_empty() {
            let claimed_until = now.boot + self.orphan_lifetime;
            self.damage_claimed_until = (forgetful != NodeSet::EMPTY).then_some(claimed_until);
            self.damage_unheard = unheard;
            if self.is_damage_open() {
                self.table.hold_back();
            }
        }
        for (slot, reason) in damaged {
            let bytes = Box::new(*self.mirror.image(slot));
            self.out.push_back(Output::Quarantine { slot, bytes, reason });
            self.slots.set_owner(slot, Owner::Damaged);
            self.damaged.insert(slot);
        }
        if !self.owners_unheard() {
            for slot in std::mem::take(&mut self.damaged) {
                self.slots.set_owner(slot, Owner::Free);
            }
        }
    }

    /// Whether somebody may still own a damaged record of whom no other one tells.
    fn is_damage_open(&self) -> bool {
        self.damage_claimed_until.is_some() || self.damage_unheard != NodeSet::EMPTY
    }

    /// A member that could not be asked has spoken, or is gone; with `restarted`, its sessions are to speak for themselves.
    pub(super) fn damage_heard(&mut self, now: Now, node: NodeId, restarted: bool) {
        if self.damage_unheard.contains(node) {
            self.damage_unheard = self.damage_unheard.without(node);
            if restarted {
                self.damage_claimed_until = Some(now.boot + self.orphan_lifetime);
            }
            self.end_damage_claims(now);
        }
    }

    /// Where the sessions of restarted daemons had their time, who has not claimed a lock does not hold it any more.
    pub(super) fn end_damage_claims(&mut self, now: Now) {
        self.damage_claimed_until.take_if(|until| *until <= now.boot);
        if !self.is_damage_open() {
            self.table.release(&mut self.effects);
        }
    }

    /// Whether some owner of records has not spoken: a damaged record may be one of its locks.
    fn owners_unheard(&self) -> bool {
        self.recovery.as_ref().is_some_and(|recovery| recovery.awaits_anybody())
            || self.is_damage_open()
            || self.saved.iter().any(|lock| self.table.get(*lock).is_some())
            || self.table.locks().any(|view| view.standing != Standing::Confirmed)
    }

    /// All possible owners have spoken: what the damaged records said does not matter any more.
    pub(super) fn forgive_damage(&mut self) {
        if self.damaged.is_empty() || self.owners_unheard() {
            return;
        }
        for slot in std::mem::take(&mut self.damaged) {
            self.slots.set_owner(slot, Owner::Clearing);
            self.write_now(slot);
        }
    }

    /// A claim without a record while damaged ones are kept: one of them may be its own, and nobody was given what a
    /// damaged record may name (section 6), so the lock stands unless it conflicts with one whose owner has spoken (I11).
    /// What is only possible may have been released long ago: possible holders may conflict with locks that are confirmed.
    pub(super) fn claimed_from_damage(
        &mut self,
        now: Now,
        from: NodeId,
        session: SessionId,
        process: Process,
        claim: &Claim,
    ) -> Option<LockId> {
        let lock = LockId { session, seq: claim.seq };
        let range = claim.range.unwrap_or(ByteRange::ALL);
        let fits = |view: LockView<'_, Holder>| {
            view.lock.session == session
                || view.standing == Standing::Possible
                || !view.range.overlaps(range)
                || view.granted.is_none_or(|mode| mode.compatible(claim.mode))
        };
        if self.damaged.is_empty() || self.table.get(lock).is_some() || !self.table.locks_on(&claim.resource).all(fits)
        {
            return None;
        }
        let restored = Restored {
            lock,
            resource: claim.resource.clone(),
            granted: Some(claim.mode),
            wanted: None,
            standing: Standing::Confirmed,
            position: 0,
            range,
            flags: LockFlags::NONE,
            lvb: None,
            payload: Holder {
                process,
                transaction: 0,
                token: claim.token,
                since_ms: now.wall_ms,
                // Not its daemon's: a later master must not take that one's silence for a word.
                incarnation: Incarnation::default(),
                slot: NO_SLOT,
                orphan_lifetime_ms: 0,
                op: 0,
                node: from,
                persistent: false,
                gone: false,
                abandoned: false,
                settling: Settling::Nothing,
                hushed: false,
            },
        };
        self.table.restore(restored).ok()?;
        if !self.place(now, lock) {
            let _ = self.table.unlock(lock, LvbUpdate::Keep, &mut self.effects);
            return None;
        }
        // Others may be waiting for it already.
        let _ = self.table.rebast(lock, &mut self.effects);
        if Self::may_write_value(Some(claim.mode)) {
            self.doubt_value(now, &claim.resource);
        }
        self.saved.insert(lock);
        let slot = self.table.get(lock).expect("just restored").payload.slot;
        self.write_now(slot);
        Some(lock)
    }
}
