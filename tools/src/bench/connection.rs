//! A session as the bench needs it: frames in and out without blocking, nothing else.

use crate::common::failure::{Code, Failure, without_os_code};
use mxlock_client::ConnectOptions;
use mxlock_proto::client::{AdminReply, AdminRequest, Hello, Request, Response};
use mxlock_proto::frame::{FrameError, FrameReader, MAX_HELLO_FRAME, encode_into};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longest wait for a welcome or a reply: a failover may be under way.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the daemon with its session.
pub(super) struct Connection {
    stream: UnixStream,
    reader: FrameReader,
    out: Vec<u8>,
    sent: usize,
}

/// The daemon has closed the connection, or speaks nonsense.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the connection was closed")]
    Closed,
    #[error("{}", without_os_code(.0))]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Failure {
        Failure::new(Code::Unreachable, format!("lost the daemon during the measurement: {broken}"))
    }
}

impl Connection {
    /// Connects and opens a session.
    ///
    /// # Errors
    /// [`Code::Unreachable`], [`Code::Permission`].
    pub(super) fn open(options: &ConnectOptions) -> Result<Connection, Failure> {
        let stream = connect(options)?;
        let setup = || -> io::Result<()> {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))
        };
        setup().map_err(Broken::Io)?;
        let mut connection = Connection { stream, reader: FrameReader::new(MAX_HELLO_FRAME), out: Vec::new(), sent: 0 };
        connection.push(&Request::Hello(Hello::first()));
        connection.flush()?;
        match connection.wait()? {
            Response::Welcome(_) => Ok(connection),
            Response::Refused(refusal) => {
                Err(Failure::new(Code::Unreachable, format!("the daemon refused a session ({refusal:?})")))
            }
            _ => Err(Failure::new(Code::Unreachable, "the daemon did not answer the greeting")),
        }
    }

    /// Asks and waits for the reply. Only before [`Connection::set_nonblocking`].
    pub(super) fn ask(&mut self, request: AdminRequest) -> Result<AdminReply, Failure> {
        self.push(&Request::Admin { id: 1, request });
        self.flush()?;
        loop {
            if let Response::Admin { reply, .. } = self.wait()? {
                return Ok(reply);
            }
        }
    }

    /// From now on reads and writes take what is there.
    pub(super) fn set_nonblocking(&mut self) -> Result<(), Failure> {
        Ok(self.stream.set_nonblocking(true).map_err(Broken::Io)?)
    }

    /// Adds a request to what is to be sent.
    pub(super) fn push(&mut self, request: &Request) {
        encode_into(request, &mut self.out).expect("the bench sends small frames");
    }

    /// Sends what the socket takes; says whether that was all.
    pub(super) fn flush(&mut self) -> Result<bool, Broken> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Reads once; what came is then taken with [`Connection::next`].
    pub(super) fn fill(&mut self) -> Result<(), Broken> {
        match self.stream.read(self.reader.spare_mut()) {
            Ok(0) => Err(Broken::Closed),
            Ok(count) => {
                self.reader.filled(count);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// The next message that has arrived.
    pub(super) fn next(&mut self) -> Result<Option<Response>, Broken> {
        Ok(self.reader.next_frame()?)
    }

    fn wait(&mut self) -> Result<Response, Broken> {
        loop {
            if let Some(response) = self.next()? {
                return Ok(response);
            }
            match self.stream.read(self.reader.spare_mut()) {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => self.reader.filled(count),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return Err(io::Error::new(ErrorKind::TimedOut, "no answer for 60 s").into());
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn connect(options: &ConnectOptions) -> Result<UnixStream, Failure> {
    let mut tried = Vec::new();
    for path in options.socket_candidates() {
        match UnixStream::connect(&path) {
            Ok(stream) => return Ok(stream),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                return Err(Failure::system("connect to", path.display(), &e));
            }
            Err(e) => tried.push(format!("{}: {}", path.display(), without_os_code(&e))),
        }
    }
    let sentence = format!("no daemon answers ({}): is mxlockd running?", tried.join("; "));
    Err(Failure::new(Code::Unreachable, sentence))
}
