//! One descriptor for a caller's event loop: readable when the daemon has said something, when the lease deadline has
//! passed, or when it is time to connect again. It stays the same over reconnects.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// What the waker looks at: number of the connection, whether it has bytes to send, the next point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) connection: u64,
    pub(crate) writable: bool,
    pub(crate) timer_ns: Option<u64>,
}

/// An epoll instance over the connection and a timer of CLOCK_BOOTTIME, which goes on while the machine sleeps.
#[derive(Debug)]
pub(crate) struct Waker {
    epoll: Epoll,
    timer: TimerFd,
    now: Cell<Interest>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Waker { epoll, timer, now: Cell::default() })
    }

    /// Looks at this from now on. A connection that was closed has left the set by itself.
    pub(crate) fn watch(&self, connection: Option<BorrowedFd<'_>>, interest: Interest) -> io::Result<()> {
        let now = self.now.get();
        if let Some(fd) = connection {
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, interest.writable);
            let mut event = EpollEvent::new(flags, 1);
            if interest.connection != now.connection {
                self.epoll.add(fd, event)?;
            } else if interest.writable != now.writable {
                self.epoll.modify(fd, &mut event)?;
            }
        }
        if interest.timer_ns != now.timer_ns {
            match interest.timer_ns {
                Some(ns) => {
                    // Zero would disarm the timer.
                    let at = TimeSpec::from_duration(Duration::from_nanos(ns.max(1)));
                    self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
                }
                None => self.timer.unset()?,
            }
        }
        self.now.set(interest);
        Ok(())
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
