//! Models of the protocol of DESIGN sections 4 to 7, checked exhaustively within bounds that `docs/models.md` states.
//!
//! A [`Subject`] is one model. It has [`Scope`]s, which bound it, and [`Rule`]s, which protect it: without any one of
//! them the checker must find a state in which something that DESIGN promises is broken. That is the test of the rule,
//! and of the model.
//!
//! | module | subject |
//! |---|---|
//! | [`views`] | Disk Paxos on one disk, one view per epoch, slots that change hands |
//! | [`lease`] | lease, fence and hand-over: who may believe what, and when |
//! | [`succession`] | the code's own master and member: recovery, adoption, leave, failover |
//! | [`explore`] | runs a model and says what came out |
//! | [`kept`] | parts that states share |

pub mod explore;
pub mod kept;
pub mod lease;
pub mod succession;
pub mod views;

use explore::Report;

/// One model.
pub trait Subject: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// What it is about, in one line.
    fn about(&self) -> &'static str;
    /// Its bounds, smallest first.
    fn scopes(&self) -> &'static [Scope];
    /// What protects it.
    fn rules(&self) -> &'static [Rule];
    /// Explores all states within a scope; without `without`, and then only until the property that it protects breaks.
    fn check(&self, scope: &Scope, without: Option<&Rule>) -> Report;

    /// The scope with this name.
    ///
    /// # Panics
    /// If there is none: the table of rules is wrong.
    fn scope(&self, name: &str) -> &'static Scope {
        let scope = self.scopes().iter().find(|scope| scope.name == name);
        scope.unwrap_or_else(|| panic!("model {} has no scope '{name}'", self.name()))
    }
}

/// Bounds of a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// Its name on the command line.
    pub name: &'static str,
    /// How many of what.
    pub bounds: &'static str,
    /// Which runs explore it.
    pub size: Size,
}

/// Which runs explore a scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// Every one.
    Small,
    /// Those with `--long`.
    Long,
    /// None: too large to be explored to its end. With `--long` its rules are left out, which ends where a property breaks.
    Part,
}

impl Scope {
    /// Whether it is explored as a whole.
    pub fn is_explored(&self, long: bool) -> bool {
        self.size == Size::Small || (self.size == Size::Long && long)
    }

    /// Whether its rules are left out.
    pub fn breaks_rules(&self, long: bool) -> bool {
        self.size == Size::Small || long
    }
}

/// A rule that protects a property.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it demands, with its place in DESIGN.
    pub text: &'static str,
    /// The property that breaks without it.
    pub breaks: &'static str,
    /// The scope in which that shows.
    pub scope: &'static str,
}

/// All models.
pub fn subjects() -> [&'static dyn Subject; 3] {
    [&views::Views, &lease::Leases, &succession::Succession]
}
