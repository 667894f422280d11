//! The oldest test of a lock: a number in a file that many read, increase and write back.

use super::cluster::{Cluster, NODES};
use super::{spec, wrong};
use crate::common::failure::Failure;
use mxlock_client::{Client, ClientError, ConnectOptions, LockSpec};
use mxlock_format::Mode;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Clients on each node.
const PER_NODE: usize = 2;
/// Longest wait for the lock: then a worker looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(500);

/// The workers that count.
pub(super) struct Counter {
    file: PathBuf,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<u64>>,
}

impl Counter {
    /// Starts the workers on all nodes.
    pub(super) fn start(cluster: &Cluster) -> Result<Counter, Failure> {
        let file = cluster.directory().join("counter");
        std::fs::write(&file, "0").map_err(|e| Failure::system("write", file.display(), &e))?;
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..NODES * PER_NODE)
            .map(|worker| {
                let options = cluster.options(worker % NODES);
                let (file, stop) = (file.clone(), Arc::clone(&stop));
                std::thread::spawn(move || count(&options, &file, &stop))
            })
            .collect();
        Ok(Counter { file, stop, workers })
    }

    /// Stops them and compares the file with what they did.
    ///
    /// # Errors
    /// When an increment was lost, or nobody counted.
    pub(super) fn finish(self) -> Result<u64, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).sum();
        let found = read(&self.file);
        match found {
            _ if done == 0 => Err(wrong("nobody was granted the lock of the counter")),
            Some(found) if found == done => Ok(done),
            _ => Err(wrong(&format!("the counter is {found:?} after {done} increments"))),
        }
    }
}

/// Increments until told to stop; connects again when the daemon was killed.
fn count(options: &ConnectOptions, file: &Path, stop: &AtomicBool) -> u64 {
    let options = ConnectOptions { reconnect_timeout: PATIENCE, ..options.clone() };
    let spec = spec("counter", Mode::EX).timeout(PATIENCE);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let session = Client::connect(options.clone()).and_then(|client| {
            while !stop.load(Ordering::Relaxed) {
                done += u64::from(increment(&client, &spec, file)?);
            }
            Ok(())
        });
        if session.is_err() {
            // A node without a daemon is asked again in a while.
            std::thread::sleep(PATIENCE / 10);
        }
    }
    done
}

/// One increment under the lock; false when it was not granted, or not relied on any more.
fn increment(client: &Client, spec: &LockSpec, file: &Path) -> Result<bool, ClientError> {
    let lock = match client.lock(spec) {
        Ok(lock) => lock,
        Err(ClientError::Denied { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    let Some(value) = read(file) else { return Ok(false) };
    let next = (value + 1).to_string();
    // The last look before the write: what follows takes far less than the grace time.
    let done = lock.is_valid() && std::fs::write(file, next).is_ok();
    // A daemon that dies now leaves the increment in place.
    let _ = lock.unlock(None);
    Ok(done)
}

fn read(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.parse().ok()
}
