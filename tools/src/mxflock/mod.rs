//! `mxflock`: flock(1) for all machines that share a disk.
//!
//! ```text
//! mxflock (the front)  parses, opens FILE, starts the keeper, waits for its word, runs COMMAND or ends
//!   `- the keeper      takes the lock, then a flock(2) lock on the same open file description, and keeps the lock for as
//!                      long as that stands: until the last descriptor is closed, in whatever process
//! ```
//!
//! docs/mxflock.md says what is the same as with flock(1) and what cannot be.

mod arguments;
mod channel;
mod descriptor;
mod front;
mod keeper;
mod options;
mod presence;

use crate::common::app::{complain, emit};
use crate::common::failure::Failure;
use arguments::Arguments;
pub(crate) use options::definition;
use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    // The caller's descriptors are looked at before anything else is opened.
    let outcome =
        arguments::parse(std::env::args_os().skip(1), std::env::var_os("SHELL")).and_then(|given| match given {
            Arguments::Help => emit(&definition().render_help().to_string()).map(|()| 0),
            Arguments::Version => emit(&definition().render_version()).map(|()| 0),
            Arguments::Lock(request) => front::lock(&request),
        });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            complain("mxflock", &failure);
            failure.code.into()
        }
    }
}

/// A conflict, which flock(1) tells by its exit code alone.
fn silent(code: u8) -> Failure {
    Failure::silent(crate::common::failure::Code::No(code))
}
