//! A master alone on a table in memory: what it makes of records and words that a whole cluster shows too rarely.
//! Each test is a counterexample of the model of recoveries (`docs/models.md`).

use super::*;
use crate::io::TableChunk;
use crate::testing::{SLOTS, config, named, new_lock, process, read_table, records, reported};
use mxlock_format::{LockRecord, LockState, Phase, SectorImage};
use mxlock_proto::LockFlags;
use mxlock_proto::client::Claim;
use mxlock_proto::peer::{ClaimQuestion, ClaimVerdict, NewLock, Operation, OperationKind, Presence, ReportedLock};

mod adoption;
mod claims;
mod damage;
mod recovery;

const OLD: Incarnation = Incarnation(70);
const NEW: Incarnation = Incarnation(71);
const OTHER: Incarnation = Incarnation(80);
const REIGN: Epoch = Epoch(102);

fn node(number: u8) -> NodeId {
    NodeId::new(number.into()).unwrap()
}

fn id(session: u64, seq: u64) -> LockId {
    LockId { session: SessionId(session), seq }
}

/// A settled record of the reign before.
fn record(owner: u8, lock: LockId, mode: Mode, counter: u64) -> LockRecord {
    let epoch = Epoch(101);
    LockRecord {
        resource: named("data"),
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
        process: process(42),
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
        let mut master = Master::new(now, &config(5, 90), &view, awaited, 0, false);
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
                        let chunk = read_table(&self.slots, first_slot, count);
                        let (left, slots) = &mut self.unreadable;
                        let unreadable = if *left > 0 { slots.clone() } else { vec![] };
                        *left = left.saturating_sub(1);
                        self.master.table_read(self.now, io, Ok(TableChunk { unreadable, ..chunk }));
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
        records(&self.slots)
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
        let new = new_lock("data", mode);
        self.operate(from, incarnation, lock, 0, OperationKind::Lock(Box::new(new)));
    }

    fn claim(&mut self, from: u8, session: u64, seq: u64, mode: Mode, token: Token) -> ClaimVerdict {
        let claims = vec![Claim { seq, resource: named("data"), range: None, mode, token }];
        let question = ClaimQuestion { session: SessionId(session), process: process(42), claims, asked: vec![] };
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
    reported(lock, "data", mode, token)
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
