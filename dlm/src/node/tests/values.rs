//! Value blocks over failovers, deaths and damage (I9).

use super::*;

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
    let process = process(43);
    solo.unlock(2);
    solo.input(Input::Connected { conn: other, process });
    for request in [Request::Hello(Hello::first()), Request::Lock(lock_request(50, "data", Mode::EX))] {
        solo.input(Input::Client { conn: other, request, subject: None });
    }
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
