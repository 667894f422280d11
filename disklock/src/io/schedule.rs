//! What both backends share: gathering, deadlines, grouping, group commit. Does no I/O.

use super::op::{BatchId, DeviceOp, DeviceRead, DeviceWrite, Payload};
use super::{AlignedBuf, CHUNK_BYTES, Durability, IoFault, MAX_MERGED_CLEARS, Ready, RecordDone, RecordWrite, plan};
use mxlock_format::{Geometry, RECORD_BYTES, fill_sector};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most device writes of one batch; what is ready beyond it waits for the next.
pub const MAX_BATCH_WRITES: usize = 256;
/// Most batches under way: one that is being written while the other waits for its fdatasync. What becomes ready
/// meanwhile gathers for the next (group commit).
pub const MAX_BATCHES_IN_FLIGHT: usize = 2;
/// Most device writes under way; beyond it, writes stay queued.
pub const MAX_WRITES_IN_FLIGHT: usize = 1024;

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
        self.sequential.push_back(DeviceOp::Read(DeviceRead::new(io, first_slot, count, self.geometry)));
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
        if read.goes_on(result, self.geometry) {
            return Some(DeviceOp::Read(read));
        }
        self.requests -= 1;
        self.done.push(read.into_done(self.geometry));
        None
    }
}

#[cfg(test)]
mod tests;
