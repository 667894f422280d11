//! Real daemons started on a disk that a crash could have left, with the state directories that they had.

use crate::history::History;
use crate::lab::{Lab, TIMING};
use crate::points::{Landed, image};
use crate::stream::{Event, Stream};
use mxlock_client::{ClientError, LockSpec};
use mxlock_e2e::until;
use mxlock_format::Token;
use std::time::Duration;

/// Until all names are free: the recorded clients are silent, so their locks go when their orphan lifetimes have ended.
const FREE_WITHIN: Duration = Duration::from_secs(20);

/// Starts the lab's daemons `count` times, each time on the prefix of the stream that ends at another record write, with
/// none of the writes that were not durable, and has each name that was ever locked granted anew.
///
/// # Errors
/// The prefix, and what did not work there.
///
/// # Panics
/// When a daemon does not start.
pub fn start_on_prefixes(lab: &mut Lab, stream: &Stream, count: usize) -> Result<usize, String> {
    let points: Vec<usize> = (0..stream.moments.len())
        .filter(|&at| matches!(stream.moments[at].event, Event::Write { offset, .. } if offset >= 64 * 512))
        .collect();
    let mut history = History::new(stream)?;
    let mut done = 0;
    let mut next = 0;
    for turn in 0..count {
        let Some(&point) = points.get(points.len() * (2 * turn + 1) / (2 * count)) else { break };
        for passed in &stream.moments[next..=point] {
            history.apply(passed.at_ns, &passed.event)?;
        }
        next = point + 1;
        let landed = if turn % 2 == 0 { Landed::Nothing } else { Landed::All };
        lab.restart_on(&image(&history, landed).bytes);
        serve(lab, &history).map_err(|why| format!("on the prefix that ends at moment {point}: {why}"))?;
        done += 1;
    }
    Ok(done)
}

fn serve(lab: &mut Lab, history: &History) -> Result<(), String> {
    for daemon in &mut lab.daemons {
        daemon.ready();
    }
    let mut greatest = history.token;
    for (at, name) in history.names.iter().enumerate() {
        let client = lab.daemons[at % lab.daemons.len()].client();
        let spec = LockSpec::name(name).map_err(|e| e.to_string())?.timeout(FREE_WITHIN);
        let lock = client.lock(&spec).map_err(|error: ClientError| format!("'{name}': {error}"))?;
        let token: Token = lock.token();
        if token <= greatest {
            return Err(format!("I2: '{name}' is given token {token}, and {greatest} was told before"));
        }
        greatest = token;
        lock.unlock(None).map_err(|e| format!("'{name}': {e}"))?;
    }
    // I10, from outside: all is released, so no record is left.
    until("the table is empty", Duration::from_millis(u64::from(TIMING.dead_ms) * 2), || {
        lab.inspector().records().is_empty().then_some(())
    });
    Ok(())
}
