//! The options of `mxflock`: one table for the parser, `--help`, the man page and the completions.

use clap::{Arg, ArgAction, Command};

/// What an option means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    Shared,
    Exclusive,
    Unlock,
    Nonblock,
    Timeout,
    ConflictCode,
    Close,
    NoFork,
    Verbose,
    Lockspace,
    Socket,
    Namespace,
    Name,
    Inode,
    Help,
    Version,
}

/// One option.
pub(super) struct Definition {
    pub(super) meaning: Meaning,
    pub(super) short: &'static [u8],
    /// The first is shown in the help.
    pub(super) long: &'static [&'static str],
    /// The name of its value, if it takes one.
    pub(super) value: Option<&'static str>,
    /// Not one of flock(1): it cannot be abbreviated, so that flock(1)'s abbreviations mean the same here.
    pub(super) own: bool,
    help: &'static str,
}

const fn flocks(
    meaning: Meaning,
    short: &'static [u8],
    long: &'static [&'static str],
    value: Option<&'static str>,
    help: &'static str,
) -> Definition {
    Definition { meaning, short, long, value, own: false, help }
}

const fn own(
    meaning: Meaning,
    long: &'static [&'static str],
    value: Option<&'static str>,
    help: &'static str,
) -> Definition {
    Definition { meaning, short: b"", long, value, own: true, help }
}

/// All options: those of flock(1) in util-linux 2.38, then ours.
pub(super) const OPTIONS: &[Definition] = &[
    flocks(Meaning::Shared, b"s", &["shared"], None, "Get a shared lock (mode PR)"),
    flocks(Meaning::Exclusive, b"xe", &["exclusive"], None, "Get an exclusive lock (mode EX), the default"),
    flocks(Meaning::Unlock, b"u", &["unlock"], None, "Remove a lock"),
    flocks(Meaning::Nonblock, b"n", &["nonblock", "nb", "nonblocking"], None, "Fail rather than wait"),
    flocks(
        Meaning::Timeout,
        b"w",
        &["timeout", "wait"],
        Some("SECONDS"),
        "Wait for a limited time; fractions are allowed",
    ),
    flocks(
        Meaning::ConflictCode,
        b"E",
        &["conflict-exit-code"],
        Some("CODE"),
        "Exit code after a conflict or the end of the time, 0 to 255 [default: 1]",
    ),
    flocks(Meaning::Close, b"o", &["close"], None, "Close the file's descriptor before running COMMAND"),
    flocks(Meaning::NoFork, b"F", &["no-fork"], None, "Execute COMMAND without forking"),
    flocks(Meaning::Verbose, b"", &["verbose"], None, "Say how long it took, what is executed, and why not"),
    own(Meaning::Lockspace, &["lockspace"], Some("NAME"), "Lockspace whose daemon on this machine is asked"),
    own(
        Meaning::Socket,
        &["socket"],
        Some("PATH"),
        "Socket of the daemon, instead of $MXLOCK_SOCKET or the lockspace's own",
    ),
    own(
        Meaning::Namespace,
        &["namespace"],
        Some("NS"),
        "Namespace of the lock's name [default: flock; with --name none]",
    ),
    own(Meaning::Name, &["name"], Some("NAME"), "Lock this name, as 'mxlock run NAME' does, not the file's path"),
    own(Meaning::Inode, &["inode"], None, "Lock the file itself, as 'mxlock run --file' does, not its path"),
    flocks(Meaning::Help, b"h?", &["help"], None, "Print help"),
    flocks(Meaning::Version, b"V", &["version"], None, "Print version"),
];

const USAGE: &str = "\
mxflock [OPTIONS] FILE|DIRECTORY COMMAND [ARG]...
       mxflock [OPTIONS] FILE|DIRECTORY -c COMMAND
       mxflock [OPTIONS] DESCRIPTOR";

const AFTER_HELP: &str = "\
What is locked is the path of FILE, as the kernel knows it: absolute and without symbolic links. The same path on another \
node is the same lock, whatever file it is there. A path of more than 135 bytes is shortened (docs/mxflock.md). The file \
is opened, made if need be, and locked with flock(2) as well: that keeps plain flock(1) on this machine out.

The lock lasts until all descriptors of the opened file are closed, COMMAND's and those of what it started included, or \
until it is removed with -u. A process in the background, also called mxflock, keeps it.

If the lock is lost because the node lost its lease, the processes that have the file open under this lock and their \
descendants get SIGTERM, and SIGKILL within the grace time; mxflock exits with 75.

Exit codes are those of flock(1) otherwise: that of COMMAND, 1 or that of -E when the lock is not granted, 64, 65, 66, 71, 73; \
69 when COMMAND cannot be executed, and also when no daemon answers.

ENVIRONMENT
  MXLOCK_SOCKET  socket of the daemon
  MXLOCK_TOKEN   set for COMMAND: the fencing token of the lock
  SHELL          runs the COMMAND of -c; else /bin/sh

EXAMPLES
  mxflock /var/lock/backup backup.sh
  mxflock -n -E 99 /var/lock/nightly -c 'nightly.sh | logger'
  mxflock -s -w 2.5 /shared/config cat /shared/config
  ( mxflock -n 9 || exit 1; backup.sh ) 9>/var/lock/backup
  exec 9>/var/lock/deploy; mxflock 9; deploy.sh; mxflock -u 9";

/// The definition that help, man page and completions are made of. The arguments themselves are parsed as getopt_long(3)
/// does, which clap cannot (`arguments.rs`).
pub(crate) fn definition() -> Command {
    let options = OPTIONS.iter().map(|option| {
        let name = option.long[0];
        let mut arg = Arg::new(name).long(name).help(option.help);
        if let Some(&short) = option.short.first() {
            arg = arg.short(char::from(short));
        }
        arg = arg.short_aliases(option.short.iter().skip(1).map(|&short| char::from(short)));
        arg = arg.visible_aliases(option.long.iter().skip(1).copied());
        match (option.meaning, option.value) {
            (Meaning::Help, _) => arg.action(ArgAction::Help),
            (Meaning::Version, _) => arg.action(ArgAction::Version),
            (_, Some(value)) => arg.value_name(value).action(ArgAction::Set),
            (_, None) => arg.action(ArgAction::SetTrue),
        }
    });
    Command::new("mxflock")
        .version(env!("CARGO_PKG_VERSION"))
        .about("flock(1) for all machines that share a disk")
        .override_usage(USAGE)
        .after_help(AFTER_HELP)
        .max_term_width(100)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }
}
