//! Views.

use crate::explore::Report;
use crate::{Rule, Scope, Subject};

/// The model.
pub struct Views;

impl Subject for Views {
    fn name(&self) -> &'static str {
        "views"
    }

    fn about(&self) -> &'static str {
        "one view per epoch, agreed on through one disk"
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
