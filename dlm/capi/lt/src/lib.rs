//! `libdlm_lt.so.3`: for programs without threads. See `mxlock-capi`.
#![allow(unsafe_code)]

static LIBRARY: Library = Library::new(false);

include!("../../exports.rs");
