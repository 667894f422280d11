//! Storms that are about one thing. In a storm of many faults what is rare alone is rarer still: here a seed has few kinds
//! of fault, often, with the load and the timing that make one corner of the protocol matter ("swarm" testing).
//!
//! A focus is chosen by whoever runs the seed, not drawn: a seed without one stays what it was.

use crate::clock::{MS, SEC};
use crate::dice::Dice;
use crate::faults::Fault;
use crate::setup::{Noise, Setup};

/// What a storm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Focus {
    /// Masters go again and again, and the heartbeats that carry ballots are slow: proposers meet.
    Ballots,
    /// Mastership changes hands by resignation, while records are being written and frames are late.
    Handovers,
    /// Power fails in the middle of writes, and some of them land long after A2 allows.
    Overdue,
}

impl Focus {
    /// All of them.
    pub const ALL: &[Focus] = &[Focus::Ballots, Focus::Handovers, Focus::Overdue];

    /// Its name in scenarios and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Focus::Ballots => "ballots",
            Focus::Handovers => "handovers",
            Focus::Overdue => "overdue",
        }
    }

    /// The focus with this name.
    pub fn named(name: &str) -> Option<Focus> {
        Focus::ALL.iter().copied().find(|focus| focus.name() == name)
    }

    /// Makes the setup of a seed one that is about this.
    pub fn apply(self, seed: u64, setup: &mut Setup) {
        let dice = &mut Dice::new(seed, "focus", self as u64);
        setup.hosts = dice.range(3, 5) as usize;
        setup.late_hosts = 0;
        setup.fence_wait = true;
        setup.noise = Noise { hiccups_ppm: setup.noise.hiccups_ppm, ..Noise::QUIET };
        match self {
            Focus::Ballots => {
                setup.noise.slow_ballots_ppm = *dice.pick(&[300_000, 700_000]);
                setup.clients = 1;
                setup.faults = vec![
                    (Fault::CrashMaster, dice.range(4, 12) * SEC),
                    (Fault::Handover, dice.range(4, 12) * SEC),
                    (Fault::PauseProcess, dice.range(5, 20) * SEC),
                ];
            }
            Focus::Handovers => {
                setup.clients = dice.range(2, 4) as usize;
                setup.resources = *dice.pick(&[2, 4, 8]);
                setup.think = dice.range(100 * MS, 400 * MS);
                setup.keep = 100 * MS;
                setup.faults = vec![
                    (Fault::Handover, dice.range(2, 5) * SEC),
                    (Fault::Shutdown, dice.range(20, 60) * SEC),
                    (Fault::SlowWrites, dice.range(5, 15) * SEC),
                    (Fault::SlowReader, dice.range(5, 15) * SEC),
                    (Fault::OneWay, dice.range(10, 30) * SEC),
                    (Fault::ResetLink, dice.range(2, 10) * SEC),
                ];
            }
            Focus::Overdue => {
                setup.noise.power_cuts_ppm = 1_000_000;
                setup.clients = dice.range(2, 4) as usize;
                setup.resources = *dice.pick(&[8, 30]);
                setup.think = dice.range(100 * MS, 400 * MS);
                setup.keep = *dice.pick(&[100 * MS, SEC]);
                setup.flags_ppm = 400_000;
                setup.ranges_ppm = 0;
                setup.faults = vec![
                    (Fault::OverdueWrites, dice.range(10, 20) * SEC),
                    (Fault::CrashHost, dice.range(10, 20) * SEC),
                    (Fault::CrashMaster, dice.range(8, 20) * SEC),
                ];
            }
        }
    }
}
