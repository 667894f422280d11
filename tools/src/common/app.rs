//! The frame around every program: arguments in, exit code out, man pages and completions.

use super::failure::{Code, Failure};
use clap::{Parser, error::ErrorKind};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Parses the arguments, runs the command, reports how it ended.
pub fn run<C: Parser>(arguments: impl IntoIterator<Item = OsString>, command: impl FnOnce(C) -> Outcome) -> ExitCode {
    let program = C::command().get_name().to_owned();
    let parsed = match C::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&program, &error),
    };
    match command(parsed) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            complain(&program, &failure);
            failure.code.into()
        }
    }
}

/// What a command returns: the exit code, or why it failed.
pub type Outcome = Result<u8, Failure>;

/// Prints a failure as one line on stderr; a silent one not at all.
pub fn complain(program: &str, failure: &Failure) {
    if !failure.message.is_empty() {
        say(program, &failure.message);
    }
}

/// Prints `program: message` on stderr. Nobody can be told when that fails.
pub fn say(program: &str, message: &str) {
    let _ = writeln!(std::io::stderr(), "{program}: {message}");
}

/// Help and version are answers; everything else is wrong usage: 64, not clap's own 2.
fn usage(program: &str, error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe is no error here either.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = write!(std::io::stderr(), "{text}");
        return Code::Usage.into();
    }
    say(program, &format!("{} (see '{program} --help')", one_sentence(&text)));
    Code::Usage.into()
}

/// What clap says before it explains: its first paragraph, in one line.
fn one_sentence(text: &str) -> String {
    let paragraph = text.strip_prefix("error: ").unwrap_or(text).lines().take_while(|line| !line.trim().is_empty());
    paragraph.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Writes a finished document to stdout. A reader that has gone away (`| head`) is no error.
pub fn emit(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::system("write to", "standard output", &e)),
        _ => Ok(()),
    }
}

/// A completion script for one shell.
pub fn completions(mut command: clap::Command, shell: clap_complete::Shell) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INTERFACE.md: errors are one sentence.
    #[test]
    fn usage_errors_are_one_sentence() {
        let text =
            "error: the following required arguments were not provided:\n  <COMMAND> [ARG]...\n\nUsage: x\n\nFor";
        assert_eq!(one_sentence(text), "the following required arguments were not provided: <COMMAND> [ARG]...");
    }
}
