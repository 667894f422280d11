//! Administrative requests: answered here, or by the master.

use super::*;
use crate::limits::{NAMED_PROCESSES, REPORT_PART_LOCKS};
use crate::master::Master;
use mxlock_format::{NodeSet, Process, Resource};
use mxlock_proto::client::{AdminReply, AdminRequest, FailureKind, Response};
use mxlock_proto::report::Condition;
use mxlock_proto::why::WhyNode;

/// Longest time that a question to the master, or a handover, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same for a question that only makes the answer to another one nicer.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// Who wants to know the commands of processes of this machine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Curious {
    Client(ConnId, u64),
    Peer(NodeId, u64),
}

/// A question that was passed on to another node, mostly the master.
#[derive(Debug)]
pub(super) struct Asked {
    conn: ConnId,
    id: u64,
    node: NodeId,
    deadline: BootTime,
}

/// A client that waits for something to become true.
#[derive(Debug)]
pub(super) struct Waiting {
    conn: ConnId,
    id: u64,
    what: WaitFor,
    deadline: Option<BootTime>,
}

#[derive(Debug)]
enum WaitFor {
    Ready,
    /// Another master than that of this reign is active.
    NewMaster(Epoch),
}

fn failed(kind: FailureKind, message: impl Into<String>) -> AdminReply {
    AdminReply::Failed { kind, message: message.into() }
}

impl Core {
    pub(super) fn reply(&mut self, conn: ConnId, id: u64, reply: AdminReply) {
        self.out.push_back(Output::Reply { conn, response: Response::Admin { id, reply }, valid_until: None });
    }

    pub(super) fn forget_conn(&mut self, conn: ConnId) {
        self.waiting.retain(|waiting| waiting.conn != conn);
        self.asked.retain(|_, asked| asked.conn != conn);
        self.curious.retain(|_, curious| !matches!(curious, Curious::Client(asking, _) if *asking == conn));
        // A leave that has begun goes on: the locks are gone already.
    }

    pub(super) fn admin(&mut self, conn: ConnId, id: u64, request: AdminRequest) {
        let Some(process) = self.member.process_of(conn) else { return };
        let privileged = process.uid == 0 || process.uid == self.config.uid;
        let needs_privilege = matches!(
            request,
            AdminRequest::Handover { .. } | AdminRequest::Leave { .. } | AdminRequest::FenceAck { .. }
        );
        if needs_privilege && !privileged {
            let message = "only root or the daemon's user may do this: run it as that user";
            return self.reply(conn, id, failed(FailureKind::Permission, message));
        }
        match request {
            AdminRequest::Status => {
                let status = AdminReply::Status(Box::new(self.status()));
                self.reply(conn, id, status);
            }
            AdminRequest::Nodes => {
                let nodes = AdminReply::Nodes(self.nodes());
                self.reply(conn, id, nodes);
            }
            AdminRequest::Counters => {
                let counters = AdminReply::Counters(self.all_counters());
                self.reply(conn, id, counters);
            }
            AdminRequest::WaitReady { timeout_ms } => {
                let deadline = timeout_ms.map(|ms| self.now.boot + Duration::from_millis(ms));
                self.waiting.push(Waiting { conn, id, what: WaitFor::Ready, deadline });
            }
            AdminRequest::UnlockFor { pid, resource } => {
                let reply = if self.member.unlock_for(process, pid, &resource) {
                    AdminReply::Ok
                } else {
                    failed(FailureKind::NotFound, format!("process {pid} holds no lock on {resource} by 'mxlock lock'"))
                };
                self.reply(conn, id, reply);
            }
            AdminRequest::Locks { resource } => match &self.master {
                Some(master) if master.is_active() => {
                    for reply in lock_parts(master.list(resource.as_ref())) {
                        self.reply(conn, id, reply);
                    }
                }
                _ => self.ask_master(conn, id, process, AdminRequest::Locks { resource }),
            },
            AdminRequest::Why { resource } => match &self.master {
                Some(master) if master.is_active() => {
                    let why = self.why(master, &resource);
                    self.reply(conn, id, why);
                }
                _ => self.ask_master(conn, id, process, AdminRequest::Why { resource }),
            },
            AdminRequest::Commands { node, processes } => {
                if processes.len() > NAMED_PROCESSES {
                    let message = format!("at most {NAMED_PROCESSES} processes can be asked for at once");
                    self.reply(conn, id, failed(FailureKind::Usage, message));
                } else if node == self.config.node {
                    self.name_processes(Curious::Client(conn, id), processes);
                } else if self.links[node.index()].as_ref().is_some_and(Link::is_up) {
                    let request = AdminRequest::Commands { node, processes };
                    self.ask_node(node, SHORT_PATIENCE, conn, id, process, request);
                } else {
                    let message = format!("node {node} cannot be reached: see 'mxlock nodes'");
                    self.reply(conn, id, failed(FailureKind::Unreachable, message));
                }
            }
            AdminRequest::Handover { to } => self.handover_asked(conn, id, process, to),
            AdminRequest::Leave { release } => self.leave(conn, id, release),
            AdminRequest::FenceAck { node } => self.fence_ack(conn, id, process, node),
        }
    }

    fn ask_master(&mut self, conn: ConnId, id: u64, process: Process, request: AdminRequest) {
        let master = self.cluster.view().map(|view| view.master).filter(|master| {
            *master != self.config.node && self.links[master.index()].as_ref().is_some_and(Link::is_up)
        });
        let Some(master) = master else {
            let (node, condition) = (self.config.node, self.condition());
            let message =
                format!("node {node} has no active master that it can reach ({condition}): see 'mxlock status'");
            return self.reply(conn, id, failed(FailureKind::Unreachable, message));
        };
        self.ask_node(master, PATIENCE, conn, id, process, request);
    }

    fn ask_node(
        &mut self,
        node: NodeId,
        patience: Duration,
        conn: ConnId,
        id: u64,
        process: Process,
        request: AdminRequest,
    ) {
        self.next_ask += 1;
        let ask = self.next_ask;
        self.asked.insert(ask, Asked { conn, id, node, deadline: self.now.boot + patience });
        self.send_to(node, Epoch(0), PeerMessage::Ask { id: ask, process, request });
    }

    fn name_processes(&mut self, curious: Curious, processes: Vec<Process>) {
        self.next_ask += 1;
        self.curious.insert(self.next_ask, curious);
        self.out.push_back(Output::NameProcesses { id: self.next_ask, processes });
    }

    /// The driver has looked the commands up.
    pub(super) fn processes_named(&mut self, id: u64, names: Vec<Option<String>>) {
        let reply = AdminReply::Commands(names);
        match self.curious.remove(&id) {
            Some(Curious::Client(conn, id)) => self.reply(conn, id, reply),
            Some(Curious::Peer(node, id)) => self.send_to(node, Epoch(0), PeerMessage::Reply { id, reply }),
            None => {}
        }
    }

    /// Who waits for whom, with what this node knows of the nodes of those locks.
    fn why(&self, master: &Master, resource: &Resource) -> AdminReply {
        let mut why = master.why(self.now, resource);
        let nodes = why.locks.iter().fold(NodeSet(0), |nodes, entry| nodes.with(entry.lock.node));
        why.nodes = nodes.iter().map(|node| self.why_node(node)).collect();
        AdminReply::Why(Box::new(why))
    }

    fn why_node(&self, node: NodeId) -> WhyNode {
        let me = node == self.config.node;
        let silence = self.cluster.silence(node, self.now.boot).filter(|_| !me);
        let suspect = Duration::from_millis(self.config.superblock.timing.suspect_ms.into());
        WhyNode {
            node,
            host: self.cluster.heartbeat(node).map(|heartbeat| heartbeat.host.clone()).unwrap_or_default(),
            silent_ms: silence.map(|silence| u64::try_from(silence.as_millis()).unwrap_or(u64::MAX)),
            reachable: me || self.links[node.index()].as_ref().is_some_and(Link::is_up),
            suspect: silence.is_some_and(|silence| silence >= suspect),
            blocked_on_fencing: self.cluster.blocked_on().contains(&node),
        }
    }

    /// The master's side of a question. The asking daemon has checked who asks.
    pub(super) fn asked_by_peer(&mut self, node: NodeId, id: u64, _process: Process, request: AdminRequest) {
        let active = self.is_granting(self.now);
        let replies = match request {
            AdminRequest::Locks { resource } if active => {
                lock_parts(self.master.as_ref().expect("an active master").list(resource.as_ref()))
            }
            AdminRequest::Why { resource } if active => {
                vec![self.why(self.master.as_ref().expect("an active master"), &resource)]
            }
            AdminRequest::Commands { processes, .. } if processes.len() <= NAMED_PROCESSES => {
                return self.name_processes(Curious::Peer(node, id), processes);
            }
            AdminRequest::Handover { to } if active => {
                self.hand_over(to);
                vec![AdminReply::Ok]
            }
            AdminRequest::Leave { .. } if active => {
                self.cluster.release_member(self.now.boot, node);
                vec![AdminReply::Ok]
            }
            AdminRequest::FenceAck { node } => match self.cluster.fence_ack(self.now.boot, node) {
                Ok(()) => vec![AdminReply::Ok],
                Err(error) => vec![failed(FailureKind::NotNow, error.to_string())],
            },
            _ => vec![failed(FailureKind::NotNow, format!("node {} is not the active master", self.config.node))],
        };
        for reply in replies {
            self.send_to(node, Epoch(0), PeerMessage::Reply { id, reply });
        }
    }

    pub(super) fn answered_by_peer(&mut self, _node: NodeId, ask: u64, reply: AdminReply) {
        let Some(asked) = self.asked.get(&ask) else { return };
        let (conn, id) = (asked.conn, asked.id);
        if !matches!(reply, AdminReply::Locks { last: false, .. }) {
            self.asked.remove(&ask);
        }
        // A handover is done when there is a new master, not when it has begun.
        let waits = self.waiting.iter().any(|waiting| (waiting.conn, waiting.id) == (conn, id));
        match reply {
            AdminReply::Ok if waits => {}
            reply => {
                self.waiting.retain(|waiting| (waiting.conn, waiting.id) != (conn, id));
                self.reply(conn, id, reply);
            }
        }
    }

    fn handover_asked(&mut self, conn: ConnId, id: u64, process: Process, to: Option<NodeId>) {
        let Some(view) = self.cluster.view().copied() else {
            return self.reply(conn, id, failed(FailureKind::NotNow, "there is no master yet"));
        };
        if view.phase != Phase::Active {
            return self.reply(
                conn,
                id,
                failed(FailureKind::NotNow, "a recovery is under way: try again when it is done"),
            );
        }
        let candidate = |node: NodeId| node != view.master && self.cluster.member_incarnation(node).is_some();
        match to {
            Some(node) if node == view.master => return self.reply(conn, id, AdminReply::Ok),
            Some(node) if !candidate(node) => {
                let message = format!("node {node} is not a live member: see 'mxlock nodes'");
                return self.reply(conn, id, failed(FailureKind::Usage, message));
            }
            None if !view.members.iter().any(candidate) => {
                let message = "there is no other live member that could be master";
                return self.reply(conn, id, failed(FailureKind::NotNow, message));
            }
            _ => {}
        }
        let deadline = Some(self.now.boot + PATIENCE);
        self.waiting.push(Waiting { conn, id, what: WaitFor::NewMaster(reign_of(&view)), deadline });
        if self.is_granting(self.now) {
            self.hand_over(to);
        } else {
            self.ask_master(conn, id, process, AdminRequest::Handover { to });
        }
    }

    fn leave(&mut self, conn: ConnId, id: u64, release: bool) {
        let held = self.member.lock_count();
        if held > 0 && !release {
            let message = format!(
                "node {} still has {held} locks: end their holders, or use --release to end the locks",
                self.config.node
            );
            return self.reply(conn, id, failed(FailureKind::NotNow, message));
        }
        let open = self.member.claims_open();
        if open > 0 && !release {
            let message =
                format!("{open} clients are taking up their locks again: try again in a moment, or use --release");
            return self.reply(conn, id, failed(FailureKind::NotNow, message));
        }
        if self.leaving.is_some() {
            return self.reply(conn, id, failed(FailureKind::NotNow, "the node is leaving already"));
        }
        // The locks of sessions that have not come back yet end with the node's membership, and their clients cannot be told.
        if let Some(until) = self.earlier_lease_until.filter(|until| self.now.boot < *until) {
            let left_ms = until.since(self.now.boot).as_millis();
            let message = format!(
                "the daemon was restarted a moment ago, and clients may still rely on locks of before: try again in {left_ms} ms"
            );
            return self.reply(conn, id, failed(FailureKind::NotNow, message));
        }
        // Before anyone else can get a lock: a client that does not read its messages reads the page.
        self.out.push_back(Output::Lease { until: None });
        self.member.release_all();
        self.member.refuse(Some(Denial::ShuttingDown));
        self.leaving = Some((conn, id));
        self.leave_asked = None;
        self.cluster.stand_last();
    }

    /// A master with other members hands over first; then the master of the day is asked for the release.
    pub(super) fn advance_leave(&mut self) {
        if self.leaving.is_none() || self.stopped {
            return;
        }
        self.member.refuse(Some(Denial::ShuttingDown));
        let Some(view) = self.cluster.view().copied() else {
            return self.cluster.leave(self.now.boot);
        };
        let me = self.config.node;
        if self.cluster.is_master(self.now.boot) {
            let others = view.members.iter().any(|node| node != me && self.cluster.member_incarnation(node).is_some());
            if !others {
                let idle = self.master.as_ref().is_none_or(|master| master.totals().locks == 0);
                if idle && self.leave_asked != Some(view.epoch) {
                    self.leave_asked = Some(view.epoch);
                    self.cluster.leave(self.now.boot);
                }
            } else if self.master.as_ref().is_some_and(|master| master.is_settled_in(self.now))
                && self.handover.is_none()
            {
                // Not to one who wants to leave as well, and would hand it back: that one is released first.
                self.hand_over(None);
            }
            return;
        }
        if view.phase == Phase::Active
            && view.master != me
            && self.leave_asked != Some(view.epoch)
            && self.links[view.master.index()].as_ref().is_some_and(Link::is_up)
        {
            self.leave_asked = Some(view.epoch);
            self.cluster.leave(self.now.boot);
            self.next_ask += 1;
            let id = self.next_ask;
            let process = Process::default();
            let request = AdminRequest::Leave { release: false };
            self.send_to(view.master, Epoch(0), PeerMessage::Ask { id, process, request });
        }
    }

    fn fence_ack(&mut self, conn: ConnId, id: u64, process: Process, node: NodeId) {
        if let Err(error) = self.cluster.fence_ack(self.now.boot, node) {
            return self.reply(conn, id, failed(FailureKind::NotNow, error.to_string()));
        }
        let master = self.cluster.view().map(|view| view.master);
        let reachable = |master: NodeId| self.links[master.index()].as_ref().is_some_and(Link::is_up);
        match master {
            // The master decides about its members; without one, this node stands for election.
            Some(master) if master != self.config.node && master != node && reachable(master) => {
                self.ask_master(conn, id, process, AdminRequest::FenceAck { node });
            }
            _ => self.reply(conn, id, AdminReply::Ok),
        }
    }

    pub(super) fn admin_deadline(&self) -> Option<BootTime> {
        let asked = self.asked.values().map(|asked| asked.deadline).min();
        let waiting = self.waiting.iter().filter_map(|waiting| waiting.deadline).min();
        [asked, waiting].into_iter().flatten().min()
    }

    pub(super) fn admin_on_time(&mut self) {
        let now = self.now.boot;
        let late: Vec<u64> = self.asked.iter().filter(|(_, a)| a.deadline <= now).map(|(ask, _)| *ask).collect();
        for ask in late {
            let asked = self.asked.remove(&ask).expect("just listed");
            self.waiting.retain(|waiting| (waiting.conn, waiting.id) != (asked.conn, asked.id));
            let message = format!("node {} did not answer: see 'mxlock status'", asked.node);
            let reply = failed(FailureKind::Unreachable, message);
            self.reply(asked.conn, asked.id, reply);
        }
    }

    /// Answers those who waited for something that has come true, or whose time has run out.
    pub(super) fn check_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let condition = self.condition();
        let reign = self.cluster.view().map(reign_of);
        let mut replies = Vec::new();
        let now = self.now.boot;
        self.waiting.retain(|waiting| {
            let (done, what) = match waiting.what {
                WaitFor::Ready => (condition == Condition::Ready, "granting locks"),
                WaitFor::NewMaster(old) => {
                    (condition == Condition::Ready && reign.is_some_and(|reign| reign > old), "under a new master")
                }
            };
            if done {
                replies.push((waiting.conn, waiting.id, AdminReply::Ok));
            } else if waiting.deadline.is_some_and(|at| at <= now) {
                let message = format!("the node is not {what} yet ({condition}): see 'mxlock status'");
                replies.push((waiting.conn, waiting.id, failed(FailureKind::NotNow, message)));
            } else {
                return true;
            }
            false
        });
        for (conn, id, reply) in replies {
            self.asked.retain(|_, asked| (asked.conn, asked.id) != (conn, id));
            self.reply(conn, id, reply);
        }
    }
}

/// A listing in parts, so that no frame grows beyond its limit.
fn lock_parts(locks: Vec<mxlock_proto::report::Lock>) -> Vec<AdminReply> {
    let mut parts: Vec<AdminReply> =
        locks.chunks(REPORT_PART_LOCKS).map(|part| AdminReply::Locks { locks: part.to_vec(), last: false }).collect();
    match parts.last_mut() {
        Some(AdminReply::Locks { last, .. }) => *last = true,
        _ => parts.push(AdminReply::Locks { locks: vec![], last: true }),
    }
    parts
}
