//! The deterministic core of mxlock (DESIGN section 2).
//!
//! No I/O, no clock, no thread, no randomness of its own, no unsafe code: inputs and the time go in, outputs come out.
//! The daemon carries them out on a real disk, the simulator in `tests/sim` on a fake one; it is the same code.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod config;
pub mod event;
pub mod io;
pub mod limits;
pub mod rng;
pub mod table;
pub mod time;
