//! The commands of mxlock: `mxlock`, `mxflock`, `mxlock-inspect` and `mxlock-bench`.
//!
//! The binaries in `src/bin` only call [`mxlock::main`], [`mxflock::main`], [`inspect::main`] and [`bench::main`]. What they share
//! (exit codes, printing, names) is in [`common`]. The contract with scripts is INTERFACE.md.

pub mod bench;
pub mod common;
pub mod inspect;
pub mod mxflock;
pub mod mxlock;
