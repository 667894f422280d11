//! Conversions with CONVDEADLK: every answer says what is left of the lock (section 7, decision 015).

use super::*;
use mxlock_proto::client::Denial;

/// Lock 1 waits for EX, and so lock 2, which is to go from PR to EX with CONVDEADLK, has been demoted.
fn demoted() -> Solo {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::PR);
    solo.lock(2, "data", Mode::PR);
    solo.lock(3, "data", Mode::CR);
    solo.convert(1, 1, Mode::EX, None);
    solo.convert_demoting(2, 1, Mode::EX);
    assert!(solo.answers(1, 1).is_empty() && solo.answers(2, 1).is_empty(), "lock 3 is in the way of both");
    solo
}

impl Solo {
    fn convert_demoting(&mut self, seq: u64, op: u32, mode: Mode) {
        let flags = LockFlags::CONVDEADLK;
        self.request(Request::Convert(ConvertRequest { seq, op, mode, flags, timeout_ms: None, lvb: None }));
    }

    fn convert_persistent(&mut self, seq: u64, op: u32) {
        let flags = LockFlags::PERSISTENT;
        self.request(Request::Convert(ConvertRequest { seq, op, mode: Mode::PR, flags, timeout_ms: None, lvb: None }));
        assert!(self.is_granted(seq, op, Mode::PR));
    }

    fn record_of(&self, seq: u64) -> Option<LockRecord> {
        self.records().into_iter().map(|(_, record)| record).find(|record| record.lock.seq == seq)
    }

    /// The master gives up, because a write failed, and another reign begins; what is done in between no master hears of.
    fn between_masters(&mut self, act: impl Fn(&mut Solo)) {
        self.hold = true;
        self.lock(90, "something", Mode::EX);
        let view = self.core.view().unwrap().epoch;
        self.fail_writes = true;
        self.land();
        self.fail_writes = false;
        self.hold = false;
        self.until(|solo| !solo.core.is_granting(Now { boot: solo.now, wall_ms: 0 }));
        act(self);
        self.until(|solo| solo.core.view().unwrap().epoch > view && solo.core.is_ready());
    }
}

/// A grant says that others may have held the lock in between, and the record says at once what is left.
#[test]
fn a_grant_tells_of_the_demotion() {
    let mut solo = demoted();
    let record = solo.record_of(2).unwrap();
    assert_eq!((record.mode, record.wanted, record.state), (Mode::NL, Mode::EX, LockState::Converting));
    solo.unlock(3);
    assert!(solo.is_granted(1, 1, Mode::EX), "what it waited for was given up");
    solo.unlock(1);
    let granted = |solo: &Solo, times| {
        let answers = solo.answers(2, 1);
        answers.len() == times
            && answers.iter().all(|answer| matches!(answer, Answer::GrantedDemoted(grant) if grant.mode == Mode::EX))
    };
    assert!(granted(&solo, 1));
    solo.convert_demoting(2, 1, Mode::EX);
    assert!(granted(&solo, 2), "asked again, it is the same answer");
    solo.convert_demoting(2, 2, Mode::EX);
    assert!(solo.is_granted(2, 2, Mode::EX), "the next one gave nothing up");
}

/// I1: so does a denial. One that did not come to a demotion leaves the old mode.
#[test]
fn a_denial_tells_of_the_demotion() {
    let mut solo = demoted();
    solo.request(Request::Cancel { seq: 2 });
    assert!(matches!(solo.answers(2, 1)[..], [Answer::DeniedDemoted(Denial::Cancelled)]));
    solo.unlock(3);
    assert!(solo.is_granted(1, 1, Mode::EX));
    // The answer was lost, and the client asks again: a conversion from NL that is denied would leave it in PR, it believes.
    solo.convert_demoting(2, 1, Mode::EX);
    assert!(matches!(solo.answers(2, 1)[..], [_, Answer::DeniedDemoted(Denial::Cancelled)]));
    solo.convert_demoting(2, 2, Mode::PR);
    solo.request(Request::Cancel { seq: 2 });
    assert!(
        matches!(solo.answers(2, 2)[..], [Answer::Denied(Denial::Cancelled)]),
        "from NL there was nothing to give up"
    );
}

/// The master dies and nobody can say any more whether it came to a demotion: it counts as one.
#[test]
fn a_failover_counts_as_a_demotion() {
    for deadlocked in [false, true] {
        let mut solo = Solo::new();
        solo.lock(1, "data", Mode::PR);
        solo.lock(2, "data", Mode::PR);
        if deadlocked {
            solo.lock(3, "data", Mode::CR);
            solo.convert(1, 1, Mode::EX, None);
        }
        solo.convert_demoting(2, 1, Mode::EX);
        solo.hold = true;
        solo.lock(90, "something", Mode::EX);
        solo.fail_over();
        assert_eq!(solo.record_of(2).map(|record| record.mode), Some(Mode::NL), "it is reported as NL");
        solo.request(Request::Cancel { seq: 2 });
        assert!(matches!(solo.answers(2, 1)[..], [Answer::DeniedDemoted(Denial::Cancelled)]));
        solo.lock(4, "data", Mode::PR);
        assert_eq!(solo.is_granted(4, 0, Mode::PR), !deadlocked, "lock 1 still waits for EX");
    }
}

/// The same when the client gives up while there is no master to ask.
#[test]
fn a_cancellation_that_meets_a_failover_counts_as_a_demotion() {
    let mut solo = demoted();
    solo.between_masters(|solo| solo.request(Request::Cancel { seq: 2 }));
    assert!(matches!(solo.answers(2, 1)[..], [Answer::DeniedDemoted(Denial::Cancelled)]));
    solo.unlock(3);
    assert!(solo.is_granted(1, 1, Mode::EX));
}

/// I9: the value of a holder of PW that was demoted is not written, and the old one stays valid, as when it unlocks without a
/// value. One whose unlock met a failover may have written it or not.
#[test]
fn a_demoted_writer_writes_no_value() {
    let value_after = |between: bool| {
        let mut solo = Solo::new();
        solo.lock(4, "data", Mode::EX);
        solo.convert(4, 1, Mode::NL, Some(vec![7]));
        solo.lock(1, "data", Mode::CR);
        solo.lock(2, "data", Mode::PW);
        solo.lock(3, "data", Mode::CR);
        solo.convert(1, 1, Mode::EX, None);
        solo.convert_demoting(2, 1, Mode::EX);
        if between {
            solo.between_masters(|solo| solo.unlock_writing(2, 8));
        } else {
            solo.unlock_writing(2, 8);
        }
        assert!(matches!(solo.answers(2, u32::MAX)[..], [Answer::Unlocked]));
        solo.unlock(3);
        assert!(solo.is_granted(1, 1, Mode::EX));
        solo.value(1, 1)
    };
    assert_eq!(value_after(false), Some((7, true)));
    assert_eq!(value_after(true), Some((7, false)));
}

/// An orphan is what was left of the lock in any case.
#[test]
fn an_orphan_is_left_in_nl() {
    let mut solo = Solo::new();
    solo.lock(1, "data", Mode::PR);
    solo.convert_persistent(1, 1);
    let other = ConnId(2);
    solo.input(Input::Connected { conn: other, process: process(43) });
    solo.input(Input::Client { conn: other, request: Request::Hello(Hello::first()), subject: None });
    let lock = Request::Lock(lock_request(1, "data", Mode::PR));
    solo.input(Input::Client { conn: other, request: lock, subject: None });
    solo.convert_demoting(1, 2, Mode::EX);
    solo.between_masters(|solo| {
        solo.input(Input::ProcessGone { process: process(42) });
    });
    let left: Vec<(Mode, bool)> =
        solo.records().iter().filter(|(_, r)| r.persistent).map(|(_, r)| (r.mode, r.orphan)).collect();
    assert_eq!(left, [(Mode::NL, true)]);
}
