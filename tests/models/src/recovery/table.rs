//! The lock table is the code's own: it is built from the model's locks, asked, and read back.

use super::Step;
use super::state::{Id, Lock, Master, Value};
use mxlock_dlm::table::{Effect, LockFlags, Restored, Standing, Table};
use mxlock_format::{ByteRange, Epoch, LockId, Lvb, LvbSequence, Mode, Resource, ResourceId, ResourceKind, SessionId};

/// The one resource.
pub(super) fn resource() -> Resource {
    let id = ResourceId { volume: 1, ino: 1, offset: 0, ag: 0, kind: ResourceKind::Inode };
    Resource::typed(id).expect("an inode is a typed resource")
}

pub(super) fn lock_id(id: Id) -> LockId {
    LockId { session: SessionId(u64::from(id.session) + 1), seq: id.seq.into() }
}

pub(super) fn model_id(id: LockId) -> Id {
    Id { session: (id.session.0 - 1) as u8, seq: id.seq as u8 }
}

fn lvb(value: Value) -> Lvb {
    let sequence = LvbSequence { epoch: Epoch(value.epoch.into()), n: value.n.into() };
    Lvb { bytes: vec![value.bytes], sequence, valid: value.valid }
}

fn build(master: &Master) -> Table<Lock> {
    let mut table = Table::new();
    table.set_epoch(Epoch(master.reign.into()));
    let mut value = master.value.map(lvb);
    for lock in &master.locks {
        let restored = Restored {
            lock: lock_id(lock.id),
            resource: resource(),
            granted: lock.granted,
            wanted: lock.wanted,
            standing: lock.standing,
            position: lock.position.into(),
            range: ByteRange::ALL,
            flags: LockFlags::NONE,
            lvb: value.take(),
            payload: *lock,
        };
        table.restore(restored).expect("a lock that was in the table");
    }
    table
}

impl Step<'_> {
    /// Does something with the master's table; what it did to other locks is carried out by `run_effects`.
    pub(super) fn with_table<R>(&mut self, act: impl FnOnce(&mut Table<Lock>, &mut Vec<Effect>) -> R) -> R {
        let master = self.state.master.as_mut().expect("a master");
        let mut table = build(master);
        let result = act(&mut table, &mut self.effects);
        master.locks = table
            .locks()
            .map(|view| Lock {
                id: model_id(view.lock),
                granted: view.granted,
                wanted: view.wanted,
                standing: view.standing,
                position: view.position as u8,
                ..*view.payload
            })
            .collect();
        master.locks.sort_by_key(|lock| lock.id);
        let now = table.lvb(&resource());
        let before = master.value.map(lvb);
        if now != before.as_ref() {
            master.value = now.map(|lvb| {
                master.values += 1;
                let bytes = lvb.bytes.first().copied().unwrap_or(super::state::NO_VALUE);
                Value { epoch: master.reign, n: master.values, valid: lvb.valid, bytes }
            });
        }
        result
    }

    pub(super) fn restate(&mut self, id: Id, granted: Option<Mode>, wanted: Option<Mode>, standing: Standing) {
        self.with_table(|table, effects| table.restate(lock_id(id), granted, wanted, standing, effects))
            .expect("a lock of the table with a mode");
    }
}
