//! The bounds, and the rules that can be left out.

use super::promises::{HEALS, I1, I2, I3, I5, I9, OUTLIVES, RELEASED};
use super::state::Ask::{Adopt, AdoptPersistent, Convert, Lingering, Lock, NoQueue, Persistent, Timed};
use super::state::Faults;
use super::{Bounds, Part};
use crate::{Rule, Scope, Size};
use mxlock_dlm::planted::Bug;
use mxlock_format::Mode::{CW, EX, NL, PR};

/// A rule that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// By a bug planted in the code.
    Code(Bug),
    /// The successor waits until nothing of its predecessor can land.
    WaitForWrites,
    /// Reporting and leaving the old reign are one step.
    ReportLeaves,
    /// The table epoch is raised after the rewrite.
    EpochAfterRewrite,
    /// Nothing is written after the lease.
    NoWriteAfterLease,
    /// An orphan's lifetime is longer than its client's deadline.
    OrphanWaits,
    /// An incarnation that was excluded is never admitted again.
    NewIncarnation,
}

const NO_FAULTS: Faults = Faults {
    crashes: 0,
    exclusions: 0,
    leases: 0,
    deaths: 0,
    cuts: 0,
    errors: 0,
    leaves: 0,
    deposed: 0,
    handovers: 0,
    late: 0,
};

const BOUNDS: Bounds = Bounds {
    slots: 2,
    clients: &[],
    unheard: false,
    prompt: true,
    impatient: true,
    values: false,
    heals: true,
    faults: Faults { deposed: 1, ..NO_FAULTS },
};

const fn scope(name: &'static str, bounds: &'static str) -> Scope {
    Scope { name, bounds, size: Size::Small }
}

const fn long(name: &'static str, bounds: &'static str) -> Scope {
    Scope { name, bounds, size: Size::Long }
}

const fn in_part(name: &'static str, bounds: &'static str) -> Scope {
    Scope { name, bounds, size: Size::Part }
}

const fn part(home: usize, menu: &'static [super::state::Ask], asks: u8) -> Part {
    Part { home, menu, asks }
}

const fn rule(name: &'static str, scope: &'static str, breaks: &'static str, text: &'static str) -> Rule {
    Rule { name, text, breaks, scope }
}

const fn code(bug: Bug, scope: &'static str, breaks: &'static str) -> (Left, Rule) {
    (Left::Code(bug), rule(bug.name(), scope, breaks, bug.rule()))
}

pub(super) static SCOPES: &[(Scope, Bounds)] = &[
    (
        scope("masters", "two locks in EX, the first client's twice; two masters"),
        Bounds { clients: &[part(0, &[Lock(EX)], 2), part(1, &[Lock(EX)], 1)], impatient: false, ..BOUNDS },
    ),
    (
        long("restart", "two locks in EX, a daemon that loses its memory; two masters, members not heard"),
        Bounds {
            clients: &[part(0, &[Lock(EX)], 1), part(1, &[Lock(EX)], 1)],
            impatient: false,
            unheard: true,
            faults: Faults { crashes: 1, deposed: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("swap", "PR to CW against CW; two masters"),
        Bounds {
            clients: &[part(0, &[Lock(PR), Convert(PR, CW)], 2), part(1, &[Lock(CW)], 1)],
            impatient: false,
            ..BOUNDS
        },
    ),
    (
        scope("give-up", "EX down to NL against EX; two masters"),
        Bounds {
            clients: &[part(0, &[Lock(EX), Convert(EX, NL)], 2), part(1, &[Lock(EX)], 1)],
            impatient: false,
            ..BOUNDS
        },
    ),
    (
        scope(
            "adopt",
            "PERSISTENT, its owner's death, its adoption on another node and its release; two masters, not heard",
        ),
        Bounds {
            clients: &[part(0, &[Persistent(EX)], 1), part(1, &[AdoptPersistent(EX)], 2)],
            unheard: true,
            faults: Faults { deaths: 1, deposed: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("adopt-errors", "PERSISTENT, its owner's death, its adoption, a failed write; two masters and more"),
        Bounds {
            clients: &[part(0, &[Persistent(EX)], 1), part(1, &[AdoptPersistent(EX)], 1)],
            unheard: true,
            faults: Faults { deaths: 1, deposed: 1, errors: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        long("inherit", "PERSISTENT, a conversion, its owner's death, its adoption; one master"),
        Bounds {
            clients: &[
                part(0, &[Persistent(PR), Convert(PR, EX), Convert(PR, CW), Convert(PR, NL)], 2),
                part(1, &[Lock(CW), AdoptPersistent(PR)], 2),
            ],
            impatient: false,
            faults: Faults { deaths: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("away", "PERSISTENT, its owner away for long, its adoption by another; one master"),
        Bounds {
            clients: &[part(0, &[Persistent(EX)], 1), part(1, &[AdoptPersistent(EX)], 1)],
            impatient: false,
            faults: Faults { cuts: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope(
            "unheard",
            "PERSISTENT, its owner's death, its adoption, whose client dies or whose daemon restarts; one master",
        ),
        Bounds {
            clients: &[part(0, &[Persistent(EX)], 1), part(1, &[AdoptPersistent(EX)], 1)],
            impatient: false,
            faults: Faults { deaths: 2, crashes: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        long("lost", "PERSISTENT, a lost lease, an exclusion, a restart; two masters, not heard"),
        Bounds {
            clients: &[part(0, &[Persistent(EX)], 1)],
            unheard: true,
            faults: Faults { leases: 1, exclusions: 1, crashes: 1, deposed: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        long("adopt-back", "PERSISTENT, its owner away for long; its adoption by itself, or by another; two masters"),
        Bounds {
            clients: &[part(0, &[Persistent(EX), AdoptPersistent(EX)], 2), part(1, &[AdoptPersistent(EX)], 1)],
            impatient: false,
            faults: Faults { cuts: 1, deposed: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("orphans", "a lock with a lifetime as an orphan, its owner's death or a cut, its adoption; two masters"),
        Bounds {
            clients: &[part(0, &[Lingering(EX)], 1), part(1, &[Adopt(EX)], 1)],
            impatient: false,
            faults: Faults { deaths: 1, cuts: 1, deposed: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("handover", "PERSISTENT, its owner's death, its adoption, nodes that leave; a master that hands over"),
        Bounds {
            clients: &[part(0, &[Persistent(EX)], 1), part(1, &[AdoptPersistent(EX)], 1)],
            impatient: false,
            faults: Faults { deaths: 1, leaves: 1, handovers: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("lease", "two locks in EX, a lost lease, an exclusion; one master"),
        Bounds {
            slots: 3,
            clients: &[part(0, &[Lock(EX)], 1), part(1, &[Lock(EX)], 1)],
            impatient: false,
            faults: Faults { leases: 1, exclusions: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        long("leases", "two locks in EX, a lost lease, an exclusion; two masters"),
        Bounds {
            slots: 3,
            clients: &[part(0, &[Lock(EX)], 1), part(1, &[Lock(EX)], 1)],
            impatient: false,
            faults: Faults { leases: 1, exclusions: 1, deposed: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("standing", "one client that locks and converts three times; two masters, members not heard"),
        Bounds {
            clients: &[part(0, &[Lock(EX), Lock(PR), Convert(PR, EX)], 3)],
            impatient: false,
            unheard: true,
            ..BOUNDS
        },
    ),
    (
        long("standing-long", "one client that locks and converts four times; two masters, members not heard"),
        Bounds {
            clients: &[part(0, &[Lock(EX), Lock(PR), Convert(PR, EX)], 4)],
            impatient: false,
            unheard: true,
            ..BOUNDS
        },
    ),
    (
        scope("noqueue", "EX against EX NOQUEUE; two masters, members not heard"),
        Bounds {
            clients: &[part(0, &[Lock(EX)], 1), part(1, &[NoQueue(EX)], 1)],
            impatient: false,
            unheard: true,
            ..BOUNDS
        },
    ),
    (
        scope("conversions", "PR to EX against PR; two masters, members not heard"),
        Bounds {
            clients: &[part(0, &[Lock(PR), Convert(PR, EX)], 2), part(1, &[Lock(PR)], 1)],
            impatient: false,
            unheard: true,
            ..BOUNDS
        },
    ),
    (
        scope("claims", "a lock in EX, a daemon that loses its memory; two masters, members not heard"),
        Bounds {
            clients: &[part(0, &[Lock(EX)], 1)],
            impatient: false,
            unheard: true,
            faults: Faults { crashes: 1, deposed: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        long("claims-again", "one client that locks twice, a daemon that loses its memory; two masters"),
        Bounds {
            clients: &[part(0, &[Lock(EX), Lock(PR)], 2)],
            impatient: false,
            faults: Faults { crashes: 1, deposed: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("restart-one", "two locks in EX, a daemon that loses its memory; one master"),
        Bounds {
            clients: &[part(0, &[Lock(EX)], 1), part(1, &[Lock(EX)], 1)],
            impatient: false,
            faults: Faults { crashes: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("persistent", "PERSISTENT against EX, a lost lease, an exclusion; one master"),
        Bounds {
            clients: &[part(0, &[Persistent(EX)], 1), part(1, &[Lock(EX)], 1)],
            impatient: false,
            faults: Faults { leases: 1, exclusions: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        long(
            "persistent-deaths",
            "PERSISTENT, its owner's death or a lost lease, an exclusion, its adoption; one master",
        ),
        Bounds {
            clients: &[part(0, &[Persistent(EX)], 1), part(1, &[Lock(EX), AdoptPersistent(EX)], 1)],
            impatient: false,
            faults: Faults { deaths: 1, leases: 1, exclusions: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("failed-writes", "one client that locks twice, a write that fails and may land; two masters and more"),
        Bounds {
            clients: &[part(0, &[Lock(EX)], 2)],
            impatient: false,
            unheard: true,
            faults: Faults { errors: 1, deposed: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("late", "PERSISTENT, a node that leaves, a write that lands too late (A2 fails); three masters"),
        Bounds {
            clients: &[part(0, &[Persistent(EX)], 1)],
            impatient: false,
            heals: false,
            faults: Faults { late: 1, leaves: 1, deposed: 2, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("values", "a value written under EX and read under PR; two masters"),
        Bounds {
            clients: &[part(0, &[Lock(EX)], 1), part(1, &[Lock(NL), Convert(NL, PR)], 2)],
            impatient: false,
            values: true,
            ..BOUNDS
        },
    ),
    (
        long("values-twice", "a value written twice under EX and read under PR; two masters"),
        Bounds {
            clients: &[part(0, &[Lock(EX)], 2), part(1, &[Lock(NL), Convert(NL, PR)], 2)],
            impatient: false,
            values: true,
            ..BOUNDS
        },
    ),
    (
        in_part("deaths", "a value written twice under EX, read under PR, a lost lease, an exclusion; one master"),
        Bounds {
            clients: &[part(0, &[Lock(EX)], 2), part(1, &[Lock(NL), Convert(NL, PR)], 2)],
            impatient: false,
            values: true,
            faults: Faults { leases: 1, exclusions: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        long("conversions-restart", "CW, PR and conversions, a daemon that loses its memory; one master"),
        Bounds {
            clients: &[part(0, &[Lock(CW), Convert(CW, PR)], 2), part(1, &[Lock(CW), Lock(PR)], 1)],
            impatient: false,
            faults: Faults { crashes: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        long("standing-restart", "one client that locks and converts three times, a restarted daemon; two masters"),
        Bounds {
            clients: &[part(0, &[Lock(EX), Lock(PR), Convert(PR, EX)], 3)],
            impatient: false,
            faults: Faults { crashes: 1, deposed: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
    (
        scope("timed", "a request with a time limit whose client is away; one master"),
        Bounds {
            clients: &[part(0, &[Timed(EX)], 1), part(1, &[Lock(EX)], 1)],
            impatient: false,
            faults: Faults { cuts: 1, ..NO_FAULTS },
            ..BOUNDS
        },
    ),
];

pub(super) static RULES: &[(Left, Rule)] = &[
    code(Bug::AckBeforeRecord, "masters", I3),
    code(Bug::InFlightRecordTrusted, "standing", I3),
    code(Bug::ClearOvertakesGrant, "masters", I3),
    code(Bug::StandingReusedLate, "masters", I3),
    code(Bug::WantedNotRecorded, "conversions", I3),
    code(Bug::RecordNotCleared, "masters", HEALS),
    code(Bug::WriteErrorIgnored, "failed-writes", I3),
    code(Bug::TokenReused, "swap", I2),
    code(Bug::TokenWithoutEpoch, "masters", I2),
    code(Bug::ValueAckedEarly, "values-twice", I9),
    code(Bug::DeadNodesValueStands, "deaths", I9),
    code(Bug::WaitingRecordsDropped, "conversions", I3),
    code(Bug::PossibleHoldersIgnored, "restart-one", I1),
    code(Bug::WantedOfPossibleForgotten, "conversions", I3),
    code(Bug::RecordBeforeOwner, "restart", I1),
    code(Bug::AnyIncarnationSpeaks, "claims", I3),
    code(Bug::ClaimRenewsIncarnation, "claims", I3),
    code(Bug::UnheardExpires, "claims", I3),
    code(Bug::StampIgnored, "late", RELEASED),
    code(Bug::RewrittenElsewhere, "standing", I3),
    code(Bug::AnyRecordStands, "standing-long", I3),
    code(Bug::NothingSpared, "lease", HEALS),
    code(Bug::PersistentOnWaiting, "persistent", OUTLIVES),
    code(Bug::PersistentReleasedEarly, "late", RELEASED),
    code(Bug::AdoptedComesBack, "adopt", RELEASED),
    code(Bug::AdoptedComesBackLate, "adopt", RELEASED),
    code(Bug::AdoptionUnwritten, "adopt", I3),
    code(Bug::GoneSessionResumed, "away", I1),
    code(Bug::AdoptionReleasedUnheard, "unheard", OUTLIVES),
    code(Bug::LostOrphanReleased, "lost", OUTLIVES),
    code(Bug::TakenBackForgotten, "timed", I5),
    (
        Left::OrphanWaits,
        rule("orphan-waits", "restart-one", I1, "7: an orphan is not given away before L + G has passed"),
    ),
    (
        Left::NewIncarnation,
        rule("new-incarnation", "lease", I1, "protocol: an incarnation that was excluded is never admitted again"),
    ),
    (
        Left::WaitForWrites,
        rule("wait-for-writes", "masters", I3, "A2: the successor reads when nothing of its predecessor can land"),
    ),
    (
        Left::NoWriteAfterLease,
        rule("no-write-after-lease", "failed-writes", I3, "5: no record write is issued after the lease"),
    ),
    (Left::ReportLeaves, rule("report-leaves", "masters", I1, "6: reporting and leaving the old reign are one step")),
    (
        Left::EpochAfterRewrite,
        rule("epoch-after-rewrite", "masters", I3, "6: the table epoch is raised after the rewrite"),
    ),
];
