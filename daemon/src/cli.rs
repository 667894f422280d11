//! The command line of `mxlockd` (INTERFACE.md, "mxlockd — the daemon").

use crate::config::{Advertise, IoChoice, NodeWish};
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

const EXAMPLES: &str = "\
EXAMPLES
  mxlockd format /mnt/shared                        make <mount>/.mxfs/lockstate
  mxlockd --lockstate /mnt/shared                   run this host's daemon on it
  mxlockd --lockspace build --config /etc/mxlock/build.toml
  mxlockd --lockstate ./lockstate --create          try it on this machine alone

EXIT STATUS
  0       stopped as asked
  64      wrong usage
  65      the lockstate is not one, is damaged, or belongs to another lockspace
  73, 74  cannot create; I/O error
  75      not now: another process has it
  77      permission
  78      configuration";

const FORMAT_EXAMPLES: &str = "\
EXAMPLES
  mxlockd format /mnt/shared                        a mount point: makes <mount>/.mxfs/lockstate
  mxlockd format /dev/vg0/mxlock --profile san      a whole block device, timing for slow path failover
  mxlockd format /mnt/shared --slots 1048576        room for a million locks";

/// mxlock daemon: one per node and lockspace.
#[derive(Parser, Debug)]
#[command(name = "mxlockd", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of running the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run it.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What `mxlockd` does besides running.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a lockstate: on a file system, or on a whole block device
    #[command(after_help = FORMAT_EXAMPLES)]
    Format(FormatArgs),
    /// Say whether a configuration file is right, and what it amounts to
    CheckConfig {
        /// The file
        file: PathBuf,
    },
    /// Write the man pages of mxlockd and mxlock.toml into a directory
    #[command(hide = true)]
    Man {
        /// An existing directory
        directory: PathBuf,
    },
    /// Print the shell completions of mxlockd
    #[command(hide = true)]
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Flags of the daemon; each overrides the key of that name in the configuration file.
#[derive(Args, Debug, Default)]
pub struct RunArgs {
    /// Configuration file [default: /etc/mxlock/NAME.toml, or $XDG_CONFIG_HOME/mxlock/NAME.toml when not root]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of the lockspace [default: default]
    #[arg(long, value_name = "NAME")]
    pub lockspace: Option<String>,
    #[allow(rustdoc::invalid_html_tags)] // it is a help text, not HTML
    /// The lockstate: a file, a block device, or a mount point, which means <mount>/.mxfs/lockstate
    #[arg(long, value_name = "PATH")]
    pub lockstate: Option<PathBuf>,
    /// Make the lockstate if it does not exist; only for a plain file that no other host can share
    #[arg(long)]
    pub create: bool,
    /// The node's slot, 0..63 [default: auto: the one used before, else a free one]
    #[arg(long, value_name = "N|auto")]
    pub node: Option<NodeWish>,
    /// Where peers connect [default: 0.0.0.0:7600, another port when it is taken]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Address to tell the peers; up to three times [default: all addresses of this host that are not loopback]
    #[arg(long, value_name = "IP:PORT")]
    pub advertise: Vec<Advertise>,
    /// Where clients connect [default: /run/mxlock/NAME/sock, or $XDG_RUNTIME_DIR/mxlock/NAME/sock when not root]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// State directory [default: /var/lib/mxlock/NAME, or $XDG_STATE_HOME/mxlock/NAME when not root]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// What to log: off, error, warn, info, debug, trace, or tracing's filter syntax [default: info] [env: MXLOCK_LOG]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How to do I/O [default: uring, and pwrite where the kernel forbids io_uring]
    #[arg(long, value_enum, value_name = "uring|pwrite")]
    pub io: Option<IoChoice>,
    /// Accept a lockstate with another uuid than the one that this daemon used before
    #[arg(long)]
    pub accept_new_lockstate: bool,
}

/// Flags of `mxlockd format`.
#[derive(Args, Debug)]
pub struct FormatArgs {
    /// A file, a whole block device or partition, or a mount point
    pub path: PathBuf,
    /// Name of the lockspace
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub lockspace: String,
    /// Number of lock-record slots, 64..16777216
    #[arg(long, value_name = "N", default_value_t = mxlock_format::DEFAULT_SLOT_COUNT,
          value_parser = clap::value_parser!(u32).range(mxlock_format::MIN_SLOT_COUNT as i64..=mxlock_format::MAX_SLOT_COUNT as i64))]
    pub slots: u32,
    /// Bytes of a sector, 512 or 4096 [default: what the device needs]
    #[arg(long, value_name = "512|4096", value_parser = parse_sector)]
    pub sector: Option<mxlock_format::SectorSize>,
    /// Timing: fast (2 s renew, 8 s lease, 3 s grace, 15 s dead) or san (5, 30, 10, 50 s)
    #[arg(long, value_enum, default_value = "fast")]
    pub profile: Profile,
    /// How often a node renews its lease, milliseconds [default: the profile's]
    #[arg(long, value_name = "MS")]
    pub renew_ms: Option<u32>,
    /// How long a lease lasts, milliseconds [default: the profile's]
    #[arg(long, value_name = "MS")]
    pub lease_ms: Option<u32>,
    /// How long what depends on a lost lock may take to end, milliseconds [default: the profile's]
    #[arg(long, value_name = "MS")]
    pub grace_ms: Option<u32>,
    /// Silence after which a node is dead, milliseconds; at least 1.05 (lease + grace + renew) [default: the profile's]
    #[arg(long, value_name = "MS")]
    pub dead_ms: Option<u32>,
    /// Overwrite whatever is there, on whatever file system
    #[arg(long)]
    pub force: bool,
}

/// A named timing (DESIGN section 5).
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Profile {
    Fast,
    San,
}

impl FormatArgs {
    /// The profile's timing with what the flags change; the suspect time follows lease and grace. Not yet checked.
    pub fn timing(&self) -> mxlock_format::Timing {
        let base = match self.profile {
            Profile::Fast => mxlock_format::Timing::FAST,
            Profile::San => mxlock_format::Timing::SAN,
        };
        let lease_ms = self.lease_ms.unwrap_or(base.lease_ms);
        let grace_ms = self.grace_ms.unwrap_or(base.grace_ms);
        mxlock_format::Timing {
            renew_ms: self.renew_ms.unwrap_or(base.renew_ms),
            lease_ms,
            grace_ms,
            dead_ms: self.dead_ms.unwrap_or(base.dead_ms),
            suspect_ms: lease_ms.saturating_add(grace_ms),
        }
    }
}

fn parse_sector(text: &str) -> Result<mxlock_format::SectorSize, String> {
    text.parse().ok().and_then(mxlock_format::SectorSize::from_bytes).ok_or_else(|| "it is 512 or 4096".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Section 5: the profiles, and flags over them.
    #[test]
    fn timing_is_the_profile_with_changes() {
        let parse = |args: &[&str]| match Cli::try_parse_from(args).unwrap().command {
            Some(Command::Format(args)) => args.timing(),
            other => panic!("{other:?}"),
        };
        assert_eq!(parse(&["mxlockd", "format", "x"]), mxlock_format::Timing::FAST);
        assert_eq!(parse(&["mxlockd", "format", "x", "--profile", "san"]), mxlock_format::Timing::SAN);
        let short = parse(&["mxlockd", "format", "x", "--lease-ms", "800", "--grace-ms", "300"]);
        assert_eq!((short.lease_ms, short.suspect_ms, short.renew_ms), (800, 1_100, 2_000));
    }
}
