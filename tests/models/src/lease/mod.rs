//! Lease, fence and hand-over in the worst case of time (DESIGN section 5).
//!
//! [`judge`]: one node with a lease, a client and writes on their way; another node that judges it. Both may stand still
//! at any moment for any time, clocks differ by as much as A3 allows. [`restart`]: a daemon that is started again, and a host that is about to
//! take its slot. All times are ages, so there is no end of time that would bound them.

mod judge;
mod restart;

use crate::explore::{Report, explore};
use crate::{Rule, Scope, Size, Subject};
use judge::{JudgeModel, Method, Of};
use restart::RestartModel;

/// The model.
pub struct Leases;

pub(crate) const ONE_MASTER: &str = "no two nodes act as master at once";
pub(crate) const CLIENT_FIRST: &str = "locks are given away after their client has let go";
pub(crate) const NO_LATE_WRITE: &str = "no record write lands under another master";
pub(crate) const NO_CONDEMNED: &str = "a stall of the disk or of the judge condemns nobody";
pub(crate) const ONE_OWNER: &str = "nobody writes into the slot of a daemon that may vote";

/// Section 5's times, in ticks, and how much clocks differ: by one part in `drift`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Times {
    pub(crate) renew: u32,
    pub(crate) lease: u32,
    pub(crate) grace: u32,
    pub(crate) drift: u32,
}

/// Time is counted in ticks: where L + G + R is ten of them, a drift shows that is larger than one tick.
const COARSE: Times = Times { renew: 1, lease: 6, grace: 3, drift: 5 };
const FINE: Times = Times { renew: 2, lease: 12, grace: 6, drift: 20 };

impl Times {
    /// A2: a write lands by then or never. D/1.05 - L where D is as small as it may be.
    pub(crate) const fn landing(self) -> u32 {
        self.grace + self.renew
    }
}

const SCOPES: &[Scope] = &[
    Scope { name: "wait", bounds: "R 1, L 6, G 3 ticks, drift 20 %; dead by silence", size: Size::Small },
    Scope { name: "writes", bounds: "the same, with a record write on its way", size: Size::Small },
    Scope { name: "promises", bounds: "the same, with a promise on its way", size: Size::Small },
    Scope { name: "pr", bounds: "the same; the node's writes are blocked", size: Size::Small },
    Scope { name: "agent", bounds: "the same; the node is switched off", size: Size::Small },
    Scope {
        name: "stall",
        bounds: "the same; a prompt node, 1 stall of any length, a judge that stands still",
        size: Size::Small,
    },
    Scope { name: "restart", bounds: "the same; a restart, and a host that wants the slot", size: Size::Small },
    Scope { name: "wait-5%", bounds: "R 2, L 12, G 6 ticks, drift 5 %; dead by silence", size: Size::Long },
    Scope { name: "writes-5%", bounds: "the same, with a record write on its way", size: Size::Long },
    Scope { name: "restart-5%", bounds: "the same; a restart", size: Size::Long },
];

const RULES: &[Rule] = &[
    Rule {
        name: "from-start",
        text: "the lease counts from the start of the write, not from its end",
        breaks: ONE_MASTER,
        scope: "wait",
    },
    Rule {
        name: "silence-from-end",
        text: "silence counts from the end of the read that first showed a value",
        breaks: CLIENT_FIRST,
        scope: "wait",
    },
    Rule {
        name: "silence-to-issue",
        text: "silence counts to the issue of the read that still shows it",
        breaks: ONE_MASTER,
        scope: "wait",
    },
    Rule { name: "drift", text: "D has 1.05 for clocks that differ", breaks: NO_LATE_WRITE, scope: "writes" },
    Rule { name: "grace", text: "D has G for clients that end", breaks: CLIENT_FIRST, scope: "wait" },
    Rule { name: "renew", text: "D has R", breaks: NO_LATE_WRITE, scope: "writes" },
    Rule {
        name: "page",
        text: "a client ends at the deadline that its lease page shows, whatever the daemon does",
        breaks: CLIENT_FIRST,
        scope: "wait",
    },
    Rule { name: "latch", text: "a lost lease comes back only by a later view", breaks: ONE_MASTER, scope: "wait" },
    Rule {
        name: "write-within-lease",
        text: "no record write is issued after the lease",
        breaks: NO_LATE_WRITE,
        scope: "writes",
    },
    Rule {
        name: "valid-until",
        text: "whoever gets a promise compares its end with the clock",
        breaks: CLIENT_FIRST,
        scope: "promises",
    },
    Rule { name: "suspect", text: "fencing starts after a silence of L + G", breaks: ONE_MASTER, scope: "pr" },
    Rule {
        name: "pr-waits",
        text: "after `pr` the locks are given away 1.05 (L + G) after the last change seen",
        breaks: CLIENT_FIRST,
        scope: "pr",
    },
    Rule {
        name: "pr-looks-again",
        text: "that change is the one that a read shows which was issued after the fence had succeeded (decision 010)",
        breaks: CLIENT_FIRST,
        scope: "pr",
    },
    Rule {
        name: "pr-aborts",
        text: "`pr` ends the writes that are on their way (preempt and abort)",
        breaks: NO_LATE_WRITE,
        scope: "pr",
    },
    Rule {
        name: "agent-settles",
        text: "when `agent` reports success nothing of the node is on its way any more (A2)",
        breaks: NO_LATE_WRITE,
        scope: "agent",
    },
    Rule {
        name: "own-gap",
        text: "silence begins anew after a gap in the judge's own I/O",
        breaks: NO_CONDEMNED,
        scope: "stall",
    },
    Rule {
        name: "taker-gap",
        text: "the same, before a slot is taken: the last read is not an old one",
        breaks: ONE_OWNER,
        scope: "restart",
    },
    Rule {
        name: "within-l",
        text: "a restarted daemon has its slot at once only if its write began within L of the last stamp (decision 007)",
        breaks: ONE_OWNER,
        scope: "restart",
    },
    Rule {
        name: "silent-ban",
        text: "a node that is no member and has not written for D/1.05 casts no ballot for D (decision 009)",
        breaks: ONE_OWNER,
        scope: "restart",
    },
];

impl Subject for Leases {
    fn name(&self) -> &'static str {
        "lease"
    }

    fn about(&self) -> &'static str {
        "lease, fence and hand-over in the worst case of time"
    }

    fn scopes(&self) -> &'static [Scope] {
        SCOPES
    }

    fn rules(&self) -> &'static [Rule] {
        RULES
    }

    fn check(&self, scope: &Scope, without: Option<&Rule>) -> Report {
        let name = without.map(|rule| rule.name);
        let times = if scope.size == Size::Long { FINE } else { COARSE };
        let judge = |method, subject| explore(JudgeModel { times, method, subject, without: name }, without);
        match scope.name {
            "wait" | "wait-5%" => judge(Method::Wait, Of::Nothing),
            "writes" | "writes-5%" => judge(Method::Wait, Of::Record),
            "promises" => judge(Method::Wait, Of::Promise),
            "pr" => judge(Method::Pr, Of::Record),
            "agent" => judge(Method::Agent, Of::Record),
            "stall" => judge(Method::Stall, Of::Nothing),
            _ => explore(RestartModel { times, without: name }, without),
        }
    }
}
