//! `mxlock-sim`: runs seeds, reports what they met, and fails with the first broken rule.

use clap::Parser;
#[cfg(feature = "planted")]
use mxlock_dlm::planted::Bug;
use mxlock_sim::coverage::Coverage;
use mxlock_sim::focus::Focus;
use mxlock_sim::scenario::Scenario;
use mxlock_sim::{Outcome, crash_points, keep_panics, play, shrink, speed};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const EXAMPLES: &str = "Examples:
  mxlock-sim --seeds 0..200 --minutes 10
  mxlock-sim --seed 17 --trace
  mxlock-sim --shrink 17 > 17.scn
  mxlock-sim --scenario 17.scn --trace
  mxlock-sim --crash-points 4
  mxlock-sim --seeds 1000..101000 --minutes 10 --keep-going --threads 2";

/// Simulates clusters of mxlock under faults and checks the invariants of DESIGN section 9.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// The seeds to run, from A up to but not including B.
    #[arg(long, value_name = "A..B", value_parser = seeds, default_value = "0..200")]
    seeds: (u64, u64),
    /// Runs this seed only.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Replays the seeds of this file: one per line, followed by its story; the first word may be N:MINUTES.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed"])]
    replay: Option<PathBuf>,
    /// Plays this scenario, or all `.scn` files of this directory.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["seeds", "seed", "replay"])]
    scenario: Option<PathBuf>,
    /// Looks for the smallest part of this seed or scenario that still fails in the same way, and prints it as a scenario.
    #[arg(long, value_name = "N|FILE", conflicts_with_all = ["seeds", "seed", "replay", "scenario"])]
    shrink: Option<String>,
    /// Measures how much time of a calm cluster of 5 nodes one core simulates in a second.
    #[arg(long, conflicts_with_all = ["seeds", "seed", "replay", "scenario", "shrink"])]
    speed: bool,
    /// Plays six short stories once for every K-th output of a core, after which its daemon dies.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..),
          conflicts_with_all = ["seeds", "seed", "replay", "scenario", "shrink", "speed"])]
    crash_points: Option<u64>,
    /// Simulated minutes of storm per seed.
    #[arg(long, value_name = "M", default_value_t = 10)]
    minutes: u64,
    /// Makes the storms be about one thing: ballots, handovers or overdue. Each seed in turn with `each`.
    #[arg(long, value_name = "WHAT", value_parser = about,
          conflicts_with_all = ["scenario", "crash_points", "replay", "speed"])]
    focus: Option<About>,
    /// Prints everything that happens; of a single seed or scenario.
    #[arg(long)]
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

/// What `--focus` asks for.
#[derive(Clone, Copy, Debug)]
enum About {
    One(Focus),
    Each,
}

impl About {
    fn of_seed(self, seed: u64) -> Focus {
        match self {
            About::One(focus) => focus,
            About::Each => Focus::ALL[(seed % Focus::ALL.len() as u64) as usize],
        }
    }
}

fn about(text: &str) -> Result<About, String> {
    let names = || Focus::ALL.iter().map(|focus| focus.name()).collect::<Vec<_>>().join(", ");
    match text {
        "each" => Ok(About::Each),
        _ => Focus::named(text).map(About::One).ok_or_else(|| format!("use one of {}, or each", names())),
    }
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

impl Args {
    /// All of a seed, as the storms are wanted.
    fn whole(&self, seed: u64, minutes: u64) -> Scenario {
        Scenario { focus: self.focus.map(|about| about.of_seed(seed)), ..Scenario::whole(seed, minutes) }
    }
}

/// A scenario, and how to see it again.
struct Job {
    scenario: Scenario,
    again: String,
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
    if args.speed {
        println!("{}", speed::measure(args.minutes * 60));
        return ExitCode::SUCCESS;
    }
    #[cfg(feature = "planted")]
    mxlock_dlm::planted::plant(args.plant);
    if let Some(what) = &args.shrink {
        let whole = match what.parse() {
            Ok(seed) => Ok(args.whole(seed, args.minutes)),
            Err(_) => read_scenario(Path::new(what)),
        };
        return whole.map_or_else(|message| wrong(&message), |whole| print_shrunk(&whole));
    }
    let jobs = match jobs(&args) {
        Ok(jobs) => jobs,
        Err(message) => return wrong(&message),
    };
    let began = Instant::now();
    let outcomes = run_all(&args, &jobs);
    summary(&args, &outcomes, began.elapsed().as_secs_f64())
}

fn wrong(message: &str) -> ExitCode {
    eprintln!("mxlock-sim: {message}");
    ExitCode::from(64)
}

fn read_scenario(file: &Path) -> Result<Scenario, String> {
    read(file)?.parse().map_err(|error| format!("{}: {error}", file.display()))
}

fn jobs(args: &Args) -> Result<Vec<Job>, String> {
    let of_seed = |seed, minutes| {
        let scenario = args.whole(seed, minutes);
        let focus = scenario.focus.map_or(String::new(), |focus| format!("--focus {} ", focus.name()));
        Job { scenario, again: format!("mxlock-sim {focus}--seed {seed} --minutes {minutes} --trace") }
    };
    let jobs: Vec<Job> = if let Some(every) = args.crash_points {
        let deaths = crash_points::deaths(every).into_iter();
        deaths.map(|(name, scenario)| Job { again: format!("{name}, as a scenario:\n{scenario}"), scenario }).collect()
    } else if let Some(file) = &args.replay {
        let list = mxlock_sim::run::regressions(&read(file)?)?;
        let again = |scenario: &Scenario| format!("as a scenario:\n{scenario}");
        list.into_iter().map(|scenario| Job { again: again(&scenario), scenario }).collect()
    } else if let Some(path) = &args.scenario {
        let mut files = vec![path.clone()];
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
            files = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            files.retain(|file| file.extension().is_some_and(|extension| extension == "scn"));
            files.sort();
        }
        let job = |file: PathBuf| {
            Ok(Job {
                scenario: read_scenario(&file)?,
                again: format!("mxlock-sim --scenario {} --trace", file.display()),
            })
        };
        files.into_iter().map(job).collect::<Result<_, String>>()?
    } else {
        let (from, to) = args.seed.map_or(args.seeds, |seed| (seed, seed + 1));
        (from..to).map(|seed| of_seed(seed, args.minutes)).collect()
    };
    if args.trace && jobs.len() != 1 {
        return Err("--trace is for a single seed or scenario".to_owned());
    }
    Ok(jobs)
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn print_shrunk(whole: &Scenario) -> ExitCode {
    match shrink::shrink(whole) {
        None => {
            eprintln!("mxlock-sim: seed {} does not fail", whole.seed);
            ExitCode::from(1)
        }
        Some(shrunk) => {
            println!("# {:?}: {}", shrunk.failure.rule, shrunk.failure.message);
            print!("{}", shrunk.scenario);
            eprintln!("{}", shrunk.story());
            ExitCode::SUCCESS
        }
    }
}

fn summary(args: &Args, outcomes: &[Outcome], took: f64) -> ExitCode {
    let mut total = Coverage::default();
    let mut failures = 0;
    for outcome in outcomes {
        total += outcome.coverage;
        failures += u64::from(outcome.failure.is_some());
    }
    let hours = total.simulated_s as f64 / 3_600.0;
    print!("{} seeds, {hours:.1} simulated hours in {took:.1} s\n{}", outcomes.len(), total.table());
    if let [outcome] = outcomes {
        println!("seed {}: trace hash {:016x}", outcome.seed, outcome.hash);
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

/// Says at once what a seed broke, and how to see it again.
fn report(outcome: &Outcome, job: &Job) {
    let (seed, Some(failure)) = (outcome.seed, &outcome.failure) else { return };
    println!(
        "seed {seed}: {:?} broken after {}.{:03} s: {}\n  reproduce: {}",
        failure.rule,
        failure.at / 1_000_000_000,
        failure.at / 1_000_000 % 1_000,
        failure.message,
        job.again,
    );
}

fn run_all(args: &Args, jobs: &[Job]) -> Vec<Outcome> {
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
                    let Some(job) = jobs.get(at).filter(|_| !stop) else { return };
                    let outcome = play(&job.scenario, args.trace);
                    report(&outcome, job);
                    failed.fetch_add(u64::from(outcome.failure.is_some()), Ordering::Relaxed);
                    outcomes.lock().expect("no thread panics here").push((at, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no thread panics here");
    outcomes.sort_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}
