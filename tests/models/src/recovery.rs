//! Superset persistence and recovery (DESIGN sections 5 to 7): masters in turn over one small table.
//!
//! One resource, two nodes with clients, a few record slots, and masters on a third machine; a master that shares a
//! node with clients dies together with that node's daemon, which is two steps here. What the code does when a message,
//! a write, a restart or an end of a lifetime comes, the model does step for step, on the code's own lock table
//! (`mxlock_dlm::table`); what it leaves to time happens at any time. Writes under way land in any order, or never when
//! their master has died.
//!
//! Taken from the models of views and of leases, and not shown here: masters follow each other; a successor reads when
//! nothing of its predecessor can land any more (A2); whoever is excluded, or whose orphan's lifetime ends, has passed
//! its deadline before.
//!
//! | file | subject |
//! |---|---|
//! | `state.rs` | what there is |
//! | `catalogue.rs` | the bounds, and the rules that can be left out |
//! | `world.rs` | what can happen, and what must hold |
//! | `nodes.rs` | clients and their daemons |
//! | `operations.rs`, `persist.rs` | the master at work |
//! | `rebuild.rs`, `members.rs` | a new master; members that die, return, speak late; orphans |
//! | `table.rs` | the code's lock table |

mod catalogue;
mod members;
mod nodes;
mod operations;
mod persist;
mod rebuild;
mod state;
mod table;
mod world;

use crate::explore::{Report, explore};
use crate::{Rule, Scope, Subject};
use catalogue::Left;
use mxlock_dlm::table::Effect;
use state::{Faults, SESSIONS, State};
use std::sync::LazyLock;
use world::{Ask, World};

/// The bounds of a scope.
struct Bounds {
    slots: u8,
    sessions: u8,
    /// The node of each session.
    homes: [u8; SESSIONS],
    /// What each session may ask for, and how often.
    menu: [&'static [Ask]; SESSIONS],
    asks: [u8; SESSIONS],
    reigns: u8,
    /// Recovery may go on without some members.
    unheard: bool,
    /// What members send arrives at once. That it may be under way longer shows where there is no master for a while.
    prompt: bool,
    /// Clients may give up waiting.
    impatient: bool,
    /// Queued requests do without records.
    lazy_waiting: bool,
    /// Who gives PW or EX up writes a value.
    values: bool,
    /// A write that hangs lands only where there is nothing.
    late_on_empty: bool,
    faults: Faults,
}

/// One step: a state on its way to the next.
struct Step<'a> {
    world: &'a World,
    state: State,
    /// What the table did to other locks, to be carried out.
    effects: Vec<Effect>,
}

impl Step<'_> {
    fn without(&self, rule: Left) -> bool {
        self.world.without == Some(rule)
    }
}

/// The model.
pub struct Recovery;

impl Subject for Recovery {
    fn name(&self) -> &'static str {
        "recovery"
    }

    fn about(&self) -> &'static str {
        "the disk as a superset of the truth, and what a new master makes of it"
    }

    fn scopes(&self) -> &'static [Scope] {
        static SCOPES: LazyLock<Vec<Scope>> =
            LazyLock::new(|| catalogue::SCOPES.iter().map(|(scope, _)| *scope).collect());
        &SCOPES
    }

    fn rules(&self) -> &'static [Rule] {
        static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| catalogue::RULES.iter().map(|(_, rule)| *rule).collect());
        &RULES
    }

    fn check(&self, scope: &Scope, without: Option<&Rule>) -> Report {
        let (_, bounds) = catalogue::SCOPES.iter().find(|(known, _)| known == scope).expect("a scope of this model");
        let left = |rule: &Rule| catalogue::RULES.iter().find(|(_, known)| known == rule).map(|(left, _)| *left);
        explore(World { bounds, without: without.and_then(left) }, without)
    }
}
