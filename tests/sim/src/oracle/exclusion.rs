//! I1: no two live sessions hold incompatible modes on overlapping ranges of a resource.
//!
//! A referee over true time. A client holds exactly while it was told so, has not asked for the end of it, and its lease
//! page says that the lease stands; whether the latter is so is asked at the moment of each check.

use mxlock_format::{ByteRange, Mode};
use std::collections::BTreeMap;

/// A client's belief that it holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belief {
    /// Index of the client.
    pub client: usize,
    /// Its number for the lock.
    pub seq: u64,
    /// The mode that it acts on.
    pub mode: Mode,
    /// The bytes.
    pub span: ByteRange,
    /// The transaction. What a client holds in one may overlap (OWN).
    pub transaction: u64,
}

/// All beliefs, by resource.
#[derive(Default)]
pub struct Exclusion {
    beliefs: BTreeMap<usize, Vec<Belief>>,
}

impl Exclusion {
    /// Replaces the belief in one lock, or ends it.
    pub fn set(&mut self, resource: usize, client: usize, seq: u64, belief: Option<Belief>) {
        let beliefs = self.beliefs.entry(resource).or_default();
        beliefs.retain(|known| (known.client, known.seq) != (client, seq));
        beliefs.extend(belief);
    }

    /// Checks one belief against all others on the resource that stand now.
    ///
    /// # Errors
    /// The two that conflict.
    pub fn check(
        &self,
        resource: usize,
        client: usize,
        seq: u64,
        stands: impl Fn(&Belief) -> bool,
    ) -> Result<(), String> {
        let Some(beliefs) = self.beliefs.get(&resource) else { return Ok(()) };
        let Some(mine) = beliefs.iter().find(|known| (known.client, known.seq) == (client, seq)) else { return Ok(()) };
        if !stands(mine) {
            return Ok(());
        }
        let conflict = beliefs.iter().find(|other| {
            (other.client, other.seq) != (client, seq)
                && (other.client, other.transaction) != (client, mine.transaction)
                && !mine.mode.compatible(other.mode)
                && mine.span.overlaps(other.span)
                && stands(other)
        });
        match conflict {
            None => Ok(()),
            Some(other) => Err(format!(
                "resource {resource}: client {client} holds lock {seq} in {}, and client {} holds lock {} in {}",
                mine.mode, other.client, other.seq, other.mode
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_holders_in_conflict_are_seen() {
        let mut exclusion = Exclusion::default();
        let mut believe = |client, mode, span| {
            exclusion.set(0, client, 1, Some(Belief { client, seq: 1, mode, span, transaction: 0 }));
            exclusion.check(0, client, 1, |_| true).is_ok()
        };
        let (low, high) = (ByteRange::new(0, 9).unwrap(), ByteRange::new(10, 19).unwrap());
        assert!(believe(1, Mode::EX, low));
        assert!(believe(2, Mode::EX, high), "they share no byte");
        assert!(!believe(2, Mode::CR, low), "EX excludes all but NL");
        assert!(believe(2, Mode::NL, low));
        assert!(!believe(3, Mode::PR, ByteRange::ALL));
        assert!(exclusion.check(0, 3, 1, |belief| belief.client != 1).is_ok(), "whose lease is over knows it");
    }

    #[test]
    fn what_a_client_holds_in_one_transaction_may_overlap() {
        let mut exclusion = Exclusion::default();
        let mut believe = |client, seq, transaction| {
            let span = ByteRange::new(0, 9).unwrap();
            exclusion.set(0, client, seq, Some(Belief { client, seq, mode: Mode::EX, span, transaction }));
            exclusion.check(0, client, seq, |_| true).is_ok()
        };
        assert!(believe(1, 1, 7) && believe(1, 2, 7));
        assert!(!believe(1, 3, 8), "another transaction");
        assert!(!believe(2, 1, 7), "another client");
    }
}
