//! Record I/O through both backends (DESIGN sections 5 and 7, "Persistence").

mod common;

use common::{Fixture, LoopDevice, fixture, image, make, open, options, record, table};
use mxlock_disklock::io::{Backend, EventLoop, IoFault, RecordDone, RecordWrite, open_event_loop};
use mxlock_disklock::{DiskError, Lockstate, boottime_ns};
use mxlock_format::{SectorImage, SectorSize};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

const BACKENDS: [Backend; 2] = [Backend::Uring, Backend::Threads];

fn event_loop(backend: Backend, lockstate: &Lockstate) -> Box<dyn EventLoop> {
    let io = open_event_loop(backend, lockstate.duplicate_file().unwrap(), lockstate.geometry()).unwrap();
    assert_eq!(io.backend(), backend);
    io
}

fn write(io: &mut dyn EventLoop, id: u64, slot: u32, image: Option<&SectorImage>) {
    io.write(RecordWrite { io: id, slot, image, deadline_ns: None });
}

/// Runs the loop until nothing is in flight.
fn finish(io: &mut dyn EventLoop) -> Vec<RecordDone> {
    let until = Instant::now() + Duration::from_secs(120);
    let (mut done, mut events) = (Vec::new(), Vec::new());
    while io.in_flight() > 0 {
        assert!(Instant::now() < until, "{} requests do not end", io.in_flight());
        io.wait(Some(Duration::from_secs(1)), &mut events).unwrap();
        io.completions(&mut done);
    }
    io.completions(&mut done);
    done
}

fn results(done: Vec<RecordDone>) -> BTreeMap<u64, Result<(), IoFault>> {
    let mut results = BTreeMap::new();
    for one in done {
        match one {
            RecordDone::Written { io, result } => assert!(results.insert(io, result).is_none(), "{io} ended twice"),
            RecordDone::TableRead { .. } => panic!("nothing was read"),
        }
    }
    results
}

fn each_variant(test: impl Fn(Backend, Fixture)) {
    for backend in BACKENDS {
        for sector in [SectorSize::S512, SectorSize::S4096] {
            test(backend, fixture(1024, sector));
        }
    }
}

/// Few, many, clears, merged clears: what was acknowledged is on disk, and nothing else is.
#[test]
fn acknowledged_writes_are_on_disk() {
    each_variant(|backend, fixture| {
        let mut io = event_loop(backend, &fixture.lockstate);
        let mut expected: BTreeMap<u32, u64> = BTreeMap::new();
        let mut id = 0;
        // Groups below and above the crossing point; clears of whole runs.
        for (slots, clear) in [
            (vec![7, 9], false),
            ((100..400).collect(), false),
            ((120..250).collect(), true),
            (vec![0, 1023], false),
            (vec![9], true),
            ((300..1000).rev().step_by(3).collect::<Vec<u32>>(), false),
            ((0..1024).collect(), true),
            ((5..9).collect(), false),
        ] {
            let mut wanted = Vec::new();
            for slot in slots {
                id += 1;
                wanted.push(id);
                if clear {
                    expected.remove(&slot);
                    write(io.as_mut(), id, slot, None);
                } else {
                    expected.insert(slot, id);
                    write(io.as_mut(), id, slot, Some(&image(id)));
                }
            }
            let done = results(finish(io.as_mut()));
            assert_eq!(done.keys().copied().collect::<Vec<_>>(), wanted);
            assert!(done.values().all(Result::is_ok), "{done:?}");
            for (slot, found) in (0..).zip(table(&fixture.lockstate)) {
                assert_eq!(found, expected.get(&slot).map(|&n| record(n)), "slot {slot}");
            }
        }
    });
}

/// Section 5: no record write is issued after its deadline; it ends as `Expired` and the disk keeps what it had.
#[test]
fn nothing_is_written_after_the_deadline() {
    each_variant(|backend, fixture| {
        let mut io = event_loop(backend, &fixture.lockstate);
        write(io.as_mut(), 1, 5, Some(&image(1)));
        finish(io.as_mut());

        let passed = Some(boottime_ns());
        let later = Some(boottime_ns() + 60_000_000_000);
        io.write(RecordWrite { io: 2, slot: 5, image: None, deadline_ns: passed });
        io.write(RecordWrite { io: 3, slot: 6, image: Some(&image(3)), deadline_ns: passed });
        io.write(RecordWrite { io: 4, slot: 7, image: Some(&image(4)), deadline_ns: later });
        io.write_table(5, 100, &[image(5).0, image(6).0].concat(), passed);
        io.write_table(6, 200, &[image(7).0, image(8).0].concat(), later);
        let done = results(finish(io.as_mut()));
        assert_eq!(done[&2], Err(IoFault::Expired));
        assert_eq!(done[&3], Err(IoFault::Expired));
        assert_eq!(done[&5], Err(IoFault::Expired));
        assert_eq!((done[&4], done[&6]), (Ok(()), Ok(())));
        let found: Vec<usize> =
            table(&fixture.lockstate).iter().enumerate().filter_map(|(slot, r)| r.as_ref().map(|_| slot)).collect();
        assert_eq!(found, [5, 7, 200, 201]);
        // The slots are free again.
        write(io.as_mut(), 9, 5, None);
        assert_eq!(results(finish(io.as_mut()))[&9], Ok(()));
    });
}

/// PROTOTYPE 10 and 16: every failed write is reported, those of a batch too.
#[test]
fn failed_writes_are_reported() {
    for backend in BACKENDS {
        let fixture = fixture(1024, SectorSize::S512);
        let unwritable = File::open(fixture.lockstate.path()).unwrap();
        let mut io = open_event_loop(backend, unwritable, fixture.lockstate.geometry()).unwrap();
        for count in [1, 100] {
            for slot in 0..count {
                write(io.as_mut(), slot.into(), slot * 2, Some(&image(1)));
            }
            let done = results(finish(io.as_mut()));
            assert_eq!(done.len(), count as usize);
            assert!(done.values().all(|r| *r == Err(IoFault::Os(Errno::EBADF))), "{done:?}");
        }
    }
}

/// Section 7: writes to overlapping sectors are never in flight together.
#[test]
fn a_slot_is_never_written_twice_at_once() {
    for backend in BACKENDS {
        let fixture = fixture(1024, SectorSize::S512);
        let twice = std::panic::catch_unwind(|| {
            let mut io = event_loop(backend, &fixture.lockstate);
            write(io.as_mut(), 1, 5, None);
            write(io.as_mut(), 2, 5, None);
        });
        assert!(twice.is_err());
        let overlap = std::panic::catch_unwind(|| {
            let mut io = event_loop(backend, &fixture.lockstate);
            io.write_table(1, 0, &[0; 512 * 6], None);
            write(io.as_mut(), 2, 5, None);
        });
        assert!(overlap.is_err());
    }
}

/// PROTOTYPE 6 and 10: large sequential reads and writes; a sector that cannot be read is named and costs no other.
#[test]
fn tables_are_read_and_written_in_chunks() {
    each_variant(|backend, fixture| {
        let mut io = event_loop(backend, &fixture.lockstate);
        let chunk = io.chunk_slots().min(1024);
        let records: Vec<u8> = (0..u64::from(chunk)).flat_map(|n| image(n).0).collect();
        io.write_table(1, 0, &records, None);
        assert_eq!(results(finish(io.as_mut()))[&1], Ok(()));

        io.read_table(2, 0, chunk);
        match finish(io.as_mut()).as_slice() {
            [RecordDone::TableRead { io: 2, first_slot: 0, records: read, unreadable }] => {
                assert!(*read == records);
                assert_eq!(*unreadable, []);
            }
            other => panic!("{other:?}"),
        }

        // The file loses its last three sectors: short reads.
        let geometry = fixture.lockstate.geometry();
        let file = File::options().write(true).open(fixture.lockstate.path()).unwrap();
        file.set_len(geometry.slot_offset(1021)).unwrap();
        io.read_table(3, 1000, 24);
        match finish(io.as_mut()).as_slice() {
            [RecordDone::TableRead { io: 3, first_slot: 1000, records: read, unreadable }] => {
                assert_eq!(read.len(), 24 * 512);
                assert!(read[21 * 512..].iter().all(|&b| b == 0));
                let bad: Vec<u32> = unreadable.iter().map(|(slot, _)| *slot).collect();
                assert_eq!(bad, [1021, 1022, 1023]);
                assert!(matches!(unreadable[0].1, IoFault::Short { got: 0, .. }), "{unreadable:?}");
            }
            other => panic!("{other:?}"),
        }
    });
}

/// A whole table's worth of single clears at once, as after the death of a node with many locks (PROTOTYPE 15): the
/// queues take it.
#[test]
fn thirty_thousand_clears_at_once() {
    for backend in BACKENDS {
        let fixture = fixture(65_536, SectorSize::S512);
        let mut io = event_loop(backend, &fixture.lockstate);
        for n in 0..30_000 {
            write(io.as_mut(), n.into(), n * 2, None);
        }
        let done = results(finish(io.as_mut()));
        assert_eq!(done.len(), 30_000);
        assert!(done.values().all(Result::is_ok));
    }
}

/// PROTOTYPE 9: on a device with 4096-byte sectors everything works, or is refused with the reason.
#[test]
fn a_device_with_large_sectors() {
    let Some(device) = LoopDevice::new(8 << 20, 4096) else { return };
    let small = make(&device.path, &options(1024, Some(SectorSize::S512))).unwrap_err();
    assert!(small.to_string().contains("--sector 4096"), "{small}");
    assert_eq!(small.kind().exit_code(), 73);

    let made = make(&device.path, &options(1024, None)).unwrap();
    assert_eq!(made.superblock.geometry.sector, SectorSize::S4096);
    works(&open(&device.path).unwrap());

    let too_many = make(&device.path, &options(10_000, None)).unwrap_err();
    assert_eq!(too_many.kind().exit_code(), 73, "{too_many}");

    // A lockstate with 512-byte sectors, copied there.
    let Fixture { lockstate, directory: _directory } = fixture(1024, SectorSize::S512);
    let copied = std::process::Command::new("dd")
        .arg(format!("if={}", lockstate.path().display()))
        .arg(format!("of={}", device.path.display()))
        .args(["bs=4096", "conv=fsync", "status=none"])
        .status();
    assert!(copied.unwrap().success());
    let error = open(&device.path).unwrap_err();
    assert!(matches!(error, DiskError::Alignment { sector: 512, alignment: 4096, .. }), "{error}");
    assert_eq!(error.kind().exit_code(), 65);
}

#[test]
fn a_device_with_small_sectors() {
    let Some(device) = LoopDevice::new(8 << 20, 512) else { return };
    let made = make(&device.path, &options(1024, None)).unwrap();
    assert_eq!(made.superblock.geometry.sector, SectorSize::S512);
    assert_eq!(made.medium.scope, mxlock_disklock::Scope::Shared);
    let lockstate = open(&device.path).unwrap();
    works(&lockstate);

    // Section 8: a device's sidecar is in /run/lock, and keeps format away.
    let sidecar = mxlock_disklock::guards::Sidecar::open(&lockstate.sidecar_path()).unwrap();
    let reader = sidecar.attach().unwrap();
    assert!(matches!(make(&device.path, &options(1024, None)), Err(DiskError::Conflict(_))));
    drop(reader);
    std::fs::remove_file(lockstate.sidecar_path()).unwrap();
}

/// Section 3: format opens a device O_EXCL.
#[test]
fn a_claimed_device_is_refused() {
    use std::os::unix::fs::OpenOptionsExt;
    let Some(device) = LoopDevice::new(8 << 20, 512) else { return };
    let _claim = File::options().read(true).custom_flags(libc::O_EXCL).open(&device.path).unwrap();
    let error = make(&device.path, &options(64, None)).unwrap_err();
    assert!(matches!(error, DiskError::Conflict(_)), "{error}");
}

fn works(lockstate: &Lockstate) {
    for backend in BACKENDS {
        let mut io = event_loop(backend, lockstate);
        for n in 0..40 {
            write(io.as_mut(), n, n as u32 * 3, Some(&image(n)));
        }
        assert!(results(finish(io.as_mut())).values().all(Result::is_ok));
        assert_eq!(table(lockstate).iter().flatten().count(), 40);
        for n in 0..40 {
            write(io.as_mut(), n, n as u32 * 3, None);
        }
        assert!(results(finish(io.as_mut())).values().all(Result::is_ok));
        assert_eq!(table(lockstate).iter().flatten().count(), 0);
    }
}
