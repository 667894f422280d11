//! What `mxlock locks` shows.

use super::*;
use crate::table::{Phase, Standing};
use mxlock_format::LockState;
use mxlock_proto::report;

impl Master {
    /// All locks, or those on one resource, by resource, holders first, then in the order of their queues.
    pub(crate) fn list(&self, resource: Option<&Resource>) -> Vec<report::Lock> {
        let mut resources: Vec<&Resource> = match resource {
            Some(resource) => vec![resource],
            None => self.table.resources().collect(),
        };
        resources.sort();
        resources.into_iter().flat_map(|resource| self.list_resource(resource)).collect()
    }

    fn list_resource(&self, resource: &Resource) -> Vec<report::Lock> {
        let mut places = Places::default();
        self.table.locks_on(resource).map(|view| self.listed(&view, places.next(view.phase()))).collect()
    }

    /// One lock as people see it.
    pub(super) fn listed(&self, view: &LockView<'_, Holder>, queue_place: Option<u32>) -> report::Lock {
        let holder = view.payload;
        let lvb = self.table.lvb(view.resource);
        let mode = view.granted.unwrap_or(Mode::NL);
        report::Lock {
            resource: view.resource.clone(),
            lock: view.lock,
            node: holder.node,
            process: holder.process,
            mode,
            wanted: view.wanted.unwrap_or(mode),
            state: match view.phase() {
                Phase::Granted => LockState::Granted,
                Phase::Converting => LockState::Converting,
                Phase::Waiting => LockState::Waiting,
            },
            queue_place,
            since_ms: holder.since_ms,
            token: holder.token,
            range: Self::range_of(view),
            persistent: holder.persistent,
            orphan: view.standing == Standing::Orphan,
            possible: view.standing == Standing::Possible,
            lvb: lvb.map(|lvb| lvb.bytes.clone()),
            lvb_valid: lvb.is_some_and(|lvb| lvb.valid),
            slot: (holder.slot != NO_SLOT).then_some(holder.slot),
        }
    }

    /// Waiting requests, orphans, possible holders and used slots, for `mxlock status`.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals { slots_used: self.slots.used_count().into(), ..Totals::default() };
        for view in self.table.locks() {
            totals.locks += 1;
            totals.waiting += u64::from(view.phase() == Phase::Waiting);
            totals.orphans += u64::from(view.standing == Standing::Orphan);
            totals.possible += u64::from(view.standing == Standing::Possible);
        }
        totals.damaged = self.damaged.len() as u64;
        totals
    }
}

/// Counts places in the queues of one resource, whose locks come in order.
#[derive(Default)]
pub(super) struct Places {
    converting: u32,
    waiting: u32,
}

impl Places {
    pub(super) fn next(&mut self, phase: Phase) -> Option<u32> {
        let place = match phase {
            Phase::Granted => return None,
            Phase::Converting => &mut self.converting,
            Phase::Waiting => &mut self.waiting,
        };
        *place += 1;
        Some(*place)
    }
}

/// Numbers of a master.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) locks: u64,
    pub(crate) waiting: u64,
    pub(crate) orphans: u64,
    pub(crate) possible: u64,
    pub(crate) slots_used: u64,
    pub(crate) damaged: u64,
}
