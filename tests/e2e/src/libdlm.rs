//! The C libraries, as programs find them, and C programs that are linked with them.

use crate::command::{clean, program};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// One of the two libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// `libdlm.so.3`.
    Threaded,
    /// `libdlm_lt.so.3`.
    Light,
}

/// A directory with both libraries, for `LD_LIBRARY_PATH`.
#[derive(Debug)]
pub struct Libraries(TempDir);

impl Libraries {
    /// Finds them where our programs are.
    ///
    /// # Panics
    /// When they are not there.
    pub fn new() -> Libraries {
        let directory = tempfile::Builder::new().prefix("mxlock-e2e-lib-").tempdir().expect("a directory");
        for name in ["dlm", "dlm_lt"] {
            let built = program(&format!("lib{name}.so"));
            let built = built.canonicalize().expect("it is there");
            for link in [format!("lib{name}.so"), format!("lib{name}.so.3")] {
                std::os::unix::fs::symlink(&built, directory.path().join(link)).expect("a link");
            }
        }
        Libraries(directory)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Compiles a C program of `dlm/capi/tests` and links it with a library.
    ///
    /// # Panics
    /// When the compiler refuses it.
    pub fn compile(&self, source: &str, library: Library) -> PathBuf {
        self.compile_all(&capi().join("tests"), &[source], library)
    }

    /// Compiles a C program of several files in `directory`, named after the first, and links it with a library.
    ///
    /// # Panics
    /// When the compiler refuses it.
    pub fn compile_all(&self, directory: &Path, sources: &[&str], library: Library) -> PathBuf {
        let (option, name) = match library {
            Library::Threaded => ("-pthread", "-ldlm"),
            Library::Light => ("-U_REENTRANT", "-ldlm_lt"),
        };
        let program = self.path().join(format!("{}{name}", sources[0]));
        let mut compiler = Command::new("cc");
        compiler.args(["-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror", option]);
        // A program may take the place of functions that the library calls.
        compiler.arg("-rdynamic").arg("-I").arg(capi().join("include"));
        compiler.args(sources.iter().map(|source| directory.join(source))).arg("-o").arg(&program);
        compiler.arg("-L").arg(self.path()).arg(name);
        crate::command::output(&mut compiler).ok();
        program
    }

    /// A command that finds the libraries, and the daemon at `socket`.
    pub fn command(&self, program: &Path, socket: &Path) -> Command {
        // It must not outlive a test process that was killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        clean(&mut command);
        command.env("LD_LIBRARY_PATH", self.path()).env("MXLOCK_SOCKET", socket);
        command
    }
}

fn capi() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dlm/capi")
}

impl Default for Libraries {
    fn default() -> Libraries {
        Libraries::new()
    }
}
