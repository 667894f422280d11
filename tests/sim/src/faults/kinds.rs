//! The kinds of fault, and what DESIGN section 10 makes of each (`docs/faults.md` has the whole story).

/// What is promised under a kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// All invariants hold and service goes on, or resumes by itself.
    Tolerated,
    /// All invariants hold; service may stop, with its reason told, until an operator acts.
    MustStop,
    /// An assumption is broken. What is promised then is written down at the kind, and checked.
    Outside,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident $text:literal $weight:literal $label:ident;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$name,)*];

            /// Its name in scenarios and in `docs/faults.md`.
            pub const fn name(self) -> &'static str {
                match self { $(Fault::$name => $text,)* }
            }

            /// How often it comes, compared with the others.
            pub const fn weight(self) -> u64 {
                match self { $(Fault::$name => $weight,)* }
            }

            /// What is promised under it.
            pub const fn label(self) -> Label {
                match self { $(Fault::$name => Label::$label,)* }
            }
        }
    };
}

faults! {
    /// A daemon is killed, its clients live.
    CrashDaemon "crash-daemon" 12 Tolerated;
    /// The same, to the master.
    CrashMaster "crash-master" 12 Tolerated;
    /// A host loses power; what it had in flight lands late or never.
    CrashHost "crash-host" 6 Tolerated;
    /// A host is replaced by another installation that is told to use the same slot.
    Reinstall "reinstall" 2 Tolerated;
    /// A host comes back as a copy of another one, which runs on.
    Clone "clone" 2 Tolerated;
    /// SIGTERM.
    Shutdown "shutdown" 5 Tolerated;
    /// `mxlock handover`.
    Handover "handover" 4 Tolerated;
    /// `mxlock leave --release`.
    Leave "leave" 2 Tolerated;
    /// All daemons are killed at once.
    RestartAll "restart-all" 2 Tolerated;
    /// The core's thread stands still.
    PauseCore "pause-core" 4 Tolerated;
    /// The daemon's process stands still.
    PauseProcess "pause-process" 8 Tolerated;
    /// The whole host sleeps; CLOCK_BOOTTIME goes on.
    Suspend "suspend" 4 Tolerated;
    /// Two hosts cannot reach each other.
    CutPair "cut-pair" 8 Tolerated;
    /// Nothing gets through from one host to another; the other way is open.
    OneWay "one-way" 6 Tolerated;
    /// One host reaches nobody.
    Isolate "isolate" 5 Tolerated;
    /// A link breaks.
    ResetLink "reset-link" 6 Tolerated;
    /// A link breaks, and one end does not hear of it.
    HalfOpen "half-open" 4 Tolerated;
    /// A link breaks again and again.
    ReconnectStorm "reconnect-storm" 3 Tolerated;
    /// A host takes frames late.
    SlowReader "slow-reader" 4 Tolerated;
    /// All I/O hangs.
    StallDisk "stall-disk" 4 Tolerated;
    /// All I/O of one host hangs.
    StallPath "stall-path" 7 Tolerated;
    /// All I/O ends in an error.
    LoseDisk "lose-disk" 3 Tolerated;
    /// All I/O of one host ends in an error.
    LosePath "lose-path" 5 Tolerated;
    /// Reads of one host end in an error now and then, of the whole request or of a sector.
    ReadErrors "read-errors" 5 Tolerated;
    /// Writes of one host end in an error now and then; they have landed or never will.
    WriteErrors "write-errors" 5 Tolerated;
    /// Writes of one host end in an error now and then, and land later, as late as A2 allows.
    LateWrites "late-writes" 6 Tolerated;
    /// Writes of one host end in an error now and then, and leave a torn sector.
    TornWrites "torn-writes" 3 Tolerated;
    /// A bit of a lock record flips.
    RotRecord "rot-record" 4 Tolerated;
    /// A bit of a running node's heartbeat sector flips.
    RotHeartbeat "rot-heartbeat" 3 Tolerated;
    /// A heartbeat write is acknowledged and does not land.
    LoseHeartbeat "lose-heartbeat" 2 MustStop;
    /// A host's reads return, for a while, what the disk held at its beginning.
    StaleReads "stale-reads" 2 MustStop;
    /// A record write is acknowledged and does not land.
    LoseRecord "lose-record" 2 Outside;
    /// A record write lands in another slot.
    MisdirectRecord "misdirect-record" 2 Outside;
    /// A client process dies.
    KillClient "kill-client" 15 Tolerated;
    /// A client loses its connection.
    CutClient "cut-client" 15 Tolerated;
    /// A client neither acts nor reads for a while.
    SilentClient "silent-client" 6 Tolerated;
    /// Writes of records by one host take seconds; its heartbeats do not.
    SlowWrites "slow-writes" 6 Tolerated;
    /// A master loses power in the middle of record writes, which land long after A2 allows. Only where a focus has it.
    OverdueWrites "overdue-writes" 0 Outside;
}

impl Fault {
    /// Those that a seed may draw: what has no weight comes last, and only where a focus asks for it.
    pub const DRAWN: &[Fault] = Fault::ALL.split_at(Fault::OverdueWrites as usize).0;

    /// The kind with this name.
    pub fn named(name: &str) -> Option<Fault> {
        Fault::ALL.iter().copied().find(|fault| fault.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Noise;

    /// A reader who doubts what happens under a fault finds its row, with the label that the simulator works by.
    #[test]
    fn each_fault_is_in_the_document() {
        let document = include_str!("../../../../docs/faults.md");
        for fault in Fault::ALL {
            let name = format!("`{}`", fault.name());
            let row =
                document.lines().find(|line| line.starts_with('|') && line.split('|').nth(1).unwrap().contains(&name));
            let row = row.unwrap_or_else(|| panic!("docs/faults.md has no row for {name}"));
            let label = match fault.label() {
                Label::Tolerated => "tolerated",
                Label::MustStop => "must stop",
                Label::Outside => "outside",
            };
            assert!(
                row.split('|').nth(2).unwrap().contains(label),
                "{name} is {label}, but docs/faults.md says:\n{row}"
            );
        }
        for (name, _) in { Noise::QUIET }.all() {
            assert!(document.contains(&format!("`{name}` (noise")), "docs/faults.md does not mention {name}");
        }
    }
}
