//! The bounds, and the rules that can be left out.

use super::Bounds;
use super::state::Faults;
use super::world::Ask::{Adopt, Convert, Lock, NoQueue, Persistent};
use super::world::{I1, I2, I3, I5, I9, OUTLIVES, RELEASED};
use crate::{Rule, Scope};
use mxlock_format::Mode::{CW, EX, NL, PR};

/// A rule that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    RecordBeforeGrant,
    WhatBothSay,
    OneWriteAtATime,
    ReuseBeforeClear,
    BothModes,
    PersistentGrantedRecord,
    PersistentClearedFirst,
    WaitingRecordsBlock,
    PossibleHolders,
    WantedBlocks,
    FinalWord,
    SpeaksForOwn,
    ClaimKeepsIncarnation,
    OldStampsDoNotCount,
    EpochAfterRewrite,
    RewriteInPlace,
    NewestStands,
    WaitForWrites,
    NoWriteAfterLease,
    ReportLeaves,
    ValueInRecord,
    DoubtAfterDeath,
    OrphanWaits,
    PurgeSpares,
    UnheardDoNotExpire,
    AdoptionIsWritten,
    NewIncarnation,
    TokenHasEpoch,
}

const NO_FAULTS: Faults = Faults { crashes: 0, exclusions: 0, leases: 0, deaths: 0, errors: 0, late: 0 };

const TWO_LOCKS: Bounds = Bounds {
    slots: 2,
    sessions: 2,
    homes: [0, 1, 1],
    menu: [&[Lock(EX)], &[Lock(EX)], &[]],
    asks: [1, 1, 0],
    reigns: 2,
    unheard: true,
    prompt: true,
    impatient: false,
    lazy_waiting: false,
    values: false,
    late_on_empty: false,
    faults: NO_FAULTS,
};

const fn scope(name: &'static str, bounds: &'static str) -> Scope {
    Scope { name, bounds, long: false }
}

const fn long(name: &'static str, bounds: &'static str) -> Scope {
    Scope { name, bounds, long: true }
}

pub(super) static SCOPES: &[(Scope, Bounds)] = &[
    (
        scope("masters", "two locks in EX, the first session's twice, two masters, members that are not heard; tokens"),
        Bounds { asks: [2, 1, 0], ..TWO_LOCKS },
    ),
    (
        scope("restart", "two locks in EX, two masters, one daemon that loses its memory"),
        Bounds { faults: Faults { crashes: 1, ..NO_FAULTS }, ..TWO_LOCKS },
    ),
    (
        scope("standing", "two slots; the first session locks twice, two masters, one daemon that loses its memory"),
        Bounds {
            menu: [&[Lock(EX), Lock(PR), Convert(PR, EX)], &[], &[]],
            asks: [4, 0, 0],
            unheard: false,
            faults: Faults { crashes: 1, ..NO_FAULTS },
            ..TWO_LOCKS
        },
    ),
    (
        scope("persistent", "a PERSISTENT lock, its owner's death or that of its node, its adoption; two masters"),
        Bounds {
            menu: [&[Persistent(EX)], &[Lock(EX), Adopt(EX)], &[]],
            asks: [1, 1, 0],
            unheard: false,
            faults: Faults { crashes: 1, deaths: 1, exclusions: 1, ..NO_FAULTS },
            ..TWO_LOCKS
        },
    ),
    (
        scope("leases", "two locks in EX, one node without its lease, excluded or not; two masters"),
        Bounds { faults: Faults { leases: 1, exclusions: 1, ..NO_FAULTS }, ..TWO_LOCKS },
    ),
    (
        scope("noqueue", "a request that does not wait, two masters"),
        Bounds { menu: [&[Lock(EX)], &[NoQueue(EX)], &[]], ..TWO_LOCKS },
    ),
    (
        scope("values", "a value written twice under EX and read under PR, two masters"),
        Bounds {
            menu: [&[Lock(EX)], &[Lock(NL), Convert(NL, PR)], &[]],
            asks: [2, 2, 0],
            values: true,
            unheard: false,
            ..TWO_LOCKS
        },
    ),
    (
        long("deaths", "a value written under EX and read under PR, a node that dies while it holds EX again"),
        Bounds {
            menu: [&[Lock(EX)], &[Lock(NL), Convert(NL, PR)], &[]],
            asks: [2, 2, 0],
            reigns: 1,
            values: true,
            unheard: false,
            faults: Faults { crashes: 1, exclusions: 1, ..NO_FAULTS },
            ..TWO_LOCKS
        },
    ),
    (
        scope("failed-writes", "one session that locks twice, a write that ends in an error and may land, two masters"),
        Bounds {
            menu: [&[Lock(EX)], &[], &[]],
            asks: [2, 0, 0],
            faults: Faults { errors: 1, ..NO_FAULTS },
            ..TWO_LOCKS
        },
    ),
    (
        scope(
            "late",
            "a PERSISTENT lock, a write that lands after the successor has read (A2 fails) where nothing is; three masters",
        ),
        Bounds {
            menu: [&[Persistent(EX)], &[], &[]],
            asks: [1, 0, 0],
            unheard: false,
            reigns: 3,
            late_on_empty: true,
            faults: Faults { late: 1, crashes: 1, exclusions: 1, ..NO_FAULTS },
            ..TWO_LOCKS
        },
    ),
    (
        long(
            "conversions",
            "PR, CW and conversions between them and to EX, two masters, one daemon that loses its memory",
        ),
        Bounds {
            menu: [&[Lock(CW), Convert(CW, PR)], &[Lock(CW), Lock(PR)], &[]],
            asks: [2, 1, 0],
            unheard: false,
            faults: Faults { crashes: 1, ..NO_FAULTS },
            ..TWO_LOCKS
        },
    ),
    (
        long("errors", "two locks in EX, a write that ends in an error, a daemon that loses its memory; three masters"),
        Bounds { reigns: 3, unheard: false, faults: Faults { crashes: 1, errors: 1, ..NO_FAULTS }, ..TWO_LOCKS },
    ),
    (
        long(
            "claims",
            "PR or EX, converted down and up again, against EX; a value; two masters, one daemon that loses its memory",
        ),
        Bounds {
            menu: [&[Lock(EX)], &[Lock(PR), Convert(PR, NL), Convert(NL, PR)], &[]],
            asks: [1, 3, 0],
            values: true,
            unheard: false,
            faults: Faults { crashes: 1, ..NO_FAULTS },
            ..TWO_LOCKS
        },
    ),
    (
        long("restarts", "two locks in EX, each twice, three masters, two daemons that lose their memory"),
        Bounds { asks: [2, 2, 0], reigns: 3, faults: Faults { crashes: 2, ..NO_FAULTS }, ..TWO_LOCKS },
    ),
];

const fn rule(name: &'static str, scope: &'static str, breaks: &'static str, text: &'static str) -> Rule {
    Rule { name, text, breaks, scope }
}

pub(super) static RULES: &[(Left, Rule)] = &[
    (
        Left::RecordBeforeGrant,
        rule("record-before-grant", "restart", I1, "7: a record names the lock before it is told"),
    ),
    (
        Left::WhatBothSay,
        rule(
            "what-both-say",
            "standing",
            I3,
            "protocol: a promise rests on what both records of a slot say while one is written",
        ),
    ),
    (
        Left::OneWriteAtATime,
        rule("one-write-at-a-time", "standing", I3, "7: writes of one sector are never in flight together"),
    ),
    (
        Left::ReuseBeforeClear,
        rule("reuse-before-clear", "standing", I3, "7: a standing record is reused only before its clear is submitted"),
    ),
    (
        Left::BothModes,
        rule("both-modes", "conversions", I1, "7: a converting record keeps the granted mode and the wanted one"),
    ),
    (
        Left::PersistentGrantedRecord,
        rule("persistent-granted", "persistent", OUTLIVES, "7: PERSISTENT is granted after the `granted` write"),
    ),
    (
        Left::PersistentClearedFirst,
        rule("persistent-cleared", "persistent", RELEASED, "7: PERSISTENT is released after the clear"),
    ),
    (
        Left::WaitingRecordsBlock,
        rule("waiting-records", "restart", I3, "6.4: `waiting` records of owners that cannot be asked block"),
    ),
    (
        Left::PossibleHolders,
        rule("possible-holders", "restart", I1, "6.4: all records of owners that cannot be asked block"),
    ),
    (
        Left::WantedBlocks,
        rule("wanted-blocks", "conversions", I3, "6.4: possible holders count with granted and wanted mode"),
    ),
    (Left::FinalWord, rule("final-word", "masters", I1, "6.4: a member that lived through has the final word")),
    (
        Left::SpeaksForOwn,
        rule(
            "speaks-for-own",
            "restart",
            I1,
            "protocol: a member speaks for its incarnation and the sessions that it lists",
        ),
    ),
    (
        Left::ClaimKeepsIncarnation,
        rule("claim-keeps-incarnation", "restart", I1, "decision 004: a claimed record keeps its incarnation"),
    ),
    (
        Left::UnheardDoNotExpire,
        rule(
            "unheard-do-not-expire",
            "restart",
            I1,
            "6.4: records of a member that is not heard do not expire, whatever incarnation they name",
        ),
    ),
    (
        Left::OldStampsDoNotCount,
        rule("old-stamps", "late", RELEASED, "6.3: records stamped below the table epoch do not count"),
    ),
    (
        Left::EpochAfterRewrite,
        rule("epoch-after-rewrite", "masters", I3, "6: the table epoch is raised after the rewrite"),
    ),
    (
        Left::RewriteInPlace,
        rule("rewrite-in-place", "standing", I3, "6.5: a record is rewritten in the slot where it was"),
    ),
    (
        Left::NewestStands,
        rule(
            "newest-stands",
            "standing",
            I3,
            "6.5: of several records of a session, the newest that covers its lock is the lock's",
        ),
    ),
    (
        Left::WaitForWrites,
        rule(
            "wait-for-writes",
            "failed-writes",
            I3,
            "7: the successor waits until a write that failed can land no more",
        ),
    ),
    (
        Left::NoWriteAfterLease,
        rule("no-write-after-lease", "failed-writes", I3, "5: no record write is issued after the lease"),
    ),
    (Left::ReportLeaves, rule("report-leaves", "noqueue", I1, "6: reporting and leaving the old view are one step")),
    (
        Left::ValueInRecord,
        rule("value-in-record", "values", I9, "7: a value is acknowledged when a record that stays has it"),
    ),
    (
        Left::DoubtAfterDeath,
        rule("doubt-after-death", "deaths", I9, "5: values that the dead could have changed are not valid"),
    ),
    (Left::OrphanWaits, rule("orphan-waits", "restart", I1, "7: an orphan is not given away before L + G has passed")),
    (
        Left::PurgeSpares,
        rule("purge-spares", "leases", I5, "what has spoken again is not cleared with what is on its way out"),
    ),
    (
        Left::AdoptionIsWritten,
        rule("adoption-is-written", "persistent", I3, "7: the record names the adopter before it is told"),
    ),
    (
        Left::NewIncarnation,
        rule("new-incarnation", "leases", I1, "protocol: an incarnation that was excluded is never admitted again"),
    ),
    (Left::TokenHasEpoch, rule("token-has-epoch", "masters", I2, "7: a token begins with the table epoch")),
];
