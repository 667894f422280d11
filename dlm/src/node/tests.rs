//! One node on a disk in memory: what its records look like while its clients lock (section 7).

use super::*;
use crate::cluster::candidates;
use crate::io::{BeatRead, BeatWrite, IoFault, TableChunk};
use mxlock_format::{
    ClusterKey, Geometry, Heartbeat, LockRecord, LockState, Mode, Process, QualifiedName, RECORD_BYTES, Resource,
    SectorImage, SectorSize, Superblock, Timing, Uuid,
};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{
    AdoptRequest, Answer, ConvertRequest, Hello, LockRequest, Request, Response, UnlockRequest,
};
use mxlock_proto::peer::{PeerFrame, Pending, Presence, Report, ReportedLock};

mod demotion;
mod orphans;
mod persistence;

const SLOTS: u32 = 64;
const CONN: ConnId = ConnId(1);

fn superblock() -> Superblock {
    Superblock {
        geometry: Geometry { sector: SectorSize::S512, slot_count: SLOTS },
        timing: Timing { renew_ms: 200, lease_ms: 800, grace_ms: 300, dead_ms: 1_500, suspect_ms: 1_100 },
        lockspace: "test".to_owned(),
        uuid: Uuid([7; 16]),
        key: ClusterKey([9; 32]),
        feature_level: 1,
    }
}

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
        let node = NodeId::new(0).unwrap();
        let config = Config {
            node,
            superblock,
            node_uuid: Uuid([1; 16]),
            boot_id: Uuid([2; 16]),
            host: "solo".to_owned(),
            incarnation: Incarnation(77),
            seed: 5,
            addresses: vec![],
            ballots_from: Some(BootTime::default()),
            uncertain_until: None,
            fence_wait: true,
            orphan_lifetime_ms: 2_000,
            clear_behind_ms,
            uid: 0,
            pid: 1,
            lockstate: String::new(),
            io: String::new(),
            scope: String::new(),
            version: String::new(),
            warnings: vec![],
        };
        let candidate = candidates(&region, Some(node), None, config.node_uuid, config.boot_id).unwrap().remove(0);
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
        let process = Process { pid: 42, start_time: 1, uid: 0 };
        solo.input(Input::Connected { conn: CONN, process });
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
                    let range = first_slot as usize..(first_slot + count) as usize;
                    let bytes: Vec<u8> = self.slots[range].iter().flat_map(|image| image.0).collect();
                    assert_eq!(bytes.len(), count as usize * RECORD_BYTES);
                    let chunk = TableChunk { first_slot, bytes, unreadable: vec![] };
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
        self.request(Request::Lock(LockRequest {
            seq,
            resource: resource(name),
            mode,
            flags: LockFlags::NONE,
            range: None,
            timeout_ms: None,
            transaction,
            orphan_lifetime_ms: None,
        }));
    }

    fn unlock(&mut self, seq: u64) {
        self.request(Request::Unlock(UnlockRequest { seq, lvb: None, invalidate_lvb: false }));
    }

    fn unlock_writing(&mut self, seq: u64, value: u8) {
        self.request(Request::Unlock(UnlockRequest { seq, lvb: Some(vec![value]), invalidate_lvb: false }));
    }

    fn adopt(&mut self, seq: u64, name: &str, mode: Mode, persistent: bool) {
        self.request(Request::Adopt(AdoptRequest { seq, resource: resource(name), range: None, mode, persistent }));
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
        let decoded = (0..SLOTS).map(|slot| (slot, LockRecord::decode(slot, &self.slots[slot as usize].0).unwrap()));
        decoded.filter_map(|(slot, record)| record.map(|record| (slot, record))).collect()
    }
}

fn decode(sectors: &[SectorImage]) -> Box<Region> {
    let decoded: Vec<_> = NodeId::all().map(|node| Heartbeat::decode(node, &sectors[node.index()].0)).collect();
    Box::new(decoded.try_into().expect("64 sectors"))
}

fn resource(name: &str) -> Resource {
    Resource::named(QualifiedName::new(b"", name.as_bytes()).unwrap())
}

/// Names whose records have the same home slot.
fn colliding(count: usize) -> Vec<String> {
    let names = (0..).map(|n| format!("name-{n}"));
    names.filter(|name| resource(name).home_slot(SLOTS) == 5).take(count).collect()
}

/// PROTOTYPE 1 and 2: clearing a record does not hide one that it had displaced; that one is still found, changed in its
/// own slot, and cleared by its own release.
#[test]
fn a_displaced_record_outlives_the_one_before_it() {
    let mut solo = Solo::new();
    let names = colliding(2);
    solo.lock(1, &names[0], Mode::EX);
    solo.lock(2, &names[1], Mode::PR);
    assert!(solo.is_granted(1, 0, Mode::EX) && solo.is_granted(2, 0, Mode::PR));
    assert_eq!(solo.records().iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [5, 6]);
    solo.unlock(1);
    solo.until(|solo| solo.records().len() == 1);
    solo.convert(2, 1, Mode::EX, None);
    assert!(solo.is_granted(2, 1, Mode::EX));
    let records = solo.records();
    assert_eq!(records.len(), 1, "one lock, one record");
    assert_eq!((records[0].0, records[0].1.mode), (6, Mode::EX));
    solo.unlock(2);
    solo.until(|solo| solo.records().is_empty());
}

/// PROTOTYPE 3: colliding resources that are asked for at once get a slot each, and no record is lost. One owner places
/// them all, so there is no moment at which two could see the same slot free.
#[test]
fn records_placed_at_once_do_not_share_a_slot() {
    let mut solo = Solo::new();
    solo.hold = true;
    let names = colliding(20);
    for (seq, name) in (1..).zip(&names) {
        solo.lock(seq, name, Mode::EX);
    }
    assert_eq!(solo.held.len(), 20, "all writes are under way together");
    assert!((1..=20).all(|seq| solo.answers(seq, 0).is_empty()), "nothing is promised before its record is on disk");
    solo.hold = false;
    solo.land();
    assert!((1..=20).all(|seq| solo.is_granted(seq, 0, Mode::EX)));
    let mut on_disk: Vec<String> = solo.records().iter().map(|(_, record)| record.resource.to_string()).collect();
    let mut wanted = names;
    on_disk.sort();
    wanted.sort();
    assert_eq!(on_disk, wanted);
}

/// PROTOTYPE 16: the result of a grant's write is not ignored. The requester gets the error, nothing is granted, and the
/// master resigns (section 7).
#[test]
fn a_failed_write_grants_nothing() {
    let mut solo = Solo::new();
    solo.fail_writes = true;
    solo.lock(1, "data", Mode::EX);
    assert!(matches!(solo.answers(1, 0)[..], [Answer::Denied(Denial::Io)]));
    assert!(!solo.core.is_granting(Now { boot: solo.now, wall_ms: 0 }));
    let view = solo.core.view().unwrap().epoch;
    solo.until(|solo| Heartbeat::decode(solo.core.node(), &solo.heartbeats[0].0).unwrap().writes_uncertain);
    // Its successor, this node too, waits D: the write may still land.
    let resigned = solo.now;
    solo.fail_writes = false;
    solo.until(|solo| solo.core.view().unwrap().epoch > view);
    assert!(solo.now.since(resigned) >= Duration::from_millis(1_500));
    solo.until(|solo| solo.core.is_ready());
    solo.lock(2, "data", Mode::EX);
    assert!(solo.is_granted(2, 0, Mode::EX));
}

/// Section 7: a released lock's record stands for a while, and the same session takes the lock again on the strength of
/// it, without a write; at rest the record says what memory says (I10).
#[test]
fn a_standing_record_is_reused() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::EX);
    solo.unlock(1);
    assert_eq!(solo.records().len(), 1, "the release is behind");
    solo.hold = true;
    solo.lock(2, "data", Mode::PR);
    assert!(solo.held.is_empty() && solo.is_granted(2, 0, Mode::PR));
    solo.hold = false;
    solo.until(|solo| solo.records()[0].1.lock.seq == 2);
    assert_eq!((solo.records()[0].1.mode, solo.records()[0].1.state), (Mode::PR, LockState::Granted));
    solo.unlock(2);
    solo.until(|solo| solo.records().is_empty());
}

/// Section 7: a grant that finds no free slot fails with `table full`; a record that only stands makes room.
#[test]
fn a_full_table_says_so() {
    let mut solo = Solo::new();
    for seq in 1..=u64::from(SLOTS) {
        solo.lock(seq, &format!("name-{seq}"), Mode::EX);
        assert!(solo.is_granted(seq, 0, Mode::EX));
    }
    solo.lock(100, "one-more", Mode::EX);
    assert!(matches!(solo.answers(100, 0)[..], [Answer::Denied(Denial::TableFull)]));
    solo.unlock(7);
    solo.lock(101, "one-more", Mode::EX);
    assert!(solo.is_granted(101, 0, Mode::EX));
    assert_eq!(solo.records().len(), SLOTS as usize);
    assert_eq!(solo.stopped, None);
}

/// I9: an unlock that writes a value, and whose answer a failover cut off, may have been carried out. What others wrote
/// since went with their locks; so the value is not written again over theirs, and nobody is told that it is valid.
#[test]
fn an_unlock_that_a_failover_cut_off_does_not_bring_its_value_back() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::EX);
    solo.lock(2, "data", Mode::EX);
    solo.until(|solo| solo.records().len() == 2 && solo.held.is_empty());
    solo.hold = true;
    // The value is to be in the record of lock 2 before this is answered; lock 2 is granted at once.
    solo.unlock_writing(1, 1);
    assert!(solo.is_granted(2, 0, Mode::EX) && solo.answers(1, u32::MAX).is_empty());
    solo.unlock_writing(2, 2);
    assert!(matches!(solo.answers(2, u32::MAX)[..], [Answer::Unlocked]), "no lock stays that could carry the value");
    solo.lock(3, "data", Mode::NL);
    solo.fail_over();
    assert!(matches!(solo.answers(1, u32::MAX)[..], [Answer::Unlocked]));
    solo.lock(4, "data", Mode::PR);
    assert_ne!(solo.value(4, 0), Some((1, true)), "value 2 was the last one");
}

/// I9: a client that dies in PW or EX while there is no master leaves a value that is not valid.
#[test]
fn a_death_without_a_master_makes_the_value_doubtful() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::NL);
    solo.lock(2, "data", Mode::EX);
    solo.convert(2, 1, Mode::PR, Some(vec![7]));
    assert!(solo.is_granted(2, 1, Mode::PR));
    let carried = |solo: &Solo| {
        let lvb = solo.records().iter().find(|(_, r)| r.lock.seq == 1).and_then(|(_, r)| r.lvb.clone());
        lvb.is_some_and(|lvb| lvb.valid && lvb.bytes == [7])
    };
    solo.until(carried);
    let other = ConnId(2);
    let process = Process { pid: 43, start_time: 1, uid: 0 };
    solo.unlock(2);
    solo.input(Input::Connected { conn: other, process });
    let hello = Hello::first();
    solo.input(Input::Client { conn: other, request: Request::Hello(hello), subject: None });
    solo.input(Input::Client {
        conn: other,
        request: Request::Lock(LockRequest {
            seq: 50,
            resource: resource("data"),
            mode: Mode::EX,
            flags: LockFlags::NONE,
            range: None,
            timeout_ms: None,
            transaction: 0,
            orphan_lifetime_ms: None,
        }),
        subject: None,
    });
    assert_eq!(solo.value(50, 0), Some((7, true)));
    solo.hold = true;
    solo.lock(3, "something", Mode::EX);
    let view = solo.core.view().unwrap().epoch;
    solo.fail_writes = true;
    solo.land();
    solo.fail_writes = false;
    solo.hold = false;
    // The lock ends while its node has no master to tell of it.
    solo.until(|solo| !solo.core.is_granting(Now { boot: solo.now, wall_ms: 0 }));
    solo.input(Input::ProcessGone { process });
    solo.until(|solo| solo.core.view().unwrap().epoch > view && solo.core.is_ready());
    solo.lock(4, "data", Mode::PR);
    assert_eq!(solo.value(4, 0), Some((7, false)));
}

/// I7: the driver may find a promise over when its client has asked for the end of the lock already; the unlock is
/// answered all the same.
#[test]
fn an_unlock_is_answered_though_the_grant_was_not_delivered() {
    let mut solo = Solo::with_clear_behind(0);
    solo.lock(1, "data", Mode::PR);
    solo.hold = true;
    solo.unlock(1);
    solo.input(Input::Undelivered { conn: CONN, seq: 1, op: 0 });
    solo.hold = false;
    solo.land();
    assert!(matches!(solo.answers(1, u32::MAX)[..], [Answer::Unlocked]));
    assert!(solo.records().is_empty());
}

/// What another node's daemon says of a lock on "a".
fn reported(lock: LockId, granted: Option<Mode>, pending: Option<Pending>) -> ReportedLock {
    ReportedLock {
        lock,
        resource: resource("a"),
        range: None,
        granted,
        pending,
        token: mxlock_format::Token(0),
        granted_at_ms: 0,
        process: Process { pid: 9, start_time: 1, uid: 0 },
        transaction: 0,
        persistent: false,
        presence: Presence::Here,
        orphan_lifetime_ms: 0,
        lvb: None,
        releasing: false,
        adopted: false,
    }
}

/// Sections 6 and 7: a member that speaks late brings a request that the master has never heard of, because its record was
/// not written and its place was given by the master before. Those in its way are told, and it is granted in its turn.
#[test]
fn a_waiting_request_in_a_late_report_is_served() {
    let mut solo = Solo::new();
    solo.lock(1, "a", Mode::EX);
    let reign = solo.core.master.as_ref().unwrap().reign();
    let lock = LockId { session: mxlock_format::SessionId(9), seq: 1 };
    let pending = Pending { op: 0, wanted: Mode::PW, flags: LockFlags::NONE, position: 5 };
    let waits = reported(lock, None, Some(pending));
    let report = Report { epoch: reign, sessions: vec![lock.session], locks: vec![waits], last: true };
    let now = Now { boot: solo.now, wall_ms: 0 };
    let member = NodeId::new(1).unwrap();
    let master = solo.core.master.as_mut().unwrap();
    master.handle(now, member, Incarnation(8), PeerMessage::Report(report));
    solo.input(Input::Tick);
    assert!(solo.responses.iter().any(|said| matches!(said, Response::Bast { seq: 1, wanted: Mode::PW })));
    solo.unlock(1);
    let granted = |(_, record): &(u32, LockRecord)| record.lock == lock && record.mode == Mode::PW;
    solo.until(|solo| solo.records().iter().any(granted));
}

/// Section 5: who was excluded has no word any more. Its report may come after the view that it has still to read; what it
/// holds would stay for ever (simulator seed 70601).
#[test]
fn a_report_of_an_excluded_node_does_not_count() {
    let mut solo = Solo::new();
    let (node, incarnation) = (NodeId::new(1).unwrap(), Incarnation(8));
    let reign = solo.core.master.as_ref().unwrap().reign();
    solo.input(Input::PeerUp { node, incarnation });
    let lock = LockId { session: mxlock_format::SessionId(9), seq: 1 };
    let held = reported(lock, Some(Mode::EX), None);
    let report = Report { epoch: reign, sessions: vec![lock.session], locks: vec![held], last: true };
    let frame = PeerFrame {
        from: node,
        from_incarnation: incarnation,
        to_incarnation: solo.core.cluster.incarnation(),
        seq: 1,
        ack: 0,
        epoch: reign,
        message: Some(PeerMessage::Report(report)),
    };
    solo.input(Input::Peer { node, frame });
    solo.lock(1, "a", Mode::EX);
    solo.until(|solo| solo.is_granted(1, 0, Mode::EX));
}

/// Section 7, "Deadlock": the youngest waiting request of the cycle is refused when the cycle closes; the others go on, and a
/// failover in between changes nothing.
#[test]
fn the_youngest_request_of_a_deadlock_is_refused() {
    for failover in [false, true] {
        let mut solo = Solo::new();
        for (transaction, name) in [(1, "a"), (2, "b"), (3, "c")] {
            solo.lock_for(transaction, transaction, name, Mode::EX);
        }
        solo.lock_for(1, 11, "b", Mode::PR);
        solo.lock_for(2, 12, "c", Mode::EX);
        assert!(solo.answers(11, 0).is_empty() && solo.answers(12, 0).is_empty());
        if failover {
            solo.until(|solo| solo.records().len() == 5 && solo.held.is_empty());
            solo.hold = true;
            solo.lock(20, "another", Mode::NL);
            solo.fail_over();
        }
        solo.lock_for(3, 13, "a", Mode::EX);
        solo.until(|solo| !solo.answers(13, 0).is_empty());
        assert!(matches!(solo.answers(13, 0)[..], [Answer::Denied(Denial::Deadlock)]));
        assert!(solo.answers(11, 0).is_empty() && solo.answers(12, 0).is_empty());
        solo.unlock(3);
        solo.until(|solo| solo.is_granted(12, 0, Mode::EX));
        solo.unlock(12);
        solo.unlock(2);
        solo.until(|solo| solo.is_granted(11, 0, Mode::PR));
    }
}

/// I9, I11: the record that carried the newest value cannot be read: an older one that a holder remembers is not valid.
#[test]
fn a_damaged_record_makes_values_doubtful() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::EX);
    solo.convert(1, 1, Mode::NL, Some(vec![6]));
    solo.lock(2, "data", Mode::EX);
    solo.unlock_writing(2, 7);
    assert!(matches!(solo.answers(2, u32::MAX)[..], [Answer::Unlocked]));
    solo.until(|solo| solo.records().len() == 1 && solo.held.is_empty());
    let slot = solo.records()[0].0;
    solo.hold = true;
    solo.lock(3, "something", Mode::EX);
    solo.slots[slot as usize].0[100] ^= 1;
    solo.fail_over();
    solo.lock(4, "data", Mode::PR);
    assert!(!solo.value(4, 0).is_some_and(|(_, valid)| valid), "value 7 was the last one");
}

/// A grant that nobody waits for (its request was answered otherwise in a failover) is given back: it would stay for ever.
#[test]
fn a_lock_that_nobody_asked_for_is_given_back() {
    use mxlock_proto::peer::{NewLock, Operation, OperationKind};
    let mut solo = Solo::new();
    let (now, me) = (Now { boot: solo.now, wall_ms: 0 }, solo.core.node());
    let incarnation = solo.core.cluster.incarnation();
    let new = NewLock {
        resource: resource("data"),
        mode: Mode::EX,
        flags: LockFlags::NONE,
        range: None,
        process: Process { pid: 9, start_time: 1, uid: 0 },
        transaction: 0,
        orphan_lifetime_ms: 0,
    };
    let lock = LockId { session: mxlock_format::SessionId(9), seq: 1 };
    let operation = Operation { lock, op: 0, kind: OperationKind::Lock(Box::new(new)) };
    solo.core.master.as_mut().unwrap().handle(now, me, incarnation, PeerMessage::Operation(operation));
    solo.input(Input::Tick);
    solo.lock(1, "data", Mode::EX);
    solo.until(|solo| solo.is_granted(1, 0, Mode::EX));
}
