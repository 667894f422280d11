//! Every bound of the daemon, with what happens at it. Those of the core are in `mxlock_dlm::limits`.

use std::time::Duration;

/// Client connections; the next one is accepted and closed at once.
pub(crate) const MAX_CLIENTS: usize = 16_384;
/// Bytes of answers that a client has not read; when it then sends yet another request, it is closed.
pub(crate) const MAX_UNREAD_BYTES: usize = 1 << 20;
/// Bytes of answers and notices for one client, whatever it does; beyond, it is closed. The largest listing
/// (`mxlock_dlm::limits::MAX_LOCKS` has more) comes in parts that are taken as they are made.
pub(crate) const MAX_CLIENT_BACKLOG_BYTES: usize = 512 << 20;
/// Time in which a client must have said hello; then it is closed.
pub(crate) const HELLO_TIME: Duration = Duration::from_secs(10);
/// Connections on the peer port that have not proven the cluster key; the oldest gives way to the next.
pub(crate) const MAX_UNPROVEN_PEERS: usize = 64;
/// Time in which a peer must have proven the cluster key; then it is closed.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Encrypted bytes for one peer that it has not taken; beyond, the link is dropped (the core sends again).
pub(crate) const MAX_PEER_BACKLOG_BYTES: usize = 128 << 20;
/// First wait before a peer is dialled again; it doubles up to R.
pub(crate) const FIRST_REDIAL: Duration = Duration::from_millis(50);
/// Room for one receive.
pub(crate) const CLIENT_RECEIVE_BYTES: usize = 4 << 10;
/// Room for one receive from a peer.
pub(crate) const PEER_RECEIVE_BYTES: usize = 64 << 10;
/// Time that the core has to hand over after SIGTERM; then the daemon stops without.
pub(crate) const SHUTDOWN_TIME: Duration = Duration::from_secs(5);
/// How long the owner thread looks for work before it sleeps, when there was some in the last `SPIN_AFTER`: the wake-up
/// of an idle core costs more than the whole request (BASELINES.md, "IPC").
pub(crate) const SPIN: Duration = Duration::from_micros(30);
/// See [`SPIN`].
pub(crate) const SPIN_AFTER: Duration = Duration::from_micros(300);
/// Quarantined sectors kept; beyond, further ones are only logged.
pub(crate) const MAX_QUARANTINED: usize = 1_024;
/// Jobs of the files thread that wait; further ones are dropped and logged.
pub(crate) const MAX_FILE_JOBS: usize = 256;
/// Bytes of the host name in the heartbeat; a longer one is cut.
pub(crate) const HOST_NAME_BYTES: usize = mxlock_format::MAX_HOST_BYTES;
/// Pause after a connection could not be accepted (too many open files).
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time that a daemon which was killed has to be gone: requests in its ring keep its slot's guard (DESIGN section 8)
/// and its sockets for a moment after the process has ended.
pub(crate) const PREDECESSOR_TIME: Duration = Duration::from_secs(3);
