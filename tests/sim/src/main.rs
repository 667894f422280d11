//! `mxlock-sim`: runs seeds, reports what they met, and fails with the first broken rule.

use clap::Parser;
#[cfg(feature = "planted")]
use mxlock_dlm::planted::Bug;
use mxlock_sim::coverage::Coverage;
use mxlock_sim::{Outcome, keep_panics, run};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Simulates clusters of mxlock under faults and checks the invariants of DESIGN section 9.
#[derive(Parser)]
#[command(version, after_help = "Examples:\n  mxlock-sim --seeds 0..200 --minutes 10\n  mxlock-sim --seed 17 --trace")]
struct Args {
    /// The seeds to run, from A up to but not including B.
    #[arg(long, value_name = "A..B", value_parser = seeds, default_value = "0..200")]
    seeds: (u64, u64),
    /// Runs this seed only.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Replays the seeds of this file: one per line, followed by its story; the first word may be N:MINUTES.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed"])]
    replay: Option<std::path::PathBuf>,
    /// Simulated minutes of storm per seed.
    #[arg(long, value_name = "M", default_value_t = 10)]
    minutes: u64,
    /// Prints everything that happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads to run seeds on.
    #[arg(long, value_name = "T", default_value_t = 2)]
    threads: usize,
    /// Fails if the run as a whole did not meet enough hard cases.
    #[arg(long)]
    floors: bool,
    /// Goes on after a failing seed and lists them all.
    #[arg(long)]
    keep_going: bool,
    /// Takes a rule out of the code under test.
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "BUG", value_parser = bug)]
    plant: Option<Bug>,
    /// Lists the bugs that can be planted.
    #[cfg(feature = "planted")]
    #[arg(long)]
    list_planted: bool,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parts.filter(|(a, b)| a < b).ok_or_else(|| format!("'{text}' is not a range of seeds: use A..B with A below B"))
}

#[cfg(feature = "planted")]
fn bug(text: &str) -> Result<Bug, String> {
    let known = Bug::ALL.iter().find(|bug| bug.name() == text);
    known.copied().ok_or_else(|| format!("'{text}' is no bug that can be planted: see --list-planted"))
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    #[cfg(feature = "planted")]
    if args.list_planted {
        Bug::ALL.iter().for_each(|bug| println!("{:<26} {}", bug.name(), bug.rule()));
        return ExitCode::SUCCESS;
    }
    keep_panics();
    let list = match work(&args) {
        Ok(list) => list,
        Err(message) => {
            eprintln!("mxlock-sim: {message}");
            return ExitCode::from(64);
        }
    };
    let began = Instant::now();
    let outcomes = run_all(&args, &list);
    let took = began.elapsed();

    let mut total = Coverage::default();
    let mut failures = 0;
    for (outcome, _) in &outcomes {
        total += outcome.coverage;
        failures += u64::from(outcome.failure.is_some());
    }
    print!("{} seeds in {:.1} s\n{}", outcomes.len(), took.as_secs_f64(), total.table());
    if let (Some(seed), [(outcome, _)]) = (args.seed, &outcomes[..]) {
        println!("seed {seed}: trace hash {:016x}", outcome.hash);
    }
    let low = if args.floors { total.below_floor() } else { Vec::new() };
    for line in &low {
        println!("coverage floor missed: {line}");
    }
    if failures > 0 || !low.is_empty() {
        println!("mxlock-sim: {failures} of {} seeds failed", outcomes.len());
        return ExitCode::from(1);
    }
    println!("mxlock-sim: ok");
    ExitCode::SUCCESS
}

/// Seeds with their minutes.
fn work(args: &Args) -> Result<Vec<(u64, u64)>, String> {
    if let Some(file) = &args.replay {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        return mxlock_sim::run::regressions(&text);
    }
    let (from, to) = args.seed.map_or(args.seeds, |seed| (seed, seed + 1));
    Ok((from..to).map(|seed| (seed, args.minutes)).collect())
}

/// Says at once what a seed broke, and how to see it again.
fn report(outcome: &Outcome, minutes: u64) {
    let (seed, Some(failure)) = (outcome.seed, &outcome.failure) else { return };
    println!(
        "seed {seed}: {:?} broken after {}.{:03} s: {}\n  reproduce: mxlock-sim --seed {seed} --minutes {minutes} --trace",
        failure.rule,
        failure.at / 1_000_000_000,
        failure.at / 1_000_000 % 1_000,
        failure.message,
    );
}

fn run_all(args: &Args, list: &[(u64, u64)]) -> Vec<(Outcome, u64)> {
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..args.threads.max(1) {
            scope.spawn(|| {
                #[cfg(feature = "planted")]
                mxlock_dlm::planted::plant(args.plant);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let stop = failed.load(Ordering::Relaxed) > 0 && !args.keep_going;
                    let Some(&(seed, minutes)) = list.get(at).filter(|_| !stop) else { return };
                    let outcome = run(seed, minutes, args.trace);
                    report(&outcome, minutes);
                    failed.fetch_add(u64::from(outcome.failure.is_some()), Ordering::Relaxed);
                    outcomes.lock().expect("no thread panics here").push((at, outcome, minutes));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no thread panics here");
    outcomes.sort_by_key(|(at, ..)| *at);
    outcomes.into_iter().map(|(_, outcome, minutes)| (outcome, minutes)).collect()
}
