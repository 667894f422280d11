//! Opening a lockstate, and refusing what is none (DESIGN section 3, "Opening").

mod common;

use common::{directory, fixture, make, node, open, options};
use mxlock_disklock::guards::Sidecar;
use mxlock_disklock::{DiskError, Lockstate, OpenOptions, Scope};
use mxlock_format::{DEFAULT_SLOT_COUNT, Fault, Heartbeat, SectorImage, SectorSize, fill_sector};
use std::fs::{self, File, OpenOptions as FileOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

fn code(error: &DiskError) -> u8 {
    error.kind().exit_code()
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    FileOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Section 3: try 512, then 4096; the superblock is found in both.
#[test]
fn both_sector_sizes_are_recognised() {
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let fixture = fixture(64, sector);
        let lockstate = &fixture.lockstate;
        assert_eq!(lockstate.geometry().sector, sector);
        assert_eq!(lockstate.geometry().slot_count, 64);
        assert_eq!(lockstate.medium().scope, Scope::ThisHost);
        assert_eq!(lockstate.path(), fixture.directory.path().join(".mxfs/lockstate"));
        assert_eq!(lockstate.sidecar_path(), Sidecar::path_for_file(lockstate.path()));
        assert!(lockstate.heartbeats().iter().all(Result::is_ok));
        assert!(common::table(lockstate).iter().all(Option::is_none));
    }
}

/// PROTOTYPE 4: a file of 0x5a, or of anything else, is not an empty lockstate.
#[test]
fn foreign_files_are_refused() {
    let directory = directory();
    let path = directory.path().join("file");
    for (contents, expected) in [
        (vec![0x5a; 1 << 20], "the magic number is 0x5a5a5a5a"),
        (vec![0; 1 << 20], "only zeros"),
        (vec![0; 100], "only 100 bytes"),
        ([b"XFSB".as_slice(), &[0; 1 << 20]].concat(), "an XFS file system"),
    ] {
        fs::write(&path, contents).unwrap();
        let error = open(&path).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(code(&error), 65);
    }
    let error = open(Path::new("/dev/null")).unwrap_err();
    assert!(error.to_string().contains("neither a regular file nor a block device"), "{error}");
    let error = open(&directory.path().join("nothing")).unwrap_err();
    assert!(matches!(error, DiskError::Missing { .. }), "{error}");
    assert_eq!(code(&error), 65);
}

#[test]
fn a_truncated_lockstate_is_refused() {
    let fixture = fixture(512, SectorSize::S512);
    let path = fixture.lockstate.path();
    FileOptions::new().write(true).open(path).unwrap().set_len(200_000 / 512 * 512).unwrap();
    let error = open(path).unwrap_err();
    assert!(matches!(error, DiskError::TooShort { needed: 294_912, .. }), "{error}");
    assert_eq!(code(&error), 65);
}

/// Section 3: sectors that are good but disagree on uuid or geometry: refuse.
#[test]
fn disagreeing_sectors_are_refused() {
    for (what, change) in [
        ("lockspace's uuid", (|hb| hb.superblock.uuid.0[0] ^= 1) as fn(&mut Heartbeat)),
        ("geometry", |hb| hb.superblock.geometry.slot_count += 1),
        ("timing", |hb| hb.superblock.timing.dead_ms += 1),
        ("cluster key", |hb| hb.superblock.key.0[31] ^= 1),
    ] {
        let fixture = fixture(64, SectorSize::S512);
        let mut odd = fixture.lockstate.heartbeats()[41].clone().unwrap();
        change(&mut odd);
        overwrite(fixture.lockstate.path(), 41 * 512, &odd.encode().0);
        match open(fixture.lockstate.path()) {
            Err(error @ DiskError::Disagree { first: 0, second: 41, what: found, .. }) => {
                assert_eq!(found, what);
                assert_eq!(code(&error), 65);
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Section 3: a heartbeat sector that is all zero or fails its CRC is damage: reported, and fatal only if all are.
#[test]
fn damaged_sectors_are_reported() {
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let fixture = fixture(64, sector);
        let (path, size) = (fixture.lockstate.path(), sector.bytes() as u64);
        overwrite(path, 0, &[0xff]);
        overwrite(path, 5 * size, &[0; 512]);
        let opened = open(path).unwrap();
        let bad: Vec<_> = opened.heartbeats().iter().filter_map(|r| r.as_ref().err()).collect();
        assert_eq!(bad.len(), 2);
        assert!(matches!(bad[0].fault, Fault::Magic { .. }), "{}", bad[0]);
        assert_eq!((bad[1].node, &bad[1].fault), (node(5), &Fault::Zero));

        overwrite(path, 0, &vec![0; 64 * sector.bytes()]);
        assert!(matches!(open(path), Err(DiskError::NotLockstate { .. })));
    }
}

/// A heartbeat that another host has written is seen when the region is read again, also by the inspector.
#[test]
fn the_region_is_read_afresh() {
    let fixture = fixture(64, SectorSize::S4096);
    let reader =
        Lockstate::open(fixture.lockstate.path(), OpenOptions { read_only: true, ..Default::default() }).unwrap();
    let mut heartbeat = reader.heartbeats()[7].clone().unwrap();
    heartbeat.lock_count = 1234;
    let mut sector = vec![0; 4096];
    fill_sector(&heartbeat.encode(), &mut sector);
    overwrite(reader.path(), 7 * 4096, &sector);
    assert_eq!(reader.read_heartbeats().unwrap()[7].as_ref().unwrap().lock_count, 1234);
}

/// PROTOTYPE 6 and 10: the scan returns every slot, and one that cannot be read is named, not skipped.
#[test]
fn a_scan_reads_all_slots_and_names_the_unreadable() {
    let fixture = fixture(DEFAULT_SLOT_COUNT, SectorSize::S512);
    let lockstate = &fixture.lockstate;
    let geometry = lockstate.geometry();
    for slot in [0, 2047, 2048, DEFAULT_SLOT_COUNT - 1] {
        let SectorImage(bytes) = common::image(u64::from(slot));
        overwrite(lockstate.path(), geometry.slot_offset(slot), &bytes);
    }
    let found: Vec<usize> =
        common::table(lockstate).iter().enumerate().filter_map(|(slot, r)| r.as_ref().map(|_| slot)).collect();
    assert_eq!(found, [0, 2047, 2048, 65_535]);

    // The file loses its last ten sectors behind our back: the same EIO-like answer as from a bad device.
    let file = File::options().write(true).open(lockstate.path()).unwrap();
    file.set_len(geometry.slot_offset(DEFAULT_SLOT_COUNT - 10)).unwrap();
    let unreadable: Vec<u32> = lockstate.table().flat_map(|c| c.unreadable).map(|(slot, _)| slot).collect();
    assert_eq!(unreadable, Vec::from_iter(DEFAULT_SLOT_COUNT - 10..DEFAULT_SLOT_COUNT));
}

/// Section 3: of a 4096-byte sector only the first 512 bytes are used; anything behind them is damage.
#[test]
fn bytes_behind_a_record_are_reported() {
    let fixture = fixture(64, SectorSize::S4096);
    let lockstate = &fixture.lockstate;
    overwrite(lockstate.path(), lockstate.geometry().slot_offset(3) + 600, b"x");
    let chunk = lockstate.read_table(0, 64);
    assert_eq!(chunk.records.len(), 64 * 512);
    assert_eq!(chunk.unreadable.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [3]);
}

#[test]
fn permissions_decide_who_opens() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let fixture = fixture(64, SectorSize::S512);
    let path = fixture.lockstate.path();
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    if !nix::unistd::geteuid().is_root() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(code(&open(path).unwrap_err()), 77);
    }
}

/// The heartbeat thread gets a description of its own, and only of the same file.
#[test]
fn a_replaced_lockstate_is_noticed() {
    let fixture = fixture(64, SectorSize::S512);
    let path = fixture.lockstate.path();
    fixture.lockstate.open_heartbeat_file().unwrap();
    fs::rename(path, path.with_extension("old")).unwrap();
    make(path, &options(64, None)).unwrap();
    assert!(matches!(fixture.lockstate.open_heartbeat_file(), Err(DiskError::NotLockstate { .. })));
}
