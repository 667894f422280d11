//! Sessions that come back to a daemon without memory, and what they cannot know of (section 7).

use super::*;
use mxlock_format::{Lvb, LvbSequence};

impl Rig {
    /// A session asks for a lock, or to adopt one, without hearing of it, and comes back.
    fn claim_unheard(&mut self, from: u8, session: u64, asked: &[u64]) {
        let question =
            ClaimQuestion { session: SessionId(session), process: process(42), claims: vec![], asked: asked.to_vec() };
        self.said.clear();
        self.hear(from, NEW, PeerMessage::Claim(question));
    }

    fn verdict(&self) -> Option<&ClaimVerdict> {
        self.said.iter().find_map(|(_, message)| match message {
            PeerMessage::Claimed(verdict) => Some(verdict),
            _ => None,
        })
    }

    fn names(&self) -> Vec<(LockId, bool)> {
        self.records().iter().map(|(_, record)| (record.lock, record.orphan)).collect()
    }
}

fn persistent(lock: LockId, mode: Mode) -> LockRecord {
    LockRecord { persistent: true, ..record(0, lock, mode, 1) }
}

fn adoption(mode: Mode) -> OperationKind {
    let flags = LockFlags::PERSISTENT | LockFlags::NOQUEUE;
    OperationKind::Adopt(Box::new(NewLock { flags, ..new_lock("data", mode) }))
}

/// I5: a session is granted what it has asked for or to adopt, and its daemon loses its memory before it says so. What the session
/// says it has asked for is its own; it cannot claim what it has not heard of (simulator seed 2024566). What it does not speak of is
/// released, or an orphan if it is PERSISTENT: it may have lost it.
#[test]
fn what_was_granted_unheard_is_not_released() {
    let lock = id(1, 1);
    let cases = [
        (true, &[1][..], Some((lock, false))),
        (true, &[], Some((lock, true))),
        (false, &[1], Some((lock, false))),
        (false, &[], None),
    ];
    for (is_persistent, asked, left_over) in cases {
        let left = LockRecord { persistent: is_persistent, ..record(0, lock, Mode::EX, 1) };
        let mut rig = Rig::new(std::slice::from_ref(&left), &[(0, NEW)]);
        rig.report(0, NEW, &[], vec![]);
        rig.claim_unheard(0, 1, asked);
        let verdict = rig.verdict().unwrap();
        assert!(verdict.known);
        let granted: Vec<_> = verdict.standing.iter().map(|lock| (lock.lock, lock.granted)).collect();
        assert_eq!(granted, if asked.is_empty() { vec![] } else { vec![(lock, Some(Mode::EX))] });
        assert!(verdict.standing.iter().all(|lock| lock.token > left.token), "it is told now (I2)");
        rig.pass(500);
        assert_eq!(rig.names(), left_over.into_iter().collect::<Vec<_>>());
    }
}

/// I3: the same under the master that is just granting it: the session hears of it when its record says so.
#[test]
fn what_is_being_granted_unheard_is_claimed_when_it_is_on_disk() {
    let left = LockRecord { orphan: true, ..persistent(id(9, 1), Mode::EX) };
    let left = LockRecord { owner: node(3), ..left };
    let mut rig = Rig::new(&[left], &[(0, OLD)]);
    rig.report(0, OLD, &[1], vec![]);
    rig.hold = true;
    rig.operate(0, OLD, id(1, 1), 0, adoption(Mode::EX));
    rig.master.replaced(rig.now, node(0), NEW);
    rig.report(0, NEW, &[], vec![]);
    rig.claim_unheard(0, 1, &[1]);
    assert!(rig.verdict().is_none(), "the record does not name it");
    rig.hold = false;
    rig.land();
    assert_eq!(rig.verdict().unwrap().standing.len(), 1);
    assert!(!rig.is_granted(id(1, 1), 0), "its daemon knows it from the verdict only");
    rig.pass(500);
    assert_eq!(rig.names(), [(id(1, 1), false)]);
}

/// I5: a session that has lost a PERSISTENT lock to an exclusion, and then its daemon's memory, does not claim the lock: it is still
/// an orphan.
#[test]
fn what_a_session_has_lost_is_not_released_by_its_claims() {
    let lost = LockRecord { orphan: true, ..persistent(id(1, 1), Mode::CR) };
    let kept = record(0, id(1, 2), Mode::CR, 2);
    let mut rig = Rig::new(&[lost, kept], &[(0, NEW)]);
    rig.report(0, NEW, &[], vec![]);
    let token = Token::new(Epoch(101), 2);
    let verdict = rig.claim(0, 1, 2, Mode::CR, token);
    assert_eq!(verdict.standing.iter().map(|lock| lock.lock).collect::<Vec<_>>(), [id(1, 2)]);
    rig.pass(500);
    assert_eq!(rig.names(), [(id(1, 1), true), (id(1, 2), false)]);
}

/// Section 7: a PERSISTENT lock is released after its record was cleared, also if its owner has asked an earlier master for
/// that, and was not heard by this one in time.
#[test]
fn a_late_release_is_acknowledged_after_the_clear() {
    for seq in [1, 2] {
        // The record may still name an earlier lock of its session.
        let lock = id(1, seq);
        let mut rig = Rig::new(&[persistent(id(1, 1), Mode::EX)], &[(0, OLD), (1, OTHER)]);
        rig.report(1, OTHER, &[2], vec![]);
        rig.pass(10_000);
        rig.hold = true;
        let released = held(lock, Mode::EX, Token::new(Epoch(101), 1));
        rig.report(0, OLD, &[1], vec![ReportedLock { persistent: true, releasing: true, ..released }]);
        let unlock = OperationKind::Unlock { lvb: None, invalidate_lvb: false, answer: true };
        rig.operate(0, OLD, lock, u32::MAX, unlock);
        let answered = |rig: &Rig| {
            let unlocked = |message: &PeerMessage| {
                matches!(message, PeerMessage::Outcome(outcome)
                    if outcome.lock == lock && outcome.result == OutcomeResult::Unlocked)
            };
            rig.said.iter().any(|(_, message)| unlocked(message))
        };
        assert!(!answered(&rig), "a failover would make it an orphan");
        rig.hold = false;
        rig.land();
        assert!(answered(&rig) && rig.names().is_empty());
    }
}

/// I5: whoever asked to adopt a PERSISTENT lock will not hear that it has it: the lock is an orphan again, which others can adopt.
#[test]
fn what_is_disowned_is_an_orphan_again() {
    let left = LockRecord { owner: node(3), orphan: true, ..persistent(id(9, 1), Mode::EX) };
    let mut rig = Rig::new(&[left], &[(0, OLD)]);
    rig.report(0, OLD, &[1], vec![]);
    rig.operate(0, OLD, id(1, 1), 0, adoption(Mode::EX));
    rig.operate(0, OLD, id(1, 1), 0, OperationKind::Disown);
    rig.pass(500);
    assert_eq!(rig.names(), [(id(1, 1), true)]);
    rig.operate(0, OLD, id(1, 2), 0, adoption(Mode::EX));
    assert!(rig.is_granted(id(1, 2), 0));
    rig.said.clear();
    rig.operate(0, OLD, id(1, 7), 0, OperationKind::Disown);
    let denied = |(_, message): &(NodeId, PeerMessage)| {
        matches!(message, PeerMessage::Outcome(outcome)
            if outcome.lock == id(1, 7) && outcome.result == OutcomeResult::Denied(Denial::NotFound))
    };
    assert!(rig.said.iter().any(denied), "there is no such lock");
}

/// I9: a client that was writing a value when its daemon lost its memory claims its lock in NL. The value is lost, and that is on
/// disk before the client hears that the lock is released: a failover must not take the one before for the last.
#[test]
fn a_value_that_is_lost_is_doubtful_before_its_writer_is_answered() {
    let lvb = Some(Lvb { bytes: vec![3], sequence: LvbSequence { epoch: Epoch(101), n: 1 }, valid: true });
    let writer = LockRecord { lvb: lvb.clone(), ..record(0, id(1, 1), Mode::EX, 1) };
    let stays = LockRecord { lvb: lvb.clone(), owner_incarnation: OTHER, ..record(1, id(2, 1), Mode::NL, 2) };
    let mut rig = Rig::new(&[writer, stays], &[(0, NEW), (1, OTHER)]);
    let token = |counter| Token::new(Epoch(101), counter);
    rig.report(1, OTHER, &[2], vec![ReportedLock { lvb, ..held(id(2, 1), Mode::NL, token(2)) }]);
    rig.report(0, NEW, &[], vec![]);
    rig.claim(0, 1, 1, Mode::NL, token(1));
    rig.hold = true;
    let unlock = OperationKind::Unlock { lvb: Some(vec![4]), invalidate_lvb: false, answer: true };
    rig.operate(0, NEW, id(1, 1), u32::MAX, unlock);
    let answered = |rig: &Rig| {
        rig.said.iter().any(|(_, message)| {
            matches!(message, PeerMessage::Outcome(outcome)
                if outcome.lock == id(1, 1) && outcome.result == OutcomeResult::Unlocked)
        })
    };
    assert!(!answered(&rig));
    rig.hold = false;
    rig.land();
    assert!(answered(&rig));
    let of_stays = rig.records().into_iter().find(|(_, record)| record.lock == id(2, 1)).unwrap().1;
    assert!(of_stays.lvb.is_some_and(|lvb| !lvb.valid));
}

/// I5: an orphan is adopted, disowned and adopted again before any record names an adopter. Until one does, the daemon of its
/// owner speaks for it.
#[test]
fn an_owner_hears_of_the_second_adoption_when_a_record_names_it() {
    let left = persistent(id(9, 1), Mode::EX);
    let mut rig = Rig::new(&[left], &[(0, OLD), (1, OTHER)]);
    let orphan = ReportedLock {
        presence: Presence::Gone,
        persistent: true,
        ..held(id(9, 1), Mode::EX, Token::new(Epoch(101), 1))
    };
    rig.report(0, OLD, &[9], vec![orphan]);
    rig.report(1, OTHER, &[2], vec![]);
    rig.hold = true;
    rig.operate(1, OTHER, id(2, 1), 0, adoption(Mode::EX));
    rig.operate(1, OTHER, id(2, 1), 0, OperationKind::Disown);
    rig.operate(1, OTHER, id(2, 2), 0, adoption(Mode::EX));
    let lost = |rig: &Rig| {
        let lost = rig.said.iter().filter_map(|(to, message)| match message {
            PeerMessage::Lost { lock, .. } => Some((*to, *lock)),
            _ => None,
        });
        lost.collect::<Vec<_>>()
    };
    assert_eq!(lost(&rig), []);
    rig.hold = false;
    rig.land();
    assert_eq!(lost(&rig), [(node(0), id(9, 1)), (node(1), id(2, 1))]);
    assert_eq!(rig.names(), [(id(2, 2), false)]);
}
