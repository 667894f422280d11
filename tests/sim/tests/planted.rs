//! The proof that the simulator is worth its time: rules are taken out of the production code one by one, and each time
//! the oracle that watches over what the rule protects must notice within a stated number of seeds.
//!
//! Run with `cargo test --profile sim -p mxlock-sim --features planted --test planted -- --nocapture`.

use mxlock_dlm::planted::{Bug, plant};
use mxlock_sim::focus::Focus;
use mxlock_sim::oracle::Rule;
use mxlock_sim::scenario::Scenario;
use mxlock_sim::{keep_panics, play};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Simulated minutes of storm per seed.
const MINUTES: u64 = 5;

/// A bug, the oracle that must find it, and in how many seeds, from 0 on: at least five times what it takes today. Where
/// the rule matters in one corner only, the storms are about that.
struct Case {
    bug: Bug,
    oracle: Rule,
    seeds: u64,
    focus: Option<Focus>,
}

const fn case(bug: Bug, oracle: Rule, seeds: u64) -> Case {
    Case { bug, oracle, seeds, focus: None }
}

const fn focused(focus: Focus, bug: Bug, oracle: Rule, seeds: u64) -> Case {
    Case { bug, oracle, seeds, focus: Some(focus) }
}

const CASES: &[Case] = &[
    case(Bug::LeaseFromEnd, Rule::Lease, 5),
    case(Bug::StampNotRenewed, Rule::I3, 10),
    case(Bug::ValueAckedEarly, Rule::I9, 10),
    case(Bug::ViewNotCarried, Rule::I4, 10),
    focused(Focus::Ballots, Bug::NoBallotReread, Rule::I4, 15),
    focused(Focus::Handovers, Bug::ResignWithoutDrain, Rule::I6, 10),
    focused(Focus::Handovers, Bug::StaleReignAccepted, Rule::I4, 15),
    focused(Focus::Overdue, Bug::StampIgnored, Rule::Stamps, 20),
    case(Bug::AckBeforeRecord, Rule::I3, 5),
    case(Bug::ClearOvertakesGrant, Rule::I6, 5),
    case(Bug::LinkLossIsDeath, Rule::I4, 10),
    case(Bug::RecordNotCleared, Rule::I10, 10),
    case(Bug::TokenReused, Rule::I2, 10),
    case(Bug::LifoWaiters, Rule::I8, 10),
    case(Bug::WantedNotRecorded, Rule::I3, 15),
    case(Bug::LeaseNotLatched, Rule::Lease, 20),
    case(Bug::DeadTooShort, Rule::I5, 20),
    case(Bug::OrphanEndsAtOnce, Rule::I3, 20),
    case(Bug::OrphanNeverEnds, Rule::Liveness, 20),
    case(Bug::StandingReusedLate, Rule::I3, 20),
    case(Bug::ReaderBarges, Rule::I8, 20),
    case(Bug::PrToCwIsDown, Rule::I1, 20),
    case(Bug::RangesMissAByte, Rule::I1, 50),
    case(Bug::OwnIsAnybodys, Rule::I1, 100),
    case(Bug::PromotionsLost, Rule::Liveness, 20),
    case(Bug::AnsweredTwice, Rule::I7, 20),
    case(Bug::DemotionNotTold, Rule::I1, 50),
    case(Bug::WriteErrorIgnored, Rule::I3, 40),
    case(Bug::ScanStopsEarly, Rule::I3, 50),
    focused(Focus::Handovers, Bug::PossibleHoldersIgnored, Rule::I1, 40),
    case(Bug::RestartFreesLocks, Rule::I3, 60),
    case(Bug::ValueValidAfterDeath, Rule::I9, 60),
    case(Bug::BallotNotCarried, Rule::I4, 200),
    case(Bug::WriteAfterLease, Rule::I6, 100),
    case(Bug::FifoLost, Rule::I8, 100),
    focused(Focus::Ballots, Bug::SilenceAcrossStalls, Rule::I5, 80),
    case(Bug::FailedFenceIgnored, Rule::I5, 150),
    case(Bug::ExcludedComesBack, Rule::I3, 500),
    focused(Focus::Overdue, Bug::WaitingRecordsDropped, Rule::I3, 100),
    focused(Focus::Handovers, Bug::EarlyRead, Rule::I4, 60),
    case(Bug::InFlightRecordTrusted, Rule::I3, 400),
];

/// Bugs that the exhaustive models show (`docs/models.md`), which is sooner and surer than seeds.
const IN_THE_MODELS: &[Bug] = &[
    Bug::RecordBeforeOwner,
    Bug::AnyIncarnationSpeaks,
    Bug::ClaimRenewsIncarnation,
    Bug::UnheardExpires,
    Bug::WantedOfPossibleForgotten,
    Bug::RewrittenElsewhere,
    Bug::AnyRecordStands,
    Bug::NothingSpared,
    Bug::DeadNodesValueStands,
    Bug::TokenWithoutEpoch,
    Bug::PersistentOnWaiting,
    Bug::PersistentReleasedEarly,
    Bug::AdoptedComesBack,
    Bug::AdoptedComesBackLate,
    Bug::AdoptionUnwritten,
    Bug::GoneSessionResumed,
    Bug::TakenBackForgotten,
    Bug::AdoptionReleasedUnheard,
    Bug::LostOrphanReleased,
];

/// What became of one bug.
#[derive(Default)]
struct Found {
    /// The first seed at which the named oracle spoke.
    seed: Option<u64>,
    /// What the other oracles said before that, and how often.
    others: BTreeMap<Rule, u64>,
}

/// Seeds that fail without the bug prove nothing.
fn look_for(case: &Case) -> Found {
    let mut found = Found::default();
    for seed in 0..case.seeds {
        let rule = |bug| {
            plant(bug);
            let outcome = play(&Scenario { focus: case.focus, ..Scenario::whole(seed, MINUTES) }, false);
            plant(None);
            outcome.failure.map(|failure| failure.rule)
        };
        match rule(Some(case.bug)) {
            Some(broken) if broken == case.oracle && rule(None).is_none() => {
                found.seed = Some(seed);
                break;
            }
            Some(broken) => *found.others.entry(broken).or_default() += 1,
            None => {}
        }
    }
    found
}

/// Each planted bug is found by its named oracle within the stated number of seeds.
#[test]
fn each_bug_is_found_by_its_oracle() {
    keep_panics();
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    println!("{:<26} {:<9} {:>8} {:>8}  others", "bug", "oracle", "seeds", "allowed");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Found { seed, others } = look_for(case);
                    let (name, oracle) = (case.bug.name(), format!("{:?}", case.oracle));
                    let seeds = seed.map_or("-".to_owned(), |seed| (seed + 1).to_string());
                    println!("{name:<26} {oracle:<9} {seeds:>8} {:>8}  {others:?}", case.seeds);
                    if seed.is_none() {
                        missed.lock().expect("no thread panics here").push(name);
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("no thread panics here");
    assert!(missed.is_empty(), "not found by their oracle: {missed:?}");
}

/// No bug is left out of the tables.
#[test]
fn every_bug_has_a_case() {
    for bug in Bug::ALL {
        let cases = CASES.iter().map(|case| case.bug).chain(IN_THE_MODELS.iter().copied());
        assert_eq!(cases.filter(|known| known == bug).count(), 1, "{}", bug.name());
    }
    assert!(CASES.len() >= 20);
}
