//! The thread that takes in what the daemon says: it connects again, claims the locks and notices the end of the lease
//! while the program does something else.

use crate::shared::Shared;
use mxlock_client::ClientError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// Longest sleep: the clock of poll(2) stands still while the machine sleeps, that of the lease does not.
const LONGEST_NAP_MS: u16 = 1_000;

/// The running thread.
#[derive(Debug)]
pub(crate) struct Pump {
    thread: Option<JoinHandle<()>>,
    stop: Arc<EventFd>,
}

impl Pump {
    /// Starts it. It takes none of the program's signals.
    pub(crate) fn start(shared: Arc<Shared>) -> Result<Pump, ClientError> {
        let failed = |source: io::Error| ClientError::Io { what: "starting a thread to listen to mxlockd", source };
        let daemon = {
            let state = shared.state();
            let Some(client) = &state.client else { return Err(ClientError::Usage("the client is closed".into())) };
            client.as_fd()?.try_clone_to_owned().map_err(failed)?
        };
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|e| failed(e.into()))?;
        let stop = Arc::new(stop);
        let stopped = Arc::clone(&stop);
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(|e| failed(e.into()))?;
        let made = Builder::new().name("mxlock".into()).spawn(move || run(&shared, &daemon, &stopped));
        let restored = before.thread_set_mask();
        let thread = Some(made.map_err(failed)?);
        restored.map_err(|e| failed(e.into()))?;
        Ok(Pump { thread, stop })
    }

    /// Ends it and waits for it: it does nothing long, and never needs the interpreter.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, daemon: &OwnedFd, stop: &EventFd) {
    loop {
        let mut waited = [daemon.as_fd(), stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // An interrupted or failed poll is a short sleep: everything is looked at again.
        let _ = poll(&mut waited, PollTimeout::from(LONGEST_NAP_MS));
        if waited[1].any() == Some(true) || !shared.pump() {
            return;
        }
    }
}
