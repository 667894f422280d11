//! Bugs on purpose: each takes one protecting rule out of the production code, to prove that the simulator would notice.
//!
//! [`planted`] is `false` at compile time unless the feature `planted` is on, and then nothing of this is left in the
//! code. Only the feature of the same name of `mxlock-sim` turns it on; `scripts/test` looks that no build of the
//! workspace does. What is planted belongs to the thread, because the simulator runs each seed on one thread and several
//! seeds at a time. `docs/planted.md` says which oracle finds which bug.

#![cfg_attr(not(feature = "planted"), allow(unreachable_pub))]

#[cfg(feature = "planted")]
use std::cell::Cell;

macro_rules! bugs {
    ($($(#[doc = $doc:literal])* $bug:ident = $name:literal, $rule:literal;)*) => {
        /// A rule that can be taken out.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Bug { $($(#[doc = $doc])* $bug,)* }

        #[cfg(feature = "planted")]
        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$bug),*];

            /// What it is called on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Bug::$bug => $name),* }
            }

            /// The rule that it breaks: a section of DESIGN, or a defect of the prototype.
            pub const fn rule(self) -> &'static str {
                match self { $(Bug::$bug => $rule),* }
            }
        }
    };
}

bugs! {
    // -- Agreement (section 4) -------------------------------------------------------------------------------------
    /// Phase 2 is committed without looking whether a higher ballot has come meanwhile.
    NoBallotReread = "no-ballot-reread", "4: a proposer aborts when it meets a higher ballot, in both phases";
    /// Phase 1 uses the region that was read before its block was written.
    EarlyRead = "early-read", "4: a phase's read is issued after its write has completed";
    /// While it is proposing, a node goes on showing the view that its sector showed before.
    ViewNotCarried = "view-not-carried", "4: a block of instance e+2 stands in one sector with the view e+1";
    /// A daemon that takes a slot begins with an empty ballot block.
    BallotNotCarried = "ballot-not-carried", "4: the taker's first write carries the ballot fields found there";
    /// A master whose link is down counts as gone.
    LinkLossIsDeath = "link-loss-is-death", "4, 5: a lost TCP connection by itself proves nothing";

    // -- Leases and judging others (section 5) ---------------------------------------------------------------------
    /// The lease counts from the end of the last good beat.
    LeaseFromEnd = "lease-from-end", "5: the lease counts from the start of the last good write and read";
    /// A lease that had run out stands again as soon as the disk answers.
    LeaseNotLatched = "lease-not-latched", "5: the loss of a lease is latched";
    /// Silence for a third of D counts as death.
    DeadTooShort = "dead-too-short", "5: dead is silent for D";
    /// Silence goes on counting while the own disk does not answer.
    SilenceAcrossStalls = "silence-across-stalls", "5: after a gap in one's own I/O silence counts anew";
    /// Where `wait` is not configured, a node that is silent for D is excluded all the same.
    FailedFenceIgnored = "failed-fence-ignored", "5: a failed fence is never silently replaced by time";
    /// An incarnation that was excluded is admitted again, with its locks.
    ExcludedComesBack = "excluded-comes-back", "5, protocol: an excluded incarnation is never admitted again";
    /// A master resigns while record writes are under way, and does not say so.
    ResignWithoutDrain = "resign-without-drain", "4: a master that resigns drains its writes first";
    /// Record writes carry no deadline.
    WriteAfterLease = "write-after-lease", "5: no record write is issued after the lease";

    // -- Recovery (section 6) --------------------------------------------------------------------------------------
    /// A new master accepts records with any stamp.
    StampIgnored = "stamp-ignored", "6.3: records with a stamp below the table epoch do not count";
    /// A record keeps the stamp of the reign in which its lock was granted.
    StampNotRenewed = "stamp-not-renewed", "6.5: the surviving records are written with the new stamp";
    /// The table is read up to a fixed number of records.
    ScanStopsEarly = "scan-stops-early", "6.3, PROTOTYPE 6: the whole table is read";
    /// `waiting` records of members that lost their memory are dropped.
    WaitingRecordsDropped = "waiting-records-dropped", "6.4: `waiting` records are possible holders, too";
    /// Possible holders do not block.
    PossibleHoldersIgnored = "possible-holders-ignored", "6.4: a possible holder blocks as if it held";
    /// The locks of a daemon that was restarted are released.
    RestartFreesLocks = "restart-frees-locks", "4, 6: a restart does not prove that the sessions' locks are gone";
    /// Waiting requests are put into the queue in the order of their ids.
    FifoLost = "fifo-lost", "6.6, I8: waiting requests are resumed in their old order";
    /// What an earlier master said still counts.
    StaleReignAccepted = "stale-reign-accepted", "6: after the report nothing of an older master counts";
    /// The orphans of a restarted daemon are released at once.
    OrphanEndsAtOnce = "orphan-ends-at-once", "7: an orphan lives for at least L + G after a restart";
    /// The orphans of a restarted daemon are never released.
    OrphanNeverEnds = "orphan-never-ends", "6: a possible holder is resolved when its lifetime has ended";

    // -- Records and values (section 7) ----------------------------------------------------------------------------
    /// A grant is told before its record is on disk.
    AckBeforeRecord = "ack-before-record", "7: a record names the lock before its client is told";
    /// A grant rests on the last record although another one is being written over it.
    InFlightRecordTrusted = "in-flight-record-trusted", "7: either record may be the one on disk";
    /// A released lock is taken again on the strength of a record that is being cleared.
    StandingReusedLate = "standing-reused-late", "7: ... before the clear has been submitted";
    /// A record names only what is granted, not what is wanted.
    WantedNotRecorded = "wanted-not-recorded", "7: a conversion keeps the stronger of granted and wanted";
    /// Two writes of one slot are under way together, and the clear may land last.
    ClearOvertakesGrant = "clear-overtakes-grant", "7: writes to overlapping sectors are never in flight together";
    /// The record of a released lock is never cleared.
    RecordNotCleared = "record-not-cleared", "7, I10: a release is cleared behind within a bounded time";
    /// A record write that failed counts as done.
    WriteErrorIgnored = "write-error-ignored", "7, PROTOTYPE 9: if a record write fails, nothing is granted";
    /// A conversion gets the token of the last grant.
    TokenReused = "token-reused", "7, I2: tokens strictly increase over all grants";
    /// An unlock that writes a value is acknowledged before a record carries it.
    ValueAckedEarly = "value-acked-early", "7: an unlock with a value waits until a record carries it";
    /// The value of a writer that died stays valid.
    ValueValidAfterDeath = "value-valid-after-death", "7, I9: a value is not valid after a holder of PW or EX died";

    // -- Who is believed (section 6; only the models show these) -------------------------------------------------------
    /// What a record says of a lock counts, and not what its owner says.
    RecordBeforeOwner = "record-before-owner", "6.4: a member that lived through has the final word about its own locks";
    /// A daemon's silence about a lock of an earlier incarnation counts as its word.
    AnyIncarnationSpeaks = "any-incarnation-speaks", "protocol: a member speaks for its incarnation and listed sessions";
    /// A lock that is claimed is from then on one of the incarnation that runs now.
    ClaimRenewsIncarnation = "claim-renews-incarnation", "004: a claimed record keeps its incarnation";
    /// The lifetime of what a member holds that lives and was not heard runs.
    UnheardExpires = "unheard-expires", "6.4: records of a member that lives and is not heard do not expire";
    /// Of a possible holder's conversion only the mode that it had counts.
    WantedOfPossibleForgotten = "wanted-of-possible-forgotten", "6.4: possible holders count with granted and wanted mode";
    /// A new master writes each record into another slot.
    RewrittenElsewhere = "rewritten-elsewhere", "6.5: a record is rewritten in the slot where it was";
    /// Of several records of a session any may stand for its lock.
    AnyRecordStands = "any-record-stands", "6.5: of several records of a session the newest that covers its lock stands";
    /// What is on its way out leaves, though its owner has spoken of it again.
    NothingSpared = "nothing-spared", "5: what has spoken again is not cleared with what is on its way out";
    /// The value that a node which died was changing stays valid.
    DeadNodesValueStands = "dead-nodes-value-stands", "5, I9: values that a dead node could have changed are not valid";
    /// A token does not say which table it comes from.
    TokenWithoutEpoch = "token-without-epoch", "7, I2: a token begins with the table epoch";

    // -- What was given up, PERSISTENT locks and orphans (only the models show these) ----------------------------------
    /// A PERSISTENT lock is told on the strength of its waiting record.
    PersistentOnWaiting = "persistent-on-waiting", "7: PERSISTENT is granted after the `granted` write";
    /// The release of a PERSISTENT lock is acknowledged before its record is cleared.
    PersistentReleasedEarly = "persistent-released-early", "7: PERSISTENT is released after the clear";
    /// A new master believes a daemon that reports an orphan which has no record any more.
    AdoptedComesBack = "adopted-comes-back", "013: an orphan without a record was adopted";
    /// The same, where the report comes late.
    AdoptedComesBackLate = "adopted-comes-back-late", "013: the same of a member that was not heard in time";
    /// An adoption is told on the strength of the record that names the former owner.
    AdoptionUnwritten = "adoption-unwritten", "7: the record names the adopter before it is told";
    /// A session is taken up again after the master was told that its orphans may be adopted.
    GoneSessionResumed = "gone-session-resumed", "7: what may be adopted is not its former owner's";
    /// An adoption whose client was told otherwise, or has died, is released.
    AdoptionReleasedUnheard = "adoption-released-unheard", "7: an adoption that its client never hears of ends, not what it adopted";
    /// What a session does not claim is released, also what it lost to an exclusion.
    LostOrphanReleased = "lost-orphan-released", "7: a PERSISTENT lock that its session had lost is still an orphan";
    /// A request that was given up while its client was away is forgotten before the master has forgotten it.
    TakenBackForgotten = "taken-back-forgotten", "013: who asks again is told again that the request was given up";

    // -- Queues and answers (section 7) ----------------------------------------------------------------------------
    /// A new request passes those that wait, if nobody holds a mode that it conflicts with.
    ReaderBarges = "reader-barges", "7, PROTOTYPE 14: a new request is granted only if both queues are empty";
    /// Waiting requests are served last-in first-out.
    LifoWaiters = "lifo-waiters", "7, PROTOTYPE 12: waiting requests are served in order";
    /// Two ranges that share one byte count as apart.
    RangesMissAByte = "ranges-miss-a-byte", "7: locks conflict where their ranges overlap";
    /// With OWN nobody's ranges are in the way.
    OwnIsAnybodys = "own-is-anybodys", "7, decision 014: only what the same session holds in the same transaction";
    /// PR to CW counts as a down-conversion.
    PrToCwIsDown = "pr-to-cw-is-down", "7, PROTOTYPE 11: PR and CW are incomparable";
    /// Of several locks that one release grants, only the first is told.
    PromotionsLost = "promotions-lost", "7, PROTOTYPE 13: everybody who was granted is told";
    /// A conversion that ends without a grant is said to leave the old mode, also when that was given to others.
    DemotionNotTold = "demotion-not-told", "7, decision 015: every answer says whether the lock was demoted (CONVDEADLK)";
    /// A conversion that is cancelled is answered at once, and again by the master.
    AnsweredTwice = "answered-twice", "I7: every request ends in exactly one answer";
}

/// Whether this rule is taken out. Always false without the feature.
#[cfg(not(feature = "planted"))]
pub const fn planted(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Whether this rule is taken out on this thread.
#[cfg(feature = "planted")]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Takes a rule out, for all that the calling thread does from now on; `None` puts everything right.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
