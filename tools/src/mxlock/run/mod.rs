//! `mxlock run` and `mxlock adopt`: a command that runs while locks are held, and not a moment longer.

mod process;
mod status_fd;
mod watch;

use super::cli::{Adopt, Global, Run};
use super::connect::connect;
use super::file_id;
use crate::common::app::{Outcome, say};
use crate::common::failure::{Code, Failure, without_os_code};
use crate::common::names::{join_for_environment, resource};
use mxlock_client::{Client, ClientError, Event as ClientEvent, Lock, LockSpec, UNLOCK_OP};
use mxlock_format::{Resource, Token};
use mxlock_proto::client::Denial;
use nix::sys::signal::Signal;
use process::Family;
pub(super) use process::die_with_parent;
use status_fd::{Event, StatusFd};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};
use watch::{End, Watch};

/// Longest wait for the answers to releases.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// What is locked, with the name that COMMAND sees.
struct Target {
    resource: Resource,
    name: Vec<u8>,
}

/// `mxlock run`.
pub(super) fn run(global: &Global, run: &Run) -> Outcome {
    // Before anything else is opened.
    let status = StatusFd::take(run.status_fd)?;
    let refused = |_: &Failure| status.write(Event::NotGranted);
    let targets = targets(global, run).inspect_err(refused)?;
    let client = connect(global, None).inspect_err(refused)?;
    let started = Instant::now();
    let locks = acquire(&client, run, &targets).inspect_err(refused)?;
    if run.verbose {
        say("mxlock", &format!("getting the locks took {:.6} seconds", started.elapsed().as_secs_f64()));
    }
    // The first lock may have been lost while the last one was waited for.
    still_held(&locks).inspect_err(refused)?;
    hold(&client, locks, &targets, &Job { command: &run.command(), on_bast: run.on_bast, status: &status })
}

/// `mxlock adopt`.
pub(super) fn adopt(global: &Global, adopt: &Adopt) -> Outcome {
    let target =
        Target { resource: resource(global.namespace.as_deref(), &adopt.name)?, name: adopt.name.as_bytes().to_vec() };
    let client = connect(global, None)?;
    let locks = vec![client.adopt_range(&target.resource, adopt.range, adopt.mode)?];
    still_held(&locks)?;
    let status = StatusFd::take(None)?;
    hold(&client, locks, &[target], &Job { command: &adopt.command, on_bast: None, status: &status })
}

/// Everything that is to be locked, each thing once, in the one order that all commands take.
fn targets(global: &Global, run: &Run) -> Result<Vec<Target>, Failure> {
    let names = run.name.iter().map(|name| {
        Ok(Target { resource: resource(global.namespace.as_deref(), name)?, name: name.as_bytes().to_vec() })
    });
    let files = run
        .file
        .iter()
        .map(|path| Ok(Target { resource: file_id::resource(path)?, name: path.as_os_str().as_bytes().to_vec() }));
    in_order(names.chain(files).collect::<Result<_, Failure>>()?)
}

fn in_order(mut targets: Vec<Target>) -> Result<Vec<Target>, Failure> {
    targets.sort_by(|a, b| a.resource.cmp(&b.resource));
    targets.dedup_by(|a, b| a.resource == b.resource);
    Ok(targets)
}

/// Takes all locks; the time to wait is for all of them together.
fn acquire<'c>(client: &'c Client, run: &Run, targets: &[Target]) -> Result<Vec<Lock<'c>>, Failure> {
    let started = Instant::now();
    let mut locks = Vec::with_capacity(targets.len());
    for target in targets {
        let spec = LockSpec {
            mode: run.how.mode(),
            range: run.range,
            timeout: run.how.timeout().map(|all| all.saturating_sub(started.elapsed())),
            orphan_lifetime: run.orphan,
            persistent: run.persistent,
            ..LockSpec::new(target.resource.clone())
        };
        locks.push(client.lock(&spec).map_err(|error| not_granted(error, run.conflict_code))?);
    }
    Ok(locks)
}

/// Section 2: a promise is compared with the own clock before it is passed on.
fn still_held(locks: &[Lock<'_>]) -> Result<(), Failure> {
    match locks.iter().find(|lock| !lock.is_valid()) {
        None => Ok(()),
        Some(lost) => {
            let sentence = format!("the lock on '{}' was lost before COMMAND could start", lost.resource());
            Err(Failure::new(Code::NotNow, sentence))
        }
    }
}

/// A lock that somebody else holds is what `-E` speaks of; everything else has a code of its own.
fn not_granted(error: ClientError, conflict_code: u8) -> Failure {
    let conflict = matches!(
        error,
        ClientError::Denied { denial: Denial::Busy | Denial::TimedOut | Denial::Deadlock | Denial::Cancelled, .. }
    );
    let failure = Failure::from(error);
    if conflict { Failure { code: Code::No(conflict_code), ..failure } } else { failure }
}

/// What to run under the locks, and whom to tell.
struct Job<'a> {
    command: &'a [OsString],
    on_bast: Option<Signal>,
    status: &'a StatusFd,
}

/// Runs COMMAND while the locks are held.
fn hold(client: &Client, locks: Vec<Lock<'_>>, targets: &[Target], job: &Job<'_>) -> Outcome {
    job.status.write(Event::Granted);
    let token = locks.iter().map(Lock::token).max().unwrap_or(Token(0)).to_string();
    let names = join_for_environment(targets.iter().map(|target| target.name.as_slice()));
    let environment = [("MXLOCK_TOKEN", OsStr::new(&token)), ("MXLOCK_NAMES", names.as_os_str())];
    let family = match Family::start(job.command, &environment) {
        Ok(family) => family,
        Err(e) => {
            let failure = cannot_execute(&job.command[0], &e);
            job.status.write(Event::Exit(failure.code.number()));
            return Err(failure);
        }
    };
    match Watch::new(client, family, job.on_bast)?.until_the_end() {
        End::Command(code) => {
            // Released before the caller hears of the end, so that it finds the locks free.
            release(client, locks);
            job.status.write(Event::Exit(code));
            Ok(code)
        }
        End::Lost(reason) => {
            job.status.write(Event::Lost);
            Err(Failure::new(Code::NotNow, format!("{reason}; COMMAND is gone")))
        }
    }
}

/// Releases all locks and waits for the answers, but not longer than a caller may be kept waiting by a failover: with
/// this process the session ends, and its locks with it.
fn release(client: &Client, locks: Vec<Lock<'_>>) {
    let mut pending: Vec<u64> = locks.into_iter().map(Lock::keep).collect();
    pending.retain(|&seq| client.submit_unlock(seq, None).is_ok());
    let started = Instant::now();
    while !pending.is_empty() && client.is_connected() && started.elapsed() < RELEASE_PATIENCE {
        let Ok(events) = client.poll_events(Some(RELEASE_PATIENCE.saturating_sub(started.elapsed()))) else { return };
        for event in events {
            if let ClientEvent::Answer { seq, op: UNLOCK_OP, .. } | ClientEvent::Lost { seq, .. } = event {
                pending.retain(|&other| other != seq);
            }
        }
    }
}

/// As env(1) has it: 127 when there is no such command, 126 when it cannot be executed.
fn cannot_execute(command: &OsStr, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::NotFound => Code::CommandNotFound,
        _ => Code::CannotExecute,
    };
    let name = command.as_bytes().escape_ascii();
    Failure::new(code, format!("cannot execute '{name}': {}", without_os_code(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> Target {
        Target { resource: resource(None, OsStr::new(name)).unwrap(), name: name.as_bytes().to_vec() }
    }

    /// INTERFACE.md: several names are taken in one fixed order, so that two commands cannot deadlock on them; a name
    /// that is given twice is taken once, or a command would wait for itself.
    #[test]
    fn all_commands_take_names_in_one_order() {
        let order = |names: &[&str]| -> Vec<Vec<u8>> {
            let targets = in_order(names.iter().map(|name| target(name)).collect()).unwrap();
            targets.into_iter().map(|target| target.name).collect()
        };
        assert_eq!(order(&["a", "b", "c"]), order(&["c", "b", "a", "c"]));
        assert_eq!(order(&["a", "b", "c"]).len(), 3);
    }

    /// INTERFACE.md: `-E` is for a lock that is not granted, not for a daemon that is not there.
    #[test]
    fn the_conflict_code_is_only_for_conflicts() {
        let denied = |denial| ClientError::Denied { resource: target("a").resource, denial };
        for denial in [Denial::Busy, Denial::TimedOut, Denial::Deadlock] {
            assert_eq!(not_granted(denied(denial), 99).code.number(), 99);
        }
        assert_eq!(not_granted(denied(Denial::TableFull), 99).code, Code::NotNow);
        assert_eq!(not_granted(denied(Denial::Permission), 99).code, Code::Permission);
    }

    /// INTERFACE.md: COMMAND could not be executed is 126/127 as in env(1).
    #[test]
    fn commands_that_cannot_run() {
        let failure = |errno| cannot_execute(OsStr::new("x"), &io::Error::from_raw_os_error(errno));
        assert_eq!(failure(libc::ENOENT).code.number(), 127);
        assert_eq!(failure(libc::EACCES).code.number(), 126);
        assert_eq!(failure(libc::ENOEXEC).code.number(), 126);
        assert_eq!(failure(libc::EACCES).message, "cannot execute 'x': Permission denied");
    }
}
