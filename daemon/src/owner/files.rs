//! The files thread: small writes into the state directory, which the owner thread must not wait for.

use crate::host::dirs::ensure_dir;
use crate::host::identity::{IdentityFile, replace_file};
use crate::limits::{MAX_FILE_JOBS, MAX_QUARANTINED};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mxlock_format::NodeId;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// What is to be written.
#[derive(Debug)]
pub(crate) enum FileJob {
    /// The slot was confirmed: remember it.
    RememberSlot(NodeId),
    /// A damaged sector (section 3: "copied to `<state>/quarantine`").
    Quarantine { slot: u32, bytes: Box<[u8; 512]>, reason: String, wall_ms: u64 },
}

/// The thread's handle; dropping it lets the thread finish its jobs and waits for it.
#[derive(Debug)]
pub(crate) struct Files {
    jobs: Option<Sender<FileJob>>,
    thread: Option<JoinHandle<()>>,
}

impl Files {
    /// Starts the thread.
    pub(crate) fn spawn(identity: IdentityFile, state_dir: PathBuf) -> io::Result<Files> {
        let (jobs, queue) = bounded(MAX_FILE_JOBS);
        let thread =
            std::thread::Builder::new().name("mxlock-files".into()).spawn(move || run(&queue, identity, &state_dir))?;
        Ok(Files { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands a job over; where too many wait it is dropped and logged.
    pub(crate) fn submit(&self, job: FileJob) {
        let Some(jobs) = &self.jobs else { return };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = jobs.try_send(job) {
            tracing::warn!("the state directory is too slow, not written: {job:?}");
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by the panic hook.
            let _ = thread.join();
        }
    }
}

fn run(queue: &Receiver<FileJob>, mut identity: IdentityFile, state_dir: &Path) {
    for job in queue {
        match job {
            FileJob::RememberSlot(node) => {
                if let Err(error) = identity.remember_slot(node) {
                    tracing::warn!("the slot is not remembered: {error}");
                }
            }
            FileJob::Quarantine { slot, bytes, reason, wall_ms } => {
                match quarantine(&state_dir.join("quarantine"), slot, &bytes[..], wall_ms) {
                    Ok(path) => tracing::warn!(slot, reason, "a damaged record was copied to {}", path.display()),
                    Err(error) => tracing::warn!(slot, reason, "a damaged record could not be copied: {error}"),
                }
            }
        }
    }
}

fn quarantine(dir: &Path, slot: u32, bytes: &[u8], wall_ms: u64) -> Result<PathBuf, String> {
    ensure_dir(dir, 0o700).map_err(|e| e.to_string())?;
    let kept = std::fs::read_dir(dir).map_err(|e| e.to_string())?.count();
    if kept >= MAX_QUARANTINED {
        return Err(format!("{} holds {kept} already: look at them and remove them", dir.display()));
    }
    let path = dir.join(format!("slot-{slot}-{wall_ms}.sector"));
    replace_file(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section 3: a damaged record is kept for people; the slot is remembered.
    #[test]
    fn what_was_handed_over_is_written_when_the_thread_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let identity = IdentityFile::open(dir.path()).unwrap();
        let files = Files::spawn(identity, dir.path().to_owned()).unwrap();
        files.submit(FileJob::RememberSlot(NodeId::new(5).unwrap()));
        files.submit(FileJob::Quarantine { slot: 9, bytes: Box::new([7; 512]), reason: "crc".into(), wall_ms: 1 });
        drop(files);
        assert_eq!(IdentityFile::open(dir.path()).unwrap().identity.slot, NodeId::new(5));
        assert_eq!(std::fs::read(dir.path().join("quarantine/slot-9-1.sector")).unwrap(), [7; 512]);
    }
}
