//! I6, in time: a lock record reaches the disk only in the reign of the master that wrote it.
//!
//! What `writers` judges when a write is asked for, this judges when it lands: whoever elects a new master must have waited
//! for the last write of the old one (section 4: it drains, or says that it could not and the successor waits D).

use mxlock_format::{Heartbeat, Incarnation, NodeState, View};
use std::collections::BTreeMap;

/// Who has written which record sector last.
#[derive(Default)]
pub struct Landing {
    /// By daemon run and slot.
    issued: BTreeMap<(u32, u32), Incarnation>,
}

impl Landing {
    /// A daemon run writes record sectors, as this incarnation.
    pub fn issued(&mut self, run: u32, first: u32, count: u32, by: Incarnation) {
        self.issued.extend((first..first + count).map(|slot| ((run, slot), by)));
    }

    /// A heartbeat of a run has reached the disk; `writing`: record writes of that run are under way.
    ///
    /// # Errors
    /// It resigns without having drained them, and does not say so.
    pub fn resigned(heartbeat: &Heartbeat, newest: Option<&View>, writing: bool) -> Result<(), String> {
        let gives_up = heartbeat.state == NodeState::Resigned && !heartbeat.writes_uncertain;
        let master = newest.is_some_and(|view| {
            (view.master, view.master_incarnation, view.epoch)
                == (heartbeat.node, heartbeat.incarnation, heartbeat.epoch)
        });
        if gives_up && master && writing {
            return Err(format!("node {} resigns while records that it writes are under way", heartbeat.node));
        }
        Ok(())
    }

    /// What the run wrote to `slot` reaches the disk while `newest` is the newest view.
    ///
    /// # Errors
    /// Somebody else is its master.
    pub fn landed(&self, run: u32, slot: u32, newest: Option<&View>) -> Result<(), String> {
        let Some((by, view)) = self.issued.get(&(run, slot)).zip(newest) else { return Ok(()) };
        if view.master_incarnation == *by {
            return Ok(());
        }
        Err(format!("a write of run {run} to slot {slot} lands when {by:?} is not the master any more: {view:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::{Epoch, NodeId, NodeSet, Phase};

    #[test]
    fn a_write_that_outlives_its_reign_is_seen() {
        let view = |master_incarnation| View {
            epoch: Epoch(8),
            master: NodeId::new(1).unwrap(),
            master_incarnation,
            phase: Phase::Recovering,
            members: NodeSet(0b11),
            owed: NodeSet(0),
            table_epoch: Epoch(7),
            feature_level: 1,
        };
        let mut landing = Landing::default();
        landing.issued(3, 10, 4, Incarnation(5));
        assert!(landing.landed(3, 13, Some(&view(Incarnation(5)))).is_ok());
        assert!(landing.landed(3, 13, Some(&view(Incarnation(6)))).is_err());
        assert!(landing.landed(4, 13, Some(&view(Incarnation(6)))).is_ok(), "nothing is known of it");
    }
}
