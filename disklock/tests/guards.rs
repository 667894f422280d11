//! The guards of one host (DESIGN section 8).

mod common;

use common::{directory, fixture, node};
use mxlock_disklock::DiskError;
use mxlock_disklock::guards::{NodeGuard, READER_SLOT_COUNT, READER_SLOT_FIRST, SIDECAR_BYTES, Sidecar, StateDirLock};
use mxlock_format::SectorSize;
use std::fs;
use std::process::Command;

fn conflict<T: std::fmt::Debug>(result: Result<T, DiskError>, path: &std::path::Path) {
    match result {
        Err(error @ DiskError::Conflict(_)) => {
            assert_eq!(error.kind().exit_code(), 75);
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        other => panic!("no conflict: {other:?}"),
    }
}

/// One writer or many readers of a state directory; the conflict names the path.
#[test]
fn the_state_directory_has_one_owner() {
    let directory = directory();
    let lock = directory.path().join("LOCK");
    let owner = StateDirLock::exclusive(directory.path()).unwrap();
    conflict(StateDirLock::exclusive(directory.path()), &lock);
    conflict(StateDirLock::shared(directory.path()), &lock);
    // Other programs see it: it is flock(2).
    assert!(!Command::new("flock").arg("-n").arg(&lock).arg("true").status().unwrap().success());
    drop(owner);
    assert!(Command::new("flock").arg("-n").arg(&lock).arg("true").status().unwrap().success());

    let readers = [StateDirLock::shared(directory.path()).unwrap(), StateDirLock::shared(directory.path()).unwrap()];
    conflict(StateDirLock::exclusive(directory.path()), &lock);
    drop(readers);
    StateDirLock::exclusive(directory.path()).unwrap();
    assert_eq!(fs::metadata(&lock).unwrap().len(), 0);
}

/// The per-node guard is on the open file description: a duplicate shares it, another open conflicts, other nodes do
/// not.
#[test]
fn a_node_runs_once_per_host() {
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let fixture = fixture(64, sector);
        let (path, geometry) = (fixture.lockstate.path(), fixture.lockstate.geometry());
        let guard = NodeGuard::acquire(fixture.lockstate.file(), path, geometry, node(5)).unwrap();
        let other = common::open(path).unwrap();
        conflict(NodeGuard::acquire(other.file(), path, geometry, node(5)), path);
        NodeGuard::acquire(other.file(), path, geometry, node(4)).unwrap();
        drop(guard);
        NodeGuard::acquire(other.file(), path, geometry, node(5)).unwrap();
    }
}

/// "The guard is free only when its last write has ended": whoever still has the description keeps it, though the
/// guard's owner is gone without a word.
#[test]
fn the_node_guard_lives_as_long_as_the_description() {
    let fixture = fixture(64, SectorSize::S512);
    let geometry = fixture.lockstate.geometry();
    let path = fixture.lockstate.path().to_owned();
    let guard = NodeGuard::acquire(fixture.lockstate.file(), &path, geometry, node(5)).unwrap();
    let in_flight = fixture.lockstate.duplicate_file().unwrap();
    // As at a kill: no destructor runs, the kernel closes the process's own descriptors.
    std::mem::forget(guard);
    let other = common::open(&path).unwrap();
    let common::Fixture { directory: _directory, lockstate } = fixture;
    drop(lockstate);
    conflict(NodeGuard::acquire(other.file(), &path, geometry, node(5)), &path);
    drop(in_flight);
}

/// Any number of readers, or maintenance, never both; in either order.
#[test]
fn maintenance_excludes_readers() {
    let directory = directory();
    let path = Sidecar::path_for_file(&directory.path().join("lockstate"));
    let open = || Sidecar::open(&path).unwrap();

    let readers = [open().attach().unwrap(), open().attach().unwrap()];
    let byte = READER_SLOT_FIRST + u64::from(std::process::id()) % READER_SLOT_COUNT;
    assert!(readers.iter().all(|r| r.byte() == byte));
    conflict(open().maintain(), &path);
    // A refused maintenance leaves nothing locked.
    open().attach().unwrap();
    drop(readers);

    let maintenance = open().maintain().unwrap();
    conflict(open().attach(), &path);
    conflict(open().maintain(), &path);
    // An inspector that may not write there attaches through a read-only descriptor.
    conflict(Sidecar::open_existing(&path).unwrap().unwrap().attach(), &path);
    drop(maintenance);
    let inspector = Sidecar::open_existing(&path).unwrap().unwrap().attach().unwrap();
    conflict(open().maintain(), &path);
    drop(inspector);
    open().maintain().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), SIDECAR_BYTES);
    assert!(Sidecar::open_existing(&directory.path().join("none")).unwrap().is_none());
}
