//! Lockstates on real files and loop devices for the tests; everything is removed when it is dropped.
#![allow(dead_code, unreachable_pub)]

use mxlock_disklock::format::{FormatOptions, Formatted, Progress, format};
use mxlock_disklock::{DiskError, Lockstate, OpenOptions};
use mxlock_format::{
    Epoch, Incarnation, LockId, LockRecord, LockState, Mode, NodeId, Process, QualifiedName, Resource, SectorImage,
    SectorSize, SessionId, Timing, Token,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The shortest timing that `format` accepts, so that watching for D takes 0.2 s.
pub const QUICK: Timing = Timing { renew_ms: 50, lease_ms: 100, grace_ms: 20, dead_ms: 200, suspect_ms: 120 };

pub fn options(slots: u32, sector: Option<SectorSize>) -> FormatOptions {
    FormatOptions { lockspace: "test".into(), slots, sector, timing: QUICK, force: false }
}

/// On the file system of the build, which has O_DIRECT; /tmp may not.
pub fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn make(path: &Path, options: &FormatOptions) -> Result<Formatted, DiskError> {
    format(path, options, &mut |_: Progress| {})
}

pub fn open(path: &Path) -> Result<Lockstate, DiskError> {
    Lockstate::open(path, OpenOptions::default())
}

/// A formatted lockstate in a file.
pub struct Fixture {
    pub directory: TempDir,
    pub lockstate: Lockstate,
}

pub fn fixture(slots: u32, sector: SectorSize) -> Fixture {
    let directory = directory();
    let made = make(directory.path(), &options(slots, Some(sector))).unwrap();
    let lockstate = open(&made.path).unwrap();
    Fixture { directory, lockstate }
}

pub fn node(slot: u32) -> NodeId {
    NodeId::new(slot).unwrap()
}

/// A valid record that differs with `n`.
pub fn record(n: u64) -> LockRecord {
    LockRecord {
        resource: Resource::named(QualifiedName::new(b"t", format!("name-{n}").as_bytes()).unwrap()),
        owner: node((n % 64) as u32),
        owner_incarnation: Incarnation(n + 1),
        mode: Mode::EX,
        wanted: Mode::EX,
        state: LockState::Granted,
        granted_at_ms: n,
        epoch: Epoch(9),
        lock: LockId { session: SessionId(n), seq: 1 },
        token: Token(n + 1),
        table_epoch: Epoch(9),
        queue_position: n,
        persistent: false,
        orphan: false,
        process: Process::default(),
        transaction: 0,
        range: None,
        orphan_lifetime_ms: 30_000,
        lvb: None,
    }
}

pub fn image(n: u64) -> SectorImage {
    record(n).encode()
}

/// The records of the whole table, by slot.
pub fn table(lockstate: &Lockstate) -> Vec<Option<LockRecord>> {
    let mut all = Vec::new();
    for chunk in lockstate.table() {
        assert_eq!(chunk.unreadable, []);
        for (slot, bytes) in (chunk.first_slot..).zip(chunk.records.chunks_exact(512)) {
            all.push(LockRecord::decode(slot, bytes).unwrap());
        }
    }
    all
}

/// A loop device over a sparse file; detached when dropped.
pub struct LoopDevice {
    pub path: PathBuf,
    _backing: TempDir,
}

impl LoopDevice {
    /// `None`, with a note, where the test may not make one: not root, or no loop driver.
    pub fn new(bytes: u64, sector: u32) -> Option<LoopDevice> {
        let backing = directory();
        let file = backing.path().join("backing");
        std::fs::File::create(&file).unwrap().set_len(bytes).unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on", "--sector-size", &sector.to_string()])
            .arg(&file)
            .output();
        match output {
            Ok(output) if output.status.success() => {
                let path = String::from_utf8(output.stdout).unwrap().trim().into();
                Some(LoopDevice { path, _backing: backing })
            }
            other => {
                eprintln!("skipped: no loop device can be made here: {other:?}");
                None
            }
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}
