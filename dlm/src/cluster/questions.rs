//! What others may ask the cluster: nothing here changes it.

use super::fence::Verdict;
use super::{Cluster, Standing};
use crate::time::BootTime;
use mxlock_format::{Epoch, Heartbeat, Incarnation, NodeId, NodeState, View};
use std::time::Duration;

impl Cluster {
    /// This node's slot.
    pub fn node(&self) -> NodeId {
        self.identity.node
    }

    /// This incarnation; an exclusion changes it.
    pub fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// What the own sector says of this node.
    pub fn state(&self) -> NodeState {
        self.state
    }

    /// The newest committed view known.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// End of the lease; `None` while this incarnation is not confirmed (not yet admitted, or the loss is latched).
    pub fn lease_until(&self) -> Option<BootTime> {
        self.lease.until().filter(|_| self.standing == Standing::Confirmed)
    }

    /// I4: the newest view known names this incarnation, it has not resigned, and its lease is valid.
    pub fn is_master(&self, now: BootTime) -> bool {
        !self.stopped
            && self.view.is_some_and(|view| self.is_me(view.master, view.master_incarnation))
            && self.resigned_up_to.is_none()
            && self.lease_until().is_some_and(|until| now < until)
    }

    /// This incarnation was admitted, is in the newest view known, and its sector says so on disk: it may have locks.
    pub fn is_member(&self) -> bool {
        !self.stopped
            && self.admitted
            && self.member_on_disk
            && self.view.is_some_and(|view| view.members.contains(self.node()))
    }

    /// Whether the slot is ours.
    pub fn is_slot_confirmed(&self) -> bool {
        self.claim.is_confirmed()
    }

    /// While this node is to be (re)admitted: what to put into `Join`.
    pub fn wants_join(&self) -> Option<Epoch> {
        match self.standing {
            Standing::Wanting { above, .. }
                if self.claim.is_confirmed() && !self.leaving && !self.retiring && !self.stopped =>
            {
                above
            }
            _ => None,
        }
    }

    /// As master: the first epoch of this recovery, which is the stamp of its table (section 6).
    pub fn recovering_epoch(&self) -> Option<Epoch> {
        self.mandate.recovering_since()
    }

    /// The incarnation of a member: what this master admitted, else what the slot's sector says with its state.
    pub fn member_incarnation(&self, node: NodeId) -> Option<Incarnation> {
        let view = self.view?;
        if !view.members.contains(node) {
            return None;
        }
        if node == self.node() {
            return self.admitted.then_some(self.incarnation());
        }
        let heartbeat = self.heartbeat(node)?;
        let by_memory = self.mandate.admitted(node) == Some(heartbeat.incarnation);
        let by_sector = matches!(heartbeat.state, NodeState::Member | NodeState::Resigned);
        (by_memory || by_sector).then_some(heartbeat.incarnation)
    }

    /// The node's heartbeat as last read; `None` when it is damaged.
    pub fn heartbeat(&self, node: NodeId) -> Option<&Heartbeat> {
        self.region[node.index()].as_ref().ok()
    }

    /// How long the node's heartbeat has not changed, on this clock.
    pub fn silence(&self, node: NodeId, now: BootTime) -> Option<Duration> {
        self.liveness.age(node, now)
    }

    /// Members that are silent and wait for `fence-ack`.
    pub fn blocked_on(&self) -> Vec<NodeId> {
        let Some(view) = self.view else { return Vec::new() };
        let blocked = |&node: &NodeId| self.fence.verdict(node, &self.liveness) == Verdict::Blocked;
        view.members.with(view.master).without(self.node()).iter().filter(blocked).collect()
    }

    /// Damaged heartbeat sectors: view changes wait for their repair.
    pub fn damaged(&self) -> Vec<NodeId> {
        NodeId::all().filter(|node| self.region[node.index()].is_err()).collect()
    }
}
