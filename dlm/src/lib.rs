//! The deterministic core of mxlock (DESIGN section 2).
//!
//! No I/O, no clock, no thread, no randomness of its own, no unsafe code: inputs and the time go in, outputs come out.
//! The daemon carries them out on a real disk, the simulator in `tests/sim` on a fake one; it is the same code.
//!
//! | module | subject |
//! |---|---|
//! | [`Core`] (`node.rs`) | one node: passes inputs to the machines below and their words to each other |
//! | [`cluster`] | slot claims, own heartbeat, lease, judging others, Disk Paxos, views, elections, fencing |
//! | `link` | delivery to a peer once and in order |
//! | `member` | this node's sessions and their locks |
//! | `master` | the lock table, its records on disk, recovery |
//! | [`table`] | the queues and their rules |
//! | `slots` | mirror of the sectors, placement |

#![forbid(unsafe_code)]

pub mod cluster;
pub mod config;
pub mod event;
pub mod io;
pub mod limits;
mod link;
mod master;
mod member;
#[cfg(feature = "model")]
pub mod model;
mod node;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod rng;
mod slots;
pub mod table;
#[cfg(test)]
mod testing;
pub mod time;

pub use node::Core;
pub use slots::Mirror;

/// A map whose order depends on what was put in, and on nothing else.
type Map<K, V> = hashbrown::HashMap<K, V, std::hash::BuildHasherDefault<fnv::FnvHasher>>;
