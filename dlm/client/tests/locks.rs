//! Locks over one connection: guards, submissions, notices, refusals.

mod fake;

use fake::*;
use mxlock_client::*;
use mxlock_proto::client::{Request, Response};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

fn spec(name: &str) -> LockSpec {
    LockSpec::name(name).unwrap()
}

/// Runs the daemon's part in a thread and the client's part here.
fn with<T: Send>(daemon: impl FnOnce() -> T + Send, client: impl FnOnce()) -> T {
    thread::scope(|scope| {
        let daemon = scope.spawn(daemon);
        client();
        daemon.join().unwrap()
    })
}

/// What the C libraries need: an adoption that persists, an unlock that invalidates, a session whose end was heard of.
#[test]
fn an_orphan_is_adopted_and_the_session_ends_in_order() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    with(
        move || {
            let Request::Adopt(adopt) = conn.next() else { panic!() };
            assert_eq!((adopt.seq, adopt.mode, adopt.persistent), (1, Mode::PR, true));
            conn.grant(1, 0, Mode::PR);
            let Request::Unlock(unlock) = conn.next() else { panic!() };
            assert_eq!((unlock.seq, unlock.lvb, unlock.invalidate_lvb), (1, None, true));
            conn.answer(1, UNLOCK_OP, Answer::Unlocked);
            let Request::Bye = conn.next() else { panic!() };
            // What is said meanwhile is of no interest.
            conn.send(&Response::LeaseLost);
        },
        move || {
            assert_eq!(client.submit_adopt(&spec("a").resource, Mode::PR, true).unwrap(), 1);
            let granted = client.poll_events(Some(PATIENCE)).unwrap();
            assert!(
                matches!(&granted[..], [Event::Answer { seq: 1, op: 0, answer: Answer::Granted(_) }]),
                "{granted:?}"
            );
            client.submit_unlock_with(1, &UnlockSpec { lvb: None, invalidate_lvb: true }).unwrap();
            let ended = client.poll_events(Some(PATIENCE)).unwrap();
            assert_eq!(ended, [Event::Answer { seq: 1, op: UNLOCK_OP, answer: Answer::Unlocked }]);
            assert!(client.close(PATIENCE), "the daemon closes the connection");
        },
    );
    let (client, conn) = fake.client(fake.options(), 8);
    assert!(!client.close(Duration::from_millis(20)), "nobody has closed it");
    drop(conn);
}

/// The whole life of a lock: request, grant, conversion, unlock with a value.
#[test]
fn a_lock_lives() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    assert_eq!(client.session_id(), Some(SessionId(7)));
    assert_eq!(client.node().unwrap().get(), 3);
    assert_eq!(client.daemon_version(), "fake 1");
    with(
        || {
            let Request::Lock(lock) = conn.next() else { panic!() };
            assert_eq!((lock.seq, lock.mode, lock.timeout_ms), (1, Mode::PR, Some(1_500)));
            assert!(lock.flags.contains(LockFlags::PERSISTENT | LockFlags::HEADQUE));
            assert_eq!((lock.range, lock.transaction), (ByteRange::new(0, 9), 5));
            assert_eq!(lock.orphan_lifetime_ms, Some(2_000));
            conn.answer(1, 0, granted(Mode::PR, 200, boottime_ns() + LONG_NS));
            let Request::Convert(convert) = conn.next() else { panic!() };
            assert_eq!((convert.seq, convert.op, convert.mode), (1, 1, Mode::EX));
            conn.deny(1, 1, Denial::Deadlock);
            let Request::Convert(convert) = conn.next() else { panic!() };
            assert_eq!((convert.op, convert.mode), (2, Mode::EX));
            conn.answer(1, 2, granted(Mode::EX, 201, boottime_ns() + LONG_NS));
            let Request::Unlock(unlock) = conn.next() else { panic!() };
            assert_eq!((unlock.seq, unlock.lvb.as_deref()), (1, Some(&b"new"[..])));
            conn.answer(1, UNLOCK_OP, Answer::Unlocked);
        },
        || {
            let mut spec = spec("a").mode(Mode::PR).timeout(Duration::from_millis(1_500));
            spec = spec.range(ByteRange::new(0, 9).unwrap()).flags(LockFlags::HEADQUE);
            spec.persistent = true;
            spec.transaction = 5;
            spec.orphan_lifetime = Some(Duration::from_secs(2));
            let mut lock = client.lock(&spec).unwrap();
            assert_eq!((lock.mode(), lock.token(), lock.seq()), (Mode::PR, Token(200), 1));
            assert_eq!(lock.lvb().unwrap().bytes, b"value");
            assert!(lock.is_valid() && client.lease_valid());
            let denied = lock.convert(Mode::EX).unwrap_err();
            assert!(matches!(denied, ClientError::Denied { denial: Denial::Deadlock, .. }));
            assert_eq!((denied.exit_code(), denied.to_string()), (1, "'a': it would deadlock".into()));
            assert_eq!(lock.mode(), Mode::PR);
            lock.convert(Mode::EX).unwrap();
            assert_eq!((lock.mode(), lock.token()), (Mode::EX, Token(201)));
            lock.unlock(Some(b"new")).unwrap();
        },
    );
    assert_eq!(client.poll_events(Some(Duration::ZERO)).unwrap(), []);
}

/// A dropped guard releases its lock without waiting; a dropped client ends the session.
#[test]
fn dropping_releases() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    with(
        || {
            conn.grant_next(Mode::EX);
            assert_eq!(conn.unlock_next(), 1);
            conn.grant_next(Mode::EX);
            assert_eq!(conn.next(), Request::Bye);
            conn.end();
        },
        || {
            drop(client.lock(&spec("a")).unwrap());
            assert_eq!(client.lock(&spec("b")).unwrap().keep(), 2);
            drop(client);
        },
    );
}

/// The last requests reach a daemon that is busy: more of them than a socket takes at once, and the farewell.
#[test]
fn the_last_requests_reach_a_busy_daemon() {
    const LOCKS: u64 = 1_000;
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    let (tell, told) = std::sync::mpsc::channel();
    with(
        move || {
            for _ in 0..LOCKS {
                conn.grant_next(Mode::EX);
            }
            told.recv().unwrap();
            // Busy: the client is done with its last call before anything is read.
            thread::sleep(Duration::from_millis(50));
            for seq in 1..=LOCKS {
                // Nobody waits for an answer.
                assert!(matches!(conn.next(), Request::Unlock(unlock) if unlock.seq == seq));
            }
            assert_eq!(conn.next(), Request::Bye);
            conn.end();
        },
        || {
            let locks: Vec<_> = (0..LOCKS).map(|_| client.lock(&spec("a")).unwrap()).collect();
            drop(locks);
            tell.send(()).unwrap();
            drop(client);
        },
    );
}

/// A detached client leaves its session to the process that it is for.
#[test]
fn detaching_does_not_end_the_session() {
    let fake = Fake::new();
    let mut options = fake.options();
    options.on_behalf_of = Some(4711);
    let (client, mut conn) = thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            let mut conn = fake.accept();
            assert_eq!(conn.hello().on_behalf_of, Some(4711));
            conn.welcome(&fake.page, 7, &[]);
            conn
        });
        (Client::connect(options).unwrap(), daemon.join().unwrap())
    });
    with(
        || {
            conn.grant_next(Mode::EX);
            conn.end();
        },
        || {
            client.lock(&spec("a")).unwrap().keep();
            client.detach();
        },
    );
}

/// Trying does not wait, and says so to the daemon.
#[test]
fn trying_is_told_to_the_daemon() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    with(
        || {
            let Request::Lock(lock) = conn.next() else { panic!() };
            assert_eq!((lock.timeout_ms, lock.flags), (Some(0), LockFlags::NOQUEUE));
            conn.deny(lock.seq, 0, Denial::Busy);
            let Request::Adopt(adopt) = conn.next() else { panic!() };
            assert_eq!((adopt.seq, adopt.mode), (2, Mode::PW));
            conn.grant(2, 0, Mode::PW);
        },
        || {
            let error = client.try_lock(&spec("a")).unwrap_err();
            assert_eq!((error.exit_code(), error.to_string().as_str()), (1, "'a': it is held in a conflicting mode"));
            let lock = client.adopt(&spec("a").resource, Mode::PW).unwrap();
            assert_eq!(lock.keep(), 2);
        },
    );
}

/// Section 2: an answer that promises a lock is compared with the own clock. A grant whose end has passed is not
/// believed, and the lock is given back.
#[test]
fn a_late_grant_is_not_believed() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    with(
        || {
            conn.next();
            conn.answer(1, 0, granted(Mode::EX, 9, boottime_ns() - 1));
            assert_eq!(conn.unlock_next(), 1);
            conn.next();
            conn.answer(2, 0, granted(Mode::EX, 9, boottime_ns()));
            assert_eq!(conn.unlock_next(), 2);
        },
        || {
            let error = client.lock(&spec("a")).unwrap_err();
            assert!(matches!(error, ClientError::LeaseLost));
            assert_eq!(error.exit_code(), 75);
            assert_eq!(client.submit_lock(&spec("a")).unwrap(), 2);
            let events = client.poll_events(Some(PATIENCE)).unwrap();
            assert_eq!(events, [Event::Answer { seq: 2, op: 0, answer: Answer::Denied(Denial::LeaseLost) }]);
            assert!(client.guard(2).is_none());
        },
    );
}

/// Of a conversion that was granted too late the truth is kept: after a late down-conversion nobody may believe in the
/// old, stronger mode.
#[test]
fn a_late_conversion_is_not_forgotten() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    with(
        || {
            conn.grant_next(Mode::EX);
            conn.next();
            conn.answer(1, 1, granted(Mode::PR, 101, boottime_ns() - 1));
            conn.unlock_next();
        },
        || {
            let mut lock = client.lock(&spec("a")).unwrap();
            assert!(matches!(lock.convert(Mode::PR), Err(ClientError::LeaseLost)));
            assert_eq!(lock.mode(), Mode::PR);
        },
    );
}

/// Submissions are answered by events, blocking calls by their results; notices come in between.
#[test]
fn submissions_are_answered_by_events() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    with(
        || {
            for _ in 0..3 {
                conn.next();
            }
            conn.grant(1, 0, Mode::EX);
            conn.send(&Response::Bast { seq: 1, wanted: Mode::CR });
            conn.send(&Response::Bast { seq: 1, wanted: Mode::PR });
            conn.send(&Response::Bast { seq: 1, wanted: Mode::CW });
            conn.grant(3, 0, Mode::EX);
            let Request::Cancel { seq: 2 } = conn.next() else { panic!() };
            conn.deny(2, 0, Denial::Cancelled);
            conn.unlock_next();
        },
        || {
            let (a, b) = (client.submit_lock(&spec("a")).unwrap(), client.submit_lock(&spec("b")).unwrap());
            // The call waits for its own answer only.
            let c = client.lock(&spec("c")).unwrap();
            client.submit_cancel(b).unwrap();
            let mut events = Vec::new();
            while events.len() < 3 {
                events.extend(client.poll_events(Some(PATIENCE)).unwrap());
            }
            let Event::Answer { seq, op: 0, answer: Answer::Granted(_) } = &events[0] else { panic!("{events:?}") };
            assert_eq!(*seq, a);
            // Three notices are one; PW is the weakest mode that covers PR and CW.
            assert_eq!(events[1], Event::Bast { seq: a, wanted: Mode::PW });
            assert_eq!(events[2], Event::Answer { seq: b, op: 0, answer: Answer::Denied(Denial::Cancelled) });
            assert!(client.guard(b).is_none());
            assert_eq!(c.keep(), 3);
            assert_eq!(client.guard(a).unwrap().token(), Token(101));
        },
    );
}

/// Values are checked before they are sent.
#[test]
fn value_blocks_have_a_length() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    with(
        || {
            conn.grant_next(Mode::EX);
            conn.unlock_next();
        },
        || {
            let lock = client.lock(&spec("a")).unwrap();
            for value in [&[][..], &[0; 65]] {
                assert_eq!(client.submit_unlock(lock.seq(), Some(value)).unwrap_err().exit_code(), 64);
            }
            assert_eq!(client.submit_unlock(99, None).unwrap_err().exit_code(), 64);
            lock.unlock(Some(&[0; 64])).unwrap();
        },
    );
}

/// A daemon that never answers: the call ends, and the request is withdrawn.
#[test]
fn a_silent_daemon_is_not_waited_for_for_ever() {
    let fake = Fake::new();
    let mut options = fake.options();
    options.answer_timeout = Duration::from_millis(50);
    let (client, mut conn) = fake.client(options, 7);
    with(
        || {
            let Request::Lock(_) = conn.next() else { panic!() };
            let Request::Unlock(unlock) = conn.next() else { panic!() };
            // A grant that comes now is nobody's any more; then the unlock is answered.
            conn.grant(1, 0, Mode::EX);
            conn.answer(unlock.seq, UNLOCK_OP, Answer::Unlocked);
            conn.grant_next(Mode::EX);
        },
        || {
            let start = Instant::now();
            let error = client.lock_timeout(&spec("a"), Duration::from_millis(20)).unwrap_err();
            assert!(start.elapsed() >= Duration::from_millis(70));
            assert!(matches!(error, ClientError::NoAnswer { waited_ms: 70, .. }), "{error}");
            assert_eq!(error.exit_code(), 69);
            client.lock(&spec("b")).unwrap().keep();
            assert_eq!(client.poll_events(Some(Duration::ZERO)).unwrap(), []);
        },
    );
}

/// A daemon that reads nothing: submissions are bounded.
#[test]
fn a_daemon_that_never_reads_is_noticed() {
    let fake = Fake::new();
    let mut options = fake.options();
    options.answer_timeout = Duration::from_millis(50);
    let (client, _conn) = fake.client(options, 7);
    let spec = LockSpec::new(Resource::named(QualifiedName::new(&[b'n'; 64], &[b'x'; 135]).unwrap()));
    let error = (0..20_000).find_map(|_| client.submit_lock(&spec).err()).expect("there is a bound");
    assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
}

/// Lists of locks come in parts; failures are errors with the daemon's words.
#[test]
fn administrative_replies() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    with(
        || {
            let Request::Admin { id, request: AdminRequest::Locks { resource: None } } = conn.next() else { panic!() };
            let part = |last| Response::Admin { id, reply: AdminReply::Locks { locks: Vec::new(), last } };
            conn.send(&part(false));
            conn.send(&Response::Admin { id: id + 7, reply: AdminReply::Ok });
            conn.send(&part(true));
            let Request::Admin { id, .. } = conn.next() else { panic!() };
            let (kind, message) = (FailureKind::NotNow, "locks are held".to_owned());
            conn.send(&Response::Admin { id, reply: AdminReply::Failed { kind, message } });
        },
        || {
            let reply = client.admin(AdminRequest::Locks { resource: None }).unwrap();
            assert_eq!(reply, AdminReply::Locks { locks: Vec::new(), last: true });
            let error = client.admin(AdminRequest::Leave { release: false }).unwrap_err();
            assert_eq!((error.exit_code(), error.to_string().as_str()), (75, "locks are held"));
        },
    );
}

/// An event loop sleeps on one descriptor: it wakes for the daemon's words and for events that are waiting already.
#[test]
fn the_descriptor_wakes() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    let readable = |patience: Duration| readable(&client.as_fd().unwrap(), patience);
    assert!(!readable(Duration::ZERO));
    let first = client.as_fd().unwrap().as_raw_fd();
    conn.send(&Response::Bast { seq: 1, wanted: Mode::PR });
    assert!(readable(PATIENCE));
    // A notice for a lock that does not exist is nothing to report.
    assert_eq!(client.poll_events(Some(Duration::ZERO)).unwrap(), []);
    assert!(!readable(Duration::ZERO));
    thread::scope(|scope| {
        scope.spawn(|| {
            conn.next();
            conn.next();
            conn.deny(1, 0, Denial::Busy);
            conn.grant(2, 0, Mode::EX);
        });
        client.submit_lock(&spec("a")).unwrap();
        client.lock(&spec("b")).unwrap().keep();
    });
    // The answer to the first was taken in by the second call.
    assert!(readable(PATIENCE));
    assert_eq!(client.poll_events(Some(PATIENCE)).unwrap().len(), 1);
    assert!(!readable(Duration::ZERO));
    assert_eq!(client.as_fd().unwrap().as_raw_fd(), first);
}
