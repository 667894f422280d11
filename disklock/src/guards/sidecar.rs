use super::ofd::{Kind, try_lock, would_lock};
use crate::{DiskError, LockConflict};
use mxlock_format::Uuid;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Length of a sidecar. It is never read or written: its bytes are only names for locks.
pub const SIDECAR_BYTES: u64 = 128;
/// Locked exclusively by maintenance: format, repair, copy.
pub const MAINTENANCE_BYTE: u64 = 96;
/// The first reader slot.
pub const READER_SLOT_FIRST: u64 = 97;
/// Reader slots: bytes 97..=127.
pub const READER_SLOT_COUNT: u64 = 31;

const DEVICE_DIRECTORY: &str = "/run/lock/mxlock";

/// The file of byte locks that keeps maintenance of a lockstate and its users on one host apart.
#[derive(Debug)]
pub struct Sidecar {
    file: File,
    path: PathBuf,
}

impl Sidecar {
    /// `<lockstate>-lock` beside a file.
    pub fn path_for_file(lockstate: &Path) -> PathBuf {
        let mut name = lockstate.as_os_str().to_owned();
        name.push("-lock");
        name.into()
    }

    /// `/run/lock/mxlock/<uuid>` for a block device.
    pub fn path_for_device(lockspace: Uuid) -> PathBuf {
        Path::new(DEVICE_DIRECTORY).join(lockspace.to_string())
    }

    /// Opens the sidecar; creates it, and the directory that a device's is in, where it is missing.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn open(path: &Path) -> Result<Sidecar, DiskError> {
        if path.parent() == Some(Path::new(DEVICE_DIRECTORY)) {
            std::fs::create_dir_all(DEVICE_DIRECTORY)
                .map_err(|e| DiskError::io("create", DEVICE_DIRECTORY.as_ref(), e))?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| DiskError::io("open", path, e))?;
        let length = file.metadata().map_err(|e| DiskError::io("stat", path, e))?.len();
        if length < SIDECAR_BYTES {
            file.set_len(SIDECAR_BYTES).map_err(|e| DiskError::io("extend", path, e))?;
        }
        Ok(Sidecar { file, path: path.to_owned() })
    }

    /// Opens it to read: enough for a reader slot. `None` where there is none, which only an inspector should accept:
    /// nothing but a program that may write there could maintain the lockstate.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn open_existing(path: &Path) -> Result<Option<Sidecar>, DiskError> {
        match File::open(path) {
            Ok(file) => Ok(Some(Sidecar { file, path: path.to_owned() })),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(DiskError::io("open", path, e)),
        }
    }

    /// Attaches a daemon or inspector: its reader slot, shared, so that any number can attach.
    ///
    /// # Errors
    /// [`LockConflict`] while maintenance runs.
    pub fn attach(self) -> Result<ReaderSlot, DiskError> {
        let byte = READER_SLOT_FIRST + u64::from(std::process::id()) % READER_SLOT_COUNT;
        // The slot first, then a look at maintenance, which does it the other way round: of two that start at once,
        // at least one sees the other.
        if !self.try_lock(Kind::Shared, byte..byte + 1)?
            || !self.would_lock(Kind::Shared, MAINTENANCE_BYTE..READER_SLOT_FIRST)?
        {
            return Err(
                self.conflict("the lockstate is being formatted, repaired or copied: wait until that has ended")
            );
        }
        Ok(ReaderSlot { sidecar: self, byte })
    }

    /// Keeps everybody else on this host away.
    ///
    /// # Errors
    /// [`LockConflict`] while anybody is attached, or other maintenance runs.
    pub fn maintain(self) -> Result<Maintenance, DiskError> {
        if !self.try_lock(Kind::Exclusive, MAINTENANCE_BYTE..READER_SLOT_FIRST)? {
            return Err(self.conflict("the lockstate is already being formatted, repaired or copied"));
        }
        if !self.try_lock(Kind::Exclusive, READER_SLOT_FIRST..READER_SLOT_FIRST + READER_SLOT_COUNT)? {
            return Err(self.conflict("a daemon or inspector on this host uses the lockstate: stop it"));
        }
        Ok(Maintenance { sidecar: self })
    }

    fn try_lock(&self, kind: Kind, bytes: std::ops::Range<u64>) -> Result<bool, DiskError> {
        try_lock(&self.file, kind, bytes).map_err(|errno| DiskError::io("lock", &self.path, errno))
    }

    fn would_lock(&self, kind: Kind, bytes: std::ops::Range<u64>) -> Result<bool, DiskError> {
        would_lock(&self.file, kind, bytes).map_err(|errno| DiskError::io("test a lock of", &self.path, errno))
    }

    fn conflict(&self, what: &str) -> DiskError {
        LockConflict { path: self.path.clone(), what: what.into() }.into()
    }
}

/// A user of the lockstate is attached, until this is dropped.
#[derive(Debug)]
pub struct ReaderSlot {
    sidecar: Sidecar,
    byte: u64,
}

impl ReaderSlot {
    /// The byte that is locked, 97..=127.
    pub fn byte(&self) -> u64 {
        self.byte
    }

    /// The sidecar's path.
    pub fn path(&self) -> &Path {
        &self.sidecar.path
    }
}

/// Nobody else on this host uses the lockstate, until this is dropped.
#[derive(Debug)]
pub struct Maintenance {
    sidecar: Sidecar,
}

impl Maintenance {
    /// The sidecar's path.
    pub fn path(&self) -> &Path {
        &self.sidecar.path
    }
}
