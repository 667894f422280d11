//! The daemon's one error: a kind, which is an exit code of INTERFACE.md, and a sentence for people.

use std::fmt;
use std::io;
use std::path::Path;

/// What kind of failure ended the daemon. Each kind is one exit code of INTERFACE.md.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// 64: wrong usage.
    Usage,
    /// 65: the lockstate is not one, is damaged, or belongs to another lockspace.
    Lockstate,
    /// 69: something that the daemon needs cannot be reached.
    Unavailable,
    /// 73: a file, directory or socket cannot be created.
    CannotCreate,
    /// 74: I/O error.
    Io,
    /// 75: not now, because somebody else has it.
    NotNow,
    /// 77: permission.
    Permission,
    /// 78: configuration.
    Config,
}

impl Kind {
    /// The process's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 64,
            Kind::Lockstate => 65,
            Kind::Unavailable => 69,
            Kind::CannotCreate => 73,
            Kind::Io => 74,
            Kind::NotNow => 75,
            Kind::Permission => 77,
            Kind::Config => 78,
        }
    }
}

/// Why the daemon ends: a kind and one sentence that says what is wrong, where, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which exit code.
    pub kind: Kind,
    /// The sentence.
    pub message: String,
}

impl Failure {
    /// A failure of `kind` with this sentence.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Failure {
        Failure { kind, message: message.to_string() }
    }

    /// A configuration error.
    pub fn config(message: impl fmt::Display) -> Failure {
        Failure::new(Kind::Config, message)
    }

    /// `doing` to `path` failed: permission and "somebody else has it" are told apart from the rest, which is `kind`.
    pub fn at(kind: Kind, doing: &str, path: &Path, error: &io::Error) -> Failure {
        let (kind, hint) = match error.kind() {
            io::ErrorKind::PermissionDenied => (Kind::Permission, ": run it as a user who may, or change its mode"),
            io::ErrorKind::ReadOnlyFilesystem => (kind, ": mount it read-write, or choose another place"),
            _ => (kind, ""),
        };
        Failure::new(kind, format_args!("cannot {doing} {}: {}{hint}", path.display(), Cause(error)))
    }
}

/// An I/O error as people read it, without the number.
pub(crate) struct Cause<'a>(pub(crate) &'a io::Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            Some(number) => f.write_str(nix::errno::Errno::from_raw(number).desc()),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INTERFACE.md, "Exit codes, for every program".
    #[test]
    fn kinds_have_the_published_codes() {
        let kinds = [
            Kind::Usage,
            Kind::Lockstate,
            Kind::Unavailable,
            Kind::CannotCreate,
            Kind::Io,
            Kind::NotNow,
            Kind::Permission,
            Kind::Config,
        ];
        assert_eq!(kinds.map(Kind::exit_code), [64, 65, 69, 73, 74, 75, 77, 78]);
    }

    #[test]
    fn permission_is_told_apart() {
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let failure = Failure::at(Kind::Io, "open", Path::new("/x"), &denied);
        assert_eq!(failure.kind, Kind::Permission);
        assert!(failure.message.starts_with("cannot open /x: Permission denied"), "{failure}");
    }
}
