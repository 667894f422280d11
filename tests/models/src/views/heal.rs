//! Liveness: from every reachable state, with faults switched off, a fair continuation ends with the next view chosen.
//!
//! In two parts. First everything that was begun comes to its end, and no new ballot is cast: each of these steps is one
//! of the model, so a way is followed only up to a state from which it is known to end well. Then each daemon that may
//! vote gets ballots of its own, beyond those of the bounds: alone it must bring a proposal for the next epoch to its end,
//! and all others that live must learn of it.
//!
//! A damaged sector that nobody rewrites stops all of that by design, until an operator repairs it.

use super::model::{Action, ViewModel};
use super::react::{image, next_epoch};
use super::state::{Beat, Daemon, Stage, State};
use stateright::Model;
use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Mutex;

/// More steps than any way to the next view has.
const PATIENCE: usize = 200;

/// Ballots that a daemon gets which is to have the next view chosen: it may be beaten once for each that it has not heard
/// of.
const BALLOTS: u8 = 4;

/// The states from which everything is known to go on.
#[derive(Default)]
pub(super) struct Healed(Mutex<HashSet<u64>>);

fn hash(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Whether a daemon has something to write, or to hear, without casting a ballot.
fn is_pressed(state: &State, daemon: &Daemon) -> bool {
    let newest = state.disk.iter().flatten().filter_map(|sector| sector.view).map(|view| view.epoch).max();
    daemon.proposer.attempt.is_some()
        || daemon.stage != Stage::Confirmed
        || newest > daemon.view.map(|view| view.epoch)
        || state.disk[daemon.slot.index()].as_ref().is_none_or(|sector| **sector != image(daemon))
}

impl ViewModel {
    /// The next step of what was begun; of daemon `voter` also its beats and ballots.
    fn next_step(&self, state: &State, voter: Option<usize>) -> Option<Action> {
        if let Some(slot) = state.strays.iter().position(|stray| stray.hanging.is_some()) {
            return Some(Action::HangingLands { slot });
        }
        if let Some(slot) = state.strays.iter().position(|stray| stray.failed.is_some()) {
            return Some(Action::FailedLands { slot });
        }
        let living = || state.daemons.iter().enumerate().filter(|(_, daemon)| daemon.stage != Stage::Ended);
        for (who, daemon) in living() {
            match &daemon.beat {
                Beat::Idle => {}
                Beat::Writing { .. } | Beat::Reading { late: true, .. } => return Some(Action::WriteLands(who)),
                Beat::Reading { .. } => return Some(Action::ReadAll(who)),
            }
        }
        if let Some((who, _)) = living().find(|(_, daemon)| is_pressed(state, daemon)) {
            return Some(Action::BeginBeat(who));
        }
        let who = voter.filter(|who| state.daemons[*who].stage != Stage::Ended)?;
        Some(if self.may_propose(state, who) { Action::Propose(who) } else { Action::BeginBeat(who) })
    }

    /// Goes on with `voter` until the view of an epoch is chosen and all that live know it.
    fn elects(&self, calm: &State, voter: usize) -> bool {
        let epoch = calm.chosen.len() as u64 + 1;
        let bounds = super::model::Bounds { epochs: epoch as u8, ..self.bounds };
        let model = ViewModel { bounds, without: self.without, healed: Healed::default() };
        let mut here = calm.clone();
        here.daemons[voter].change(|daemon| {
            daemon.ballots_left = BALLOTS;
            // D is over, and nobody came.
            daemon.was_silent = false;
        });
        for _ in 0..PATIENCE {
            let living = || here.daemons.iter().filter(|daemon| daemon.stage != Stage::Ended);
            if living().all(|daemon| next_epoch(daemon).0 > epoch) && living().count() > 0 {
                return true;
            }
            let next = model.next_step(&here, Some(voter)).and_then(|action| model.next_state(&here, action));
            let Some(next) = next else { return false };
            here = next;
        }
        false
    }

    /// Whether views go on from here.
    pub(super) fn heals(&self, state: &State) -> bool {
        let mut known = self.healed.0.lock().expect("nobody panics here");
        let (mut way, mut here) = (Vec::new(), state.clone());
        while way.len() < PATIENCE {
            let name = hash(&here);
            if known.contains(&name) {
                break;
            }
            way.push(name);
            let Some(action) = self.next_step(&here, None) else {
                let stopped = here.disk.iter().any(Option::is_none);
                let mut voters = (0..here.daemons.len()).filter(|who| here.daemons[*who].stage == Stage::Confirmed);
                if !stopped && !voters.all(|who| self.elects(&here, who)) {
                    return false;
                }
                break;
            };
            here = self.next_state(&here, action).expect("a step of the model");
        }
        let ended = way.len() < PATIENCE;
        known.extend(way.into_iter().filter(|_| ended));
        ended
    }
}
