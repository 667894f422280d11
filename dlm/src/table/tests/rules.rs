//! The rules of DESIGN section 7, one by one.

use super::*;
use Mode::*;

const NONE: LockFlags = LockFlags::NONE;
const WOULD_QUEUE: Outcome = Outcome::Denied(DenyReason::WouldQueue);
const DEADLOCK: Outcome = Outcome::Denied(DenyReason::Deadlock);

fn is_granted(outcome: Outcome, mode: Mode) -> bool {
    matches!(outcome, Outcome::Granted(grant) if grant.mode == mode)
}

fn is_queued(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Queued { .. })
}

/// Section 7, I1: two locks are granted together exactly when their modes are compatible.
#[test]
fn compatibility_decides() {
    for held in Mode::ALL {
        for wanted in Mode::ALL {
            let mut bench = Bench::new();
            bench.hold(1, held);
            let outcome = bench.ask(2, wanted, LockFlags::NOQUEUE);
            assert_eq!(is_granted(outcome, wanted), held.compatible(wanted), "{held} then {wanted}");
            assert_eq!(outcome == WOULD_QUEUE, !held.compatible(wanted));
        }
    }
}

/// PROTOTYPE 12, I8: those who wait are served first in, first out.
#[test]
fn waiters_are_served_in_order() {
    let mut bench = Bench::new();
    bench.hold(1, EX);
    (2..10).for_each(|seq| bench.wait(seq, EX));
    for seq in 2..10 {
        bench.unlock(seq - 1);
        assert_eq!(bench.granted(), [(seq, EX)]);
    }
}

/// PROTOTYPE 13: one release that lets 50 waiters in says so 50 times, in their order.
#[test]
fn one_release_grants_fifty() {
    let mut bench = Bench::new();
    bench.hold(1, EX);
    (2..52).for_each(|seq| bench.wait(seq, PR));
    bench.effects();
    bench.unlock(1);
    assert_eq!(bench.granted(), (2..52).map(|seq| (seq, PR)).collect::<Vec<_>>());
}

/// PROTOTYPE 14, I8: a new PR does not pass an EX that waits, though PR is compatible with what is held.
#[test]
fn readers_do_not_pass_a_waiting_writer() {
    let mut bench = Bench::new();
    bench.hold(1, PR);
    bench.wait(2, EX);
    bench.wait(3, PR);
    assert_eq!(bench.ask(4, PR, LockFlags::NOQUEUE), WOULD_QUEUE);
    bench.unlock(1);
    assert_eq!(bench.granted(), [(2, EX)]);
    bench.unlock(2);
    assert_eq!(bench.granted(), [(3, PR)]);
}

/// PROTOTYPE 11: PR and CW are incomparable; PR to CW waits for another PR, and CW to PR for another CW.
#[test]
fn pr_to_cw_is_not_down() {
    for (held, wanted) in [(PR, CW), (CW, PR)] {
        let mut bench = Bench::new();
        bench.hold(1, held);
        bench.hold(2, held);
        assert_eq!(bench.convert(1, wanted, LockFlags::NOQUEUE), WOULD_QUEUE);
        assert!(is_queued(bench.convert(1, wanted, NONE)));
        bench.unlock(2);
        assert_eq!(bench.granted(), [(1, wanted)]);
    }
}
