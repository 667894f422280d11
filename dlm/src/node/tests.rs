//! One node on a disk in memory: what its records look like while its clients lock (section 7).

use super::*;
use crate::cluster::candidates;
use crate::io::{BeatRead, BeatWrite, IoFault};
use crate::testing::{self, SLOTS, lock_request, named, process, read_table, records, superblock};
use mxlock_format::{Heartbeat, LockRecord, LockState, Mode, Process, SectorImage};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{
    AdoptRequest, Answer, ConvertRequest, Hello, LockRequest, Request, Response, UnlockRequest,
};

mod demotion;
mod master;
mod orphans;
mod persistence;
mod records;
mod values;

const CONN: ConnId = ConnId(1);

/// A core, its disk and its driver. Record writes stay in `held` while `hold` is set.
struct Solo {
    core: Core,
    now: BootTime,
    heartbeats: Vec<SectorImage>,
    slots: Vec<SectorImage>,
    newest: Option<(ImageId, Heartbeat)>,
    hb_seq: u64,
    beat_due: BootTime,
    hold: bool,
    held: VecDeque<(IoId, u32, Option<Box<SectorImage>>)>,
    fail_writes: bool,
    responses: Vec<Response>,
    stopped: Option<StopReason>,
}

impl Solo {
    /// A node that is master of a fresh lockstate, with one client.
    fn new() -> Solo {
        Solo::with_clear_behind(100)
    }

    fn with_clear_behind(clear_behind_ms: u32) -> Solo {
        let superblock = superblock();
        let heartbeats: Vec<SectorImage> =
            NodeId::all().map(|node| Heartbeat::empty(node, &superblock, Epoch(100)).encode()).collect();
        let region = decode(&heartbeats);
        let config = Config { clear_behind_ms, ..testing::config(0, 77) };
        let candidate =
            candidates(&region, Some(config.node), None, config.node_uuid, config.boot_id).unwrap().remove(0);
        let now = BootTime(1_000_000_000);
        let mut solo = Solo {
            core: Core::new(Now { boot: now, wall_ms: 0 }, config, candidate, &region),
            now,
            heartbeats,
            slots: vec![SectorImage::zeroed(); SLOTS as usize],
            newest: None,
            hb_seq: 0,
            beat_due: now,
            hold: false,
            held: VecDeque::new(),
            fail_writes: false,
            responses: vec![],
            stopped: None,
        };
        solo.carry_out();
        solo.until(|solo| solo.core.is_ready());
        solo.input(Input::Connected { conn: CONN, process: process(42) });
        solo.request(Request::Hello(Hello::first()));
        solo
    }

    fn input(&mut self, input: Input) {
        self.core.handle(Now { boot: self.now, wall_ms: 0 }, input);
        self.carry_out();
        self.core.check_invariants().unwrap();
    }

    fn request(&mut self, request: Request) {
        self.input(Input::Client { conn: CONN, request, subject: None });
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Heartbeat { image, heartbeat, urgent, .. } => {
                    self.newest = Some((image, *heartbeat));
                    if urgent {
                        self.beat_due = self.now;
                    }
                }
                Output::Look => self.beat_due = self.now,
                Output::WriteRecord { io, slot, image, .. } => self.held.push_back((io, slot, image)),
                Output::WriteTable { io, first_slot, count, .. } => {
                    for slot in first_slot..first_slot + count {
                        self.slots[slot as usize] = SectorImage(*self.core.mirror().image(slot));
                    }
                    self.input(Input::Written { io, result: Ok(()) });
                }
                Output::ReadTable { io, first_slot, count } => {
                    let chunk = read_table(&self.slots, first_slot, count);
                    self.input(Input::TableRead { io, result: Ok(chunk) });
                }
                Output::Reply { response, .. } => self.responses.push(response),
                Output::Stop { reason } => self.stopped = Some(reason),
                _ => {}
            }
        }
        if !self.hold {
            self.land();
        }
    }

    /// Carries out the record writes that are held, in order.
    fn land(&mut self) {
        while let Some((io, slot, image)) = self.held.pop_front() {
            let result = if self.fail_writes {
                Err(IoFault::Failed("the disk says no".into()))
            } else {
                self.slots[slot as usize] = image.map_or_else(SectorImage::zeroed, |image| *image);
                Ok(())
            };
            self.input(Input::Written { io, result });
        }
    }

    /// Lets a millisecond pass.
    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        if self.now >= self.beat_due {
            self.beat_due = self.now + Duration::from_millis(200);
            let started = self.now;
            let write = self.newest.clone().map(|(image, heartbeat)| {
                self.hb_seq += 1;
                let stamped = Heartbeat { hb_seq: self.hb_seq, boottime_ns: started.0, ..heartbeat };
                self.heartbeats[0] = stamped.encode();
                BeatWrite { image, hb_seq: self.hb_seq, started, result: Ok(()) }
            });
            let region = decode(&self.heartbeats);
            let read = BeatRead { issued: self.now, ended: self.now, region };
            self.input(Input::Beat(Beat { write, read: Some(Ok(read)) }));
        }
        if self.core.next_wakeup().is_some_and(|at| at <= self.now) {
            self.input(Input::Tick);
        }
    }

    fn until(&mut self, done: impl Fn(&Solo) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("it did not come to that within 20 s");
    }

    fn lock(&mut self, seq: u64, name: &str, mode: Mode) {
        self.lock_for(0, seq, name, mode);
    }

    /// A lock of a transaction; 0: of none.
    fn lock_for(&mut self, transaction: u64, seq: u64, name: &str, mode: Mode) {
        self.request(Request::Lock(LockRequest { transaction, ..lock_request(seq, name, mode) }));
    }

    fn unlock(&mut self, seq: u64) {
        self.request(Request::Unlock(UnlockRequest { seq, lvb: None, invalidate_lvb: false }));
    }

    fn unlock_writing(&mut self, seq: u64, value: u8) {
        self.request(Request::Unlock(UnlockRequest { seq, lvb: Some(vec![value]), invalidate_lvb: false }));
    }

    fn adopt(&mut self, seq: u64, name: &str, mode: Mode, persistent: bool) {
        self.request(Request::Adopt(AdoptRequest { seq, resource: named(name), range: None, mode, persistent }));
    }

    fn convert(&mut self, seq: u64, op: u32, mode: Mode, lvb: Option<Vec<u8>>) {
        let flags = LockFlags::NONE;
        self.request(Request::Convert(ConvertRequest { seq, op, mode, flags, timeout_ms: None, lvb }));
    }

    /// All writes that are under way fail; this node resigns, and is elected again.
    fn fail_over(&mut self) {
        let view = self.core.view().unwrap().epoch;
        self.fail_writes = true;
        self.land();
        self.fail_writes = false;
        self.hold = false;
        self.until(|solo| solo.core.view().unwrap().epoch > view && solo.core.is_ready());
    }

    /// The value that a grant told, and whether it is valid.
    fn value(&self, seq: u64, op: u32) -> Option<(u8, bool)> {
        match self.answers(seq, op)[..] {
            [Answer::Granted(grant)] => grant.lvb.as_ref().map(|lvb| (lvb.bytes[0], lvb.valid)),
            ref other => panic!("not one grant: {other:?}"),
        }
    }

    fn answers(&self, seq: u64, op: u32) -> Vec<&Answer> {
        let of = |response| match response {
            &Response::Answer { seq: s, op: o, ref answer } if (s, o) == (seq, op) => Some(answer),
            _ => None,
        };
        self.responses.iter().filter_map(of).collect()
    }

    fn is_granted(&self, seq: u64, op: u32, mode: Mode) -> bool {
        matches!(self.answers(seq, op)[..], [Answer::Granted(grant)] if grant.mode == mode)
    }

    fn records(&self) -> Vec<(u32, LockRecord)> {
        records(&self.slots)
    }
}

fn decode(sectors: &[SectorImage]) -> Box<Region> {
    let decoded: Vec<_> = NodeId::all().map(|node| Heartbeat::decode(node, &sectors[node.index()].0)).collect();
    Box::new(decoded.try_into().expect("64 sectors"))
}
