//! Who proposes which view, and when (DESIGN section 4, "Who may propose").

use super::agreement::{Right, blocks};
use super::fence::Verdict;
use super::{Action, Cluster, Standing};
use crate::event::{Event, GoneReason};
use crate::planted::{Bug, planted};
use crate::time::BootTime;
use mxlock_format::{Epoch, Incarnation, MAX_NODES, NodeId, NodeSet, NodeState, Phase, View};

/// What a joiner asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Admission {
    incarnation: Incarnation,
    above: Epoch,
}

/// What a master remembers and wants; empty on every other node.
#[derive(Clone, Debug)]
pub(super) struct Mandate {
    /// First epoch of the recovery that this mastership began with, until it is done.
    recovering_since: Option<Epoch>,
    /// Admitted incarnations: the value has only slots (docs/protocol.md).
    admitted: [Option<Incarnation>; MAX_NODES],
    admissions: [Option<Admission>; MAX_NODES],
    releases: NodeSet,
    settlements: NodeSet,
    activate: bool,
    /// The view that was proposed last, with the incarnations that it admits: the value has only their slots.
    proposed: Option<(View, [Option<Incarnation>; MAX_NODES])>,
    /// Joiners and replaced members that the core has heard of.
    announced: [Option<Incarnation>; MAX_NODES],
}

impl Default for Mandate {
    fn default() -> Mandate {
        Mandate {
            recovering_since: None,
            admitted: [None; MAX_NODES],
            admissions: [None; MAX_NODES],
            releases: NodeSet::EMPTY,
            settlements: NodeSet::EMPTY,
            activate: false,
            proposed: None,
            announced: [None; MAX_NODES],
        }
    }
}

impl Mandate {
    /// The mastership that begins with `view`; `admitted`: the incarnations that their sectors show as members.
    pub(super) fn new(view: &View, admitted: [Option<Incarnation>; MAX_NODES]) -> Mandate {
        let recovering_since = (view.phase == Phase::Recovering).then_some(view.epoch);
        Mandate { recovering_since, admitted, ..Mandate::default() }
    }

    pub(super) fn wish_admission(&mut self, node: NodeId, incarnation: Incarnation, above: Epoch) {
        self.admissions[node.index()] = Some(Admission { incarnation, above });
    }

    pub(super) fn wish_activation(&mut self) {
        self.activate = true;
    }

    pub(super) fn wish_release(&mut self, node: NodeId) {
        self.releases.insert(node);
        self.admissions[node.index()] = None;
    }

    pub(super) fn wish_settlement(&mut self, node: NodeId) {
        self.settlements.insert(node);
    }

    pub(super) fn recovering_since(&self) -> Option<Epoch> {
        self.recovering_since
    }

    pub(super) fn admitted(&self, node: NodeId) -> Option<Incarnation> {
        self.admitted[node.index()]
    }
}

impl Cluster {
    /// Starts whatever view change is due. Called after everything that may have made one due.
    pub(super) fn decide(&mut self, now: BootTime) {
        if self.stopped {
            return;
        }
        let master = self.is_master(now);
        if master {
            self.tell_admitted();
        }
        if !self.may_propose(now) {
            return;
        }
        if master {
            self.stand_at = None;
            if let Some(view) = self.wished_view() {
                let mut admits = [None; MAX_NODES];
                for node in self.admissible() {
                    admits[node.index()] = self.mandate.admissions[node.index()].map(|wish| wish.incarnation);
                }
                self.mandate.proposed = Some((view, admits));
                self.propose(view, Right::Master);
            }
            return;
        }
        let why = self.master_gone();
        if self.stands_aside || self.view.is_some() && why.is_none() {
            self.stand_at = None;
            return;
        }
        let epoch = self.next_epoch();
        let stand_at = match self.stand_at {
            Some((for_epoch, at)) if for_epoch == epoch => at,
            _ => {
                let at = now + self.stand_delay();
                self.stand_at = Some((epoch, at));
                at
            }
        };
        if now < stand_at {
            return;
        }
        if let (Some(view), Some(why)) = (self.view, why) {
            self.log(Event::NodeGone { node: view.master, why });
        }
        self.log(Event::ElectionStarted { epoch });
        let view = self.election_view();
        self.propose(view, Right::Election);
    }

    /// Whether a ballot may be cast at all (section 4): the slot is ours and was for long enough, no write of ours may
    /// land late, no back-off is running, and every sector can be read.
    fn may_propose(&self, now: BootTime) -> bool {
        self.claim.may_vote(now)
            && self.proposer.may_begin(now)
            && self.region.iter().all(Result::is_ok)
            // A node whose own beats do not succeed would only be in the way.
            && self.lease.runs_at(now)
    }

    fn propose(&mut self, view: View, right: Right) {
        self.stand_at = None;
        if self.proposer.begin(blocks(&self.region), view, right) {
            self.flush(true);
            if planted(Bug::EarlyRead) {
                self.on_phase_read(self.now);
            }
        }
    }

    /// The epoch after the highest that anybody knows.
    fn next_epoch(&self) -> Epoch {
        let on_disk = self.region.iter().flatten().map(|heartbeat| heartbeat.epoch).max().unwrap_or_default();
        self.view.map_or(on_disk, |view| view.epoch.max(on_disk)).next()
    }

    /// Why the master of the newest view is gone as master; `None` while it is not.
    pub(super) fn master_gone(&self) -> Option<GoneReason> {
        let view = self.view?;
        let (why, writes_uncertain) = if view.master == self.node() {
            // This node is the only one to speak for its slot.
            let acting = self.standing == Standing::Confirmed && self.resigned_up_to.is_none();
            let why = match view.master_incarnation == self.incarnation() {
                false => GoneReason::Replaced,
                true if acting => return None,
                true => GoneReason::Resigned,
            };
            (why, self.writes_uncertain)
        } else {
            let heartbeat = self.heartbeat(view.master)?;
            // A resignation counts for the views that the master knew when it wrote it, not for a later one.
            let knew = heartbeat.epoch >= view.epoch;
            let why = match heartbeat.state {
                _ if heartbeat.incarnation != view.master_incarnation => GoneReason::Replaced,
                NodeState::Resigned if knew => GoneReason::Resigned,
                NodeState::Left if knew => GoneReason::Left,
                _ if planted(Bug::LinkLossIsDeath) && !self.reachable.contains(view.master) => GoneReason::Dead,
                _ => match self.fence.verdict(view.master, &self.liveness) {
                    Verdict::Gone(why) => return Some(why),
                    _ => return None,
                },
            };
            (why, heartbeat.writes_uncertain)
        };
        // Gone, but a record write of it may still land.
        (!writes_uncertain || self.liveness.uncertainty_is_over(view.master)).then_some(why).or_else(|| {
            match self.fence.verdict(view.master, &self.liveness) {
                Verdict::Gone(why) => Some(why),
                _ => None,
            }
        })
    }

    /// How long this node leaves the election to others. The one that the old master named goes at once, else the first
    /// member; the others follow, so that usually one proposer is alone.
    fn stand_delay(&mut self) -> std::time::Duration {
        let view = self.view;
        let old_master = view.map(|view| view.master);
        let named = old_master
            .and_then(|master| self.heartbeat(master))
            .filter(|heartbeat| heartbeat.state == NodeState::Resigned)
            .and_then(|heartbeat| heartbeat.successor);
        let rank_of = |node: NodeId| {
            let is_member = view.is_some_and(|view| view.members.contains(node));
            (Some(node) != named, Some(node) == old_master, !is_member, node)
        };
        let stands = |&node: &NodeId| {
            let state = self.heartbeat(node).map(|heartbeat| heartbeat.state);
            node != self.node() && state.is_some_and(NodeState::is_active) && self.liveness.is_fresh(node)
        };
        let mine = rank_of(self.node());
        let before = NodeId::all().filter(stands).filter(|&node| rank_of(node) < mine).count();
        let mut delay = self.renew / 2 * before.min(8) as u32;
        if self.state == NodeState::Resigned && self.successor.is_some() {
            delay += self.renew * 2;
        }
        // Others cannot see that a master does not act which was elected while its own I/O stalled.
        if self.stands_last && old_master != Some(self.node()) {
            delay += self.dead;
        }
        if before > 0 {
            delay += self.rng.duration_below(self.renew / 4);
        }
        delay
    }

    /// The members that are gone for good: dead, or vouched for as off. A node that resigned or whose daemon was
    /// restarted stays: its locks stand.
    fn gone_members(&self, view: &View) -> NodeSet {
        let gone = |&node: &NodeId| matches!(self.fence.verdict(node, &self.liveness), Verdict::Gone(_));
        view.members.without(self.node()).iter().filter(gone).collect()
    }

    fn election_view(&self) -> View {
        let epoch = self.next_epoch();
        let (members, owed, table_epoch) = match &self.view {
            None => (NodeSet::EMPTY, NodeSet::EMPTY, Epoch(epoch.0 - 1)),
            Some(view) => {
                let gone = self.gone_members(view);
                (NodeSet(view.members.0 & !gone.0), self.owed_with(view, gone), view.table_epoch)
            }
        };
        View {
            epoch,
            master: self.node(),
            master_incarnation: self.incarnation(),
            phase: Phase::Recovering,
            members: members.with(self.node()),
            owed,
            table_epoch,
            feature_level: self.view.map_or(self.identity.template.superblock.feature_level, |view| view.feature_level),
        }
    }

    fn owed_with(&self, view: &View, gone: NodeSet) -> NodeSet {
        if self.recovery_hook { NodeSet(view.owed.0 | gone.0) } else { view.owed }
    }

    /// As master: the next view, if one is wanted. All wishes are folded into one.
    fn wished_view(&self) -> Option<View> {
        let view = self.view?;
        let mandate = &self.mandate;
        if view.phase == Phase::Recovering && !mandate.activate {
            // Who comes and goes meanwhile is settled with the activation: every view {recovering} would be a reign of
            // its own, and the recovery begin anew.
            return None;
        }
        let gone = self.gone_members(&view);
        let admitted: NodeSet = self.admissible().filter(|&node| !gone.contains(node)).collect();
        let mut next = View {
            members: NodeSet((view.members.0 | admitted.0) & !gone.0 & !mandate.releases.0),
            owed: NodeSet(self.owed_with(&view, gone).0 & !mandate.settlements.0),
            ..view
        };
        if let (true, Some(since)) = (mandate.activate, mandate.recovering_since) {
            (next.phase, next.table_epoch) = (Phase::Active, since);
        }
        if next == view && admitted.is_empty() {
            return None;
        }
        next.epoch = self.next_epoch();
        Some(next)
    }

    /// Nodes whose wished admission needs a view change, and may have one.
    fn admissible(&self) -> impl Iterator<Item = NodeId> + '_ {
        NodeId::all().filter(|&node| {
            let (Some(view), Some(wish)) = (&self.view, self.mandate.admissions[node.index()]) else { return false };
            let Some(heartbeat) = self.heartbeat(node) else { return false };
            // An incarnation that was a member and is not in the view was excluded: admitting it again would give it
            // back locks that others have got meanwhile (I5). Its successor comes as `Joining`.
            let may =
                view.members.contains(node) || heartbeat.state == NodeState::Joining || planted(Bug::ExcludedComesBack);
            // A higher `above` is from a node that knows a newer view than we do: then we shall see it soon.
            let sane = wish.above <= view.epoch.next();
            may && sane && heartbeat.incarnation == wish.incarnation && self.liveness.is_fresh(node)
        })
    }

    /// The current view may already be what a joiner asked for.
    fn tell_admitted(&mut self) {
        let Some(view) = self.view else { return };
        for node in NodeId::all() {
            let Some(wish) = self.mandate.admissions[node.index()] else { continue };
            let is_it = self.mandate.admitted[node.index()] == Some(wish.incarnation);
            if is_it && view.members.contains(node) && view.epoch > wish.above {
                self.mandate.admissions[node.index()] = None;
                self.actions.push_back(Action::Admitted { node, incarnation: wish.incarnation, view });
            }
        }
    }

    /// The master's view was committed: brings its memory into line. `before`: the view that it follows.
    pub(super) fn mandate_fulfilled(&mut self, before: &View, view: &View) {
        let admits = self.mandate.proposed.take().filter(|(proposed, _)| proposed == view).map(|(_, admits)| admits);
        for node in NodeId::all() {
            let slot = node.index();
            if let Some(incarnation) = admits.and_then(|admits| admits[slot]) {
                self.mandate.admitted[slot] = Some(incarnation);
            }
            if !view.members.contains(node) {
                // A wish of before the exclusion must not bring it back.
                self.mandate.admissions[slot] = None;
                self.mandate.admitted[slot] = None;
                self.mandate.announced[slot] = None;
            }
        }
        let left = NodeSet(before.members.0 & !view.members.0);
        for node in left.iter() {
            let why = match self.fence.verdict(node, &self.liveness) {
                Verdict::Gone(why) => why,
                _ if self.mandate.releases.contains(node) => GoneReason::Left,
                _ => continue,
            };
            self.log(Event::NodeGone { node, why });
        }
        self.mandate.releases = NodeSet(self.mandate.releases.0 & view.members.0);
        self.mandate.settlements = NodeSet(self.mandate.settlements.0 & view.owed.0);
        if view.phase == Phase::Active {
            self.mandate.recovering_since = None;
            self.mandate.activate = false;
        }
    }

    /// Whether a proposal is still right on the freshest read: a node that has come back is not excluded, a master that
    /// lost its lease proposes nothing.
    pub(super) fn still_right(&self, now: BootTime, right: Right, wish: &View) -> bool {
        let may = match right {
            Right::Master => self.is_master(now),
            Right::Election => !self.stands_aside && (self.view.is_none() || self.master_gone().is_some()),
        };
        let Some(view) = &self.view else { return may };
        let dropped = NodeSet(view.members.0 & !wish.members.0);
        let gone = self.gone_members(view);
        may && dropped.iter().all(|node| gone.contains(node) || self.mandate.releases.contains(node))
    }

    /// To the master's core: who is on disk and not (any more) a member.
    pub(super) fn announce_joiners(&mut self) {
        let Some(view) = self.view else { return };
        let me = self.node();
        for node in NodeId::all().filter(|&node| node != me) {
            let slot = node.index();
            let Ok(heartbeat) = &self.region[slot] else { continue };
            let incarnation = heartbeat.incarnation;
            let known = self.mandate.admitted[slot] == Some(incarnation);
            let replaced = self.mandate.announced[slot].is_some_and(|other| other != incarnation);
            if known && replaced && view.members.contains(node) {
                self.mandate.announced[slot] = Some(incarnation);
                self.actions.push_back(Action::MemberBack { node });
            }
            match heartbeat.state {
                NodeState::Joining
                    if !known && self.mandate.announced[slot] != Some(incarnation) && self.liveness.is_fresh(node) =>
                {
                    self.mandate.announced[slot] = Some(incarnation);
                    self.actions.push_back(match view.members.contains(node) {
                        true => Action::MemberReplaced { node, incarnation },
                        false => Action::Joiner { node, incarnation },
                    });
                }
                // Admitted by the master before us, and written only now.
                NodeState::Member if !known && view.members.contains(node) => {
                    self.mandate.admitted[slot] = Some(incarnation);
                }
                _ => {}
            }
        }
    }
}
