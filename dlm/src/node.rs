//! One node: the machines of the core, and who hears what from whom.
//!
//! Every input goes to one machine; then their words to each other are passed on until nobody has anything more to say.
//! Messages between the member and the master of the same node go the same way as those of other nodes, without a link.

mod admin;
mod peers;
mod reign;
mod status;
#[cfg(test)]
mod tests;

use crate::cluster::{Action, Candidate, Cluster};
use crate::config::Config;
use crate::event::{Event, StopReason};
use crate::io::{Beat, ConnId, ImageId, Input, IoId, Output, Region};
use crate::link::{Identity, Link, LinkTiming};
use crate::master::Master;
use crate::member::Member;
use crate::planted::{Bug, planted};
use crate::rng::Rng;
use crate::slots::{Mirror, Slots};
use crate::time::{BootTime, Now};
use admin::{Asked, Curious, Waiting};
use mxlock_format::{Epoch, Incarnation, LockId, MAX_NODES, NodeId, NodeState, Phase, View};
use mxlock_proto::client::{Denial, Request};
use mxlock_proto::peer::{PeerFrame, PeerMessage};
use mxlock_proto::report::Counters;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// The deterministic core of one node. See the crate's text.
pub struct Core {
    config: Config,
    now: Now,
    cluster: Cluster,
    member: Member,
    master: Option<Box<Master>>,
    /// The mirror of the last reign, until its writes have ended.
    last_mirror: Mirror,
    /// Writes of earlier reigns of this node that are under way.
    earlier_writes: BTreeSet<IoId>,
    /// None of them, and no other write of those reigns, has ended in an error.
    earlier_writes_good: bool,
    next_io: u64,
    counters: Counters,

    links: [Option<Link>; MAX_NODES],
    /// With the incarnations before those.
    links_before: [Option<Link>; MAX_NODES],
    seen: [Option<Incarnation>; MAX_NODES],
    peers: Vec<crate::io::PeerAddress>,
    link_timing: LinkTiming,
    renew: Duration,
    dead: Duration,

    /// When `Join` is sent again.
    join_due: Option<BootTime>,
    /// Others shall look at the disk once the next image is written.
    announce: bool,
    announce_after: Option<ImageId>,
    /// A planned handover: to whom.
    handover: Option<Option<NodeId>>,
    stopping: bool,
    leaving: Option<(ConnId, u64)>,
    /// Clients of an earlier daemon of this boot may rely on its lease until then.
    earlier_lease_until: Option<BootTime>,
    leave_asked: Option<Epoch>,
    isolated: bool,
    asked: BTreeMap<u64, Asked>,
    curious: BTreeMap<u64, Curious>,
    waiting: Vec<Waiting>,
    next_ask: u64,
    stopped: bool,
    /// Before this time `on_time` has nothing to do.
    wake_at: BootTime,
    out: VecDeque<Output>,
}

/// The reign that a view belongs to: the epoch of the view that its master recovered the table in. Messages about locks
/// carry it; admissions and exclusions by the same master do not change it.
fn reign_of(view: &View) -> Epoch {
    match view.phase {
        Phase::Recovering => view.epoch,
        Phase::Active => view.table_epoch,
    }
}

impl Core {
    /// A node whose slot guard the driver holds; `region` is what [`crate::cluster::candidates`] was asked about.
    pub fn new(now: Now, config: Config, candidate: Candidate, region: &Region) -> Core {
        let timing = config.superblock.timing;
        let renew = Duration::from_millis(timing.renew_ms.into());
        let mut rng = Rng::new(config.seed);
        let lease = Duration::from_millis(u64::from(timing.lease_ms) + u64::from(timing.grace_ms));
        let restarted = candidate.kind == crate::cluster::ClaimKind::OwnSameBoot;
        let earlier_lease_until = restarted.then(|| now.boot + lease);
        let member_rng = Rng::new(rng.next_u64());
        Core {
            cluster: Cluster::new(now.boot, &config, candidate, region),
            member: Member::new(&config, member_rng),
            master: None,
            last_mirror: Slots::new_mirror(0),
            earlier_writes: BTreeSet::new(),
            earlier_writes_good: true,
            next_io: 0,
            counters: Counters::default(),
            links: [const { None }; MAX_NODES],
            links_before: [const { None }; MAX_NODES],
            seen: [None; MAX_NODES],
            peers: Vec::new(),
            link_timing: LinkTiming { ack_delay: renew / 16, resend: renew / 4 },
            renew,
            dead: Duration::from_millis(timing.dead_ms.into()),
            join_due: None,
            announce: false,
            announce_after: None,
            handover: None,
            stopping: false,
            leaving: None,
            earlier_lease_until,
            leave_asked: None,
            isolated: false,
            asked: BTreeMap::new(),
            curious: BTreeMap::new(),
            waiting: Vec::new(),
            next_ask: 0,
            stopped: false,
            wake_at: BootTime(0),
            out: VecDeque::new(),
            now,
            config,
        }
    }

    /// Takes one input. Drain [`Core::poll_output`] afterwards (after several inputs of the same moment is fine too).
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        if self.stopped {
            return;
        }
        let writing = self.master.as_ref().is_some_and(|master| master.is_writing());
        self.cluster.set_writes_in_flight(writing || !self.earlier_writes.is_empty());
        // Deadlines that come up meanwhile are found by the driver, which asks `next_wakeup` before it sleeps.
        let timed = matches!(input, Input::Tick | Input::Beat(_));
        match input {
            Input::Tick => {}
            Input::Beat(beat) => self.beat(beat),
            Input::Written { io, result } => {
                if self.earlier_writes.remove(&io) {
                    self.earlier_writes_good &= !matches!(result, Err(crate::io::IoFault::Failed(_)));
                    if self.earlier_writes.is_empty() {
                        if std::mem::replace(&mut self.earlier_writes_good, true) {
                            self.cluster.writes_settled(now.boot);
                        }
                        self.last_mirror = Slots::new_mirror(0);
                        if let Some(master) = &mut self.master {
                            master.settled(now);
                        }
                    }
                } else if let Some(master) = &mut self.master {
                    master.written(now, io, result);
                }
            }
            Input::TableRead { io, result } => {
                if let Some(master) = &mut self.master {
                    master.table_read(now, io, result);
                }
            }
            Input::PeerUp { node, incarnation } => self.peer_up(node, incarnation),
            Input::PeerDown { node } => self.peer_down(node),
            Input::Peer { node, frame } => self.peer_frame(node, frame),
            Input::Connected { conn, process } => self.member.connected(conn, process),
            Input::Client { conn, request, subject } => self.client(conn, request, subject),
            Input::Disconnected { conn } => {
                self.forget_conn(conn);
                self.member.disconnected(now, conn);
            }
            Input::Undelivered { conn, seq, op } => {
                if let Some(session) = self.member.session_of(conn) {
                    self.member.undelivered(LockId { session, seq }, op);
                }
            }
            Input::ProcessGone { process } => self.member.process_gone(now, process),
            Input::ProcessNames { id, names } => self.processes_named(id, names),
            Input::Shutdown => self.shutdown(),
        }
        if now.boot >= self.wake_at || timed {
            self.on_time();
            self.wake_at = self.next_wakeup().unwrap_or(BootTime(u64::MAX));
        }
        self.pump();
    }

    /// The next thing to do. Carry the outputs out in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When `Input::Tick` is due, at the latest. A time that has passed means at once.
    pub fn next_wakeup(&self) -> Option<BootTime> {
        if self.stopped {
            return None;
        }
        let links = self.links.iter().flatten().filter_map(Link::deadline).min();
        [
            self.cluster.next_deadline(),
            self.member.deadline(),
            self.master.as_ref().and_then(|master| master.deadline()),
            self.join_due,
            links,
            self.admin_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What `Output::WriteTable` writes.
    pub fn mirror(&self) -> &Mirror {
        self.master.as_ref().map_or(&self.last_mirror, |master| &master.mirror)
    }

    /// This node's slot.
    pub fn node(&self) -> NodeId {
        self.config.node
    }

    /// The newest committed view known.
    pub fn view(&self) -> Option<&View> {
        self.cluster.view()
    }

    /// Whether this node grants locks now (I4).
    pub fn is_granting(&self, now: Now) -> bool {
        self.cluster.is_master(now.boot) && self.master.as_ref().is_some_and(|master| master.is_active())
    }

    /// Whether this node's clients can get locks: there is an active master that this node has reported to.
    pub fn is_ready(&self) -> bool {
        self.condition() == mxlock_proto::report::Condition::Ready
    }

    /// Whether memory is in order (section 9); for tests, after every step.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.master.as_ref().map_or(Ok(()), |master| master.check_invariants())
    }

    fn beat(&mut self, beat: Beat) {
        let written = beat.write.as_ref().filter(|write| write.result.is_ok()).map(|write| write.image);
        self.cluster.set_lock_count(self.member.held_count());
        self.cluster.on_beat(self.now.boot, beat);
        if let (Some(after), Some(written)) = (self.announce_after, written)
            && written >= after
        {
            self.announce_after = None;
            self.tell_others_to_look();
        }
        self.watch_peers();
        self.judge_links();
    }

    fn on_time(&mut self) {
        let now = self.now;
        if self.cluster.next_deadline().is_some_and(|at| at <= now.boot) {
            self.cluster.on_time(now.boot);
        }
        // What the cluster found out comes first: a lease that is over stops everything else.
        self.cluster_actions();
        if self.member.deadline().is_some_and(|at| at <= now.boot) {
            self.member.on_time(now);
        }
        if let Some(master) = self.master.as_mut().filter(|m| m.deadline().is_some_and(|at| at <= now.boot)) {
            master.on_time(now);
        }
        if self.join_due.is_some_and(|at| at <= now.boot) {
            self.send_join();
        }
        self.links_on_time();
        self.admin_on_time();
    }

    /// Passes words on until nobody has anything more to say.
    fn pump(&mut self) {
        loop {
            let acted = self.cluster_actions();
            self.report_if_due();
            self.advance_handover();
            let said = self.member_words() | self.master_orders();
            if !acted && !said {
                break;
            }
        }
        self.advance_leave();
        self.check_waiting();
        self.out.append(&mut self.member.out);
        if let Some(master) = &mut self.master {
            self.out.append(&mut master.out);
        }
    }

    fn cluster_actions(&mut self) -> bool {
        let mut any = false;
        while let Some(action) = self.cluster.poll() {
            any = true;
            self.carry_out(action);
        }
        any
    }

    fn carry_out(&mut self, action: Action) {
        let now = self.now;
        match action {
            Action::Publish { image, heartbeat, urgent, begin_by } => {
                if std::mem::take(&mut self.announce) || heartbeat.state == NodeState::Resigned {
                    self.announce_after = Some(image);
                }
                self.out.push_back(Output::Heartbeat { image, heartbeat, urgent, begin_by });
            }
            Action::BallotsFrom(from) => self.out.push_back(Output::BallotsFrom { from }),
            Action::Look => self.out.push_back(Output::Look),
            Action::SlotConfirmed => self.watch_peers(),
            Action::ViewLearned { view, own } => self.view_learned(view, own),
            Action::LeaseExtended { until } => {
                self.member.set_lease(Some(until));
                if let Some(master) = &mut self.master {
                    master.set_lease(Some(until));
                    master.write_on();
                }
                // The clients of a node that leaves have nothing to rely on any more.
                if self.leaving.is_none() {
                    self.out.push_back(Output::Lease { until: Some(until) });
                }
            }
            Action::LeaseLost => {
                self.drop_master();
                self.member.lease_lost();
                self.out.push_back(Output::Lease { until: None });
            }
            Action::LeaseRegained { .. } => {
                let until = self.cluster.lease_until();
                if self.leaving.is_none() {
                    self.out.push_back(Output::Lease { until });
                }
                self.member.lease_regained(until);
            }
            Action::WantsJoin { .. } => self.send_join(),
            Action::Joiner { .. } => {}
            Action::MemberReplaced { node, incarnation } => {
                if let Some(master) = &mut self.master {
                    if planted(Bug::RestartFreesLocks) {
                        return master.purge_node(now, node);
                    }
                    master.replaced(now, node, incarnation);
                }
            }
            Action::MemberBack { node } => {
                self.out.push_back(Output::Log(Event::MemberBack { node }));
                // Everybody is heard anew by the next master.
                if self.handover.is_none() {
                    self.hand_over(None);
                }
            }
            Action::Admitted { node, incarnation, view } => {
                if self.links[node.index()].as_ref().is_some_and(|link| link.incarnation() == incarnation) {
                    self.send_to(node, view.epoch, PeerMessage::Admitted { view });
                }
            }
            Action::Excluded { .. } => {
                self.drop_master();
                let incarnation = self.cluster.incarnation();
                self.member.excluded(incarnation);
                self.links = [const { None }; MAX_NODES];
                self.links_before = [const { None }; MAX_NODES];
                self.seen = [None; MAX_NODES];
                self.peers.clear();
                self.out.push_back(Output::Lease { until: None });
                self.out.push_back(Output::NewIncarnation { incarnation });
                self.watch_peers();
            }
            Action::Log(event) => self.out.push_back(Output::Log(event)),
            Action::Stop(reason) => self.stop(reason),
        }
    }

    fn stop(&mut self, reason: StopReason) {
        if reason == StopReason::Shutdown {
            self.tell_others_to_look();
        }
        if let (StopReason::Left, Some((conn, id))) = (&reason, self.leaving.take()) {
            self.reply(conn, id, mxlock_proto::client::AdminReply::Ok);
        }
        self.out.append(&mut self.member.out);
        // After a shutdown what was promised stands: the node stays a member, and its clients' locks are theirs until they
        // reach the next daemon, or the lease ends.
        if reason != StopReason::Shutdown {
            self.out.push_back(Output::Lease { until: None });
        }
        self.out.push_back(Output::Stop { reason });
        self.stopped = true;
    }

    fn is_me(&self, node: NodeId, incarnation: Incarnation) -> bool {
        node == self.config.node && incarnation == self.cluster.incarnation()
    }

    /// Reports to a master that does not know yet what this node holds (section 6).
    fn report_if_due(&mut self) {
        let Some(view) = self.cluster.view() else { return };
        let reign = reign_of(view);
        if self.member.reported() == Some(reign) || !self.cluster.is_member() {
            return;
        }
        let (master, incarnation) = (view.master, view.master_incarnation);
        let can_hear = if self.is_me(master, incarnation) {
            self.master.as_ref().is_some_and(|master| master.reign() == reign)
        } else {
            self.links[master.index()].as_ref().is_some_and(|link| link.incarnation() == incarnation)
        };
        if can_hear {
            self.member.report(reign);
        }
    }

    fn member_words(&mut self) -> bool {
        let mut any = false;
        while let Some(message) = self.member.to_master.pop_front() {
            any = true;
            let Some(view) = self.cluster.view() else { continue };
            let (master, incarnation, reign) = (view.master, view.master_incarnation, reign_of(view));
            if self.is_me(master, incarnation) {
                if let Some(master) = self.master.as_mut().filter(|master| master.reign() == reign) {
                    master.handle(self.now, self.config.node, incarnation, message);
                }
            } else {
                self.send_to(master, reign, message);
            }
        }
        any
    }

    fn client(&mut self, conn: ConnId, request: Request, subject: Option<mxlock_format::Process>) {
        let now = self.now;
        if let Request::Hello(hello) = request {
            return self.member.hello(conn, hello, subject);
        }
        if let Request::Admin { id, request } = request {
            return self.admin(conn, id, request);
        }
        // Nothing but `Hello` opens a session.
        let Some(session) = self.member.session_of(conn) else {
            return self.out.push_back(Output::Close { conn });
        };
        match request {
            Request::Lock(request) => self.member.lock(now, session, request),
            Request::Convert(request) => self.member.convert(now, session, request),
            Request::Unlock(request) => self.member.unlock(session, request),
            Request::Cancel { seq } => self.member.cancel(session, seq),
            Request::Adopt(request) => self.member.adopt(now, session, request),
            Request::Bye => self.member.bye(now, session),
            Request::Hello(_) | Request::Admin { .. } => unreachable!("handled above"),
        }
    }
}
