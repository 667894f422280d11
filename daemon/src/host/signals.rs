//! Signals: the first SIGTERM or SIGINT asks the daemon to stop, the second one ends it; SIGHUP reloads.

use crate::error::{Failure, Kind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Caught signals. The descriptor is readable when one has come.
#[derive(Debug)]
pub(crate) struct Signals {
    wake: UnixStream,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// Installs the handlers. The second SIGTERM or SIGINT ends the process from within the handler, whatever the
    /// owner thread is doing, with the code of "not now": nothing was handed over.
    pub(crate) fn install() -> Result<Signals, Failure> {
        let install = || {
            let (wake, raised) = UnixStream::pair()?;
            wake.set_nonblocking(true)?;
            let (stop, reload) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            for signal in [SIGTERM, SIGINT] {
                // The order counts: the first signal finds the flag unset, and sets it.
                flag::register_conditional_shutdown(signal, Kind::NotNow.exit_code().into(), Arc::clone(&stop))?;
                flag::register(signal, Arc::clone(&stop))?;
                pipe::register(signal, raised.try_clone()?)?;
            }
            flag::register(SIGHUP, Arc::clone(&reload))?;
            pipe::register(SIGHUP, raised)?;
            Ok(Signals { wake, stop, reload })
        };
        install().map_err(|e: std::io::Error| {
            Failure::new(Kind::Io, format_args!("signal handlers cannot be installed: {e}"))
        })
    }

    /// Empties the descriptor.
    pub(crate) fn drain(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(n) if n > 0) {}
    }

    /// Whether the daemon shall stop.
    pub(crate) fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether it shall read its configuration again; true once for each time.
    pub(crate) fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
