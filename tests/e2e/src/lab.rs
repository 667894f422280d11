//! What the tests need of the machine, and which of them may run together.

use crate::disk::{Disk, Place};
use crate::net::Network;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Tests that burn CPU, and tests that would suffer from that.
static MACHINE: RwLock<()> = RwLock::new(());

/// Held by a test while it runs.
#[must_use]
pub enum Turn {
    /// With others.
    Shared(RwLockReadGuard<'static, ()>),
    /// Alone.
    Alone(RwLockWriteGuard<'static, ()>),
}

/// For a test that mostly waits. `None`: this machine cannot run it, which has been said.
///
/// # Panics
/// With `MXLOCK_E2E_REQUIRE=1`, instead of `None`.
pub fn shared() -> Option<Turn> {
    capable().then(|| Turn::Shared(MACHINE.read().unwrap_or_else(PoisonError::into_inner)))
}

/// For a test that burns CPU or measures time.
///
/// # Panics
/// As [`shared`].
pub fn alone() -> Option<Turn> {
    capable().then(|| Turn::Alone(MACHINE.write().unwrap_or_else(PoisonError::into_inner)))
}

fn capable() -> bool {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| try_everything().err());
    if let Some(why) = missing {
        assert!(
            std::env::var_os("MXLOCK_E2E_REQUIRE").is_none_or(|v| v != "1"),
            "MXLOCK_E2E_REQUIRE is set, but {why}"
        );
        eprintln!("skipped: {why}");
    }
    missing.is_none()
}

/// The only sure way to know is to do it once.
fn try_everything() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("loop devices, mounts and network namespaces need root".into());
    }
    Disk::xfs(512, Place::Steady).map_err(|e| format!("there is no XFS on a loop device: {e}"))?;
    Network::new(1).map_err(|e| format!("there are no network namespaces: {e}"))?;
    Ok(())
}
