//! Disks that fail: for how long, for whom, and what becomes of an operation meanwhile.

use crate::clock::Time;
use crate::dice::Dice;
use crate::disk::{Fate, Purpose};
use crate::faults::Fault;

/// For a while, operations may fail in one way.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// In which way.
    pub kind: Fault,
    /// Whose operations; `None`: everybody's.
    pub host: Option<usize>,
    /// Until when.
    pub until: Time,
    /// Operations in a million that fail.
    pub ppm: u64,
    /// How many may still fail; a trouble that strikes once has one.
    pub left: u32,
}

/// All troubles of now.
#[derive(Default)]
pub struct Troubles {
    now: Vec<Trouble>,
}

impl Troubles {
    /// One more.
    pub fn begin(&mut self, trouble: Trouble) {
        self.now.push(trouble);
    }

    /// All are over.
    pub fn end_all(&mut self) {
        self.now.clear();
    }

    /// Whether a host has a trouble of this kind.
    pub fn has(&self, now: Time, host: usize, kind: Fault) -> bool {
        self.now.iter().any(|trouble| trouble.kind == kind && trouble.concerns(now, host))
    }

    /// What becomes of a write. `first_slot`: of a single record; `slots` is their number on the disk.
    pub fn write_fate(
        &mut self,
        now: Time,
        host: usize,
        purpose: Purpose,
        single_record: bool,
        slots: u32,
        dice: &mut Dice,
    ) -> Fate {
        self.now.retain(|trouble| trouble.until > now && trouble.left > 0);
        let beat = purpose == Purpose::Beat;
        for trouble in &mut self.now {
            if !trouble.concerns(now, host) || !dice.chance(trouble.ppm) {
                continue;
            }
            let fate = match trouble.kind {
                Fault::LoseDisk | Fault::LosePath => Fate::Error,
                Fault::WriteErrors if dice.chance(500_000) => Fate::ErrorLanded,
                Fault::WriteErrors => Fate::Error,
                Fault::LateWrites => Fate::ErrorLate,
                Fault::TornWrites => Fate::ErrorTorn,
                Fault::LoseHeartbeat if beat => Fate::Lost,
                Fault::LoseRecord if single_record => Fate::Lost,
                Fault::MisdirectRecord if single_record => Fate::Misdirected(dice.below(slots.into()) as u32),
                _ => continue,
            };
            trouble.left -= 1;
            return fate;
        }
        Fate::Good
    }

    /// What becomes of a read.
    pub fn read_fate(&mut self, now: Time, host: usize, purpose: Purpose, dice: &mut Dice) -> Fate {
        for trouble in &mut self.now {
            if !trouble.concerns(now, host) || !dice.chance(trouble.ppm) {
                continue;
            }
            return match trouble.kind {
                Fault::LoseDisk | Fault::LosePath => Fate::Error,
                Fault::ReadErrors if dice.chance(500_000) => Fate::Unreadable,
                Fault::ReadErrors => Fate::Error,
                // A daemon that starts opens the device anew; its own first write is what would betray the rest.
                Fault::StaleReads if purpose != Purpose::Start => Fate::Stale,
                _ => continue,
            };
        }
        Fate::Good
    }
}

impl Trouble {
    fn concerns(&self, now: Time, host: usize) -> bool {
        self.until > now && self.left > 0 && self.host.is_none_or(|other| other == host)
    }
}
