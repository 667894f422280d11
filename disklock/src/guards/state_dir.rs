use crate::{DiskError, LockConflict};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// An empty file `LOCK` in a directory under flock(2): one writer, or any number of readers.
#[derive(Debug)]
pub struct StateDirLock {
    /// Its drop unlocks.
    _lock: Flock<File>,
    path: PathBuf,
}

impl StateDirLock {
    /// For the directory's owner. Creates `LOCK` where it is missing; the directory must exist.
    ///
    /// # Errors
    /// [`LockConflict`] while anybody else has the directory.
    pub fn exclusive(directory: &Path) -> Result<StateDirLock, DiskError> {
        let path = directory.join("LOCK");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| DiskError::io("open", &path, e))?;
        StateDirLock::lock(file, path, FlockArg::LockExclusiveNonblock)
    }

    /// For those who only read the directory. Creates nothing.
    ///
    /// # Errors
    /// [`LockConflict`] while its owner runs.
    pub fn shared(directory: &Path) -> Result<StateDirLock, DiskError> {
        let path = directory.join("LOCK");
        let file = File::open(&path).map_err(|e| DiskError::io("open", &path, e))?;
        StateDirLock::lock(file, path, FlockArg::LockSharedNonblock)
    }

    fn lock(file: File, path: PathBuf, arg: FlockArg) -> Result<StateDirLock, DiskError> {
        match Flock::lock(file, arg) {
            Ok(lock) => Ok(StateDirLock { _lock: lock, path }),
            Err((_, Errno::EWOULDBLOCK)) => {
                let what = "another process uses this directory: stop it, or choose another --state-dir".into();
                Err(LockConflict { path, what }.into())
            }
            Err((_, errno)) => Err(DiskError::io("lock", &path, errno)),
        }
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
