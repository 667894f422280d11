//! A stream socket on the event loop: one receive and one send under way, everything else gathers in a buffer.

use super::token::Token;
use mxlock_disklock::io::EventLoop;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Buffers keep at most this much when they are empty.
const KEEP_BYTES: usize = 64 << 10;

/// A socket and its two directions.
#[derive(Debug)]
pub(crate) struct Stream<S> {
    pub(crate) socket: S,
    /// Bytes to be sent after what is under way.
    pub(crate) out: Vec<u8>,
    sending: bool,
    sent: usize,
    /// Bytes that the send under way has.
    in_send: usize,
    /// The buffer that the next send does not need.
    spare: Vec<u8>,
    receiving: bool,
    room: Vec<u8>,
    shut: bool,
}

impl<S: AsFd> Stream<S> {
    pub(crate) fn new(socket: S) -> Stream<S> {
        Stream {
            socket,
            out: Vec::new(),
            sending: false,
            sent: 0,
            in_send: 0,
            spare: Vec::new(),
            receiving: false,
            room: Vec::new(),
            shut: false,
        }
    }

    /// Starts a receive of up to `bytes`, unless one is under way or the stream was shut.
    pub(crate) fn receive(&mut self, io: &mut dyn EventLoop, token: Token, bytes: usize) {
        if self.receiving || self.shut {
            return;
        }
        let mut room = std::mem::take(&mut self.room);
        room.clear();
        if room.capacity() < bytes {
            room = Vec::with_capacity(bytes);
        }
        self.receiving = true;
        io.recv(self.socket.as_fd(), token.into(), room);
    }

    /// The receive ended; `room` is its buffer, to be used again.
    pub(crate) fn received(&mut self, room: Vec<u8>) {
        self.receiving = false;
        self.room = room;
    }

    /// Sends what has gathered, unless a send is under way.
    pub(crate) fn flush(&mut self, io: &mut dyn EventLoop, token: Token) {
        if self.sending || self.shut || self.out.is_empty() {
            return;
        }
        let bytes = std::mem::replace(&mut self.out, std::mem::take(&mut self.spare));
        self.sending = true;
        self.sent = 0;
        self.in_send = bytes.len();
        io.send(self.socket.as_fd(), token.into(), bytes, 0);
    }

    /// The send ended, perhaps with a part: then the rest is sent.
    pub(crate) fn sent(
        &mut self,
        io: &mut dyn EventLoop,
        token: Token,
        mut bytes: Vec<u8>,
        result: io::Result<usize>,
    ) -> io::Result<()> {
        self.sending = false;
        let failed = result.and_then(|count| match count {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        });
        self.sent += match failed {
            Ok(count) => count,
            Err(error) => {
                self.in_send = 0;
                return Err(error);
            }
        };
        if self.sent < bytes.len() && !self.shut {
            self.sending = true;
            io.send(self.socket.as_fd(), token.into(), bytes, self.sent);
            return Ok(());
        }
        self.in_send = 0;
        bytes.clear();
        bytes.shrink_to(KEEP_BYTES);
        self.spare = bytes;
        Ok(())
    }

    /// Bytes that the other end has not taken.
    pub(crate) fn backlog(&self) -> usize {
        self.out.len() + self.in_send - self.sent.min(self.in_send)
    }

    /// Whether a send is under way.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending
    }

    /// Ends both directions: what is under way ends soon, and nothing more is started.
    pub(crate) fn shut(&mut self) {
        self.shut = true;
        // Not connected any more, or never: then there is nothing to end.
        let _ = nix::sys::socket::shutdown(self.socket.as_fd().as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }

    /// Whether it was shut.
    pub(crate) fn is_shut(&self) -> bool {
        self.shut
    }

    /// Whether nothing is under way, so that the descriptor may be closed.
    pub(crate) fn is_idle(&self) -> bool {
        !self.sending && !self.receiving
    }
}
