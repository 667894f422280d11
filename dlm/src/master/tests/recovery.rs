//! What members report and sessions claim after a failover or a restart (sections 6 and 7; I5).

use super::*;

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

/// The same where both records name the lock: it was released, and asked for again under its name.
#[test]
fn of_two_records_of_one_lock_the_newer_one_is_its() {
    for (older, newer) in [(0, 1), (1, 0)] {
        let mut records = [record(0, id(1, 1), Mode::PR, 1), record(0, id(1, 1), Mode::EX, 2)];
        if newer == 0 {
            records.reverse();
        }
        let mut rig = Rig::new(&records, &[(0, OLD)]);
        rig.report(0, OLD, &[1], vec![held(id(1, 1), Mode::EX, Token::new(Epoch(101), 2))]);
        let after: Vec<_> = rig.records().iter().map(|(slot, record)| (*slot, record.mode)).collect();
        assert_eq!(after, [(newer, Mode::EX)], "the older one in {older}");
    }
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
