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
        Err(error) => {
            let code = if error.use_stderr() { Kind::Usage.exit_code() } else { 0 };
            // Help and version go to stdout, which may be closed.
            let _ = error.print();
            return code.into();
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mxlockd: {failure}");
            failure.kind.exit_code().into()
        }
    }
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
