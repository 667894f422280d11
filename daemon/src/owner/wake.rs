//! Descriptors that only wake the owner thread: signals, other threads, ended processes, finished connects.
//!
//! They stand in one epoll set, which is itself one descriptor of the event loop: adding and removing one is one
//! system call, whichever loop runs.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// What a descriptor in the set is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wake {
    /// A signal came.
    Signal,
    /// The heartbeat thread has something to say.
    Beat,
    /// The process with this number in the watch list ended.
    Process(u32),
    /// The connect of this link ended.
    Connected(u32),
}

impl Wake {
    fn to_number(self) -> u64 {
        match self {
            Wake::Signal => 0,
            Wake::Beat => 1,
            Wake::Process(n) => 2 << 32 | u64::from(n),
            Wake::Connected(n) => 3 << 32 | u64::from(n),
        }
    }

    fn from_number(number: u64) -> Wake {
        let n = number as u32;
        match (number >> 32, n) {
            (0, 0) => Wake::Signal,
            (0, _) => Wake::Beat,
            (2, _) => Wake::Process(n),
            _ => Wake::Connected(n),
        }
    }
}

/// The set.
#[derive(Debug)]
pub(crate) struct WakeSet {
    epoll: Epoll,
}

impl WakeSet {
    pub(crate) fn new() -> io::Result<WakeSet> {
        Ok(WakeSet { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// Wakes whenever `fd` is readable.
    pub(crate) fn when_readable(&self, fd: impl AsFd, wake: Wake) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, wake.to_number()))?)
    }

    /// Wakes once, when `fd` is writable.
    pub(crate) fn once_writable(&self, fd: impl AsFd, wake: Wake) -> io::Result<()> {
        let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT;
        Ok(self.epoll.add(fd, EpollEvent::new(flags, wake.to_number()))?)
    }

    /// Takes `fd` out.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        // It is in the set, or closing it has removed it.
        let _ = self.epoll.delete(fd);
    }

    /// What has happened, without waiting.
    pub(crate) fn take(&self, wakes: &mut Vec<Wake>) {
        let mut events = [EpollEvent::empty(); 64];
        // More than 64 leave the set readable: the loop comes again at once.
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        wakes.extend(events[..count].iter().map(|event| Wake::from_number(event.data())));
    }
}

impl AsFd for WakeSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn numbers_name_what_they_came_from() {
        for wake in [Wake::Signal, Wake::Beat, Wake::Process(u32::MAX), Wake::Connected(0), Wake::Process(0)] {
            assert_eq!(Wake::from_number(wake.to_number()), wake);
        }
    }

    #[test]
    fn the_set_tells_who_woke_it() {
        let set = WakeSet::new().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        let (idle, _other) = UnixStream::pair().unwrap();
        set.when_readable(&far, Wake::Beat).unwrap();
        set.once_writable(&idle, Wake::Connected(7)).unwrap();
        let mut wakes = Vec::new();
        set.take(&mut wakes);
        assert_eq!(wakes, [Wake::Connected(7)]);
        near.write_all(b"x").unwrap();
        wakes.clear();
        set.take(&mut wakes);
        assert_eq!(wakes, [Wake::Beat]);
        set.remove(&far);
        wakes.clear();
        set.take(&mut wakes);
        assert_eq!(wakes, []);
    }
}
