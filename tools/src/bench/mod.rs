//! `mxlock-bench`: load against a running daemon.
//!
//! One thread drives any number of sessions over epoll and the plain frames of the client protocol, so that little of
//! the machine's time goes into the measuring side. A *pair* is an acquire and its release, each acknowledged by the
//! daemon, one after the other; `--pipeline` keeps several pairs of a session under way.

mod connection;
mod load;
mod report;
mod workload;

use crate::common::app::{self, Outcome, emit};
use crate::common::failure::{Code, Failure};
use clap::Parser;
use connection::Connection;
use mxlock_client::ConnectOptions;
use mxlock_proto::client::{AdminReply, AdminRequest};
use mxlock_proto::report::Counters;
use report::{Measured, Report};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use workload::Workload;

const EXAMPLES: &str = "\
EXAMPLES
  mxlock-bench --workload fresh                              64 clients, 10 seconds
  mxlock-bench --workload repeat --names 8 --json            for scripts
  mxlock-bench -S /run/mxlock/test/sock --clients 1          the latency of one client

WORKLOADS
  fresh        every acquire takes a name that was never used before
  repeat       each client cycles over --names names of its own
  contend      all clients on one name
  convert      each client converts a lock of its own from NL to EX and back
  read-mostly  all clients on --names names, nine times of ten PR, else EX";

/// Load against a running daemon
#[derive(Parser, Debug)]
#[command(name = "mxlock-bench", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Socket of the daemon, instead of $MXLOCK_SOCKET or the lockspace's own one
    #[arg(short = 'S', long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Lockspace whose daemon on this machine is asked
    #[arg(short = 'L', long, value_name = "NAME", default_value = mxlock_client::DEFAULT_LOCKSPACE)]
    lockspace: String,
    /// Sessions
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: u32,
    /// Threads that drive them
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// How long
    #[arg(long, value_name = "S", default_value = "10", value_parser = crate::common::names::parse_seconds)]
    seconds: Duration,
    /// What the clients do
    #[arg(long, value_enum, default_value_t = Workload::Fresh)]
    workload: Workload,
    /// Names: of each client with `repeat`, of all together with `read-mostly`
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    names: u32,
    /// Pairs that each client keeps under way
    #[arg(long, value_name = "P", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pipeline: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the program.
pub fn main() -> ExitCode {
    app::run(std::env::args_os(), command)
}

fn command(cli: Cli) -> Outcome {
    if cli.workload == Workload::Repeat && cli.pipeline > cli.names {
        let sentence =
            format!("--pipeline {} needs at least as many --names: a client would wait for itself", cli.pipeline);
        return Err(Failure::new(Code::Usage, sentence));
    }
    if cli.seconds.is_zero() {
        return Err(Failure::new(Code::Usage, "--seconds must be above 0"));
    }
    let options = ConnectOptions { socket: cli.socket.clone(), ..ConnectOptions::new(&cli.lockspace) };
    let mut control = Connection::open(&options)?;
    let before = counters(&mut control)?;
    let cpu_before = report::cpu_time(before.pid);
    let load = load::run(&load::Plan {
        options,
        workload: cli.workload,
        clients: cli.clients,
        threads: cli.threads.min(cli.clients),
        duration: cli.seconds,
        names: cli.names,
        pipeline: cli.pipeline,
    })?;
    let after = counters(&mut control)?;
    let cpu_after = report::cpu_time(after.pid);
    let report = Report::new(
        Measured { workload: cli.workload, clients: cli.clients, load },
        cpu_before.zip(cpu_after).map(|(before, after)| after.saturating_sub(before)),
        after.records_written.saturating_sub(before.records_written),
    );
    emit(&if cli.json { crate::common::json::document(&report) } else { report.to_string() })?;
    if report.pairs == 0 {
        return Err(Failure::new(Code::No(1), "not one lock was granted: see 'mxlock status'"));
    }
    Ok(0)
}

fn counters(control: &mut Connection) -> Result<Counters, Failure> {
    match control.ask(AdminRequest::Counters)? {
        AdminReply::Counters(counters) => Ok(counters),
        AdminReply::Failed { message, .. } => Err(Failure::new(Code::Unreachable, message)),
        _ => Err(Failure::new(Code::Unreachable, "the daemon gave another answer than its counters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_client_that_would_wait_for_itself_is_refused() {
        let cli = Cli::try_parse_from("mxlock-bench --workload repeat --names 2 --pipeline 3".split(' ')).unwrap();
        assert_eq!(command(cli).unwrap_err().code, Code::Usage);
        let cli = Cli::try_parse_from("mxlock-bench --seconds 0".split(' ')).unwrap();
        assert_eq!(command(cli).unwrap_err().code, Code::Usage);
        assert!(Cli::try_parse_from("mxlock-bench --workload nothing".split(' ')).is_err());
    }
}
