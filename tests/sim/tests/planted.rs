//! The proof that the simulator is worth its time: rules are taken out of the production code one by one, and each time
//! the oracle that watches over what the rule protects must notice within a stated number of seeds.
//!
//! Run with `cargo test --profile sim -p mxlock-sim --features planted --test planted -- --nocapture`.

use mxlock_dlm::planted::{Bug, plant};
use mxlock_sim::oracle::Rule;
use mxlock_sim::{keep_panics, run};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bug, the oracle that must find it, and how hard it may look.
struct Case {
    bug: Bug,
    oracle: Rule,
    /// Simulated minutes of storm per seed.
    minutes: u64,
    /// Seeds, from 0 on.
    seeds: u64,
}

const fn case(bug: Bug, oracle: Rule, minutes: u64, seeds: u64) -> Case {
    Case { bug, oracle, minutes, seeds }
}

const CASES: &[Case] = &[
    case(Bug::EarlyRead, Rule::I4, 10, 400),
    case(Bug::LinkLossIsDeath, Rule::I4, 5, 10),
    case(Bug::LeaseNotLatched, Rule::Liveness, 5, 60),
    case(Bug::DeadTooShort, Rule::I3, 5, 10),
    case(Bug::ExcludedComesBack, Rule::I3, 5, 60),
    case(Bug::WriteAfterLease, Rule::I6, 5, 30),
    case(Bug::StampNotRenewed, Rule::I9, 5, 300),
    case(Bug::ScanStopsEarly, Rule::I3, 5, 60),
    case(Bug::WaitingRecordsDropped, Rule::I3, 5, 100),
    case(Bug::PossibleHoldersIgnored, Rule::I1, 5, 20),
    case(Bug::RestartFreesLocks, Rule::I3, 5, 20),
    case(Bug::FifoLost, Rule::I8, 5, 100),
    case(Bug::OrphanEndsAtOnce, Rule::I3, 5, 10),
    case(Bug::OrphanNeverEnds, Rule::Liveness, 5, 10),
    case(Bug::AckBeforeRecord, Rule::I3, 5, 5),
    case(Bug::StandingReusedLate, Rule::I3, 5, 10),
    case(Bug::WantedNotRecorded, Rule::I3, 5, 30),
    case(Bug::ClearOvertakesGrant, Rule::I6, 5, 5),
    case(Bug::RecordNotCleared, Rule::I10, 5, 5),
    case(Bug::TokenReused, Rule::I2, 5, 20),
    case(Bug::ValueAckedEarly, Rule::I9, 5, 300),
    case(Bug::ValueValidAfterDeath, Rule::I9, 5, 300),
    case(Bug::ReaderBarges, Rule::I8, 5, 10),
    case(Bug::LifoWaiters, Rule::I8, 5, 5),
    case(Bug::PrToCwIsDown, Rule::I1, 5, 30),
    case(Bug::PromotionsLost, Rule::Liveness, 5, 10),
    case(Bug::AnsweredTwice, Rule::I7, 5, 30),
];

/// Bugs that no storm and no oracle reaches yet.
const UNREACHED: &[Bug] = &[
    Bug::NoBallotReread,
    Bug::ViewNotCarried,
    Bug::BallotNotCarried,
    Bug::LeaseFromEnd,
    Bug::SilenceAcrossStalls,
    Bug::FailedFenceIgnored,
    Bug::ResignWithoutDrain,
    Bug::StampIgnored,
    Bug::StaleReignAccepted,
    Bug::InFlightRecordTrusted,
    Bug::WriteErrorIgnored,
];

/// What became of one bug.
struct Found {
    /// The first seed at which the named oracle spoke.
    seed: Option<u64>,
    /// What the other oracles said before that, and how often.
    others: BTreeMap<Rule, u64>,
}

fn look_for(case: &Case) -> Found {
    plant(Some(case.bug));
    let mut others = BTreeMap::new();
    let seed = (0..case.seeds).find(|&seed| match run(seed, case.minutes, false).failure {
        Some(failure) if failure.rule == case.oracle => true,
        Some(failure) => {
            *others.entry(failure.rule).or_default() += 1;
            false
        }
        None => false,
    });
    plant(None);
    Found { seed, others }
}

/// Each planted bug is found by its named oracle within the stated number of seeds.
#[test]
fn each_bug_is_found_by_its_oracle() {
    keep_panics();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    found.lock().expect("no thread panics here").insert(case.bug.name(), (case, look_for(case)));
                }
            });
        }
    });
    let found = found.into_inner().expect("no thread panics here");
    println!("{:<26} {:<9} {:>7} {:>8} {:>8}  others", "bug", "oracle", "minutes", "seeds", "allowed");
    for (name, (case, Found { seed, others })) in &found {
        let seeds = seed.map_or("-".to_owned(), |seed| (seed + 1).to_string());
        let oracle = format!("{:?}", case.oracle);
        println!("{name:<26} {oracle:<9} {:>7} {seeds:>8} {:>8}  {others:?}", case.minutes, case.seeds);
    }
    let missed: Vec<_> = found.iter().filter(|(_, (_, found))| found.seed.is_none()).map(|(name, _)| name).collect();
    assert!(missed.is_empty(), "not found by their oracle: {missed:?}");
}

/// No bug is left out of the table.
#[test]
fn every_bug_has_a_case() {
    for bug in Bug::ALL {
        let cases =
            CASES.iter().filter(|case| case.bug == *bug).count() + UNREACHED.iter().filter(|b| *b == bug).count();
        assert_eq!(cases, 1, "{} has {cases} cases", bug.name());
    }
    assert!(CASES.len() >= 20);
}
