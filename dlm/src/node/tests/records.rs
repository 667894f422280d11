//! Records: where they are, when they are written, cleared and used again, and what a failed write means (sections 3 and 7).

use super::*;

/// Names whose records have the same home slot.
fn colliding(count: usize) -> Vec<String> {
    let names = (0..).map(|n| format!("name-{n}"));
    names.filter(|name| named(name).home_slot(SLOTS) == 5).take(count).collect()
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
