//! The thread that listens to mxlockd.

use super::book::Todo;
use super::{AGAIN_NS, Lockspace};
use crate::status;
use libc::c_int;
use mxlock_client::boottime_ns;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Starts it. Signals are the program's: the thread takes none.
pub(super) fn start(lockspace: Arc<Lockspace>) -> Result<JoinHandle<()>, Errno> {
    let events = {
        let state = lockspace.state();
        let client = state.client()?;
        let events = client.as_fd().map_err(|error| status::of_error(&error))?;
        events.try_clone_to_owned().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))?
    };
    let before = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?;
    let made = thread::Builder::new().name("dlm-keeper".into()).spawn(move || run(&lockspace, &events));
    before.thread_set_mask()?;
    made.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN)))
}

fn run(lockspace: &Lockspace, events: &OwnedFd) {
    let mut timeout = None;
    loop {
        let mut wanted = [events.as_fd(), lockspace.wake.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // Whatever it says, there is a look at everything.
        let _ = ppoll(&mut wanted, timeout, None);
        let mut state = lockspace.state();
        if state.closing {
            return;
        }
        let now_ns = boottime_ns();
        let Some(Ok(news)) = state.client.as_ref().map(|client| client.poll_events(Some(Duration::ZERO))) else {
            // The system is out of something: try again soon.
            timeout = Some(TimeSpec::from_duration(Duration::from_millis(100)));
            continue;
        };
        for event in news {
            if let Todo::Again(lkid) = state.book.take_in(event, now_ns) {
                state.again.push((now_ns + AGAIN_NS, lkid));
            }
        }
        let (due, later): (Vec<_>, Vec<_>) = state.again.drain(..).partition(|(at_ns, _)| *at_ns <= now_ns);
        state.again = later;
        for (_, lkid) in due {
            state.ask_again(lkid);
        }
        timeout = state
            .again
            .iter()
            .map(|(at_ns, _)| at_ns.saturating_sub(now_ns))
            .min()
            .map(|ns| TimeSpec::from_duration(Duration::from_nanos(ns.max(1))));
        let loss = state.book.loss.take();
        lockspace.announce(&mut state);
        drop(state);
        if let Some(loss) = loss {
            lockspace.on_loss.act(&lockspace.name, loss);
        }
    }
}

impl super::State {
    /// What could not be decided is asked for again, if the program still wants it.
    fn ask_again(&mut self, lkid: u32) {
        if let Some((seq, spec)) = self.book.unlock_again(lkid) {
            let submitted = self.client.as_ref().map(|client| client.submit_unlock_with(seq, &spec));
            if let Some(Err(error)) = submitted {
                self.book.ended(lkid, status::of_error(&error) as c_int);
            }
            return;
        }
        let waits = self.book.get(lkid).and_then(|lock| lock.operation.as_ref()).is_some_and(|o| o.number.is_none());
        if waits && self.ask(lkid).is_err() {
            self.book.refused(lkid, mxlock_client::Denial::SessionOver);
        }
    }
}
