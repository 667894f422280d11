//! The simulator itself, in the small: a few seeds hold the invariants, and bugs that were found stay fixed.

use mxlock_sim::scenario::Scenario;
use mxlock_sim::{keep_panics, play, run};
use std::path::Path;

fn pass(seed: u64, minutes: u64) {
    let outcome = run(seed, minutes, false);
    assert!(outcome.failure.is_none(), "seed {seed}, {minutes} minutes: {:?}", outcome.failure);
}

/// I1 to I10 and liveness over 20 short runs.
#[test]
fn twenty_seeds_hold_the_invariants() {
    keep_panics();
    (0..20).for_each(|seed| pass(seed, 1));
}

/// Seeds that once found a bug.
#[test]
fn regressions_stay_fixed() {
    keep_panics();
    let list = mxlock_sim::run::regressions(include_str!("../regressions/seeds.txt")).expect("the list is well-formed");
    for scenario in list {
        let outcome = play(&scenario, false);
        assert!(outcome.failure.is_none(), "{scenario}{:?}", outcome.failure);
    }
}

/// Scenarios that once found a bug: each tells its story, and passes.
#[test]
fn scenarios_stay_fixed() {
    keep_panics();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let entries = std::fs::read_dir(&directory).expect("the regressions are there");
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "scn")) {
        let text = std::fs::read_to_string(&file).expect("a text file");
        assert!(text.starts_with("# "), "{} does not tell its story", file.display());
        let scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let outcome = play(&scenario, false);
        assert!(outcome.failure.is_none(), "{}: {:?}", file.display(), outcome.failure);
    }
}
