//! The simulator itself, in the small: a few seeds pass, and the same seed gives the same trace (DESIGN section 2).

use mxlock_sim::{keep_panics, run};

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

/// One seed determines everything: no map's order, no clock, no address gets in.
#[test]
fn the_same_seed_gives_the_same_trace() {
    keep_panics();
    for seed in [3, 11] {
        let (first, second) = (run(seed, 1, false), run(seed, 1, false));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.coverage, second.coverage, "seed {seed}");
    }
}

/// Seeds that once found a bug.
#[test]
fn regressions_stay_fixed() {
    keep_panics();
    let list = mxlock_sim::run::regressions(include_str!("../regressions/seeds.txt")).expect("the list is well-formed");
    list.into_iter().for_each(|(seed, minutes)| pass(seed, minutes));
}
