//! The arguments of `mxlock`.

use crate::common::names::{parse_range, parse_seconds};
use crate::common::signals;
use crate::inspect::parse_node;
use clap::{Args, Parser, Subcommand};
use mxlock_format::{ByteRange, Mode, NodeId};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
EXAMPLES
  mxlock run backup -- backup.sh             run backup.sh while holding 'backup' on the whole cluster
  mxlock run -n nightly -- nightly.sh        exit with 1 at once if it is held
  mxlock locks backup                        who holds it, who waits
  mxlock why backup                          what it waits for, over all nodes
  mxlock status                              the node, its cluster, what is blocked
  mxlock demo                                see it work on this machine";

/// Locks for machines that share a disk
#[derive(Parser, Debug)]
#[command(name = "mxlock", version, propagate_version = true, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of all commands.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Lockspace whose daemon on this machine is asked
    #[arg(short = 'L', long, global = true, value_name = "NAME")]
    pub(crate) lockspace: Option<String>,
    /// Socket of the daemon, instead of $MXLOCK_SOCKET or the lockspace's own one
    #[arg(short = 'S', long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Namespace of the names; a name itself is taken whole
    #[arg(short = 'N', long, global = true, value_name = "NS")]
    pub(crate) namespace: Option<OsString>,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a command while holding locks
    Run(Run),
    /// Take a lock for a process, by default the calling shell, and return
    Lock(Lock),
    /// Release a lock that was taken with `mxlock lock`
    Unlock(Unlock),
    /// The node, its lockspace and view, its lease, what is blocked
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        /// Only the exit code and what is wrong: 0 when locks are granted, 75 when not
        #[arg(long)]
        check: bool,
    },
    /// The node slots in use
    #[command(after_help = "EXAMPLES\n  mxlock nodes\n  mxlock --json nodes | jq '.nodes[] | select(.member) | .host'")]
    Nodes,
    /// Locks: granted, converting and waiting
    #[command(after_help = "EXAMPLES\n  mxlock locks\n  mxlock locks backup\n  mxlock -N db --json locks orders")]
    Locks {
        /// Only those on this name
        name: Option<OsString>,
    },
    /// Who holds a lock, who waits for it and behind whom, and what would end that
    #[command(after_help = WHY_EXAMPLES)]
    Why {
        /// What is waited for
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        name: Option<OsString>,
        /// A file or directory that was locked with `run --file`
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
    /// Move mastership to another node
    #[command(after_help = "EXAMPLES\n  mxlock handover\n  mxlock handover 2")]
    Handover {
        /// The preferred new master, 0 to 63
        #[arg(value_name = "NODE", value_parser = parse_node)]
        node: Option<NodeId>,
    },
    /// Leave the cluster for good; refused while locks are held
    #[command(after_help = "EXAMPLES\n  mxlock leave\n  mxlock leave --release")]
    Leave {
        /// Release this node's locks instead of refusing
        #[arg(long)]
        release: bool,
    },
    /// Take over an orphaned lock and run a command while holding it
    Adopt(Adopt),
    /// Vouch that a node is switched off, so that its locks can be given away
    #[command(after_help = "EXAMPLES\n  mxlock fence-ack 3 --yes")]
    FenceAck {
        /// The node, 0 to 63
        #[arg(value_name = "NODE", value_parser = parse_node)]
        node: NodeId,
        /// Needed: if the node still runs, two owners of one lock are possible
        #[arg(long)]
        yes: bool,
    },
    /// Wait until the daemon grants locks
    #[command(after_help = "EXAMPLES\n  mxlock wait-ready\n  mxlock wait-ready -w 30 || journalctl -u mxlockd")]
    WaitReady {
        /// Give up after this time with exit code 75
        #[arg(short = 'w', long = "wait", value_name = "SECONDS", value_parser = parse_seconds)]
        wait: Option<Duration>,
    },
    /// A three-node cluster on this machine, shown working and failing over
    Demo(Demo),
    /// Write the man pages of mxlock, mxflock, mxlock-inspect and mxlock-bench into a directory
    #[command(hide = true)]
    Man {
        /// An existing directory
        directory: PathBuf,
    },
    /// Print the shell completions of mxlock, mxflock, mxlock-inspect or mxlock-bench
    #[command(hide = true)]
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
        /// Of which program
        #[arg(default_value = "mxlock", value_parser = super::PROGRAMS)]
        program: String,
    },
}

const WHY_EXAMPLES: &str = "\
The chain goes on over other locks that the holders wait for, on all nodes. Deadlocks are broken when they close; a \
cycle that is shown is one that a flag of a request (NODLCKWT, NODLCKBLK) keeps from counting.

The exit code is 1 when nobody holds or waits for it.

EXAMPLES
  mxlock why backup
  mxlock why --file /shared/data.db
  mxlock --json why backup | jq '.locks[] | select(.state == \"granted\") | .command'";

const STATUS_EXAMPLES: &str = "\
EXAMPLES
  mxlock status
  mxlock status --check && mxlock run job -- job.sh";

/// How a lock is asked for.
#[derive(Args, Debug)]
#[group(skip)]
pub(crate) struct HowToLock {
    /// Mode: NL, CR, CW, PR (shared), PW or EX (exclusive)
    #[arg(short, long, value_name = "MODE", default_value_t = Mode::EX, conflicts_with_all = ["shared", "exclusive"])]
    mode: Mode,
    /// Shared: mode PR
    #[arg(short, long, conflicts_with = "exclusive")]
    shared: bool,
    /// Exclusive: mode EX, the default
    #[arg(short = 'x', visible_short_alias = 'e', long)]
    exclusive: bool,
    /// Fail at once if it is held in a conflicting mode
    #[arg(short, long, visible_aliases = ["nb", "nonblocking"], conflicts_with = "wait")]
    pub(crate) nonblock: bool,
    /// Fail if it is not granted within this time
    #[arg(short = 'w', long, visible_alias = "timeout", value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) wait: Option<Duration>,
}

impl HowToLock {
    /// The mode that the options give.
    pub(crate) fn mode(&self) -> Mode {
        if self.shared { Mode::PR } else { self.mode }
    }

    /// How long to wait: `None` for ever, zero not at all.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        if self.nonblock { Some(Duration::ZERO) } else { self.wait }
    }
}

const RUN_HELP: &str = "\
COMMAND runs in mxlock's process group and terminal, as with flock(1). Its exit status is passed through, 128+N when \
signal N ended it. SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 sent to mxlock are passed on to it. The locks \
are released when COMMAND ends, also if it left others running.

If a lock is lost, or the daemon is gone past the lease's deadline, COMMAND and all its descendants get SIGTERM, and \
SIGKILL within the grace time; mxlock then exits with 75. COMMAND is killed as well if mxlock itself is; what it \
started is then not.

ENVIRONMENT OF COMMAND
  MXLOCK_TOKEN  the highest fencing token: for storage that can check it
  MXLOCK_NAMES  the names with a colon between two; a colon or backslash
                within a name has a backslash before it

EXAMPLES
  mxlock run backup -- backup.sh
  mxlock run -s -w 2.5 config -- cat /shared/config
  mxlock run -n -E 99 nightly -- nightly.sh
  mxlock run nightly -c 'nightly.sh | logger'
  mxlock run --file /shared/data.db -- sqlite3 /shared/data.db
  mxlock run --range 0-4095 image -- dd if=block of=image conv=notrunc
  mxlock run --on-bast USR1 cache -- cache-server";

/// `mxlock run`.
#[derive(Args, Debug)]
#[command(after_help = RUN_HELP)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) how: HowToLock,
    /// Exit code when the lock is not granted
    #[arg(short = 'E', long = "conflict-exit-code", value_name = "CODE", default_value_t = 1)]
    pub(crate) conflict_code: u8,
    /// Lock only these bytes of the resources, both ends inclusive; `A-` has no end
    #[arg(long, value_name = "A-B", value_parser = parse_range)]
    pub(crate) range: Option<ByteRange>,
    /// Lock a file or directory itself, by its file system's UUID and its inode number
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Vec<PathBuf>,
    /// Keep the locks this long as orphans, for `mxlock adopt`, if mxlock dies
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) orphan: Option<Duration>,
    /// Keep the locks as orphans even when this machine dies
    #[arg(long)]
    pub(crate) persistent: bool,
    /// Send COMMAND this signal when somebody waits for a lock that it blocks
    #[arg(long, value_name = "SIGNAL", value_parser = signals::parse)]
    pub(crate) on_bast: Option<Signal>,
    /// Write `granted`, `not-granted`, `lost` or `exit N` to this open descriptor, a line each
    #[arg(long, value_name = "N")]
    pub(crate) status_fd: Option<u32>,
    /// Say how long it took to get the locks
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Run this line with $SHELL, or /bin/sh
    #[arg(short = 'c', long = "command", value_name = "LINE", conflicts_with = "command")]
    line: Option<OsString>,
    /// What to lock; several names are taken in one fixed order
    #[arg(required_unless_present = "file")]
    pub(crate) name: Vec<OsString>,
    /// What to run
    #[arg(last = true, required_unless_present = "line", value_names = ["COMMAND", "ARG"])]
    command: Vec<OsString>,
}

impl Run {
    /// What to run, with its arguments.
    pub(crate) fn command(&self) -> Vec<OsString> {
        let Some(line) = &self.line else { return self.command.clone() };
        let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
        vec![shell.unwrap_or_else(|| "/bin/sh".into()), "-c".into(), line.clone()]
    }
}

const LOCK_HELP: &str = "\
The lock is held until the process ends or `mxlock unlock` releases it. If the node loses its lease, nothing ends the \
process: use `mxlock run` for commands that must not go on then.

EXAMPLES
  mxlock lock backup && backup.sh; mxlock unlock backup
  mxlock lock -w 10 backup --pid 4242";

/// `mxlock lock`.
#[derive(Args, Debug)]
#[command(after_help = LOCK_HELP)]
pub(crate) struct Lock {
    /// What to lock
    pub(crate) name: OsString,
    #[command(flatten)]
    pub(crate) how: HowToLock,
    /// The process that holds the lock [default: the calling one]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pub(crate) pid: Option<u32>,
}

/// `mxlock unlock`.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES\n  mxlock unlock backup\n  mxlock unlock backup --pid 4242")]
pub(crate) struct Unlock {
    /// What to release
    pub(crate) name: OsString,
    /// The process that holds the lock [default: the calling one]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pub(crate) pid: Option<u32>,
}

const ADOPT_HELP: &str = "\
The orphan must be of your own user, or you must be root. COMMAND runs as under `mxlock run`.

EXAMPLES
  mxlock adopt backup -- backup.sh --resume
  mxlock adopt -m PR config -- cat /shared/config
  mxlock adopt --range 0-4095 image -- repair image";

/// `mxlock adopt`.
#[derive(Args, Debug)]
#[command(after_help = ADOPT_HELP)]
pub(crate) struct Adopt {
    /// The lock's name
    pub(crate) name: OsString,
    /// The mode that the orphan holds
    #[arg(short, long, value_name = "MODE", default_value_t = Mode::EX)]
    pub(crate) mode: Mode,
    /// The bytes that the orphan holds, both ends inclusive; `A-` has no end [default: all]
    #[arg(long, value_name = "A-B", value_parser = parse_range)]
    pub(crate) range: Option<ByteRange>,
    /// What to run
    #[arg(last = true, required = true, value_names = ["COMMAND", "ARG"])]
    pub(crate) command: Vec<OsString>,
}

const DEMO_HELP: &str = "\
Three daemons share a lockstate in a temporary directory, or on the file system that --lockstate-dir names. Locks are \
taken on all three, the master is killed with SIGKILL, and the time until the next one grants locks is measured. The \
inspector and a counter that is incremented under a lock check the result. No root needed.

EXAMPLES
  mxlock demo
  mxlock demo --lockstate-dir /mnt/xfs
  mxlock demo --renew-ms 2000                the default timing of a real cluster";

/// `mxlock demo`.
#[derive(Args, Debug)]
#[command(after_help = DEMO_HELP)]
pub(crate) struct Demo {
    /// Where to create the lockstate, on any file system with direct I/O [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) lockstate_dir: Option<PathBuf>,
    /// Heartbeat interval; lease, grace and dead time are in the proportion of profile `fast`
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(50..=60_000))]
    pub(crate) renew_ms: u32,
    /// Where the programs are [default: beside this one, then $PATH]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// Keep the temporary directory with lockstate, configuration and logs
    #[arg(long)]
    pub(crate) keep: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("mxlock").chain(line.split_whitespace()))
    }

    fn run(line: &str) -> Run {
        match parse(line).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    /// INTERFACE.md: flock(1)'s short options.
    #[test]
    fn run_understands_the_synopsis() {
        let run = run("run -s -w 2.5 -E 99 --range 0-9 --file /etc --orphan 30 --persistent --on-bast USR1 \
                       --status-fd 3 a b -- cmd -x --y");
        assert_eq!(run.how.mode(), Mode::PR);
        assert_eq!(run.how.timeout(), Some(Duration::from_millis(2_500)));
        assert_eq!((run.conflict_code, run.status_fd, run.persistent), (99, Some(3), true));
        assert_eq!(run.range, ByteRange::new(0, 9));
        assert_eq!(run.orphan, Some(Duration::from_secs(30)));
        assert_eq!(run.on_bast, Some(Signal::SIGUSR1));
        assert_eq!(run.name, ["a", "b"]);
        assert_eq!(run.command(), ["cmd", "-x", "--y"]);
    }

    #[test]
    fn modes() {
        assert_eq!(run("run a -- c").how.mode(), Mode::EX);
        assert_eq!(run("run -x a -- c").how.mode(), Mode::EX);
        assert_eq!(run("run -m cw a -- c").how.mode(), Mode::CW);
        assert_eq!(run("run -n a -- c").how.timeout(), Some(Duration::ZERO));
        assert_eq!(run("run a -- c").how.timeout(), None);
        for wrong in ["run -m XX a -- c", "run -s -x a -- c", "run -m PR -s a -- c", "run -n -w 1 a -- c"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    /// flock(1)'s other words for the same, and its way to give a line for the shell.
    #[test]
    fn run_understands_what_flock_does() {
        for line in ["run --nb a -- c", "run --nonblocking a -- c"] {
            assert_eq!(run(line).how.timeout(), Some(Duration::ZERO), "{line}");
        }
        assert_eq!(run("run --timeout 2 -e a -- c").how.timeout(), Some(Duration::from_secs(2)));
        let line = run("run a b -c word --verbose");
        assert_eq!((line.name.len(), line.verbose), (2, true));
        assert_eq!(line.command()[1..], ["-c", "word"]);
        assert!(parse("run a -c word -- c").is_err());
        assert!(parse("run -e -s a -- c").is_err());
    }

    #[test]
    fn run_needs_something_to_lock_and_something_to_run() {
        assert_eq!(parse("run a").unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
        assert_eq!(parse("run -- c").unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
        assert!(parse("run --file /etc -- c").is_ok());
        assert!(parse("run -E 256 a -- c").is_err());
    }

    #[test]
    fn global_options_stand_anywhere() {
        let cli = parse("status -L a -S /s --json --check").unwrap();
        assert_eq!(cli.global.lockspace.as_deref(), Some("a"));
        assert!(cli.global.json);
        assert!(matches!(cli.command, Command::Status { check: true }));
        assert!(parse("-N db locks orders").is_ok());
    }

    #[test]
    fn nodes_and_pids_are_checked() {
        assert!(parse("handover").is_ok() && parse("handover 63").is_ok());
        for wrong in
            ["handover 64", "handover x", "fence-ack", "lock a --pid 0", "unlock a --pid -1", "wait-ready -w x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    /// Every command has its help with examples.
    #[test]
    fn every_command_has_examples() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("EXAMPLES\n"), "{}", command.get_name());
        }
    }
}
