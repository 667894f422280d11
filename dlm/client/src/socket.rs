//! One connection: bytes and descriptors in, bytes out, never blocking.
#![allow(unsafe_code)]

use mxlock_proto::client::Request;
use mxlock_proto::frame::{self, FrameError, FrameReader};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, send,
};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Bytes; perhaps there are more.
    Bytes,
    /// Nothing more for now.
    Nothing,
    /// The end.
    End,
}

/// A connection to a daemon.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    pub(crate) reader: FrameReader,
    outgoing: Vec<u8>,
    sent: usize,
    /// The last read did not fill its buffer: there is nothing more to read.
    drained: bool,
    /// Writing has failed; what the daemon said before is still read.
    deaf: bool,
    /// The descriptor that came last.
    pub(crate) page: Option<OwnedFd>,
}

impl Connection {
    /// Connects without waiting: EAGAIN when the daemon does not keep up with accepting.
    pub(crate) fn open(path: &Path, max_frame: usize) -> io::Result<Connection> {
        let address = UnixAddr::new(path)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        socket::connect(socket.as_raw_fd(), &address)?;
        let reader = FrameReader::new(max_frame);
        Ok(Connection { socket, reader, outgoing: Vec::new(), sent: 0, drained: false, deaf: false, page: None })
    }

    /// Adds a request to what is to be sent.
    pub(crate) fn push(&mut self, request: &Request) -> Result<(), FrameError> {
        if self.deaf {
            return Ok(());
        }
        frame::encode_into(request, &mut self.outgoing)
    }

    /// Bytes that wait to be sent.
    pub(crate) fn unsent(&self) -> usize {
        self.outgoing.len() - self.sent
    }

    /// Sends what the socket takes. A failure is found by the next read, after what the daemon has said before.
    pub(crate) fn flush(&mut self) {
        while self.unsent() > 0 {
            match send(self.socket.as_raw_fd(), &self.outgoing[self.sent..], MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => {
                    self.deaf = true;
                    break;
                }
            }
        }
        self.outgoing.clear();
        self.outgoing.shrink_to(64 << 10);
        self.sent = 0;
    }

    /// Sends all, waiting up to `limit` for the daemon to take it in: many small requests fill a socket long before they
    /// fill its buffer.
    pub(crate) fn finish(&mut self, limit: Duration) {
        let until = Instant::now() + limit;
        loop {
            self.flush();
            let left = until.saturating_duration_since(Instant::now());
            if self.unsent() == 0 || left.is_zero() {
                return;
            }
            let timeout = PollTimeout::try_from(left.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
            // EINTR: round again.
            let _ = poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)], timeout);
        }
    }

    /// There may be something to read again.
    pub(crate) fn wake(&mut self) {
        self.drained = false;
    }

    /// Reads once into the frame reader; with `descriptors`, keeps one that came along.
    pub(crate) fn receive(&mut self, descriptors: bool) -> io::Result<Received> {
        if self.drained {
            return Ok(Received::Nothing);
        }
        let room = self.reader.spare_mut();
        let size = room.len();
        let (result, page) = if descriptors {
            receive_with_descriptors(self.socket.as_raw_fd(), room)
        } else {
            // Without room for them the kernel closes descriptors that nobody asked for.
            (socket::recv(self.socket.as_raw_fd(), room, MsgFlags::empty()), None)
        };
        if page.is_some() {
            self.page = page;
        }
        match result {
            Ok(0) => Ok(Received::End),
            Ok(count) => {
                self.reader.filled(count);
                // Reads that carry descriptors end early.
                self.drained = count < size && !descriptors;
                Ok(Received::Bytes)
            }
            Err(Errno::EAGAIN) => {
                self.drained = true;
                Ok(Received::Nothing)
            }
            Err(Errno::EINTR) => Ok(Received::Bytes),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One `recvmsg`; the last descriptor that it brought, all others closed.
fn receive_with_descriptors(socket: RawFd, room: &mut [u8]) -> (nix::Result<usize>, Option<OwnedFd>) {
    // As many as the kernel passes at once (SCM_MAX_FD), so that none can come in without being closed here.
    let mut control = cmsg_space!([RawFd; 253]);
    let mut parts = [IoSliceMut::new(room)];
    let message = match recvmsg::<()>(socket, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
        Ok(message) => message,
        Err(error) => return (Err(error), None),
    };
    let mut page = None;
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            for raw in descriptors {
                // SAFETY: the kernel has just made this descriptor for this process and nothing else knows it.
                page = Some(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
    }
    (Ok(message.bytes), page)
}
