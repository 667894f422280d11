//! What mxlock's programs say to each other: client frames, peer frames, and how they travel.
//!
//! A frame is `length u32 | version u8 | body`, the body in postcard encoding ([`frame`]). Clients speak
//! [`client`] over a unix socket, daemons speak [`peer`] over TCP inside a Noise NNpsk0 channel ([`noise`]).

#![forbid(unsafe_code)]

pub mod client;
pub mod flags;
pub mod frame;
pub mod noise;
pub mod page;
pub mod peer;
pub mod report;
pub mod why;

pub use flags::LockFlags;
