//! Lost connections, restarted daemons, ended leases: what a client keeps and what it knows to be lost
//! (DESIGN sections 5 and 7).

#[path = "../fake/mod.rs"]
mod fake;
mod greeting;
mod lease;
mod reconnect;

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
