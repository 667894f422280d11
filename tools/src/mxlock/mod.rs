//! `mxlock`: run commands under locks, look at the cluster, administer it.

mod admin;
mod cli;
mod connect;
mod demo;
pub(crate) mod file_id;
mod lock;
mod report;
mod run;

use crate::common::app::{self, Outcome, emit};
use crate::common::failure::{Code, Failure};
use crate::common::man;
use clap::CommandFactory;
use cli::{Cli, Command, Global};
use std::path::Path;
use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    app::run(std::env::args_os(), command)
}

fn command(cli: Cli) -> Outcome {
    let global = &cli.global;
    match &cli.command {
        Command::Run(_) | Command::Adopt(_) if global.json => {
            let sentence = "--json does not go with a command to run, whose output is its own: use --status-fd";
            Err(Failure::new(Code::Usage, sentence))
        }
        Command::Run(run) => run::run(global, run),
        Command::Adopt(adopt) => run::adopt(global, adopt),
        Command::Lock(lock) => lock::lock(global, lock),
        Command::Unlock(unlock) => lock::unlock(global, unlock),
        Command::Status { check } => admin::status(global, *check),
        Command::Nodes => admin::nodes(global),
        Command::Locks { name } => admin::locks(global, name.as_deref()),
        Command::Why { name, file } => admin::why(global, name.as_deref(), file.as_deref()),
        Command::Handover { node } => admin::handover(global, *node),
        Command::Leave { release } => admin::leave(global, *release),
        Command::FenceAck { node, yes } => admin::fence_ack(global, *node, *yes),
        Command::WaitReady { wait } => admin::wait_ready(global, *wait),
        Command::Demo(demo) => demo::demo(demo, global.json),
        Command::Man { directory } => man_pages(directory),
        Command::Completions { shell, program } => {
            emit(&app::completions(definition(program), *shell))?;
            Ok(0)
        }
    }
}

/// All programs that have a man page and completions.
const PROGRAMS: [&str; 4] = ["mxlock", "mxflock", "mxlock-inspect", "mxlock-bench"];

fn definition(program: &str) -> clap::Command {
    match program {
        "mxflock" => crate::mxflock::definition(),
        "mxlock-inspect" => crate::inspect::Cli::command(),
        "mxlock-bench" => crate::bench::Cli::command(),
        _ => Cli::command(),
    }
}

fn man_pages(directory: &Path) -> Outcome {
    for program in PROGRAMS {
        man::write_pages(definition(program), directory)?;
    }
    Ok(0)
}

/// An order was carried out: nothing to say, unless a script wants a document.
fn done(global: &Global) -> Outcome {
    if global.json {
        emit("{\n  \"done\": true\n}\n")?;
    }
    Ok(0)
}

/// The daemon answered another question than the one that was asked.
fn odd_reply() -> Failure {
    Failure::new(Code::Unreachable, "the daemon gave another answer than was asked for: use programs of one release")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn man_pages_and_completions_for_all_programs() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(man_pages(directory.path()), Ok(0));
        for page in
            ["mxlock.1", "mxlock-run.1", "mxlock-fence-ack.1", "mxflock.1", "mxlock-inspect.1", "mxlock-bench.1"]
        {
            let text = std::fs::read_to_string(directory.path().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
            assert!(text.contains("\n.SH EXAMPLES\n") && text.contains("\n.SH \"EXIT STATUS\"\n"), "{page}: {text}");
        }
        assert!(!directory.path().join("mxlock-man.1").exists(), "hidden");
        assert_eq!(man_pages(Path::new("/nonexistent/x")).unwrap_err().code, Code::CannotCreate);
        for program in PROGRAMS {
            let script = app::completions(definition(program), clap_complete::Shell::Bash);
            assert!(script.contains(&format!(" -o bashdefault -o default {program}\n")), "{script}");
        }
    }
}
