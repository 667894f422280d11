//! What one daemon does: its beats, its ballots, and what it makes of a read.

use super::model::{Takes, ViewModel};
use super::state::{Beat, Daemon, Origin, Read, Sector, Stage, State, Stray, Wrong};
use crate::kept::Kept;
use mxlock_dlm::cluster::agreement::{Proposer, Right, Step};
use mxlock_dlm::io::ImageId;
use mxlock_dlm::time::BootTime;
use mxlock_format::{Ballot, Block, Epoch, Incarnation, NodeId, NodeSet, Phase, View};

impl ViewModel {
    /// A2: D after a write was issued it has landed, or never will.
    pub(super) fn d_has_passed(&self, state: &State, slot: NodeId, but: usize) -> bool {
        let others_write = state
            .daemons
            .iter()
            .enumerate()
            .any(|(i, daemon)| i != but && daemon.slot == slot && matches!(daemon.beat, Beat::Writing { .. }));
        !others_write && state.strays[slot.index()] == Stray::default()
    }

    pub(super) fn may_propose(&self, state: &State, who: usize) -> bool {
        let daemon = &state.daemons[who];
        let stray = &state.strays[daemon.slot.index()];
        let may_vote = match daemon.origin {
            Origin::Own => true,
            Origin::Restart => !self.keeps("inherit-ban") || stray.failed.is_none(),
            Origin::Another => !self.keeps("vote-after-d") || daemon.was_alone,
        };
        // `banned_until` is 1 in a time that stands at 0 until the write that failed cannot land any more.
        let now = BootTime(if self.keeps("ban") && stray.failed.is_some() { 0 } else { 1 });
        daemon.stage == Stage::Confirmed
            && daemon.ballots_left > 0
            && next_epoch(daemon).0 <= u64::from(self.bounds.epochs)
            && may_vote
            && !(daemon.was_silent && self.keeps("silent-ban"))
            && daemon.proposer.may_begin(now)
    }

    pub(super) fn propose(&self, daemon: &mut Daemon) {
        let epoch = next_epoch(daemon);
        let own = if daemon.proposer.block.instance == epoch { daemon.proposer.block.promised } else { Ballot::NONE };
        let ballot = daemon.seen.max(own).next_for(daemon.slot);
        let wish = View {
            epoch,
            master: daemon.slot,
            master_incarnation: daemon.incarnation,
            phase: Phase::Recovering,
            members: NodeSet::only(daemon.slot),
            owed: NodeSet::EMPTY,
            table_epoch: Epoch(epoch.0 - 1),
            // Every proposal is another one.
            feature_level: ballot.0 as u16,
        };
        if !self.keeps("carry-view") && epoch > daemon.proposer.block.instance {
            // The block moves, the view follows in the next image.
            daemon.held_back = Some(None);
        }
        let other = NodeId::new(daemon.slot.get() + 1);
        let known = Block { instance: epoch, promised: daemon.seen, ..Block::default() };
        let began = daemon.proposer.begin(std::iter::once(other.map(|other| (other, known))), wish, Right::Election);
        assert!(began, "the block is never ahead of the view after the known one");
        daemon.ballots_left -= 1;
        published(daemon);
    }

    pub(super) fn begin_beat(&self, state: &mut State, who: usize) {
        let daemon = &state.daemons[who];
        let foreign = state.disk[daemon.slot.index()].as_ref().is_some_and(|found| found.host != daemon.host);
        let alone = daemon.origin == Origin::Another && self.d_has_passed(state, daemon.slot, who);
        let looks = self.keeps("look-first") && daemon.stage == Stage::Confirmed;
        state.daemons[who].change(|daemon| {
            let got = Default::default();
            daemon.began_alone = alone && !daemon.was_alone;
            daemon.beat = if daemon.stage == Stage::Watching {
                Beat::Reading { image: None, late: false, answers: false, got }
            } else if foreign && looks {
                return end(daemon);
            } else if self.keeps("read-after-write") {
                Beat::Writing { image: Kept::new(image(daemon)), answers: true }
            } else {
                Beat::Reading { image: Some(Kept::new(image(daemon))), late: true, answers: true, got }
            };
        });
    }

    /// All sectors are read: the core is told.
    pub(super) fn on_read(&self, state: &mut State, who: usize) {
        let mut daemon = (*state.daemons[who]).clone();
        let began_alone = std::mem::take(&mut daemon.began_alone);
        let is_good = self.react(state, &mut daemon);
        daemon.was_alone |= is_good && began_alone && self.d_has_passed(state, daemon.slot, who);
        state.daemons[who] = Kept::new(daemon);
    }

    /// True if the own sector was as written.
    fn react(&self, state: &mut State, daemon: &mut Daemon) -> bool {
        let Beat::Reading { image: wrote, answers, got, .. } = std::mem::replace(&mut daemon.beat, Beat::Idle) else {
            unreachable!("a read ended that was not under way")
        };
        let slot = daemon.slot.index();
        let region: Vec<Read> = got.into_iter().take(state.disk.len()).map(|read| read.flatten()).collect();
        let own_is_unread = self.bounds.is_own_sector_safe();
        let is_good = match &wrote {
            None => true,
            Some(_) if own_is_unread => true,
            Some(wrote) => {
                let as_written = region[slot].as_ref() == Some(wrote);
                let ours = region[slot].as_ref().is_some_and(|found| found.incarnation == daemon.incarnation);
                if self.keeps("own-sector") && !as_written && !ours {
                    end(daemon);
                    return false;
                }
                as_written || !self.keeps("own-sector")
            }
        };
        if daemon.stage == Stage::Watching {
            self.take_slot(daemon, &region);
            return false;
        }
        let newest = region.iter().flatten().filter_map(|sector| sector.view).max_by_key(|view| view.epoch);
        if let Some(view) = newest.filter(|_| self.keeps("learn")) {
            self.learn(state, daemon, view);
        }
        if is_good && daemon.stage == Stage::Confirming {
            daemon.stage = Stage::Confirmed;
        }
        if is_good && daemon.proposer.is_answered_by(ImageId(answers.into())) {
            self.on_phase_read(state, daemon, &region);
        }
        let next = next_epoch(daemon);
        let others = region.iter().enumerate().filter(|&(i, _)| i != slot).filter_map(|(_, sector)| sector.as_ref());
        let promises = others.filter(|other| other.block.instance == next).map(|other| other.block.promised);
        daemon.seen = promises.max().unwrap_or_default();
        if daemon.ballots_left == 0 {
            daemon.seen = Ballot::NONE;
        }
        wrote.is_some() && is_good
    }

    fn take_slot(&self, daemon: &mut Daemon, region: &[Read]) {
        let Some(found) = &region[daemon.slot.index()] else {
            return end(daemon);
        };
        if self.keeps("first-block") {
            daemon.proposer.block = found.block;
        }
        if self.keeps("first-view") {
            daemon.view = region.iter().flatten().filter_map(|sector| sector.view).max_by_key(|view| view.epoch);
        }
        daemon.stage = Stage::Confirming;
    }

    /// It proposes nothing any more, all it knows is on disk, and nothing that it writes can be late: what else it does
    /// changes nothing for anybody.
    pub(super) fn has_nothing_to_say(&self, state: &State, daemon: &Daemon) -> bool {
        let may_be_late = state.failures_left > 0
            || daemon.slot.index() == 0 && (state.crashes_left > 0 || self.bounds.takes == Takes::Silent);
        daemon.ballots_left == 0
            && daemon.proposer.attempt.is_none()
            && daemon.stage == Stage::Confirmed
            && !may_be_late
            && state.disk[daemon.slot.index()].as_ref().is_some_and(|sector| **sector == image(daemon))
    }

    /// A phase's own read. What the rules that are left out would see is hidden from the proposer.
    fn on_phase_read(&self, state: &mut State, daemon: &mut Daemon, region: &[Read]) {
        let Some((instance, ballot)) =
            daemon.proposer.attempt.as_ref().map(|attempt| (attempt.instance, daemon.proposer.block.promised))
        else {
            return;
        };
        let me = daemon.slot.index();
        let mut blocks: Vec<Option<Block>> =
            region.iter().map(|sector| sector.as_ref().map(|sector| sector.block)).collect();
        if self.bounds.is_own_sector_safe() {
            blocks[me] = Some(daemon.proposer.block);
        }
        let lowest = blocks.iter().flatten().filter(|block| block.instance == instance && block.value.is_some());
        let lowest = lowest.map(|block| block.accepted).min();
        let mut own = daemon.proposer.block;
        for (slot, block) in blocks.iter_mut().enumerate() {
            let Some(block) = block else { continue };
            if block.instance > instance && !self.keeps("later") {
                *block = Block::default();
            }
            if block.instance == instance && slot != me && !self.keeps("yield") {
                block.promised = block.promised.min(ballot);
            }
            let hide = !self.keeps("carry-accepted")
                || !self.keeps("carry-highest") && block.value.is_some() && Some(block.accepted) != lowest;
            if hide && block.instance == instance {
                (block.accepted, block.value) = (Ballot::NONE, None);
                if slot == me {
                    (own.accepted, own.value) = (Ballot::NONE, None);
                }
            }
        }
        if !self.keeps("damage-stops") {
            blocks.iter_mut().for_each(|block| *block = block.or(Some(Block::default())));
        }
        let was = daemon.proposer.block;
        if daemon.proposer.attempt.as_ref().is_some_and(|attempt| attempt.wish().is_some()) {
            // Phase 1 looks at what this node accepted itself, too.
            daemon.proposer.block = own;
        }
        let step = daemon.proposer.on_read(blocks.into_iter().enumerate().map(|(i, block)| Some((node(i), block?))));
        match step {
            Step::Publish { adopted } => {
                state.carried |= adopted.is_some_and(|from| from != daemon.slot);
                published(daemon);
            }
            Step::Chosen(view) => {
                state.taker_chose |= daemon.origin != Origin::Own;
                self.note_chosen(state, view);
                self.learn(state, daemon, view);
            }
            Step::Beaten | Step::Damaged => daemon.proposer.block = was,
        }
    }

    fn note_chosen(&self, state: &mut State, view: View) {
        let known = state.chosen.get(view.epoch.0 as usize - 1);
        if known.is_some_and(|known| *known != view) {
            state.wrong = Some(Wrong::Split);
        } else if known.is_none() {
            state.chosen.push(view);
        }
    }

    fn learn(&self, state: &mut State, daemon: &mut Daemon, view: View) {
        if daemon.view.is_some_and(|known| known.epoch >= view.epoch) {
            return;
        }
        if state.chosen.get(view.epoch.0 as usize - 1) != Some(&view) {
            state.wrong = Some(Wrong::Split);
        }
        if !self.keeps("later") && daemon.proposer.attempt.as_ref().is_some_and(|at| at.instance >= view.epoch) {
            return;
        }
        daemon.view = Some(view);
        if daemon.proposer.attempt.as_ref().is_some_and(|attempt| attempt.instance <= view.epoch) {
            daemon.proposer.attempt = None;
        }
    }
}

/// The epoch after the newest view known.
pub(super) fn next_epoch(daemon: &Daemon) -> Epoch {
    daemon.view.map_or(Epoch(0), |view| view.epoch).next()
}

/// The block has changed: a beat under way does not answer the phase that begins.
fn published(daemon: &mut Daemon) {
    daemon.proposer.published(ImageId(1));
    if let Beat::Writing { answers, .. } | Beat::Reading { answers, .. } = &mut daemon.beat {
        *answers = false;
    }
}

/// What the heartbeat thread would write now.
pub(super) fn image(daemon: &Daemon) -> Sector {
    Sector {
        incarnation: daemon.incarnation,
        host: daemon.host,
        block: daemon.proposer.block,
        view: daemon.held_back.unwrap_or(daemon.view),
    }
}

/// A daemon that has ended does not matter any more.
pub(super) fn end(daemon: &mut Daemon) {
    *daemon = Daemon { stage: Stage::Ended, ..fresh(daemon.slot, daemon.incarnation, daemon.host, daemon.origin, 0) };
}

pub(super) fn fresh(slot: NodeId, incarnation: Incarnation, host: u8, origin: Origin, ballots: u8) -> Daemon {
    Daemon {
        slot,
        incarnation,
        host,
        origin,
        stage: Stage::Watching,
        proposer: Proposer::new(slot),
        view: None,
        held_back: None,
        was_silent: false,
        was_alone: false,
        began_alone: false,
        seen: Ballot::NONE,
        ballots_left: ballots,
        beat: Beat::Idle,
    }
}

pub(super) fn node(slot: usize) -> NodeId {
    NodeId::new(slot as u32).expect("few nodes")
}
