//! What one turn of the heartbeat thread means (DESIGN sections 4 and 5).

use super::agreement::{Right, Step, blocks};
use super::claim::{GoodBeat, Watch, newest_view};
use super::fence::Verdict;
use super::liveness::Pulse;
use super::sector::Found;
use super::{Action, Cluster, Standing};
use crate::event::{Event, StopReason};
use crate::io::{Beat, BeatRead, BeatWrite, ImageId, IoFault};
use crate::planted::{Bug, planted};
use crate::time::BootTime;
use mxlock_format::{Epoch, Heartbeat, NodeId, NodeSet, NodeState};

impl Cluster {
    /// A turn of the heartbeat thread ended: a write of the newest image handed out, then a read issued after it.
    pub fn on_beat(&mut self, now: BootTime, beat: Beat) {
        self.enter(now);
        if self.stopped {
            return;
        }
        let wrote = beat.write.as_ref().is_some_and(|write| write.result.is_ok());
        // D on the clock of a node that runs 5 % faster.
        let was_silent = self.lease.last_good().is_some_and(|last| now.since(last) * 21 >= self.dead * 20);
        if let Some(write) = &beat.write {
            self.sector.write_ended(write, now, self.dead);
            match write.result {
                // An expired one was not even begun.
                Ok(()) | Err(IoFault::Expired) => {}
                // It may still land, with an old block: no ballot for D (section 4).
                Err(_) => self.proposer.ban(now + self.dead),
            }
        }
        let Beat { write, read } = beat;
        match read {
            Some(Ok(read)) => self.on_read(now, write.as_ref(), read, wrote, was_silent),
            _ => self.liveness.own_io_failed(),
        }
        self.warn_when_late(now);
        self.decide(now);
        self.tell_ballots();
        self.flush(false);
    }

    /// What a daemon that is started in this slot after a `kill -9` must know (docs/decisions/009).
    fn tell_ballots(&mut self) {
        let Some(from) = self.claim.ballots_from().map(|from| from.max(self.proposer.banned_until.unwrap_or_default()))
        else {
            return;
        };
        if self.ballots_from_told != Some(from) {
            self.ballots_from_told = Some(from);
            self.actions.push_back(Action::BallotsFrom(from));
        }
    }

    fn on_read(&mut self, now: BootTime, write: Option<&BeatWrite>, read: BeatRead, wrote: bool, was_silent: bool) {
        let write = write.filter(|write| write.result != Err(IoFault::Expired));
        let good = match write {
            // Nothing was published yet when it began, or the thread found the sector to be another's and did not write:
            // two nodes that write and read back in turn would never see each other (section 4, confirming a slot).
            None => match &read.region[self.node().index()] {
                Ok(own) if self.sector.has_written() && !self.is_own(own) => {
                    return self.stop(StopReason::ForeignIncarnation { found: own.incarnation });
                }
                _ => true,
            },
            Some(write) => match self.sector.check(write, &read.region[self.node().index()]) {
                Found::AsWritten => true,
                Found::OwnOlder | Found::Damaged => false,
                Found::Foreign(found) => return self.stop(StopReason::ForeignIncarnation { found }),
                Found::Changed => return self.stop(StopReason::SectorChanged),
            },
        };
        let started = write.map_or(read.issued, |write| write.started);
        if !good {
            self.liveness.own_io_failed();
        }
        self.liveness.observe(started, &read);
        if !good {
            self.liveness.own_io_failed();
        }
        self.fence.drop_void_acks(&self.liveness);
        let BeatRead { issued, ended, region } = read;
        self.region = region;
        self.note_damage();
        if self.claim.is_watching() || !self.sector.has_written() {
            self.watch_slot(issued);
        }
        if good && wrote {
            self.void_stale_wish(now);
            self.lease.renewed(if planted(Bug::LeaseFromEnd) { now } else { started });
        }
        if let Some(view) = newest_view(&self.region) {
            self.learn(now, view, false);
        }
        if was_silent && !self.is_kept() {
            // Another host may have found the slot unchanged for D; its first write may land on whatever is accepted
            // now (docs/decisions/009).
            self.proposer.attempt = None;
            self.proposer.ban(now + self.dead);
        }
        if let Some(write) = write.filter(|_| good && wrote) {
            self.good_beat(write.image, GoodBeat { started: write.started, issued, ended });
        }
        self.report_silence();
        if good && wrote && write.is_some_and(|write| self.proposer.is_answered_by(write.image)) {
            self.on_phase_read(now);
        }
        if self.is_master(now) {
            self.announce_joiners();
        }
    }

    /// Whether the newest view keeps the slot for this node.
    fn is_kept(&self) -> bool {
        self.view.is_some_and(|view| NodeSet(view.members.0 | view.owed.0).contains(self.node()))
    }

    /// Whether this boot of this installation wrote a sector.
    fn is_own(&self, heartbeat: &Heartbeat) -> bool {
        let own = &self.identity.template;
        (heartbeat.node_uuid, heartbeat.boot_id) == (own.node_uuid, own.boot_id)
    }

    /// The slot is not written yet: look whether it may be, and again before each attempt. Between the look and the
    /// write another host may take it; that the write begins within R of a look, and so lands within R + G, is what the new
    /// owner's wait of D rests on (docs/decisions/012).
    fn watch_slot(&mut self, looked: BootTime) {
        let node = self.node();
        let again = !self.claim.is_watching();
        if again {
            let ours = match &self.region[node.index()] {
                Ok(found) => found.incarnation == self.incarnation(),
                // Torn by the own write that failed, then: it is written anew.
                Err(_) => self.sector.may_have_landed(),
            };
            if ours {
                self.begin_by = Some(looked + self.renew);
                return;
            }
            self.claim.watch_again();
        }
        match self.claim.watch(&self.region, self.liveness.is_dead(node), self.lease.length()) {
            Watch::Wait => {}
            Watch::Busy { host } => self.stop(StopReason::SlotBusy { host }),
            Watch::Damaged => self.stop(StopReason::SectorChanged),
            Watch::Take => {
                // The first write carries the ballot fields and the newest committed view found there (section 4).
                // A master that left a write behind which may still land has not outlived it by being restarted.
                let found = self.heartbeat(node).map(|heartbeat| (heartbeat.block, heartbeat.writes_uncertain));
                let (block, uncertain) = found.unwrap_or_default();
                self.proposer.block = if planted(Bug::BallotNotCarried) { Default::default() } else { block };
                self.begin_by = Some(looked + self.renew);
                if !again {
                    self.log(Event::SlotClaimed { node, incarnation: self.incarnation() });
                }
                if let Some(view) = newest_view(&self.region) {
                    self.learn(self.now, view, false);
                    let inherited = self.inherited_uncertain_until.is_some_and(|until| self.now < until);
                    self.writes_uncertain = (uncertain || inherited) && view.master == node;
                }
                self.flush(true);
            }
        }
    }

    /// The own I/O had stalled for L: whoever took this node for dead meanwhile is to be heard before it is confirmed.
    fn void_stale_wish(&mut self, now: BootTime) {
        if let Standing::Wanting { above: Some(_), .. } = self.standing
            && !self.lease.runs_at(now)
        {
            self.standing = Standing::Wanting { above: None, lost_at: now };
        }
    }

    /// Written, and found as written.
    fn good_beat(&mut self, image: ImageId, beat: GoodBeat) {
        self.late_warned = false;
        if self.claim.good_beat(beat, self.renew, self.dead) {
            let node = self.node();
            self.actions.push_back(Action::SlotConfirmed);
            self.log(Event::SlotConfirmed { node });
        }
        let image = self.sector.image(image);
        let member = image.is_some_and(|image| {
            image.incarnation == self.incarnation() && matches!(image.state, NodeState::Member | NodeState::Resigned)
        });
        let left = image.is_some_and(|image| image.state == NodeState::Left);
        let retired = self.retiring && image.is_some_and(|image| image.incarnation == self.incarnation());
        self.member_on_disk |= member;
        if retired {
            return self.stop(StopReason::Shutdown);
        }
        if left {
            return self.stop(StopReason::Left);
        }
        match self.standing {
            Standing::Confirmed => {
                if let Some(until) = self.lease.until() {
                    self.actions.push_back(Action::LeaseExtended { until });
                }
            }
            Standing::Wanting { above, lost_at } => {
                // A sector that could not be read may show a view, or a block at work, above all others.
                let whole = self.region.iter().all(Result::is_ok);
                if above.is_none() && self.claim.is_confirmed() && beat.issued >= lost_at && whole {
                    let epochs = self.region.iter().flatten().map(|other| other.epoch.max(other.block.instance));
                    // Over the link it may have been told of a view that no sector shows yet.
                    let above = epochs.chain(self.view.map(|view| view.epoch)).max().unwrap_or_default();
                    self.standing = Standing::Wanting { above: Some(above), lost_at };
                    self.want_join(above);
                }
            }
        }
    }

    fn want_join(&mut self, above: Epoch) {
        if !self.leaving && !self.retiring {
            self.actions.push_back(Action::WantsJoin { above });
        }
    }

    /// The read that a phase of the own proposal has waited for.
    pub(super) fn on_phase_read(&mut self, now: BootTime) {
        let Some(attempt) = &self.proposer.attempt else { return };
        let (instance, right) = (attempt.instance, attempt.right);
        // Not asked after phase 2: then the value stands on disk, and whoever comes next would find and choose it.
        if attempt.wish().is_some_and(|&wish| !self.still_right(now, right, &wish)) {
            self.proposer.attempt = None;
            self.log(Event::ElectionLost { epoch: instance });
            return;
        }
        match self.proposer.on_read(blocks(&self.region)) {
            Step::Publish { adopted } => {
                if let Some(from) = adopted.filter(|&from| from != self.node()) {
                    self.log(Event::ValueAdopted { epoch: instance, from });
                }
                self.flush(true);
            }
            Step::Chosen(view) => self.learn(now, view, true),
            Step::Damaged => self.log(Event::ElectionLost { epoch: instance }),
            Step::Beaten => {
                self.log(Event::ElectionLost { epoch: instance });
                self.back_off(now, right);
            }
        }
    }

    /// Randomised, and longer with each defeat; the master, who has a lease to use, waits the least.
    fn back_off(&mut self, now: BootTime, right: Right) {
        self.proposer.defeats = (self.proposer.defeats + 1).min(5);
        let unit = if right == Right::Master { self.renew / 16 } else { self.renew / 8 };
        let bound = unit * (1 << self.proposer.defeats);
        self.proposer.retry_at = Some(now + unit + self.rng.duration_below(bound));
    }

    /// A damaged sector stops view changes at once, but is reported only when a second read shows it as well.
    fn note_damage(&mut self) {
        let damaged: NodeSet = self.damaged().into_iter().collect();
        for node in damaged.iter().filter(|&node| !self.damaged_reported.contains(node)).collect::<Vec<_>>() {
            if !self.damaged_before.contains(node) {
                self.actions.push_back(Action::Look);
            } else if let Err(error) = &self.region[node.index()] {
                let reason = error.fault.to_string();
                self.damaged_reported.insert(node);
                self.log(Event::DamagedHeartbeat { node, reason });
            }
        }
        self.damaged_reported = NodeSet(self.damaged_reported.0 & damaged.0);
        self.damaged_before = damaged;
    }

    /// Tells, once each, who is silent and who blocks recovery. Not as long as the own slot is being claimed: after a power
    /// cut all nodes wait for D, and would have the operator switch each other off.
    fn report_silence(&mut self) {
        let Some(view) = self.view.filter(|_| self.claim.is_confirmed()) else { return };
        for node in view.members.with(view.master).without(self.node()).iter() {
            let verdict = self.fence.verdict(node, &self.liveness);
            let silence = self.liveness.silence(node);
            let silent = verdict != Verdict::Alive && silence > self.renew * 2;
            if silent && !self.silent_reported.contains(node) {
                let silent_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
                self.log(Event::NodeSilent { node, silent_ms });
            }
            let blocked = verdict == Verdict::Blocked;
            if blocked && !self.blocked_reported.contains(node) {
                self.log(Event::FencingBlocked { node });
            }
            self.silent_reported = with(self.silent_reported, node, silent);
            self.blocked_reported = with(self.blocked_reported, node, blocked);
        }
    }

    /// Looks now, and again after R/4 while a node whose link was lost has not shown itself.
    pub(super) fn look_again(&mut self, now: BootTime) {
        let mut any = false;
        for node in NodeId::all() {
            let Some((pulse, until)) = self.watched[node.index()] else { continue };
            let member = self.view.is_some_and(|view| view.members.contains(node));
            if !member || until <= now || self.liveness.pulse(node).is_none_or(|newest: Pulse| newest != pulse) {
                self.watched[node.index()] = None;
            } else {
                any = true;
            }
        }
        if any && !self.stopped {
            self.actions.push_back(Action::Look);
            self.next_look = Some(now + self.renew / 4);
        }
    }

    /// "Warn" of the graded responses (section 5): no good beat for 2R.
    pub(super) fn warn_when_late(&mut self, now: BootTime) {
        let Some(last) = self.lease.last_good().filter(|_| !self.late_warned && !self.stopped) else { return };
        let late = now.since(last);
        if late >= self.renew * 2 {
            self.late_warned = true;
            let late_ms = u64::try_from((late - self.renew).as_millis()).unwrap_or(u64::MAX);
            self.log(Event::HeartbeatLate { late_ms });
        }
    }
}

fn with(set: NodeSet, node: NodeId, is_in: bool) -> NodeSet {
    if is_in { set.with(node) } else { set.without(node) }
}
