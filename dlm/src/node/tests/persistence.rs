//! Conversions that change whether a lock outlives its owner, and that invalidate a value; adoption (section 7).

use super::*;
use mxlock_format::ByteRange;
use mxlock_proto::client::{AdoptRequest, Denial};

impl Solo {
    fn convert_with(&mut self, seq: u64, op: u32, mode: Mode, flags: LockFlags) {
        self.request(Request::Convert(ConvertRequest { seq, op, mode, flags, timeout_ms: None, lvb: None }));
    }

    fn adopt_range(&mut self, seq: u64, name: &str, range: ByteRange, mode: Mode) {
        let request = AdoptRequest { seq, resource: named(name), range: Some(range), mode, persistent: true };
        self.request(Request::Adopt(request));
    }

    fn lock_range(&mut self, seq: u64, name: &str, range: ByteRange, mode: Mode) {
        self.request(Request::Lock(LockRequest {
            flags: LockFlags::PERSISTENT,
            range: Some(range),
            ..lock_request(seq, name, mode)
        }));
    }

    /// The client's process ends and another one of the same user takes its place.
    fn next_process(&mut self, pid: u32) {
        self.input(Input::ProcessGone { process: process(pid - 1) });
        self.input(Input::Connected { conn: CONN, process: process(pid) });
        self.request(Request::Hello(Hello::first()));
    }

    pub(super) fn persistent_records(&self) -> Vec<(Mode, LockState)> {
        let records = self.records().into_iter().filter(|(_, record)| record.persistent);
        records.map(|(_, record)| (record.mode, record.state)).collect()
    }
}

/// I1: what one process could hold in overlapping parts (OWN) is not divided among those who adopt.
#[test]
fn overlapping_orphans_are_not_adopted_one_by_one() {
    let mut solo = Solo::new();
    let (low, high) = (ByteRange::new(0, 9).unwrap(), ByteRange::new(5, 14).unwrap());
    solo.lock_range(1, "data", low, Mode::EX);
    solo.request(Request::Lock(LockRequest {
        flags: LockFlags::PERSISTENT | LockFlags::OWN,
        range: Some(high),
        ..lock_request(2, "data", Mode::EX)
    }));
    assert!(solo.is_granted(2, 0, Mode::EX));
    solo.next_process(43);
    solo.until(|solo| solo.records().iter().filter(|(_, record)| record.orphan).count() == 2);
    for (seq, range) in [(7, low), (8, high)] {
        solo.adopt_range(seq, "data", range, Mode::EX);
        assert!(matches!(solo.answers(seq, 0)[..], [Answer::Denied(Denial::Busy)]));
    }
}

/// Section 7: PERSISTENT locks are granted only after the `granted` write, also when a conversion makes them so, and although
/// the record that stands names a stronger mode.
#[test]
fn a_conversion_makes_a_lock_persistent_once_its_record_says_so() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::EX);
    solo.hold = true;
    solo.convert_with(1, 1, Mode::PR, LockFlags::PERSISTENT);
    assert!(solo.answers(1, 1).is_empty(), "no record says PERSISTENT yet");
    solo.hold = false;
    solo.land();
    assert!(solo.is_granted(1, 1, Mode::PR));
    assert_eq!(solo.persistent_records(), [(Mode::PR, LockState::Granted)]);
    solo.next_process(43);
    solo.until(|solo| solo.records().iter().any(|(_, record)| record.orphan));
    solo.adopt(7, "data", Mode::EX, false);
    assert!(matches!(solo.answers(7, 0)[..], [Answer::Denied(Denial::Busy)]), "there is one in another mode");
    solo.adopt(8, "other", Mode::EX, false);
    assert!(matches!(solo.answers(8, 0)[..], [Answer::Denied(Denial::NotFound)]));
    solo.adopt(9, "data", Mode::PR, true);
    assert!(solo.is_granted(9, 0, Mode::PR));
    solo.next_process(44);
    solo.adopt(10, "data", Mode::PR, false);
    assert!(solo.is_granted(10, 0, Mode::PR), "it was adopted as PERSISTENT");
    solo.next_process(45);
    solo.until(|solo| solo.records().is_empty());
}

/// A conversion to TRANSIENT takes it back; not before no record says PERSISTENT any more, or a death would leave an orphan of
/// a lock whose end was acknowledged.
#[test]
fn a_conversion_makes_a_persistent_lock_end_with_its_owner() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::NL);
    solo.convert_with(1, 1, Mode::EX, LockFlags::PERSISTENT);
    assert!(solo.is_granted(1, 1, Mode::EX));
    solo.hold = true;
    solo.convert_with(1, 2, Mode::NL, LockFlags::TRANSIENT);
    assert!(solo.answers(1, 2).is_empty(), "the record says PERSISTENT still");
    solo.unlock(1);
    assert!(solo.answers(1, u32::MAX).is_empty(), "nor is its end acknowledged");
    solo.hold = false;
    solo.land();
    assert!(matches!(solo.answers(1, u32::MAX)[..], [Answer::Unlocked]));
    solo.lock(2, "data", Mode::NL);
    solo.convert_with(2, 1, Mode::EX, LockFlags::PERSISTENT);
    solo.convert_with(2, 2, Mode::PR, LockFlags::NONE);
    solo.until(|solo| solo.persistent_records() == [(Mode::PR, LockState::Granted)]);
    solo.convert_with(2, 3, Mode::PR, LockFlags::TRANSIENT);
    assert!(solo.is_granted(2, 3, Mode::PR));
    assert_eq!(solo.persistent_records(), []);
    solo.convert_with(2, 4, Mode::EX, LockFlags::PERSISTENT | LockFlags::TRANSIENT);
    assert!(matches!(solo.answers(2, 4)[..], [Answer::Denied(Denial::Invalid)]));
    solo.next_process(43);
    solo.until(|solo| solo.records().is_empty());
}

/// A refused conversion changes nothing; one that a failover cut off is carried out with its flag.
#[test]
fn a_conversion_keeps_its_flag_over_a_failover() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::NL);
    solo.lock(2, "data", Mode::EX);
    solo.convert_with(1, 1, Mode::EX, LockFlags::PERSISTENT | LockFlags::NOQUEUE);
    assert!(matches!(solo.answers(1, 1)[..], [Answer::Denied(Denial::Busy)]));
    solo.unlock(2);
    solo.hold = true;
    solo.convert_with(1, 2, Mode::EX, LockFlags::PERSISTENT);
    solo.fail_over();
    solo.until(|solo| !solo.answers(1, 2).is_empty());
    assert!(solo.is_granted(1, 2, Mode::EX));
    assert_eq!(solo.persistent_records(), [(Mode::EX, LockState::Granted)]);
}

/// I9: a holder of PW or EX may say on its way down that the value can no longer be trusted.
#[test]
fn a_conversion_invalidates_the_value() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::EX);
    solo.convert(1, 1, Mode::EX, Some(vec![7]));
    solo.lock(2, "data", Mode::NL);
    assert_eq!(solo.value(2, 0), Some((7, true)));
    solo.convert_with(1, 2, Mode::NL, LockFlags::IVVALBLK);
    assert!(solo.is_granted(1, 2, Mode::NL));
    solo.lock(3, "data", Mode::PR);
    assert_eq!(solo.value(3, 0), Some((7, false)));
}

/// An orphan of a part of a resource is adopted by that part, once, also after a failover, and goes on with it.
#[test]
fn orphans_are_adopted_by_range() {
    let range = |start, end| ByteRange::new(start, end).unwrap();
    let mut solo = Solo::new();
    solo.lock_range(1, "data", range(0, 99), Mode::EX);
    solo.lock_range(2, "data", range(100, 199), Mode::PR);
    assert!(solo.is_granted(1, 0, Mode::EX) && solo.is_granted(2, 0, Mode::PR));
    solo.next_process(43);
    solo.hold = true;
    solo.lock(5, "else", Mode::EX);
    solo.fail_over();
    solo.adopt(7, "data", Mode::EX, true);
    assert!(matches!(solo.answers(7, 0)[..], [Answer::Denied(Denial::NotFound)]), "nobody held all of it");
    solo.adopt_range(8, "data", range(0, 98), Mode::EX);
    assert!(matches!(solo.answers(8, 0)[..], [Answer::Denied(Denial::NotFound)]), "nor this part");
    solo.adopt_range(9, "data", range(100, 199), Mode::EX);
    assert!(matches!(solo.answers(9, 0)[..], [Answer::Denied(Denial::Busy)]), "this one in another mode");
    solo.adopt_range(10, "data", range(0, 99), Mode::EX);
    assert!(solo.is_granted(10, 0, Mode::EX));
    solo.adopt_range(11, "data", range(0, 99), Mode::EX);
    assert!(matches!(solo.answers(11, 0)[..], [Answer::Denied(Denial::NotFound)]), "it is an orphan no more");
    let ranges: Vec<_> = solo.records().into_iter().filter_map(|(_, record)| record.range).collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    solo.next_process(44);
    solo.hold = true;
    solo.lock(6, "else", Mode::EX);
    solo.fail_over();
    solo.adopt_range(12, "data", range(0, 99), Mode::EX);
    assert!(solo.is_granted(12, 0, Mode::EX), "the daemon remembers what part was adopted");
}

/// I9: an acknowledged value rests on one record, and the others are brought up to date behind. When the lock of that record
/// is released at once, the value does not go with it (simulator seed 1011942).
#[test]
fn an_acknowledged_value_outlives_the_record_that_carried_it() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::EX);
    solo.unlock_writing(1, 6);
    solo.until(|solo| solo.records().is_empty());
    solo.request(Request::Lock(LockRequest { flags: LockFlags::PERSISTENT, ..lock_request(2, "data", Mode::NL) }));
    solo.lock(3, "data", Mode::NL);
    solo.lock(4, "data", Mode::EX);
    solo.until(|solo| solo.is_granted(4, 0, Mode::EX));
    solo.unlock_writing(4, 7);
    solo.unlock(2);
    let done = |solo: &Solo, seq| !solo.answers(seq, u32::MAX).is_empty();
    assert!(done(&solo, 4) && done(&solo, 2));
    let carries = |(_, record): &(u32, LockRecord)| record.lvb.as_ref().is_some_and(|lvb| lvb.bytes == [7]);
    let left: Vec<_> = solo.records().into_iter().filter(|(_, record)| record.lock.seq == 3).collect();
    assert!(left.len() == 1 && carries(&left[0]), "{left:?}");
}
