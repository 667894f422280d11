//! The on-disk layout of an mxlock lockstate (DESIGN section 3).
//!
//! This crate is pure: it turns sectors into values that are always valid, and back. It is the only code that
//! knows a byte offset. Everything else (daemon, inspector, simulator) goes through it.
//!
//! ```text
//! 0              64 heartbeat sectors, one per node      -> Heartbeat
//! 64 * S         slot_count lock-record sectors          -> LockRecord
//! ```

mod fault;
mod geometry;
mod heartbeat;
mod ids;
mod mode;
mod probe;
mod raw;
mod record;
mod resource;
mod sector;

pub use fault::*;
pub use geometry::*;
pub use heartbeat::*;
pub use ids::*;
pub use mode::*;
pub use probe::*;
pub use record::*;
pub use resource::*;
pub use sector::*;
