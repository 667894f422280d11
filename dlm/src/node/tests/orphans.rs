//! What a process leaves behind, and who gets it (section 7, "Sessions").

use super::*;

/// Another process on the same node.
const OTHER: ConnId = ConnId(2);
/// One more.
const THIRD: ConnId = ConnId(3);

impl Solo {
    /// The other process comes, and gets a PERSISTENT lock on "data", its number 50.
    fn other_locks(&mut self, mode: Mode) {
        self.input(Input::Connected { conn: OTHER, process: other() });
        self.other_asks(Request::Hello(Hello::first()));
        self.other_asks(Request::Lock(LockRequest { flags: LockFlags::PERSISTENT, ..lock_request(50, "data", mode) }));
    }

    fn other_asks(&mut self, request: Request) {
        self.input(Input::Client { conn: OTHER, request, subject: None });
    }

    fn other_converts(&mut self, mode: Mode, lvb: Option<Vec<u8>>) {
        let flags = LockFlags::NONE;
        self.other_asks(Request::Convert(ConvertRequest { seq: 50, op: 1, mode, flags, timeout_ms: None, lvb }));
    }

    fn other_dies(&mut self) {
        self.input(Input::ProcessGone { process: other() });
    }
}

fn other() -> Process {
    process(43)
}

/// I9: the process that held PW dies, and its lock outlives it: whoever adopts it learns that the value is not valid.
#[test]
fn an_orphan_of_a_writer_has_no_valid_value() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::EX);
    solo.convert(1, 1, Mode::NL, Some(vec![7]));
    solo.other_locks(Mode::PW);
    assert_eq!(solo.value(50, 0), Some((7, true)));
    solo.other_dies();
    solo.adopt(2, "data", Mode::PW, false);
    assert_eq!(solo.value(2, 0), Some((7, false)));
}

/// I5: an adoption that a failover cut off is asked for again as what it is; until the record names the new owner, the old
/// one's daemon speaks for the orphan, so that it is not lost.
#[test]
fn an_adoption_survives_a_failover() {
    let mut solo = Solo::new();
    solo.other_locks(Mode::PR);
    solo.other_dies();
    solo.hold = true;
    solo.adopt(1, "data", Mode::PR, false);
    assert!(solo.answers(1, 0).is_empty(), "its record does not name the new owner yet");
    solo.fail_over();
    assert!(solo.is_granted(1, 0, Mode::PR));
    assert_eq!(solo.records().len(), 1, "there is one lock, not two");
    solo.unlock(1);
    solo.until(|solo| solo.records().is_empty());
}

/// Section 7: an orphan that was adopted and released is gone, also when its adopter let go before a record named it.
#[test]
fn an_adopted_lock_that_is_released_at_once_does_not_come_back() {
    let mut solo = Solo::new();
    solo.other_locks(Mode::PR);
    solo.other_dies();
    solo.hold = true;
    solo.adopt(1, "data", Mode::PR, false);
    solo.unlock(1);
    solo.fail_over();
    solo.lock(2, "data", Mode::EX);
    solo.until(|solo| solo.is_granted(2, 0, Mode::EX));
}

/// I1: a process asks for a weaker mode and dies; another one gets what it gave up, and the master fails before the
/// record says so. The lock that was left behind is not what it was (simulator seed 1793).
#[test]
fn what_an_orphan_gave_up_does_not_come_back() {
    let mut solo = Solo::new();
    solo.other_locks(Mode::EX);
    solo.lock(1, "data", Mode::PW);
    solo.hold = true;
    solo.other_converts(Mode::NL, Some(vec![7]));
    assert!(solo.is_granted(1, 0, Mode::PW), "its waiting record is enough");
    solo.other_dies();
    solo.lock(60, "another", Mode::NL);
    solo.fail_over();
    for (seq, mode, found) in [(2, Mode::EX, false), (3, Mode::NL, true)] {
        solo.adopt(seq, "data", mode, false);
        solo.until(|solo| !solo.answers(seq, 0).is_empty());
        assert_eq!(solo.is_granted(seq, 0, mode), found, "{mode}");
    }
}

/// I1: a process dies while its conversion waits. Whoever adopts the lock has the mode that was adopted, and it stays that,
/// also when the conversion could be granted (simulator seed 75273).
#[test]
fn what_an_orphan_waited_for_is_not_given_to_its_adopter() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::PR);
    solo.other_locks(Mode::PR);
    solo.other_converts(Mode::CW, None);
    solo.other_dies();
    solo.adopt(2, "data", Mode::PR, false);
    assert!(solo.is_granted(2, 0, Mode::PR));
    solo.unlock(1);
    solo.lock(3, "data", Mode::PR);
    solo.until(|solo| solo.is_granted(3, 0, Mode::PR));
}

/// Section 7: a process that lives but does not come back loses its PERSISTENT lock to whoever adopts it, once its orphan
/// lifetime has ended, and not before (simulator seed 808).
#[test]
fn a_persistent_lock_of_one_who_stays_away_can_be_adopted() {
    let mut solo = Solo::new();
    solo.other_locks(Mode::EX);
    solo.input(Input::Disconnected { conn: OTHER });
    solo.adopt(2, "data", Mode::EX, false);
    assert!(matches!(solo.answers(2, 0)[..], [Answer::Denied(Denial::NotFound)]));
    let left = solo.now + Duration::from_secs(10);
    solo.until(|solo| solo.now >= left);
    solo.adopt(3, "data", Mode::EX, false);
    solo.until(|solo| solo.is_granted(3, 0, Mode::EX));
}

/// I5: what others left behind does not end with a request that was refused, or whose process has ended: a PERSISTENT lock that
/// nobody hears of having adopted is an orphan still.
#[test]
fn an_adoption_that_is_not_heard_of_releases_nothing() {
    type Then = fn(&mut Solo);
    let cases: [(&str, Then); 4] = [
        ("cancelled", |solo| solo.request(Request::Cancel { seq: 1 })),
        ("unlocked", |solo| solo.unlock(1)),
        ("dead", |solo| solo.input(Input::ProcessGone { process: process(42) })),
        ("bye", |solo| solo.request(Request::Bye)),
    ];
    for (name, then) in cases {
        for fails in [false, true] {
            let mut solo = Solo::new();
            solo.other_locks(Mode::EX);
            solo.other_dies();
            solo.hold = true;
            solo.adopt(1, "data", Mode::EX, true);
            then(&mut solo);
            assert!(!solo.is_granted(1, 0, Mode::EX), "{name}");
            if fails {
                solo.fail_over();
            }
            solo.hold = false;
            solo.land();
            let later = solo.now + Duration::from_millis(500);
            solo.until(|solo| solo.now >= later);
            assert_eq!(solo.persistent_records(), [(Mode::EX, LockState::Granted)], "{name}, fails: {fails}");
            solo.input(Input::Connected { conn: THIRD, process: process(50) });
            solo.responses.clear();
            let adopt =
                AdoptRequest { seq: 9, resource: named("data"), range: None, mode: Mode::EX, persistent: false };
            for request in [Request::Hello(Hello::first()), Request::Adopt(adopt)] {
                solo.input(Input::Client { conn: THIRD, request, subject: None });
            }
            solo.until(|solo| solo.is_granted(9, 0, Mode::EX));
        }
    }
}
