//! The log: tracing to stderr, with a filter that can be changed while the daemon runs.

use crate::error::Failure;
use std::fmt;
use std::io::IsTerminal;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt as layer};

/// Changes what is logged.
#[derive(Clone)]
pub(crate) struct LogControl {
    handle: Option<reload::Handle<EnvFilter, Registry>>,
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogControl")
    }
}

/// Whether `filter` can be used.
pub(crate) fn check_filter(filter: &str) -> Result<(), String> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(filter).map_err(|e| e.to_string())
}

/// Starts logging. Under a service manager, which stamps lines itself, they carry no time.
pub(crate) fn start(filter: &str) -> Result<LogControl, Failure> {
    let filter = parse(filter).map_err(|e| Failure::config(format_args!("the log filter {filter:?} is wrong: {e}")))?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines =
        layer::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let stamped_elsewhere = std::env::var_os("JOURNAL_STREAM").is_some();
    let started = if stamped_elsewhere {
        registry.with(lines.without_time()).try_init()
    } else {
        registry.with(lines).try_init()
    };
    // Tests run in one process: the first one's subscriber stays.
    Ok(LogControl { handle: started.is_ok().then_some(handle) })
}

impl LogControl {
    /// Logs by `filter` from now on.
    pub(crate) fn change(&self, filter: &str) -> Result<(), String> {
        let filter = parse(filter)?;
        match &self.handle {
            Some(handle) => handle.reload(filter).map_err(|e| e.to_string()),
            None => Ok(()),
        }
    }
}

/// Lets through at most `BURST` lines in each `PERIOD`, and counts the rest: garbage on a port must not fill the log.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    period: u64,
    used: u32,
    suppressed: u64,
}

impl RateLimit {
    const PERIOD_NS: u64 = 10_000_000_000;
    const BURST: u32 = 10;

    /// Whether to log now; `Some` carries the number of lines that were not since the last one.
    pub(crate) fn permit(&mut self, now: mxlock_dlm::time::BootTime) -> Option<u64> {
        let period = now.0 / Self::PERIOD_NS;
        if period != self.period {
            (self.period, self.used) = (period, 0);
        }
        if self.used == Self::BURST {
            self.suppressed += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_dlm::time::BootTime;

    #[test]
    fn filters_are_judged() {
        for good in ["info", "debug", "warn,mxlockd=trace", "off"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        assert!(check_filter("=,=").is_err());
    }

    #[test]
    fn a_flood_is_counted() {
        let mut limit = RateLimit::default();
        let permitted = (0..100).filter(|_| limit.permit(BootTime(5)).is_some()).count();
        assert_eq!(permitted, 10);
        assert_eq!(limit.permit(BootTime(10_000_000_001)), Some(90));
        assert_eq!(limit.permit(BootTime(10_000_000_002)), Some(0));
    }
}
