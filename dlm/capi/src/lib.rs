//! What mxlock's `libdlm.so.3` and `libdlm_lt.so.3` have in common: the interface of the kernel DLM's library (Debian's
//! libdlm3 4.2), spoken to `mxlockd`. The two libraries in `threaded` and `lt` only give the functions their C names.
//!
//! ```text
//! threaded, lt     the exported functions
//! library          handles, arguments as they come from C
//! lockspace        one open lockspace: what the program asks of it, its end
//!   book           its locks: what each operation comes to
//!   keeper         the thread that listens to mxlockd
//!   dispatch       telling the program; waiting
//!   delivery       status blocks and the program's functions
//!   purge          orphans, and the last release
//! spaces           which lockspaces exist on this node
//! check, names, status   the kernel's rules about arguments; names and errnos translated
//! loss             what happens when locks are lost
//! ```
//!
//! `docs/libdlm.md` says how it differs from the original. Nothing here unwinds into the program: every exported function goes
//! through [`code`] or [`value`].
#![allow(unsafe_code)]

pub mod abi;
mod check;
mod library;
mod lockspace;
mod loss;
mod names;
mod spaces;
mod status;

pub use library::{Library, LockCall, code, value};
