//! What is drawn once per seed: the size of the world and how unkind it is.

use crate::clock::{MS, SEC, Time, US};
use crate::dice::Dice;

/// Kinds of fault, with how often each is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fault {
    CrashDaemon,
    CrashMaster,
    CrashHost,
    Reinstall,
    Shutdown,
    Handover,
    PauseCore,
    PauseProcess,
    CutPair,
    Isolate,
    ResetLink,
    StallDisk,
    StallPath,
    RestartAll,
    KillClient,
    CutClient,
}

/// All faults with their usual weights.
pub const FAULTS: [(Fault, u64); 16] = [
    (Fault::CrashDaemon, 12),
    (Fault::CrashMaster, 12),
    (Fault::CrashHost, 6),
    (Fault::Reinstall, 2),
    (Fault::Shutdown, 5),
    (Fault::Handover, 4),
    (Fault::PauseCore, 4),
    (Fault::PauseProcess, 8),
    (Fault::CutPair, 8),
    (Fault::Isolate, 5),
    (Fault::ResetLink, 6),
    (Fault::StallDisk, 4),
    (Fault::StallPath, 7),
    (Fault::RestartAll, 2),
    (Fault::KillClient, 15),
    (Fault::CutClient, 15),
];

/// The parameters of one seed.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Hosts that start at once.
    pub hosts: usize,
    /// Hosts that join later.
    pub late_hosts: usize,
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
    /// Mean time between two faults; `None`: a calm world.
    pub fault_every: Option<Time>,
    /// Weights of the faults of this seed.
    pub weights: Vec<(Fault, u64)>,
    /// Mean latency of the disk.
    pub disk_latency: Time,
    /// Mean latency of the network.
    pub net_latency: Time,
    /// Frames in a million that arrive twice.
    pub duplicates_ppm: u64,
    /// Frames in a million that break their link.
    pub resets_ppm: u64,
    /// Chance that a process is paused between two outputs.
    pub pause_between_outputs_ppm: u64,
    /// How long a daemon that was shut down stays away.
    pub stopped_for: Time,
    /// `clear_behind_ms` of all daemons.
    pub clear_behind_ms: u32,
    /// Chance that a lock request has flags.
    pub flags_ppm: u64,
    /// Chance that a lock covers a part only.
    pub ranges_ppm: u64,
}

impl Setup {
    /// Draws one.
    pub fn draw(seed: u64) -> Setup {
        let dice = &mut Dice::new(seed, "setup", 0);
        let hosts = *dice.pick(&[2, 3, 3, 3, 4, 5]);
        let slot_count = *dice.pick(&[64, 128, 256, 256, 512]);
        let fault_every = match dice.below(20) {
            0 => None,
            1..=4 => Some(dice.range(2 * SEC, 5 * SEC)),
            5..=12 => Some(dice.range(5 * SEC, 20 * SEC)),
            _ => Some(dice.range(20 * SEC, 60 * SEC)),
        };
        // Each seed leaves out some kinds of fault, so that the others are met in a purer form.
        let weights = FAULTS.into_iter().filter(|_| !dice.chance(300_000)).collect();
        Setup {
            hosts,
            late_hosts: dice.below(2) as usize,
            slot_count,
            clients: dice.range(1, 4) as usize,
            resources: *dice.pick(&[2, 4, 8, 30, 120]),
            think: dice.range(300 * MS, 1_200 * MS),
            keep: *dice.pick(&[100 * MS, SEC, 5 * SEC]),
            fault_every,
            weights,
            disk_latency: *dice.pick(&[300 * US, 2 * MS, 20 * MS]),
            net_latency: *dice.pick(&[200 * US, 2 * MS, 30 * MS]),
            duplicates_ppm: *dice.pick(&[0, 0, 5_000]),
            resets_ppm: *dice.pick(&[0, 0, 2_000]),
            pause_between_outputs_ppm: *dice.pick(&[0, 0, 200]),
            stopped_for: *dice.pick(&[100 * MS, 2 * SEC, 30 * SEC]),
            clear_behind_ms: *dice.pick(&[0, 100, 100, 1_000]),
            flags_ppm: *dice.pick(&[0, 150_000, 400_000]),
            ranges_ppm: *dice.pick(&[0, 0, 300_000]),
        }
    }
}
