//! What members ask the master for (`dlm/src/master/operations.rs`), and what the table answers.

use super::Step;
use super::catalogue::Left;
use super::state::*;
use super::table::{lock_id, model_id, resource};
use mxlock_dlm::table::{Effect, Grant, LockFlags, LvbTransfer, LvbUpdate, Outcome, Request, Standing, TableError};
use mxlock_format::{ByteRange, Mode};

impl Step<'_> {
    pub(super) fn master(&self) -> &Master {
        self.state.master.as_ref().expect("a master")
    }

    pub(super) fn master_mut(&mut self) -> &mut Master {
        self.state.master.as_mut().expect("a master")
    }

    pub(super) fn lock(&self, id: Id) -> Option<&Lock> {
        self.master().locks.iter().find(|lock| lock.id == id)
    }

    pub(super) fn lock_mut(&mut self, id: Id) -> Option<&mut Lock> {
        self.master_mut().locks.iter_mut().find(|lock| lock.id == id)
    }

    /// Says something to a member, unless it has gone.
    pub(super) fn send(&mut self, node: u8, message: Down) {
        let to = &mut self.state.nodes[usize::from(node)];
        if to.up && to.reported {
            to.from_master.push(message);
        }
    }

    /// A message of a member.
    pub(super) fn handle(&mut self, from: u8, message: Up) {
        let incarnation = self.state.nodes[usize::from(from)].incarnation;
        match message {
            Up::Report(report) => return self.report(from, report),
            Up::Lock { id, wanted, .. } if self.is_leaving(id) && !self.without(Left::PurgeSpares) => {
                // It is asked for again while an earlier incarnation's is on its way out.
                self.spare(id);
                self.restate(id, None, Some(wanted), Standing::Confirmed);
                self.settle(id);
            }
            Up::Lock { id, .. } if !self.owns(from, id) => {}
            Up::Lock { id, wanted, persistent, noqueue } => {
                self.request(from, incarnation, id, wanted, persistent, noqueue);
            }
            Up::Convert { id, wanted, value } if self.owns(from, id) => self.convert(from, id, wanted, value),
            Up::Unlock { id, value, invalidate, answer } if self.owns(from, id) => {
                if value.is_some() || invalidate {
                    self.doubt_unseen_holder(incarnation, id);
                }
                self.unlock(from, id, value, invalidate, answer);
            }
            Up::Convert { .. } | Up::Unlock { .. } => {}
            Up::Adopt { id, mode } => self.adopt(from, incarnation, id, mode),
            Up::Gone { session } => self.gone(from, session),
            Up::Claim { session, held } => self.claim(from, session, held),
        }
        self.run_effects();
    }

    fn owns(&self, from: u8, id: Id) -> bool {
        self.lock(id).is_none_or(|lock| lock.node == from && lock.standing != Standing::Possible)
    }

    fn take_position(&mut self) -> u8 {
        let master = self.master_mut();
        master.next_position += 1;
        master.next_position
    }

    fn request(&mut self, node: u8, incarnation: u8, id: Id, wanted: Mode, persistent: bool, noqueue: bool) {
        let position = self.take_position();
        let flags = if noqueue { LockFlags::NOQUEUE } else { LockFlags::NONE };
        let payload = Lock {
            id,
            node,
            incarnation,
            granted: None,
            wanted: Some(wanted),
            standing: Standing::Confirmed,
            position,
            slot: None,
            persistent,
            gone: false,
            expires: false,
            token: (0, 0),
            settling: Settling::Nothing,
        };
        let request = Request {
            lock: lock_id(id),
            resource: resource(),
            mode: wanted,
            flags,
            range: ByteRange::ALL,
            position: position.into(),
            payload,
        };
        match self.with_table(|table, effects| table.request(request, effects)) {
            Ok(Outcome::Granted(grant)) => self.granted(grant),
            Ok(Outcome::Queued { position, .. }) => {
                self.send(node, Down::Queued { id, position: position as u8 });
                let optional = self.world.bounds.lazy_waiting;
                if !optional && self.place(id) {
                    self.settle(id);
                }
            }
            Ok(Outcome::Denied(_)) => self.send(node, Down::Denied { id }),
            Err(TableError::Duplicate(_)) => {
                if let Some(position) = self.lock(id).filter(|lock| lock.wanted.is_some()).map(|lock| lock.position) {
                    self.send(node, Down::Queued { id, position });
                }
            }
            Err(error) => panic!("a request is refused: {error}"),
        }
    }

    fn convert(&mut self, node: u8, id: Id, wanted: Mode, value: Option<u8>) {
        let position = self.take_position();
        let update = value.map_or(LvbUpdate::Keep, |value| LvbUpdate::Write(vec![value]));
        match self.with_table(|table, effects| {
            table.convert(lock_id(id), wanted, LockFlags::NONE, position.into(), update, effects)
        }) {
            Ok(Outcome::Granted(grant)) => self.granted(grant),
            Ok(Outcome::Queued { position, .. }) => {
                self.send(node, Down::Queued { id, position: position as u8 });
                self.settle(id);
            }
            Ok(Outcome::Denied(_)) | Err(_) => self.send(node, Down::Denied { id }),
        }
    }

    fn unlock(&mut self, node: u8, id: Id, value: Option<u8>, invalidate: bool, answer: bool) {
        let Some(&lock) = self.lock(id) else {
            if answer {
                self.send(node, Down::Unlocked { id });
            }
            return;
        };
        let update = match value {
            Some(value) => LvbUpdate::Write(vec![value]),
            None if invalidate => LvbUpdate::Invalidate,
            None => LvbUpdate::Keep,
        };
        let clear_first = lock.persistent && !self.without(Left::PersistentClearedFirst);
        if let (true, Some(slot), Some(granted)) = (clear_first, lock.slot, lock.granted) {
            if granted >= Mode::PW && update != LvbUpdate::Keep {
                self.update_value(update);
                self.refresh_values();
            }
            self.lock_mut(id).expect("looked up").settling = Settling::Release { answer };
            return self.write_now(slot);
        }
        let removed = self.with_table(|table, effects| table.unlock(lock_id(id), update, effects));
        let removed = removed.expect("looked up");
        self.released(&lock);
        if removed.lvb == LvbTransfer::Written {
            if answer { self.acknowledge_value(node, id) } else { self.refresh_values() }
        } else if answer {
            self.send(node, Down::Unlocked { id });
        }
    }

    pub(super) fn update_value(&mut self, update: LvbUpdate) {
        self.with_table(|table, _| table.update_value(&resource(), update));
    }

    pub(super) fn invalidate_value(&mut self) {
        if self.master().value.is_some() {
            self.update_value(LvbUpdate::Invalidate);
            self.refresh_values();
        }
    }

    /// A session that came back without its daemon's memory gives a value for a lock that its record shows as waiting.
    fn doubt_unseen_holder(&mut self, incarnation: u8, id: Id) {
        let unseen = self.lock(id).is_some_and(|lock| lock.granted.is_none() && lock.incarnation != incarnation);
        if unseen {
            self.invalidate_value();
        }
    }

    pub(super) fn unlock_in_table(&mut self, id: Id, update: Option<LvbUpdate>) -> Option<LvbTransfer> {
        let update = update.unwrap_or_default();
        self.with_table(|table, effects| table.unlock(lock_id(id), update, effects)).ok().map(|removed| removed.lvb)
    }

    /// Carries out what the table did to other locks, in order.
    pub(super) fn run_effects(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Granted(grant) => self.granted(grant),
                    Effect::Denied { lock, .. } => {
                        let id = model_id(lock);
                        let Some(&Lock { node, .. }) = self.lock(id) else { continue };
                        self.send(node, Down::Denied { id });
                        self.settle(id);
                    }
                    Effect::Bast { .. } | Effect::Demoted { .. } => {}
                }
            }
        }
    }

    /// Nothing is granted before the view is active.
    pub(super) fn defer_effects(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Granted(grant) = effect
                && let Some(lock) = self.lock_mut(model_id(grant.lock))
            {
                lock.settling = Settling::Grant(if grant.lvb == LvbTransfer::Read { Duty::Read } else { Duty::None });
            }
        }
    }

    pub(super) fn take_deferred(&mut self) {
        let deferred: Vec<Lock> =
            self.master().locks.iter().filter(|lock| lock.settling != Settling::Nothing).copied().collect();
        for Lock { id, settling, .. } in deferred {
            let token = self.take_token();
            self.lock_mut(id).expect("listed").token = token;
            if let (None, false) = (self.lock(id).expect("listed").slot, self.place(id)) {
                self.refuse_for_space(id);
                continue;
            }
            self.lock_mut(id).expect("listed").settling = settling;
            self.settle(id);
        }
    }

    fn granted(&mut self, grant: Grant) {
        let id = model_id(grant.lock);
        let token = self.take_token();
        let Some(lock) = self.lock_mut(id) else { return };
        lock.token = token;
        lock.settling = Settling::Grant(Duty::None);
        if lock.slot.is_none() && !self.place(id) {
            return self.refuse_for_space(id);
        }
        let duty = match grant.lvb {
            LvbTransfer::None => Duty::None,
            LvbTransfer::Read => Duty::Read,
            LvbTransfer::Written => {
                self.refresh_values();
                Duty::Written(self.master().values)
            }
        };
        self.lock_mut(id).expect("just granted").settling = Settling::Grant(duty);
        self.settle(id);
    }

    pub(super) fn take_token(&mut self) -> (u8, u8) {
        let epoch = !self.without(Left::TokenHasEpoch);
        let master = self.master_mut();
        master.tokens += 1;
        let token = (if epoch { master.reign } else { 0 }, master.tokens);
        self.state.old_token |= token <= self.state.token;
        self.state.token = self.state.token.max(token);
        token
    }

    pub(super) fn refuse_for_space(&mut self, id: Id) {
        let Some(&Lock { node, .. }) = self.lock(id) else { return };
        self.send(node, Down::Denied { id });
        self.unlock_in_table(id, None);
    }
}
