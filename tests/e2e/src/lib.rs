//! The harness of the end-to-end tests: real daemons on real disks in network namespaces of their own.
//!
//! ```text
//! lab      what a test needs of the machine (root, loop devices, XFS, namespaces); which tests run alone
//! disk     loop device, XFS on it, or the bare device
//! net      a bridge and one network namespace per node
//! daemon   one mxlockd process
//! cluster  disk + net + daemons, and how to talk to them
//! held     a `mxlock run` that holds a lock until it is told to let go
//! inspect  the lockstate as mxlock-inspect shows it
//! surgery  damage, and signs of life of hosts that do not exist
//! libdlm   the C libraries, and C programs on them
//! kdlm     what the kernel DLM answers, and where mxlock differs on purpose
//! lvm      hosts that share a volume group: lvmlockd and lvm
//! referee  what many clients believed, and whether it was compatible (I1, I2)
//! ```
//!
//! Everything that is made is taken down by `Drop`, also when a test panics. Nothing is ended by name. The harness
//! panics where anything is not as it should be: it is only for tests.

pub mod cluster;
pub mod command;
pub mod daemon;
pub mod disk;
pub mod held;
pub mod inspect;
pub mod kdlm;
pub mod lab;
pub mod libdlm;
pub mod lvm;
pub mod net;
pub mod referee;
pub mod surgery;
pub mod wait;

pub use cluster::{Cluster, QUICK, Setup};
pub use command::{Said, run};
pub use daemon::Daemon;
pub use held::Held;
pub use lab::{alone, shared};
pub use wait::until;
