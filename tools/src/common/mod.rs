//! What the three programs share.

pub mod app;
pub mod failure;
pub mod json;
pub mod man;
pub mod names;
pub mod signals;
pub mod table;
pub mod text;
