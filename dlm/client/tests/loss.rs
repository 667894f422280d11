//! Lost connections, restarted daemons, ended leases: what a client keeps and what it knows to be lost
//! (DESIGN sections 5 and 7).

mod fake;

use fake::*;
use mxlock_client::*;
use mxlock_proto::client::{Request, Response};
use mxlock_proto::frame::{FRAME_VERSION, MAX_HELLO_FRAME};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

fn spec(name: &str) -> LockSpec {
    LockSpec::name(name).unwrap()
}

/// Polls until `count` events have come.
fn events(client: &Client, count: usize) -> Vec<Event> {
    let end = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    while events.len() < count {
        assert!(Instant::now() < end, "only {events:?}");
        events.extend(client.poll_events(Some(Duration::from_millis(100))).unwrap());
    }
    events
}

/// Takes a lock named `name` from the fake daemon.
fn take(client: &Client, conn: &mut Conn, name: &str) -> u64 {
    thread::scope(|scope| {
        scope.spawn(|| conn.grant_next(Mode::EX));
        client.lock(&spec(name)).unwrap().keep()
    })
}

/// A request that was given up while its daemon was down keeps its place from its record. Its grant is handed back, or
/// nobody would ever get the lock.
#[test]
fn a_grant_that_nobody_wants_is_unlocked() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    conn.grant(9, 0, Mode::EX);
    assert_eq!(client.poll_events(Some(Duration::from_millis(100))).unwrap(), []);
    let Request::Unlock(unlock) = conn.next() else { panic!() };
    assert_eq!((unlock.seq, unlock.lvb), (9, None));
    conn.answer(9, UNLOCK_OP, Answer::Unlocked);
    assert_eq!(client.poll_events(Some(Duration::from_millis(10))).unwrap(), []);
}

/// A lost connection: the session is taken up again, held locks are claimed, unanswered operations are repeated with
/// the same numbers, in their order, with what is left of their time.
#[test]
fn a_reconnect_claims_and_repeats() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    take(&client, &mut conn, "a");
    take(&client, &mut conn, "b");
    assert_eq!(client.submit_lock(&spec("c").timeout(Duration::from_secs(100))).unwrap(), 3);
    assert_eq!(client.submit_convert(1, &ConvertSpec::new(Mode::PR)).unwrap(), 1);
    client.submit_unlock(2, None).unwrap();
    client.submit_cancel(3).unwrap();
    drop(conn);
    let mut conn = thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            let mut conn = fake.accept();
            let hello = conn.hello();
            assert_eq!(hello.resume, Some(SessionId(7)));
            let claims: Vec<_> = hello.claims.iter().map(|c| (c.seq, c.mode, c.token)).collect();
            // The down-conversion and the unlock may have been carried out: what is left of the mode in any case is claimed.
            assert_eq!(claims, [(1, Mode::PR, Token(101)), (2, Mode::NL, Token(102))]);
            assert_eq!(hello.asked, [3], "it may have been granted");
            conn.welcome(&fake.page, 7, &[]);
            let Request::Lock(lock) = conn.next() else { panic!() };
            assert_eq!(lock.seq, 3);
            assert!((90_000..=100_000).contains(&lock.timeout_ms.unwrap()));
            let Request::Cancel { seq: 3 } = conn.next() else { panic!() };
            let Request::Convert(convert) = conn.next() else { panic!() };
            assert_eq!((convert.seq, convert.op), (1, 1));
            // The unlock had been carried out before the connection was lost.
            let Request::Unlock(unlock) = conn.next() else { panic!() };
            conn.deny(unlock.seq, UNLOCK_OP, Denial::NotFound);
            conn.grant(1, 1, Mode::PR);
            // Answered twice: once for each time it was sent.
            conn.grant(1, 1, Mode::PR);
            conn
        });
        let seen = events(&client, 4);
        assert_eq!(seen[..2], [Event::Disconnected, Event::Reconnected]);
        assert_eq!(seen[2], Event::Answer { seq: 2, op: UNLOCK_OP, answer: Answer::Unlocked });
        assert!(matches!(seen[3], Event::Answer { seq: 1, op: 1, answer: Answer::Granted(_) }));
        assert_eq!(client.poll_events(Some(Duration::ZERO)).unwrap(), []);
        daemon.join().unwrap()
    });
    let lock = client.guard(1).unwrap();
    assert!(lock.is_valid());
    assert_eq!(lock.mode(), Mode::PR);
    drop(lock);
    conn.unlock_next();
}

/// An unlock that was carried out before the connection was lost is no loss: nobody held the lock any more.
#[test]
fn an_unlock_in_between_is_no_loss() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    take(&client, &mut conn, "a");
    thread::scope(|scope| {
        scope.spawn(|| {
            let Request::Unlock(_) = conn.next() else { panic!() };
            drop(conn);
            let mut conn = fake.accept();
            assert_eq!(conn.hello().claims.len(), 1);
            conn.welcome(&fake.page, 7, &[1]);
        });
        client.guard(1).unwrap().unlock(None).unwrap();
    });
    assert!(!events(&client, 2).iter().any(|event| matches!(event, Event::Lost { .. })));
}

/// A client without locks has nothing to take up: it opens a new session.
#[test]
fn without_locks_a_new_session_is_opened() {
    let fake = Fake::new();
    let (client, conn) = fake.client(fake.options(), 7);
    drop(conn);
    thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            let mut conn = fake.accept();
            assert_eq!(conn.hello().resume, None);
            conn.welcome(&fake.page, 8, &[]);
            conn
        });
        assert_eq!(events(&client, 2), [Event::Disconnected, Event::Reconnected]);
        daemon.join().unwrap()
    });
    assert_eq!(client.session_id(), Some(SessionId(8)));
}

/// A blocking call survives a lost connection: it waits on over the reconnect.
#[test]
fn a_waiting_call_survives_a_reconnect() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    thread::scope(|scope| {
        scope.spawn(|| {
            conn.next();
            drop(conn);
            let mut conn = fake.accept();
            assert_eq!(conn.hello().resume, Some(SessionId(7)));
            conn.welcome(&fake.page, 7, &[]);
            assert_eq!(conn.grant_next(Mode::EX), 1);
            conn.unlock_next();
        });
        let lock = client.lock(&spec("a")).unwrap();
        assert!(lock.is_valid());
        lock.unlock(None).unwrap();
    });
}

/// A restarted daemon has another page. Locks that it confirms stand, even before it has a lease of its own: the old
/// promise holds until its end. Those that it does not confirm are lost.
#[test]
fn a_restarted_daemon_keeps_what_it_confirms() {
    let mut fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    take(&client, &mut conn, "a");
    take(&client, &mut conn, "b");
    let (a, b) = (client.guard(1).unwrap(), client.guard(2).unwrap());
    fake.stop();
    drop(conn);
    assert_eq!(events(&client, 1), [Event::Disconnected]);
    assert!(a.is_valid() && b.is_valid());
    let page = Page::new(2, 0);
    page.set_deadline(0);
    fake.start(page);
    thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            let mut conn = fake.accept();
            assert_eq!(conn.hello().claims.len(), 2);
            conn.welcome(&fake.page, 7, &[2]);
            conn
        });
        assert_eq!(events(&client, 2), [Event::Lost { seq: 2, loss: Loss::NotConfirmed }, Event::Reconnected]);
        daemon.join().unwrap()
    });
    assert!(a.is_valid());
    assert!(!b.is_valid());
    assert_eq!(b.loss(), Some(Loss::NotConfirmed));
    let error = b.unlock(None).unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }));
    assert_eq!(error.exit_code(), 75);
}

/// I1: a conversion with CONVDEADLK may have given the old mode to others. It is claimed as NL, and a daemon that has forgotten
/// what was asked cannot give it back with a denial; one that has not forgotten can.
#[test]
fn what_convdeadlk_gives_up_is_not_claimed() {
    for restarted in [false, true] {
        let mut fake = Fake::new();
        let (client, mut conn) = fake.client(fake.options(), 7);
        for seq in 1..=3 {
            assert_eq!(client.submit_lock(&spec(&format!("name {seq}"))).unwrap(), seq);
            assert_eq!(conn.grant_next(Mode::PR), seq);
        }
        events(&client, 3);
        let demotes = |mode| ConvertSpec { flags: LockFlags::CONVDEADLK, ..ConvertSpec::new(mode) };
        for (seq, mode) in [(1, Mode::EX), (2, Mode::PW), (3, Mode::CR)] {
            client.submit_convert(seq, &demotes(mode)).unwrap();
        }
        let held = |modes: [Mode; 3]| assert_eq!([1, 2, 3].map(|seq| client.held_mode(seq).unwrap()), modes);
        held([Mode::NL, Mode::NL, Mode::CR]);
        drop(conn);
        if restarted {
            fake.stop();
            let page = Page::new(2, 0);
            page.set_deadline(boottime_ns() + LONG_NS);
            fake.start(page);
        }
        thread::scope(|scope| {
            let daemon = scope.spawn(|| {
                let mut conn = fake.accept();
                let claims: Vec<Mode> = conn.hello().claims.iter().map(|claim| claim.mode).collect();
                assert_eq!(claims, [Mode::NL, Mode::NL, Mode::CR]);
                conn.welcome(&fake.page, 7, &[]);
                (0..3).for_each(|_| assert!(matches!(conn.next(), Request::Convert(_))));
                conn.deny(1, 1, Denial::Cancelled);
                conn.grant(2, 1, Mode::PW);
                conn.deny(3, 1, Denial::Cancelled);
                conn
            });
            let answers: Vec<Answer> = events(&client, 5)
                .into_iter()
                .filter_map(|event| match event {
                    Event::Answer { answer, .. } => Some(answer),
                    _ => None,
                })
                .collect();
            match answers[..] {
                [Answer::DeniedDemoted(_), Answer::GrantedDemoted(_), Answer::Denied(_)] => assert!(restarted),
                [Answer::Denied(_), Answer::Granted(_), Answer::Denied(_)] => assert!(!restarted),
                ref other => panic!("{other:?}"),
            }
            daemon.join().unwrap()
        });
        held([if restarted { Mode::NL } else { Mode::PR }, Mode::PW, Mode::CR]);
        assert_eq!(client.guard(2).unwrap().demoted(), restarted);
    }
}

/// A daemon that does not know the session: its locks are lost, requests that wait go on in a new session.
#[test]
fn an_unknown_session_is_a_loss() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    take(&client, &mut conn, "a");
    client.submit_lock(&spec("b")).unwrap();
    client.submit_convert(1, &ConvertSpec::new(Mode::PR)).unwrap();
    drop(conn);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut conn = fake.accept();
            assert_eq!(conn.hello().resume, Some(SessionId(7)));
            conn.send(&Response::Refused(Refusal::UnknownSession));
            let mut conn = fake.accept();
            let hello = conn.hello();
            assert_eq!((hello.resume, hello.claims.len()), (None, 0));
            conn.welcome(&fake.page, 8, &[]);
            assert_eq!(conn.grant_next(Mode::EX), 2);
        });
        let seen = events(&client, 5);
        assert_eq!(seen[0], Event::Disconnected);
        assert_eq!(seen[1], Event::Answer { seq: 1, op: 1, answer: Answer::Denied(Denial::SessionOver) });
        assert_eq!(seen[2], Event::Lost { seq: 1, loss: Loss::NotConfirmed });
        assert_eq!(seen[3], Event::Reconnected);
        assert!(matches!(seen[4], Event::Answer { seq: 2, op: 0, answer: Answer::Granted(_) }));
    });
    assert_eq!(client.session_id(), Some(SessionId(8)));
    assert!(client.guard(1).is_none() && client.guard(2).is_some());
}

/// Section 5: without the daemon a client treats its locks as lost at the lease deadline, not before and not later.
/// When a daemon is there again, the old session is ended first, so that its orphans block nobody; then a new one
/// begins.
#[test]
fn without_a_daemon_locks_end_at_the_deadline() {
    let mut fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    take(&client, &mut conn, "a");
    let lock = client.guard(1).unwrap();
    fake.stop();
    drop(conn);
    assert_eq!(events(&client, 1), [Event::Disconnected]);
    assert!(lock.is_valid());
    let deadline_ns = fake.page.end_in(Duration::from_millis(300));
    assert_eq!(client.lease().unwrap().deadline_ns(), deadline_ns);
    assert_eq!(events(&client, 2), [Event::LeaseLost, Event::Lost { seq: 1, loss: Loss::Lease }]);
    assert!(boottime_ns() >= deadline_ns && boottime_ns() < deadline_ns + LONG_NS / 2);
    assert!(!lock.is_valid());
    assert_eq!(lock.loss(), Some(Loss::Lease));
    drop(lock);

    fake.start(Page::new(2, LONG_NS));
    thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            let mut conn = fake.accept();
            let hello = conn.hello();
            // It ends as a session that has its locks: PERSISTENT ones stay, also where only their records know of them.
            let claimed: Vec<u64> = hello.claims.iter().map(|claim| claim.seq).collect();
            assert_eq!((hello.resume, claimed), (Some(SessionId(7)), vec![1]));
            conn.welcome(&fake.page, 7, &[]);
            assert_eq!(conn.next(), Request::Bye);
            drop(conn);
            let mut conn = fake.accept();
            assert_eq!(conn.hello().resume, None);
            conn.welcome(&fake.page, 8, &[]);
            conn
        });
        assert_eq!(events(&client, 2), [Event::Reconnected, Event::LeaseRegained]);
        daemon.join().unwrap()
    });
}

/// A welcome that is read after the deadline revives nothing, even if it was sent before and the daemon kept the locks:
/// a process that was paused in between had to have stopped.
#[test]
fn a_late_welcome_revives_nothing() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    take(&client, &mut conn, "a");
    drop(conn);
    assert_eq!(events(&client, 1), [Event::Disconnected]);
    // One look at the time makes the client connect; then it is paused.
    let mut conn = thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            let mut conn = fake.accept();
            assert_eq!(conn.hello().claims.len(), 1);
            conn
        });
        while !daemon.is_finished() {
            assert_eq!(client.poll_events(Some(Duration::from_millis(1))).unwrap(), []);
        }
        daemon.join().unwrap()
    });
    conn.welcome(&fake.page, 7, &[]);
    let deadline_ns = fake.page.end_in(Duration::from_millis(10));
    thread::sleep(Duration::from_nanos(deadline_ns.saturating_sub(boottime_ns())));
    let seen = events(&client, 2);
    assert_eq!(seen, [Event::LeaseLost, Event::Lost { seq: 1, loss: Loss::Lease }]);
    assert_eq!(conn.next(), Request::Bye);
    assert!(client.guard(1).is_none());
}

/// A lease that is lost and regained while the connection stands: the locks stand as before. The page tells of both
/// without a word of the daemon.
#[test]
fn a_lease_can_be_regained() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    take(&client, &mut conn, "a");
    let lock = client.guard(1).unwrap();
    fake.page.set_deadline(0);
    assert!(!lock.is_valid() && !client.lease_valid());
    conn.send(&Response::LeaseLost);
    assert_eq!(events(&client, 1), [Event::LeaseLost]);
    fake.page.set_deadline(boottime_ns() + LONG_NS);
    assert!(lock.is_valid());
    conn.send(&Response::LeaseRegained);
    assert_eq!(events(&client, 1), [Event::LeaseRegained]);
    assert_eq!(lock.loss(), None);
}

/// A node that was excluded rejoins under a new incarnation: its old locks are not valid for one moment, even for a
/// client that has not read the daemon's messages.
#[test]
fn a_new_incarnation_has_none_of_the_old_locks() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    take(&client, &mut conn, "a");
    let lock = client.guard(1).unwrap();
    fake.page.set_deadline(0);
    assert_eq!(events(&client, 1), [Event::LeaseLost]);
    fake.page.set_incarnation(2);
    fake.page.set_deadline(boottime_ns() + LONG_NS);
    assert!(client.lease_valid() && !lock.is_valid());
    let lost = Event::Lost { seq: 1, loss: Loss::Lease };
    assert_eq!(events(&client, 2), [lost, Event::LeaseRegained]);
}

/// Whoever waits for one lock while holding another hears of the lease at once, daemon or no daemon.
#[test]
fn a_waiting_call_ends_with_the_lease() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    take(&client, &mut conn, "a");
    let seq = thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            let Request::Lock(lock) = conn.next() else { panic!() };
            // The last word of a daemon that hangs: it renews nothing any more, but the connection stands.
            fake.page.end_in(Duration::from_millis(100));
            conn.send(&Response::Bast { seq: 1, wanted: Mode::PR });
            lock.seq
        });
        let error = client.lock(&spec("b")).unwrap_err();
        assert!(matches!(error, ClientError::LeaseLost), "{error}");
        daemon.join().unwrap()
    });
    assert_eq!(events(&client, 2), [Event::Bast { seq: 1, wanted: Mode::PR }, Event::LeaseLost]);
    assert_eq!(conn.unlock_next(), seq);
}

/// A lock that the daemon takes away.
#[test]
fn a_lock_can_be_taken_away() {
    let fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    take(&client, &mut conn, "a");
    let lock = client.guard(1).unwrap();
    conn.send(&Response::Lost { seq: 1, reason: LossReason::Excluded });
    let loss = Loss::Daemon(LossReason::Excluded);
    assert_eq!(events(&client, 1), [Event::Lost { seq: 1, loss }]);
    assert!(!lock.is_valid());
    let error = lock.unlock(None).unwrap_err();
    assert_eq!(error.to_string(), "the lock on 'a' is lost: the node was excluded after it had lost its lease");
}

/// A daemon that talks nonsense in mid-conversation: the connection is given up and made again.
#[test]
fn nonsense_ends_the_connection_only() {
    let mut zero_length = vec![0; 4];
    let oversized = u32::MAX.to_le_bytes().to_vec();
    let wrong_version = vec![2, 0, 0, 0, 77, 0];
    let unknown = vec![2, 0, 0, 0, FRAME_VERSION, 200];
    zero_length.push(1);
    for nonsense in [zero_length, oversized, wrong_version, unknown] {
        let fake = Fake::new();
        let (client, mut conn) = fake.client(fake.options(), 7);
        take(&client, &mut conn, "a");
        conn.send_raw(&nonsense);
        thread::scope(|scope| {
            let daemon = scope.spawn(|| {
                conn.end();
                let mut conn = fake.accept();
                assert_eq!(conn.hello().claims.len(), 1);
                conn.welcome(&fake.page, 7, &[]);
                conn
            });
            assert_eq!(events(&client, 2), [Event::Disconnected, Event::Reconnected]);
            daemon.join().unwrap()
        });
        assert!(client.guard(1).unwrap().is_valid());
    }
}

/// Bad greetings are typed errors, said with the socket's path.
#[test]
fn bad_greetings_are_refused() {
    let fake = Fake::new();
    let expect = |error: ClientError, code: u8, words: &str| {
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("/sock"), "{error}");
        assert_eq!(error.exit_code(), code, "{error}");
    };
    let huge = (MAX_HELLO_FRAME as u32 + 1).to_le_bytes();
    expect(fake.refusal(|mut c| c.send_raw(b"HTTP/1.1 400 Bad Request\r\n")), 69, "above the limit");
    expect(fake.refusal(|mut c| c.send_raw(&huge)), 69, "above the limit");
    expect(fake.refusal(|mut c| c.send_raw(&[2, 0, 0, 0, 9, 9])), 69, "version 9");
    expect(fake.refusal(|mut c| drop(c.hello())), 69, "is mxlockd running");
    expect(fake.refusal(|mut c| c.send(&Response::LeaseLost)), 69, "out of turn");
    expect(fake.refusal(|mut c| c.send(&Response::Refused(Refusal::Version { daemon: 9 }))), 69, "client protocol 9");
    expect(fake.refusal(|mut c| c.send(&Response::Refused(Refusal::Permission))), 77, "another user");
    expect(fake.refusal(|mut c| c.send(&Response::Refused(Refusal::TooManySessions))), 75, "as many sessions");
}

/// A lease page whose memory could vanish would kill its reader with SIGBUS: it is refused, as is a foreign one.
#[test]
fn bad_pages_are_refused() {
    let fake = Fake::new();
    let refused = |page: Option<&Page>| fake.refusal(|mut c| c.send_with(&welcome(7, &[]), page)).to_string();
    assert!(refused(None).contains("no lease page"));
    assert!(refused(Some(&Page::unsealed(4096))).contains("not a sealed memory file"));
    let short = Page::unsealed(8);
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    fcntl(&short.file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    assert!(refused(Some(&short)).contains("not a sealed memory file"));
    let foreign = Page::new(1, 0);
    foreign.write(0, 77);
    assert!(refused(Some(&foreign)).contains("no magic number"));
    let newer = Page::new(1, 0);
    newer.write(1, 2);
    assert!(refused(Some(&newer)).contains("version 2"));
    let file = Page { file: tempfile::tempfile().unwrap() };
    assert!(refused(Some(&file)).contains("not a sealed memory file"));
}

/// Nobody there: the message names the sockets that were tried and what to look at.
#[test]
fn no_daemon_is_said_plainly() {
    let mut options = ConnectOptions::new("blue");
    options.socket = Some("/nonexistent/sock".into());
    let error = Client::connect(options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no mxlockd answers for lockspace 'blue' (/nonexistent/sock: no such socket): is mxlockd running?"
    );
    assert_eq!(error.exit_code(), 69);

    let mut fake = Fake::new();
    let mut options = fake.options();
    options.reconnect_timeout = Duration::from_millis(50);
    let (client, conn) = fake.client(options, 7);
    fake.stop();
    drop(conn);
    let error = client.lock(&spec("a")).unwrap_err();
    assert!(matches!(error, ClientError::Disconnected { .. }), "{error}");
    assert!(error.to_string().contains("nobody listens"), "{error}");
}

/// The welcome has a deadline too.
#[test]
fn a_daemon_that_does_not_greet_is_not_waited_for() {
    let fake = Fake::new();
    let mut options = fake.options();
    options.connect_timeout = Duration::from_millis(50);
    let error = Client::connect(options).unwrap_err();
    assert!(matches!(error, ClientError::NoAnswer { waited_ms: 50, .. }), "{error}");
}

/// The event loop's descriptor stays the same over a reconnect and wakes for the lease deadline without a daemon.
#[test]
fn the_descriptor_survives_and_wakes_at_the_deadline() {
    let mut fake = Fake::new();
    let (client, mut conn) = fake.client(fake.options(), 7);
    take(&client, &mut conn, "a");
    // What the first connection promised holds in the second one: time enough for both.
    fake.page.end_in(Duration::from_secs(5));
    let first = client.as_fd().unwrap().as_raw_fd();
    let end = Instant::now() + PATIENCE;
    let sleep = || {
        assert!(Instant::now() < end, "not all events came");
        assert!(readable(&client.as_fd().unwrap(), PATIENCE), "the descriptor does not wake");
        client.poll_events(Some(Duration::ZERO)).unwrap()
    };
    drop(conn);
    let mut seen = Vec::new();
    let conn = thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            let mut conn = fake.accept();
            conn.hello();
            conn.welcome(&fake.page, 7, &[]);
            conn
        });
        while seen.len() < 2 {
            seen.extend(sleep());
        }
        daemon.join().unwrap()
    });
    fake.stop();
    drop(conn);
    while seen.len() < 5 {
        seen.extend(sleep());
    }
    let lost = Event::Lost { seq: 1, loss: Loss::Lease };
    let all = [Event::Disconnected, Event::Reconnected, Event::Disconnected, Event::LeaseLost, lost];
    assert_eq!(seen, all);
    assert_eq!(client.as_fd().unwrap().as_raw_fd(), first);
}
