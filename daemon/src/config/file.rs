//! The configuration file, mxlock.toml(5).

use super::{Advertise, FenceMethod, IoChoice, NodeWish};
use crate::error::Failure;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The keys that a file sets; what it leaves out is `None`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ConfigFile {
    pub lockspace: Option<String>,
    pub lockstate: Option<PathBuf>,
    pub node: Option<NodeWish>,
    pub listen: Option<SocketAddr>,
    pub advertise: Option<Vec<Advertise>>,
    pub socket: Option<PathBuf>,
    pub socket_group: Option<String>,
    pub state_dir: Option<PathBuf>,
    pub log: Option<String>,
    pub io: Option<IoChoice>,
    pub fence: Option<Vec<FenceMethod>>,
    pub orphan_lifetime_ms: Option<u32>,
    pub clear_behind_ms: Option<u32>,
    pub any_file_system: Option<bool>,
}

/// What mxlock.toml(5) says about a key.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Key {
    pub name: &'static str,
    /// Unit or kind of value.
    pub unit: &'static str,
    pub range: &'static str,
    pub default: &'static str,
    /// Whether SIGHUP reads it anew.
    pub reload: bool,
    pub text: &'static str,
}

macro_rules! keys {
    ($($name:ident: $unit:literal, $range:literal, $default:literal, $reload:literal, $text:literal;)*) => {
        /// Every key, in the order of the manual page.
        pub const KEYS: &[Key] = &[$(Key {
            name: stringify!($name), unit: $unit, range: $range, default: $default, reload: $reload, text: $text,
        }),*];
    };
}

keys! {
    lockspace: "name", "1..32 of A-Z a-z 0-9 . _ -", "default", false,
        "Name of the lockspace; it must be the one in the lockstate.";
    lockstate: "path", "a file, block device or mount point", "none: it must be given", false,
        "The lock state on the shared disk; a mount point means <mount>/.mxfs/lockstate.";
    node: "slot", "0..63 or \"auto\"", "\"auto\"", false,
        "The node's slot; auto takes the one used before, else a free one.";
    listen: "IP:PORT", "any local address", "0.0.0.0:7600, another port when taken", false,
        "Where peers connect. An address that is given is not replaced by another one.";
    advertise: "list of IP:PORT or IP", "1..3", "all addresses that are not loopback, at most 3", false,
        "Where peers are told to connect; it is written into this node's heartbeat sector.";
    socket: "path", "at most 107 bytes", "/run/mxlock/NAME/sock, or under XDG_RUNTIME_DIR", false,
        "Where clients connect.";
    socket_group: "group name", "an existing group", "mxlock if there is one", false,
        "With root: the group whose members may connect; the socket is 0660. Otherwise it is 0600.";
    state_dir: "path", "a local directory", "/var/lib/mxlock/NAME, or under XDG_STATE_HOME", false,
        "Where the node keeps its identity and damaged sectors; one directory for each daemon.";
    log: "filter", "off, error, warn, info, debug, trace, or target=level,...", "info", true,
        "What to log to stderr.";
    io: "word", "uring, pwrite", "uring, and pwrite where the kernel forbids it", false,
        "How sectors and sockets are read and written.";
    fence: "list of words", "wait", "[\"wait\"]", false,
        "How a silent node is made sure to be gone. Empty: only 'mxlock fence-ack' frees its locks.";
    orphan_lifetime_ms: "milliseconds", "0..86400000", "30000", false,
        "How long locks outlive a lost connection; at least lease + grace after a restart.";
    clear_behind_ms: "milliseconds", "0..10000", "100", false,
        "Longest time from a release to the clearing of its record; 0 clears before it is acknowledged.";
    any_file_system: "true or false", "", "false", false,
        "Use a lockstate on a file system on which locks may not be safe (NFS, FUSE).";
}

/// Longest `clear_behind_ms`.
pub(crate) const MAX_CLEAR_BEHIND_MS: u32 = 10_000;
/// Longest path of a unix socket (unix(7): `sun_path` is 108 bytes with the closing NUL).
pub(crate) const MAX_SOCKET_PATH_BYTES: usize = 107;

impl ConfigFile {
    /// Reads and parses `path`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] with file, line and column; an unknown key is an error.
    pub fn read(path: &Path) -> Result<ConfigFile, Failure> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Failure::config(format_args!(
                "cannot read the configuration {}: {}",
                path.display(),
                crate::error::Cause(&e)
            ))
        })?;
        ConfigFile::parse(&text).map_err(|message| Failure::config(format_args!("{}: {message}", path.display())))
    }

    /// Parses the text of a configuration file.
    ///
    /// # Errors
    /// One sentence with line and column.
    pub fn parse(text: &str) -> Result<ConfigFile, String> {
        let file: ConfigFile = toml::from_str(text).map_err(|error| {
            let message = error.message().replace('\n', " ");
            match error.span() {
                Some(span) => {
                    let before = &text[..span.start.min(text.len())];
                    let line = before.matches('\n').count() + 1;
                    let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
                    format!("line {line}, column {column}: {message}")
                }
                None => message,
            }
        })?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(name) = &self.lockspace {
            mxlock_format::Superblock::validate_name(name).map_err(|e| format!("lockspace: {e}"))?;
        }
        if let Some(list) = &self.advertise
            && !(1..=mxlock_format::MAX_ADDRESSES).contains(&list.len())
        {
            return Err(format!("advertise has {} addresses, it takes 1..3", list.len()));
        }
        if let Some(ms) = self.orphan_lifetime_ms
            && ms > mxlock_dlm::limits::MAX_ORPHAN_LIFETIME_MS
        {
            return Err(format!("orphan_lifetime_ms = {ms} is above {}", mxlock_dlm::limits::MAX_ORPHAN_LIFETIME_MS));
        }
        if let Some(ms) = self.clear_behind_ms
            && ms > MAX_CLEAR_BEHIND_MS
        {
            return Err(format!("clear_behind_ms = {ms} is above {MAX_CLEAR_BEHIND_MS}"));
        }
        if let Some(filter) = &self.log {
            crate::logging::check_filter(filter).map_err(|e| format!("log = {filter:?}: {e}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INTERFACE.md: "every key is documented in mxlock.toml(5) with unit, range, default and whether SIGHUP reloads
    /// it". Serde lists the fields that it expected when it meets another one.
    #[test]
    fn every_key_is_documented() {
        let message = ConfigFile::parse("no_such_key = 1").unwrap_err();
        let expected = message.split_once("expected one of ").expect(&message).1;
        let fields: Vec<&str> = expected.split(", ").map(|name| name.trim_matches('`')).collect();
        let documented: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(documented, fields);
    }

    /// INTERFACE.md: "an unknown key is an error".
    #[test]
    fn an_unknown_key_is_an_error_with_its_place() {
        let message = ConfigFile::parse("node = 3\nlisten_port = 7600\n").unwrap_err();
        assert!(message.starts_with("line 2, column 1: unknown field `listen_port`"), "{message}");
    }

    #[test]
    fn all_keys_parse() {
        let file = ConfigFile::parse(include_str!("../../mxlock.toml.example")).unwrap();
        assert_eq!(file.lockspace.as_deref(), Some("default"));
        let uncommented: String = include_str!("../../mxlock.toml.example")
            .lines()
            .filter_map(|line| line.strip_prefix("#= "))
            .map(|line| format!("{line}\n"))
            .collect();
        let file = ConfigFile::parse(&uncommented).unwrap();
        assert_eq!(file.fence, Some(vec![FenceMethod::Wait]));
        assert_eq!(file.io, Some(IoChoice::Uring));
        assert_eq!(file.orphan_lifetime_ms, Some(30_000));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "node = 64",
            "node = -1",
            "node = \"first\"",
            "listen = \"localhost\"",
            "advertise = []",
            "advertise = [\"1.1.1.1:1\", \"1.1.1.2:1\", \"1.1.1.3:1\", \"1.1.1.4:1\"]",
            "lockspace = \"a/b\"",
            "lockspace = \"\"",
            "io = \"aio\"",
            "fence = [\"shout\"]",
            "orphan_lifetime_ms = 86400001",
            "clear_behind_ms = 10001",
            "clear_behind_ms = -1",
            "log = \"=,=\"",
            "node =",
        ] {
            assert!(ConfigFile::parse(wrong).is_err(), "{wrong}");
        }
    }
}
