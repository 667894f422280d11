//! The end of the lease, seen by a client with and without its daemon (section 5).

use super::*;

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
