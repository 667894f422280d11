//! What this node is: joiner, member, master, resigned, excluded (DESIGN sections 4 and 5), and its own heartbeat.

use super::policy::Mandate;
use super::sector::same_contents;
use super::{Action, Cluster, Standing};
use crate::event::{Event, StopReason};
use crate::planted::{Bug, planted};
use crate::time::BootTime;
use mxlock_format::{Epoch, Heartbeat, Incarnation, NodeId, NodeState, Phase, View};

impl Cluster {
    pub(super) fn is_me(&self, node: NodeId, incarnation: Incarnation) -> bool {
        node == self.node() && incarnation == self.incarnation()
    }

    pub(super) fn log(&mut self, event: Event) {
        self.actions.push_back(Action::Log(event));
    }

    pub(super) fn stop(&mut self, reason: StopReason) {
        if !self.stopped {
            self.stopped = true;
            self.actions.push_back(Action::Stop(reason));
        }
    }

    /// Every call begins here: a lease that has run out is lost before anything else is believed (section 5).
    pub(super) fn enter(&mut self, now: BootTime) {
        debug_assert!(now >= self.now, "time went back");
        self.now = now;
        if self.stopped
            || self.standing != Standing::Confirmed
            || self.lease.runs_at(now)
            || planted(Bug::LeaseNotLatched)
        {
            return;
        }
        let was_master = self.view.is_some_and(|view| self.is_me(view.master, view.master_incarnation));
        self.standing = Standing::Wanting { above: None, lost_at: now };
        self.proposer.attempt = None;
        self.actions.push_back(Action::LeaseLost);
        self.log(Event::LeaseLost);
        if was_master && self.resigned_up_to.is_none() {
            self.give_up_mastership(None, self.writes_in_flight);
            self.flush(true);
        }
    }

    /// Sets `resigned`. Ours or others' proposals that name this node and may still be chosen do not bring it back.
    pub(super) fn give_up_mastership(&mut self, successor: Option<NodeId>, uncertain: bool) {
        let Some(view) = self.view else { return };
        self.proposer.attempt = None;
        self.resigned_up_to = Some(view.epoch.max(self.proposer.block.instance));
        self.successor = successor;
        self.writes_uncertain |= uncertain;
        self.state = NodeState::Resigned;
        self.log(Event::Resigned { epoch: view.epoch, successor });
    }

    /// A view was committed.
    pub(super) fn learn(&mut self, now: BootTime, view: View, own: bool) {
        if self.view.is_some_and(|known| known.epoch >= view.epoch) {
            return;
        }
        let before = self.view.replace(view);
        self.stand_at = None;
        self.proposer.retry_at = None;
        if let Some(attempt) = self.proposer.attempt.take_if(|attempt| attempt.instance <= view.epoch) {
            self.log(Event::ElectionLost { epoch: attempt.instance });
        }
        self.log(Event::ViewCommitted { view, own_proposal: own });
        self.actions.push_back(Action::ViewLearned { view, own });

        let mine = self.is_me(view.master, view.master_incarnation);
        let was_acting = before.is_some_and(|before| self.is_me(before.master, before.master_incarnation))
            && self.standing == Standing::Confirmed
            && self.resigned_up_to.is_none();
        if !mine {
            self.mandate = Mandate::default();
            if self.state == NodeState::Resigned {
                self.state = NodeState::Member;
            }
            self.resigned_up_to = None;
            (self.successor, self.writes_uncertain) = (None, false);
        } else if !was_acting {
            if view.phase == Phase::Recovering && self.resigned_up_to.is_none() {
                // The election has waited for what the daemon before this one left behind. A write of this reign that fails
                // is news, for which the next election waits anew.
                self.writes_uncertain = false;
            }
            let admitted = |node: NodeId| {
                let heartbeat = self.heartbeat(node)?;
                let says_so = matches!(heartbeat.state, NodeState::Member | NodeState::Resigned);
                (view.members.contains(node) && says_so).then_some(heartbeat.incarnation)
            };
            self.mandate = Mandate::new(&view, std::array::from_fn(|i| admitted(NodeId::new(i as u32)?)));
        } else if let Some(before) = before {
            self.mandate_fulfilled(&before, &view);
        }
        if !view.members.contains(self.node()) {
            self.leave_if_released();
            if self.admitted && !self.leaving && !planted(Bug::ExcludedComesBack) {
                self.become_a_joiner_again(now, view.epoch);
            }
        } else if mine {
            self.confirm(now, view);
        }
        // A recovering view is the fruit of this node's own election after it had resigned, in whichever instance.
        let again = |up_to: Epoch| up_to < view.epoch || view.phase == Phase::Recovering;
        if mine && self.standing == Standing::Confirmed && self.resigned_up_to.is_some_and(again) {
            self.resigned_up_to = None;
            (self.successor, self.writes_uncertain) = (None, false);
            self.state = NodeState::Member;
        }
        self.flush(own);
    }

    /// `view` names this incarnation as a member: by its master's word, or because this node is its master.
    pub(super) fn confirm(&mut self, now: BootTime, view: View) {
        let Standing::Wanting { above, lost_at: _ } = self.standing else { return };
        let newest = self.view.is_some_and(|known| known.epoch == view.epoch);
        if !newest || !view.members.contains(self.node()) || above.is_none_or(|above| view.epoch <= above) {
            return;
        }
        if !self.lease.runs_at(now) {
            // The own I/O stalled since `above` was read: what was said then proves nothing any more.
            self.standing = Standing::Wanting { above: None, lost_at: now };
            return;
        }
        self.standing = Standing::Confirmed;
        if self.admitted {
            self.actions.push_back(Action::LeaseRegained { epoch: view.epoch });
            self.log(Event::LeaseRegained { epoch: view.epoch });
        }
        self.admitted = true;
        if self.state == NodeState::Joining {
            self.state = NodeState::Member;
        }
        if let Some(until) = self.lease.until() {
            self.actions.push_back(Action::LeaseExtended { until });
        }
        self.flush(true);
    }

    /// Excluded: what this incarnation held is lost. The node stays in its slot and comes again (section 5).
    pub(super) fn become_a_joiner_again(&mut self, now: BootTime, epoch: Epoch) {
        self.identity.incarnation = Incarnation(self.rng.nonzero());
        self.standing = Standing::Wanting { above: None, lost_at: now };
        self.state = NodeState::Joining;
        (self.admitted, self.member_on_disk) = (false, false);
        self.resigned_up_to = None;
        (self.successor, self.writes_uncertain) = (None, false);
        self.proposer.attempt = None;
        self.mandate = Mandate::default();
        self.actions.push_back(Action::Excluded { epoch });
        self.log(Event::Excluded { epoch });
        self.flush(true);
    }

    /// Says `left` on disk once no view has this node.
    pub(super) fn leave_if_released(&mut self) {
        let member = self.view.is_some_and(|view| view.members.contains(self.node()));
        if self.leaving && !member && self.state != NodeState::Left {
            if self.claim.is_watching() {
                return self.stop(StopReason::Left);
            }
            self.state = NodeState::Left;
            self.flush(true);
        }
    }

    /// Hands out the own image if it has changed. Nothing before the slot may be written. `urgent`: it does not wait for
    /// the next tick, also when it was handed out before without hurry.
    pub(super) fn flush(&mut self, urgent: bool) {
        if self.stopped || self.claim.is_watching() {
            return;
        }
        let base = self.region.iter().flatten().map(|heartbeat| heartbeat.epoch).max().unwrap_or_default();
        let stays = planted(Bug::ViewNotCarried) && self.proposer.attempt.is_some();
        let view = if stays { self.heartbeat(self.node()).and_then(|own| own.view) } else { self.view };
        let image = Heartbeat {
            incarnation: self.identity.incarnation,
            state: self.state,
            epoch: view.map_or(base, |view| view.epoch),
            view,
            block: self.proposer.block,
            reachable: self.reachable,
            lock_count: self.lock_count,
            successor: self.successor,
            writes_uncertain: self.writes_uncertain,
            ..self.identity.template.clone()
        };
        let begin_by = self.begin_by.filter(|_| !self.sector.has_written());
        let in_time = begin_by.is_none_or(|by| self.begin_by_told == Some(by));
        if in_time && self.sector.newest().is_some_and(|newest| same_contents(newest, &image)) {
            if urgent && std::mem::take(&mut self.waits_for_tick) {
                self.actions.push_back(Action::Look);
            }
            return;
        }
        self.waits_for_tick = !urgent;
        let id = self.sector.hand_out(image.clone());
        self.proposer.published(id);
        self.begin_by_told = begin_by;
        self.actions.push_back(Action::Publish { image: id, heartbeat: Box::new(image), urgent, begin_by });
    }
}
