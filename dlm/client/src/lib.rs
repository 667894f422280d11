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
//! Every grant has a [`Token`], larger than all earlier ones of the lockspace. Guards ([`Lock`]) release on drop; an unlock that
//! waits, or writes a value, is [`Lock::unlock_with`].
//!
//! # Leases
//!
//! Locks live as long as the node's lease does, not as long as the connection: the client connects again by itself,
//! claims its locks, and repeats what was not answered. Whether a lock may be relied on is read from a page of memory
//! that the daemon shares with its clients ([`Lock::is_valid`]), so nobody has to be asked; without a daemon the locks
//! are lost at the lease deadline. Other threads can ask a [`Lease`].
//!
//! # Event loops
//!
//! There is no runtime and no thread: everything happens in the caller's calls. What does not wait starts with
//! `submit_`, and its end is an [`Event`] of [`Client::poll_events`], as are blocking notices and losses.
//! [`Client::as_fd`] is readable when that has something to do, so it fits into poll(2), epoll(7), mio, or tokio's
//! `AsyncFd`.
//!
//! ```no_run
//! use mxlock_client::{Answer, Client, ConnectOptions, Event, LockSpec};
//!
//! let client = Client::connect(ConnectOptions::default())?;
//! let seq = client.submit_lock(&LockSpec::name("cache")?)?;
//! loop {
//!     // Here, as soon as `client.as_fd()` is readable; `None` waits for that as well.
//!     for event in client.poll_events(None)? {
//!         match event {
//!             Event::Answer { answer: Answer::Granted(grant), .. } => println!("token {}", grant.token),
//!             Event::Answer { answer, .. } => println!("not granted, or released: {answer:?}"),
//!             Event::Bast { wanted, .. } => {
//!                 println!("somebody wants {wanted}");
//!                 client.submit_unlock(seq, None)?;
//!             }
//!             Event::Lost { loss, .. } => println!("stop: {loss}"),
//!             _ => {}
//!         }
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Examples that run
//!
//! `examples/counter.rs` counts in a value block on several nodes, `examples/cache.rs` keeps a copy of it current with an event
//! loop; the end-to-end tests run both with real daemons.
//!
//! # Threads
//!
//! A [`Client`] can be sent to another thread but not shared: threads have clients of their own. Forked children have none: the
//! session is their parent's, and dropping the client in a child does not end it.

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
