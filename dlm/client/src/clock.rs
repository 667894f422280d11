//! The clock that leases are measured on.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// CLOCK_BOOTTIME in nanoseconds: unlike CLOCK_MONOTONIC it goes on while the machine sleeps (DESIGN section 5).
///
/// # Panics
/// Never on Linux: the clock has existed since 2.6.39.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME exists on every Linux");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// The point in time `duration` after `now_ns`.
pub(crate) fn after(now_ns: u64, duration: Duration) -> u64 {
    now_ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}
