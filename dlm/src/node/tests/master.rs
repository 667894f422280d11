//! This node as master: what other members say and ask, and deadlocks (sections 5 to 7).

use super::*;
use crate::testing::{new_lock, reported};
use mxlock_format::{SessionId, Token};
use mxlock_proto::peer::{NewLock, Operation, OperationKind, PeerFrame, Pending, Report, ReportedLock};

/// Sections 6 and 7: a member that speaks late brings a request that the master has never heard of, because its record was
/// not written and its place was given by the master before. Those in its way are told, and it is granted in its turn.
#[test]
fn a_waiting_request_in_a_late_report_is_served() {
    let mut solo = Solo::new();
    solo.lock(1, "a", Mode::EX);
    let reign = solo.core.master.as_ref().unwrap().reign();
    let lock = LockId { session: SessionId(9), seq: 1 };
    let pending = Pending { op: 0, wanted: Mode::PW, flags: LockFlags::NONE, position: 5 };
    let waits = ReportedLock { granted: None, pending: Some(pending), ..reported(lock, "a", Mode::NL, Token(0)) };
    let report = Report { epoch: reign, sessions: vec![lock.session], locks: vec![waits], last: true };
    let now = Now { boot: solo.now, wall_ms: 0 };
    let member = NodeId::new(1).unwrap();
    let master = solo.core.master.as_mut().unwrap();
    master.handle(now, member, Incarnation(8), PeerMessage::Report(report));
    solo.input(Input::Tick);
    assert!(solo.responses.iter().any(|said| matches!(said, Response::Bast { seq: 1, wanted: Mode::PW })));
    solo.unlock(1);
    let granted = |(_, record): &(u32, LockRecord)| record.lock == lock && record.mode == Mode::PW;
    solo.until(|solo| solo.records().iter().any(granted));
}

/// Section 5: who was excluded has no word any more. Its report may come after the view that it has still to read; what it
/// holds would stay for ever (simulator seed 70601).
#[test]
fn a_report_of_an_excluded_node_does_not_count() {
    let mut solo = Solo::new();
    let (node, incarnation) = (NodeId::new(1).unwrap(), Incarnation(8));
    let reign = solo.core.master.as_ref().unwrap().reign();
    solo.input(Input::PeerUp { node, incarnation });
    let lock = LockId { session: SessionId(9), seq: 1 };
    let held = reported(lock, "a", Mode::EX, Token(0));
    let report = Report { epoch: reign, sessions: vec![lock.session], locks: vec![held], last: true };
    let frame = PeerFrame {
        from: node,
        from_incarnation: incarnation,
        to_incarnation: solo.core.cluster.incarnation(),
        seq: 1,
        ack: 0,
        epoch: reign,
        message: Some(PeerMessage::Report(report)),
    };
    solo.input(Input::Peer { node, frame });
    solo.lock(1, "a", Mode::EX);
    solo.until(|solo| solo.is_granted(1, 0, Mode::EX));
}

/// A grant that nobody waits for (its request was answered otherwise in a failover) is given back: it would stay for ever.
#[test]
fn a_lock_that_nobody_asked_for_is_given_back() {
    let mut solo = Solo::new();
    let (now, me) = (Now { boot: solo.now, wall_ms: 0 }, solo.core.node());
    let incarnation = solo.core.cluster.incarnation();
    let new = NewLock { process: process(9), ..new_lock("data", Mode::EX) };
    let lock = LockId { session: SessionId(9), seq: 1 };
    let operation = Operation { lock, op: 0, kind: OperationKind::Lock(Box::new(new)) };
    solo.core.master.as_mut().unwrap().handle(now, me, incarnation, PeerMessage::Operation(operation));
    solo.input(Input::Tick);
    solo.lock(1, "data", Mode::EX);
    solo.until(|solo| solo.is_granted(1, 0, Mode::EX));
}

/// Section 7, "Deadlock": the youngest waiting request of the cycle is refused when the cycle closes; the others go on, and a
/// failover in between changes nothing.
#[test]
fn the_youngest_request_of_a_deadlock_is_refused() {
    for failover in [false, true] {
        let mut solo = Solo::new();
        for (transaction, name) in [(1, "a"), (2, "b"), (3, "c")] {
            solo.lock_for(transaction, transaction, name, Mode::EX);
        }
        solo.lock_for(1, 11, "b", Mode::PR);
        solo.lock_for(2, 12, "c", Mode::EX);
        assert!(solo.answers(11, 0).is_empty() && solo.answers(12, 0).is_empty());
        if failover {
            solo.until(|solo| solo.records().len() == 5 && solo.held.is_empty());
            solo.hold = true;
            solo.lock(20, "another", Mode::NL);
            solo.fail_over();
        }
        solo.lock_for(3, 13, "a", Mode::EX);
        solo.until(|solo| !solo.answers(13, 0).is_empty());
        assert!(matches!(solo.answers(13, 0)[..], [Answer::Denied(Denial::Deadlock)]));
        assert!(solo.answers(11, 0).is_empty() && solo.answers(12, 0).is_empty());
        solo.unlock(3);
        solo.until(|solo| solo.is_granted(12, 0, Mode::EX));
        solo.unlock(12);
        solo.unlock(2);
        solo.until(|solo| solo.is_granted(11, 0, Mode::PR));
    }
}
