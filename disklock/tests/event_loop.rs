//! Sockets and wake-ups on both event loops.

mod common;

use common::{Fixture, fixture};
use mxlock_disklock::io::{Backend, Event, EventLoop, Outcome, open_event_loop};
use mxlock_format::SectorSize;
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

fn each_loop(test: impl Fn(&mut dyn EventLoop, &Fixture)) {
    for backend in [Backend::Uring, Backend::Threads] {
        let fixture = fixture(64, SectorSize::S512);
        let file = fixture.lockstate.duplicate_file().unwrap();
        test(open_event_loop(backend, file, fixture.lockstate.geometry()).unwrap().as_mut(), &fixture);
    }
}

/// The next `count` events, by token.
fn events(io: &mut dyn EventLoop, count: usize) -> Vec<Event> {
    let until = Instant::now() + Duration::from_secs(60);
    let mut events = Vec::new();
    while events.len() < count {
        assert!(Instant::now() < until, "only {events:?}");
        io.wait(Some(Duration::from_secs(1)), &mut events).unwrap();
    }
    events.sort_by_key(|e| e.token);
    events
}

fn event(io: &mut dyn EventLoop) -> Event {
    events(io, 1).pop().unwrap()
}

#[test]
fn a_conversation() {
    each_loop(|io, fixture| {
        let path = fixture.directory.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        io.accept(listener.as_fd(), 1);
        let mut client = UnixStream::connect(&path).unwrap();
        let server = match event(io) {
            Event { token: 1, outcome: Outcome::Accepted(Ok(fd)) } => fd,
            other => panic!("{other:?}"),
        };

        // What is received is appended, into the room that there is.
        let mut buf = Vec::with_capacity(5);
        buf.extend_from_slice(b">");
        io.recv(server.as_fd(), 2, buf);
        client.write_all(b"hello").unwrap();
        match event(io) {
            Event { token: 2, outcome: Outcome::Received { buf, result: Ok(4) } } => assert_eq!(buf, b">hell"),
            other => panic!("{other:?}"),
        }

        io.send(server.as_fd(), 3, b"xxanswer".to_vec(), 2);
        assert!(matches!(event(io), Event { token: 3, outcome: Outcome::Sent { result: Ok(6), .. } }));
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");

        // The end of the stream.
        io.recv(server.as_fd(), 4, Vec::with_capacity(16));
        assert!(matches!(event(io).outcome, Outcome::Received { result: Ok(1), .. }));
        io.recv(server.as_fd(), 5, Vec::with_capacity(16));
        drop(client);
        assert!(matches!(event(io).outcome, Outcome::Received { result: Ok(0), .. }));
        // A peer that is gone is an error, not a signal.
        io.send(server.as_fd(), 6, b"x".to_vec(), 0);
        match event(io).outcome {
            Outcome::Sent { result: Err(e), .. } => assert_eq!(e.raw_os_error(), Some(libc::EPIPE)),
            other => panic!("{other:?}"),
        }
    });
}

/// A peer that never reads holds up its own sends and nobody else's; cancelled requests end with ECANCELED.
#[test]
fn a_full_socket_waits_and_can_be_cancelled() {
    each_loop(|io, _| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (other, mut other_end) = UnixStream::pair().unwrap();
        let big = vec![7; 16 << 20];
        io.send(ours.as_fd(), 1, big, 0);
        let taken = match event(io).outcome {
            Outcome::Sent { result: Ok(taken), buf } => {
                assert!(taken < buf.len());
                io.send(ours.as_fd(), 2, buf, taken);
                taken
            }
            other => panic!("{other:?}"),
        };
        io.recv(ours.as_fd(), 3, Vec::with_capacity(16));
        io.recv(other.as_fd(), 4, Vec::with_capacity(16));
        other_end.write_all(b"me").unwrap();
        assert_eq!(event(io).token, 4);

        // Room again: the send goes on.
        let mut sink = vec![0; taken];
        (&theirs).read_exact(&mut sink).unwrap();
        match event(io) {
            Event { token: 2, outcome: Outcome::Sent { result: Ok(more), buf } } => {
                io.send(ours.as_fd(), 5, buf, taken + more)
            }
            other => panic!("{other:?}"),
        }
        io.cancel(ours.as_raw_fd());
        let ended = events(io, 2);
        for (event, token) in ended.into_iter().zip([3, 5]) {
            assert_eq!(event.token, token);
            match event.outcome {
                Outcome::Received { result: Err(e), .. } | Outcome::Sent { result: Err(e), .. } => {
                    assert_eq!(e.raw_os_error(), Some(Errno::ECANCELED as i32));
                }
                // The send had room for another part.
                Outcome::Sent { result: Ok(_), .. } => {}
                other => panic!("{other:?}"),
            }
        }
        // The descriptor can be used again.
        io.recv(ours.as_fd(), 6, Vec::with_capacity(16));
        (&theirs).write_all(b"x").unwrap();
        assert_eq!(event(io).token, 6);
    });
}

#[test]
fn other_threads_wake_the_loop_and_time_passes() {
    each_loop(|io, _| {
        let kick = EventFd::new().unwrap();
        io.poll_readable(kick.as_fd(), 9);
        let mut events = Vec::new();
        // `wait` may return early with nothing, and never much too late.
        let end = Instant::now() + Duration::from_millis(30);
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            io.wait(Some(left), &mut events).unwrap();
            assert!(events.is_empty());
        }
        assert!(end.elapsed() < Duration::from_secs(60));
        std::thread::scope(|scope| {
            scope.spawn(|| kick.write(1).unwrap());
            assert!(matches!(event(io), Event { token: 9, outcome: Outcome::Readable(Ok(())) }));
        });
        assert_eq!(kick.read().unwrap(), 1);
    });
}

/// A descriptor that was closed and came back under the same number is another one.
#[test]
fn reused_descriptor_numbers() {
    each_loop(|io, _| {
        for round in 0..20 {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            io.recv(ours.as_fd(), round, Vec::with_capacity(16));
            theirs.write_all(b"x").unwrap();
            assert_eq!(event(io).token, round);
        }
    });
}

/// Dropping a loop with requests under way leaves no trap for the memory they use.
#[test]
fn a_loop_can_be_dropped_at_any_time() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    each_loop(|io, _| {
        io.recv(ours.as_fd(), 1, Vec::with_capacity(1 << 20));
        let mut events = Vec::new();
        io.wait(Some(Duration::ZERO), &mut events).unwrap();
    });
    theirs.write_all(&[1; 1000]).unwrap();
}
