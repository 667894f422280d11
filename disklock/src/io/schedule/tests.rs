//! What is gathered, grouped, acknowledged and reported, without a device.

use super::*;
use mxlock_format::{SectorImage, SectorSize};
use nix::errno::Errno;

const GEOMETRY: Geometry = Geometry { sector: SectorSize::S512, slot_count: 10_000 };
const EIO: IoFault = IoFault::Os(Errno::EIO);

fn queue(scheduler: &mut Scheduler, slots: impl IntoIterator<Item = u32>) {
    for slot in slots {
        let image = SectorImage::zeroed();
        scheduler.write(RecordWrite { io: slot.into(), slot, image: Some(&image), deadline_ns: None });
    }
}

fn ready(scheduler: &mut Scheduler) -> Vec<DeviceOp> {
    let mut ops = Vec::new();
    scheduler.take_ready(0, &mut ops);
    ops
}

fn succeed(scheduler: &mut Scheduler, op: DeviceOp) -> Option<DeviceOp> {
    let len = match &op {
        DeviceOp::Write(write) => write.len,
        DeviceOp::Read(read) => read.len,
        DeviceOp::Sync(_) => 0,
    };
    scheduler.finished(op, Ok(len))
}

fn done(scheduler: &mut Scheduler) -> Vec<(u64, Result<(), IoFault>)> {
    let mut done = Vec::new();
    scheduler.completions(&mut done);
    let ended = |d| match d {
        RecordDone::Written { io, result } => (io, result),
        RecordDone::TableRead { .. } => panic!("nothing was read"),
    };
    done.into_iter().map(ended).collect()
}

/// Section 7: many, as one batch followed by one fdatasync that all of them wait for. Nothing is acknowledged
/// before it is on stable storage.
#[test]
fn a_batch_is_acknowledged_by_its_sync() {
    let mut s = Scheduler::new(GEOMETRY);
    queue(&mut s, (0..20).step_by(2));
    let mut ops = ready(&mut s);
    assert!(ops.iter().all(|op| matches!(op, DeviceOp::Write(w) if w.durability == Durability::Batch)));
    let last = ops.pop().unwrap();
    for op in ops {
        assert!(succeed(&mut s, op).is_none());
    }
    assert_eq!(done(&mut s), []);
    let sync = succeed(&mut s, last).expect("the last write makes the sync due");
    assert!(matches!(sync, DeviceOp::Sync(_)));
    assert_eq!(done(&mut s), [], "written is not durable");
    assert!(succeed(&mut s, sync).is_none());
    assert_eq!(done(&mut s).len(), 10);
    assert_eq!(s.in_flight(), 0);
}

/// PROTOTYPE 16: a write that failed, or was short, is an error of its request alone; a sync that failed is one
/// of all that waited for it.
#[test]
fn failures_in_a_batch() {
    let mut s = Scheduler::new(GEOMETRY);
    queue(&mut s, (0..12).step_by(2));
    let mut sync = None;
    for (i, op) in ready(&mut s).into_iter().enumerate() {
        let result = match i {
            0 => Err(EIO),
            1 => Ok(511),
            _ => Ok(512),
        };
        sync = s.finished(op, result);
    }
    assert_eq!(done(&mut s), [(0, Err(EIO)), (2, Err(IoFault::Short { wanted: 512, got: 511 }))]);
    assert!(s.finished(sync.unwrap(), Err(EIO)).is_none());
    assert_eq!(done(&mut s), [4, 6, 8, 10].map(|io| (io, Err(EIO))));

    // If all fail there is nothing to sync.
    queue(&mut s, (0..12).step_by(2));
    for op in ready(&mut s) {
        assert!(s.finished(op, Err(EIO)).is_none());
    }
    assert_eq!(done(&mut s).len(), 6);
    assert_eq!(s.in_flight(), 0);
}

/// Group commit: while two batches are under way, what comes gathers for the next; few still go by themselves.
#[test]
fn at_most_two_batches() {
    let mut s = Scheduler::new(GEOMETRY);
    queue(&mut s, (0..10).step_by(2));
    let first = ready(&mut s);
    queue(&mut s, (100..110).step_by(2));
    assert_eq!(ready(&mut s).len(), 5);
    queue(&mut s, [200, 202]);
    let few = ready(&mut s);
    assert!(matches!(&few[..], [DeviceOp::Write(a), DeviceOp::Write(_)] if a.durability == Durability::Each));
    queue(&mut s, (300..320).step_by(2));
    assert_eq!(ready(&mut s).len(), 0);
    queue(&mut s, (400..420).step_by(2));
    assert_eq!(ready(&mut s).len(), 0);

    let sync = first.into_iter().filter_map(|op| succeed(&mut s, op)).next().unwrap();
    assert_eq!(ready(&mut s).len(), 0);
    succeed(&mut s, sync);
    assert_eq!(ready(&mut s).len(), 20, "all that gathered");
}

/// Every queue has a bound: at most so many writes are under way, in batches of at most so many.
#[test]
fn writes_in_flight_are_bounded() {
    let mut s = Scheduler::new(GEOMETRY);
    queue(&mut s, (0..8000).step_by(2));
    let first = ready(&mut s);
    assert_eq!(first.len(), MAX_BATCHES_IN_FLIGHT * MAX_BATCH_WRITES);
    let mut issued = first.len();
    let mut under_way = VecDeque::from(first);
    while let Some(op) = under_way.pop_front() {
        under_way.extend(succeed(&mut s, op));
        let more = ready(&mut s);
        issued += more.len();
        under_way.extend(more);
        assert!(under_way.len() <= MAX_WRITES_IN_FLIGHT);
    }
    assert_eq!((issued, done(&mut s).len(), s.in_flight()), (4000, 4000, 0));
}

/// Section 5: what waited too long in the queue is never issued. The slot can be written again.
#[test]
fn expired_while_queued() {
    let mut s = Scheduler::new(GEOMETRY);
    for (io, deadline_ns) in [(1, Some(10)), (2, Some(11)), (3, None)] {
        s.write(RecordWrite { io, slot: io as u32, image: None, deadline_ns });
    }
    let mut ops = Vec::new();
    s.take_ready(10, &mut ops);
    assert_eq!(done(&mut s), [(1, Err(IoFault::Expired))]);
    match &ops[..] {
        [DeviceOp::Write(w)] => {
            assert_eq!((w.first_slot, w.slot_count, w.deadline_ns), (2, 2, Some(11)));
            assert!(!w.expired(10) && w.expired(11));
        }
        other => panic!("{other:?}"),
    }
    queue(&mut s, [1]);
}

/// PROTOTYPE 10: a chunk that fails is read again sector by sector, and the bad one is named.
#[test]
fn a_failed_read_is_split() {
    let mut s = Scheduler::new(GEOMETRY);
    s.read_table(7, 100, 3);
    let mut next = ready(&mut s).pop();
    let mut offsets = Vec::new();
    while let Some(op) = next {
        let DeviceOp::Read(mut read) = op else { panic!("{op:?}") };
        offsets.push((read.offset / 512 - 64, read.len));
        read.target().fill(offsets.len() as u8);
        let result = if matches!(offsets.len(), 1 | 3) { Err(EIO) } else { Ok(read.len) };
        next = s.finished(DeviceOp::Read(read), result);
    }
    assert_eq!(offsets, [(100, 3 * 512), (100, 512), (101, 512), (102, 512)]);
    let mut done = Vec::new();
    s.completions(&mut done);
    match &done[..] {
        [RecordDone::TableRead { io: 7, first_slot: 100, records, unreadable }] => {
            assert_eq!(*unreadable, [(101, EIO)]);
            assert_eq!([records[0], records[512], records[1024]], [2, 0, 4]);
        }
        other => panic!("{other:?}"),
    }
}
