//! Making a lockstate (DESIGN section 3): what is written, and what is not overwritten.

mod common;

use common::{QUICK, directory, make, open, options};
use mxlock_disklock::format::{Progress, format};
use mxlock_disklock::guards::Sidecar;
use mxlock_disklock::{DiskError, realtime_ms};
use mxlock_format::{Epoch, NodeState, SectorSize, Timing};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

/// Section 3: 64 CRC'd empty heartbeats, a table written with zeros, length and allocation as the geometry says.
#[test]
fn a_new_lockstate_is_whole() {
    let directory = directory();
    let mut last = None;
    let made = format(directory.path(), &options(4096, None), &mut |p| last = Some(p)).unwrap();
    let total = made.superblock.geometry.total_bytes();
    assert_eq!(last, Some(Progress::Writing { done: total, total }));

    let metadata = fs::metadata(&made.path).unwrap();
    assert_eq!(metadata.len(), total);
    assert!(metadata.blocks() * 512 >= total, "allocated");
    let lockstate = open(directory.path()).unwrap();
    assert_eq!(*lockstate.superblock(), made.superblock);
    for heartbeat in lockstate.heartbeats() {
        let heartbeat = heartbeat.as_ref().unwrap();
        assert_eq!((heartbeat.state, heartbeat.epoch), (NodeState::Empty, made.base_epoch));
    }
    assert!(made.base_epoch >= Epoch(realtime_ms() / 3_600_000 - 1));
    assert_ne!(made.superblock.key.0, [0; 32]);
}

/// I2, section 3: a new identity and a higher epoch each time; the old one is watched for its D first.
#[test]
fn formatting_again_watches_then_goes_on_above_the_old_epoch() {
    let directory = directory();
    let first = make(directory.path(), &options(64, Some(SectorSize::S4096))).unwrap();
    let mut longest = Duration::ZERO;
    let second = format(directory.path(), &options(128, Some(SectorSize::S512)), &mut |p| {
        if let Progress::Watching { watched, .. } = p {
            longest = longest.max(watched);
        }
    })
    .unwrap();
    assert_eq!(longest, Duration::from_millis(QUICK.dead_ms.into()));
    assert!(second.base_epoch > first.base_epoch);
    assert_ne!(second.superblock.uuid, first.superblock.uuid);
    assert_ne!(second.superblock.key, first.superblock.key);
    assert_eq!(open(directory.path()).unwrap().geometry().slot_count, 128);
}

/// Section 3: while anything changes in an existing lockstate, it is refused (75), forced or not.
#[test]
fn a_lockstate_in_use_is_never_overwritten() {
    let directory = directory();
    let made = make(directory.path(), &options(64, None)).unwrap();
    let file = File::options().write(true).open(&made.path).unwrap();
    let mut heartbeat = open(&made.path).unwrap().heartbeats()[9].clone().unwrap();
    let forced = mxlock_disklock::format::FormatOptions { force: true, ..options(64, None) };
    let mut looks = 0;
    let error = format(directory.path(), &forced, &mut |_| {
        looks += 1;
        heartbeat.hb_seq += 1;
        file.write_all_at(&heartbeat.encode().0, 9 * made.superblock.geometry.sector.bytes() as u64).unwrap();
    })
    .unwrap_err();
    assert!(looks > 0 && matches!(error, DiskError::Conflict(_)), "{error}");
    assert_eq!(error.kind().exit_code(), 75);
    assert_eq!(open(&made.path).unwrap().superblock().uuid, made.superblock.uuid);
}

/// Section 8: and not while anybody on this host is attached.
#[test]
fn an_attached_reader_keeps_format_away() {
    let directory = directory();
    let made = make(directory.path(), &options(64, None)).unwrap();
    let reader = Sidecar::open(&Sidecar::path_for_file(&made.path)).unwrap().attach().unwrap();
    assert!(matches!(make(directory.path(), &options(64, None)), Err(DiskError::Conflict(_))));
    drop(reader);
    make(directory.path(), &options(64, None)).unwrap();
}

/// Section 3: foreign data is refused unless forced (73), at the start, in the middle of the first MiB, at the end.
#[test]
fn foreign_data_is_refused_unless_forced() {
    let directory = directory();
    let path = directory.path().join("disk");
    let size = 3 << 20;
    let put = |offset: usize, bytes: &[u8]| {
        let mut contents = vec![0; size];
        contents[offset..offset + bytes.len()].copy_from_slice(bytes);
        fs::write(&path, contents).unwrap();
    };
    for (offset, bytes, what) in [
        (0, b"XFSB".as_slice(), "an XFS file system"),
        (510, &[0x55, 0xaa], "a partition table"),
        (512, b"EFI PART", "a GPT partition table"),
        (500_000, b"x", "data of an unknown kind"),
        (size - 1, b"x", "data of an unknown kind"),
        (512, &0x4d58_4c4b_u32.to_le_bytes(), "a damaged lockstate"),
    ] {
        put(offset, bytes);
        let before = fs::read(&path).unwrap();
        let error = make(&path, &options(64, None)).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(error.kind().exit_code(), 73);
        assert_eq!(fs::read(&path).unwrap(), before, "nothing was written");
    }
    put(0, b"XFSB");
    let forced = mxlock_disklock::format::FormatOptions { force: true, ..options(64, None) };
    make(&path, &forced).unwrap();
    open(&path).unwrap();
    // Zeros are nobody's data.
    put(0, b"");
    make(&path, &options(64, None)).unwrap();
}

/// A file system made over an old lockstate is foreign data, though old heartbeats still stand behind it.
#[test]
fn a_file_system_over_an_old_lockstate_is_foreign() {
    let directory = directory();
    let made = make(directory.path(), &options(64, None)).unwrap();
    File::options().write(true).open(&made.path).unwrap().write_all_at(b"XFSB", 0).unwrap();
    let error = make(directory.path(), &options(64, None)).unwrap_err();
    assert!(matches!(error, DiskError::Foreign { .. }), "{error}");
}

#[test]
fn nonsense_is_refused_before_anything_is_touched() {
    let directory = directory();
    let unsafe_timing = Timing { dead_ms: QUICK.lease_ms, ..QUICK };
    for options in [
        mxlock_disklock::format::FormatOptions { lockspace: "a/b".into(), ..options(64, None) },
        mxlock_disklock::format::FormatOptions { timing: unsafe_timing, ..options(64, None) },
        options(1, None),
    ] {
        let error = make(directory.path(), &options).unwrap_err();
        assert!(matches!(error, DiskError::Options(_)), "{error}");
        assert_eq!(error.kind().exit_code(), 78);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    let error = make(&directory.path().join("no/such/place"), &options(64, None)).unwrap_err();
    assert_eq!(error.kind().exit_code(), 73, "{error}");
}
