//! Telling the program what has happened: by its descriptor, to threads that wait, by calling its functions.

use super::book::Ticket;
use super::delivery::Completion;
use super::{Dispatcher, Lockspace, State};
use nix::errno::Errno;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;

impl Lockspace {
    /// Makes the descriptor readable, or not, and wakes those who wait.
    pub(super) fn announce(&self, state: &mut State) {
        let waiting = !state.book.queue.is_empty();
        if waiting != state.signalled {
            // Neither can fail: the counter is 0 or 1.
            let _ = if waiting { self.ready.write(1).map(|_| 0) } else { self.ready.read() };
            state.signalled = waiting;
        }
        self.changed.notify_all();
    }

    /// Waits for an operation. Who has no thread for dispatching, or is that thread, dispatches meanwhile.
    ///
    /// # Safety
    /// As [`Lockspace::dispatch`].
    pub(super) unsafe fn wait<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        ticket: Ticket,
        may_dispatch: bool,
    ) -> Result<Completion, Errno> {
        let me = thread::current().id();
        loop {
            let dispatches =
                may_dispatch && (!self.threaded || state.dispatcher.as_ref().is_some_and(|known| known.id == me));
            if dispatches && let Some(delivery) = state.book.queue.pop_front() {
                self.announce(&mut state);
                drop(state);
                // SAFETY: the caller's word.
                unsafe { delivery.deliver() };
                state = self.state();
                continue;
            }
            if let Some(completion) = state.book.done.remove(&ticket) {
                return Ok(completion);
            }
            if state.closing {
                return Err(Errno::EBADF);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells the program all that waits to be told.
    ///
    /// # Safety
    /// Status blocks and functions that this lockspace was given are still there.
    pub(crate) unsafe fn dispatch(&self) -> Result<(), Errno> {
        let mut state = self.ours()?;
        while let Some(delivery) = state.book.queue.pop_front() {
            self.announce(&mut state);
            drop(state);
            // SAFETY: the caller's word.
            unsafe { delivery.deliver() };
            state = self.state();
        }
        Ok(())
    }

    /// Starts the thread that dispatches; EEXIST when there is one.
    ///
    /// # Safety
    /// As [`Lockspace::dispatch`], from now on.
    pub(crate) unsafe fn start_dispatcher(self: &Arc<Lockspace>) -> Result<(), Errno> {
        let mut state = self.ours()?;
        if state.dispatcher.is_some() {
            return Err(Errno::EEXIST);
        }
        let lockspace = Arc::clone(self);
        let made = thread::Builder::new().name("dlm-dispatch".into()).spawn(move || {
            let mut state = lockspace.state();
            loop {
                if state.closing || state.dispatcher.as_ref().is_some_and(|dispatcher| dispatcher.stop) {
                    return;
                }
                if let Some(delivery) = state.book.queue.pop_front() {
                    lockspace.announce(&mut state);
                    drop(state);
                    // SAFETY: who started the thread has vouched for it.
                    unsafe { delivery.deliver() };
                    state = lockspace.state();
                } else {
                    state = lockspace.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        });
        let thread = made.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
        let id = thread.thread().id();
        state.dispatcher = Some(Dispatcher { thread: Some(thread), id, stop: false });
        Ok(())
    }
}
