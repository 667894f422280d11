//! Which lockspaces exist on this node, and how often each was created.
//!
//! In the kernel a lockspace is a device, `/dev/misc/dlm_NAME`. Here it is a file, `dlm/NAME` beside the socket of mxlockd: its
//! permissions say who may open the lockspace, its contents how often it was created and not released, and each open
//! handle keeps a shared lock on it, so that the last release can wait for the others as the kernel's does. Only who may
//! write that directory can create or release. Reboots take it away with `/run`.

use crate::names;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode as Permissions, fchmod, fstat};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An open lockspace's file.
#[derive(Debug)]
pub(crate) struct Space {
    file: Flock<File>,
    path: PathBuf,
    /// It did not exist before.
    pub(crate) is_new: bool,
}

/// Where the files are, for the daemon at `socket`.
pub(crate) fn directory(socket: &Path) -> PathBuf {
    socket.parent().unwrap_or(Path::new("/")).join("dlm")
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Who may not write the directory is told what the kernel tells who lacks CAP_SYS_ADMIN.
fn privileged(error: &io::Error) -> Errno {
    match errno(error) {
        Errno::EACCES | Errno::EROFS => Errno::EPERM,
        other => other,
    }
}

fn lock(file: File, how: FlockArg) -> Result<Flock<File>, Errno> {
    let mut file = file;
    loop {
        match Flock::lock(file, how) {
            Ok(locked) => return Ok(locked),
            Err((back, Errno::EINTR)) => file = back,
            Err((_, error)) => return Err(error),
        }
    }
}

/// Changes of the counts are made one at a time.
fn lock_directory(directory: &Path) -> Result<Flock<File>, Errno> {
    lock(File::open(directory).map_err(|e| errno(&e))?, FlockArg::LockExclusive)
}

fn count(file: &File) -> u64 {
    let mut text = [0; 20];
    let length = file.read_at(&mut text, 0).unwrap_or(0);
    std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn set_count(file: &File, count: u64) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(format!("{count}\n").as_bytes(), 0)
}

/// Creates a lockspace, or counts once more one that exists, unless it must not. `mode` becomes its permissions, 0 leaves
/// them.
pub(crate) fn create(directory: &Path, name: &[u8], mode: u32, exclusive: bool) -> Result<Space, Errno> {
    names::lockspace(name)?;
    let made = DirBuilder::new().mode(0o755).create(directory);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(privileged(&error));
    }
    let path = directory.join(OsStr::from_bytes(name));
    let _one_at_a_time = lock_directory(directory)?;
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(|error| privileged(&error))?;
    let known = count(&file);
    if exclusive && known > 0 {
        return Err(Errno::EEXIST);
    }
    set_count(&file, known + 1).map_err(|error| errno(&error))?;
    if mode != 0 {
        // As there, a failure to set them does not fail the creation.
        let _ = fchmod(&file, Permissions::from_bits_truncate(mode));
    }
    Ok(Space { file: lock(file, FlockArg::LockShared)?, path, is_new: known == 0 })
}

/// Opens a lockspace that exists.
pub(crate) fn open(directory: &Path, name: &[u8]) -> Result<Space, Errno> {
    names::lockspace(name)?;
    let path = directory.join(OsStr::from_bytes(name));
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| errno(&error))?;
    let file = lock(file, FlockArg::LockShared)?;
    let gone = fstat(&*file)?.st_nlink == 0;
    if gone { Err(Errno::ENOENT) } else { Ok(Space { file, path, is_new: false }) }
}

impl Space {
    /// Whether one more release ends the lockspace.
    pub(crate) fn is_last(&self) -> bool {
        count(&self.file) <= 1
    }

    /// Takes back one creation. The last one ends the lockspace, unless it is `busy`, and waits until nobody has it open
    /// any more.
    pub(crate) fn release(self, busy: bool) -> Result<(), Errno> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let one_at_a_time = lock_directory(directory)?;
        let known = count(&self.file);
        if known > 1 {
            return set_count(&self.file, known - 1).map_err(|error| errno(&error));
        }
        if busy || fstat(&*self.file)?.st_nlink == 0 {
            return Ok(());
        }
        std::fs::remove_file(&self.path).map_err(|error| privileged(&error))?;
        drop(one_at_a_time);
        let file = self.file.unlock().map_err(|(_, error)| error)?;
        lock(file, FlockArg::LockExclusive).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    /// The kernel's `dlm_new_lockspace` counts; NEWEXCL does not.
    #[test]
    fn creations_are_counted() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(&temp.path().join("sock"));
        assert_eq!(open(&directory, b"a").unwrap_err(), Errno::ENOENT);
        let first = create(&directory, b"a", 0o640, true).unwrap();
        assert_eq!(create(&directory, b"a", 0, true).unwrap_err(), Errno::EEXIST);
        let second = create(&directory, b"a", 0, false).unwrap();
        assert!(!first.is_last());
        first.release(false).unwrap();
        assert!(second.is_last());
        let opened = open(&directory, b"a").unwrap();
        assert_eq!(fstat(&*opened.file).unwrap().st_mode & 0o777, 0o640);
        drop(opened);
        second.release(true).unwrap();
        let third = open(&directory, b"a").unwrap();
        third.release(false).unwrap();
        assert_eq!(open(&directory, b"a").unwrap_err(), Errno::ENOENT);
        create(&directory, b"a", 0, true).unwrap();
    }

    /// "All processes will need to close their device for the ls before the release will proceed" (fs/dlm/user.c).
    #[test]
    fn the_last_release_waits_for_who_has_it_open() {
        let temp = tempfile::tempdir().unwrap();
        let created = create(temp.path(), b"a", 0, false).unwrap();
        let other = open(temp.path(), b"a").unwrap();
        let (done, released) = mpsc::channel();
        let releaser = thread::spawn(move || {
            created.release(false).unwrap();
            done.send(()).unwrap();
        });
        while open(temp.path(), b"a").is_ok() {
            thread::yield_now();
        }
        assert!(released.recv_timeout(Duration::from_millis(50)).is_err(), "it is open still");
        drop(other);
        released.recv_timeout(Duration::from_secs(10)).unwrap();
        releaser.join().unwrap();
    }
}
