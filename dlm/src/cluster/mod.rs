//! One node's part in the cluster: its slot, heartbeat and lease, its judgement of the others, and the views that they
//! agree on through the disk (DESIGN sections 4 and 5). Locks are not known here.
//!
//! [`Cluster`] is a pure state machine: calls with the time go in, [`Action`]s are drained with [`Cluster::poll`] after
//! every call, in order. `docs/protocol.md` tells the same story with pictures.
//!
//! | file | subject |
//! |---|---|
//! | `claim` | which slot, and what to wait for before writing there |
//! | `sector` | the own sector: handed out, written, found |
//! | `lease` | how long this node may act |
//! | `liveness` | silence of the others |
//! | `fence` | when silence counts as gone |
//! | `agreement` | Disk Paxos |
//! | `standing` | member, master, excluded: what a view means for this node; the own heartbeat |
//! | `policy` | who proposes which view, and when |
//! | `beat` | what one turn of the heartbeat thread means |
//! | `action`, `questions` | what the cluster wants done; what others may ask it |

mod action;
pub mod agreement;
mod beat;
mod claim;
mod fence;
mod lease;
mod liveness;
mod policy;
mod questions;
mod sector;
#[cfg(test)]
mod sim;
mod standing;
#[cfg(test)]
mod tests;

pub use action::Action;
pub use claim::{Candidate, ClaimError, ClaimKind, candidates};
pub use fence::FenceAckError;

use crate::config::Config;
use crate::event::StopReason;
use crate::io::Region;
use crate::rng::Rng;
use crate::time::BootTime;
use agreement::Proposer;
use claim::Claim;
use fence::Fence;
use lease::Lease;
use liveness::{Liveness, Pulse};
use mxlock_format::{Epoch, Heartbeat, Incarnation, MAX_NODES, NodeId, NodeSet, NodeState, View};
use policy::Mandate;
use sector::OwnSector;
use std::collections::VecDeque;
use std::time::Duration;

/// Whether this incarnation is confirmed by a view, and so holds what its lease covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It is a joiner, or lost its lease. Only a view above `above` confirms it: the highest epoch that was committed
    /// *or under way* in a region read after the loss. A proposal for a later one began after this node's new heartbeat
    /// was on disk, so whoever made it cannot have taken this node for dead.
    Wanting { above: Option<Epoch>, lost_at: BootTime },
    /// Confirmed; the lease counts.
    Confirmed,
}

/// The state machine of one node; see the module's text.
#[derive(Clone, Debug)]
pub struct Cluster {
    identity: Identity,
    renew: Duration,
    dead: Duration,
    rng: Rng,
    now: BootTime,
    stopped: bool,

    claim: Claim,
    sector: OwnSector,
    lease: Lease,
    liveness: Liveness,
    fence: Fence,
    proposer: Proposer,
    mandate: Mandate,

    /// The last region read.
    region: Box<Region>,
    view: Option<View>,
    standing: Standing,
    /// This incarnation was a member of a view.
    admitted: bool,
    state: NodeState,
    /// `Member` or `Resigned` with this incarnation has been written.
    member_on_disk: bool,
    /// Mastership of a view up to this epoch is given up.
    resigned_up_to: Option<Epoch>,
    successor: Option<NodeId>,
    writes_uncertain: bool,
    /// The same of the daemon before this one, as far as its sector does not say so.
    inherited_uncertain_until: Option<BootTime>,
    /// Record writes are under way: a mastership that ends now ends with uncertain writes.
    writes_in_flight: bool,
    leaving: bool,
    stands_aside: bool,
    stands_last: bool,
    retiring: bool,
    recovery_hook: bool,
    reachable: NodeSet,
    lock_count: u64,

    /// When this node stands for the election of this epoch.
    stand_at: Option<(Epoch, BootTime)>,
    /// Nodes whose link was lost: looked at often, until their heartbeat changes.
    watched: [Option<(Pulse, BootTime)>; MAX_NODES],
    next_look: Option<BootTime>,
    /// The newest image was handed out without hurry.
    waits_for_tick: bool,
    /// Until when the first write may begin, and until when the image handed out may.
    begin_by: Option<BootTime>,
    begin_by_told: Option<BootTime>,
    /// What the driver was told to keep for the next daemon.
    ballots_from_told: Option<BootTime>,
    late_warned: bool,
    silent_reported: NodeSet,
    blocked_reported: NodeSet,
    damaged_before: NodeSet,
    damaged_reported: NodeSet,
    actions: VecDeque<Action>,
}

/// What never changes in the own heartbeat, but for the incarnation.
#[derive(Clone, Debug)]
struct Identity {
    node: NodeId,
    incarnation: Incarnation,
    template: Heartbeat,
}

impl Cluster {
    /// A node that is about to claim `candidate.node`, whose guard the driver holds; `region` is what
    /// [`candidates`] was asked about. Nothing is published before the sector has been looked at again.
    pub fn new(now: BootTime, config: &Config, candidate: Candidate, region: &Region) -> Cluster {
        let timing = config.superblock.timing;
        let [renew, lease, dead, suspect] = [timing.renew_ms, timing.lease_ms, timing.dead_ms, timing.suspect_ms]
            .map(|ms| Duration::from_millis(ms.into()));
        let node = candidate.node;
        let template = Heartbeat {
            node_uuid: config.node_uuid,
            boot_id: config.boot_id,
            host: config.host.clone(),
            addresses: config.addresses.clone(),
            protocols: mxlock_proto::peer::PEER_PROTOCOLS,
            ..Heartbeat::empty(node, &config.superblock, Epoch(0))
        };
        let mut proposer = Proposer::new(node);
        match config.ballots_from {
            Some(from) => proposer.ban(from),
            None if candidate.kind == ClaimKind::OwnSameBoot => proposer.ban(now + dead),
            None => {}
        }
        Cluster {
            identity: Identity { node, incarnation: config.incarnation, template },
            renew,
            dead,
            rng: Rng::new(config.seed),
            now,
            stopped: false,
            claim: Claim::new(candidate, config.node_uuid, config.boot_id, region),
            sector: OwnSector::default(),
            lease: Lease::new(lease),
            liveness: Liveness::new(renew, dead),
            fence: Fence::new(config.fence_wait, suspect),
            proposer,
            mandate: Mandate::default(),
            region: Box::new(region.clone()),
            view: None,
            standing: Standing::Wanting { above: None, lost_at: now },
            admitted: false,
            state: NodeState::Joining,
            member_on_disk: false,
            resigned_up_to: None,
            successor: None,
            writes_uncertain: false,
            inherited_uncertain_until: config.uncertain_until,
            writes_in_flight: false,
            leaving: false,
            stands_aside: false,
            stands_last: false,
            retiring: false,
            recovery_hook: false,
            reachable: NodeSet::EMPTY,
            lock_count: 0,
            stand_at: None,
            watched: [None; MAX_NODES],
            next_look: None,
            waits_for_tick: false,
            begin_by: None,
            begin_by_told: None,
            ballots_from_told: None,
            late_warned: false,
            silent_reported: NodeSet::EMPTY,
            blocked_reported: NodeSet::EMPTY,
            damaged_before: NodeSet::EMPTY,
            damaged_reported: NodeSet::EMPTY,
            actions: VecDeque::from([Action::Look]),
        }
    }

    /// The next thing to do. Drain it after every other call.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Time has passed ([`Cluster::next_deadline`]).
    pub fn on_time(&mut self, now: BootTime) {
        self.enter(now);
        if self.stopped {
            return;
        }
        if self.next_look.is_some_and(|at| at <= now) {
            self.next_look = None;
            self.look_again(now);
        }
        if self.claim.is_to_look(now, self.renew) {
            self.actions.push_back(Action::Look);
        }
        self.warn_when_late(now);
        self.decide(now);
        self.flush(false);
    }

    /// When [`Cluster::on_time`] is to be called, at the latest.
    pub fn next_deadline(&self) -> Option<BootTime> {
        if self.stopped {
            return None;
        }
        let lease = self.lease.until().filter(|_| self.standing == Standing::Confirmed);
        let late = self.lease.last_good().filter(|_| !self.late_warned).map(|at| at + self.renew * 2);
        let stand = self.stand_at.map(|(_, at)| at);
        [
            lease,
            late,
            stand,
            self.proposer.retry_at,
            self.proposer.banned_until,
            self.claim.votes_from(),
            self.claim.periods_end(self.renew),
            self.next_look,
        ]
        .into_iter()
        .flatten()
        .filter(|&at| at > self.now)
        .min()
    }

    // -- Orders --------------------------------------------------------------------------------------------------

    /// As master: `node` has sent `Join { above }`. It is admitted, or confirmed, in a view above that epoch;
    /// [`Action::Admitted`] follows when it is committed, at once if it already is.
    ///
    /// Nothing comes of it while the node's sector does not show that incarnation, or when the incarnation was a member
    /// and was excluded: it will see so on disk, and come again as another one.
    pub fn admit(&mut self, now: BootTime, node: NodeId, incarnation: Incarnation, above: Epoch) {
        self.enter(now);
        if self.stopped || !self.is_master(now) || node == self.node() {
            return;
        }
        self.mandate.wish_admission(node, incarnation, above);
        if self.heartbeat(node).is_none_or(|heartbeat| heartbeat.incarnation != incarnation) {
            self.actions.push_back(Action::Look);
        }
        self.decide(now);
        self.flush(false);
    }

    /// As master of a `Recovering` view: the table is rebuilt; go `Active`.
    pub fn activate(&mut self, now: BootTime) {
        self.enter(now);
        if self.is_master(now) {
            self.mandate.wish_activation();
            self.decide(now);
            self.flush(false);
        }
    }

    /// As master: `node` has left for good and holds nothing.
    pub fn release_member(&mut self, now: BootTime, node: NodeId) {
        self.enter(now);
        if self.is_master(now) && node != self.node() {
            self.mandate.wish_release(node);
            self.decide(now);
            self.flush(false);
        }
    }

    /// As master: the recovery hook of an excluded node has succeeded.
    pub fn settle_owed(&mut self, now: BootTime, node: NodeId) {
        self.enter(now);
        if self.is_master(now) {
            self.mandate.wish_settlement(node);
            self.decide(now);
            self.flush(false);
        }
    }

    /// From the master, over the link: this incarnation is a member of `view`, which is committed.
    pub fn admitted(&mut self, now: BootTime, view: View) {
        self.enter(now);
        if self.stopped || !self.claim.is_confirmed() || self.view.is_some_and(|known| known.epoch > view.epoch) {
            return;
        }
        // Taken up first: it says who the master is, and a view without us must not be overlooked.
        self.learn(now, view, false);
        self.confirm(now, view);
        self.flush(false);
    }

    /// As master: stop being it (planned handover, a failed record write). The core has stopped granting and drained its
    /// writes. `uncertain`: one of them ended in an error or never ended, so that the successor must wait D.
    pub fn resign(&mut self, now: BootTime, successor: Option<NodeId>, uncertain: bool) {
        self.enter(now);
        if self.is_master(now) {
            self.give_up_mastership(successor, uncertain);
            self.flush(true);
        }
    }

    /// Whether record writes of this node are under way. To be said before anything else of a moment: a lease that runs
    /// out then leaves them behind, and the successor must not begin before they have ended (section 4).
    pub fn set_writes_in_flight(&mut self, in_flight: bool) {
        self.writes_in_flight = in_flight;
    }

    /// All writes that a mastership left behind have ended well: the successor need not wait any longer.
    pub fn writes_settled(&mut self, now: BootTime) {
        self.enter(now);
        if self.writes_uncertain && (self.state == NodeState::Resigned || self.retiring) {
            self.writes_uncertain = false;
            self.flush(true);
        }
    }

    /// This node will not stand for election any more: it is about to stop.
    pub fn stand_aside(&mut self) {
        self.stands_aside = true;
    }

    /// This node is about to leave: it stands for election only where nobody else does. Without a master nobody could
    /// release it.
    pub fn stand_last(&mut self) {
        self.stands_last = true;
    }

    /// Stop, and say so on disk: the slot shows a new incarnation that is no member, as after a restart, so that nobody
    /// waits for this daemon. Its locks stand until their sessions reconnect to its successor or the node is excluded.
    /// [`StopReason::Shutdown`] follows when it is written.
    pub fn retire(&mut self, now: BootTime) {
        self.enter(now);
        self.stands_aside = true;
        if self.stopped || self.retiring {
            return;
        }
        // A new incarnation would end the wait for writes that may still land: silence does not.
        if self.sector.newest().is_none() || self.writes_uncertain {
            return self.stop(StopReason::Shutdown);
        }
        self.retiring = true;
        self.proposer.attempt = None;
        self.identity.incarnation = Incarnation(self.rng.nonzero());
        self.state = NodeState::Joining;
        self.standing = Standing::Wanting { above: None, lost_at: now };
        (self.admitted, self.member_on_disk) = (false, false);
        self.flush(true);
    }

    /// Leave for good: [`StopReason::Left`] follows once a view without this node is committed and the sector says
    /// `left`. A master with other members must have resigned before; the new master is to be asked for the release.
    pub fn leave(&mut self, now: BootTime) {
        self.enter(now);
        if self.stopped {
            return;
        }
        self.leaving = true;
        self.leave_if_released();
        if self.is_master(now) && self.view.is_some_and(|view| view.members == NodeSet::only(self.node())) {
            self.mandate.wish_release(self.node());
            self.decide(now);
        }
        self.flush(false);
    }

    /// An operator, or a fence agent, vouches that `node` is off. Void as soon as its heartbeat changes.
    ///
    /// # Errors
    /// When the node is this one, is not known, or its heartbeat changed within 2R.
    pub fn fence_ack(&mut self, now: BootTime, node: NodeId) -> Result<(), FenceAckError> {
        self.enter(now);
        if node == self.node() {
            return Err(FenceAckError::OwnNode { node });
        }
        self.fence.ack(node, &self.liveness)?;
        self.decide(now);
        self.flush(false);
        Ok(())
    }

    /// Nodes that this one has a live link with.
    pub fn set_reachable(&mut self, nodes: NodeSet) {
        self.reachable = nodes;
    }

    /// Locks of this node, for people.
    pub fn set_lock_count(&mut self, count: u64) {
        self.lock_count = count;
    }

    /// Whether a recovery hook is configured: then excluded nodes are `owed` until [`Cluster::settle_owed`].
    pub fn set_recovery_hook(&mut self, configured: bool) {
        self.recovery_hook = configured;
    }

    /// The link to `node` is lost, which by itself proves nothing: look at once and more often (section 5).
    pub fn peer_lost(&mut self, now: BootTime, node: NodeId) {
        self.enter(now);
        if let Some(pulse) = self.liveness.pulse(node) {
            self.watched[node.index()] = Some((pulse, now + self.dead * 2));
            self.look_again(now);
        }
    }

    /// Something was heard that is to be seen on disk.
    pub fn look(&mut self, now: BootTime) {
        self.enter(now);
        if !self.stopped {
            self.actions.push_back(Action::Look);
        }
    }
}
