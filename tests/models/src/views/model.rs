//! What may happen next.

use super::state::{Beat, Daemon, Origin, Read, Sector, Stage, State, Stray, Wrong};
use super::{NOT_LOST, ONE_VIEW};
use crate::kept::Kept;
use mxlock_dlm::cluster::agreement::{Proposer, Right, Step};
use mxlock_dlm::io::ImageId;
use mxlock_dlm::time::BootTime;
use mxlock_format::{Ballot, Block, Epoch, Incarnation, NodeId, NodeSet, Phase, View};
use stateright::{Model, Property};

/// Who may come into a slot that had an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Takes {
    Nobody,
    /// Another daemon of the same boot.
    Restart,
    /// Another host: the slot is free, its owner has left or is known to be off.
    Free,
    /// Another host: the slot was silent for D.
    Silent,
}

/// How much may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    pub(super) nodes: u8,
    pub(super) epochs: u8,
    /// For each node.
    pub(super) ballots: [u8; 3],
    /// For who comes into slot 0.
    pub(super) newcomer: u8,
    pub(super) failures: u8,
    pub(super) crashes: u8,
    pub(super) takes: Takes,
    pub(super) damages: u8,
    /// Writes that the disk reports and does not keep.
    pub(super) losses: u8,
}

impl Bounds {
    pub(super) const NONE: Bounds = Bounds {
        nodes: 0,
        epochs: 0,
        ballots: [0; 3],
        newcomer: 0,
        failures: 0,
        crashes: 0,
        takes: Takes::Nobody,
        damages: 0,
        losses: 0,
    };

    /// Whether anyone but its owner can change a sector.
    fn is_own_sector_safe(&self) -> bool {
        (self.failures, self.takes, self.damages, self.losses) == (0, Takes::Nobody, 0, 0)
    }
}

pub(super) struct ViewModel {
    pub(super) bounds: Bounds,
    /// The rule that is left out.
    pub(super) without: Option<&'static str>,
}

/// One step. Numbers are those of daemons, or of slots where it says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// The heartbeat thread issues a write, or a read if there is nothing to write yet.
    BeginBeat(usize),
    /// Its end is reported at once: how long the read takes to begin is left to the first sector.
    WriteLands(usize),
    WriteFails(usize),
    /// The disk says that it has written, and has not.
    WriteIsLost(usize),
    ReadSector(usize, usize),
    /// A read that answers no phase: all sectors at once. What is taken from it, the newest view and the highest ballot,
    /// only grows, so that it is the same as at some moment of a slower read.
    ReadAll(usize),
    /// The core casts a ballot.
    Propose(usize),
    Crash(usize),
    RestartIn {
        slot: usize,
    },
    AnotherTakes {
        slot: usize,
    },
    /// A write of a process that was killed lands.
    HangingLands {
        slot: usize,
    },
    /// It ends in an error, and may still land.
    HangingFails {
        slot: usize,
    },
    FailedLands {
        slot: usize,
    },
    FailedIsLost {
        slot: usize,
    },
    Damage {
        slot: usize,
    },
}

impl ViewModel {
    fn keeps(&self, rule: &str) -> bool {
        self.without != Some(rule)
    }

    /// A2: D after a write was issued it has landed, or never will.
    fn d_has_passed(&self, state: &State, slot: NodeId, but: usize) -> bool {
        let others_write = state
            .daemons
            .iter()
            .enumerate()
            .any(|(i, daemon)| i != but && daemon.slot == slot && matches!(daemon.beat, Beat::Writing { .. }));
        !others_write && state.strays[slot.index()] == Stray::default()
    }

    fn may_propose(&self, state: &State, who: usize) -> bool {
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

    fn propose(&self, daemon: &mut Daemon) {
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

    fn begin_beat(&self, state: &mut State, who: usize) {
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
    fn on_read(&self, state: &mut State, who: usize) {
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
        if let Some(view) = newest {
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
fn next_epoch(daemon: &Daemon) -> Epoch {
    daemon.view.map_or(Epoch(0), |view| view.epoch).next()
}

/// The block has changed: a beat under way does not answer the phase that begins.
fn published(daemon: &mut Daemon) {
    daemon.proposer.published(ImageId(1));
    if let Beat::Writing { answers, .. } | Beat::Reading { answers, .. } = &mut daemon.beat {
        *answers = false;
    }
}

/// It proposes nothing any more, and all it knows is on disk: what else it does changes nothing for anybody.
fn has_nothing_to_say(state: &State, daemon: &Daemon) -> bool {
    daemon.ballots_left == 0
        && daemon.proposer.attempt.is_none()
        && daemon.stage == Stage::Confirmed
        && state.disk[daemon.slot.index()].as_ref().is_some_and(|sector| **sector == image(daemon))
}

/// What the heartbeat thread would write now.
fn image(daemon: &Daemon) -> Sector {
    Sector {
        incarnation: daemon.incarnation,
        host: daemon.host,
        block: daemon.proposer.block,
        view: daemon.held_back.unwrap_or(daemon.view),
    }
}

/// A daemon that has ended does not matter any more.
fn end(daemon: &mut Daemon) {
    *daemon = Daemon { stage: Stage::Ended, ..fresh(daemon.slot, daemon.incarnation, daemon.host, daemon.origin, 0) };
}

fn fresh(slot: NodeId, incarnation: Incarnation, host: u8, origin: Origin, ballots: u8) -> Daemon {
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

fn node(slot: usize) -> NodeId {
    NodeId::new(slot as u32).expect("few nodes")
}

impl Model for ViewModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let Bounds { nodes, ballots, failures, crashes, takes, damages, losses, .. } = self.bounds;
        let own = |slot: u8| {
            let fresh = fresh(
                node(slot.into()),
                Incarnation(u64::from(slot) + 1),
                slot,
                Origin::Own,
                ballots[usize::from(slot)],
            );
            Daemon { stage: Stage::Confirmed, ..fresh }
        };
        let daemons: Vec<_> = (0..nodes).map(own).collect();
        vec![State {
            disk: daemons.iter().map(|daemon| Some(Kept::new(image(daemon)))).collect(),
            strays: vec![Stray::default(); nodes.into()],
            daemons: daemons.into_iter().map(Kept::new).collect(),
            chosen: Vec::new(),
            wrong: None,
            carried: false,
            taker_chose: false,
            failures_left: failures,
            crashes_left: crashes,
            takes_left: u8::from(takes != Takes::Nobody),
            damages_left: damages,
            losses_left: losses,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        for (who, daemon) in state.daemons.iter().enumerate() {
            match &daemon.beat {
                _ if daemon.stage == Stage::Ended => continue,
                Beat::Idle if has_nothing_to_say(state, daemon) => {}
                Beat::Idle => actions.push(Action::BeginBeat(who)),
                Beat::Writing { .. } => {
                    actions.push(Action::WriteLands(who));
                    if state.failures_left > 0 && state.strays[daemon.slot.index()].failed.is_none() {
                        actions.push(Action::WriteFails(who));
                    }
                    if state.losses_left > 0 {
                        actions.push(Action::WriteIsLost(who));
                    }
                }
                Beat::Reading { got, late, answers, .. } => {
                    if *late {
                        actions.push(Action::WriteLands(who));
                    }
                    let is_phase = *answers && daemon.proposer.attempt.is_some() || daemon.stage == Stage::Watching;
                    if !is_phase && !*late {
                        actions.push(Action::ReadAll(who));
                    }
                    for slot in (0..state.disk.len()).filter(|&slot| is_phase && got[slot].is_none()) {
                        actions.push(Action::ReadSector(who, slot));
                    }
                }
            }
            if self.may_propose(state, who) {
                actions.push(Action::Propose(who));
            }
            if state.crashes_left > 0 && who == 0 {
                actions.push(Action::Crash(who));
            }
        }
        for (slot, stray) in state.strays.iter().enumerate() {
            if stray.hanging.is_some() {
                actions.push(Action::HangingLands { slot });
                if state.failures_left > 0 && stray.failed.is_none() {
                    actions.push(Action::HangingFails { slot });
                }
            }
            if stray.failed.is_some() {
                actions.push(Action::FailedLands { slot });
                actions.push(Action::FailedIsLost { slot });
            }
            let here = || state.daemons.iter().filter(|daemon| daemon.slot.index() == slot);
            let all_ended = here().all(|daemon| daemon.stage == Stage::Ended);
            if state.takes_left > 0 && slot == 0 {
                match self.bounds.takes {
                    Takes::Restart if all_ended && (stray.hanging.is_none() || !self.keeps("guard")) => {
                        actions.push(Action::RestartIn { slot });
                    }
                    Takes::Free if all_ended => actions.push(Action::AnotherTakes { slot }),
                    Takes::Silent if !self.keeps("unchanged-d") || self.d_has_passed(state, node(slot), usize::MAX) => {
                        actions.push(Action::AnotherTakes { slot });
                    }
                    _ => {}
                }
            }
            if state.damages_left > 0 {
                actions.push(Action::Damage { slot });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::BeginBeat(who) => self.begin_beat(&mut state, who),
            Action::WriteLands(who) => {
                let landed = state.daemons[who].change(|daemon| self.write_lands(daemon));
                state.disk[state.daemons[who].slot.index()] = Some(landed);
                self.end_of_read(&mut state, who);
            }
            Action::WriteIsLost(who) => {
                state.losses_left -= 1;
                state.daemons[who].change(|daemon| self.write_lands(daemon));
            }
            Action::WriteFails(who) => {
                state.failures_left -= 1;
                let failed = state.daemons[who].change(|daemon| {
                    if self.keeps("ban") {
                        daemon.proposer.ban(BootTime(1));
                    }
                    match std::mem::replace(&mut daemon.beat, Beat::Idle) {
                        Beat::Writing { image, .. } => image,
                        other => unreachable!("no write: {other:?}"),
                    }
                });
                state.strays[state.daemons[who].slot.index()].failed = Some(failed);
            }
            Action::ReadSector(who, slot) => {
                let found = state.disk[slot].clone();
                state.daemons[who].change(|daemon| {
                    let Beat::Reading { got, .. } = &mut daemon.beat else { unreachable!("no read") };
                    got[slot] = Some(found);
                });
                self.end_of_read(&mut state, who);
            }
            Action::ReadAll(who) => {
                let disk = &state.disk;
                state.daemons[who].change(|daemon| {
                    let Beat::Reading { got, .. } = &mut daemon.beat else { unreachable!("no read") };
                    got.iter_mut().zip(disk).for_each(|(got, found)| *got = Some(found.clone()));
                });
                self.end_of_read(&mut state, who);
            }
            Action::Propose(who) => state.daemons[who].change(|daemon| self.propose(daemon)),
            Action::Crash(who) => {
                state.crashes_left -= 1;
                if let Beat::Writing { image, .. } = &state.daemons[who].beat {
                    state.strays[state.daemons[who].slot.index()].hanging = Some(image.clone());
                }
                state.daemons[who].change(end);
            }
            Action::RestartIn { slot } => {
                state.takes_left -= 1;
                let incarnation = Incarnation(slot as u64 + 11);
                let daemon = fresh(node(slot), incarnation, slot as u8, Origin::Restart, self.bounds.newcomer);
                state.daemons.push(Kept::new(daemon));
            }
            Action::AnotherTakes { slot } => {
                state.takes_left -= 1;
                for daemon in state.daemons.iter_mut().filter(|daemon| daemon.slot.index() == slot) {
                    if daemon.stage == Stage::Confirmed && self.keeps("silent-ban") && self.keeps("unchanged-d") {
                        daemon.change(|daemon| {
                            daemon.was_silent = true;
                            daemon.proposer.attempt = None;
                        });
                    }
                }
                let incarnation = Incarnation(slot as u64 + 21);
                let daemon = fresh(node(slot), incarnation, slot as u8 + 20, Origin::Another, self.bounds.newcomer);
                state.daemons.push(Kept::new(daemon));
            }
            Action::HangingLands { slot } => state.disk[slot] = state.strays[slot].hanging.take(),
            Action::HangingFails { slot } => {
                state.failures_left -= 1;
                state.strays[slot].failed = state.strays[slot].hanging.take();
            }
            Action::FailedLands { slot } => state.disk[slot] = state.strays[slot].failed.take(),
            Action::FailedIsLost { slot } => state.strays[slot].failed = None,
            Action::Damage { slot } => {
                state.damages_left -= 1;
                state.disk[slot] = None;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_VIEW, |_, state: &State| state.wrong.is_none()),
            Property::always(NOT_LOST, |_, state: &State| is_kept(state)),
            Property::sometimes("all epochs are agreed on", |model: &ViewModel, state: &State| {
                state.chosen.len() == usize::from(model.bounds.epochs)
            }),
            Property::sometimes("another node's value is carried on", |_, state: &State| state.carried),
        ];
        if self.bounds.takes != Takes::Nobody {
            let name = "whoever came into a slot brings a proposal to its end";
            properties.push(Property::sometimes(name, |_, state: &State| state.taker_chose));
        }
        properties
    }
}

impl ViewModel {
    fn write_lands(&self, daemon: &mut Daemon) -> Kept<Sector> {
        let slot = daemon.slot.index();
        match &mut daemon.beat {
            Beat::Writing { image, answers } => {
                let image = image.clone();
                let mut got: [Option<Read>; 3] = Default::default();
                if self.bounds.is_own_sector_safe() {
                    got[slot] = Some(Some(image.clone()));
                }
                let answers = *answers || !self.keeps("own-image");
                daemon.held_back = None;
                daemon.beat = Beat::Reading { image: Some(image.clone()), late: false, answers, got };
                image
            }
            Beat::Reading { image: Some(image), late, .. } => {
                *late = false;
                image.clone()
            }
            other => unreachable!("nothing is being written: {other:?}"),
        }
    }

    /// The core hears of a read when all sectors are there and the write has landed.
    fn end_of_read(&self, state: &mut State, who: usize) {
        let Beat::Reading { got, late: false, .. } = &state.daemons[who].beat else { return };
        if got.iter().take(state.disk.len()).all(Option::is_some) {
            self.on_read(state, who);
        }
    }
}

/// Whoever reads the disk now learns the newest view that was chosen, or carries it on.
fn is_kept(state: &State) -> bool {
    let Some(view) = state.chosen.last() else { return true };
    state.disk.iter().any(|sector| match sector {
        // Nothing changes until it is rewritten or repaired.
        None => true,
        Some(sector) => sector.view.is_some_and(|known| known.epoch >= view.epoch) || sector.block.value == Some(*view),
    })
}
