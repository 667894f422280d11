//! What members ask for: new locks, conversions, unlocks, cancellations.

use super::*;
use crate::limits::MAX_LOCKS;
use crate::planted::{Bug, planted};
use crate::slots::Owner;
use crate::table::{DenyReason, LvbUpdate, Outcome as TableOutcome, Request, Standing, TableError};
use mxlock_proto::LockFlags;
use mxlock_proto::peer::{NewLock, Operation, OperationKind};

impl Master {
    pub(super) fn operate(&mut self, now: Now, from: NodeId, incarnation: Incarnation, operation: Operation) {
        let Operation { lock, op, kind } = operation;
        if let OperationKind::Lock(new) = &kind
            && self.is_leaving(lock)
        {
            // An excluded node asks again for what an earlier incarnation of it had asked for.
            self.spare(now, lock);
            if let Some(holder) = self.table.payload_mut(lock) {
                (holder.node, holder.incarnation, holder.op) = (from, incarnation, op);
                let _ = self.table.restate(lock, None, Some(new.mode), Standing::Confirmed, &mut self.effects);
                return self.settle(now, lock);
            }
        }
        if let Some(view) = self.table.get(lock)
            && (view.payload.node != from || view.standing == Standing::Possible)
        {
            self.log(Event::PeerFault { node: from, fault: crate::event::PeerFault::ForeignLock });
            return;
        }
        match kind {
            OperationKind::Lock(new) => self.request(now, from, incarnation, lock, op, *new),
            OperationKind::Convert { mode, flags, lvb } => self.convert(now, from, lock, op, mode, flags, lvb),
            OperationKind::Unlock { lvb, invalidate_lvb, answer } => {
                if lvb.is_some() || invalidate_lvb {
                    self.doubt_unseen_holder(now, incarnation, lock);
                }
                self.unlock(now, from, lock, lvb, invalidate_lvb, answer);
            }
            OperationKind::Cancel => {
                if self.table.get(lock).is_some_and(|view| view.payload.op == op) {
                    self.refuse_waiting(now, lock, Denial::Cancelled);
                }
            }
            OperationKind::Adopt(new) => self.adopt(now, from, incarnation, lock, op, *new),
            OperationKind::Disown => self.disown(now, from, lock, op),
        }
    }

    fn request(&mut self, now: Now, node: NodeId, incarnation: Incarnation, lock: LockId, op: u32, new: NewLock) {
        if self.table.len() >= MAX_LOCKS {
            return self.deny(node, lock, op, Denial::Limit);
        }
        if !self.damaged.is_empty() && self.table.locks_on(&new.resource).next().is_none() {
            // Section 6: one of the damaged records may name this resource.
            return self.deny(node, lock, op, Denial::Damaged);
        }
        let persistent = new.flags.contains(LockFlags::PERSISTENT);
        let resource = new.resource.clone();
        let range = new.range.unwrap_or(ByteRange::ALL);
        let position = self.take_position();
        let holder = Holder {
            process: new.process,
            transaction: new.transaction,
            token: Token::default(),
            since_ms: now.wall_ms,
            incarnation,
            slot: NO_SLOT,
            orphan_lifetime_ms: new.orphan_lifetime_ms,
            op,
            node,
            persistent,
            gone: false,
            abandoned: false,
            settling: Settling::Nothing,
            hushed: false,
        };
        let request = Request { lock, resource, mode: new.mode, flags: new.flags, range, position, payload: holder };
        match self.table.request(request, &mut self.effects) {
            Ok(TableOutcome::Granted(grant)) => self.granted(now, grant),
            Ok(TableOutcome::Queued { position, .. }) => {
                self.send(node, PeerMessage::Queued { lock, op, position });
                // Where the table is full the request waits without a record (section 7).
                if self.place(now, lock) {
                    self.settle(now, lock);
                }
            }
            Ok(TableOutcome::Denied(reason)) => self.deny(node, lock, op, denial_of(reason)),
            Err(TableError::Duplicate(_)) => {
                // It was known from its record, or an answer is on its way.
                let place = self.table.get(lock).filter(|view| view.wanted.is_some()).map(|view| view.position);
                if let Some(position) = place {
                    self.send(node, PeerMessage::Queued { lock, op, position });
                }
            }
            Err(TableError::Full) => self.deny(node, lock, op, Denial::Limit),
            Err(_) => self.deny(node, lock, op, Denial::Invalid),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn convert(
        &mut self,
        now: Now,
        node: NodeId,
        lock: LockId,
        op: u32,
        mode: Mode,
        flags: LockFlags,
        lvb: Option<Vec<u8>>,
    ) {
        let position = self.take_position();
        let update = match lvb {
            _ if flags.contains(LockFlags::IVVALBLK) => LvbUpdate::Invalidate,
            Some(bytes) => LvbUpdate::Write(bytes),
            None => LvbUpdate::Keep,
        };
        if let Some(holder) = self.table.payload_mut(lock) {
            holder.op = op;
        }
        // Reported late while no slot was free: it keeps what it has.
        if self.table.get(lock).is_some_and(|view| view.payload.slot == NO_SLOT && view.granted.is_some())
            && !self.place(now, lock)
        {
            return self.deny(node, lock, op, Denial::TableFull);
        }
        // An old master had carried it out, and it is asked for again: there is nothing to wait for.
        let done = self.table.get(lock).is_some_and(|view| view.granted == Some(mode));
        let flags = if done { flags & (LockFlags::PERSISTENT | LockFlags::TRANSIENT) } else { flags };
        match self.table.convert(lock, mode, flags, position, update, &mut self.effects) {
            Ok(TableOutcome::Granted(grant)) => self.granted(now, grant),
            Ok(TableOutcome::Queued { position, .. }) => {
                self.send(node, PeerMessage::Queued { lock, op, position });
                self.settle(now, lock);
            }
            Ok(TableOutcome::Denied(reason)) => self.deny(node, lock, op, denial_of(reason)),
            Err(TableError::Unknown(_)) => self.deny(node, lock, op, Denial::NotFound),
            Err(TableError::Busy(_)) => self.deny(node, lock, op, Denial::InProgress),
            Err(_) => self.deny(node, lock, op, Denial::Invalid),
        }
    }

    fn unlock(
        &mut self,
        now: Now,
        node: NodeId,
        lock: LockId,
        lvb: Option<Vec<u8>>,
        invalidate_lvb: bool,
        answer: bool,
    ) {
        let op = crate::member::UNLOCK_OP;
        let Some(view) = self.table.get(lock) else {
            if answer {
                self.outcome(node, lock, op, OutcomeResult::Unlocked);
            }
            return;
        };
        let update = match lvb {
            Some(bytes) => LvbUpdate::Write(bytes),
            None if invalidate_lvb => LvbUpdate::Invalidate,
            None => LvbUpdate::Keep,
        };
        let changes = update != LvbUpdate::Keep;
        let slot = view.payload.slot;
        if let Settling::Release { answer: awaited, wrote } = view.payload.settling {
            // Its record is being cleared already.
            let settling = Settling::Release { answer: awaited || answer, wrote };
            self.table.payload_mut(lock).expect("still there").settling = settling;
            return;
        }
        // A conversion to TRANSIENT may not be on disk yet.
        let lingers = view.payload.persistent || self.may_say_persistent(slot);
        let clear_first =
            (lingers && !planted(Bug::PersistentReleasedEarly)) || (answer && self.clear_behind.is_zero());
        if clear_first && slot != NO_SLOT && view.granted.is_some() {
            return self.clear_then_release(now, lock, update, answer);
        }
        if update == LvbUpdate::Invalidate && !answer && self.leaves_a_value(&view) {
            // Nobody will ask for this again: the value is marked before the record that could tell of it goes.
            return self.purge(now, vec![lock], None);
        }
        let Ok(removed) = self.table.unlock(lock, update, &mut self.effects) else {
            // Only a value of a wrong length is refused, and the member checked it.
            return self.deny(node, lock, op, Denial::Invalid);
        };
        self.released(now, lock, &removed, false);
        // What was claimed in NL has lost the value that it is to write, and the one before is not valid (I9).
        if removed.lvb == LvbTransfer::Written || answer && changes {
            if answer {
                self.acknowledge_value(now, &removed.resource, node, lock, op);
            } else {
                self.refresh_values(now, &removed.resource);
            }
        } else if answer {
            self.outcome(node, lock, op, OutcomeResult::Unlocked);
        }
    }

    /// Whether a holder that may have been changing a value leaves others behind that carry it.
    fn leaves_a_value(&self, view: &LockView<'_, Holder>) -> bool {
        Self::may_write_value(view.granted)
            && self.table.lvb(view.resource).is_some()
            && self.table.locks_on(view.resource).nth(1).is_some()
    }

    /// A session that came back with its daemon's memory gone gives a value for a lock that its record shows as waiting: it
    /// was granted at memory speed, and this is its end. Others may have got the lock since, so the value cannot be
    /// written, and the one before it is not the last (I9).
    fn doubt_unseen_holder(&mut self, now: Now, incarnation: Incarnation, lock: LockId) {
        let Some(view) = self.table.get(lock) else { return };
        if view.granted.is_some() || view.payload.incarnation == incarnation {
            return;
        }
        let resource = view.resource.clone();
        self.doubt_value(now, &resource);
    }

    /// A PERSISTENT lock is released only after its record was cleared (section 7).
    pub(super) fn clear_then_release(&mut self, now: Now, lock: LockId, update: LvbUpdate, answer: bool) {
        // While the record is being cleared the lock is still in the table: a conversion that waits must not be granted then.
        let _ = self.table.cancel(lock, &mut self.effects);
        let view = self.table.get(lock).expect("a lock to be released");
        let (slot, resource, value) = (view.payload.slot, view.resource.clone(), Self::may_write_value(view.granted));
        let wrote = value && update != LvbUpdate::Keep;
        if wrote {
            let _ = self.table.update_value(&resource, update);
            self.refresh_values(now, &resource);
        }
        let holder = self.table.payload_mut(lock).expect("still there");
        holder.settling = Settling::Release { answer, wrote };
        debug_assert_eq!(self.slots.owner(slot), Owner::Lock(lock));
        self.write_now(slot);
    }
}

pub(super) fn denial_of(reason: DenyReason) -> Denial {
    match reason {
        DenyReason::WouldQueue => Denial::Busy,
        DenyReason::Deadlock => Denial::Deadlock,
    }
}
