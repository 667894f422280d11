//! Lease, fence and hand-over.

use crate::explore::Report;
use crate::{Rule, Scope, Subject};

/// The model.
pub struct Leases;

impl Subject for Leases {
    fn name(&self) -> &'static str {
        "lease"
    }

    fn about(&self) -> &'static str {
        "lease, fence and hand-over in the worst case of time"
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
