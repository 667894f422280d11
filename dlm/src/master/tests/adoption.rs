//! Orphans and who adopts them, over failovers (section 7).

use super::*;

/// Section 7: before a client is told that it holds a lock, a record names that lock. One that names the former owner of an
/// adopted lock, and was under way when that happened, does not.
#[test]
fn an_adopter_is_told_when_the_record_names_it() {
    let mut rig = Rig::new(&[], &[(0, OLD), (1, OTHER)]);
    rig.report(0, OLD, &[1], vec![]);
    rig.report(1, OTHER, &[2], vec![]);
    rig.hold = true;
    let new = NewLock { flags: LockFlags::PERSISTENT, ..new_lock("data", Mode::EX) };
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
