//! What `mxlock status` and `mxlock nodes` show.

use super::*;
use mxlock_proto::report::{Condition, Node, Status};

/// Time that a failover may take beyond the judgement: elections, the table, the reports.
const FAILOVER_SLACK_MS: u64 = 3_000;

impl Core {
    /// Whether this node's clients can get locks, and if not, why.
    pub(super) fn condition(&self) -> Condition {
        if self.stopping || self.leaving.is_some() {
            return Condition::Stopping;
        }
        if !self.cluster.is_slot_confirmed() {
            return Condition::Starting;
        }
        let Some(view) = self.cluster.view() else { return Condition::Electing };
        if self.cluster.is_member() && self.cluster.lease_until().is_none_or(|until| until <= self.now.boot) {
            return Condition::LeaseLost;
        }
        if !self.cluster.blocked_on().is_empty() && self.cluster.blocked_on().contains(&view.master) {
            return Condition::FencingBlocked;
        }
        if self.isolated {
            return Condition::Isolated;
        }
        if !self.cluster.is_member() {
            return if self.cluster.damaged().is_empty() { Condition::Joining } else { Condition::Damaged };
        }
        if view.phase == Phase::Recovering {
            return Condition::Recovering;
        }
        let me = self.is_me(view.master, view.master_incarnation);
        let ready = if me {
            self.is_granting(self.now)
        } else {
            self.member.reported() == Some(reign_of(view))
                && self.links[view.master.index()].as_ref().is_some_and(Link::is_up)
        };
        if ready { Condition::Ready } else { Condition::Electing }
    }

    pub(super) fn status(&self) -> Status {
        let view = self.cluster.view();
        let superblock = &self.config.superblock;
        let timing = superblock.timing;
        let totals = self.master.as_ref().map(|master| master.totals()).unwrap_or_default();
        let mut blocked: Vec<String> = self
            .cluster
            .blocked_on()
            .into_iter()
            .map(|node| format!("blocked on fencing node {node}: switch it off, then 'mxlock fence-ack {node} --yes'"))
            .collect();
        blocked.extend(self.cluster.damaged().into_iter().map(|node| {
            format!("the heartbeat sector of node {node} is damaged: view changes wait for its owner to rewrite it")
        }));
        if totals.damaged > 0 {
            blocked.push(format!(
                "{} damaged records: requests for resources without locks are refused until all owners have spoken",
                totals.damaged
            ));
        }
        let (bound, formula) = if self.config.fence_wait {
            (
                Some(u64::from(timing.dead_ms) + 2 * u64::from(timing.renew_ms) + FAILOVER_SLACK_MS),
                "D + 2R + 3 s (dead time, two renewals, recovery)".to_owned(),
            )
        } else {
            (None, "no bound: it waits for 'mxlock fence-ack' (method 'wait' is not listed)".to_owned())
        };
        Status {
            lockspace: superblock.lockspace.clone(),
            uuid: superblock.uuid,
            lockstate: self.config.lockstate.clone(),
            node: self.config.node,
            host: self.config.host.clone(),
            incarnation: self.cluster.incarnation(),
            state: self.cluster.state(),
            condition: self.condition(),
            epoch: view.map(|view| view.epoch).unwrap_or_default(),
            phase: view.map(|view| view.phase),
            master: view.map(|view| view.master),
            members: view.map(|view| view.members.iter().collect()).unwrap_or_default(),
            table_epoch: view.map(|view| view.table_epoch).unwrap_or_default(),
            timing,
            lease_left_ms: self
                .cluster
                .lease_until()
                .filter(|until| *until > self.now.boot)
                .map(|until| u64::try_from(until.since(self.now.boot).as_millis()).unwrap_or(u64::MAX)),
            protection: "advisory".to_owned(),
            failover_bound_ms: bound,
            failover_formula: formula,
            blocked,
            locks_held: self.member.held_count(),
            locks_waiting: self.member.lock_count() - self.member.held_count(),
            orphans: totals.orphans,
            possible_holders: totals.possible,
            slots_used: totals.slots_used,
            slot_count: superblock.geometry.slot_count.into(),
            io: self.config.io.clone(),
            scope: self.config.scope.clone(),
            master_reachable: view.is_some_and(|view| {
                view.master == self.config.node || self.links[view.master.index()].as_ref().is_some_and(Link::is_up)
            }),
            damaged_sectors: totals.damaged + self.cluster.damaged().len() as u64,
            warnings: self.config.warnings.clone(),
        }
    }

    /// The slots in use, and the damaged ones.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let view = self.cluster.view();
        let member = |node: NodeId| view.is_some_and(|view| view.members.contains(node));
        let master = |node: NodeId| view.is_some_and(|view| view.master == node);
        NodeId::all()
            .filter_map(|node| {
                let reachable = node == self.config.node || self.links[node.index()].as_ref().is_some_and(Link::is_up);
                let Some(heartbeat) = self.cluster.heartbeat(node) else {
                    return Some(Node {
                        node,
                        state: NodeState::Empty,
                        member: member(node),
                        master: master(node),
                        host: String::new(),
                        addresses: vec![],
                        heartbeat_age_ms: None,
                        reachable,
                        locks: 0,
                        incarnation: Incarnation::default(),
                        epoch: Epoch::default(),
                        damaged: true,
                    });
                };
                if heartbeat.state == NodeState::Empty {
                    return None;
                }
                let age = self.cluster.silence(node, self.now.boot);
                Some(Node {
                    node,
                    state: heartbeat.state,
                    member: member(node),
                    master: master(node),
                    host: heartbeat.host.clone(),
                    addresses: heartbeat.addresses.clone(),
                    heartbeat_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                    reachable,
                    locks: heartbeat.lock_count,
                    incarnation: heartbeat.incarnation,
                    epoch: heartbeat.epoch,
                    damaged: false,
                })
            })
            .collect()
    }

    pub(super) fn all_counters(&self) -> Counters {
        let mut counters = self.counters;
        if let Some(master) = &self.master {
            let now = &master.counters;
            counters.grants += now.grants;
            counters.denials += now.denials;
            counters.releases += now.releases;
            counters.records_written += now.records_written;
            counters.records_cleared += now.records_cleared;
            counters.standing_reuses += now.standing_reuses;
        }
        counters.pid = self.config.pid;
        counters
    }
}
