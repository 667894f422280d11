//! All crash points of a stream, or an even sample of them.

use crate::history::History;
use crate::points::{Landed, image, mix, tears_a_held_lock, ways};
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
    /// Of these, disks on which it was the record of a lock that was relied on.
    pub torn_held: u64,
    /// Of these, disks with a damaged heartbeat sector, from which nothing can start.
    pub stopped: u64,
    /// Most writes that were not durable at one moment.
    pub most_pending: usize,
    /// Locks that clients relied on when only the daemons went.
    pub held: u64,
    /// Of these, locks that were claimed in time, and kept.
    pub kept: u64,
    /// Longest time until service had resumed, milliseconds.
    pub longest_ms: u64,
    /// The first crash points that break a rule.
    pub broken: Vec<Broken>,
    /// How many do.
    pub broken_count: u64,
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
        writeln!(f, "{all} clusters started: {:?}", self.replays)?;
        writeln!(
            f,
            "{} with a torn sector, {} of them the record of a held lock; {} stopped safely",
            self.torn, self.torn_held, self.stopped
        )?;
        write!(
            f,
            "{} locks held at the crash, {} kept; service resumed within {} ms",
            self.held, self.kept, self.longest_ms
        )
    }
}

/// Crash points that are named; the rest are counted.
const NAMED: usize = 10;

impl Report {
    fn breaks(&mut self, broken: Broken) {
        self.broken_count += 1;
        if self.broken.len() < NAMED {
            self.broken.push(broken);
        }
    }

    /// Whether no rule was broken.
    ///
    /// # Errors
    /// The crash points that break one.
    pub fn verdict(&self) -> Result<(), String> {
        if self.broken_count == 0 {
            return Ok(());
        }
        let named: Vec<String> = self.broken.iter().map(Broken::to_string).collect();
        Err(format!("{} crash points break a rule:\n{}", self.broken_count, named.join("\n")))
    }
}

/// How much of a stream is replayed.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Every which crash point is replayed; the first is chosen by `offset`.
    pub every: u64,
    /// Which.
    pub offset: u64,
    /// Only disks with a torn sector.
    pub torn: bool,
    /// Also disks on which the torn sector was the record of a lock that was relied on.
    pub torn_held: bool,
}

/// Checks a stream.
///
/// # Errors
/// It is none.
pub fn check(stream: &Stream, effort: Effort) -> Result<Report, String> {
    let mut history = History::new(stream)?;
    let mut report = Report { moments: stream.moments.len(), ..Report::default() };
    let mut number = effort.offset;
    for (at, moment) in stream.moments.iter().enumerate() {
        let applied = history.apply(moment.at_ns, &moment.event).and_then(|()| history.check_superset());
        if let Err(why) = applied {
            report.breaks(Broken { moment: at, point: None, why });
        }
        report.prefixes += 1;
        report.writes += usize::from(matches!(moment.event, Event::Write { .. }));
        report.most_pending = report.most_pending.max(history.pending.len());
        if !is_point(&moment.event) {
            continue;
        }
        for landed in ways(&history.pending, at as u64) {
            if effort.torn && landed != Landed::TornLast {
                continue;
            }
            for crash in crashes(at, landed) {
                number += 1;
                if !number.is_multiple_of(effort.every) {
                    continue;
                }
                let image = image(&history, landed);
                report.torn += u64::from(image.torn.is_some());
                if tears_a_held_lock(&history, &image) {
                    report.torn_held += 1;
                    if !effort.torn_held {
                        continue;
                    }
                }
                *report.replays.entry(name(crash)).or_default() += 1;
                let outcome = match replay(&history, image, crash, false) {
                    Ok(outcome) => outcome,
                    Err(why) => {
                        report.breaks(Broken { moment: at, point: Some((landed, crash)), why });
                        continue;
                    }
                };
                report.stopped += u64::from(outcome.stopped);
                if crash == Crash::Daemons {
                    report.held += outcome.held;
                    report.kept += outcome.kept;
                }
                report.longest_ms = report.longest_ms.max(outcome.resumed_ms);
            }
        }
    }
    Ok(report)
}

/// How many crash points a stream has.
///
/// # Errors
/// It is none.
pub fn count(stream: &Stream) -> Result<u64, String> {
    let mut history = History::new(stream)?;
    let mut count = 0;
    for (at, moment) in stream.moments.iter().enumerate() {
        history.apply(moment.at_ns, &moment.event)?;
        if is_point(&moment.event) {
            let here = ways(&history.pending, at as u64).into_iter().map(|landed| crashes(at, landed).len() as u64);
            count += here.sum::<u64>();
        }
    }
    Ok(count)
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
