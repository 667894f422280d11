//! demo
use super::cli::Demo;
use crate::common::app::Outcome;
pub(super) fn demo(_demo: &Demo, _json: bool) -> Outcome {
    Ok(0)
}
