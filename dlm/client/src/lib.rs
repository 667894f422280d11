//! A blocking client for `mxlockd`, which can also be driven by an event loop.
//!
//! ```no_run
//! use mxlock_client::{Client, ConnectOptions, LockSpec, Mode};
//! use std::time::Duration;
//!
//! let client = Client::connect(ConnectOptions::default())?;
//! let spec = LockSpec::name("table-7")?.mode(Mode::PR).timeout(Duration::from_secs(5));
//! let mut lock = client.lock(&spec)?;
//! lock.convert(Mode::EX)?;
//! if lock.is_valid() {
//!     // write, handing lock.token() to the storage
//! }
//! lock.unlock(None)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Locks live as long as the node's lease does, not as long as the connection: the client connects again by itself,
//! claims its locks, and repeats what was not answered. Whether a lock may be relied on is read from a page of memory
//! that the daemon shares with its clients ([`Lock::is_valid`]), so nobody has to be asked; without a daemon the locks
//! are lost at the lease deadline.

mod client;
mod clock;
mod error;
mod event;
mod lease;
mod lock;
mod options;
mod ranges;
mod session;
mod socket;
mod table;
mod waker;

pub use client::Client;
pub use clock::boottime_ns;
pub use error::{ClientError, ProtocolFault};
pub use event::{Event, Loss};
pub use lease::Lease;
pub use lock::Lock;
pub use options::{ConnectOptions, ConvertSpec, DEFAULT_LOCKSPACE, LockSpec, SOCKET_VARIABLE, UnlockSpec};
pub use ranges::{PosixRanges, RangeConflict, RangeMode};
pub use table::UNLOCK_OP;

pub use mxlock_format::{ByteRange, Mode, NodeId, QualifiedName, Resource, ResourceError, SessionId, Token};
pub use mxlock_proto::LockFlags;
pub use mxlock_proto::client::{
    AdminReply, AdminRequest, Answer, Denial, FailureKind, Grant, LossReason, LvbValue, Refusal,
};
