use std::io;
use std::path::{Path, PathBuf};

/// What the errors of this crate mean to a caller; each has an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It is not a lockstate, is damaged, or belongs to another lockspace: 65.
    NotLockstate,
    /// It cannot be created there: 73.
    CannotCreate,
    /// The device or file system failed: 74.
    Io,
    /// Another process uses it: 75.
    Conflict,
    /// Not permitted: 77.
    Permission,
    /// Nonsense was asked for: 78.
    Configuration,
}

impl ErrorKind {
    /// The exit code that every program reports it with (INTERFACE, "Exit codes").
    pub const fn exit_code(self) -> u8 {
        match self {
            ErrorKind::NotLockstate => 65,
            ErrorKind::CannotCreate => 73,
            ErrorKind::Io => 74,
            ErrorKind::Conflict => 75,
            ErrorKind::Permission => 77,
            ErrorKind::Configuration => 78,
        }
    }
}

/// Another process holds a guard (DESIGN section 8).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct LockConflict {
    /// The file that the guard is on.
    pub path: PathBuf,
    /// Who holds it, and what to do.
    pub what: String,
}

/// Why something about a lockstate could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// No file there.
    #[error("no lockstate at {}: {hint}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What to do.
        hint: String,
    },
    /// A file that is something else, or that no sector of can be believed.
    #[error("{} is not a lockstate: {reason}", path.display())]
    NotLockstate {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        reason: String,
    },
    /// Good sectors that do not belong together.
    #[error("{}: the heartbeat sectors of nodes {first} and {second} disagree on the {what}: restore one lockstate, or format it anew", path.display())]
    Disagree {
        /// The file.
        path: PathBuf,
        /// A node.
        first: u32,
        /// Another node.
        second: u32,
        /// On what.
        what: &'static str,
    },
    /// Shorter than its geometry says.
    #[error("{} has {found} bytes, but its {slots} slots of {sector} bytes need {needed}: it was cut off, restore or format it", path.display())]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length that the geometry implies.
        needed: u64,
        /// Lock-record slots.
        slots: u32,
        /// Sector size, bytes.
        sector: u32,
    },
    /// The device cannot write sectors of this size (PROTOTYPE 9).
    #[error("{} has {sector}-byte sectors, but its device wants at least {alignment}: format it with --sector {alignment}", path.display())]
    Alignment {
        /// The file.
        path: PathBuf,
        /// Sector size of the lockstate, bytes.
        sector: u32,
        /// What the device demands, bytes.
        alignment: u32,
    },
    /// A file system that cannot carry a lockstate.
    #[error("{}: {reason}", path.display())]
    FileSystem {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// `format` was about to destroy something.
    #[error("{} carries {what}: give --force to overwrite it", path.display())]
    Foreign {
        /// The target.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The target cannot be made into a lockstate.
    #[error("{} cannot become a lockstate: {reason}", path.display())]
    CannotCreate {
        /// The target.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Nonsense in the options of `format`.
    #[error("{0}")]
    Options(String),
    /// Another process uses it.
    #[error(transparent)]
    Conflict(#[from] LockConflict),
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DiskError {
    /// A failed system call.
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> DiskError {
        DiskError::Io { action, path: path.to_owned(), source: source.into() }
    }

    /// What it means to the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DiskError::Missing { .. }
            | DiskError::NotLockstate { .. }
            | DiskError::Disagree { .. }
            | DiskError::TooShort { .. }
            | DiskError::Alignment { .. } => ErrorKind::NotLockstate,
            DiskError::Foreign { .. } | DiskError::CannotCreate { .. } => ErrorKind::CannotCreate,
            DiskError::FileSystem { .. } | DiskError::Options(_) => ErrorKind::Configuration,
            DiskError::Conflict(_) => ErrorKind::Conflict,
            DiskError::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::Permission,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::CannotCreate,
                _ if source.raw_os_error() == Some(libc::EBUSY) => ErrorKind::Conflict,
                _ => ErrorKind::Io,
            },
        }
    }
}
