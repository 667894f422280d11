//! What may happen next.

use super::heal::Healed;
use super::react::{end, fresh, image, node};
use super::state::{Beat, Daemon, Origin, Read, Sector, Stage, State, Stray};
use super::{HEALS, NOT_LOST, ONE_VIEW};
use crate::kept::Kept;
use mxlock_dlm::time::BootTime;
use mxlock_format::Incarnation;
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
    pub(super) fn is_own_sector_safe(&self) -> bool {
        (self.failures, self.takes, self.damages, self.losses) == (0, Takes::Nobody, 0, 0)
    }
}

pub(super) struct ViewModel {
    pub(super) bounds: Bounds,
    /// The rule that is left out.
    pub(super) without: Option<&'static str>,
    pub(super) healed: Healed,
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
    pub(super) fn keeps(&self, rule: &str) -> bool {
        self.without != Some(rule)
    }
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
                Beat::Idle if self.has_nothing_to_say(state, daemon) => {}
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
        // What breaks when a rule is left out is another question, but for one.
        if self.without.is_none_or(|rule| rule == "learn") {
            properties.push(Property::always(HEALS, |model: &ViewModel, state: &State| model.heals(state)));
        }
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
