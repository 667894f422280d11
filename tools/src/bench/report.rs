//! What `mxlock-bench` prints; the JSON keys are a contract (INTERFACE.md).

use super::load::Load;
use super::workload::Workload;
use crate::common::table::Facts;
use serde::Serialize;
use std::time::Duration;

/// What ran, and what was measured.
pub(super) struct Measured {
    pub(super) workload: Workload,
    pub(super) clients: u32,
    pub(super) load: Load,
}

/// The document.
#[derive(Serialize, Debug)]
pub(super) struct Report {
    workload: Workload,
    clients: u32,
    seconds: f64,
    pub(super) pairs: u64,
    pairs_per_s: f64,
    acquire_p50_us: f64,
    acquire_p99_us: f64,
    acquire_p999_us: f64,
    max_us: f64,
    errors: u64,
    /// `null` where the daemon's /proc entry cannot be read.
    server_cpu_us_per_pair: Option<f64>,
    records_written: u64,
    min_client_pairs: u64,
    max_client_pairs: u64,
}

impl Report {
    /// From what was measured, the daemon's CPU time and the records that it wrote.
    pub(super) fn new(measured: Measured, server_cpu: Option<Duration>, records_written: u64) -> Report {
        let Measured { workload, clients, load } = measured;
        let pairs: u64 = load.pairs.iter().sum();
        let seconds = load.elapsed.as_secs_f64();
        let quantile_us = |quantile| tenths(load.acquire_ns.value_at_quantile(quantile) as f64 / 1_000.0);
        Report {
            workload,
            clients,
            seconds,
            pairs,
            pairs_per_s: tenths(pairs as f64 / seconds),
            acquire_p50_us: quantile_us(0.5),
            acquire_p99_us: quantile_us(0.99),
            acquire_p999_us: quantile_us(0.999),
            max_us: tenths(load.acquire_ns.max() as f64 / 1_000.0),
            errors: load.errors,
            server_cpu_us_per_pair: server_cpu
                .filter(|_| pairs > 0)
                .map(|cpu| tenths(cpu.as_secs_f64() * 1e6 / pairs as f64)),
            records_written,
            min_client_pairs: load.pairs.iter().copied().min().unwrap_or(0),
            max_client_pairs: load.pairs.iter().copied().max().unwrap_or(0),
        }
    }
}

/// One decimal is more than the measurement is worth.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut facts = Facts::default();
        facts.add("pairs", format!("{} in {} s: {} pairs/s", self.pairs, self.seconds, self.pairs_per_s));
        facts.add(
            "acquire",
            format!(
                "p50 {} us, p99 {} us, p99.9 {} us, max {} us",
                self.acquire_p50_us, self.acquire_p99_us, self.acquire_p999_us, self.max_us
            ),
        );
        facts.add("errors", self.errors);
        let cpu = self.server_cpu_us_per_pair.map_or("unknown".to_owned(), |us| format!("{us} us per pair"));
        facts.add("daemon's CPU", cpu);
        facts.add("records written", self.records_written);
        facts.add("pairs per client", format!("{} to {}", self.min_client_pairs, self.max_client_pairs));
        facts.fmt(f)
    }
}

/// User and system time of a process: fields 14 and 15 of /proc/PID/stat, see proc_pid_stat(5).
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks_per_s = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1_000 / u64::try_from(ticks_per_s).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;

    fn measured() -> Measured {
        let mut acquire_ns = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        for us in 1..=1_000u64 {
            acquire_ns.record(us * 1_000).unwrap();
        }
        let load = Load { acquire_ns, pairs: vec![400, 600], errors: 2, elapsed: Duration::from_secs(2) };
        Measured { workload: Workload::ReadMostly, clients: 2, load }
    }

    /// INTERFACE.md, `mxlock-bench`: the JSON keys.
    #[test]
    fn json_has_the_keys_of_the_contract() {
        let report = Report::new(measured(), Some(Duration::from_millis(20)), 7);
        let shown = serde_json::to_value(&report).unwrap();
        let keys: std::collections::BTreeSet<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "workload",
            "clients",
            "seconds",
            "pairs",
            "pairs_per_s",
            "acquire_p50_us",
            "acquire_p99_us",
            "acquire_p999_us",
            "max_us",
            "errors",
            "server_cpu_us_per_pair",
            "records_written",
            "min_client_pairs",
            "max_client_pairs",
        ];
        assert_eq!(keys, expected.into_iter().collect());
        assert_eq!(shown["workload"], "read-mostly");
        assert_eq!((&shown["pairs"], &shown["pairs_per_s"]), (&1_000.into(), &500.0.into()));
        assert_eq!(shown["server_cpu_us_per_pair"], 20.0);
        assert_eq!((&shown["min_client_pairs"], &shown["max_client_pairs"]), (&400.into(), &600.into()));
    }

    /// The histogram keeps three digits: quantiles are right within 0.1 %.
    #[test]
    fn quantiles_are_those_of_the_samples() {
        let report = Report::new(measured(), None, 0);
        for (shown, exact) in [
            (report.acquire_p50_us, 500.0),
            (report.acquire_p99_us, 990.0),
            (report.acquire_p999_us, 999.0),
            (report.max_us, 1_000.0),
        ] {
            assert!((shown - exact).abs() <= exact / 1_000.0 + 0.1, "{shown} for {exact}");
        }
    }

    #[test]
    fn a_process_has_used_cpu_time() {
        assert!(cpu_time(std::process::id()).is_some());
        assert!(cpu_time(u32::MAX).is_none());
    }
}
