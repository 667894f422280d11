//! I4: at most one view per epoch; a node acts as master only in the newest view it knows, within its lease.
//!
//! Views are taken from every heartbeat sector that ever reached the disk and from what the cores say. That nobody acts
//! as master while another one does is checked where a core says so or writes a record.

use crate::clock::Time;
use mxlock_format::{Epoch, Heartbeat, NodeId, NodeSet, View};
use std::collections::BTreeMap;

/// The committed views.
#[derive(Default)]
pub struct Views {
    committed: BTreeMap<Epoch, (View, Time)>,
    /// The lockstate begins with this epoch: it was formatted anew.
    base: Epoch,
}

impl Views {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.committed.len() as u64
    }

    /// The newest one.
    pub fn newest(&self) -> Option<View> {
        self.committed.last_key_value().map(|(_, (view, _))| *view)
    }

    /// The one that `epoch` follows.
    pub fn before(&self, epoch: Epoch) -> Option<View> {
        self.committed.range(self.base.min(epoch)..epoch).next_back().map(|(_, (view, _))| *view)
    }

    /// The lockstate is formatted anew: what comes follows nothing.
    pub fn formatted(&mut self, base: Epoch) {
        self.base = base;
    }

    /// When the newest one was committed.
    pub fn changed_at(&self) -> Option<Time> {
        self.committed.last_key_value().map(|(_, (_, at))| *at)
    }

    /// A view was said to be committed.
    ///
    /// # Errors
    /// Another one was committed in its epoch.
    pub fn committed(&mut self, view: View, now: Time) -> Result<(), String> {
        match self.committed.entry(view.epoch).or_insert((view, now)) {
            (known, _) if *known != view => Err(format!("two views of {:?}: {known:?} and {view:?}", view.epoch)),
            _ => Ok(()),
        }
    }

    /// A heartbeat has reached the disk in place of `before`.
    ///
    /// # Errors
    /// Its view is not the one of its epoch, or its owner goes back.
    pub fn landed(&mut self, before: &Heartbeat, after: &Heartbeat, now: Time) -> Result<(), String> {
        if before.incarnation == after.incarnation && after.epoch < before.epoch {
            return Err(format!("node {} goes back from {:?} to {:?}", after.node, before.epoch, after.epoch));
        }
        after.view.map_or(Ok(()), |view| self.committed(view, now))
    }

    /// Whether `node` was a member and then was not, in views committed at or after `since`.
    pub fn excluded_since(&self, node: NodeId, since: Time) -> bool {
        let out = |view: &View| !view.members.contains(node);
        self.committed.values().any(|(view, at)| *at >= since && out(view))
    }

    /// How often a member was dropped.
    pub fn exclusions(&self) -> u64 {
        let views: Vec<NodeSet> = self.committed.values().map(|(view, _)| view.members).collect();
        views.windows(2).map(|pair| u64::from((pair[0].0 & !pair[1].0).count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SEC;
    use mxlock_format::{ClusterKey, Geometry, Incarnation, Phase, SectorSize, Superblock, Timing, Uuid};

    fn view(epoch: u64, members: u64) -> View {
        View {
            epoch: Epoch(epoch),
            master: NodeId::new(1).unwrap(),
            master_incarnation: Incarnation(5),
            phase: Phase::Active,
            members: NodeSet(members),
            owed: NodeSet(0),
            table_epoch: Epoch(epoch),
            feature_level: 1,
        }
    }

    #[test]
    fn two_views_of_an_epoch_are_seen() {
        let mut views = Views::default();
        assert!(views.committed(view(8, 0b11), 0).is_ok());
        assert!(views.committed(view(8, 0b11), SEC).is_ok(), "the same one, told again");
        assert!(views.committed(view(8, 0b01), SEC).is_err());
        assert!(views.committed(view(9, 0b01), 2 * SEC).is_ok());
        assert!(views.excluded_since(NodeId::new(1).unwrap(), SEC));
        assert!(!views.excluded_since(NodeId::new(0).unwrap(), SEC));
        assert_eq!((views.exclusions(), views.count()), (1, 2));
    }

    #[test]
    fn a_heartbeat_that_goes_back_is_seen() {
        let superblock = Superblock {
            geometry: Geometry { sector: SectorSize::S512, slot_count: 64 },
            timing: Timing::FAST,
            lockspace: "test".to_owned(),
            uuid: Uuid([7; 16]),
            key: ClusterKey([9; 32]),
            feature_level: 1,
        };
        let beat = |epoch| Heartbeat::empty(NodeId::new(1).unwrap(), &superblock, Epoch(epoch));
        let mut views = Views::default();
        assert!(views.landed(&beat(8), &beat(9), 0).is_ok());
        assert!(views.landed(&beat(9), &beat(8), 0).is_err());
        let another = Heartbeat { incarnation: Incarnation(2), ..beat(8) };
        assert!(views.landed(&beat(9), &another, 0).is_ok(), "another incarnation may know less");
    }
}
