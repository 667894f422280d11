//! What can go wrong, in sentences that say what to do, with the exit codes of INTERFACE.md.

use crate::event::Loss;
use mxlock_format::Resource;
use mxlock_proto::client::{Denial, FailureKind, Refusal};
use mxlock_proto::frame::FrameError;
use mxlock_proto::page::PageError;
use std::io;
use std::path::PathBuf;

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing answers on any of the sockets.
    #[error("no mxlockd answers for lockspace '{lockspace}' ({tried}): is mxlockd running?")]
    Unreachable {
        /// The lockspace.
        lockspace: String,
        /// Each socket with what was wrong with it.
        tried: String,
    },
    /// The socket may not be used.
    #[error("no permission for {}: run as root, or as a member of the group that owns the socket", socket.display())]
    Permission {
        /// The socket.
        socket: PathBuf,
    },
    /// The connection was lost and could not be made again.
    #[error("the connection to mxlockd at {} was lost ({cause}): is mxlockd running?", socket.display())]
    Disconnected {
        /// The socket.
        socket: PathBuf,
        /// The last thing that went wrong.
        cause: String,
    },
    /// The daemon refused the session.
    #[error("mxlockd at {} refused: {}", socket.display(), refusal_text(*refusal))]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// What is on the socket does not speak the protocol.
    #[error("what listens on {} does not speak as mxlockd does: {fault}", socket.display())]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// What is wrong.
        fault: ProtocolFault,
    },
    /// The daemon did not answer in time. The request has been withdrawn.
    #[error("mxlockd at {} has not answered for {waited_ms} ms: see 'mxlock status' for what is blocked", socket.display())]
    NoAnswer {
        /// The socket.
        socket: PathBuf,
        /// How long the call waited.
        waited_ms: u64,
    },
    /// Not granted, or a change refused; a lock that was held before is held as before (with CONVDEADLK perhaps in NL).
    #[error("'{resource}': {denial}")]
    Denied {
        /// What was to be locked.
        resource: Resource,
        /// Why not.
        denial: Denial,
    },
    /// The node's lease is lost: this client's locks may not be relied on.
    #[error("this node has lost its lease: stop what the locks protect, then see 'mxlock status'")]
    LeaseLost,
    /// The daemon does not know the session any more.
    #[error(
        "mxlockd at {} does not know this session any more: its locks are lost, stop what they protect",
        socket.display()
    )]
    SessionLost {
        /// The socket.
        socket: PathBuf,
    },
    /// The lock has ended without this client's doing.
    #[error("the lock on '{resource}' is lost: {loss}")]
    Lost {
        /// What was locked.
        resource: Resource,
        /// Why.
        loss: Loss,
    },
    /// An administrative request could not be done; the daemon says why.
    #[error("{message}")]
    Admin {
        /// What kind of failure.
        kind: FailureKind,
        /// One sentence.
        message: String,
    },
    /// The call contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// How a daemon broke the protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolFault {
    /// A bad frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A message that has no place there.
    #[error("a message came out of turn: {0}")]
    OutOfTurn(&'static str),
    /// The lease page did not come with the welcome.
    #[error("no lease page came with its welcome")]
    NoPage,
    /// The lease page is not usable.
    #[error("{0}")]
    Page(#[from] PageError),
    /// The lease page's memory could vanish under its reader.
    #[error("its lease page is not a sealed memory file of 4096 bytes")]
    PageSeals,
    /// The lease page cannot be mapped.
    #[error("its lease page cannot be mapped: {0}")]
    PageMap(io::Error),
}

fn refusal_text(refusal: Refusal) -> String {
    match refusal {
        Refusal::Version { daemon } => {
            let own = mxlock_proto::client::CLIENT_PROTOCOL;
            format!("it speaks client protocol {daemon}, this program {own}; use programs of the same release")
        }
        Refusal::UnknownSession => "it does not know the session any more".into(),
        Refusal::NotYourSession => "the session belongs to another process".into(),
        Refusal::NoSuchProcess => "the process that the locks are for does not exist".into(),
        Refusal::Permission => "the process that the locks are for belongs to another user".into(),
        Refusal::TooManySessions => "it has as many sessions as it can keep; end some clients".into(),
        Refusal::ShuttingDown => "it is going down; try again when it is back".into(),
        Refusal::BadFrame => "it could not read what this program sent; use programs of the same release".into(),
    }
}

impl ClientError {
    /// The exit code that INTERFACE.md has for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::Unreachable { .. }
            | ClientError::Disconnected { .. }
            | ClientError::Protocol { .. }
            | ClientError::NoAnswer { .. } => 69,
            ClientError::Permission { .. } => 77,
            ClientError::Refused { refusal, .. } => match refusal {
                Refusal::Permission | Refusal::NotYourSession => 77,
                Refusal::NoSuchProcess => 64,
                Refusal::TooManySessions | Refusal::UnknownSession => 75,
                Refusal::Version { .. } | Refusal::ShuttingDown | Refusal::BadFrame => 69,
            },
            ClientError::Denied { denial, .. } => match denial {
                Denial::Busy | Denial::TimedOut | Denial::Cancelled | Denial::Deadlock | Denial::NotFound => 1,
                Denial::Invalid => 64,
                Denial::Isolated => 69,
                Denial::Io => 74,
                Denial::Permission => 77,
                _ => 75,
            },
            ClientError::LeaseLost | ClientError::SessionLost { .. } | ClientError::Lost { .. } => 75,
            ClientError::Admin { kind, .. } => match kind {
                FailureKind::NotFound => 1,
                FailureKind::Usage => 64,
                FailureKind::Unreachable => 69,
                FailureKind::NotNow => 75,
                FailureKind::Permission => 77,
            },
            ClientError::Usage(_) => 64,
            ClientError::Io { .. } => 74,
        }
    }
}
