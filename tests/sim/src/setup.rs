//! What is drawn once per seed: the size of the world and how unkind it is.

use crate::clock::{MAX_DRIFT_PPM, MS, SEC, Time, US};
use crate::dice::Dice;
use crate::faults::{Fault, Label};
use mxlock_format::SectorSize;

/// How an operator of this seed deals with a node that only he may declare gone (`fence_wait = false`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operator {
    /// From the complaint to the power switch; `None`: nobody looks before the storm is over.
    pub reacts_after: Option<Time>,
    /// From the power switch to `mxlock fence-ack`.
    pub acks_after: Time,
}

/// Things that go wrong all the time, a little. A scenario can switch each off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    /// Frames in a million that arrive twice.
    pub duplicates_ppm: u64,
    /// Frames in a million that break their link.
    pub resets_ppm: u64,
    /// Outputs in a million after which the process is paused.
    pub pauses_ppm: u64,
    /// Outputs in a million after which the process dies.
    pub deaths_ppm: u64,
    /// Disk operations in a million that take up to 1.5 s.
    pub hiccups_ppm: u64,
    /// Writes in a million that a power failure tears, of those that it catches.
    pub torn_ppm: u64,
    /// Power failures in a million that strike in the middle of a write.
    pub power_cuts_ppm: u64,
    /// Heartbeats in a million that land up to 3 s late, of those that move a ballot on.
    pub slow_ballots_ppm: u64,
}

impl Noise {
    /// The names by which scenarios switch them off, with the numbers.
    pub fn all(&mut self) -> [(&'static str, &mut u64); 8] {
        [
            ("duplicates", &mut self.duplicates_ppm),
            ("resets", &mut self.resets_ppm),
            ("pauses", &mut self.pauses_ppm),
            ("deaths", &mut self.deaths_ppm),
            ("hiccups", &mut self.hiccups_ppm),
            ("torn", &mut self.torn_ppm),
            ("power-cuts", &mut self.power_cuts_ppm),
            ("slow-ballots", &mut self.slow_ballots_ppm),
        ]
    }
}

/// The parameters of one seed.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Hosts that start at once.
    pub hosts: usize,
    /// Hosts that join later.
    pub late_hosts: usize,
    /// Bytes of a sector.
    pub sector: SectorSize,
    /// Record slots.
    pub slot_count: u32,
    /// Clients per host.
    pub clients: usize,
    /// Resources.
    pub resources: usize,
    /// Mean time between two steps of a client.
    pub think: Time,
    /// Mean time for which a lock is kept.
    pub keep: Time,
    /// The faults of this seed, each with the mean time between two of its kind.
    pub faults: Vec<(Fault, Time)>,
    /// What goes wrong all the time.
    pub noise: Noise,
    /// Most that a clock is fast or slow.
    pub drift_ppm: i64,
    /// Every clock is at one of the two limits.
    pub drift_extreme: bool,
    /// `fence = ["wait"]`; otherwise only the operator declares a node gone.
    pub fence_wait: bool,
    /// What the operator does then.
    pub operator: Operator,
    /// Mean latency of the disk.
    pub disk_latency: Time,
    /// Mean latency of the network.
    pub net_latency: Time,
    /// How long a daemon that was shut down stays away.
    pub stopped_for: Time,
    /// `clear_behind_ms` of all daemons.
    pub clear_behind_ms: u32,
    /// Chance that a lock request has flags.
    pub flags_ppm: u64,
    /// Chance that a lock covers a part only.
    pub ranges_ppm: u64,
    /// Whether parts may outlive their process, too.
    pub ranged_orphans: bool,
    /// Whether clients get in the way of each other's conversions, and let them be demoted (CONVDEADLK).
    pub demotions: bool,
}

impl Setup {
    /// Draws one. Each group of decisions has its own stream, so that one more parameter does not change the others.
    pub fn draw(seed: u64) -> Setup {
        let dice = &mut Dice::new(seed, "setup size", 0);
        let hosts = *dice.pick(&[2, 3, 3, 3, 4, 5]);
        let late_hosts = dice.below(2) as usize;
        let slot_count = *dice.pick(&[64, 128, 256, 256, 512]);
        let sector = *dice.pick(&[SectorSize::S512, SectorSize::S512, SectorSize::S512, SectorSize::S4096]);
        let clients = dice.range(1, 4) as usize;
        let resources = *dice.pick(&[2, 4, 8, 30, 120, 3_000]);

        let dice = &mut Dice::new(seed, "setup load", 0);
        let think = dice.range(300 * MS, 1_200 * MS);
        let keep = *dice.pick(&[100 * MS, SEC, 5 * SEC]);
        let disk_latency = *dice.pick(&[300 * US, 2 * MS, 20 * MS]);
        let net_latency = *dice.pick(&[200 * US, 2 * MS, 30 * MS]);
        let stopped_for = *dice.pick(&[100 * MS, 2 * SEC, 30 * SEC]);
        let clear_behind_ms = *dice.pick(&[0, 100, 100, 1_000]);
        let flags_ppm = *dice.pick(&[0, 150_000, 400_000]);
        let ranges_ppm = *dice.pick(&[0, 0, 300_000]);
        let ranged_orphans = ranges_ppm > 0 && Dice::new(seed, "ranged orphans", 0).chance(500_000);
        let demotions = Dice::new(seed, "demotions", 0).chance(250_000);

        let dice = &mut Dice::new(seed, "setup noise", 0);
        let mut noise = Noise {
            duplicates_ppm: *dice.pick(&[0, 0, 5_000]),
            resets_ppm: *dice.pick(&[0, 0, 2_000]),
            pauses_ppm: *dice.pick(&[0, 0, 200]),
            deaths_ppm: *dice.pick(&[0, 0, 0, 200]),
            hiccups_ppm: *dice.pick(&[0, 3_000, 3_000]),
            // A sector of 4096 bytes tears at a multiple of 512, if at all: the record is in the first 512.
            torn_ppm: if sector == SectorSize::S512 { *dice.pick(&[0, 0, 0, 0, 500_000]) } else { 0 },
            power_cuts_ppm: *Dice::new(seed, "setup power", 0).pick(&[0, 0, 0, 0, 1_000_000]),
            slow_ballots_ppm: 0,
        };

        let dice = &mut Dice::new(seed, "setup operator", 0);
        let fence_wait = !dice.chance(120_000);
        let operator = Operator {
            reacts_after: *dice.pick(&[Some(SEC), Some(5 * SEC), Some(40 * SEC), None]),
            acks_after: *dice.pick(&[100 * MS, 3 * SEC, 30 * SEC]),
        };
        let drift_ppm = *dice.pick(&[0, 100, MAX_DRIFT_PPM, MAX_DRIFT_PPM]);
        let drift_extreme = dice.chance(250_000);

        let faults = faults(seed);
        if faults.is_empty() {
            noise = Noise { hiccups_ppm: noise.hiccups_ppm, ..Noise::QUIET };
        }
        Setup {
            hosts,
            late_hosts,
            sector,
            slot_count,
            clients,
            resources,
            think,
            keep,
            faults,
            noise,
            drift_ppm,
            drift_extreme,
            fence_wait,
            operator,
            disk_latency,
            net_latency,
            stopped_for,
            clear_behind_ms,
            flags_ppm,
            ranges_ppm,
            ranged_orphans,
            demotions,
        }
    }

    /// Five nodes, light load, nothing goes wrong: what the speed of the simulator is told for.
    pub fn calm() -> Setup {
        Setup {
            hosts: 5,
            late_hosts: 0,
            sector: SectorSize::S512,
            slot_count: 256,
            clients: 1,
            resources: 30,
            think: SEC,
            keep: SEC,
            faults: Vec::new(),
            noise: Noise::QUIET,
            drift_ppm: MAX_DRIFT_PPM,
            drift_extreme: false,
            fence_wait: true,
            operator: Operator { reacts_after: None, acks_after: SEC },
            disk_latency: 2 * MS,
            net_latency: 2 * MS,
            stopped_for: SEC,
            clear_behind_ms: 100,
            flags_ppm: 0,
            ranges_ppm: 0,
            ranged_orphans: false,
            demotions: false,
        }
    }
}

impl Noise {
    /// None.
    pub const QUIET: Noise = Noise {
        duplicates_ppm: 0,
        resets_ppm: 0,
        pauses_ppm: 0,
        deaths_ppm: 0,
        hiccups_ppm: 0,
        torn_ppm: 0,
        power_cuts_ppm: 0,
        slow_ballots_ppm: 0,
    };
}

/// Some seeds are calm, some have one or two kinds of fault only, so that each is met in pure form, most have many.
fn faults(seed: u64) -> Vec<(Fault, Time)> {
    let dice = &mut Dice::new(seed, "setup faults", 0);
    let every = match dice.below(3) {
        0 => dice.range(2 * SEC, 5 * SEC),
        1 => dice.range(5 * SEC, 20 * SEC),
        _ => dice.range(20 * SEC, 60 * SEC),
    };
    let kinds: Vec<Fault> = match dice.below(100) {
        0..=4 => Vec::new(),
        5..=14 => vec![*dice.pick(Fault::DRAWN)],
        15..=24 => {
            let (one, other) = (*dice.pick(Fault::DRAWN), *dice.pick(Fault::DRAWN));
            if one == other { vec![one] } else { vec![one, other] }
        }
        _ => {
            // What may stop the cluster would hide what comes later: few seeds have it.
            let stops = dice.chance(150_000);
            // Each kind is drawn by its name, so that one more kind changes nothing for the others.
            let has = |kind: &Fault| !Dice::new(seed, kind.name(), u64::MAX).chance(300_000);
            let all = Fault::DRAWN.iter().copied();
            all.filter(|kind| has(kind) && (stops || kind.label() == Label::Tolerated)).collect()
        }
    };
    let others = if kinds.len() <= 2 { 20 } else { 200 };
    // With few kinds, each comes less often than it could.
    kinds.iter().map(|&kind| (kind, (every * others / kind.weight()).max(2 * SEC))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults of a seed are drawn: none, one kind, or many; and every kind is met somewhere.
    #[test]
    fn seeds_differ_in_kind() {
        let all: Vec<Setup> = (0..400).map(Setup::draw).collect();
        for wanted in [0, 1, 2] {
            assert!(all.iter().any(|setup| setup.faults.len() == wanted), "no seed with {wanted} kinds");
        }
        assert!(all.iter().filter(|setup| setup.faults.len() > 15).count() > 200);
        for kind in Fault::DRAWN {
            let met = all.iter().filter(|setup| setup.faults.iter().any(|(other, _)| other == kind)).count();
            assert!(met > 20, "{} is in {met} of 400 seeds", kind.name());
        }
        assert!(all.iter().any(|setup| !setup.fence_wait) && all.iter().any(|setup| setup.sector == SectorSize::S4096));
    }
}
