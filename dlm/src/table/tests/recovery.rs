//! Recovery and possible holders (DESIGN section 6), and the other things that do not go through the grant test.

use super::*;
use Mode::*;
use mxlock_format::{Lvb, LvbSequence};

fn report(seq: u64, granted: Option<Mode>, wanted: Option<Mode>, standing: Standing, position: u64) -> Restored<()> {
    Restored {
        lock: id(seq),
        resource: resource("r"),
        granted,
        wanted,
        standing,
        position,
        range: ByteRange::ALL,
        flags: LockFlags::NONE,
        lvb: None,
        payload: (),
    }
}

fn recovered(reports: Vec<Restored<()>>) -> Bench {
    let mut bench = Bench::new();
    reports.into_iter().for_each(|report| bench.table.restore(report).unwrap());
    bench.table.resume_all(&mut bench.effects);
    bench.check();
    bench
}

/// Section 6.6, I8: waiting requests are served in their old order, whatever the order of the reports, and those that
/// the failover made room for are served at once.
#[test]
fn waiters_resume_in_their_old_order() {
    let waiter = |seq, position| report(seq, None, Some(EX), Standing::Confirmed, position);
    let mut bench = recovered(vec![waiter(5, 50), waiter(2, 20), waiter(9, 90), waiter(1, 10)]);
    assert_eq!(bench.granted(), [(1, EX)]);
    for (release, next) in [(1, 2), (2, 5), (5, 9)] {
        bench.unlock(release);
        assert_eq!(bench.granted(), [(next, EX)]);
    }
}

/// Section 6.4: a possible holder blocks with its granted and with its wanted mode, is granted nothing, and hears nothing.
#[test]
fn possible_holders_only_block() {
    for doubtful in [
        report(1, Some(EX), None, Standing::Possible, 10),
        report(1, None, Some(EX), Standing::Possible, 10),
        report(1, Some(NL), Some(EX), Standing::Possible, 10),
        report(1, Some(EX), Some(NL), Standing::Possible, 10),
    ] {
        let mut bench = recovered(vec![doubtful, report(2, None, Some(CR), Standing::Confirmed, 20)]);
        assert_eq!(bench.effects(), [], "neither a grant nor a notice");
        assert_eq!(
            bench.ask(3, PR, LockFlags::NOQUEUE | LockFlags::NOQUEUEBAST),
            Outcome::Denied(DenyReason::WouldQueue)
        );
        assert_eq!(bench.effects(), []);
        bench.unlock(1);
        assert_eq!(bench.granted(), [(2, CR)]);
    }
}

/// Section 6.4: possible holders may conflict with confirmed locks and with each other; confirmed ones keep what they have
/// and may give up some of it.
#[test]
fn possible_holders_may_conflict() {
    let mut bench = recovered(vec![
        report(1, Some(EX), None, Standing::Possible, 10),
        report(2, None, Some(EX), Standing::Possible, 20),
        report(3, Some(PW), None, Standing::Confirmed, 30),
    ]);
    let outcome = bench.convert(3, PR, LockFlags::NONE);
    assert!(matches!(outcome, Outcome::Granted(Grant { mode: PR, .. })), "{outcome:?}");
    let busy = bench.table.convert(id(1), NL, LockFlags::NONE, 0, LvbUpdate::Keep, &mut Vec::new());
    assert_eq!(busy, Err(TableError::NotConfirmed(id(1))));
}

/// Section 6.4: it is resolved when its session has spoken. One that waits goes to its old place in the queue and is in
/// turn; one that was granted meanwhile holds; nobody slips in.
#[test]
fn possible_holders_are_settled() {
    let reports = || {
        vec![
            report(1, None, Some(EX), Standing::Possible, 10),
            report(2, None, Some(EX), Standing::Confirmed, 20),
            report(3, Some(NL), None, Standing::Confirmed, 30),
        ]
    };
    let mut bench = recovered(reports());
    bench.table.set_standing(id(1), Standing::Confirmed, &mut bench.effects).unwrap();
    bench.check();
    assert_eq!(bench.granted(), [(1, EX)], "ahead of 2");
    let mut bench = recovered(reports());
    bench.table.restate(id(1), Some(EX), None, Standing::Confirmed, &mut bench.effects).unwrap();
    bench.check();
    assert_eq!(bench.effects(), [Effect::Bast { holder: id(1), wanted: EX }], "now it can be told");
    let mut bench = recovered(reports());
    assert_eq!(
        bench.table.restate(id(1), None, None, Standing::Confirmed, &mut bench.effects),
        Err(TableError::NoMode(id(1)))
    );
    bench.unlock(1);
    assert_eq!(bench.granted(), [(2, EX)]);
}

/// Section 7: an orphan holds like any other, and hears notices, which its daemon keeps for whoever adopts it.
#[test]
fn orphans_hold() {
    let mut bench = Bench::new();
    bench.hold(1, EX);
    bench.table.set_standing(id(1), Standing::Orphan, &mut bench.effects).unwrap();
    bench.wait(2, EX);
    assert_eq!(bench.notices(), [(1, EX)]);
    bench.table.set_standing(id(1), Standing::Confirmed, &mut bench.effects).unwrap();
    assert_eq!(bench.effects(), []);
}

/// A request that is sent again after a failover goes to its old place (section 6), and is granted if it is in turn.
#[test]
fn a_request_sent_again_keeps_its_place() {
    let mut bench = recovered(vec![
        report(1, Some(PR), None, Standing::Confirmed, 0),
        report(3, None, Some(EX), Standing::Confirmed, 30),
        report(4, None, Some(PR), Standing::Confirmed, 40),
    ]);
    let mut ask = |seq, mode, position| {
        let (lock, resource, flags, range) = (id(seq), resource("r"), LockFlags::NONE, ByteRange::ALL);
        let request = Request { lock, resource, mode, flags, range, position, payload: () };
        bench.table.request(request, &mut bench.effects).unwrap()
    };
    assert!(matches!(ask(2, PR, 20), Outcome::Granted(_)), "nobody was ahead of it");
    assert_eq!(ask(5, PR, 35), Outcome::Queued { position: 35, demoted: false });
    bench.check();
    let order: Vec<_> = bench.table.locks_on(&resource("r")).map(|view| view.lock.seq).collect();
    assert_eq!(order, [1, 2, 3, 5, 4]);
}

/// A failover that leaves conversions waiting for each other ends that in the later one, as its first try would have.
#[test]
fn deadlocked_conversions_do_not_survive_a_failover() {
    let converting = |seq, flags| Restored { flags, ..report(seq, Some(PR), Some(EX), Standing::Confirmed, seq) };
    let mut bench = recovered(vec![converting(1, LockFlags::NONE), converting(2, LockFlags::NONE)]);
    assert_eq!(bench.effects()[0], Effect::Denied { lock: id(2), reason: DenyReason::Deadlock });
    assert_eq!(bench.table.get(id(2)).unwrap().phase(), Phase::Granted);
    let mut bench = recovered(vec![converting(1, LockFlags::NONE), converting(2, LockFlags::CONVDEADLK)]);
    assert_eq!(bench.effects()[0], Effect::Demoted { lock: id(2) });
    assert_eq!(bench.table.get(id(1)).unwrap().granted, Some(EX));
    let mut bench = recovered(vec![converting(1, LockFlags::NONE), converting(2, LockFlags::NODLCKWT)]);
    assert_eq!(bench.notices(), [(1, EX), (2, EX)], "both know");
}

/// Section 6: notices are sent again after a failover, since nobody knows which arrived.
#[test]
fn a_failover_repeats_the_notices() {
    let mut bench = recovered(vec![
        report(1, Some(PR), None, Standing::Confirmed, 0),
        report(2, Some(PR), None, Standing::Orphan, 0),
        report(3, None, Some(EX), Standing::Confirmed, 30),
    ]);
    assert_eq!(bench.notices(), [(1, EX), (2, EX)]);
}

/// I9: of the value blocks in the records, the one written last counts; if it was both valid and not, it is not. New ones
/// are above all that were seen.
#[test]
fn the_newest_lvb_wins() {
    let lvb = |byte, epoch, n, valid| {
        Some(Lvb { bytes: vec![byte], sequence: LvbSequence { epoch: Epoch(epoch), n }, valid })
    };
    let holder = |seq, lvb| Restored { lvb, ..report(seq, Some(NL), None, Standing::Confirmed, 0) };
    let cases = [
        (lvb(1, 6, 9, true), lvb(2, 7, 1, true), 2, true),
        (lvb(2, 7, 2, true), lvb(1, 7, 1, false), 2, true),
        (lvb(1, 7, 1, true), lvb(1, 7, 1, false), 1, false),
        (lvb(1, 7, 1, true), None, 1, true),
    ];
    for (a, b, byte, valid) in cases {
        for reports in [vec![holder(1, a.clone()), holder(2, b.clone())], vec![holder(2, b), holder(1, a)]] {
            let mut bench = recovered(reports);
            let known = bench.table.lvb(&resource("r")).unwrap().clone();
            assert_eq!((known.bytes[0], known.valid), (byte, valid));
            bench.hold(3, EX);
            bench.unlock_lvb(3, LvbUpdate::Write(vec![9]));
            assert!(bench.table.lvb(&resource("r")).unwrap().sequence > known.sequence);
        }
    }
}

/// Section 5: the value block is marked when a possible holder of PW or EX, by either of its modes, is purged.
#[test]
fn a_purged_possible_writer_invalidates() {
    for (granted, wanted, writes) in
        [(Some(EX), None, true), (Some(PR), Some(PW), true), (None, Some(EX), true), (Some(PR), None, false)]
    {
        let mut bench = recovered(vec![
            report(1, granted, wanted, Standing::Possible, 10),
            report(2, Some(NL), None, Standing::Confirmed, 0),
        ]);
        let transfer = bench.unlock_lvb(1, LvbUpdate::Invalidate);
        assert_eq!(transfer == LvbTransfer::Written, writes);
        assert_eq!(bench.table.lvb(&resource("r")).is_some_and(|lvb| !lvb.valid), writes);
    }
}

/// A report that cannot be is refused and changes nothing.
#[test]
fn nonsense_reports_are_refused() {
    let mut table = Table::new();
    let nothing = report(1, None, None, Standing::Possible, 0);
    assert_eq!(table.restore(nothing), Err(TableError::NoMode(id(1))));
    table.restore(report(1, Some(PR), None, Standing::Confirmed, 0)).unwrap();
    let again = report(1, Some(EX), None, Standing::Confirmed, 0);
    assert_eq!(table.restore(again), Err(TableError::Duplicate(id(1))));
    assert_eq!((table.len(), table.resource_count()), (1, 1));
    table.check_invariants().unwrap();
}

/// Section 6, I11: where a lock may be held that is not in the table, nothing is granted that could conflict with it.
#[test]
fn what_nobody_knows_of_holds_everything_back() {
    let mut bench = recovered(vec![report(1, Some(PW), None, Standing::Confirmed, 10)]);
    bench.table.hold_back();
    assert_eq!(bench.ask(2, CR, LockFlags::NOQUEUE), Outcome::Denied(DenyReason::WouldQueue));
    bench.wait(3, CR);
    bench.ask(4, NL, LockFlags::EXPEDITE);
    bench.convert(1, PR, LockFlags::NONE);
    assert_eq!(bench.granted(), [], "nobody who waits");
    assert_eq!(bench.table.get(id(1)).unwrap().granted, Some(PR), "its own mode covers it");
    assert!(bench.table.get(id(4)).unwrap().granted.is_some());
    assert!(bench.table.release(&mut bench.effects));
    assert_eq!(bench.granted(), [(3, CR)]);
    bench.check();
    assert!(!bench.table.release(&mut bench.effects), "once");
}
