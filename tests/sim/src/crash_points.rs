//! Deaths at every output boundary: a short story is played once for every output of its cores, and the daemon that
//! carries that output out dies right after it. Nothing that was promised may rest on an output that comes later.

use crate::clock::SEC;
use crate::faults::Fault;
use crate::faults::plan::plan;
use crate::run::play;
use crate::scenario::Scenario;
use crate::setup::{Noise, Setup};
use std::collections::BTreeSet;

/// The one fault of each story, with which it is more than a quiet cluster's beginning.
const STORIES: [Option<Fault>; 6] = [
    None,
    Some(Fault::Handover),
    Some(Fault::Shutdown),
    Some(Fault::CrashMaster),
    Some(Fault::Leave),
    Some(Fault::WriteErrors),
];

/// Length of a story's storm.
const SECONDS: u64 = 25;

/// The stories: three hosts, one fault between the 8th and the 18th second, no noise. Which seeds these are is looked up,
/// so that it does not matter how setups are drawn.
pub fn stories() -> Vec<(String, Scenario)> {
    STORIES
        .iter()
        .map(|&fault| {
            let scenario = (0..).find_map(|seed| story(seed, fault)).expect("such seeds are common");
            (fault.map_or("quiet", Fault::name).to_owned(), scenario)
        })
        .collect()
}

fn story(seed: u64, fault: Option<Fault>) -> Option<Scenario> {
    let setup = Setup::draw(seed);
    if setup.hosts != 3 || setup.clients < 2 || setup.resources > 8 || !setup.fence_wait {
        return None;
    }
    let mut only = BTreeSet::new();
    if let Some(kind) = fault {
        let found = plan(seed, &setup, SECONDS * SEC)
            .into_iter()
            .find(|planned| planned.kind == kind && (8 * SEC..18 * SEC).contains(&planned.at))?;
        only.insert(found);
    }
    let off = { Noise::QUIET }.all().into_iter().map(|(name, _)| name).collect();
    Some(Scenario { seconds: SECONDS, only: Some(only), off, ..Scenario::whole(seed, 1) })
}

/// The scenarios of all stories with a death after every `every`th output.
pub fn deaths(every: u64) -> Vec<(String, Scenario)> {
    let mut all = Vec::new();
    for (name, story) in stories() {
        let outputs = play(&story, false).storm_outputs;
        // Each story begins elsewhere, so that sparse sweeps do not all miss the same places.
        let first = 1 + all.len() as u64 % every;
        for output in (first..=outputs).step_by(every as usize) {
            let scenario = Scenario { death_after: Some(output), ..story.clone() };
            all.push((format!("{name}, death after output {output}"), scenario));
        }
    }
    all
}
