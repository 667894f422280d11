//! `mxlock`: run commands under locks, look at the cluster, administer it.

mod cli;
mod file_id;
mod report;
mod run;

use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
