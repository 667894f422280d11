//! Waiting for events with a deadline.

use std::time::{Duration, Instant};

/// How often a condition that cannot be waited for is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Longest wait for something that takes no defined time: a process to start or to end.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` has something, and returns it.
///
/// # Panics
/// When it does not within `limit`; the message says `what` was waited for.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Waits until `look` is true.
///
/// # Panics
/// As [`until`].
#[track_caller]
pub fn until_true(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    until(what, limit, || look().then_some(()));
}
