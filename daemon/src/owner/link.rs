//! One TCP connection with another daemon.

use super::peers::LinkError;
use super::stream::Stream;
use super::wake::{Wake, WakeSet};
use mxlock_dlm::io::Input;
use mxlock_dlm::time::BootTime;
use mxlock_format::{Incarnation, NodeId};
use mxlock_proto::noise::{ChannelError, Established, PeerChannel, PeerHandshake, PeerHello};
use mxlock_proto::peer::PeerFrame;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, connect, send, setsockopt, socket, sockopt,
};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// How far a link is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The connect is under way.
    Connecting,
    /// Both sides prove that they know the key.
    Shaking(Box<PeerHandshake>),
    /// Frames go both ways.
    Up(Box<PeerChannel>),
    /// It only waits for the loop to let go of it.
    Dead,
}

/// A connection, dialled or accepted.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: Stream<TcpStream>,
    pub(crate) stage: Stage,
    pub(crate) address: SocketAddr,
    /// When it must stand; `None` when it does.
    pub(crate) deadline: Option<BootTime>,
    /// Whom it was dialled for.
    pub(crate) dialled: Option<NodeId>,
    /// Who is at the other end, once proven.
    pub(crate) peer: Option<(NodeId, Incarnation)>,
    /// Frames were pushed that are not sealed yet.
    dirty: bool,
}

impl Link {
    pub(crate) fn accepted(socket: TcpStream, address: SocketAddr, shaking: PeerHandshake, deadline: BootTime) -> Link {
        Link::new(socket, address, Stage::Shaking(Box::new(shaking)), deadline, None)
    }

    /// Begins to connect.
    pub(crate) fn dial(address: SocketAddr, node: NodeId, deadline: BootTime) -> io::Result<Link> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Stream, flags, None)?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(Link::new(TcpStream::from(fd), address, Stage::Connecting, deadline, Some(node)))
    }

    fn new(socket: TcpStream, address: SocketAddr, stage: Stage, deadline: BootTime, dialled: Option<NodeId>) -> Link {
        let stream = Stream::new(socket);
        Link { stream, stage, address, deadline: Some(deadline), dialled, peer: None, dirty: false }
    }

    /// Wakes when the connect has ended.
    pub(crate) fn wake_when_connected(&self, wakes: &WakeSet, number: u64) -> io::Result<()> {
        wakes.once_writable(&self.stream.socket, Wake::Connected(number as u32))
    }

    /// The connect has ended: how?
    pub(crate) fn finish_connect(&mut self) -> io::Result<()> {
        if let Some(error) = self.stream.socket.take_error()? {
            return Err(error);
        }
        self.stream.socket.peer_addr()?;
        // The event loop waits by itself; a ring would hand EAGAIN back.
        self.stream.socket.set_nonblocking(false)
    }

    /// No delay for small frames; unacknowledged data for 2R, or silence of an idle host, ends the connection.
    pub(crate) fn tune(&self, renew: Duration) {
        let socket = &self.stream.socket;
        let limit_ms = u32::try_from(renew.as_millis() * 2).unwrap_or(u32::MAX);
        let idle_s = u32::try_from(renew.as_secs()).unwrap_or(u32::MAX).max(1);
        let tuned = socket
            .set_nodelay(true)
            .and_then(|()| Ok(setsockopt(socket, sockopt::TcpUserTimeout, &limit_ms)?))
            .and_then(|()| Ok(setsockopt(socket, sockopt::KeepAlive, &true)?))
            .and_then(|()| Ok(setsockopt(socket, sockopt::TcpKeepIdle, &idle_s)?))
            .and_then(|()| Ok(setsockopt(socket, sockopt::TcpKeepInterval, &idle_s)?));
        if let Err(error) = tuned {
            tracing::debug!(address = %self.address, %error, "the link's timeouts cannot be set");
        }
    }

    /// Takes received bytes in: frames go to `inputs`. `Some` when the handshake has just ended; then call it again
    /// for what came behind.
    pub(crate) fn take_in(
        &mut self,
        bytes: &[u8],
        inputs: &mut VecDeque<Input>,
    ) -> Result<Option<PeerHello>, LinkError> {
        match &mut self.stage {
            Stage::Shaking(shaking) => {
                let Some(Established { channel, peer, .. }) = shaking.receive(bytes, &mut self.stream.out)? else {
                    return Ok(None);
                };
                self.stage = Stage::Up(Box::new(channel));
                self.peer = Some((peer.node, peer.incarnation));
                self.deadline = None;
                Ok(Some(peer))
            }
            Stage::Up(channel) => {
                let Some((node, _)) = self.peer else { return Ok(None) };
                channel.extend(bytes);
                while let Some(frame) = channel.next_frame()? {
                    inputs.push_back(Input::Peer { node, frame });
                }
                Ok(None)
            }
            Stage::Connecting | Stage::Dead => Ok(None),
        }
    }

    /// Adds a frame to what `seal` encrypts; true for the first one.
    pub(crate) fn push(&mut self, frame: &PeerFrame) -> Result<bool, ChannelError> {
        let Stage::Up(channel) = &mut self.stage else { return Ok(false) };
        channel.push(frame)?;
        Ok(!std::mem::replace(&mut self.dirty, true))
    }

    /// Encrypts what was pushed.
    pub(crate) fn seal(&mut self) -> Result<(), ChannelError> {
        let Stage::Up(channel) = &mut self.stage else { return Ok(()) };
        self.dirty = false;
        channel.seal(&mut self.stream.out)
    }

    /// Sends what the handshake had to say last, as far as the socket takes it at once.
    pub(crate) fn say_last_words(&mut self) {
        if !self.stream.is_sending() && !self.stream.out.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            // Nobody depends on it: it only words the error at the other end.
            let _ = send(self.stream.socket.as_raw_fd(), &self.stream.out, flags);
        }
    }

    /// Ends the connection.
    pub(crate) fn die(&mut self) {
        self.stage = Stage::Dead;
        self.deadline = None;
        self.stream.shut();
    }

    /// Whether it may be anybody.
    pub(crate) fn is_unproven(&self) -> bool {
        self.dialled.is_none() && matches!(self.stage, Stage::Shaking(_))
    }
}
