//! What the keeper tells the process that started it: one line each.

use crate::common::failure::{Code, Failure};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// The lock is held, with this token.
    Granted(u64),
    /// Somebody else has it; `true`: until the time had run out.
    Conflict { timed_out: bool },
    /// It could not be asked for.
    Failed { code: u8, message: String },
    /// It was lost, for this reason; whoever relies on it is being ended.
    Lost(String),
    /// It was released because it was unlocked.
    Released,
}

impl Word {
    /// A failure as a word.
    pub(super) fn failed(failure: Failure) -> Word {
        Word::Failed { code: failure.code.number(), message: failure.message }
    }

    /// The failure in the words of the program; for a word that is not one of a failure.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Word::Failed { code, message } => Failure::new(Code::No(code), message),
            Word::Lost(reason) => Failure::new(Code::NotNow, reason),
            other => Failure::new(Code::Io, format!("the process that keeps the lock said '{}'", other.line().trim())),
        }
    }

    fn line(&self) -> String {
        match self {
            Word::Granted(token) => format!("granted {token}\n"),
            Word::Conflict { timed_out: true } => "timed-out\n".to_owned(),
            Word::Conflict { timed_out: false } => "busy\n".to_owned(),
            Word::Failed { code, message } => format!("failed {code} {}\n", message.replace('\n', " ")),
            Word::Lost(reason) => format!("lost {}\n", reason.replace('\n', " ")),
            Word::Released => "released\n".to_owned(),
        }
    }

    fn parse(line: &str) -> Option<Word> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "granted" => Word::Granted(rest.parse().ok()?),
            "timed-out" => Word::Conflict { timed_out: true },
            "busy" => Word::Conflict { timed_out: false },
            "failed" => {
                let (code, message) = rest.split_once(' ')?;
                Word::Failed { code: code.parse().ok()?, message: message.to_owned() }
            }
            "lost" => Word::Lost(rest.to_owned()),
            "released" => Word::Released,
            _ => return None,
        })
    }
}

/// Says a word. A process that has gone away needs none.
pub(super) fn say(mut to: &UnixStream, word: &Word) {
    let _ = to.write_all(word.line().as_bytes());
}

/// Waits for the next word; `None`: the keeper is gone.
pub(super) fn hear(from: &mut BufReader<UnixStream>) -> Option<Word> {
    let mut line = String::new();
    match from.read_line(&mut line) {
        Ok(count) if count > 0 => Word::parse(line.trim_end_matches('\n')),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_over_as_they_are() {
        let (here, there) = UnixStream::pair().unwrap();
        let words = [
            Word::Granted(7),
            Word::Conflict { timed_out: true },
            Word::Conflict { timed_out: false },
            Word::Failed { code: 69, message: "no 'mxlockd' answers".into() },
            Word::Lost("the lease ended".into()),
            Word::Released,
        ];
        for word in &words {
            say(&here, word);
        }
        drop(here);
        let mut there = BufReader::new(there);
        for word in words {
            assert_eq!(hear(&mut there), Some(word));
        }
        assert_eq!(hear(&mut there), None);
    }
}
