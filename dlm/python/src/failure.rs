//! Errors of the client as exceptions. The classes are Python's (`mxlock._errors`), and are found by name.

use mxlock_client::{ClientError, Denial, FailureKind, Loss};
use pyo3::prelude::*;

/// The exception for an error of the client.
pub(crate) fn of_error(py: Python<'_>, error: &ClientError) -> PyErr {
    let class = match error {
        ClientError::Denied { denial, .. } => of_denial(*denial),
        ClientError::LeaseLost => "LeaseLost",
        ClientError::SessionLost { .. } => "LockLost",
        ClientError::Lost { loss, .. } => of_loss(*loss),
        ClientError::Permission { .. } => "PermissionDenied",
        ClientError::Usage(_) => "UsageError",
        ClientError::Admin { kind: FailureKind::Permission, .. } => "PermissionDenied",
        _ => "Unavailable",
    };
    exception(py, class, &error.to_string())
}

/// The class for a denial.
pub(crate) fn of_denial(denial: Denial) -> &'static str {
    match denial {
        Denial::Busy => "LockConflict",
        Denial::TimedOut => "LockTimeout",
        Denial::Cancelled => "Cancelled",
        Denial::Deadlock => "Deadlock",
        Denial::TableFull | Denial::Io | Denial::Damaged => "StorageError",
        Denial::LeaseLost => "LeaseLost",
        Denial::Isolated | Denial::SessionOver | Denial::ShuttingDown | Denial::Limit => "Unavailable",
        Denial::Invalid | Denial::InProgress => "UsageError",
        Denial::NotFound => "NotFound",
        Denial::Permission => "PermissionDenied",
        // A reason that this package does not know yet.
        _ => "Unavailable",
    }
}

/// The class for a loss.
pub(crate) fn of_loss(loss: Loss) -> &'static str {
    match loss {
        Loss::Lease => "LeaseLost",
        _ => "LockLost",
    }
}

/// An exception of this class, or why there is none.
pub(crate) fn exception(py: Python<'_>, class: &str, message: &str) -> PyErr {
    let made = py.import("mxlock._errors").and_then(|module| module.getattr(class)?.call1((message,)));
    made.map_or_else(|error| error, PyErr::from_value)
}
