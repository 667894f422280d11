//! Each rule of section 7 by itself (`rules`, `recovery`), and all of them against a naive model (`random`, `model`), and
//! deadlocks against a search that looks at every edge (`deadlock`), and what the kernel DLM was recorded to do (`kernel`).

use super::*;
use mxlock_format::{ByteRange, QualifiedName, SessionId};

mod deadlock;
mod kernel;
mod model;
mod random;
mod recovery;
mod rules;

pub(super) fn id(seq: u64) -> LockId {
    LockId { session: SessionId(1), seq }
}

pub(super) fn resource(name: &str) -> Resource {
    Resource::named(QualifiedName::new(b"", name.as_bytes()).unwrap())
}

/// A table, one resource, and a journal of effects; every step checks the invariants.
pub(super) struct Bench {
    pub(super) table: Table<()>,
    position: u64,
    effects: Vec<Effect>,
}

impl Bench {
    pub(super) fn new() -> Bench {
        let mut table = Table::new();
        table.set_epoch(Epoch(7));
        Bench { table, position: 1 << 32, effects: Vec::new() }
    }

    pub(super) fn ask(&mut self, seq: u64, mode: Mode, flags: LockFlags) -> Outcome {
        self.ask_range(seq, mode, flags, ByteRange::ALL)
    }

    pub(super) fn ask_range(&mut self, seq: u64, mode: Mode, flags: LockFlags, range: ByteRange) -> Outcome {
        self.position += 1;
        let position = self.position;
        let (lock, resource) = (id(seq), resource("r"));
        let request = Request { lock, resource, mode, flags, range, position, payload: () };
        let outcome = self.table.request(request, &mut self.effects).unwrap();
        self.check();
        outcome
    }

    /// A request that must be granted as asked.
    pub(super) fn hold(&mut self, seq: u64, mode: Mode) -> Grant {
        match self.ask(seq, mode, LockFlags::NONE) {
            Outcome::Granted(grant) if grant.mode == mode => grant,
            other => panic!("{mode} for {seq}: {other:?}"),
        }
    }

    /// A request that must wait.
    pub(super) fn wait(&mut self, seq: u64, mode: Mode) {
        let outcome = self.ask(seq, mode, LockFlags::NONE);
        assert!(matches!(outcome, Outcome::Queued { demoted: false, .. }), "{mode} for {seq}: {outcome:?}");
    }

    pub(super) fn convert(&mut self, seq: u64, mode: Mode, flags: LockFlags) -> Outcome {
        self.convert_lvb(seq, mode, flags, LvbUpdate::Keep)
    }

    pub(super) fn convert_lvb(&mut self, seq: u64, mode: Mode, flags: LockFlags, lvb: LvbUpdate) -> Outcome {
        self.position += 1;
        let outcome = self.table.convert(id(seq), mode, flags, self.position, lvb, &mut self.effects).unwrap();
        self.check();
        outcome
    }

    pub(super) fn unlock(&mut self, seq: u64) {
        self.unlock_lvb(seq, LvbUpdate::Keep);
    }

    pub(super) fn unlock_lvb(&mut self, seq: u64, lvb: LvbUpdate) -> LvbTransfer {
        let removed = self.table.unlock(id(seq), lvb, &mut self.effects).unwrap();
        self.check();
        removed.lvb
    }

    pub(super) fn cancel(&mut self, seq: u64) -> Cancelled<()> {
        let cancelled = self.table.cancel(id(seq), &mut self.effects).unwrap();
        self.check();
        cancelled
    }

    /// The locks granted since the last call of any of these three, with their modes.
    pub(super) fn granted(&mut self) -> Vec<(u64, Mode)> {
        let pick = |effect: Effect| if let Effect::Granted(g) = effect { Some((g.lock.seq, g.mode)) } else { None };
        self.effects().into_iter().filter_map(pick).collect()
    }

    /// The notices sent since the last call of any of these three.
    pub(super) fn notices(&mut self) -> Vec<(u64, Mode)> {
        let pick = |effect: Effect| match effect {
            Effect::Bast { holder, wanted } => Some((holder.seq, wanted)),
            _ => None,
        };
        self.effects().into_iter().filter_map(pick).collect()
    }

    /// Everything since the last call of any of these three.
    pub(super) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn check(&self) {
        self.table.check_invariants().unwrap_or_else(|violation| panic!("{violation}\n{:#?}", self.table));
    }
}
