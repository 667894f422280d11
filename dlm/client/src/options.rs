//! What to connect to and what to ask for.

use mxlock_format::{ByteRange, Mode, QualifiedName, Resource, ResourceError};
use mxlock_proto::LockFlags;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The lockspace when none is named.
pub const DEFAULT_LOCKSPACE: &str = "default";
/// Environment variable that names the socket.
pub const SOCKET_VARIABLE: &str = "MXLOCK_SOCKET";

/// Which daemon to speak to, and how patiently.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The lockspace; it only decides where the socket is looked for.
    pub lockspace: String,
    /// This socket and no other.
    pub socket: Option<PathBuf>,
    /// The locks are for this process, not for the calling one (`mxlock lock --pid`).
    pub on_behalf_of: Option<u32>,
    /// Longest wait for the daemon's welcome; default 10 s.
    pub connect_timeout: Duration,
    /// How long a blocking call tries to connect again while this client holds no lock (with locks it ends at the
    /// lease deadline); default 30 s.
    pub reconnect_timeout: Duration,
    /// How long a call waits for an answer beyond its own timeout, and where the daemon has nothing to wait for;
    /// default 60 s, more than a failover with profile `san` takes.
    pub answer_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions::new(DEFAULT_LOCKSPACE)
    }
}

impl ConnectOptions {
    /// The defaults, for the daemon of `lockspace`.
    pub fn new(lockspace: impl Into<String>) -> ConnectOptions {
        ConnectOptions {
            lockspace: lockspace.into(),
            socket: None,
            on_behalf_of: None,
            connect_timeout: Duration::from_secs(10),
            reconnect_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(60),
        }
    }

    /// The sockets to try, in the order of INTERFACE.md: the one that was named; else `$MXLOCK_SOCKET`; else
    /// `/run/mxlock/NAME/sock`, then `$XDG_RUNTIME_DIR/mxlock/NAME/sock`. A socket that was named is the only one.
    pub fn socket_candidates(&self) -> Vec<PathBuf> {
        self.candidates(|variable| std::env::var_os(variable))
    }

    fn candidates(&self, variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
        if let Some(socket) = &self.socket {
            return vec![socket.clone()];
        }
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(socket) = set(SOCKET_VARIABLE) {
            return vec![socket];
        }
        let runtime = [Some(PathBuf::from("/run")), set("XDG_RUNTIME_DIR")];
        runtime.into_iter().flatten().map(|run| run.join("mxlock").join(&self.lockspace).join("sock")).collect()
    }
}

/// What to lock and how. [`LockSpec::new`] gives EX on all of the resource, waiting for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct LockSpec {
    /// What.
    pub resource: Resource,
    /// How.
    pub mode: Mode,
    /// Options.
    pub flags: LockFlags,
    /// Which part; `None` is all of it.
    pub range: Option<ByteRange>,
    /// Longest wait; `None` waits for ever, zero does not wait.
    pub timeout: Option<Duration>,
    /// Owner for deadlock detection; 0: the session.
    pub transaction: u64,
    /// How long the lock outlives its process; `None`: not at all.
    pub orphan_lifetime: Option<Duration>,
    /// The lock outlives its owner, even its node, until somebody adopts it.
    pub persistent: bool,
}

impl LockSpec {
    /// EX on all of `resource`.
    pub fn new(resource: Resource) -> LockSpec {
        LockSpec {
            resource,
            mode: Mode::EX,
            flags: LockFlags::NONE,
            range: None,
            timeout: None,
            transaction: 0,
            orphan_lifetime: None,
            persistent: false,
        }
    }

    /// EX on the resource `name` of the default namespace.
    ///
    /// # Errors
    /// When it cannot be a name: empty, too long, or with a NUL byte.
    pub fn name(name: impl AsRef<[u8]>) -> Result<LockSpec, ResourceError> {
        Ok(LockSpec::new(Resource::named(QualifiedName::new(b"", name.as_ref())?)))
    }

    /// EX on the resource `name` of a namespace, which keeps the names of applications apart.
    ///
    /// # Errors
    /// As [`LockSpec::name`].
    pub fn name_in(namespace: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<LockSpec, ResourceError> {
        Ok(LockSpec::new(Resource::named(QualifiedName::new(namespace.as_ref(), name.as_ref())?)))
    }

    /// With another mode.
    #[must_use]
    pub fn mode(self, mode: Mode) -> LockSpec {
        LockSpec { mode, ..self }
    }

    /// With a longest wait.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> LockSpec {
        LockSpec { timeout: Some(timeout), ..self }
    }

    /// Only these bytes.
    #[must_use]
    pub fn range(self, range: ByteRange) -> LockSpec {
        LockSpec { range: Some(range), ..self }
    }

    /// With `flags` added.
    #[must_use]
    pub fn flags(self, flags: LockFlags) -> LockSpec {
        LockSpec { flags: self.flags | flags, ..self }
    }

    /// With an owner for deadlock detection. Threads that have clients of their own need none; tasks that share one each
    /// need a number of their own, or one that waits for another would be told of a deadlock.
    #[must_use]
    pub fn transaction(self, transaction: u64) -> LockSpec {
        LockSpec { transaction, ..self }
    }

    /// Outliving its process for so long, until it is adopted.
    #[must_use]
    pub fn orphan_lifetime(self, lifetime: Duration) -> LockSpec {
        LockSpec { orphan_lifetime: Some(lifetime), ..self }
    }

    /// Outliving its owner, even its node, until it is adopted.
    #[must_use]
    pub fn persistent(self) -> LockSpec {
        LockSpec { persistent: true, ..self }
    }
}

/// How to change a lock. [`ConvertSpec::new`] waits for ever and writes no value.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvertSpec {
    /// The new mode.
    pub mode: Mode,
    /// Options.
    pub flags: LockFlags,
    /// Longest wait.
    pub timeout: Option<Duration>,
    /// On a down-conversion from PW or EX: the new value, 1..=64 bytes.
    pub lvb: Option<Vec<u8>>,
}

impl ConvertSpec {
    /// To `mode`.
    pub fn new(mode: Mode) -> ConvertSpec {
        ConvertSpec { mode, flags: LockFlags::NONE, timeout: None, lvb: None }
    }

    /// With a longest wait.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> ConvertSpec {
        ConvertSpec { timeout: Some(timeout), ..self }
    }

    /// With `flags` added.
    #[must_use]
    pub fn flags(self, flags: LockFlags) -> ConvertSpec {
        ConvertSpec { flags: self.flags | flags, ..self }
    }

    /// On a down-conversion from PW or EX, with the new value.
    #[must_use]
    pub fn lvb(self, value: impl Into<Vec<u8>>) -> ConvertSpec {
        ConvertSpec { lvb: Some(value.into()), ..self }
    }
}

/// How to end a lock. The default leaves the value as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnlockSpec {
    /// From PW or EX: the new value, 1..=64 bytes.
    pub lvb: Option<Vec<u8>>,
    /// From PW or EX, and without `lvb`: the value can no longer be trusted.
    pub invalidate_lvb: bool,
}

impl UnlockSpec {
    /// Leaving the value as it is.
    pub fn new() -> UnlockSpec {
        UnlockSpec::default()
    }

    /// From PW or EX, with the new value.
    #[must_use]
    pub fn lvb(self, value: impl Into<Vec<u8>>) -> UnlockSpec {
        UnlockSpec { lvb: Some(value.into()), ..self }
    }

    /// From PW or EX, saying that the value can no longer be trusted.
    #[must_use]
    pub fn invalidate_lvb(self) -> UnlockSpec {
        UnlockSpec { invalidate_lvb: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(options: &ConnectOptions, variables: &[(&str, &str)]) -> Vec<String> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
        options.candidates(find).iter().map(|path| path.display().to_string()).collect()
    }

    /// INTERFACE.md: `--socket`, `$MXLOCK_SOCKET`, `/run/mxlock/NAME/sock`, then the XDG one.
    #[test]
    fn sockets_are_looked_for_in_order() {
        let mut options = ConnectOptions::new("blue");
        let xdg = ("XDG_RUNTIME_DIR", "/run/user/7");
        assert_eq!(candidates(&options, &[]), ["/run/mxlock/blue/sock"]);
        assert_eq!(candidates(&options, &[xdg]), ["/run/mxlock/blue/sock", "/run/user/7/mxlock/blue/sock"]);
        assert_eq!(candidates(&options, &[xdg, ("MXLOCK_SOCKET", "/x")]), ["/x"]);
        assert_eq!(candidates(&options, &[("MXLOCK_SOCKET", "")]), ["/run/mxlock/blue/sock"]);
        options.socket = Some("/y".into());
        assert_eq!(candidates(&options, &[xdg, ("MXLOCK_SOCKET", "/x")]), ["/y"]);
    }
}
