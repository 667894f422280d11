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

/// Section 7: a conversion that nothing blocks is granted in place, even past new requests and other conversions;
/// with QUECVT it takes its turn behind other conversions.
#[test]
fn quecvt_takes_its_turn() {
    for flags in [NONE, LockFlags::QUECVT] {
        let mut bench = Bench::new();
        bench.hold(1, NL);
        bench.hold(2, CR);
        bench.hold(3, NL);
        assert!(is_queued(bench.convert(1, EX, NONE)));
        let outcome = bench.convert(3, CW, flags);
        assert_eq!(is_queued(outcome), flags == LockFlags::QUECVT, "{outcome:?}");
        bench.effects();
        bench.cancel(1);
        assert_eq!(bench.granted(), if flags == NONE { vec![] } else { vec![(3, CW)] });
    }
}

/// I8: conversions are served before new requests, and in order.
#[test]
fn conversions_come_before_new_requests() {
    let mut bench = Bench::new();
    bench.hold(1, CR);
    bench.hold(2, NL);
    bench.hold(3, NL);
    bench.wait(4, EX);
    assert!(is_queued(bench.convert(2, EX, NONE)));
    assert!(is_queued(bench.convert(3, EX, NONE)));
    assert_eq!(bench.ask(5, CR, LockFlags::NOQUEUE), WOULD_QUEUE, "nobody new while someone converts");
    bench.effects();
    bench.unlock(1);
    assert_eq!(bench.granted(), [(2, EX)]);
    bench.unlock(2);
    assert_eq!(bench.granted(), [(3, EX)]);
    bench.unlock(3);
    assert_eq!(bench.granted(), [(4, EX)]);
}

/// Section 7: a down-conversion never waits, and lets in those that it makes room for.
#[test]
fn down_conversions_make_room() {
    let mut bench = Bench::new();
    bench.hold(1, EX);
    bench.wait(2, PR);
    bench.wait(3, PR);
    bench.wait(4, EX);
    bench.effects();
    assert!(is_granted(bench.convert(1, PR, NONE), PR));
    assert_eq!(bench.granted(), [(2, PR), (3, PR)]);
    assert!(is_granted(bench.convert(1, NL, NONE), NL));
    bench.unlock(2);
    assert_eq!(bench.granted(), []);
    bench.unlock(3);
    assert_eq!(bench.granted(), [(4, EX)]);
}

/// Section 7: EXPEDITE lets a new NL in past everybody; without it NL waits its turn like any other.
#[test]
fn expedite_is_for_nl() {
    let mut bench = Bench::new();
    bench.hold(1, PR);
    bench.wait(2, EX);
    bench.wait(3, NL);
    assert!(is_granted(bench.ask(4, NL, LockFlags::EXPEDITE), NL));
}

/// Section 7: NOORDER is granted as soon as its mode is compatible, at its first try and later.
#[test]
fn noorder_ignores_the_order() {
    let mut bench = Bench::new();
    bench.hold(1, PR);
    bench.wait(2, EX);
    assert!(is_granted(bench.ask(3, PR, LockFlags::NOORDER), PR));
    assert_eq!(bench.notices(), [(1, EX), (3, EX)], "the new holder hears at once who waits");
    assert!(is_queued(bench.ask(4, CW, LockFlags::NOORDER)));
    bench.unlock(1);
    assert_eq!(bench.granted(), []);
    bench.unlock(3);
    assert_eq!(bench.granted(), [(2, EX)], "in order among those that can be granted");
}

/// Section 7: HEADQUE goes to the head of its queue; its position says so, for a failover to find it there again.
#[test]
fn headque_goes_first() {
    let mut bench = Bench::new();
    bench.hold(1, EX);
    bench.wait(2, EX);
    bench.wait(3, EX);
    assert!(is_queued(bench.ask(4, EX, LockFlags::HEADQUE)));
    assert!(is_queued(bench.ask(5, EX, LockFlags::HEADQUE)));
    let order: Vec<_> = bench.table.locks_on(&resource("r")).skip(1).map(|l| (l.lock.seq, l.position)).collect();
    assert_eq!(order.iter().map(|l| l.0).collect::<Vec<_>>(), [5, 4, 2, 3]);
    assert!(order.is_sorted_by_key(|l| l.1), "{order:?}");
    for (release, next) in [(1, 5), (5, 4), (4, 2), (2, 3)] {
        bench.unlock(release);
        assert_eq!(bench.granted(), [(next, EX)]);
    }
}

/// A HEADQUE request that could be granted as soon as it is queued is granted at once.
#[test]
fn headque_does_not_wait_for_nothing() {
    let mut bench = Bench::new();
    bench.hold(1, PR);
    bench.wait(2, EX);
    assert!(is_granted(bench.ask(3, PR, LockFlags::HEADQUE), PR));
}

/// Section 7: ALTPR and ALTCW try the other mode when the wanted one cannot be granted, at once and later.
#[test]
fn alternative_modes() {
    let alternative = |outcome| matches!(outcome, Outcome::Granted(grant) if grant.alternative);
    for (flag, mode) in [(LockFlags::ALTPR, PR), (LockFlags::ALTCW, CW)] {
        let mut bench = Bench::new();
        bench.hold(1, mode);
        let outcome = bench.ask(2, EX, flag);
        assert!(is_granted(outcome, mode) && alternative(outcome), "{outcome:?}");
        assert!(!alternative(bench.ask(3, mode, flag)));
        // Later: it waits behind EX and gets the alternative because another one holds that.
        let mut bench = Bench::new();
        bench.hold(1, EX);
        bench.wait(2, mode);
        assert!(is_queued(bench.ask(3, EX, flag)));
        bench.unlock(1);
        assert_eq!(bench.granted(), [(2, mode), (3, mode)]);
    }
}

/// Section 7: a conversion that would wait for one that waits for it is refused, and the lock is as it was.
#[test]
fn conversion_deadlock_is_refused() {
    let mut bench = Bench::new();
    bench.hold(1, PR);
    bench.hold(2, PR);
    assert!(is_queued(bench.convert(1, EX, NONE)));
    assert_eq!(bench.convert(2, EX, NONE), DEADLOCK);
    assert_eq!(bench.table.get(id(2)).unwrap().granted, Some(PR));
    assert_eq!(bench.table.get(id(2)).unwrap().phase(), Phase::Granted);
    bench.effects();
    bench.unlock(2);
    assert_eq!(bench.granted(), [(1, EX)]);
}

/// Section 7, CONVDEADLK: it gives up its granted mode instead, the other is granted, and its own turn comes later.
#[test]
fn convdeadlk_is_demoted() {
    let mut bench = Bench::new();
    bench.hold(1, PR);
    bench.hold(2, PR);
    assert!(is_queued(bench.convert(1, EX, NONE)));
    bench.effects();
    let outcome = bench.convert(2, EX, LockFlags::CONVDEADLK);
    assert!(matches!(outcome, Outcome::Queued { demoted: true, .. }), "{outcome:?}");
    let effects = bench.effects();
    assert_eq!(effects[0], Effect::Demoted { lock: id(2) }, "before anything that it allows");
    assert!(matches!(effects[1], Effect::Granted(grant) if grant.lock == id(1) && grant.mode == EX));
    assert_eq!(effects[2], Effect::Bast { holder: id(1), wanted: EX });
    bench.unlock(1);
    let effects = bench.effects();
    assert!(matches!(effects[..], [Effect::Granted(Grant { was: Some(NL), demoted: true, mode: EX, .. })]));
}

/// Section 7: a demoted conversion that is cancelled holds NL.
#[test]
fn a_demoted_lock_stays_demoted() {
    let mut bench = Bench::new();
    bench.hold(1, PR);
    bench.hold(2, PR);
    bench.convert(1, EX, NONE);
    bench.convert(2, EX, LockFlags::CONVDEADLK);
    assert_eq!(bench.cancel(2), Cancelled::Reverted { mode: NL });
}

/// A demotion serves NOORDER requests at once, though somebody still converts.
#[test]
fn a_demotion_loses_no_wake_up() {
    let mut bench = Bench::new();
    bench.hold(1, CW);
    bench.hold(2, CR);
    bench.hold(3, CR);
    assert!(is_queued(bench.convert(2, PR, NONE)));
    assert!(is_queued(bench.ask(4, PR, LockFlags::NOORDER)));
    bench.effects();
    // 1 wants EX and 2 waits for its CW, so it is demoted; then both 2 and 4 can have PR.
    assert!(is_queued(bench.convert(1, EX, LockFlags::CONVDEADLK)));
    assert_eq!(bench.granted(), [(2, PR), (4, PR)]);
}

/// Section 7, NODLCKWT: it is kept waiting, and the owners, who know of each other, sort it out.
#[test]
fn nodlckwt_is_kept_waiting() {
    let mut bench = Bench::new();
    bench.hold(1, PR);
    bench.hold(2, PR);
    assert!(is_queued(bench.convert(1, EX, LockFlags::NODLCKWT)));
    assert!(is_queued(bench.convert(2, EX, LockFlags::NODLCKWT)));
    assert_eq!(bench.notices(), [(2, EX), (1, EX)]);
    assert_eq!(bench.cancel(1), Cancelled::Reverted { mode: PR });
    assert!(is_granted(bench.convert(1, NL, NONE), NL));
    assert_eq!(bench.granted(), [(2, EX)]);
}

/// A HEADQUE conversion does not pass one that it would then wait for: both would wait for ever.
#[test]
fn a_headque_conversion_makes_no_deadlock() {
    let mut bench = Bench::new();
    bench.hold(1, CW);
    bench.hold(2, CW);
    bench.hold(3, NL);
    assert!(is_queued(bench.convert(1, PR, NONE)));
    // At the head, its EX would wait for the CW of 1, and 1 would wait behind it.
    assert!(is_queued(bench.convert(3, EX, LockFlags::HEADQUE)));
    bench.effects();
    bench.unlock(2);
    assert_eq!(bench.granted(), [(1, PR)]);
    bench.unlock(1);
    assert_eq!(bench.granted(), [(3, EX)]);
}

/// Section 7: holders in the way are told once, and again only of a stronger mode; PR and CW are both news.
#[test]
fn notices_are_not_repeated() {
    let mut bench = Bench::new();
    bench.hold(1, EX);
    bench.wait(2, CR);
    assert_eq!(bench.notices(), [(1, CR)]);
    bench.wait(3, PR);
    assert_eq!(bench.notices(), [(1, PR)]);
    bench.wait(4, PR);
    bench.wait(5, CR);
    assert_eq!(bench.notices(), []);
    bench.wait(6, CW);
    assert_eq!(bench.notices(), [(1, CW)]);
    bench.wait(7, EX);
    assert_eq!(bench.notices(), [(1, EX)]);
    bench.wait(8, EX);
    assert_eq!(bench.notices(), []);
    bench.table.rebast(id(1), &mut bench.effects).unwrap();
    assert_eq!(bench.notices(), [(1, EX)], "rebast says it again");
}

/// Section 7: only those in the way are told, whether granted or converting.
#[test]
fn only_holders_in_the_way_are_told() {
    let mut bench = Bench::new();
    bench.hold(1, CR);
    bench.hold(2, PR);
    bench.hold(3, PR);
    assert!(is_queued(bench.convert(3, EX, NONE)));
    assert_eq!(bench.notices(), [(1, EX), (2, EX)]);
    bench.wait(4, CW);
    assert_eq!(bench.notices(), [(3, CW)], "2 knows of EX already, 1 is not in the way");
}

/// Section 7: what was told is forgotten when the mode changes, and the new mode is compared with those who wait.
#[test]
fn a_new_mode_is_told_anew() {
    let mut bench = Bench::new();
    bench.hold(1, EX);
    bench.wait(2, PR);
    bench.wait(3, CW);
    bench.effects();
    bench.convert(1, PW, NONE);
    assert_eq!(bench.notices(), [(1, PR), (1, CW)]);
    bench.convert(1, PR, NONE);
    assert_eq!(bench.notices(), [(1, CW), (2, CW)]);
}

/// Section 7, NOQUEUEBAST: a denied try tells the holders; NOQUEUE alone does not.
#[test]
fn noqueuebast_tells_though_denied() {
    let mut bench = Bench::new();
    bench.hold(1, EX);
    assert_eq!(bench.ask(2, PR, LockFlags::NOQUEUE), WOULD_QUEUE);
    assert_eq!(bench.notices(), []);
    assert_eq!(bench.ask(2, PR, LockFlags::NOQUEUE | LockFlags::NOQUEUEBAST), WOULD_QUEUE);
    assert_eq!(bench.notices(), [(1, PR)]);
    assert!(!bench.table.contains(id(2)));
}

/// Section 7: who cancels leaves the queue, or keeps the old mode; a lock that waits for nothing is left alone.
#[test]
fn cancel_in_every_phase() {
    let mut bench = Bench::new();
    bench.hold(1, PR);
    bench.hold(2, CR);
    bench.convert(2, EX, NONE);
    bench.wait(3, PR);
    bench.effects();
    assert_eq!(bench.cancel(1), Cancelled::NotWaiting);
    assert_eq!(bench.cancel(2), Cancelled::Reverted { mode: CR });
    assert_eq!(bench.granted(), [(3, PR)], "nobody converts any more");
    bench.wait(4, EX);
    assert!(matches!(bench.cancel(4), Cancelled::Removed(_)));
    assert!(!bench.table.contains(id(4)));
}

/// Section 7: two locks conflict, and wait for one another, only where their ranges overlap.
#[test]
fn ranges_meet_only_where_they_overlap() {
    let range = |start, end| ByteRange::new(start, end).unwrap();
    let mut bench = Bench::new();
    assert!(is_granted(bench.ask_range(1, EX, NONE, range(0, 9)), EX));
    assert!(is_granted(bench.ask_range(2, EX, NONE, range(10, 19)), EX));
    assert!(is_queued(bench.ask_range(3, EX, NONE, range(5, 25))));
    assert_eq!(bench.notices(), [(1, EX), (2, EX)]);
    assert!(is_queued(bench.ask_range(4, CR, NONE, range(20, 29))), "behind 3, though nobody holds these bytes");
    assert!(is_granted(bench.ask_range(5, EX, NONE, range(30, 39)), EX), "not behind 3, which it does not meet");
    bench.unlock(1);
    assert_eq!(bench.granted(), []);
    bench.unlock(2);
    assert_eq!(bench.granted(), [(3, EX)]);
    bench.unlock(3);
    assert_eq!(bench.granted(), [(4, CR)]);
}

/// Section 7, I9: the value block is read and written by the kernel's table of modes.
#[test]
fn lvb_transfer_by_mode() {
    use LvbTransfer::{None as No, Read, Written};
    let rows = [
        (NL, [Read, Read, Read, Read, Read, Read]),
        (CR, [No, Read, Read, Read, Read, Read]),
        (CW, [No, No, Read, Read, Read, Read]),
        (PR, [No, No, No, Read, Read, Read]),
        (PW, [Written, Written, Written, Written, Written, Read]),
        (EX, [Written; 6]),
    ];
    for (held, row) in rows {
        for (wanted, expected) in Mode::ALL.into_iter().zip(row) {
            let mut bench = Bench::new();
            assert_eq!(bench.hold(1, held).lvb, Read);
            let outcome = bench.convert_lvb(1, wanted, NONE, LvbUpdate::Write(vec![5]));
            assert!(matches!(outcome, Outcome::Granted(grant) if grant.lvb == expected), "{held} {wanted} {outcome:?}");
            let written = bench.table.lvb(&resource("r")).is_some_and(|lvb| lvb.valid && lvb.bytes == [5]);
            assert_eq!(written, expected == Written, "{held} {wanted}");
        }
    }
}

/// Section 7, I9: written on unlock from PW or EX only, invalid after such a holder died, kept while any lock is left.
#[test]
fn lvb_on_unlock() {
    for mode in Mode::ALL {
        let writes = mode >= PW;
        let mut bench = Bench::new();
        bench.hold(9, NL);
        bench.hold(1, mode);
        assert_eq!(bench.unlock_lvb(1, LvbUpdate::Write(vec![1, 2])) == LvbTransfer::Written, writes);
        let first = bench.table.lvb(&resource("r")).cloned();
        assert_eq!(first.is_some(), writes);
        bench.hold(1, mode);
        bench.unlock_lvb(1, LvbUpdate::Keep);
        assert_eq!(bench.table.lvb(&resource("r")).cloned(), first);
        bench.hold(1, mode);
        bench.unlock_lvb(1, LvbUpdate::Invalidate);
        let last = bench.table.lvb(&resource("r")).cloned();
        assert_eq!(last.as_ref().is_some_and(|lvb| !lvb.valid), writes);
        assert!(!writes || last.unwrap().sequence > first.unwrap().sequence);
        bench.unlock(9);
        bench.hold(1, mode);
        assert_eq!(bench.table.lvb(&resource("r")), None, "gone with the last lock");
    }
}

/// Argument errors are the kernel's, and change nothing.
#[test]
fn nonsense_is_refused() {
    let mut bench = Bench::new();
    bench.hold(1, PR);
    let mut effects = Vec::new();
    let mut ask = |lock, mode, flags| {
        let request =
            Request { lock, resource: resource("r"), mode, flags, range: ByteRange::ALL, position: 0, payload: () };
        bench.table.request(request, &mut effects).unwrap_err()
    };
    assert_eq!(ask(id(1), PR, NONE), TableError::Duplicate(id(1)));
    let bad_requests = [
        (PR, LockFlags::EXPEDITE),
        (NL, LockFlags::EXPEDITE | LockFlags::NOQUEUE),
        (PR, LockFlags::QUECVT),
        (PR, LockFlags::CONVDEADLK),
    ];
    for (mode, flags) in bad_requests {
        assert!(matches!(ask(id(2), mode, flags), TableError::Flags { .. }), "{flags:?}");
    }
    let mut convert =
        |lock, mode, flags, lvb| bench.table.convert(lock, mode, flags, 0, lvb, &mut effects).unwrap_err();
    let bad_conversions = [
        (NL, LockFlags::EXPEDITE),
        (EX, LockFlags::OWN),
        (EX, LockFlags::CONVDEADLK | LockFlags::NOQUEUE),
        (PR, LockFlags::QUECVT),
        (CR, LockFlags::QUECVT),
    ];
    for (mode, flags) in bad_conversions {
        assert!(matches!(convert(id(1), mode, flags, LvbUpdate::Keep), TableError::Flags { .. }), "{flags:?}");
    }
    assert_eq!(convert(id(1), NL, NONE, LvbUpdate::Write(vec![0; 65])), TableError::LvbLength(65));
    assert_eq!(convert(id(7), NL, NONE, LvbUpdate::Keep), TableError::Unknown(id(7)));
    assert_eq!(bench.table.rename(id(1), id(1)), Err(TableError::Duplicate(id(1))));
    bench.wait(2, EX);
    let busy = bench.table.convert(id(2), PR, NONE, 0, LvbUpdate::Keep, &mut Vec::new());
    assert_eq!(busy, Err(TableError::Busy(id(2))));
    bench.check();
}

/// Section 7: the wait-for graph has the holders in the way and those ahead in the queues.
#[test]
fn blockers_are_holders_and_those_ahead() {
    let mut bench = Bench::new();
    bench.hold(1, PR);
    bench.hold(2, CR);
    bench.hold(3, PR);
    bench.convert(3, PW, NONE);
    bench.wait(4, CR);
    bench.wait(5, EX);
    bench.wait(6, CR);
    let blockers = |seq| bench.table.blockers(id(seq)).map(|(lock, why)| (lock.seq, why)).collect::<Vec<_>>();
    assert_eq!(blockers(1), []);
    assert_eq!(blockers(3), [(1, Blocking::Holds)]);
    assert_eq!(blockers(4), [(3, Blocking::ServedFirst)]);
    let all = [(1, Blocking::Holds), (2, Blocking::Holds), (3, Blocking::Holds), (4, Blocking::Ahead)];
    assert_eq!(blockers(5), all);
    // What is nearest comes first, and what it is compatible with has only to be served.
    let all = [(5, Blocking::Ahead), (4, Blocking::ServedFirst), (3, Blocking::ServedFirst)];
    assert_eq!(blockers(6), all);
}

/// An adopted lock goes on under its new id, in its place.
#[test]
fn rename_keeps_everything_else() {
    let mut bench = Bench::new();
    bench.hold(1, EX);
    bench.wait(2, PR);
    bench.table.rename(id(1), id(100)).unwrap();
    bench.check();
    assert!(!bench.table.contains(id(1)));
    bench.effects();
    bench.unlock(100);
    assert_eq!(bench.granted(), [(2, PR)]);
}

/// OWN: a session divides what it holds and lets go of the whole, and nobody gets a byte in between. For everybody else it
/// is an ordinary request.
#[test]
fn own_locks_are_not_in_the_way() {
    let range = |start, end| ByteRange::new(start, end).unwrap();
    let mut bench = Bench::new();
    let mut ask = |session, seq, mode, flags, range| {
        let lock = LockId { session: SessionId(session), seq };
        bench.position += 1;
        let position = bench.position;
        let request = Request { lock, resource: resource("r"), mode, flags, range, position, payload: () };
        let outcome = bench.table.request(request, &mut bench.effects).unwrap();
        bench.table.check_invariants().unwrap();
        matches!(outcome, Outcome::Granted(_))
    };
    assert!(ask(1, 1, EX, NONE, range(0, 99)));
    assert!(!ask(2, 2, PR, NONE, range(50, 59)), "somebody else waits");
    assert!(!ask(1, 3, EX, LockFlags::NOQUEUE, range(0, 49)), "its own lock is in the way of an ordinary request");
    assert!(!ask(1, 3, PR, LockFlags::OWN | LockFlags::NOQUEUE, range(50, 59)), "and who waits is ahead");
    let carve = LockFlags::OWN | LockFlags::NOORDER | LockFlags::NOQUEUE;
    assert!(ask(1, 3, EX, carve, range(0, 49)));
    assert!(ask(1, 4, PR, carve, range(50, 59)));
    assert!(ask(1, 5, EX, carve, range(60, 99)));
    assert!(!ask(2, 6, EX, LockFlags::OWN | LockFlags::NOQUEUE, range(0, 0)), "another session's are in the way");
    bench.unlock(1);
    assert_eq!(bench.granted(), [(2, PR)], "only the part that was downgraded");
}
