//! A member alone: what it says to clients that come back.

use super::*;
use crate::testing::{self, lock_request, process};
use mxlock_proto::client::LockRequest;
use mxlock_proto::peer::{Outcome, OutcomeResult};

const NOW: Now = Now { boot: BootTime(1_000_000_000), wall_ms: 0 };
const CONN: ConnId = ConnId(1);

fn member() -> Member {
    let config = Config { ballots_from: None, ..testing::config(0, 90) };
    let mut member = Member::new(&config, Rng::new(1));
    member.set_lease(Some(BootTime(u64::MAX)));
    member.report(Epoch(7));
    member
}

fn greet(member: &mut Member, resume: Option<SessionId>) -> Vec<Response> {
    member.connected(CONN, process(42));
    member.hello(CONN, Hello { resume, ..Hello::first() }, None);
    said(member)
}

fn said(member: &mut Member) -> Vec<Response> {
    let said = member.out.drain(..).filter_map(|output| match output {
        Output::Reply { response, .. } => Some(response),
        _ => None,
    });
    said.collect()
}

fn open(member: &mut Member) -> SessionId {
    match &greet(member, None)[..] {
        [Response::Welcome(welcome)] => welcome.session,
        other => panic!("{other:?}"),
    }
}

fn ask(member: &mut Member, session: SessionId) -> LockId {
    let request = LockRequest { flags: LockFlags::PERSISTENT, ..lock_request(1, "data", Mode::EX) };
    member.lock(NOW, session, request);
    LockId { session, seq: 1 }
}

fn grant(member: &mut Member, lock: LockId) {
    let result =
        OutcomeResult::Granted { mode: Mode::EX, token: Token(9), granted_at_ms: 0, demoted: false, lvb: None };
    member.outcome(Outcome { lock, op: 0, result });
}

/// I1: once the master was told that a session's locks may be adopted, they are not its any more, whatever the memory of this
/// daemon says: somebody else may have them.
#[test]
fn a_session_whose_orphans_may_be_adopted_is_not_taken_up_again() {
    let mut member = member();
    let session = open(&mut member);
    let lock = ask(&mut member, session);
    member.disconnected(NOW, CONN);
    grant(&mut member, lock);
    assert!(matches!(greet(&mut member, Some(session))[..], [Response::Welcome(_), Response::Answer { .. }]));
    member.disconnected(NOW, CONN);
    member.orphans_expired(session);
    let answers = greet(&mut member, Some(session));
    assert!(matches!(answers[..], [Response::Refused(Refusal::UnknownSession)]), "{answers:?}");
    assert_eq!(member.lock_count(), 1, "it waits for whoever adopts it");
}
