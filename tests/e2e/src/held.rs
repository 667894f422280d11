//! `mxlock run` as users run it: a process that holds a lock until it is told to let go.

use crate::command::clean;
use crate::wait::{PATIENCE, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::NamedTempFile;

/// What COMMAND does: it says that it runs, under which token, with which process id; then it waits for its input to
/// end. `exec` leaves one process, which has that id.
const SCRIPT: &str = "echo \"$MXLOCK_TOKEN $$\"; exec cat >/dev/null";

/// A `mxlock run`. When it is dropped it is killed, and its COMMAND with it.
#[derive(Debug)]
pub struct Held {
    child: Child,
    out: NamedTempFile,
    errors: NamedTempFile,
}

impl Held {
    /// Starts `mxlock --socket SOCKET run ARGS -- COMMAND`.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn start(mxlock: &Path, socket: &Path, args: &[&str]) -> Held {
        let out = NamedTempFile::new().expect("a temporary file");
        let errors = NamedTempFile::new().expect("a temporary file");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(mxlock).arg("--socket").arg(socket).arg("run");
        command.args(args).args(["--", "sh", "-c", SCRIPT]);
        clean(&mut command);
        command.stdin(Stdio::piped());
        command.stdout(File::options().append(true).open(out.path()).expect("its output"));
        command.stderr(File::options().append(true).open(errors.path()).expect("its errors"));
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        Held { child, out, errors }
    }

    /// The token and COMMAND's process id, if COMMAND runs or has run.
    pub fn is_granted(&self) -> Option<(u64, Pid)> {
        let text = std::fs::read_to_string(self.out.path()).ok()?;
        let (token, pid) = text.strip_suffix('\n')?.split_once(' ')?;
        Some((token.parse().ok()?, Pid::from_raw(pid.parse().ok()?)))
    }

    /// Waits until COMMAND runs; the token.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn granted(&self) -> u64 {
        self.granted_within(PATIENCE)
    }

    /// Waits until COMMAND runs; the token.
    ///
    /// # Panics
    /// When it does not within `limit`.
    #[track_caller]
    pub fn granted_within(&self, limit: Duration) -> u64 {
        until("mxlock run is granted its lock", limit, || {
            let errors = self.errors();
            assert!(errors.is_empty(), "mxlock run failed: {errors}");
            self.is_granted().map(|(token, _)| token)
        })
    }

    /// COMMAND's process id.
    ///
    /// # Panics
    /// When it was not granted.
    pub fn command_pid(&self) -> Pid {
        self.is_granted().expect("it was granted").1
    }

    /// What it has said on standard error.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.errors.path()).unwrap_or_default()
    }

    /// Whether COMMAND still runs.
    pub fn command_runs(&self) -> bool {
        runs(self.command_pid())
    }

    /// Whether `mxlock run` itself has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Lets COMMAND end, and waits for mxlock to have released the lock; the exit code.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn release(mut self) -> i32 {
        self.let_go();
        self.end()
    }

    /// Lets COMMAND end.
    pub fn let_go(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Kills `mxlock run`.
    ///
    /// # Panics
    /// When it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        let _ = self.child.wait();
    }

    /// Waits for the end; the exit code, 128 + N after signal N.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let status = until("mxlock run ends", PATIENCE, || self.child.try_wait().expect("a child can be waited for"));
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- a mxlock run said: {}", self.errors());
        }
    }
}

/// Whether a process runs: it exists and is not a zombie.
pub fn runs(pid: Pid) -> bool {
    if kill(pid, None::<Signal>).is_err() {
        return false;
    }
    let mut stat = String::new();
    let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read_to_string(&mut stat));
    read.is_ok() && stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
