//! Trying again for a while.

use std::time::{Duration, Instant};

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Tries until it works, fails with an error that is not `passing`, or the time is up.
pub(crate) fn within<T, E>(
    time: Duration,
    passing: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let until = Instant::now() + time;
    loop {
        match attempt() {
            Err(error) if passing(&error) && Instant::now() < until => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_is_waited_for() {
        let mut tries = 0;
        let mut attempt = |good_at: u32| {
            tries += 1;
            if tries == good_at { Ok(tries) } else { Err(tries) }
        };
        assert_eq!(within(Duration::from_secs(60), |&error| error < 5, || attempt(3)), Ok(3));
        assert_eq!(within(Duration::from_secs(60), |&error| error < 5, || attempt(100)), Err(5));
        assert_eq!(within(Duration::ZERO, |_| true, || attempt(100)), Err(6));
    }
}
