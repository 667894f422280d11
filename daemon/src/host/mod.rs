//! What the daemon takes from its machine: directories, addresses, sockets, processes, signals, the service manager.

pub(crate) mod addresses;
pub(crate) mod dirs;
pub(crate) mod identity;
pub(crate) mod listen;
pub(crate) mod patience;
pub(crate) mod process;
pub(crate) mod signals;
pub(crate) mod systemd;
