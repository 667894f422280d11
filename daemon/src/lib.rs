//! The mxlock daemon: one per node and lockspace.
//!
//! `start` puts it together, `owner` is what runs. The lock manager itself is `mxlock_dlm::Core`; this crate carries
//! out what it wants (DESIGN section 2).

pub mod cli;
pub mod config;
pub mod error;

mod format_command;
mod host;
mod limits;
mod logging;
mod manual;
mod owner;
mod start;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use error::{Failure, Kind};
use std::process::ExitCode;

/// The program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mxlockd: {failure}");
            failure.kind.exit_code().into()
        }
    }
}

/// Help and version are answers; everything else is wrong usage: 64, not clap's own 2.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Standard output may be closed.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    eprintln!("mxlockd: {}", text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    Kind::Usage.exit_code().into()
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        None => start::run(&cli.run),
        Some(Command::Format(args)) => format_command::run(&args),
        Some(Command::CheckConfig { file }) => {
            print!("{}", start::describe(file)?);
            Ok(())
        }
        Some(Command::Man { directory }) => manual::write_pages(&directory),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "mxlockd", &mut std::io::stdout());
            Ok(())
        }
    }
}
