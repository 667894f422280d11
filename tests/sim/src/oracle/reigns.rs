//! I4, section 6: reporting to a new master and leaving the old view are one step, after which nothing from the old master
//! counts. Looked at where a daemon tells its client of a grant, not when two of them meet.

use mxlock_format::{Epoch, LockId, Token};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a daemon run.
#[derive(Default)]
struct Run {
    /// The newest reign that it has reported to.
    reported: Epoch,
    /// Grants that came in their time.
    heard: BTreeSet<(LockId, Token)>,
    /// Grants that came after that.
    stale: BTreeSet<(LockId, Token)>,
}

/// Who has reported to which reign, by daemon run.
#[derive(Default)]
pub struct Reigns {
    runs: BTreeMap<u32, Run>,
}

impl Reigns {
    /// A daemon has sent the last part of its report to a reign.
    pub fn reported(&mut self, run: u32, reign: Epoch) {
        let known = self.runs.entry(run).or_default();
        known.reported = known.reported.max(reign);
    }

    /// A grant of a reign has come; whether it is too late for it. It may come again when its acknowledgement is lost.
    pub fn heard(&mut self, run: u32, lock: LockId, token: Token, reign: Epoch) -> bool {
        let known = self.runs.entry(run).or_default();
        if reign >= known.reported {
            known.heard.insert((lock, token));
            return false;
        }
        !known.heard.contains(&(lock, token)) && known.stale.insert((lock, token))
    }

    /// A daemon tells its client of a grant.
    ///
    /// # Errors
    /// It heard of it from a master whose time was over.
    pub fn told(&self, run: u32, lock: LockId, token: Token) -> Result<(), String> {
        let known = self.runs.get(&run).filter(|known| known.stale.contains(&(lock, token)));
        known.map_or(Ok(()), |known| {
            Err(format!("{lock:?} is told with {token:?}, which came after the report to the reign {}", known.reported))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::SessionId;

    #[test]
    fn a_grant_of_an_old_master_is_seen() {
        let lock = |seq| LockId { session: SessionId(1), seq };
        let token = |reign, n| Token::new(Epoch(reign), n);
        let mut reigns = Reigns::default();
        assert!(!reigns.heard(1, lock(1), token(5, 1), Epoch(5)));
        reigns.reported(1, Epoch(8));
        assert!(!reigns.heard(1, lock(1), token(5, 1), Epoch(5)), "it came once more");
        assert!(reigns.heard(1, lock(2), token(5, 2), Epoch(5)));
        assert!(!reigns.heard(1, lock(3), token(8, 1), Epoch(8)));
        assert!(!reigns.heard(2, lock(2), token(5, 2), Epoch(5)), "another daemon, which has not reported");
        let told = |run, seq, reign, n| reigns.told(run, lock(seq), token(reign, n));
        assert!(told(1, 1, 5, 1).is_ok() && told(1, 3, 8, 1).is_ok() && told(2, 2, 5, 2).is_ok());
        assert!(told(1, 2, 5, 2).is_err());
    }
}
