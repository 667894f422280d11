//! Crash points on the real write path.

pub mod clients;
pub mod device;
pub mod history;
pub mod lab;
pub mod record;
pub mod stream;
