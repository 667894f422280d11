//! One seed from beginning to end: a storm, healing, and what must hold at rest.

use crate::clock::{SEC, Time};
use crate::coverage::Coverage;
use crate::focus::Focus;
use crate::oracle::{Rule, rest};
use crate::scenario::Scenario;
use crate::setup::Noise;
use crate::world::{Failure, World};
use mxlock_proto::client::AdminRequest;
use mxlock_proto::report::Condition;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a seed went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// The first broken rule.
    pub failure: Option<Failure>,
    /// What was met.
    pub coverage: Coverage,
    /// The hash of the whole trace.
    pub hash: u64,
    /// Outputs of all cores in the storm.
    pub storm_outputs: u64,
    /// The steps that clients took in the storm.
    pub steps: Vec<(usize, u32)>,
}

/// True time within which everything must be well after the storm: orphans live for 30 s, a clone of a slot is watched
/// for D, possible holders stay until an orphan lifetime has ended, and so on.
const HEALED_WITHIN: Time = 240 * SEC;

/// Runs one seed for `minutes` of storm. With `trace`, prints everything that happens.
pub fn run(seed: u64, minutes: u64, trace: bool) -> Outcome {
    play(&Scenario::whole(seed, minutes), trace)
}

/// Plays a scenario. With `trace`, prints everything that happens.
pub fn play(scenario: &Scenario, trace: bool) -> Outcome {
    let seed = scenario.seed;
    let mut world = None;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(scenario, trace));
        weather(world, scenario.storm());
    }));
    let mut world = world.unwrap_or_else(|| World::new(scenario, false));
    if let Err(panic) = ended {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "without a message".to_owned());
        world.fail(Rule::Panic, format!("{text}{}", crate::take_panic_place()));
    }
    world.coverage.view_changes = world.oracles.views.count();
    world.coverage.exclusions = world.oracles.views.exclusions();
    world.coverage.simulated_s = world.now / SEC;
    let hash = world.log.hash();
    let failure = world.failure.take();
    let (coverage, storm_outputs) = (world.coverage, world.storm_outputs);
    let steps = std::mem::take(&mut world.steps);
    // After a panic a core may be in any state: dropping it could panic again.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(world)));
    Outcome { seed, failure, coverage, hash, storm_outputs, steps }
}

fn weather(world: &mut World, storm: Time) {
    world.run_until(storm);
    world.storm_outputs = world.outputs;
    world.heal();
    let healed_at = world.now;
    let mut unwell = String::new();
    while world.failure.is_none() && world.now < world.formats_at.unwrap_or(healed_at) + HEALED_WITHIN {
        world.statuses.clear();
        for host in 0..world.hosts.len() {
            world.ask_operator(host, AdminRequest::Status);
        }
        world.tend(world.now - healed_at);
        let next = world.now + 3 * SEC;
        world.run_until(next);
        match wellness(world) {
            Ok(()) => {
                at_rest(world);
                return;
            }
            Err(why) => unwell = why,
        }
    }
    if world.failure.is_none() {
        world.fail(Rule::Liveness, unwell);
    }
}

/// Whether every waiter is served, no possible holder is left, one node is master and all are back.
fn wellness(world: &World) -> Result<(), String> {
    for (at, client) in world.clients.iter().enumerate() {
        if let Some((seq, held)) = client.locks.iter().next() {
            let resource = &world.resources[held.resource];
            let others: Vec<_> = world
                .disk
                .records
                .iter()
                .zip(0u32..)
                .filter_map(|(record, slot)| Some((slot, record.as_ref()?)))
                .filter(|(_, record)| record.resource == *resource)
                .map(|(slot, r)| (slot, r.lock, r.state, r.mode, r.wanted, r.range, r.persistent, r.orphan))
                .collect();
            return Err(format!(
                "client {at} on host {} still has lock {seq}; on disk {others:?}; {held:?}",
                client.host
            ));
        }
        if !client.welcomed && world.scenario.has_client(at) {
            return Err(format!("client {at} has no session"));
        }
    }
    let mut masters = Vec::new();
    for host in 0..world.hosts.len() {
        let Some(daemon) = &world.hosts[host].daemon else { return Err(format!("host {host} has no daemon")) };
        let Some(status) = world.statuses.get(&host) else { return Err(format!("host {host} does not answer")) };
        if status.condition != Condition::Ready {
            return Err(format!("host {host} is {:?}: {:?}", status.condition, status.blocked));
        }
        if status.possible_holders > 0 || status.locks_waiting > 0 || status.orphans > 0 || status.locks_held > 0 {
            let left: Vec<_> =
                world.disk.records.iter().flatten().map(|r| (r.lock, &r.resource, r.mode, r.orphan)).collect();
            return Err(format!(
                "host {host} has {} possible holders, {} orphans, {} locks, {} waiting; on disk: {left:?}",
                status.possible_holders, status.orphans, status.locks_held, status.locks_waiting
            ));
        }
        if status.damaged_sectors > 0 {
            return Err(format!("host {host} keeps {} damaged sectors", status.damaged_sectors));
        }
        if !status.members.contains(&daemon.node) {
            return Err(format!("host {host} is not a member"));
        }
        if status.members.len() != world.hosts.len() {
            return Err(format!("host {host} still counts nodes that are gone: {:?}", status.members));
        }
        masters.push(status.master);
    }
    if masters.iter().any(|master| master.is_none() || *master != masters[0]) {
        return Err(format!("the hosts do not agree on the master: {masters:?}"));
    }
    Ok(())
}

/// I10: at rest the decoded table equals memory. Nobody has locks any more, so both are empty.
fn at_rest(world: &mut World) {
    // Damage that no write went over is found by the next scrub, a minute after the last one at most.
    let rest = world.now + if world.disk.broken.is_empty() { 3 * SEC } else { 70 * SEC };
    world.run_until(rest);
    if world.failure.is_some() {
        return;
    }
    let Some(master) = world.master_host() else {
        world.fail(Rule::Liveness, "no master at rest".to_owned());
        return;
    };
    let Some(daemon) = &world.hosts[master].daemon else { return };
    if let Err(error) = daemon.core.check_invariants() {
        world.fail(Rule::Memory, error);
        return;
    }
    let compare = |slot: u32| {
        let (memory, disk) = (daemon.core.mirror().image(slot), world.disk.record_bytes(slot));
        rest::slot(slot, memory, disk, world.disk.records[slot as usize].as_ref())
    };
    let verdict = (0..world.disk.geometry.slot_count).try_for_each(compare);
    world.judge(Rule::I10, verdict);
    let sound = |slot: u32| {
        world.disk.records[slot as usize].is_some() || world.disk.record_bytes(slot).iter().all(|b| *b == 0)
    };
    let verdict = world.oracles.damage.at_rest(sound);
    world.judge(Rule::I11, verdict);
    let verdict = world.oracles.orphans.at_rest();
    world.judge(Rule::I5, verdict);
}

/// Reads a list of regressions: one per line, `SEED[:MINUTES[:FOCUS]] STORY`; `#` begins a comment. After `off NOISE` seeds
/// are played without that noise, which did not exist when they were found, until `on NOISE`.
///
/// # Errors
/// The first line that is not one.
pub fn regressions(text: &str) -> Result<Vec<Scenario>, String> {
    let mut off = BTreeSet::new();
    let mut all = Vec::new();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let bad = || format!("'{line}' does not begin with SEED, SEED:MINUTES or SEED:MINUTES:FOCUS");
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let ("off" | "on", name) = (first, words.next().unwrap_or_default()) {
            let known = { Noise::QUIET }.all().into_iter().map(|(known, _)| known).find(|known| *known == name);
            let known = known.ok_or_else(|| format!("'{line}': there is no such noise"))?;
            if first == "off" {
                off.insert(known)
            } else {
                off.remove(known)
            };
            continue;
        }
        let mut parts = first.splitn(3, ':');
        let seed = parts.next().and_then(|seed| seed.parse().ok()).ok_or_else(bad)?;
        let minutes = parts.next().map_or(Ok(10), str::parse).map_err(|_| bad())?;
        let focus = parts.next().map(|name| Focus::named(name).ok_or_else(bad)).transpose()?;
        all.push(Scenario { off: off.clone(), focus, ..Scenario::whole(seed, minutes) });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_regressions() {
        let text = "# old\noff power-cuts\n7 one\n8:2 another\non power-cuts\n9:5:handovers a third\n";
        let all = regressions(text).expect("it is well-formed");
        let told = |at: usize| (all[at].seed, all[at].seconds, all[at].off.len(), all[at].focus);
        assert_eq!(told(0), (7, 600, 1, None));
        assert_eq!(told(1), (8, 120, 1, None));
        assert_eq!(told(2), (9, 300, 0, Some(Focus::Handovers)));
        for bad in ["x", "7:x", "7:5:sunshine", "off sunshine"] {
            assert!(regressions(bad).is_err(), "{bad}");
        }
    }
}
