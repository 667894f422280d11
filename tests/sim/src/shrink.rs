//! From a failing seed to a short scenario: a shorter storm, fewer faults, less noise, fewer clients, fewer steps.
//!
//! Since every decision has its own randomness, what is left out changes nothing else directly; a scenario that still
//! breaks the same rule is kept, and the next cut is made on it (Zeller and Hildebrandt's ddmin, each list in turn).

use crate::run::play;
use crate::scenario::Scenario;
use crate::world::Failure;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Runs after which it is short enough.
const MOST_RUNS: u32 = 2_000;

/// What is left.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// It still fails.
    pub scenario: Scenario,
    /// In this way.
    pub failure: Failure,
    /// Faults of the whole and of the rest.
    pub faults: (usize, usize),
    /// Client steps of the whole and of the rest.
    pub steps: (usize, usize),
    /// Runs that it took.
    pub runs: u32,
}

struct Search {
    best: Scenario,
    failure: Failure,
    /// The steps that clients take in `best`.
    steps: Vec<(usize, u32)>,
    runs: u32,
}

/// The smallest part of a scenario that was found to break the same rule; `None`: it breaks none.
pub fn shrink(whole: &Scenario) -> Option<Shrunk> {
    let first = play(whole, false);
    let mut search = Search { best: whole.clone(), failure: first.failure?, steps: first.steps.clone(), runs: 1 };
    let setup = whole.setup();
    let before = (whole.faults(&setup).len(), first.steps.len());
    let mut size = usize::MAX;
    loop {
        search.shorten();
        search.drop_faults();
        search.drop_noise();
        search.drop_clients(setup.clients * (setup.hosts + setup.late_hosts));
        search.drop_steps();
        let now = search.best.to_string().len();
        if now >= size || search.runs >= MOST_RUNS {
            break;
        }
        size = now;
    }
    let faults = search.best.faults(&search.best.setup()).len();
    Some(Shrunk {
        faults: (before.0, faults),
        steps: (before.1, search.steps.len()),
        scenario: search.best,
        failure: search.failure,
        runs: search.runs,
    })
}

impl Search {
    /// Keeps a candidate that breaks the same rule.
    fn keeps(&mut self, candidate: Scenario) -> bool {
        if self.runs >= MOST_RUNS || candidate == self.best {
            return false;
        }
        self.runs += 1;
        let outcome = play(&candidate, false);
        match outcome.failure {
            Some(failure) if failure.rule == self.failure.rule => {
                (self.best, self.failure, self.steps) = (candidate, failure, outcome.steps);
                true
            }
            _ => false,
        }
    }

    fn shorten(&mut self) {
        let failed_s = self.failure.at / crate::clock::SEC + 1;
        if failed_s < self.best.seconds {
            self.keeps(Scenario { seconds: failed_s, ..self.best.clone() });
        }
        let mut cut = self.best.seconds / 2;
        while cut > 0 {
            if self.best.seconds > cut {
                let seconds = self.best.seconds - cut;
                if self.keeps(Scenario { seconds, ..self.best.clone() }) {
                    continue;
                }
            }
            cut /= 2;
        }
    }

    fn drop_faults(&mut self) {
        let setup = self.best.setup();
        let all = self.best.faults(&setup);
        self.minimise(all, |scenario, kept| scenario.only = Some(kept.iter().copied().collect()));
    }

    fn drop_noise(&mut self) {
        let mut setup = self.best.setup();
        for (name, ppm) in setup.noise.all() {
            if *ppm > 0 {
                let mut candidate = self.best.clone();
                candidate.off.insert(name);
                self.keeps(candidate);
            }
        }
    }

    fn drop_clients(&mut self, clients: usize) {
        for client in 0..clients {
            if self.best.has_client(client) {
                let mut candidate = self.best.clone();
                candidate.without.insert(client);
                candidate.steps.remove(&client);
                self.keeps(candidate);
            }
        }
    }

    fn drop_steps(&mut self) {
        let all = self.steps.clone();
        self.minimise(all, |scenario, kept| {
            let mut by_client: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            for &(client, step) in kept {
                by_client.entry(client).or_default().push(step);
            }
            let clients: Vec<usize> = scenario.steps.keys().copied().chain(by_client.keys().copied()).collect();
            for client in clients {
                let ranges = ranges(by_client.get(&client).map_or(&[], Vec::as_slice));
                scenario.steps.insert(client, ranges);
            }
        });
    }

    /// Leaves out as much of a list as it can, in ever smaller parts.
    fn minimise<T: Clone>(&mut self, mut list: Vec<T>, apply: impl Fn(&mut Scenario, &[T])) {
        let mut part = list.len().div_ceil(2);
        while part > 0 && self.runs < MOST_RUNS {
            let mut at = 0;
            while at < list.len() {
                let end = (at + part).min(list.len());
                let rest: Vec<T> = list[..at].iter().chain(&list[end..]).cloned().collect();
                let mut candidate = self.best.clone();
                apply(&mut candidate, &rest);
                if self.keeps(candidate) {
                    list = rest;
                } else {
                    at = end;
                }
            }
            part = if part == 1 { 0 } else { part.div_ceil(2) };
        }
    }
}

/// Ascending numbers as ranges.
fn ranges(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, to)) if *to == number => *to += 1,
            _ => ranges.push((number, number + 1)),
        }
    }
    ranges
}

impl Shrunk {
    /// What was left out.
    pub fn story(&self) -> String {
        let mut text = String::new();
        let _ = write!(
            text,
            "{:?} still broken after {} s with {} of {} faults and {} of {} client steps; {} runs",
            self.failure.rule,
            self.failure.at / crate::clock::SEC,
            self.faults.1,
            self.faults.0,
            self.steps.1,
            self.steps.0,
            self.runs
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_ranges() {
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), [(1, 4), (7, 8), (9, 11)]);
        assert_eq!(ranges(&[]), []);
    }
}
