//! The heartbeat thread (DESIGN sections 4 and 5).

mod common;

use common::{Fixture, fixture, node};
use crossbeam_channel::{Receiver, unbounded};
use mxlock_disklock::io::{Backend, IoFault, RecordWrite, open_event_loop};
use mxlock_disklock::{Beat, HeartbeatConfig, HeartbeatThread, PublishError, boottime_ns};
use mxlock_format::{Fault, Heartbeat, NodeState, SectorSize};
use nix::sys::eventfd::EventFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const OWN: u32 = 11;
const SOON: Duration = Duration::from_secs(60);

struct Running {
    thread: HeartbeatThread,
    beats: Receiver<Beat>,
    kick: Arc<EventFd>,
    core_alive: Arc<AtomicU64>,
}

/// `core`: keep the core alive for an hour.
fn start(fixture: &Fixture, renew: Duration, core: bool) -> Running {
    let (send, beats) = unbounded();
    let kick = Arc::new(EventFd::new().unwrap());
    let core_alive = Arc::new(AtomicU64::new(if core { boottime_ns() + 3_600_000_000_000 } else { 0 }));
    let thread = HeartbeatThread::spawn(HeartbeatConfig {
        file: fixture.lockstate.open_heartbeat_file().unwrap(),
        node: node(OWN),
        geometry: fixture.lockstate.geometry(),
        renew,
        core_alive: Arc::clone(&core_alive),
        beats: send,
        kick: Arc::clone(&kick),
        note: None,
    })
    .unwrap();
    Running { thread, beats, kick, core_alive }
}

fn image(fixture: &Fixture, lock_count: u64) -> Heartbeat {
    Heartbeat {
        state: NodeState::Member,
        host: "here".into(),
        lock_count,
        ..fixture.lockstate.heartbeats()[OWN as usize].clone().unwrap()
    }
}

/// The next beat that wrote at least this image.
fn beat_of(running: &Running, image: u64) -> Beat {
    loop {
        let beat = running.beats.recv_timeout(SOON).unwrap();
        if beat.write.as_ref().is_some_and(|w| w.image >= image) {
            return beat;
        }
    }
}

/// A beat writes the newest image, then reads the region; the read shows it; the thread's own stamps are in it.
#[test]
fn a_beat_writes_then_reads() {
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let fixture = fixture(64, sector);
        // Never by the clock: only when asked.
        let running = start(&fixture, Duration::from_secs(3600), true);
        let first = running.beats.recv_timeout(SOON).unwrap();
        assert_eq!(first.write, None, "before anything is published it only reads");
        assert!(first.read.unwrap().region.iter().all(Result::is_ok));

        let mut last_seq = 0;
        for n in 1..=5 {
            running.thread.publish(n, image(&fixture, n * 10), true, None);
            let beat = beat_of(&running, n);
            let (write, read) = (beat.write.unwrap(), beat.read.unwrap());
            assert_eq!((write.image, write.result), (n, Ok(())));
            assert_eq!(write.hb_seq, last_seq + 1);
            last_seq = write.hb_seq;
            assert!(write.started_ns <= write.ended_ns);
            assert!(write.ended_ns <= read.issued_ns, "the read is issued after the write has ended");
            assert!(read.issued_ns <= read.ended_ns);
            let own = read.region[OWN as usize].clone().unwrap();
            assert_eq!((own.hb_seq, own.lock_count, own.boottime_ns), (write.hb_seq, n * 10, write.started_ns));
            assert!(own.timestamp_ms > 0);
        }
        running.kick.read().unwrap();

        // I6: nobody else's sector was touched.
        let now = fixture.lockstate.read_heartbeats().unwrap();
        for other in (0..64).filter(|&i| i != OWN as usize) {
            assert_eq!(now[other], fixture.lockstate.heartbeats()[other]);
        }
        assert!(running.thread.stop(SOON));
    }
}

/// One write at a time, always the newest image: what was overtaken is never written, and nothing goes backwards.
#[test]
fn only_the_newest_image_is_written() {
    let fixture = fixture(64, SectorSize::S512);
    let running = start(&fixture, Duration::from_secs(3600), true);
    for n in 1..=500 {
        running.thread.publish(n, image(&fixture, n), true, None);
    }
    let last = beat_of(&running, 500);
    assert_eq!(last.read.unwrap().region[OWN as usize].as_ref().unwrap().lock_count, 500);
    let mut seen = (0, 0);
    for beat in running.beats.try_iter() {
        let write = beat.write.unwrap();
        assert!(write.image >= seen.0 && write.hb_seq > seen.1);
        seen = (write.image, write.hb_seq);
    }
    // Not urgent: it waits for its tick, or for whoever looks.
    running.thread.publish(501, image(&fixture, 501), false, None);
    running.thread.look();
    beat_of(&running, 501);
}

/// The first write is not begun after its time, and is when a new look has given it more; later ones have no such bound
/// (docs/decisions/012).
#[test]
fn a_first_write_is_not_begun_late() {
    let fixture = fixture(64, SectorSize::S512);
    let running = start(&fixture, Duration::from_secs(3600), true);
    let now = boottime_ns();
    running.thread.publish(1, image(&fixture, 1), true, Some(now - 1));
    let beat = beat_of(&running, 1);
    assert_eq!(beat.write.unwrap().result, Err(IoFault::Expired));
    assert_eq!(beat.read.unwrap().region[OWN as usize], fixture.lockstate.heartbeats()[OWN as usize]);
    for (n, by) in [(2, now + 3_600_000_000_000), (3, now - 1)] {
        running.thread.publish(n, image(&fixture, n), true, Some(by));
        let beat = beat_of(&running, n);
        assert_eq!(beat.write.unwrap().result, Ok(()));
        assert_eq!(beat.read.unwrap().region[OWN as usize].as_ref().unwrap().lock_count, n);
    }
}

/// Section 5: every R, on an absolute schedule.
#[test]
fn beats_come_every_r() {
    let fixture = fixture(64, SectorSize::S512);
    let renew = Duration::from_millis(20);
    let running = start(&fixture, renew, true);
    running.thread.publish(1, image(&fixture, 1), false, None);
    let began = Instant::now();
    let first = beat_of(&running, 1).write.unwrap();
    while beat_of(&running, 1).write.unwrap().hb_seq < first.hb_seq + 25 {}
    // No upper bound: the machine may be slow. But not faster than 25 ticks, less the first that was not on its tick.
    assert!(began.elapsed() >= renew * 23, "{:?}", began.elapsed());
}

/// Section 5: it stops renewing when the core has not run for 2R, and goes on when the core does.
#[test]
fn a_core_that_stands_still_is_not_covered_for() {
    let fixture = fixture(64, SectorSize::S512);
    let running = start(&fixture, Duration::from_millis(50), false);
    running.thread.publish(1, image(&fixture, 1), true, None);
    // It covers for 2R after the last sign, and not longer.
    let silent_since = running.core_alive.load(Ordering::Acquire);
    let covered_ns = silent_since + 2 * 50_000_000;
    let mut late = 0;
    while boottime_ns() < silent_since + 1_000_000_000 {
        if let Ok(beat) = running.beats.recv_timeout(Duration::from_millis(1)) {
            late += usize::from(beat.write.is_some_and(|w| w.started_ns > covered_ns));
        }
    }
    // Not 18: a busy machine can only delay one that was due in time, and the one that was asked for.
    assert!(late <= 2, "{late} renewals for a dead core");
    running.core_alive.store(boottime_ns() + 3_600_000_000_000, Ordering::Release);
    beat_of(&running, 1);
}

/// A clean end: the last image is on disk when `publish_and_wait` says so; `stop` ends the thread.
#[test]
fn the_last_word_is_on_disk() {
    let fixture = fixture(64, SectorSize::S512);
    let running = start(&fixture, Duration::from_secs(3600), true);
    running.thread.publish_and_wait(1, image(&fixture, 77), SOON).unwrap();
    assert_eq!(fixture.lockstate.read_heartbeats().unwrap()[OWN as usize].as_ref().unwrap().lock_count, 77);
    assert!(running.thread.stop(SOON));
    assert!(running.beats.try_iter().last().is_some());
}

/// A failed write is reported with its number, and the read is still made.
#[test]
fn a_failed_write_is_reported() {
    let fixture = fixture(64, SectorSize::S512);
    let (send, beats) = unbounded();
    let thread = HeartbeatThread::spawn(HeartbeatConfig {
        file: std::fs::File::open(fixture.lockstate.path()).unwrap(),
        node: node(OWN),
        geometry: fixture.lockstate.geometry(),
        renew: Duration::from_secs(3600),
        core_alive: Arc::default(),
        beats: send,
        kick: Arc::new(EventFd::new().unwrap()),
        note: None,
    })
    .unwrap();
    let error = thread.publish_and_wait(1, image(&fixture, 1), SOON).unwrap_err();
    assert!(matches!(error, PublishError::Failed(_)), "{error}");
    let beat = std::iter::repeat_with(|| beats.recv_timeout(SOON).unwrap()).find(|b| b.write.is_some()).unwrap();
    assert!(beat.write.unwrap().result.is_err());
    assert!(beat.read.unwrap().region.iter().all(Result::is_ok));
}

/// A damaged sector, or one that the device cannot read, is an error of that sector alone (PROTOTYPE 10).
#[test]
fn one_bad_sector_costs_no_other() {
    let fixture = fixture(64, SectorSize::S512);
    let running = start(&fixture, Duration::from_secs(3600), true);
    let file = std::fs::File::options().write(true).open(fixture.lockstate.path()).unwrap();
    file.write_all_at(&[0xff; 20], 3 * 512).unwrap();
    // The file ends in the middle of the region: the sectors behind cannot be read.
    file.set_len(60 * 512).unwrap();
    running.thread.publish(1, image(&fixture, 1), true, None);
    let region = beat_of(&running, 1).read.unwrap().region;
    for (i, sector) in region.iter().enumerate() {
        match i {
            3 => assert!(matches!(sector.as_ref().unwrap_err().fault, Fault::Magic { .. })),
            60.. => assert!(matches!(sector.as_ref().unwrap_err().fault, Fault::Unreadable { .. })),
            _ => assert!(sector.is_ok(), "{sector:?}"),
        }
    }
}

/// PROTOTYPE 15: table traffic cannot delay the heartbeat: beats begin and end while 30,000 records are being purged. How
/// many in a second is up to the machine, and so is how long a purge takes.
#[test]
fn a_purge_does_not_starve_the_heartbeat() {
    let fixture = fixture(65_536, SectorSize::S512);
    for backend in [Backend::Uring, Backend::Threads] {
        let running = start(&fixture, Duration::from_millis(5), true);
        running.thread.publish(1, image(&fixture, 1), true, None);
        beat_of(&running, 1);
        let file = fixture.lockstate.duplicate_file().unwrap();
        let mut io = open_event_loop(backend, file, fixture.lockstate.geometry()).unwrap();
        let (mut done, mut events) = (Vec::new(), Vec::new());
        let mut in_purges = Vec::new();
        for _ in 0..20 {
            let began_ns = boottime_ns();
            for n in 0..30_000 {
                io.write(RecordWrite { io: n, slot: n as u32 * 2, image: None, deadline_ns: None });
            }
            while io.in_flight() > 0 {
                io.wait(Some(Duration::from_secs(1)), &mut events).unwrap();
                io.completions(&mut done);
            }
            let ended_ns = boottime_ns();
            let writes = running.beats.try_iter().filter_map(|beat| beat.write);
            in_purges.push(writes.filter(|w| began_ns <= w.started_ns && w.ended_ns <= ended_ns).count());
            if in_purges.iter().sum::<usize>() >= 10 {
                break;
            }
        }
        assert!(in_purges.iter().sum::<usize>() >= 10, "heartbeats in each purge: {in_purges:?}");
        assert!(running.thread.stop(SOON));
    }
}
