//! Crash points on the real write path.

pub mod campaign;
pub mod clients;
pub mod device;
pub mod history;
pub mod lab;
pub mod points;
pub mod record;
pub mod replay;
pub mod stream;
