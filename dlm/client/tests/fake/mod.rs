//! A daemon that does exactly what a test tells it, on a real unix socket with a real lease page.

#![allow(dead_code, unreachable_pub)]

use mxlock_client::{Client, ClientError, ConnectOptions, boottime_ns};
use mxlock_format::{Mode, NodeId, SessionId, Token};
use mxlock_proto::client::{Answer, Denial, Grant, Hello, LvbValue, Request, Response, Welcome};
use mxlock_proto::frame::{FrameReader, MAX_HELLO_FRAME, encode_into};
use mxlock_proto::page::{PAGE_BYTES, PAGE_MAGIC, PAGE_VERSION};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A lease that outlives every test.
pub const LONG_NS: u64 = 600_000_000_000;

pub struct Page {
    pub file: File,
}

impl Page {
    /// A sealed page whose lease runs for `lease_ns` from now.
    pub fn new(incarnation: u64, lease_ns: u64) -> Page {
        let page = Page::unsealed(PAGE_BYTES as u64);
        page.write(0, PAGE_MAGIC);
        page.write(1, PAGE_VERSION);
        page.write(3, incarnation);
        page.write(4, 3_000);
        page.set_deadline(boottime_ns() + lease_ns);
        fcntl(&page.file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)).unwrap();
        page
    }

    pub fn unsealed(bytes: u64) -> Page {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create("lease", flags).unwrap());
        file.set_len(bytes).unwrap();
        Page { file }
    }

    pub fn set_deadline(&self, boottime_ns: u64) {
        self.write(2, boottime_ns);
    }

    /// Ends the lease after this time; the end.
    pub fn end_in(&self, time: Duration) -> u64 {
        let deadline_ns = boottime_ns() + time.as_nanos() as u64;
        self.set_deadline(deadline_ns);
        deadline_ns
    }

    pub fn set_incarnation(&self, incarnation: u64) {
        self.write(3, incarnation);
    }

    pub fn write(&self, word: u64, value: u64) {
        self.file.write_all_at(&value.to_ne_bytes(), word * 8).unwrap();
    }
}

/// Whether there is something to read or to accept within `patience`.
pub fn readable(what: &impl AsFd, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        // Rounded up: an early end is not one.
        let left = until.saturating_duration_since(Instant::now()).as_millis() as i32;
        let timeout = if patience.is_zero() { 0 } else { left + 1 };
        let mut fds = [PollFd::new(what.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(timeout).unwrap()) {
            Err(Errno::EINTR) => {}
            found => return found.unwrap() == 1,
        }
    }
}

pub struct Fake {
    dir: TempDir,
    listener: Option<UnixListener>,
    pub page: Page,
}

impl Fake {
    pub fn new() -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let listener = Some(UnixListener::bind(dir.path().join("sock")).unwrap());
        Fake { dir, listener, page: Page::new(1, LONG_NS) }
    }

    pub fn options(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new("test");
        options.socket = Some(self.dir.path().join("sock"));
        options.connect_timeout = PATIENCE;
        options.answer_timeout = PATIENCE;
        options
    }

    /// The daemon ends: nobody listens any more.
    pub fn stop(&mut self) {
        self.listener = None;
    }

    /// A new daemon starts, with a page of its own.
    pub fn start(&mut self, page: Page) {
        self.listener = None;
        let path = self.dir.path().join("sock");
        let _ = std::fs::remove_file(&path);
        self.listener = Some(UnixListener::bind(path).unwrap());
        self.page = page;
    }

    pub fn accept(&self) -> Conn {
        let listener = self.listener.as_ref().expect("the daemon is running");
        assert!(readable(listener, PATIENCE), "the client did not connect");
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Conn { stream, reader: FrameReader::new(MAX_HELLO_FRAME) }
    }

    /// Connects a client while this daemon welcomes it as session `session`.
    pub fn client(&self, options: ConnectOptions, session: u64) -> (Client, Conn) {
        std::thread::scope(|scope| {
            let welcome = scope.spawn(|| {
                let mut conn = self.accept();
                let hello = conn.hello();
                assert_eq!((hello.resume, hello.claims.len()), (None, 0));
                conn.welcome(&self.page, session, &[]);
                conn
            });
            let client = Client::connect(options).unwrap();
            (client, welcome.join().unwrap())
        })
    }

    /// Connects a client while this daemon does something else; the client's error.
    pub fn refusal(&self, script: impl FnOnce(Conn) + Send) -> ClientError {
        let options = self.options();
        std::thread::scope(|scope| {
            scope.spawn(|| script(self.accept()));
            Client::connect(options).unwrap_err()
        })
    }
}

pub struct Conn {
    stream: UnixStream,
    reader: FrameReader,
}

impl Conn {
    fn receive(&mut self) -> Option<Request> {
        loop {
            if let Some(request) = self.reader.next_frame().unwrap() {
                return Some(request);
            }
            let count = match self.stream.read(self.reader.spare_mut()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("the client said nothing"),
            };
            if count == 0 {
                return None;
            }
            self.reader.filled(count);
        }
    }

    pub fn next(&mut self) -> Request {
        self.receive().expect("the client closed the connection")
    }

    pub fn end(&mut self) {
        assert_eq!(self.receive(), None);
    }

    pub fn hello(&mut self) -> Hello {
        match self.next() {
            Request::Hello(hello) => hello,
            other => panic!("not a hello: {other:?}"),
        }
    }

    pub fn send(&mut self, response: &Response) {
        let mut wire = Vec::new();
        encode_into(response, &mut wire).unwrap();
        self.send_raw(&wire);
    }

    pub fn send_raw(&mut self, wire: &[u8]) {
        self.stream.write_all(wire).unwrap();
    }

    pub fn welcome(&mut self, page: &Page, session: u64, lost: &[u64]) {
        self.send_with(&welcome(session, lost), Some(page));
    }

    pub fn send_with(&mut self, response: &Response, page: Option<&Page>) {
        let mut wire = Vec::new();
        encode_into(response, &mut wire).unwrap();
        let descriptors = page.map(|page| [page.file.as_raw_fd()]);
        let control = descriptors.as_ref().map(|d| ControlMessage::ScmRights(d));
        let parts = [IoSlice::new(&wire)];
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &parts, control.as_slice(), MsgFlags::empty(), None);
        assert_eq!(sent.unwrap(), wire.len());
    }

    pub fn answer(&mut self, seq: u64, op: u32, answer: Answer) {
        self.send(&Response::Answer { seq, op, answer });
    }

    pub fn grant(&mut self, seq: u64, op: u32, mode: Mode) {
        self.answer(seq, op, granted(mode, 100 + seq, boottime_ns() + LONG_NS));
    }

    pub fn deny(&mut self, seq: u64, op: u32, denial: Denial) {
        self.answer(seq, op, Answer::Denied(denial));
    }

    /// Takes the next request for a new lock and grants it; its number.
    pub fn grant_next(&mut self, mode: Mode) -> u64 {
        match self.next() {
            Request::Lock(lock) => {
                self.grant(lock.seq, 0, mode);
                lock.seq
            }
            other => panic!("not a lock request: {other:?}"),
        }
    }

    /// Takes the next unlock and confirms it; its number.
    pub fn unlock_next(&mut self) -> u64 {
        match self.next() {
            Request::Unlock(unlock) => {
                self.answer(unlock.seq, u32::MAX, Answer::Unlocked);
                unlock.seq
            }
            other => panic!("not an unlock: {other:?}"),
        }
    }
}

pub fn welcome(session: u64, lost: &[u64]) -> Response {
    Response::Welcome(Welcome {
        session: SessionId(session),
        node: NodeId::new(3).unwrap(),
        lost: lost.to_vec(),
        grace_ms: 3_000,
        daemon: "fake 1".into(),
    })
}

pub fn granted(mode: Mode, token: u64, valid_until_ns: u64) -> Answer {
    let lvb = (token == 200).then(|| LvbValue { bytes: b"value".to_vec(), valid: true });
    Answer::Granted(Grant { mode, token: Token(token), lvb, valid_until_ns })
}
