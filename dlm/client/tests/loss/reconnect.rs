//! Lost connections and restarted daemons: what is claimed, repeated and lost (section 7).

use super::*;

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
