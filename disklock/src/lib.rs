//! Everything of mxlock that touches the lockstate (DESIGN sections 3, 5, 8).

mod clock;
mod error;
pub mod guards;
mod heartbeat;
pub mod io;

pub use clock::{boot_id, boottime_ns, realtime_ms};
pub use error::{DiskError, ErrorKind, LockConflict};
pub use heartbeat::{Beat, BeatRead, BeatWrite, HeartbeatConfig, HeartbeatThread, PublishError, Region};
