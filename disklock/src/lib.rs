//! Everything of mxlock that touches the lockstate (DESIGN sections 3, 5, 8, 10).
//!
//! | module | what |
//! |---|---|
//! | [`Lockstate`] | opens, checks and reads a lockstate |
//! | [`mod@format`] | makes one |
//! | [`guards`] | keeps two programs of one host out of each other's way |
//! | [`HeartbeatThread`] | writes the own sector, reads all 64 |
//! | [`io`] | lock-record I/O and the owner thread's event loop: io_uring, or epoll and writer threads |
//! | [`check_device_timeouts`] | whether the devices keep to assumption A2 |

mod clock;
mod error;
mod foreign;
pub mod format;
pub mod guards;
mod heartbeat;
pub mod io;
mod lockstate;
mod note;
mod target;
mod timeouts;

pub use clock::{boot_id, boottime_ns, realtime_ms};
pub use error::{DiskError, ErrorKind, LockConflict};
pub use heartbeat::{Beat, BeatRead, BeatWrite, HeartbeatConfig, HeartbeatThread, PublishError, Region};
pub use lockstate::{Lockstate, OpenOptions, TableChunk};
pub use note::{BeatNote, Left, RecordNote};
pub use target::{Medium, Scope, TargetKind, medium_at, resolve};
pub use timeouts::check_device_timeouts;
