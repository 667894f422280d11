//! A daemon that is started again, and another host that wants its slot (docs/decisions/007 and 009).
//!
//! The slot's host is no member, else nobody could take the slot at all.

use super::{ONE_OWNER, Times};
use stateright::{Model, Property};

pub(super) struct RestartModel {
    pub(super) times: Times,
    pub(super) without: Option<&'static str>,
}

/// The daemon that was started again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Owner {
    Down,
    /// It has looked at its sector; `at_once`: the write began within L of the stamp that it found.
    Writing {
        age: u32,
        at_once: bool,
    },
    /// Its write has landed `age` after it began: it reads it back.
    ReadingBack {
        at_once: bool,
        age: u32,
    },
    /// It was read back. `age`: of its newest heartbeat. `quiet`: how long it has been waiting for its first ballot.
    Beating {
        age: u32,
        quiet: u32,
    },
    /// It has found another in its slot.
    Stopped,
}

/// The host that wants the slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Taker {
    Watching {
        read: Option<Read>,
        seen: u8,
        since: u32,
    },
    /// Unchanged for D: its first write is on its way.
    Writing {
        age: u32,
    },
    Wrote,
    GaveUp,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Read {
    /// The sector had been seen unchanged for D when it was issued.
    is_late: bool,
    age: u32,
    sampled: Option<u8>,
}

/// The whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct State {
    owner_rate: u32,
    taker_rate: u32,
    /// Since the stamp of the former daemon's last heartbeat, and whether that has landed.
    stamp: u32,
    old_landed: bool,
    /// The taker's image is on disk.
    is_takers: bool,
    owner: Owner,
    taker: Taker,
    /// The taker's write landed on a daemon that votes.
    overwritten: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Tick,
    OldHeartbeatLands,
    OwnerStarts,
    OwnerWriteLands,
    OwnerReadsBack,
    /// It looks, writes and reads back.
    OwnerBeats,
    TakerIssuesRead,
    TakerSamples,
    TakerReadEnds,
    TakerWriteLands,
}

impl RestartModel {
    fn keeps(&self, rule: &str) -> bool {
        self.without != Some(rule)
    }

    fn dead(&self) -> u32 {
        let Times { renew, lease, grace, drift } = self.times;
        (lease + grace + renew) * (drift + 1)
    }

    /// Whether the owner has not written for so long that somebody may have found its slot unchanged for D.
    fn was_silent(&self, state: &State) -> bool {
        let Times { renew, lease, grace, drift } = self.times;
        matches!(state.owner, Owner::Beating { age, .. } if age * state.owner_rate >= (lease + grace + renew) * drift)
    }

    fn votes(&self, state: &State) -> bool {
        let Owner::Beating { quiet, .. } = state.owner else { return false };
        let waited = if self.keeps("silent-ban") { self.dead() } else { 2 * self.times.renew * self.times.drift };
        quiet * state.owner_rate >= waited && !(self.was_silent(state) && self.keeps("silent-ban"))
    }

    /// No age matters beyond it.
    fn cap(&self) -> u32 {
        self.times.lease + self.times.grace + self.times.renew + 2
    }

    fn tick(&self, state: &mut State) {
        let cap = self.cap();
        let older = |age: &mut u32| *age = (*age + 1).min(cap);
        older(&mut state.stamp);
        match &mut state.owner {
            Owner::Writing { age, .. } | Owner::ReadingBack { age, .. } => older(age),
            Owner::Beating { age, quiet } => {
                older(age);
                older(quiet);
            }
            Owner::Down | Owner::Stopped => {}
        }
        match &mut state.taker {
            Taker::Watching { since, read, .. } => {
                older(since);
                if let Some(read) = read {
                    read.age = (read.age + 1).min(2 * self.times.renew + 1);
                }
            }
            Taker::Writing { age } => older(age),
            Taker::Wrote | Taker::GaveUp => {}
        }
        if !matches!(state.owner, Owner::Down) && state.old_landed {
            state.stamp = 0;
        }
    }
}

impl Model for RestartModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let slow = self.times.drift;
        let rates = [(slow, slow + 1), (slow + 1, slow), (slow, slow)];
        let state = |(owner_rate, taker_rate)| State {
            owner_rate,
            taker_rate,
            stamp: 0,
            old_landed: false,
            is_takers: false,
            owner: Owner::Down,
            taker: Taker::Watching { read: None, seen: 2, since: 0 },
            overwritten: false,
        };
        rates.into_iter().map(state).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let landing = self.times.landing();
        let waits = [
            (!state.old_landed).then_some(state.stamp),
            if let Owner::Writing { age, .. } = state.owner { Some(age) } else { None },
            if let Taker::Writing { age } = state.taker { Some(age) } else { None },
        ];
        if waits.into_iter().flatten().all(|age| age < landing) {
            actions.push(Action::Tick);
        }
        if !state.old_landed {
            actions.push(Action::OldHeartbeatLands);
        }
        match state.owner {
            // The guard: the former daemon's last write has ended.
            Owner::Down if state.old_landed && !state.is_takers => actions.push(Action::OwnerStarts),
            Owner::Writing { .. } => actions.push(Action::OwnerWriteLands),
            Owner::ReadingBack { .. } => actions.push(Action::OwnerReadsBack),
            Owner::Beating { age, .. } if age > 0 => actions.push(Action::OwnerBeats),
            _ => {}
        }
        match state.taker {
            Taker::Watching { read: None, .. } => actions.push(Action::TakerIssuesRead),
            Taker::Watching { read: Some(Read { sampled: None, .. }), .. } => actions.push(Action::TakerSamples),
            Taker::Watching { .. } => actions.push(Action::TakerReadEnds),
            Taker::Writing { .. } => actions.push(Action::TakerWriteLands),
            _ => {}
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Tick => self.tick(&mut state),
            Action::OldHeartbeatLands => {
                state.old_landed = true;
                state.pulse_changes();
            }
            Action::OwnerStarts => {
                let within = state.stamp * state.owner_rate < self.times.lease * self.times.drift;
                state.owner = Owner::Writing { age: 0, at_once: within || !self.keeps("within-l") };
            }
            Action::OwnerWriteLands => {
                let Owner::Writing { at_once, age } = state.owner else { return None };
                state.is_takers = false;
                state.owner = Owner::ReadingBack { at_once, age };
                state.pulse_changes();
            }
            Action::OwnerReadsBack => {
                let Owner::ReadingBack { at_once, age } = state.owner else { return None };
                let quiet = if at_once { self.cap() } else { 0 };
                state.owner = if state.is_takers { Owner::Stopped } else { Owner::Beating { age, quiet } };
            }
            Action::OwnerBeats => {
                let Owner::Beating { quiet, .. } = state.owner else { return None };
                let quiet = if self.was_silent(&state) && self.keeps("silent-ban") { 0 } else { quiet };
                state.owner = if state.is_takers { Owner::Stopped } else { Owner::Beating { age: 0, quiet } };
                if !state.is_takers {
                    state.pulse_changes();
                }
            }
            Action::TakerIssuesRead => {
                let Taker::Watching { read, since, .. } = &mut state.taker else { return None };
                let is_late = *since * state.taker_rate >= self.dead();
                *read = Some(Read { is_late, age: 0, sampled: None });
            }
            Action::TakerSamples => {
                let Taker::Watching { read: Some(read), .. } = &mut state.taker else { return None };
                read.sampled = Some(0);
            }
            Action::TakerReadEnds => {
                let limit = 2 * self.times.renew * self.times.drift;
                let rate = state.taker_rate;
                let Taker::Watching { read, seen, since } = &mut state.taker else { return None };
                let Read { is_late, age, sampled } = read.take()?;
                if age * rate > limit && self.keeps("taker-gap") {
                    (*seen, *since) = (sampled?, 0);
                } else if sampled == Some(*seen) {
                    if is_late {
                        state.taker = Taker::Writing { age: 0 };
                    }
                } else if *seen != 2 && !matches!(state.owner, Owner::Down) && sampled == Some(0) {
                    // Its owner is back.
                    state.taker = Taker::GaveUp;
                } else {
                    (*seen, *since) = (sampled?, 0);
                }
            }
            Action::TakerWriteLands => {
                state.overwritten |= self.votes(&state);
                state.is_takers = true;
                state.taker = Taker::Wrote;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_OWNER, |_, state: &State| !state.overwritten),
            Property::sometimes("the owner votes", |model: &RestartModel, state: &State| model.votes(state)),
            Property::sometimes("the taker takes the slot", |_, state: &State| state.taker == Taker::Wrote),
        ]
    }
}

impl State {
    /// A write of the owner's has landed: what the taker has seen is not on disk any more.
    fn pulse_changes(&mut self) {
        if let Taker::Watching { read, seen, .. } = &mut self.taker {
            let same = read.and_then(|read| read.sampled) == Some(*seen);
            if let Some(Read { sampled: Some(sampled), .. }) = read {
                *sampled = 1;
            }
            *seen = if same { 1 } else { 2 };
        }
    }
}
