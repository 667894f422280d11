//! The external referee: client processes write down when they believed that they held a lock, and afterwards the
//! intervals are compared. It knows nothing of how mxlock works.
//!
//! A client appends two lines for each time that it held a lock, in nanoseconds of CLOCK_BOOTTIME, which all processes
//! of a machine share:
//!
//! ```text
//! G NAME MODE ASKED GRANTED TOKEN     it believes that it holds
//! E ENDED                             the last time at which it believed so
//! ```

use crate::command::{clean, program};
use crate::wait::{PATIENCE, until, until_true};
use mxlock_format::Mode;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A time during which a client believed that it held a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Interval {
    pub client: String,
    pub name: String,
    pub mode: Mode,
    pub asked_ns: u64,
    pub granted_ns: u64,
    /// `u64::MAX` when the client was ended while it held.
    pub ended_ns: u64,
    pub token: u64,
}

impl Interval {
    /// How long the client had to wait.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.granted_ns - self.asked_ns)
    }
}

/// Reads what one client wrote.
///
/// # Errors
/// The line that is not what it should be. A last line without its end is not an error: its writer was killed.
pub fn parse(client: &str, text: &str) -> Result<Vec<Interval>, String> {
    let mut intervals: Vec<Interval> = Vec::new();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let words: Vec<&str> = line.split(' ').collect();
        let wrong = || format!("{client}: '{line}' is no referee's line");
        let number = |word: &str| word.parse::<u64>().map_err(|_| wrong());
        match (words[..].split_first(), intervals.last_mut()) {
            (Some((&"G", [name, mode, asked, granted, token])), _) => intervals.push(Interval {
                client: client.to_owned(),
                name: (*name).to_owned(),
                mode: mode.parse().map_err(|_| wrong())?,
                asked_ns: number(asked)?,
                granted_ns: number(granted)?,
                ended_ns: u64::MAX,
                token: number(token)?,
            }),
            (Some((&"E", [ended])), Some(last)) if last.ended_ns == u64::MAX => last.ended_ns = number(ended)?,
            _ => return Err(wrong()),
        }
    }
    Ok(intervals)
}

/// I1: incompatible locks on one name were never held at the same time. I2: who asked after another had been granted
/// has a larger token, whatever the names.
///
/// # Errors
/// The first two intervals that contradict.
pub fn judge(intervals: &[Interval]) -> Result<(), String> {
    let mut by_name: BTreeMap<&str, Vec<&Interval>> = BTreeMap::new();
    for interval in intervals {
        by_name.entry(&interval.name).or_default().push(interval);
    }
    for of_name in by_name.values_mut() {
        of_name.sort_by_key(|interval| interval.granted_ns);
        // Those that may still be held at the start of the next one.
        let mut open: Vec<&Interval> = Vec::new();
        for &next in of_name.iter() {
            open.retain(|earlier| earlier.ended_ns > next.granted_ns);
            if let Some(other) = open.iter().find(|other| !other.mode.compatible(next.mode)) {
                return Err(format!("I1: both held at once: {other:?} and {next:?}"));
            }
            open.push(next);
        }
    }
    judge_tokens(intervals)
}

fn judge_tokens(intervals: &[Interval]) -> Result<(), String> {
    let mut grants: Vec<&Interval> = intervals.iter().collect();
    grants.sort_by_key(|interval| interval.granted_ns);
    let mut requests = grants.clone();
    requests.sort_by_key(|interval| interval.asked_ns);
    let mut granted = grants.into_iter().peekable();
    let mut highest: Option<&Interval> = None;
    for request in requests {
        while let Some(grant) = granted.next_if(|grant| grant.granted_ns < request.asked_ns) {
            highest = Some(highest.map_or(grant, |h| if grant.token > h.token { grant } else { h }));
        }
        if let Some(earlier) = highest.filter(|earlier| earlier.token >= request.token) {
            return Err(format!("I2: the token did not grow: {earlier:?} and then {request:?}"));
        }
    }
    Ok(())
}

/// A client process that locks in a loop and writes its intervals down, or counts under a lock. See the program
/// `mxlock-referee`.
#[derive(Debug)]
pub struct Witness {
    child: Child,
    log: PathBuf,
}

impl Witness {
    /// Starts `mxlock-referee ARGS --socket SOCKET --log LOG`, LOG being `NAME` in `directory`.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn start(directory: &Path, name: &str, socket: &Path, args: &[&str]) -> Witness {
        let log = directory.join(name);
        File::create(&log).expect("a file for the witness");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program("mxlock-referee")).args(args);
        command.arg("--socket").arg(socket).arg("--log").arg(&log);
        clean(&mut command);
        let child = command.stdin(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        Witness { child, log }
    }

    /// What it has seen up to now.
    ///
    /// # Panics
    /// When its file is not what it should be.
    #[track_caller]
    pub fn intervals(&self) -> Vec<Interval> {
        let text = std::fs::read_to_string(&self.log).expect("the file of the witness");
        let name = self.log.file_name().unwrap_or_default().to_string_lossy();
        parse(&name, &text).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Waits until it has been granted `count` more locks.
    ///
    /// # Panics
    /// When it is not, within `limit`.
    #[track_caller]
    pub fn progress(&self, count: usize, limit: Duration) {
        let before = self.intervals().len();
        let what = format!("{count} more grants for {}", self.log.display());
        until_true(&what, limit, || self.intervals().len() >= before + count);
    }

    /// Lets it finish and returns what it has seen.
    ///
    /// # Panics
    /// When it fails, or does not end.
    #[track_caller]
    pub fn finish(mut self) -> Vec<Interval> {
        self.end();
        self.intervals()
    }

    /// Lets a counting one finish and returns how often it has counted.
    ///
    /// # Panics
    /// When it fails, or does not end.
    #[track_caller]
    pub fn counted(mut self) -> u64 {
        self.end();
        let text = std::fs::read_to_string(&self.log).expect("the file of the witness");
        text.trim().parse().expect("a number")
    }

    #[track_caller]
    fn end(&mut self) {
        drop(self.child.stdin.take());
        let status = until("the witness ends", PATIENCE, || self.child.try_wait().expect("a child can be waited for"));
        assert!(status.success(), "the witness {} ended with {status}", self.log.display());
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(texts: &[&str]) -> Vec<Interval> {
        let parsed = texts.iter().enumerate().map(|(i, text)| parse(&format!("c{i}"), text).unwrap());
        parsed.flatten().collect()
    }

    #[test]
    fn holders_in_turn_are_fine() {
        let all = intervals(&["G a EX 0 10 1\nE 20\nG a EX 20 40 3\nE 50\n", "G a EX 5 21 2\nE 39\n"]);
        assert_eq!(all.len(), 3);
        assert_eq!(judge(&all), Ok(()));
    }

    /// I1: a referee that sees nothing would prove nothing.
    #[test]
    fn two_at_once_are_seen() {
        let ex = intervals(&["G a EX 0 10 1\nE 20\n", "G a EX 5 19 2\nE 39\n"]);
        assert!(judge(&ex).unwrap_err().starts_with("I1"));
        let long = intervals(&["G a EX 0 10 1\n", "G a PR 50 60 2\nE 70\n"]);
        assert!(judge(&long).unwrap_err().starts_with("I1"), "the first was ended while it held");
        let nested = intervals(&["G a PR 0 10 1\nE 100\n", "G a PR 5 19 2\nE 21\n", "G a EX 5 50 3\nE 51\n"]);
        assert!(judge(&nested).unwrap_err().starts_with("I1"));
    }

    #[test]
    fn readers_share_and_names_are_apart() {
        let all = intervals(&["G a PR 0 10 1\nE 20\n", "G a PR 5 19 2\nE 39\n", "G b EX 5 19 3\nE 39\n"]);
        assert_eq!(judge(&all), Ok(()));
    }

    /// I2, also across names; a token may be late as long as nobody could know.
    #[test]
    fn tokens_that_do_not_grow_are_seen() {
        let crossing = intervals(&["G a EX 0 10 2\nE 11\n", "G b EX 5 12 1\nE 13\n"]);
        assert_eq!(judge(&crossing), Ok(()));
        let after = intervals(&["G a EX 0 10 2\nE 11\n", "G b EX 11 12 1\nE 13\n"]);
        assert!(judge(&after).unwrap_err().starts_with("I2"));
        let same = intervals(&["G a EX 0 10 2\nE 11\nG a EX 12 13 2\nE 14\n"]);
        assert!(judge(&same).unwrap_err().starts_with("I2"));
    }

    #[test]
    fn lines_that_are_wrong_are_errors_but_half_a_last_line_is_not() {
        for text in ["X\n", "E 5\n", "G a EX 0 1 1\nE 2\nE 3\n", "G a XX 0 1 1\n", "G a EX 0 1\n"] {
            assert!(parse("c", text).is_err(), "{text}");
        }
        assert_eq!(parse("c", "G a EX 0 1 1\nE 2").unwrap()[0].ended_ns, u64::MAX);
    }
}
