//! What happens when locks are lost.
//!
//! The interface has no word for it: where the kernel DLM's cluster loses a node, that node is fenced, and its programs with
//! it. A program that goes on as if it held a lock that others may be given is worse than one that is gone, so the default
//! is to kill it. `MXLOCK_DLM_ON_LOSS` can say `term` (SIGTERM, for programs that end in time) or `ignore` (for those that
//! hand what the locks protect to nobody without asking for the lock again).

use mxlock_client::Loss;
use std::io::Write;

/// The environment variable.
pub(crate) const VARIABLE: &str = "MXLOCK_DLM_ON_LOSS";

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLoss {
    Kill,
    Term,
    Ignore,
}

impl OnLoss {
    /// As the environment says; an unknown word counts as none.
    pub(crate) fn from_environment() -> OnLoss {
        OnLoss::from_word(std::env::var(VARIABLE).ok().as_deref())
    }

    fn from_word(word: Option<&str>) -> OnLoss {
        match word {
            Some("term") => OnLoss::Term,
            Some("ignore") => OnLoss::Ignore,
            _ => OnLoss::Kill,
        }
    }

    /// Locks of a lockspace were lost.
    pub(crate) fn act(self, lockspace: &[u8], loss: Loss) {
        let name = String::from_utf8_lossy(lockspace);
        let pid = std::process::id();
        let end = match self {
            OnLoss::Kill => "this process is killed",
            OnLoss::Term => "this process is told to end",
            OnLoss::Ignore => "this process was told not to care",
        };
        // Standard error may be closed; then nobody can be told.
        let _ =
            writeln!(std::io::stderr(), "libdlm: process {pid} has lost locks of lockspace '{name}' ({loss}): {end}");
        let signal = match self {
            OnLoss::Kill => nix::sys::signal::Signal::SIGKILL,
            OnLoss::Term => nix::sys::signal::Signal::SIGTERM,
            OnLoss::Ignore => return,
        };
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not understood is not ignored.
    #[test]
    fn the_default_is_to_kill() {
        let words = [None, Some("term"), Some("ignore"), Some("IGNORE"), Some("")];
        let expected = [OnLoss::Kill, OnLoss::Term, OnLoss::Ignore, OnLoss::Kill, OnLoss::Kill];
        assert_eq!(words.map(OnLoss::from_word), expected);
    }
}
