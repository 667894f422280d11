//! What the programs share.

pub mod app;
pub(crate) mod ending;
pub mod failure;
pub mod json;
pub mod man;
pub mod names;
pub mod signals;
pub mod table;
pub mod text;
