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
        let (mut converting, mut waiting) = (0, 0);
        let lvb = self.table.lvb(resource);
        self.table
            .locks_on(resource)
            .map(|view| {
                let holder = view.payload;
                let (state, queue_place) = match view.phase() {
                    Phase::Granted => (LockState::Granted, None),
                    Phase::Converting => {
                        converting += 1;
                        (LockState::Converting, Some(converting))
                    }
                    Phase::Waiting => {
                        waiting += 1;
                        (LockState::Waiting, Some(waiting))
                    }
                };
                let mode = view.granted.unwrap_or(Mode::NL);
                report::Lock {
                    resource: view.resource.clone(),
                    lock: view.lock,
                    node: holder.node,
                    process: holder.process,
                    mode,
                    wanted: view.wanted.unwrap_or(mode),
                    state,
                    queue_place,
                    since_ms: holder.since_ms,
                    token: holder.token,
                    range: Self::range_of(&view),
                    persistent: holder.persistent,
                    orphan: view.standing == Standing::Orphan,
                    possible: view.standing == Standing::Possible,
                    lvb: lvb.map(|lvb| lvb.bytes.clone()),
                    lvb_valid: lvb.is_some_and(|lvb| lvb.valid),
                    slot: (holder.slot != NO_SLOT).then_some(holder.slot),
                }
            })
            .collect()
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
