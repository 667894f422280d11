//! What keeps two programs on one host out of each other's way (DESIGN section 8).
//!
//! Each guard is a value: the lock stands while it lives, and the kernel drops it when the process ends, however it
//! ends. They work on any file and depend on nothing else here.

mod node;
mod ofd;
mod sidecar;
mod state_dir;

pub use node::NodeGuard;
pub use sidecar::{
    MAINTENANCE_BYTE, Maintenance, READER_SLOT_COUNT, READER_SLOT_FIRST, ReaderSlot, SIDECAR_BYTES, Sidecar,
};
pub use state_dir::StateDirLock;
