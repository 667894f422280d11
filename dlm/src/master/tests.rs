//! A master alone on a table in memory: what it makes of records and words that a whole cluster shows too rarely.
//! Each test is a counterexample of the model of recoveries (`docs/models.md`).

mod claims;

use super::*;
use crate::io::TableChunk;
use mxlock_format::{
    ClusterKey, Geometry, LockRecord, LockState, Phase, QualifiedName, RECORD_BYTES, SectorImage, SectorSize,
    Superblock, Timing, Uuid,
};
use mxlock_proto::LockFlags;
use mxlock_proto::client::Claim;
use mxlock_proto::peer::{ClaimQuestion, ClaimVerdict, NewLock, Operation, OperationKind, Presence, ReportedLock};

const SLOTS: u32 = 64;
const OLD: Incarnation = Incarnation(70);
const NEW: Incarnation = Incarnation(71);
const OTHER: Incarnation = Incarnation(80);
const REIGN: Epoch = Epoch(102);

fn node(number: u8) -> NodeId {
    NodeId::new(number.into()).unwrap()
}

fn process() -> Process {
    Process { pid: 42, start_time: 1, uid: 0 }
}

fn resource() -> Resource {
    Resource::named(QualifiedName::new(b"", b"data").unwrap())
}

fn id(session: u64, seq: u64) -> LockId {
    LockId { session: SessionId(session), seq }
}

/// A settled record of the reign before.
fn record(owner: u8, lock: LockId, mode: Mode, counter: u64) -> LockRecord {
    let epoch = Epoch(101);
    LockRecord {
        resource: resource(),
        owner: node(owner),
        owner_incarnation: OLD,
        mode,
        wanted: mode,
        state: LockState::Granted,
        granted_at_ms: 0,
        epoch,
        lock,
        token: Token::new(epoch, counter),
        table_epoch: epoch,
        queue_position: counter,
        persistent: false,
        orphan: false,
        process: process(),
        transaction: 0,
        range: None,
        orphan_lifetime_ms: 0,
        lvb: None,
    }
}

/// A master, its table and what it says. Record writes stay in `held` while `hold` is set.
struct Rig {
    master: Master,
    now: Now,
    slots: Vec<SectorImage>,
    /// Reads of the table that fail yet, in these slots.
    unreadable: (u32, Vec<u32>),
    hold: bool,
    held: VecDeque<(IoId, u32, Option<Box<SectorImage>>)>,
    said: Vec<(NodeId, PeerMessage)>,
}

impl Rig {
    /// A master that takes over; `awaited` lived through with these incarnations.
    fn new(records: &[LockRecord], awaited: &[(u8, Incarnation)]) -> Rig {
        Rig::with_unreadable(records, awaited, (0, vec![]))
    }

    fn with_unreadable(records: &[LockRecord], awaited: &[(u8, Incarnation)], unreadable: (u32, Vec<u32>)) -> Rig {
        let timing = Timing { renew_ms: 200, lease_ms: 800, grace_ms: 300, dead_ms: 1_500, suspect_ms: 1_100 };
        let config = Config {
            node: node(5),
            superblock: Superblock {
                geometry: Geometry { sector: SectorSize::S512, slot_count: SLOTS },
                timing,
                lockspace: "test".to_owned(),
                uuid: Uuid([7; 16]),
                key: ClusterKey([9; 32]),
                feature_level: 1,
            },
            node_uuid: Uuid([1; 16]),
            boot_id: Uuid([2; 16]),
            host: "rig".to_owned(),
            incarnation: Incarnation(90),
            seed: 5,
            addresses: vec![],
            ballots_from: Some(BootTime::default()),
            uncertain_until: None,
            fence_wait: true,
            orphan_lifetime_ms: 2_000,
            clear_behind_ms: 100,
            uid: 0,
            pid: 1,
            lockstate: String::new(),
            io: String::new(),
            scope: String::new(),
            version: String::new(),
            warnings: vec![],
        };
        let view = View {
            epoch: REIGN,
            master: node(5),
            master_incarnation: Incarnation(90),
            phase: Phase::Recovering,
            members: NodeSet(0b10_0011),
            owed: NodeSet(0),
            table_epoch: Epoch(101),
            feature_level: 1,
        };
        let now = Now { boot: BootTime(1_000_000_000), wall_ms: 0 };
        let awaited = awaited.iter().map(|(number, incarnation)| (node(*number), *incarnation)).collect();
        let mut slots = vec![SectorImage::zeroed(); SLOTS as usize];
        for (slot, record) in records.iter().enumerate() {
            slots[slot] = record.encode();
        }
        let mut master = Master::new(now, &config, &view, awaited, 0, false);
        master.set_lease(Some(BootTime(u64::MAX)));
        let (held, said) = (VecDeque::new(), vec![]);
        let mut rig = Rig { master, now, slots, unreadable, hold: false, held, said };
        rig.carry_out();
        rig
    }

    fn carry_out(&mut self) {
        loop {
            if let Some(output) = self.master.out.pop_front() {
                match output {
                    Output::ReadTable { io, first_slot, count } => {
                        let range = first_slot as usize..(first_slot + count) as usize;
                        let bytes: Vec<u8> = self.slots[range].iter().flat_map(|image| image.0).collect();
                        assert_eq!(bytes.len(), count as usize * RECORD_BYTES);
                        let (left, slots) = &mut self.unreadable;
                        let unreadable = if *left > 0 { slots.clone() } else { vec![] };
                        *left = left.saturating_sub(1);
                        self.master.table_read(self.now, io, Ok(TableChunk { first_slot, bytes, unreadable }));
                    }
                    Output::WriteTable { io, first_slot, count, .. } => {
                        for slot in first_slot..first_slot + count {
                            self.slots[slot as usize] = SectorImage(*self.master.mirror.image(slot));
                        }
                        self.master.written(self.now, io, Ok(()));
                    }
                    Output::WriteRecord { io, slot, image, .. } => {
                        self.held.push_back((io, slot, image));
                        if !self.hold {
                            self.land();
                        }
                    }
                    _ => {}
                }
            } else if let Some(order) = self.master.orders.pop_front() {
                match order {
                    Order::Send(to, message) => self.said.push((to, message)),
                    Order::Activate => self.master.activated(self.now),
                    Order::Resign { .. } => panic!("nothing has failed"),
                    Order::Log(_) => {}
                }
            } else {
                return;
            }
        }
    }

    fn land(&mut self) {
        while let Some((io, slot, image)) = self.held.pop_front() {
            self.slots[slot as usize] = image.map_or_else(SectorImage::zeroed, |image| *image);
            self.master.written(self.now, io, Ok(()));
        }
        if !self.hold {
            self.carry_out();
        }
    }

    fn records(&self) -> Vec<(u32, LockRecord)> {
        let decode = |(slot, image): (u32, &SectorImage)| Some((slot, LockRecord::decode(slot, &image.0).ok()??));
        (0..).zip(&self.slots).filter_map(decode).collect()
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now.boot = self.now.boot + Duration::from_millis(50);
            self.master.on_time(self.now);
            self.carry_out();
        }
    }

    fn hear(&mut self, from: u8, incarnation: Incarnation, message: PeerMessage) {
        self.master.handle(self.now, node(from), incarnation, message);
        self.carry_out();
        self.master.check_invariants().unwrap();
    }

    fn report(&mut self, from: u8, incarnation: Incarnation, sessions: &[u64], locks: Vec<ReportedLock>) {
        let sessions = sessions.iter().map(|session| SessionId(*session)).collect();
        self.hear(from, incarnation, PeerMessage::Report(Report { epoch: REIGN, sessions, locks, last: true }));
    }

    fn operate(&mut self, from: u8, incarnation: Incarnation, lock: LockId, op: u32, kind: OperationKind) {
        self.hear(from, incarnation, PeerMessage::Operation(Operation { lock, op, kind }));
    }

    fn ask(&mut self, from: u8, incarnation: Incarnation, lock: LockId, mode: Mode) {
        let new = NewLock {
            resource: resource(),
            mode,
            flags: LockFlags::NONE,
            range: None,
            process: process(),
            transaction: 0,
            orphan_lifetime_ms: 0,
        };
        self.operate(from, incarnation, lock, 0, OperationKind::Lock(Box::new(new)));
    }

    fn claim(&mut self, from: u8, session: u64, seq: u64, mode: Mode, token: Token) -> ClaimVerdict {
        let claims = vec![Claim { seq, resource: resource(), range: None, mode, token }];
        let question = ClaimQuestion { session: SessionId(session), process: process(), claims, asked: vec![] };
        self.hear(from, NEW, PeerMessage::Claim(question));
        let verdict = self.said.iter().rev().find_map(|(_, message)| match message {
            PeerMessage::Claimed(verdict) => Some(verdict.clone()),
            _ => None,
        });
        verdict.expect("a verdict")
    }

    fn is_granted(&self, lock: LockId, op: u32) -> bool {
        self.said.iter().any(|(_, message)| match message {
            PeerMessage::Outcome(outcome) => {
                outcome.lock == lock && outcome.op == op && matches!(outcome.result, OutcomeResult::Granted { .. })
            }
            _ => false,
        })
    }
}

fn held(lock: LockId, mode: Mode, token: Token) -> ReportedLock {
    ReportedLock {
        lock,
        resource: resource(),
        range: None,
        granted: Some(mode),
        pending: None,
        token,
        granted_at_ms: 0,
        process: process(),
        transaction: 0,
        persistent: false,
        presence: Presence::Here,
        orphan_lifetime_ms: 0,
        lvb: None,
        adopted: false,
        releasing: false,
    }
}

/// Section 6: what an owner that is not heard may hold blocks until it has spoken. Its session may have been claimed from
/// an earlier incarnation, which the record still names (decision 004): its lifetime is not over.
#[test]
fn a_claimed_lock_of_a_member_that_is_not_heard_does_not_expire() {
    let lock = id(1, 1);
    let mut rig = Rig::new(&[record(0, lock, Mode::EX, 1)], &[(0, NEW), (1, OTHER)]);
    rig.report(1, OTHER, &[2], vec![]);
    rig.pass(10_000);
    rig.ask(1, OTHER, id(2, 1), Mode::EX);
    rig.pass(1_000);
    assert!(!rig.is_granted(id(2, 1), 0), "its owner lives, and relies on it");
    rig.report(0, NEW, &[1], vec![held(lock, Mode::EX, Token::new(Epoch(101), 1))]);
    rig.operate(0, NEW, lock, u32::MAX, OperationKind::Unlock { lvb: None, invalidate_lvb: false, answer: true });
    assert!(rig.is_granted(id(2, 1), 0));
}

/// The same, where the session was not claimed: once the member has spoken, the lifetime begins.
#[test]
fn an_unclaimed_lock_expires_when_its_member_has_spoken() {
    let mut rig = Rig::new(&[record(0, id(1, 1), Mode::EX, 1)], &[(0, NEW), (1, OTHER)]);
    rig.report(1, OTHER, &[2], vec![]);
    rig.pass(1_000);
    rig.ask(1, OTHER, id(2, 1), Mode::EX);
    rig.report(0, NEW, &[], vec![]);
    rig.pass(1_000);
    assert!(!rig.is_granted(id(2, 1), 0), "it may still be claimed");
    rig.pass(2_000);
    assert!(rig.is_granted(id(2, 1), 0));
}

/// I5: a lock that was claimed after a restart of its daemon has its whole life again after the next one: the end that
/// was set at the first restart is not its end (simulator seed 83069).
#[test]
fn a_claimed_lock_has_its_whole_life_after_the_next_restart() {
    let lock = id(1, 1);
    let first = record(0, lock, Mode::EX, 1);
    let mut rig = Rig::new(std::slice::from_ref(&first), &[(1, OTHER), (0, NEW)]);
    rig.report(1, OTHER, &[], vec![]);
    rig.report(0, NEW, &[], vec![]);
    rig.pass(1_900);
    assert_eq!(rig.claim(0, 1, 1, Mode::EX, first.token).standing.len(), 1);
    rig.master.replaced(rig.now, node(0), Incarnation(72));
    rig.pass(1_900);
    assert_eq!(rig.records().len(), 1);
    rig.pass(200);
    assert!(rig.records().is_empty());
}

/// Section 6.5: a survivor is written in the slot where it was. Of several records of earlier locks of its session that is
/// the newest one that covers it, and not one that was being cleared: or a crash in the middle of the rewrite loses the lock.
#[test]
fn a_lock_is_rewritten_over_the_record_that_stands_for_it() {
    let records = [record(0, id(1, 1), Mode::PR, 1), record(0, id(1, 2), Mode::EX, 2)];
    let mut rig = Rig::new(&records, &[(0, OLD)]);
    rig.report(0, OLD, &[1], vec![held(id(1, 3), Mode::EX, Token::new(Epoch(101), 3))]);
    let after = rig.records();
    assert_eq!(after.iter().map(|(slot, record)| (*slot, record.lock)).collect::<Vec<_>>(), [(1, id(1, 3))]);
}

/// The same for a session that is claimed: an older record must not stand for its lock.
#[test]
fn a_claim_is_measured_by_the_record_that_stands_for_it() {
    let records = [record(0, id(1, 1), Mode::PR, 1), record(0, id(1, 2), Mode::EX, 2)];
    let mut rig = Rig::new(&records, &[]);
    rig.report(0, NEW, &[], vec![]);
    let verdict = rig.claim(0, 1, 3, Mode::EX, Token::new(Epoch(101), 3));
    assert_eq!(
        verdict.standing.iter().map(|lock| (lock.lock, lock.granted)).collect::<Vec<_>>(),
        [(id(1, 3), Some(Mode::EX))]
    );
}

/// Section 7: a client that was told of a conversion after its record was written has the mode that it says. With that of
/// the record it could convert back in place, while somebody else holds the resource.
#[test]
fn a_claim_with_a_later_token_counts_for_its_own_mode() {
    let mut rig = Rig::new(&[record(0, id(1, 1), Mode::PR, 1)], &[(1, OTHER)]);
    let theirs = held(id(2, 1), Mode::EX, Token::new(Epoch(101), 3));
    rig.report(1, OTHER, &[2], vec![theirs]);
    rig.report(0, NEW, &[], vec![]);
    let verdict = rig.claim(0, 1, 1, Mode::NL, Token::new(Epoch(101), 2));
    assert_eq!(verdict.standing[0].granted, Some(Mode::NL));
    let back = OperationKind::Convert { mode: Mode::PR, flags: LockFlags::NONE, lvb: None };
    rig.operate(0, NEW, id(1, 1), 7, back);
    assert!(!rig.is_granted(id(1, 1), 7), "another session holds it in EX");
}

/// Section 7: before a client is told that it holds a lock, a record names that lock. One that names the former owner of an
/// adopted lock, and was under way when that happened, does not.
#[test]
fn an_adopter_is_told_when_the_record_names_it() {
    let mut rig = Rig::new(&[], &[(0, OLD), (1, OTHER)]);
    rig.report(0, OLD, &[1], vec![]);
    rig.report(1, OTHER, &[2], vec![]);
    rig.hold = true;
    let new = NewLock {
        resource: resource(),
        mode: Mode::EX,
        flags: LockFlags::PERSISTENT,
        range: None,
        process: process(),
        transaction: 0,
        orphan_lifetime_ms: 0,
    };
    rig.operate(0, OLD, id(1, 1), 0, OperationKind::Lock(Box::new(new.clone())));
    rig.master.members = NodeSet(0b10_0010);
    rig.master.purge_node(rig.now, node(0));
    rig.carry_out();
    rig.operate(1, OTHER, id(2, 1), 0, OperationKind::Adopt(Box::new(new)));
    rig.land();
    rig.carry_out();
    assert!(!rig.is_granted(id(2, 1), 0), "the record names the dead node's lock");
    rig.hold = false;
    rig.land();
    assert!(rig.is_granted(id(2, 1), 0));
    assert_eq!(rig.records().iter().map(|(_, record)| record.lock).collect::<Vec<_>>(), [id(2, 1)]);
}

/// Section 5: the locks of an excluded node leave memory when their records are cleared. What the node, back again, asks
/// for meanwhile under the same name is another matter: it stays.
#[test]
fn what_is_asked_for_again_does_not_leave_with_the_dead() {
    let mut rig = Rig::new(&[], &[(0, OLD), (1, OTHER)]);
    rig.report(0, OLD, &[1], vec![]);
    rig.report(1, OTHER, &[2], vec![]);
    rig.ask(0, OLD, id(1, 1), Mode::EX);
    rig.hold = true;
    let members = rig.master.members;
    rig.master.members = NodeSet(0b10_0010);
    rig.master.purge_node(rig.now, node(0));
    rig.carry_out();
    rig.master.members = members;
    rig.report(0, NEW, &[1], vec![]);
    rig.said.clear();
    rig.ask(0, NEW, id(1, 1), Mode::EX);
    rig.hold = false;
    rig.land();
    assert!(rig.is_granted(id(1, 1), 0), "it has an answer");
    rig.ask(1, OTHER, id(2, 1), Mode::EX);
    assert!(!rig.is_granted(id(2, 1), 0), "and it is held");
    assert!(rig.records().iter().any(|(_, record)| record.lock == id(1, 1) && record.mode == Mode::EX));
}

/// Section 7, as in the kernel DLM: a lock's blocking notice comes after its grant. A client that hears of a lock in the way
/// which it does not have yet can do nothing about it.
#[test]
fn a_notice_waits_for_the_grant_to_be_told() {
    let mut rig = Rig::new(&[], &[(0, OLD), (1, OTHER)]);
    rig.report(0, OLD, &[1], vec![]);
    rig.report(1, OTHER, &[2], vec![]);
    rig.said.clear();
    rig.hold = true;
    rig.ask(0, OLD, id(1, 1), Mode::EX);
    rig.ask(1, OTHER, id(2, 1), Mode::PR);
    let notices = |rig: &Rig| {
        let heard = |(_, message): &(NodeId, PeerMessage)| match message {
            PeerMessage::Bast { lock, .. } => Some((*lock, rig.is_granted(*lock, 0))),
            _ => None,
        };
        rig.said.iter().filter_map(heard).collect::<Vec<_>>()
    };
    assert_eq!(notices(&rig), [], "its record is not on disk");
    rig.hold = false;
    rig.land();
    assert_eq!(notices(&rig), [(id(1, 1), true)]);
    let place = |wanted: fn(&PeerMessage) -> bool| rig.said.iter().position(|(_, message)| wanted(message)).unwrap();
    let granted = place(|message| matches!(message, PeerMessage::Outcome(_)));
    assert!(granted < place(|message| matches!(message, PeerMessage::Bast { .. })));
}

/// Section 6: a table that is out of reach while a path fails over is not a damaged one. Its records count when they can be
/// read (simulator seeds 78135 and 90780).
#[test]
fn a_table_that_is_out_of_reach_is_read_again() {
    let lock = id(1, 1);
    let mut rig = Rig::with_unreadable(&[record(0, lock, Mode::EX, 1)], &[(1, OTHER)], (5, (0..SLOTS).collect()));
    rig.report(1, OTHER, &[2], vec![]);
    rig.pass(200);
    assert!(!rig.master.active, "it has not been read");
    rig.pass(200);
    rig.ask(1, OTHER, id(2, 1), Mode::EX);
    assert!(rig.master.active && !rig.is_granted(id(2, 1), 0), "its owner may come back");
}

/// A sector that stays unreadable does not hold the cluster up: three looks, then it counts as damaged.
#[test]
fn a_sector_that_stays_unreadable_is_damaged() {
    let records = [record(0, id(1, 1), Mode::EX, 1)];
    let mut rig = Rig::with_unreadable(&records, &[(0, NEW), (1, OTHER)], (u32::MAX, vec![7]));
    rig.report(1, OTHER, &[2], vec![]);
    rig.report(0, NEW, &[], vec![]);
    rig.pass(200);
    assert!(rig.master.active);
    assert_eq!(rig.master.damaged.iter().copied().collect::<Vec<_>>(), [7]);
}

/// Section 7: an orphan that was adopted, and released by its adopter, is over, also if the daemon of its former owner, which
/// still speaks for it, was not told before the master died. It has no record any more.
#[test]
fn an_adopted_orphan_that_was_released_does_not_come_back() {
    let orphan = ReportedLock { persistent: true, presence: Presence::Gone, ..held(id(1, 1), Mode::EX, Token(7)) };
    let released = ReportedLock { adopted: true, releasing: true, ..held(id(2, 1), Mode::EX, Token(8)) };
    let kept = LockRecord { persistent: true, ..record(0, id(1, 1), Mode::EX, 7) };
    for (records, released, left) in
        [(vec![], vec![], 0), (vec![], vec![released.clone()], 0), (vec![kept.clone()], vec![], 1)]
    {
        let mut rig = Rig::new(&records, &[(0, OLD), (1, OTHER)]);
        rig.report(0, OLD, &[1], vec![orphan.clone()]);
        rig.report(1, OTHER, &[2], released.clone());
        assert_eq!(rig.records().len(), left, "in time, {} records", records.len());
        let mut rig = Rig::new(&records, &[(0, OLD), (1, OTHER)]);
        rig.report(1, OTHER, &[2], released);
        rig.pass(500);
        rig.report(0, OLD, &[1], vec![orphan.clone()]);
        rig.pass(500);
        assert_eq!(rig.records().len(), left, "late, {} records", records.len());
    }
}

/// I1, I11: a record that cannot be read may be of a lock that the session of a restarted daemon still holds, on any name:
/// as long as it may be claimed nobody is given anything, and whoever claims it has it, whatever old records say. (Crash
/// points of `tests/crash`, torn records of held locks.)
#[test]
fn while_a_damaged_record_may_be_claimed_nothing_is_granted() {
    for claims in [true, false] {
        // The record of a lock that was released before says EX; session 2 has waited for it.
        let records = [record(0, id(9, 1), Mode::EX, 1)];
        let mut rig = Rig::with_unreadable(&records, &[(1, OTHER)], (u32::MAX, vec![7]));
        let mut waits = held(id(2, 1), Mode::NL, Token::default());
        waits.granted = Some(Mode::NL);
        rig.report(1, OTHER, &[2], vec![waits]);
        rig.pass(200);
        assert!(rig.master.active && !rig.master.damaged.is_empty());
        rig.report(0, NEW, &[9], vec![]);
        rig.ask(1, OTHER, id(2, 3), Mode::NL);
        rig.ask(1, OTHER, id(2, 2), Mode::PR);
        rig.pass(1_000);
        assert!(!rig.is_granted(id(2, 2), 0), "somebody may hold it in EX");
        assert!(rig.is_granted(id(2, 3), 0), "NL is in nobody's way");
        let token = Token::new(Epoch(101), 2);
        if claims {
            let verdict = rig.claim(0, 1, 5, Mode::EX, token);
            assert_eq!(verdict.standing.iter().map(|lock| lock.lock).collect::<Vec<_>>(), [id(1, 5)]);
            assert!(rig.records().iter().any(|(_, record)| record.lock == id(1, 5) && record.mode == Mode::EX));
        }
        rig.pass(60_000);
        assert_eq!(rig.is_granted(id(2, 2), 0), !claims, "who has not claimed it for so long does not hold it");
        assert!(rig.master.damaged.is_empty());
    }
}

/// The same, of a member that could not be asked: it holds what it holds until it has spoken or is excluded.
#[test]
fn while_a_damaged_record_may_be_of_a_member_that_was_not_heard_nothing_is_granted() {
    for speaks in [true, false] {
        let mut rig = Rig::with_unreadable(&[], &[(0, OLD), (1, OTHER)], (u32::MAX, vec![7]));
        rig.report(1, OTHER, &[2], vec![held(id(2, 1), Mode::NL, Token::default())]);
        rig.pass(60_000);
        rig.ask(1, OTHER, id(2, 2), Mode::PR);
        assert!(rig.master.active && !rig.is_granted(id(2, 2), 0), "node 0 may hold it in EX");
        if speaks {
            rig.report(0, OLD, &[1], vec![held(id(1, 5), Mode::EX, Token::new(Epoch(101), 2))]);
        } else {
            rig.master.purge_node(rig.now, node(0));
            rig.pass(100);
        }
        assert_eq!(rig.is_granted(id(2, 2), 0), !speaks);
        assert!(rig.master.damaged.is_empty(), "all owners have spoken, or are gone");
    }
}

/// Section 7: an orphan was adopted, and the master failed before it told the orphan's daemon, which reports it: that daemon
/// is told now, or it would count a lock that nobody has (simulator seeds 6866 and 34878).
#[test]
fn the_daemon_of_an_adopted_orphan_is_told_by_the_next_master() {
    let orphan = id(1, 1);
    let mut rig = Rig::new(&[record(1, id(2, 1), Mode::PR, 2)], &[(0, OLD), (1, OTHER)]);
    let token = Token::new(Epoch(101), 2);
    rig.report(1, OTHER, &[2], vec![ReportedLock { adopted: true, ..held(id(2, 1), Mode::PR, token) }]);
    let left = held(orphan, Mode::PR, Token::new(Epoch(101), 1));
    rig.report(0, OLD, &[1], vec![ReportedLock { presence: Presence::Gone, persistent: true, ..left }]);
    let told = rig.said.iter().any(|(to, message)| {
        *to == node(0) && matches!(message, PeerMessage::Lost { lock, reason: LossReason::Adopted } if *lock == orphan)
    });
    assert!(told);
}

/// Section 7: what an excluded node left PERSISTENT is an orphan, also when the node is back, its session lives on, and a
/// failover comes: the session has lost it, and does not release it by not speaking of it.
#[test]
fn an_abandoned_orphan_outlives_a_failover() {
    let left = LockRecord { persistent: true, orphan: true, ..record(0, id(1, 1), Mode::EX, 1) };
    for late in [false, true] {
        let mut rig = Rig::new(std::slice::from_ref(&left), &[(0, NEW), (1, OTHER)]);
        rig.report(1, OTHER, &[2], vec![]);
        if late {
            rig.pass(1_000);
        }
        rig.report(0, NEW, &[1], vec![]);
        rig.pass(500);
        let records = rig.records();
        assert!(records.len() == 1 && records[0].1.orphan, "late: {late}");
    }
}
