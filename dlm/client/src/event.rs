//! What a client hears without having asked, or after having asked without waiting.

use mxlock_format::Mode;
use mxlock_proto::client::{Answer, LossReason};

/// Something that [`crate::Client::poll_events`] reports.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A submitted operation has ended (I7: exactly once). A grant that came too late to be believed is reported as
    /// `Denied(LeaseLost)`.
    Answer {
        /// Which lock.
        seq: u64,
        /// Which operation: 0 for the request, a conversion's number, or [`crate::UNLOCK_OP`].
        op: u32,
        /// How it ended.
        answer: Answer,
    },
    /// Somebody waits for a lock that this one blocks. Several notices for one lock are reported as one, with the
    /// weakest mode that covers all that are wanted.
    Bast {
        /// Which lock.
        seq: u64,
        /// The mode that is wanted.
        wanted: Mode,
    },
    /// A lock has ended without this client's doing.
    Lost {
        /// Which lock.
        seq: u64,
        /// Why.
        loss: Loss,
    },
    /// No lock may be relied on: the lease is lost, or its deadline has passed. While the connection stands they may
    /// come back with `LeaseRegained`; without it a `Lost` for each follows.
    LeaseLost,
    /// The lease is there again: the locks that have not been reported as `Lost` stand as before.
    LeaseRegained,
    /// The connection is lost; the client connects again by itself. Locks stand until the lease deadline.
    Disconnected,
    /// The connection is there again; locks that did not survive are reported as `Lost`.
    Reconnected,
}

/// Why a lock has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// The daemon says so.
    Daemon(LossReason),
    /// After a reconnect the daemon did not confirm it.
    NotConfirmed,
    /// The lease deadline passed while there was no daemon to ask, or the node rejoined under a new incarnation.
    Lease,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Loss::Daemon(LossReason::Excluded) => "the node was excluded after it had lost its lease",
            Loss::Daemon(LossReason::Expired) => "it was not claimed again in time",
            Loss::Daemon(LossReason::Adopted) => "somebody adopted it while this client was away",
            Loss::Daemon(LossReason::Left) => "its node leaves the cluster",
            Loss::Daemon(_) => "the daemon ended it",
            Loss::NotConfirmed => "the daemon did not confirm it after a reconnect",
            Loss::Lease => "the node's lease ended",
        })
    }
}
