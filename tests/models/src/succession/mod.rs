//! Masters in turn, by the code's own master and member (`dlm/src/master`, `dlm/src/member`): recovery, adoption, leave,
//! hand-over and failover.
//!
//! Nothing of the two is copied: the checker drives them through `mxlock_dlm::model`, and takes the place of the rest of
//! a cluster. One resource, two nodes with clients, a few record slots, masters on a third machine (a master that shares
//! a node with clients dies together with that node's daemon, which is two steps here). Writes under way land in any
//! order, or never when their master has died; messages to members arrive at any time; what the code leaves to time
//! happens at any time.
//!
//! Taken from the models of views and of leases, and not shown here: masters follow each other; a successor reads when
//! nothing of its predecessor can land any more (A2); whoever is excluded, or whose orphan's lifetime ends, has passed
//! its deadline before.
//!
//! Rules are left out by planting bugs in the code (`dlm/src/planted.rs`), or by changing what the checker stands in for.
//!
//! | file | subject |
//! |---|---|
//! | `state.rs` | what there is |
//! | `catalogue.rs` | the bounds, and the rules that can be left out |
//! | `world.rs` | what can happen |
//! | `promises.rs` | what must hold |
//! | `clients.rs` | clients, as the client library does it |
//! | `masters.rs` | masters, nodes and disk: what `Core` and `Cluster` do |
//! | `heal.rs` | liveness: with faults switched off everything comes to rest |
//! | `table.rs` | the one resource, the settings |

mod catalogue;
mod clients;
mod heal;
mod masters;
mod promises;
mod state;
mod table;
mod world;

use crate::explore::{Report, explore};
use crate::{Rule, Scope, Subject};
use catalogue::Left;
use state::{Ask, Faults, State};
use std::sync::LazyLock;
use world::World;

/// A client's part of the bounds.
struct Part {
    /// Its node.
    home: usize,
    /// What it may ask for, and how often.
    menu: &'static [Ask],
    asks: u8,
}

/// The bounds of a scope.
struct Bounds {
    slots: u32,
    clients: &'static [Part],
    /// Recovery may go on without members that live.
    unheard: bool,
    /// What members send arrives at once. That it may be under way longer shows where there is no master for a while.
    prompt: bool,
    /// Clients may give up waiting.
    impatient: bool,
    /// Who gives PW or EX up writes a value.
    values: bool,
    /// From every state with faults switched off everything comes to rest.
    heals: bool,
    faults: Faults,
}

/// One step: a state on its way to the next.
struct Step<'a> {
    world: &'a World,
    state: State,
}

/// The model.
pub struct Succession;

impl Subject for Succession {
    fn name(&self) -> &'static str {
        "succession"
    }

    fn about(&self) -> &'static str {
        "masters in turn by the code's own master and member: recovery, adoption, leave, failover"
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
        let left: Option<Left> = without.and_then(left);
        explore(World::new(bounds, left), without)
    }
}
