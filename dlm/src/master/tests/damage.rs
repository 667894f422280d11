//! Tables that are out of reach, and records that cannot be read (section 6; I11).

use super::*;

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
