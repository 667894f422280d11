//! `mxlock-models`: explores the models, with all rules and without each.

use clap::Parser;
use mxlock_models::explore::Report;
use mxlock_models::{Rule, Scope, Size, Subject, subjects};
use std::process::ExitCode;

/// Explores the models of the protocol: with all their rules nothing may break, and without any one something must.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  mxlock-models\n  mxlock-models --list\n  mxlock-models views --without carry-view\n\n\
                  Exit codes: 0 as it should be, 1 not, 64 wrong usage."
)]
struct Args {
    /// The model; without it, all of them.
    model: Option<String>,
    /// Explores the large scopes as well.
    #[arg(long)]
    long: bool,
    /// Explores this scope only.
    #[arg(long, value_name = "SCOPE", requires = "model")]
    scope: Option<String>,
    /// Leaves out this rule and tells what breaks, step by step.
    #[arg(long, value_name = "RULE", requires = "model")]
    without: Option<String>,
    /// Lists models, scopes and rules.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match work(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("mxlock-models: {message}");
            ExitCode::from(64)
        }
    }
}

fn work(args: &Args) -> Result<bool, String> {
    let all = subjects();
    let chosen: Vec<_> =
        all.into_iter().filter(|subject| args.model.as_ref().is_none_or(|name| name == subject.name())).collect();
    if let (Some(name), []) = (&args.model, &chosen[..]) {
        let names: Vec<_> = all.iter().map(|subject| subject.name()).collect();
        return Err(format!("there is no model '{name}': there are {}", names.join(", ")));
    }
    let mut good = true;
    for subject in chosen {
        if args.list {
            list(subject);
        } else if let Some(name) = &args.without {
            good &= tell(subject, find_rule(subject, name)?, args.scope.as_deref())?;
        } else {
            good &= explore_all(subject, args)?;
        }
    }
    if !args.list {
        println!("{}", if good { "models: ok" } else { "models: FAILED" });
    }
    Ok(good)
}

fn list(subject: &dyn Subject) {
    println!("{}: {}", subject.name(), subject.about());
    for scope in subject.scopes() {
        println!(
            "  scope {:20} {}{}",
            scope.name,
            scope.bounds,
            if scope.size == Size::Small { "" } else { " (--long)" }
        );
    }
    for rule in subject.rules() {
        println!("  rule  {:20} {} [{}, {}]", rule.name, rule.text, rule.breaks, rule.scope);
    }
}

fn find_rule(subject: &dyn Subject, name: &str) -> Result<&'static Rule, String> {
    subject.rules().iter().find(|rule| rule.name == name).ok_or_else(|| {
        let names: Vec<_> = subject.rules().iter().map(|rule| rule.name).collect();
        format!("model {} has no rule '{name}': it has {}", subject.name(), names.join(", "))
    })
}

fn find_scope(subject: &dyn Subject, name: &str) -> Result<&'static Scope, String> {
    subject.scopes().iter().find(|scope| scope.name == name).ok_or_else(|| {
        let names: Vec<_> = subject.scopes().iter().map(|scope| scope.name).collect();
        format!("model {} has no scope '{name}': it has {}", subject.name(), names.join(", "))
    })
}

/// All scopes with all rules, then each rule left out.
fn explore_all(subject: &dyn Subject, args: &Args) -> Result<bool, String> {
    let only = args.scope.as_deref().map(|name| find_scope(subject, name)).transpose()?;
    println!("{}: {}", subject.name(), subject.about());
    let mut good = true;
    for scope in
        subject.scopes().iter().filter(|scope| only.map_or(scope.is_explored(args.long), |only| only == *scope))
    {
        let report = subject.check(scope, None);
        println!("  {:24} {}  ({})", scope.name, numbers(&report), scope.bounds);
        for outcome in report.outcomes.iter().filter(|outcome| !outcome.good) {
            print_outcome(outcome);
        }
        good &= report.is_good();
    }
    let runs =
        |rule: &&Rule| only.map_or(subject.scope(rule.scope).breaks_rules(args.long), |only| only.name == rule.scope);
    for rule in subject.rules().iter().filter(runs) {
        let report = subject.check(subject.scope(rule.scope), Some(rule));
        let way = report.outcome(rule.breaks).and_then(|outcome| outcome.way.as_ref());
        let what = match way {
            Some(way) => format!("breaks '{}' in {} steps", rule.breaks, way.len()),
            None => {
                let others = report.outcomes.iter().filter(|outcome| !outcome.good && outcome.way.is_some());
                let others: Vec<_> = others.map(|outcome| outcome.property).collect();
                format!("DOES NOT BREAK '{}', but {others:?}", rule.breaks)
            }
        };
        println!("  without {:16} {}  {what}", rule.name, numbers(&report));
        good &= way.is_some();
    }
    Ok(good)
}

/// One rule left out: what breaks, step by step.
fn tell(subject: &dyn Subject, rule: &Rule, scope: Option<&str>) -> Result<bool, String> {
    let scope = find_scope(subject, scope.unwrap_or(rule.scope))?;
    let report = subject.check(scope, Some(rule));
    println!("{}, {} ({}), without '{}': {}", subject.name(), scope.name, scope.bounds, rule.name, rule.text);
    println!("{}", numbers(&report));
    let outcome = report.outcome(rule.breaks).filter(|outcome| outcome.way.is_some());
    match outcome {
        Some(outcome) => print_outcome(outcome),
        None => println!("'{}' holds without it", rule.breaks),
    }
    Ok(outcome.is_some())
}

fn print_outcome(outcome: &mxlock_models::explore::Outcome) {
    let Some(way) = &outcome.way else {
        println!("  '{}' was never met", outcome.property);
        return;
    };
    println!("  '{}' is broken:", outcome.property);
    for (number, action) in way.iter().enumerate() {
        println!("    {:3}  {action}", number + 1);
    }
}

fn numbers(report: &Report) -> String {
    format!("{:>9} states, depth {:>3}, {:5.1} s", report.states, report.depth, report.took.as_secs_f64())
}
