//! A member alone: what it says to clients that come back.

use super::*;
use mxlock_format::{ClusterKey, Geometry, ResourceId, ResourceKind, SectorSize, Superblock, Timing, Uuid};
use mxlock_proto::client::LockRequest;
use mxlock_proto::peer::{Outcome, OutcomeResult};

const NOW: Now = Now { boot: BootTime(1_000_000_000), wall_ms: 0 };
const CONN: ConnId = ConnId(1);

fn process() -> Process {
    Process { pid: 42, start_time: 1, uid: 0 }
}

fn member() -> Member {
    let timing = Timing { renew_ms: 200, lease_ms: 800, grace_ms: 300, dead_ms: 1_500, suspect_ms: 1_100 };
    let superblock = Superblock {
        geometry: Geometry { sector: SectorSize::S512, slot_count: 64 },
        timing,
        lockspace: "test".to_owned(),
        uuid: Uuid([7; 16]),
        key: ClusterKey([9; 32]),
        feature_level: 1,
    };
    let config = Config {
        node: NodeId::new(0).unwrap(),
        superblock,
        node_uuid: Uuid([1; 16]),
        boot_id: Uuid([2; 16]),
        host: "alone".to_owned(),
        incarnation: Incarnation(90),
        seed: 5,
        addresses: vec![],
        ballots_from: None,
        uncertain_until: None,
        fence_wait: true,
        orphan_lifetime_ms: 2_000,
        clear_behind_ms: 100,
        uid: 0,
        pid: 1,
        lockstate: String::new(),
        io: String::new(),
        scope: String::new(),
        version: String::new(),
        warnings: vec![],
    };
    let mut member = Member::new(&config, Rng::new(1));
    member.set_lease(Some(BootTime(u64::MAX)));
    member.report(Epoch(7));
    member
}

fn greet(member: &mut Member, resume: Option<SessionId>) -> Vec<Response> {
    member.connected(CONN, process());
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
    let id = ResourceId { volume: 1, ino: 1, offset: 0, ag: 0, kind: ResourceKind::Inode };
    let request = LockRequest {
        seq: 1,
        resource: Resource::typed(id).unwrap(),
        mode: Mode::EX,
        flags: LockFlags::PERSISTENT,
        range: None,
        timeout_ms: None,
        transaction: 0,
        orphan_lifetime_ms: None,
    };
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
