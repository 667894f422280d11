//! I11: after damage (torn sector, bit rot, full table, failed write, killed process, cut network, stalled disk) the
//! system loses no acknowledged lock and says what happened.
//!
//! That no lock is lost is for I1, I3 and I5 to see. This one watches what is said: nothing is called damaged that is
//! sound, and no master reads over damage without a word.

use mxlock_format::SessionId;
use std::collections::{BTreeMap, BTreeSet};

/// Record sectors that are damaged on the disk, and whether anybody has said so.
#[derive(Default)]
pub struct Damage {
    damaged: BTreeMap<u32, bool>,
    hit: BTreeSet<SessionId>,
}

impl Damage {
    /// What is on the disk in a slot has changed: `sound` says whether it is zero or a good record now.
    pub fn landed(&mut self, slot: u32, sound: bool) {
        if sound {
            self.damaged.remove(&slot);
        } else {
            self.damaged.entry(slot).or_insert(false);
        }
    }

    /// The record that was damaged is of this session. Its daemon knows the lock as well; if that is restarted before the
    /// record was repaired, two copies of one fact are gone, and the lock with them (`docs/faults.md`).
    pub fn hits(&mut self, session: SessionId) {
        self.hit.insert(session);
    }

    /// Whether a record of a session was ever damaged.
    pub fn has_hit(&self, session: Option<SessionId>) -> bool {
        session.is_some_and(|session| self.hit.contains(&session))
    }

    /// Whether any sector is damaged.
    pub fn any(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// A core says that a slot is damaged. `excusable`: it may have read it in the moment of a write, or not at all.
    ///
    /// # Errors
    /// The slot is sound.
    pub fn said(&mut self, host: usize, slot: u32, reason: &str, excusable: bool) -> Result<(), String> {
        match self.damaged.get_mut(&slot) {
            Some(said) => *said = true,
            None if !excusable => {
                return Err(format!("host {host} finds slot {slot} damaged, which nobody damaged: {reason}"));
            }
            None => {}
        }
        Ok(())
    }

    /// Everything is at rest, and a scrub or a recovery has read the table since. `sound`: what a slot is like now.
    ///
    /// # Errors
    /// A damaged sector that nobody has told of.
    pub fn at_rest(&mut self, sound: impl Fn(u32) -> bool) -> Result<(), String> {
        self.damaged.retain(|slot, _| !sound(*slot));
        match self.damaged.iter().find(|(_, said)| !**said) {
            Some((slot, _)) => Err(format!("slot {slot} is damaged, and nobody has said so")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfounded_and_missing_reports_are_seen() {
        let mut damage = Damage::default();
        assert!(damage.said(0, 7, "crc", false).is_err(), "slot 7 is sound");
        damage.landed(7, false);
        assert!(damage.any() && damage.at_rest(|_| false).is_err(), "nobody has said so");
        assert!(damage.said(0, 7, "crc", false).is_ok());
        assert!(damage.at_rest(|_| false).is_ok());
        damage.landed(7, true);
        assert!(damage.said(0, 7, "crc", false).is_err(), "it was rewritten");
    }
}
