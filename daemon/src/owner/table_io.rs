//! Table reads and writes of the core, cut into the largest requests that the device takes at once.

use mxlock_disklock::io::{EventLoop, IoFault as DiskFault, RecordDone};
use mxlock_dlm::io::{Input, IoFault, IoId, TableChunk};
use mxlock_format::RECORD_BYTES;
use std::collections::HashMap;
use std::sync::Arc;

/// Ids of parts have this bit; the core's own never reach it.
const PART: u64 = 1 << 63;

/// Table requests under way.
#[derive(Debug, Default)]
pub(crate) struct TableIo {
    next_part: u64,
    parts: HashMap<u64, IoId>,
    requests: HashMap<IoId, Request>,
}

#[derive(Debug)]
struct Request {
    left: usize,
    fault: Option<IoFault>,
    /// For a read.
    chunk: Option<TableChunk>,
}

impl TableIo {
    /// Reads `count` slots from `first_slot` on.
    pub(crate) fn read(&mut self, id: IoId, first_slot: u32, count: u32, io: &mut dyn EventLoop) {
        let chunk = TableChunk { first_slot, bytes: vec![0; count as usize * RECORD_BYTES], unreadable: Vec::new() };
        let step = io.chunk_slots();
        let left = count.div_ceil(step) as usize;
        self.requests.insert(id, Request { left, fault: None, chunk: Some(chunk) });
        for (first, count) in pieces(first_slot, count, step) {
            io.read_table(self.part_of(id), first, count);
        }
    }

    /// Writes `records`, 512 bytes for each slot, not after `deadline_ns`.
    pub(crate) fn write(
        &mut self,
        id: IoId,
        first_slot: u32,
        records: &[u8],
        deadline_ns: u64,
        io: &mut dyn EventLoop,
    ) {
        let step = io.chunk_slots();
        let count = (records.len() / RECORD_BYTES) as u32;
        self.requests.insert(id, Request { left: count.div_ceil(step) as usize, fault: None, chunk: None });
        for ((first, _), bytes) in pieces(first_slot, count, step).zip(records.chunks(step as usize * RECORD_BYTES)) {
            io.write_table(self.part_of(id), first, bytes, Some(deadline_ns));
        }
    }

    fn part_of(&mut self, id: IoId) -> u64 {
        self.next_part += 1;
        let part = PART | self.next_part;
        self.parts.insert(part, id);
        part
    }

    /// What the end of a request of the loop means to the core; `None` while parts of it are under way.
    pub(crate) fn done(&mut self, done: RecordDone) -> Option<Input> {
        match done {
            RecordDone::Written { io, result } if io & PART == 0 => {
                Some(Input::Written { io: IoId(io), result: result.map_err(fault) })
            }
            RecordDone::Written { io, result } => self.part_done(io, |request| {
                if let Err(error) = result {
                    request.blame(fault(error));
                }
            }),
            RecordDone::TableRead { io, first_slot, records, unreadable } => self.part_done(io, |request| {
                let Some(chunk) = &mut request.chunk else { return };
                let start = (first_slot - chunk.first_slot) as usize * RECORD_BYTES;
                chunk.bytes[start..start + records.len()].copy_from_slice(&records);
                for (slot, fault) in unreadable {
                    tracing::warn!(slot, "a record cannot be read: {fault}");
                    chunk.unreadable.push(slot);
                }
            }),
        }
    }

    fn part_done(&mut self, part: u64, merge: impl FnOnce(&mut Request)) -> Option<Input> {
        let id = self.parts.remove(&part)?;
        let request = self.requests.get_mut(&id)?;
        merge(request);
        request.left -= 1;
        if request.left > 0 {
            return None;
        }
        let Request { fault, chunk, .. } = self.requests.remove(&id)?;
        Some(match chunk {
            None => Input::Written { io: id, result: fault.map_or(Ok(()), Err) },
            Some(mut chunk) => {
                chunk.unreadable.sort_unstable();
                Input::TableRead { io: id, result: fault.map_or(Ok(chunk), Err) }
            }
        })
    }
}

impl Request {
    /// Keeps the worse fault: "unknown what is on disk" over "nothing was written".
    fn blame(&mut self, fault: IoFault) {
        if !matches!(self.fault, Some(IoFault::Failed(_))) {
            self.fault = Some(fault);
        }
    }
}

/// The core's word for a fault of the disk.
pub(crate) fn fault(fault: DiskFault) -> IoFault {
    match fault {
        DiskFault::Expired => IoFault::Expired,
        other => IoFault::Failed(Arc::from(other.to_string())),
    }
}

fn pieces(first_slot: u32, count: u32, step: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..count).step_by(step as usize).map(move |at| (first_slot + at, step.min(count - at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_once() {
        assert_eq!(pieces(10, 5, 2).collect::<Vec<_>>(), [(10, 2), (12, 2), (14, 1)]);
        assert_eq!(pieces(0, 2048, 2048).collect::<Vec<_>>(), [(0, 2048)]);
    }

    /// A request ends once, when its last part has; PROTOTYPE 10: an unreadable sector is named, never silently empty.
    #[test]
    fn parts_make_one_answer() {
        let mut table = TableIo::default();
        let chunk = TableChunk { first_slot: 4, bytes: vec![0; 3 * RECORD_BYTES], unreadable: vec![] };
        table.requests.insert(IoId(7), Request { left: 2, fault: None, chunk: Some(chunk) });
        let (one, two) = (table.part_of(IoId(7)), table.part_of(IoId(7)));
        let read = |io, first_slot, slots: usize, unreadable| RecordDone::TableRead {
            io,
            first_slot,
            records: vec![first_slot as u8; slots * RECORD_BYTES],
            unreadable,
        };
        assert!(table.done(read(two, 6, 1, vec![(6, DiskFault::TailNotZero)])).is_none());
        let Some(Input::TableRead { io: IoId(7), result: Ok(chunk) }) = table.done(read(one, 4, 2, vec![])) else {
            panic!("the request is done")
        };
        assert_eq!(chunk.unreadable, [6]);
        assert_eq!([chunk.bytes[0], chunk.bytes[2 * RECORD_BYTES]], [4, 6]);
        assert!(table.parts.is_empty() && table.requests.is_empty());
    }

    #[test]
    fn an_unknown_outcome_outweighs_a_missed_deadline() {
        let mut table = TableIo::default();
        table.requests.insert(IoId(7), Request { left: 2, fault: None, chunk: None });
        let (one, two) = (table.part_of(IoId(7)), table.part_of(IoId(7)));
        let failed = DiskFault::Short { wanted: 2, got: 1 };
        assert!(table.done(RecordDone::Written { io: one, result: Err(failed) }).is_none());
        let done = table.done(RecordDone::Written { io: two, result: Err(DiskFault::Expired) });
        assert!(matches!(done, Some(Input::Written { result: Err(IoFault::Failed(_)), .. })), "{done:?}");
    }
}
