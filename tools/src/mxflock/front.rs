//! The front: what the user has started.
#![allow(unsafe_code)]

use super::arguments::{Request, Target, What};
use super::channel::{Word, hear};
use super::descriptor;
use super::keeper::{self, Orders};
use super::silent;
use crate::common::app::{Outcome, emit, say};
use crate::common::ending::descendants;
use crate::common::failure::{Code, Failure, without_os_code};
use crate::common::names::resource;
use crate::mxlock::file_id;
use mxlock_format::{Mode, QualifiedName, Resource};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, setsid};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Namespace of the names that are made of paths.
const NAMESPACE: &str = "flock";
/// Of a path that is too long for a name, this much of its end is kept.
const TAIL_BYTES: usize = 118;
/// Longest wait for the keeper of an earlier lock to end after its lock was removed.
const UNLOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Where the keeper's words come from.
type Keeper = BufReader<UnixStream>;

/// Does what was asked for; the exit code.
pub(super) fn lock(request: &Request) -> Outcome {
    match &request.target {
        Target::Descriptor(number) => {
            let held = descriptor::inherited(*number)?;
            lock_descriptor(request, held)
        }
        Target::File { path, command } => {
            let file = descriptor::open(path)?;
            lock_and_run(request, file, command)
        }
    }
}

/// `mxflock 9`: the lock belongs to the caller's open file description.
fn lock_descriptor(request: &Request, held: OwnedFd) -> Outcome {
    let before = descriptor::lock_of(held.as_fd());
    let kept = before.filter(|lock| descriptor::is_mxflock(lock.taker));
    if request.mode.is_some() && kept.map(|lock| lock.mode) == request.mode {
        // As flock(2) has it: what is held already needs nothing.
        return Ok(0);
    }
    if before.is_some() {
        // Another mode: flock(2) also removes the old lock before it asks for the new one. One of plain flock(1) would not
        // count as the keeper's.
        remove(held.as_fd(), kept.map(|lock| lock.taker))?;
    }
    if let Some(mode) = request.mode {
        take(request, mode, held, None)?;
    }
    Ok(0)
}

/// Removes the lock of a description, and waits until the keeper has released it in the cluster.
fn remove(held: BorrowedFd<'_>, keeper: Option<Pid>) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::system("unlock", "the file", &e);
    let ended = keeper.map(descriptor::watch_process).transpose().map_err(failed)?.flatten();
    descriptor::unflock(held).map_err(failed)?;
    let Some(ended) = ended else { return Ok(()) };
    descriptor::wake_keeper(held);
    let timeout = PollTimeout::try_from(UNLOCK_PATIENCE).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(ended.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(0) => Err(Failure::new(Code::NotNow, "the lock's release is not confirmed yet: see 'mxlock status'")),
        _ => Ok(()),
    }
}

/// `mxflock FILE COMMAND`.
fn lock_and_run(request: &Request, file: File, command: &[OsString]) -> Outcome {
    let mut token = None;
    let mut keeper = None;
    if let Some(mode) = request.mode {
        let descriptor = file.try_clone().map_err(|e| Failure::system("lock", "the file", &e))?.into();
        let (from, number) = take(request, mode, descriptor, (!request.no_fork).then(getpid))?;
        (keeper, token) = (Some(from), Some(number));
    }
    if request.verbose {
        emit(&format!("mxflock: executing {}\n", command[0].as_bytes().escape_ascii()))?;
    }
    let failed = |e: io::Error| cannot_execute(&command[0], &e);
    descriptor::inherit(&file, !request.close).map_err(failed)?;
    let mut prepared = Command::new(&command[0]);
    prepared.args(&command[1..]);
    if let Some(token) = token {
        prepared.env("MXLOCK_TOKEN", token.to_string());
    }
    if request.no_fork {
        return Err(failed(prepared.exec()));
    }
    // An inherited SIG_IGN would make the kernel throw the exit status away.
    // SAFETY: SIG_DFL installs no handler.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    let child = prepared.spawn().map_err(failed)?;
    let (outcome, keeper) = wait(child, keeper);
    // The last descriptor, unless COMMAND has left others running: then the lock is theirs.
    let taker = descriptor::lock_of(file.as_fd()).map(|lock| lock.taker);
    drop(file);
    if let (Some(mut keeper), Some(taker)) = (keeper, taker)
        && matches!(descriptor::stands(taker), Ok(false))
    {
        // Released before the caller hears of the end, so that it finds the lock free on all nodes.
        hear(&mut keeper);
    }
    outcome
}

/// Waits for COMMAND, and for what the keeper has to say meanwhile. Returns the keeper while it keeps the lock.
fn wait(mut child: Child, mut keeper: Option<Keeper>) -> (Outcome, Option<Keeper>) {
    let failed = |e: io::Error| Failure::system("wait for", "COMMAND", &e);
    let ended = match descriptor::watch_process(Pid::from_raw(child.id() as i32)) {
        Ok(ended) => ended,
        Err(e) => return (Err(failed(e)), keeper),
    };
    let mut lost = None;
    while let (Some(from), Some(ended)) = (&mut keeper, &ended) {
        let [mut ended, mut said] =
            [ended.as_fd(), from.get_ref().as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let mut both = [ended, said];
        if poll(&mut both, PollTimeout::NONE).is_err() {
            continue;
        }
        [ended, said] = both;
        // In this order: COMMAND ends because of what the keeper has said before.
        if said.any() != Some(false) {
            match hear(from) {
                Some(Word::Released) => {}
                None => lost = Some(end_all()),
                Some(word) => {
                    let failure = word.into_failure();
                    say("mxflock", &format!("{failure}: ending COMMAND"));
                    lost = Some(Failure::silent(failure.code));
                }
            }
            keeper = None;
        } else if ended.any() != Some(false) {
            break;
        }
    }
    let outcome = match (child.wait(), lost) {
        (_, Some(failure)) => Err(failure),
        (Ok(status), None) => Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) as u8),
        (Err(e), None) => Err(failed(e)),
    };
    (outcome, keeper)
}

/// The keeper was killed, and the lock went with it: there is no time for COMMAND to end by itself.
fn end_all() -> Failure {
    say("mxflock", "the process that keeps the lock is gone: killing COMMAND");
    for pid in descendants(getpid()) {
        let _ = kill(pid, Signal::SIGKILL);
    }
    Failure::silent(Code::NotNow)
}

/// Starts a keeper and waits until it holds the lock; what it says later, and the token.
fn take(request: &Request, mode: Mode, descriptor: OwnedFd, spared: Option<Pid>) -> Result<(Keeper, u64), Failure> {
    let resource = name_of(&request.what, descriptor.as_fd())?;
    let started = Instant::now();
    let mut keeper = start_keeper(request, mode, resource, descriptor, spared)?;
    match hear(&mut keeper) {
        Some(Word::Granted(token)) => {
            if request.verbose {
                let seconds = started.elapsed().as_secs_f64();
                emit(&format!("mxflock: getting lock took {seconds:.6} seconds\n"))?;
            }
            Ok((keeper, token))
        }
        Some(Word::Conflict { timed_out }) => {
            if request.verbose {
                let why = if timed_out { "timeout while waiting to get lock" } else { "failed to get lock" };
                say("mxflock", why);
            }
            Err(silent(request.conflict_code))
        }
        Some(word) => Err(word.into_failure()),
        None => Err(Failure::new(Code::Io, "the process that was to keep the lock is gone: nothing is locked")),
    }
}

/// The keeper belongs to no session, terminal or process group of the caller, and is no child of COMMAND.
fn start_keeper(
    request: &Request,
    mode: Mode,
    resource: Resource,
    descriptor: OwnedFd,
    spared: Option<Pid>,
) -> Result<Keeper, Failure> {
    let failed = |e: io::Error| Failure { code: Code::No(71), ..Failure::system("start", "the keeper", &e) };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    // SAFETY: this process has one thread, so the child may do all that it could do.
    match unsafe { fork() }.map_err(|e| failed(e.into()))? {
        ForkResult::Parent { child } => {
            // It ends at once.
            while waitpid(child, None) == Err(nix::Error::EINTR) {}
            Ok(BufReader::new(ours))
        }
        ForkResult::Child => {
            let _ = setsid();
            // SAFETY: as above.
            if let Ok(ForkResult::Child) = unsafe { fork() } {
                let kept = [descriptor.as_raw_fd(), theirs.as_raw_fd()];
                // SAFETY: what the front has opened is used by nobody here: this process ends below without going back.
                unsafe { descriptor::close_others(&kept) };
                detach();
                keeper::keep(Orders { request, mode, resource, descriptor, front: theirs, spared });
            }
            std::process::exit(0);
        }
    }
}

/// Leaves the caller's files and signals alone. What it says at a loss goes to standard error only where that is a file or a
/// terminal: who reads a pipe waits for its end.
fn detach() {
    let _ = std::env::set_current_dir("/");
    let stderr = std::fs::metadata("/proc/self/fd/2").map(|found| found.file_type());
    let keep_stderr = stderr.is_ok_and(|kind| kind.is_file() || kind.is_char_device());
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
        if !keep_stderr {
            let _ = nix::unistd::dup2_stderr(&null);
        }
    }
    for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGPIPE]
    {
        // SAFETY: SIG_IGN installs no handler.
        let _ = unsafe { signal(ignored, SigHandler::SigIgn) };
    }
}

/// What is locked.
fn name_of(what: &What, descriptor: BorrowedFd<'_>) -> Result<Resource, Failure> {
    match what {
        What::Name { namespace, name } => resource(namespace.as_deref(), name),
        What::Inode => file_id::resource(&Path::new("/proc/self/fd").join(descriptor.as_raw_fd().to_string())),
        What::Path { namespace } => {
            let path = descriptor::path_of(descriptor)?;
            let namespace = namespace.as_deref().unwrap_or(OsStr::new(NAMESPACE));
            let name = name_of_path(path.as_os_str().as_bytes());
            resource(Some(namespace), OsStr::from_bytes(&name))
        }
    }
}

/// The path itself; one that is too long for a name is its FNV-1a-64 in 16 hexadecimal digits, a colon, and its end.
fn name_of_path(path: &[u8]) -> Vec<u8> {
    if QualifiedName::new(b"", path).is_ok() {
        return path.to_vec();
    }
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(path);
    let mut name = format!("{:016x}:", hasher.finish()).into_bytes();
    name.extend(&path[path.len().saturating_sub(TAIL_BYTES)..]);
    name
}

/// flock(1)'s codes: 69, and 71 when memory is short.
fn cannot_execute(command: &OsStr, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::OutOfMemory { Code::No(71) } else { Code::Unreachable };
    let (name, reason) = (command.as_bytes().escape_ascii(), without_os_code(error));
    Failure::new(code, format!("failed to execute {name}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/mxflock.md: all programs come to the same name.
    #[test]
    fn names_of_paths() {
        assert_eq!(name_of_path(b"/var/lock/a"), b"/var/lock/a");
        let long = format!("/{}", "x".repeat(200));
        let name = name_of_path(long.as_bytes());
        assert_eq!(name.len(), 16 + 1 + TAIL_BYTES);
        assert_eq!(String::from_utf8(name).unwrap(), format!("fa6e14c171f200fe:{}", "x".repeat(TAIL_BYTES)));
        let other = name_of_path(format!("/y{}", "x".repeat(199)).as_bytes());
        assert!(other.ends_with(&long.as_bytes()[201 - TAIL_BYTES..]) && other != name_of_path(long.as_bytes()));
    }
}
