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
        self.committed.range(..epoch).next_back().map(|(_, (view, _))| *view)
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
