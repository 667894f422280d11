//! Running programs and judging what they said.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// What a program that has ended said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; 128 + N when signal N ended it.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// From a process that has ended.
    pub fn from_output(output: Output) -> Said {
        let status = output.status;
        Said {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It succeeded: its output.
    ///
    /// # Panics
    /// With what it said when it did not.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self.out
    }

    /// It refused with this code, and its last word is one sentence with `what` in it (INTERFACE.md: "one sentence that
    /// says what is wrong, where, and what to do; no backtrace, no Debug dump").
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn refused(&self, code: i32, what: &str) {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        let last = self.err.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("mxlock") || last.starts_with("mxflock"),
            "the last line does not say who speaks: {last:?}"
        );
        assert!(last.contains(what), "{what:?} is not in {last:?}");
        for dump in ["panicked", "RUST_BACKTRACE", "Error {", "Os {"] {
            assert!(!self.err.contains(dump), "a dump: {}", self.err);
        }
    }
}

/// Runs `program` and waits for its end.
///
/// # Panics
/// When it cannot be run.
#[track_caller]
pub fn run<I: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = I>) -> Said {
    output(Command::new(&program).args(args))
}

/// Runs a prepared command without input.
///
/// # Panics
/// When it cannot be run.
#[track_caller]
pub fn output(command: &mut Command) -> Said {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => Said::from_output(output),
        Err(error) => panic!("cannot run {command:?}: {error}"),
    }
}

/// One of our programs: in `$MXLOCK_BIN_DIR`, else where cargo puts the binaries of the profile that the tests have.
///
/// # Panics
/// When it is not there.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let directory = std::env::var_os("MXLOCK_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().expect("a process knows its program");
        test.ancestors().nth(2).expect("tests are in target/PROFILE/deps").to_owned()
    });
    let path = directory.join(name);
    assert!(path.is_file(), "{} is missing: run 'cargo build --bins' first, or set MXLOCK_BIN_DIR", path.display());
    path
}

/// A command for one of our programs, that does not depend on the environment of the tests.
#[track_caller]
pub fn ours(name: &str) -> Command {
    let mut command = Command::new(program(name));
    clean(&mut command);
    command
}

/// Takes away what our programs would read.
pub fn clean(command: &mut Command) {
    for variable in ["MXLOCK_SOCKET", "MXLOCK_LOG", "NOTIFY_SOCKET", "XDG_RUNTIME_DIR", "RUST_LOG"] {
        command.env_remove(variable);
    }
}
