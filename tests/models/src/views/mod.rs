//! One view per epoch, agreed on through one disk (DESIGN section 4, I4).
//!
//! The proposer is the code's own ([`mxlock_dlm::cluster::agreement`]); around it stand what the heartbeat thread and
//! the disk may do to it. Time is left out: any node may cast a ballot at any moment, so nothing here rests on leases.
//! "D has passed" means what A2 makes of it: nothing that was written to the slot is still on its way.

mod heal;
mod model;
mod react;
mod state;

use crate::explore::{Report, explore};
use crate::{Rule, Scope, Size, Subject};
use model::{Bounds, Takes, ViewModel};

/// The model.
pub struct Views;

pub(crate) const ONE_VIEW: &str = "one view per epoch";
pub(crate) const NOT_LOST: &str = "a chosen view is not lost";
pub(crate) const HEALS: &str = "without faults the next view is chosen";

const SCOPES: &[Scope] = &[
    Scope { name: "two", bounds: "2 nodes, 3 epochs, 2 ballots each", size: Size::Small },
    Scope { name: "three", bounds: "3 nodes, 1 epoch, 1 ballot each", size: Size::Small },
    Scope { name: "errors", bounds: "2 nodes, 2 epochs, 2 ballots each, 1 failed write", size: Size::Small },
    Scope {
        name: "restart",
        bounds: "2 nodes, 2 epochs, 2 ballots and 1, 1 failed write, node 0 restarted, 1 ballot more",
        size: Size::Small,
    },
    Scope {
        name: "free-slot",
        bounds: "2 nodes, 2 epochs, 1 ballot each, 1 failed write, node 0 dies, its slot is taken, 1 ballot more",
        size: Size::Small,
    },
    Scope {
        name: "silent-slot",
        bounds: "2 nodes, 2 epochs, 1 ballot each, node 0 is silent for D, its slot is taken, 1 ballot more",
        size: Size::Small,
    },
    Scope { name: "damage", bounds: "2 nodes, 2 epochs, 2 ballots each, 1 sector damaged", size: Size::Small },
    Scope {
        name: "lost-write",
        bounds: "2 nodes, 2 epochs, 2 ballots each, 1 write that the disk loses",
        size: Size::Small,
    },
    Scope { name: "two-long", bounds: "2 nodes, 3 epochs, 4 ballots each", size: Size::Long },
    Scope { name: "three-long", bounds: "3 nodes, 3 epochs, 2 ballots, 1 and 1", size: Size::Long },
    Scope {
        name: "restart-long",
        bounds: "2 nodes, 3 epochs, 2 ballots each, 1 failed write, node 0 restarted",
        size: Size::Long,
    },
];

fn bounds(scope: &Scope) -> Bounds {
    match scope.name {
        "two" => Bounds { nodes: 2, epochs: 3, ballots: [2, 2, 0], ..Bounds::NONE },
        "three" => Bounds { nodes: 3, epochs: 1, ballots: [1, 1, 1], ..Bounds::NONE },
        "errors" => Bounds { nodes: 2, epochs: 2, ballots: [2, 2, 0], failures: 1, ..Bounds::NONE },
        "restart" => Bounds {
            nodes: 2,
            epochs: 2,
            ballots: [2, 1, 0],
            newcomer: 1,
            failures: 1,
            crashes: 1,
            takes: Takes::Restart,
            ..Bounds::NONE
        },
        "free-slot" => Bounds {
            nodes: 2,
            epochs: 2,
            ballots: [1, 1, 0],
            newcomer: 1,
            failures: 1,
            crashes: 1,
            takes: Takes::Free,
            ..Bounds::NONE
        },
        "silent-slot" => {
            Bounds { nodes: 2, epochs: 2, ballots: [1, 1, 0], newcomer: 1, takes: Takes::Silent, ..Bounds::NONE }
        }
        "damage" => Bounds { nodes: 2, epochs: 2, ballots: [2, 2, 0], damages: 1, ..Bounds::NONE },
        "lost-write" => Bounds { nodes: 2, epochs: 2, ballots: [2, 2, 0], losses: 1, ..Bounds::NONE },
        "two-long" => Bounds { nodes: 2, epochs: 3, ballots: [4, 4, 0], ..Bounds::NONE },
        "three-long" => Bounds { nodes: 3, epochs: 3, ballots: [2, 1, 1], ..Bounds::NONE },
        "restart-long" => Bounds {
            nodes: 2,
            epochs: 3,
            ballots: [2, 2, 0],
            newcomer: 1,
            failures: 1,
            crashes: 1,
            takes: Takes::Restart,
            ..Bounds::NONE
        },
        other => unreachable!("no such scope: {other}"),
    }
}

const RULES: &[Rule] = &[
    Rule {
        name: "read-after-write",
        text: "a phase's read is issued after its write has ended (4)",
        breaks: ONE_VIEW,
        scope: "two",
    },
    Rule {
        name: "own-image",
        text: "a phase uses the read of a beat that began after the block had changed, never an earlier one (4)",
        breaks: ONE_VIEW,
        scope: "two",
    },
    Rule {
        name: "yield",
        text: "a proposer gives up when it meets a higher ballot (4)",
        breaks: ONE_VIEW,
        scope: "two",
    },
    Rule {
        name: "carry-accepted",
        text: "phase 2 carries on a value that was accepted (4)",
        breaks: ONE_VIEW,
        scope: "two",
    },
    Rule {
        name: "carry-highest",
        text: "of several accepted values it carries on the one with the highest ballot (4)",
        breaks: ONE_VIEW,
        scope: "two",
    },
    Rule {
        name: "later",
        text: "a proposer gives up when it meets a later instance, or a committed view of its epoch (4)",
        breaks: ONE_VIEW,
        scope: "two",
    },
    Rule {
        name: "carry-view",
        text: "a block moves to a later instance only together with the view before it (4)",
        breaks: NOT_LOST,
        scope: "two",
    },
    Rule {
        name: "ban",
        text: "after a heartbeat write that failed, no ballot for D (4)",
        breaks: ONE_VIEW,
        scope: "errors",
    },
    Rule {
        name: "guard",
        text: "a daemon starts when its predecessor's last write has ended (8)",
        breaks: ONE_VIEW,
        scope: "restart",
    },
    Rule {
        name: "inherit-ban",
        text: "a restarted daemon casts no ballot while a failed heartbeat write of its predecessor may land (decision 009)",
        breaks: ONE_VIEW,
        scope: "restart",
    },
    Rule {
        name: "first-block",
        text: "the first write to a slot carries the ballot fields found there (4)",
        breaks: ONE_VIEW,
        scope: "restart",
    },
    Rule {
        name: "first-view",
        text: "the first write to a slot carries the newest committed view (4)",
        breaks: NOT_LOST,
        scope: "restart",
    },
    Rule {
        name: "vote-after-d",
        text: "whoever took a slot that was not its own casts no ballot until D after the claim (4)",
        breaks: ONE_VIEW,
        scope: "free-slot",
    },
    Rule {
        name: "unchanged-d",
        text: "a slot of a host that may live is taken after D unchanged (4)",
        breaks: ONE_VIEW,
        scope: "silent-slot",
    },
    Rule {
        name: "silent-ban",
        text: "a node that is no member and has not written for D casts no ballot for D (decision 009)",
        breaks: NOT_LOST,
        scope: "silent-slot",
    },
    Rule {
        name: "look-first",
        text: "a write that does not closely follow another one is preceded by a look at the sector (4, confirming)",
        breaks: ONE_VIEW,
        scope: "silent-slot",
    },
    Rule {
        name: "own-sector",
        text: "a node that does not find its own block as it wrote it stops (4)",
        breaks: ONE_VIEW,
        scope: "lost-write",
    },
    Rule {
        name: "learn",
        text: "a node goes on from the newest committed view that it reads, whoever shows it (4)",
        breaks: HEALS,
        scope: "two",
    },
    Rule {
        name: "damage-stops",
        text: "no view changes while a heartbeat sector is damaged (4)",
        breaks: ONE_VIEW,
        scope: "damage",
    },
];

impl Subject for Views {
    fn name(&self) -> &'static str {
        "views"
    }

    fn about(&self) -> &'static str {
        "one view per epoch, agreed on through one disk"
    }

    fn scopes(&self) -> &'static [Scope] {
        SCOPES
    }

    fn rules(&self) -> &'static [Rule] {
        RULES
    }

    fn check(&self, scope: &Scope, without: Option<&Rule>) -> Report {
        let (without, left) = (without.map(|rule| rule.name), without);
        explore(ViewModel { bounds: bounds(scope), without, healed: Default::default() }, left)
    }
}
