//! What the daemon is told: configuration file, flags over it, defaults under it.

mod file;
mod settings;
mod values;

pub use file::{ConfigFile, KEYS, Key};
pub(crate) use settings::DEFAULT_GROUP;
pub use settings::Settings;
pub use values::{Advertise, FenceMethod, IoChoice, NodeWish};
