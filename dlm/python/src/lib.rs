//! The native part of the Python package `mxlock`: sessions of `mxlock-client` that Python can call.
//!
//! Only what Python cannot do is here: the conversation with the daemon, and waiting without the interpreter's lock. Names,
//! defaults and guards are Python (`python/mxlock`), so that its types are checked where they are used.
//!
//! ```text
//! session.rs    the class `Session`: one method per operation, all of them short but `wait` and `events`
//! shared.rs     what those methods and the pump share: the client, answers, events, losses
//! pump.rs       the thread that takes in what the daemon says, connects again, and notices the end of the lease
//! failure.rs    errors as exceptions of `mxlock._errors`
//! ```

mod failure;
mod pump;
mod session;
mod shared;

use mxlock_client::LockFlags;
use pyo3::prelude::*;

/// The module `mxlock._mxlock`.
#[pymodule]
fn _mxlock(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<session::Session>()?;
    module.add("FLAGS", LockFlags::NAMES.iter().map(|(flag, name)| (*name, flag.0)).collect::<Vec<_>>())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
