//! Superset persistence and recovery.

use crate::explore::Report;
use crate::{Rule, Scope, Subject};

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
        &[]
    }

    fn rules(&self) -> &'static [Rule] {
        &[]
    }

    fn check(&self, scope: &Scope, _without: Option<&Rule>) -> Report {
        unreachable!("no such scope: {scope:?}")
    }
}
