//! Clocks: one true time that only the world knows, and a CLOCK_BOOTTIME per machine with its own offset and rate (A3).

use mxlock_dlm::time::{BootTime, Now};

/// True time since the world began, nanoseconds.
pub type Time = u64;

/// Nanoseconds in a microsecond.
pub const US: Time = 1_000;
/// Nanoseconds in a millisecond.
pub const MS: Time = 1_000_000;
/// Nanoseconds in a second.
pub const SEC: Time = 1_000_000_000;

/// Most that a clock is fast or slow, parts per million: 1.024 / 0.976 is just below the 5 % of assumption A3.
pub const MAX_DRIFT_PPM: i64 = 24_000;

/// The clock of one boot of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    born: Time,
    offset: u64,
    rate_ppm: u64,
    wall_offset_ms: u64,
}

impl Clock {
    /// A clock that shows `offset` at the true time `born`, and runs `drift_ppm` too fast.
    pub fn new(born: Time, offset: u64, drift_ppm: i64, wall_offset_ms: u64) -> Clock {
        assert!(drift_ppm.abs() <= MAX_DRIFT_PPM, "a drift of {drift_ppm} ppm breaks assumption A3");
        Clock { born, offset, rate_ppm: 1_000_000u64.saturating_add_signed(drift_ppm), wall_offset_ms }
    }

    /// What it shows at `time`.
    pub fn boot(&self, time: Time) -> BootTime {
        BootTime(self.offset + scale(time - self.born, self.rate_ppm, 1_000_000))
    }

    /// Both clocks as a core is told them.
    pub fn now(&self, time: Time) -> Now {
        Now { boot: self.boot(time), wall_ms: self.wall_offset_ms + time / MS }
    }

    /// The first true time at which it shows `boot` or more.
    pub fn when(&self, boot: BootTime) -> Time {
        let Some(elapsed) = boot.0.checked_sub(self.offset) else { return self.born };
        let mut time = self.born.saturating_add(scale(elapsed, 1_000_000, self.rate_ppm));
        while self.boot(time) < boot {
            time += 1;
        }
        time
    }

    /// The true length of a duration on this clock, rounded down.
    pub fn true_length(&self, duration: u64) -> Time {
        scale(duration, 1_000_000, self.rate_ppm)
    }
}

fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(numerator) / u128::from(denominator)).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wake-up must never come before its time on the node's own clock: the core would be woken for ever.
    #[test]
    fn a_wakeup_is_never_early() {
        for drift in [-MAX_DRIFT_PPM, -1, 0, 7, MAX_DRIFT_PPM] {
            let clock = Clock::new(5 * SEC, 77 * SEC, drift, 0);
            for boot in [0, 77 * SEC, 78 * SEC + 1, 99 * SEC + 12_345] {
                let time = clock.when(BootTime(boot));
                assert!(clock.boot(time) >= BootTime(boot), "drift {drift}, boot {boot}");
                assert!(time == 5 * SEC || clock.boot(time - 1) < BootTime(boot), "drift {drift}, boot {boot}");
            }
        }
    }
}
