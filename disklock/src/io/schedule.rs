//! What both backends share: gathering, deadlines, grouping, group commit, splitting of failed reads. Does no I/O.

use super::{AlignedBuf, CHUNK_BYTES, Durability, IoFault, MAX_MERGED_CLEARS, Ready, RecordDone, RecordWrite, plan};
use mxlock_format::{Geometry, RECORD_BYTES, fill_sector, sector_to_image};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most device writes of one batch; what is ready beyond it waits for the next.
pub const MAX_BATCH_WRITES: usize = 256;
/// Most batches under way: one that is being written while the other waits for its fdatasync. What becomes ready
/// meanwhile gathers for the next (group commit).
pub const MAX_BATCHES_IN_FLIGHT: usize = 2;
/// Most device writes under way; beyond it, writes stay queued.
pub const MAX_WRITES_IN_FLIGHT: usize = 1024;

/// What a backend carries out. It hands each back through `finished`.
#[derive(Debug)]
pub(super) enum DeviceOp {
    Write(DeviceWrite),
    Read(DeviceRead),
    /// fdatasync for a batch.
    Sync(BatchId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchId(usize);

#[derive(Debug)]
pub(super) enum Payload {
    Buffer(AlignedBuf),
    /// A prefix of the shared zeros.
    Zeros(Arc<AlignedBuf>),
}

#[derive(Debug)]
pub(super) struct DeviceWrite {
    pub(super) offset: u64,
    pub(super) len: usize,
    payload: Payload,
    pub(super) durability: Durability,
    /// The earliest deadline of its members.
    pub(super) deadline_ns: Option<u64>,
    first_slot: u32,
    slot_count: u32,
    ios: Vec<u64>,
    batch: Option<BatchId>,
}

impl DeviceWrite {
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.payload {
            Payload::Buffer(buf) => &buf[..self.len],
            Payload::Zeros(zeros) => &zeros[..self.len],
        }
    }

    pub(super) fn expired(&self, now_ns: u64) -> bool {
        self.deadline_ns.is_some_and(|deadline| now_ns >= deadline)
    }
}

#[derive(Debug)]
pub(super) struct DeviceRead {
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) buf: AlignedBuf,
    io: u64,
    first_slot: u32,
    count: u32,
    /// Reading sector by sector, after the whole failed: this is the current one.
    single: Option<u32>,
    unreadable: Vec<(u32, IoFault)>,
}

impl DeviceRead {
    /// Where the bytes go.
    pub(super) fn target(&mut self) -> &mut [u8] {
        let at = self.single.map_or(0, |i| i as usize * self.len);
        &mut self.buf[at..at + self.len]
    }
}

struct Pending {
    io: u64,
    slot: u32,
    buf: Option<AlignedBuf>,
    deadline_ns: Option<u64>,
}

struct Batch {
    /// Device writes that have not ended.
    writing: usize,
    /// Requests whose bytes are written but not yet durable.
    written: Vec<u64>,
    /// Slots to free when the batch is durable.
    slots: Vec<(u32, u32)>,
}

/// A set of slots.
struct SlotSet(Vec<u64>);

impl SlotSet {
    fn insert(&mut self, slot: u32) -> bool {
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        let fresh = self.0[word] & bit == 0;
        self.0[word] |= bit;
        fresh
    }

    fn remove(&mut self, slot: u32) {
        self.0[slot as usize / 64] &= !(1 << (slot % 64));
    }
}

pub(super) struct Scheduler {
    geometry: Geometry,
    pending: VecDeque<Pending>,
    /// Sequential table I/O, which is not grouped.
    sequential: VecDeque<DeviceOp>,
    /// Slots with a write that has not ended.
    busy: SlotSet,
    batches: Vec<Option<Batch>>,
    done: Vec<RecordDone>,
    requests: usize,
    writes_in_flight: usize,
    zeros: Arc<AlignedBuf>,
    pool: Vec<AlignedBuf>,
}

impl Scheduler {
    pub(super) fn new(geometry: Geometry) -> Scheduler {
        Scheduler {
            geometry,
            pending: VecDeque::new(),
            sequential: VecDeque::new(),
            busy: SlotSet(vec![0; (geometry.slot_count as usize).div_ceil(64)]),
            batches: (0..MAX_BATCHES_IN_FLIGHT).map(|_| None).collect(),
            done: Vec::new(),
            requests: 0,
            writes_in_flight: 0,
            zeros: Arc::new(AlignedBuf::zeroed(MAX_MERGED_CLEARS as usize * geometry.sector.bytes())),
            pool: Vec::new(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.requests
    }

    pub(super) fn chunk_slots(&self) -> u32 {
        (CHUNK_BYTES / self.geometry.sector.bytes()) as u32
    }

    pub(super) fn has_completions(&self) -> bool {
        !self.done.is_empty()
    }

    pub(super) fn completions(&mut self, done: &mut Vec<RecordDone>) {
        done.append(&mut self.done);
    }

    pub(super) fn write(&mut self, write: RecordWrite<'_>) {
        self.claim(write.slot);
        let buf = write.image.map(|image| {
            let mut buf = self.pool.pop().unwrap_or_else(|| AlignedBuf::zeroed(self.geometry.sector.bytes()));
            fill_sector(image, &mut buf);
            buf
        });
        self.pending.push_back(Pending { io: write.io, slot: write.slot, buf, deadline_ns: write.deadline_ns });
        self.requests += 1;
    }

    pub(super) fn write_table(&mut self, io: u64, first_slot: u32, records: &[u8], deadline_ns: Option<u64>) {
        assert!(records.len().is_multiple_of(RECORD_BYTES), "a table write consists of whole records");
        let count = (records.len() / RECORD_BYTES) as u32;
        self.check_chunk(first_slot, count);
        let sector = self.geometry.sector.bytes();
        let mut buf = AlignedBuf::zeroed(count as usize * sector);
        for (slot, (target, record)) in
            (first_slot..).zip(buf.chunks_exact_mut(sector).zip(records.chunks_exact(RECORD_BYTES)))
        {
            self.claim(slot);
            target[..RECORD_BYTES].copy_from_slice(record);
        }
        self.sequential.push_back(DeviceOp::Write(DeviceWrite {
            offset: self.geometry.slot_offset(first_slot),
            len: buf.len(),
            payload: Payload::Buffer(buf),
            durability: Durability::Each,
            deadline_ns,
            first_slot,
            slot_count: count,
            ios: vec![io],
            batch: None,
        }));
        self.requests += 1;
    }

    pub(super) fn read_table(&mut self, io: u64, first_slot: u32, count: u32) {
        self.check_chunk(first_slot, count);
        let len = count as usize * self.geometry.sector.bytes();
        self.sequential.push_back(DeviceOp::Read(DeviceRead {
            offset: self.geometry.slot_offset(first_slot),
            len,
            buf: AlignedBuf::zeroed(len),
            io,
            first_slot,
            count,
            single: None,
            unreadable: Vec::new(),
        }));
        self.requests += 1;
    }

    fn check_chunk(&self, first_slot: u32, count: u32) {
        assert!(count > 0 && count <= self.chunk_slots(), "{count} slots are not 1..={}", self.chunk_slots());
        let end = first_slot.checked_add(count);
        assert!(end.is_some_and(|end| end <= self.geometry.slot_count), "slots {first_slot}+{count} do not exist");
    }

    fn claim(&mut self, slot: u32) {
        assert!(slot < self.geometry.slot_count, "slot {slot} does not exist");
        assert!(self.busy.insert(slot), "two writes to slot {slot} at once");
    }

    /// What is to be issued now, at once: the caller holds each op only for as long as the system call takes.
    pub(super) fn take_ready(&mut self, now_ns: u64, issue: &mut Vec<DeviceOp>) {
        self.writes_in_flight += self.sequential.iter().filter(|op| matches!(op, DeviceOp::Write(_))).count();
        issue.extend(self.sequential.drain(..));
        self.drop_expired(now_ns);
        while !self.pending.is_empty() && self.writes_in_flight < MAX_WRITES_IN_FLIGHT {
            let group = self.pending.len().min(MAX_BATCH_WRITES).min(MAX_WRITES_IN_FLIGHT - self.writes_in_flight);
            let ready: Vec<Ready> =
                self.pending.iter().take(group).map(|p| Ready { slot: p.slot, clear: p.buf.is_none() }).collect();
            let plan = plan(&ready);
            let batch = match plan.durability {
                Durability::Each => None,
                Durability::Batch => match self.batches.iter().position(Option::is_none) {
                    Some(free) => Some(BatchId(free)),
                    // It gathers until a batch has ended.
                    None => return,
                },
            };
            if let Some(BatchId(index)) = batch {
                self.batches[index] =
                    Some(Batch { writing: plan.writes.len(), written: Vec::with_capacity(group), slots: Vec::new() });
            }
            let mut taken: Vec<Option<Pending>> = self.pending.drain(..group).map(Some).collect();
            for planned in plan.writes {
                let write = self.device_write(planned.first_slot, &planned.members, &mut taken, plan.durability, batch);
                self.writes_in_flight += 1;
                issue.push(DeviceOp::Write(write));
            }
        }
    }

    fn device_write(
        &self,
        first_slot: u32,
        members: &[usize],
        taken: &mut [Option<Pending>],
        durability: Durability,
        batch: Option<BatchId>,
    ) -> DeviceWrite {
        let mut ios = Vec::with_capacity(members.len());
        let mut deadline_ns: Option<u64> = None;
        let mut payload = None;
        for &member in members {
            let pending = taken[member].take().expect("the plan names each write once");
            ios.push(pending.io);
            deadline_ns = [deadline_ns, pending.deadline_ns].into_iter().flatten().min();
            payload = pending.buf.map(Payload::Buffer).or(payload);
        }
        DeviceWrite {
            offset: self.geometry.slot_offset(first_slot),
            len: members.len() * self.geometry.sector.bytes(),
            payload: payload.unwrap_or_else(|| Payload::Zeros(Arc::clone(&self.zeros))),
            durability,
            deadline_ns,
            first_slot,
            slot_count: members.len() as u32,
            ios,
            batch,
        }
    }

    fn drop_expired(&mut self, now_ns: u64) {
        let expired = |p: &Pending| p.deadline_ns.is_some_and(|deadline| now_ns >= deadline);
        if !self.pending.iter().any(expired) {
            return;
        }
        let (late, kept): (VecDeque<Pending>, _) = self.pending.drain(..).partition(expired);
        self.pending = kept;
        for pending in late {
            self.busy.remove(pending.slot);
            self.report(pending.io, Err(IoFault::Expired));
        }
    }

    /// An op has ended (or was found expired and not issued). Returns an op that must follow at once.
    pub(super) fn finished(&mut self, op: DeviceOp, result: Result<usize, IoFault>) -> Option<DeviceOp> {
        match op {
            DeviceOp::Write(write) => self.write_finished(write, result),
            DeviceOp::Sync(batch) => {
                self.batch_durable(batch, result.map(drop));
                None
            }
            DeviceOp::Read(read) => self.read_finished(read, result),
        }
    }

    fn write_finished(&mut self, write: DeviceWrite, result: Result<usize, IoFault>) -> Option<DeviceOp> {
        self.writes_in_flight -= 1;
        let whole = result.and_then(|got| IoFault::check(write.len, Ok(got)));
        let DeviceWrite { first_slot, slot_count, ios, batch, payload, .. } = write;
        match (batch, whole) {
            (Some(BatchId(index)), Ok(())) => {
                let batch = self.batches[index].as_mut().expect("a write belongs to a live batch");
                batch.written.extend(ios);
                batch.slots.push((first_slot, slot_count));
            }
            (_, result) => self.report_all(&[(first_slot, slot_count)], ios, result),
        }
        self.recycle(payload);
        self.close_batch(batch)
    }

    /// Counts a write of the batch as ended; with the last one, the batch's fdatasync is due.
    fn close_batch(&mut self, batch: Option<BatchId>) -> Option<DeviceOp> {
        let id = batch?;
        let batch = self.batches[id.0].as_mut().expect("a write belongs to a live batch");
        batch.writing -= 1;
        if batch.writing > 0 {
            return None;
        }
        if batch.written.is_empty() {
            self.batches[id.0] = None;
            return None;
        }
        Some(DeviceOp::Sync(id))
    }

    fn batch_durable(&mut self, id: BatchId, result: Result<(), IoFault>) {
        let batch = self.batches[id.0].take().expect("a sync belongs to a live batch");
        self.report_all(&batch.slots, batch.written, result);
    }

    fn report_all(&mut self, slots: &[(u32, u32)], ios: Vec<u64>, result: Result<(), IoFault>) {
        for &(first, count) in slots {
            (first..first + count).for_each(|slot| self.busy.remove(slot));
        }
        for io in ios {
            self.report(io, result);
        }
    }

    fn report(&mut self, io: u64, result: Result<(), IoFault>) {
        self.requests -= 1;
        self.done.push(RecordDone::Written { io, result });
    }

    fn recycle(&mut self, payload: Payload) {
        if let Payload::Buffer(buf) = payload
            && buf.len() == self.geometry.sector.bytes()
            && self.pool.len() < MAX_WRITES_IN_FLIGHT
        {
            self.pool.push(buf);
        }
    }

    fn read_finished(&mut self, mut read: DeviceRead, result: Result<usize, IoFault>) -> Option<DeviceOp> {
        let whole = result.and_then(|got| IoFault::check(read.len, Ok(got)));
        let next = match (read.single, whole) {
            (None, Ok(())) => read.count,
            (None, Err(_)) if read.count > 1 => 0,
            (at, result) => {
                let at = at.unwrap_or(0);
                if let Err(fault) = result {
                    read.target().fill(0);
                    read.unreadable.push((read.first_slot + at, fault));
                }
                at + 1
            }
        };
        if next < read.count {
            read.single = Some(next);
            read.len = self.geometry.sector.bytes();
            read.offset = self.geometry.slot_offset(read.first_slot + next);
            return Some(DeviceOp::Read(read));
        }
        self.requests -= 1;
        let (records, behind) = to_records(&read.buf, read.first_slot, self.geometry);
        read.unreadable.extend(behind);
        self.done.push(RecordDone::TableRead {
            io: read.io,
            first_slot: read.first_slot,
            records,
            unreadable: read.unreadable,
        });
        None
    }
}

/// The 512-byte records of consecutive sectors, and the slots whose sectors have something behind them.
pub(crate) fn to_records(sectors: &[u8], first_slot: u32, geometry: Geometry) -> (Vec<u8>, Vec<(u32, IoFault)>) {
    let size = geometry.sector.bytes();
    let mut records = Vec::with_capacity(sectors.len() / size * RECORD_BYTES);
    let mut behind = Vec::new();
    for (slot, sector) in (first_slot..).zip(sectors.chunks_exact(size)) {
        match sector_to_image(sector) {
            Ok(record) => records.extend_from_slice(record),
            Err(_) => {
                records.extend_from_slice(&sector[..RECORD_BYTES]);
                behind.push((slot, IoFault::TailNotZero));
            }
        }
    }
    (records, behind)
}

#[cfg(test)]
mod tests {
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
}
