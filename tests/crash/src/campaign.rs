//! All crash points of a stream, or an even sample of them.

use crate::history::History;
use crate::points::{Landed, image, mix, ways};
use crate::replay::{Crash, replay};
use crate::stream::{Event, Stream};
use mxlock_format::NodeId;
use std::collections::BTreeMap;
use std::fmt;

/// What came of it.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Sector writes, flushes and lines of clients in the stream.
    pub moments: usize,
    /// Device writes in the stream.
    pub writes: usize,
    /// Moments at which I3 was checked over all subsets without a replay.
    pub prefixes: usize,
    /// Disks from which a cluster was started, by what the crash took.
    pub replays: BTreeMap<&'static str, u64>,
    /// Of these, disks with a torn sector.
    pub torn: u64,
    /// Of these, disks with a damaged heartbeat sector, from which nothing can start.
    pub stopped: u64,
    /// Most writes that were not durable at one moment.
    pub most_pending: usize,
    /// Locks relied on at the crash, and kept.
    pub held: u64,
    /// Locks kept.
    pub kept: u64,
    /// Longest time until service had resumed, milliseconds.
    pub longest_ms: u64,
}

/// A crash point that breaks a rule.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Index of the last moment before the crash.
    pub moment: usize,
    /// Which writes had landed, and what the crash took; `None`: seen without a replay.
    pub point: Option<(Landed, Crash)>,
    /// The rule, and how.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.point {
            Some((landed, crash)) => write!(f, "moment {}, {landed:?} landed, {crash:?}: {}", self.moment, self.why),
            None => write!(f, "moment {}: {}", self.moment, self.why),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} moments, {} device writes, at most {} not durable",
            self.moments, self.writes, self.most_pending
        )?;
        writeln!(f, "I3 over all subsets at {} moments", self.prefixes)?;
        let all: u64 = self.replays.values().sum();
        writeln!(f, "{all} clusters started: {:?}; torn {}, stopped safely {}", self.replays, self.torn, self.stopped)?;
        write!(
            f,
            "{} locks held at the crash, {} kept; service resumed within {} ms",
            self.held, self.kept, self.longest_ms
        )
    }
}

/// How much of a stream is replayed.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Every which crash point is replayed; the first is chosen by `offset`.
    pub every: u64,
    /// Which.
    pub offset: u64,
}

/// Checks a stream.
///
/// # Errors
/// The first crash point that breaks a rule.
pub fn check(stream: &Stream, effort: Effort) -> Result<Report, Box<Broken>> {
    let broken = |moment, point, why| Box::new(Broken { moment, point, why });
    let mut history = History::new(stream).map_err(|why| broken(0, None, why))?;
    let mut report = Report { moments: stream.moments.len(), ..Report::default() };
    let mut number = effort.offset;
    for (at, moment) in stream.moments.iter().enumerate() {
        let stays = |why| broken(at, None, why);
        history.apply(moment.at_ns, &moment.event).map_err(stays)?;
        history.check_superset().map_err(stays)?;
        report.prefixes += 1;
        report.writes += usize::from(matches!(moment.event, Event::Write { .. }));
        report.most_pending = report.most_pending.max(history.pending.len());
        if !is_point(&moment.event) {
            continue;
        }
        for landed in ways(&history.pending, at as u64) {
            for crash in crashes(at, landed) {
                number += 1;
                if !number.is_multiple_of(effort.every) {
                    continue;
                }
                let image = image(&history, landed);
                report.torn += u64::from(image.torn.is_some());
                let outcome = replay(&history, image, crash, false);
                let outcome = outcome.map_err(|why| broken(at, Some((landed, crash)), why))?;
                *report.replays.entry(name(crash)).or_default() += 1;
                report.stopped += u64::from(outcome.stopped);
                report.held += outcome.held;
                report.kept += outcome.kept;
                report.longest_ms = report.longest_ms.max(outcome.resumed_ms);
            }
        }
    }
    Ok(report)
}

/// A crash is tried after everything that changes what may be on the disk, or what a client relies on.
fn is_point(event: &Event) -> bool {
    matches!(event, Event::Write { .. } | Event::Flushed { .. } | Event::Told { .. } | Event::Releasing { .. })
}

/// What the crash takes at this point: always the daemons, and by turns something more.
fn crashes(moment: usize, landed: Landed) -> Vec<Crash> {
    let turn = mix(moment as u64 ^ (format!("{landed:?}").len() as u64) << 32);
    let node = |n: u64| NodeId::new(n as u32).map(Crash::Host);
    let more = match turn % 6 {
        0 => Some(Crash::Silent),
        1 => Some(Crash::Power),
        n @ 2..=4 => node(n - 2),
        _ => None,
    };
    [Some(Crash::Daemons), more].into_iter().flatten().collect()
}

fn name(crash: Crash) -> &'static str {
    match crash {
        Crash::Daemons => "daemons",
        Crash::Silent => "daemons, clients silent",
        Crash::Host(_) => "daemons, one host for good",
        Crash::Power => "machines",
    }
}
