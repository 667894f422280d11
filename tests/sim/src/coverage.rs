//! What a run came across: a simulator that never meets the hard cases proves nothing.

use std::fmt::Write as _;
use std::ops::AddAssign;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $floor:expr;)*) => {
        /// Counters of one seed, or of a whole run.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct Coverage { $($(#[$doc])* pub $name: u64,)* }

        impl AddAssign for Coverage {
            fn add_assign(&mut self, other: Coverage) { $(self.$name += other.$name;)* }
        }

        impl Coverage {
            /// Name, count, and the least count that a run of 200 seeds x 10 minutes must reach (0: none).
            pub fn lines(&self) -> Vec<(&'static str, u64, u64)> {
                vec![$((stringify!($name), self.$name, $floor),)*]
            }
        }
    };
}

counters! {
    /// Epochs with a committed view.
    view_changes: 2_000;
    /// Proposals that carried on a value which another ballot may have chosen.
    values_adopted: 150;
    /// Proposals given up because another one was ahead.
    elections_lost: 150;
    /// Proposers that stood still or died in the middle of a ballot.
    ballots_disturbed: 500;
    /// Recoveries that found waiting requests.
    recoveries_with_waiters: 100;
    /// Recoveries that found possible holders.
    recoveries_with_possible_holders: 50;
    /// Daemons back within the lease time.
    restarts_within_lease: 200;
    /// Daemons back after the lease time.
    restarts_beyond_lease: 200;
    /// Slots taken from another host.
    slot_takeovers: 20;
    /// Tokens compared with an earlier grant's.
    tokens_compared: 100_000;
    /// Grants told to clients.
    grants: 100_000;
    /// Grants of an old master that came after the report to the next one.
    stale_grants: 0;
    /// Requests that waited.
    waits: 20_000;
    /// Requests denied.
    denials: 1_000;
    /// Grants of PERSISTENT locks.
    persistent_grants: 1_000;
    /// Grants of a part of a resource.
    ranged_grants: 2_000;
    /// Requests around what the client has locked already (OWN).
    divisions: 500;
    /// Grants of the alternative mode (ALTPR, ALTCW).
    alternative_grants: 50;
    /// Answers that tell of a demotion (CONVDEADLK).
    demotions: 100;
    /// Requests refused because they contradict themselves.
    refused_as_invalid: 100;
    /// Conversions refused because they would deadlock.
    conversion_deadlocks: 100;
    /// Locks that outlived their process.
    orphans_left: 500;
    /// Orphans adopted.
    adoptions: 100;
    /// Those of a part of a resource.
    ranged_adoptions: 20;
    /// Unlocks that said the value is not to be trusted.
    values_doubted: 500;
    /// Value blocks read and compared.
    values_read: 5_000;
    /// Acknowledgements of a written value while another lock stayed on the resource.
    values_carried: 500;
    /// Pairs of queued requests whose order was checked.
    orders_checked: 40;
    /// Leases lost.
    leases_lost: 200;
    /// Leases regained without a restart.
    leases_regained: 50;
    /// Locks that stood after a claim to a restarted daemon.
    claims_stood: 200;
    /// Nodes excluded.
    exclusions: 200;
    /// Masters that resigned.
    resignations: 50;
    /// Daemons crashed.
    daemon_crashes: 500;
    /// Hosts crashed.
    host_crashes: 100;
    /// Writes of a dead host that landed late, within A2.
    late_writes_landed: 15;
    /// Writes lost with their host.
    writes_lost: 15;
    /// Writes of a dead master that landed long after A2 allows.
    overdue_writes_landed: 0;
    /// Disk stalls, of all or of one host.
    stalls: 200;
    /// Partitions.
    partitions: 200;
    /// Processes paused.
    pauses: 200;
    /// Hosts that slept.
    suspends: 100;
    /// Daemons that died between two outputs.
    deaths_between_outputs: 100;
    /// Links taken in place of one that this end believed in.
    links_replaced: 50;
    /// Writes that ended in an error.
    writes_failed: 500;
    /// Writes that had ended in an error and landed later.
    failed_writes_landed_late: 50;
    /// Sectors left half written.
    writes_torn: 10;
    /// Reads that ended in an error, as a whole or for one sector.
    reads_failed: 500;
    /// Reads that returned old contents.
    reads_stale: 10;
    /// Writes that were acknowledged and did not land where they should.
    writes_that_lied: 5;
    /// Bits that flipped.
    bits_flipped: 50;
    /// Damaged records that a core found.
    quarantined: 5;
    /// Hosts that an operator switched off.
    plugs_pulled: 5;
    /// Lockstates that an operator formatted anew, after damage that nobody else can repair.
    reformats: 0;
    /// Verdicts that were not passed because the disk had lied to a recovery.
    excused: 0;
    /// Client processes killed.
    client_deaths: 500;
    /// Client connections cut.
    client_cuts: 300;
    /// Requests refused for want of a slot.
    table_full: 0;
    /// Sectors that a scrub repaired.
    scrub_repairs: 0;
    /// Simulated seconds.
    simulated_s: 0;
    /// Inputs handled by cores.
    inputs: 0;
}

impl Coverage {
    /// A table for people.
    pub fn table(&self) -> String {
        self.lines().into_iter().fold(String::new(), |mut text, (name, count, floor)| {
            let _ = match floor {
                0 => writeln!(text, "  {name:<34} {count:>12}"),
                _ => writeln!(text, "  {name:<34} {count:>12}   floor {floor}"),
            };
            text
        })
    }

    /// Counters below their floor, which is taken in proportion to the simulated time.
    pub fn below_floor(&self) -> Vec<String> {
        const FULL_RUN_S: u64 = 200 * 600;
        self.lines()
            .into_iter()
            .filter_map(|(name, count, floor)| {
                let wanted = floor.saturating_mul(self.simulated_s) / FULL_RUN_S;
                (count < wanted).then(|| format!("{name}: {count} is below {wanted}"))
            })
            .collect()
    }
}
