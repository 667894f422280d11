//! A daemon on a lockstate of its own: what it makes, whom it serves, and how it ends. The cluster is tested in
//! `tests/e2e`.

use mxlock_format::{Mode, QualifiedName, Resource};
use mxlock_proto::client::{
    AdminReply, AdminRequest, Answer, Hello, LockRequest, Refusal, Request, Response, UnlockRequest,
};
use mxlock_proto::frame::{FrameReader, MAX_HELLO_FRAME, encode_into};
use mxlock_proto::{LockFlags, client::Welcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

struct Daemon {
    dir: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    /// A daemon that renews often, so that it is soon there, and whose lease outlives any pause of a busy machine. It may
    /// be still claiming its slot.
    fn start(more: &[&str]) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let timing = ["--renew-ms", "100", "--lease-ms", "20000", "--grace-ms", "100", "--dead-ms", "21300"];
        let made = Command::new(env!("CARGO_BIN_EXE_mxlockd"))
            .arg("format")
            .arg(dir.path().join("lockstate"))
            .args(["--slots", "4096"])
            .args(timing)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_mxlockd"))
            .arg("--lockstate")
            .arg(dir.path().join("lockstate"))
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .arg("--socket")
            .arg(dir.path().join("run/sock"))
            .args(["--listen", "127.0.0.1:0"])
            .args(more)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("MXLOCK_LOG")
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Daemon { dir, child }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Waits until the log has a line with `what`; returns it.
    fn logged(&self, what: &str) -> String {
        wait_for(|| self.log().lines().find(|line| line.contains(what)).map(str::to_owned))
            .unwrap_or_else(|| panic!("{what:?} is not in the log:\n{}", self.log()))
    }

    fn connect(&self) -> Client {
        let stream = wait_for(|| UnixStream::connect(self.path("run/sock")).ok()).expect("the socket");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, reader: FrameReader::new(MAX_HELLO_FRAME) }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn end(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer.
fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask() {
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            answer => return answer,
        }
    }
}

struct Client {
    stream: UnixStream,
    reader: FrameReader,
}

impl Client {
    fn send(&mut self, request: &Request) {
        let mut frame = Vec::new();
        encode_into(request, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    /// The next response; `None` at the end of the stream.
    fn receive(&mut self) -> Option<Response> {
        loop {
            if let Some(response) = self.reader.next_frame().unwrap() {
                return Some(response);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.reader.extend(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                // A ring that this thread had (`probe_uring`) may still have work for it when it is closed.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    fn hello(&mut self, on_behalf_of: Option<u32>) -> Result<Welcome, Refusal> {
        self.send(&Request::Hello(Hello { on_behalf_of, ..Hello::first() }));
        match self.receive() {
            Some(Response::Welcome(welcome)) => Ok(welcome),
            Some(Response::Refused(refusal)) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    fn lock(&mut self, seq: u64, name: &str) -> Answer {
        self.send(&Request::Lock(LockRequest {
            seq,
            resource: Resource::named(QualifiedName::new(b"", name.as_bytes()).unwrap()),
            mode: Mode::EX,
            flags: LockFlags::NONE,
            range: None,
            timeout_ms: None,
            transaction: 0,
            orphan_lifetime_ms: None,
        }));
        self.answer(seq)
    }

    fn unlock(&mut self, seq: u64) -> Answer {
        self.send(&Request::Unlock(UnlockRequest { seq, lvb: None, invalidate_lvb: false }));
        self.answer(seq)
    }

    fn answer(&mut self, wanted: u64) -> Answer {
        loop {
            match self.receive() {
                Some(Response::Answer { seq, answer, .. }) if seq == wanted => return answer,
                Some(_) => {}
                None => panic!("the daemon closed the connection"),
            }
        }
    }
}

fn mode_of(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn grants_release_and_ends_well(io: &str) {
    let daemon = Daemon::start(&["--io", io]);
    let mut client = daemon.connect();
    client.hello(None).unwrap();
    assert!(matches!(client.lock(1, "a"), Answer::Granted(_)));
    assert_eq!(client.unlock(1), Answer::Unlocked);
    daemon.logged("is ours");
    let (socket, lockstate, identity) =
        (daemon.path("run/sock"), daemon.path("lockstate"), daemon.path("state/identity.toml"));
    assert!(matches!(mode_of(&socket), 0o600 | 0o660));
    assert_eq!((mode_of(&lockstate), mode_of(&identity), mode_of(&daemon.path("state"))), (0o600, 0o600, 0o700));
    assert!(wait_for(|| std::fs::read_to_string(&identity).ok().filter(|text| text.contains("slot = 0"))).is_some());

    client.send(&Request::Admin { id: 5, request: AdminRequest::Status });
    let status = loop {
        match client.receive() {
            Some(Response::Admin { id: 5, reply: AdminReply::Status(status) }) => break status,
            Some(_) => {}
            None => panic!("closed"),
        }
    };
    assert_eq!((status.io.as_str(), status.protection.as_str()), (io, "advisory"));
    let dir = daemon.dir.path().to_owned();
    assert!(daemon.end().success());
    assert!(!dir.join("run/sock").exists());
}

#[test]
fn serves_and_ends_well_with_io_uring() {
    if mxlock_disklock::io::probe_uring().is_err() {
        eprintln!("skipped: this machine forbids io_uring");
        return;
    }
    grants_release_and_ends_well("uring");
}

#[test]
fn serves_and_ends_well_without_io_uring() {
    grants_release_and_ends_well("pwrite");
}

/// Issue 2, "Bad input": garbage on the client and the peer port, an oversized frame: a clear error, and the daemon goes
/// on serving others.
#[test]
fn garbage_is_refused_and_others_are_served() {
    let daemon = Daemon::start(&[]);
    let mut good = daemon.connect();
    good.hello(None).unwrap();
    for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0, 0, 0, 0], &[5, 0, 0, 0, 9], &[3, 0, 0, 0, 1, 255, 255]] {
        let mut client = daemon.connect();
        client.stream.write_all(garbage).unwrap();
        assert_eq!(client.receive(), Some(Response::Refused(Refusal::BadFrame)), "{garbage:?}");
        assert_eq!(client.receive(), None);
    }
    daemon.logged("above the limit");

    let listening = daemon.logged("peers at ");
    let address = listening.rsplit("peers at ").next().unwrap().trim().to_owned();
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(matches!(peer.read(&mut [0; 100]), Ok(0) | Err(_)));
    daemon.logged("not mxlockd");
    assert!(matches!(good.lock(1, "a"), Answer::Granted(_)));
}

/// Issue 2: "a client that never reads". It is closed once more than 1 MiB of answers wait for it and it asks on.
#[test]
fn a_client_that_never_reads_is_closed() {
    let daemon = Daemon::start(&[]);
    let mut good = daemon.connect();
    good.hello(None).unwrap();
    let mut greedy = daemon.connect();
    greedy.hello(None).unwrap();
    let mut frames = Vec::new();
    for id in 0..64 {
        encode_into(&Request::Admin { id, request: AdminRequest::Status }, &mut frames).unwrap();
    }
    greedy.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut written = 0_usize;
    while greedy.stream.write_all(&frames).is_ok() {
        written += frames.len();
        assert!(written < 1 << 28, "it was never closed");
    }
    daemon.logged("has not read");
    assert!(matches!(good.lock(1, "a"), Answer::Granted(_)));
}

/// A client that says its last words and closes without reading an answer has released what it released.
#[test]
fn last_words_count_though_nobody_reads_the_answers() {
    let daemon = Daemon::start(&[]);
    let mut hasty = daemon.connect();
    hasty.hello(None).unwrap();
    let names: Vec<_> = (1..=200).map(|seq| (seq, format!("hasty-{seq}"))).collect();
    for (seq, name) in &names {
        assert!(matches!(hasty.lock(*seq, name), Answer::Granted(_)));
    }
    let mut frames = Vec::new();
    for (seq, _) in &names {
        let unlock = UnlockRequest { seq: *seq, lvb: None, invalidate_lvb: false };
        encode_into(&Request::Unlock(unlock), &mut frames).unwrap();
    }
    // In pieces, so that answers come back while it still talks.
    for piece in frames.chunks(64) {
        hasty.stream.write_all(piece).unwrap();
    }
    drop(hasty);
    let mut next = daemon.connect();
    next.hello(None).unwrap();
    for (seq, name) in &names {
        let answer = next.lock(*seq, name);
        assert!(matches!(answer, Answer::Granted(_)), "{name}: {answer:?}\n{}", daemon.log());
    }
}

/// INTERFACE.md, `mxlock lock --pid`: for a process that exists.
#[test]
fn a_session_for_another_process_needs_one() {
    let daemon = Daemon::start(&[]);
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    assert!(daemon.connect().hello(Some(child.id())).is_ok());
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(daemon.connect().hello(Some(child.id())).unwrap_err(), Refusal::NoSuchProcess);
}

#[test]
fn the_log_filter_is_read_again_on_sighup() {
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "log = \"info\"\n").unwrap();
    let daemon = Daemon::start(&["--config", config.path().to_str().unwrap()]);
    daemon.logged("is ours");
    std::fs::write(config.path(), "log = \"info\"\nnode = 7\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.logged("only the log filter changes");
    std::fs::write(config.path(), "no_such_key = 1\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.logged("unknown field `no_such_key`");
    std::fs::write(config.path(), "log = \"off\"\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    assert!(daemon.end().success());
}

/// A second daemon on the same host takes another slot; with `--node` it says who has it (75).
#[test]
fn a_busy_slot_is_said() {
    let daemon = Daemon::start(&[]);
    daemon.logged("is ours");
    let dir = tempfile::tempdir().unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_mxlockd"))
        .arg("--lockstate")
        .arg(daemon.path("lockstate"))
        .arg("--state-dir")
        .arg(dir.path())
        .arg("--socket")
        .arg(dir.path().join("sock"))
        .args(["--listen", "127.0.0.1:0", "--node", "0"])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(75), "{}", String::from_utf8_lossy(&second.stderr));
    assert!(String::from_utf8_lossy(&second.stderr).contains("mxlockd: "));
}

/// INTERFACE.md: `--create` "is accepted only for a plain file on a file system that other hosts cannot share".
#[test]
fn create_makes_a_lockstate_for_this_host_alone() {
    let dir = tempfile::tempdir().unwrap();
    let lockstate = dir.path().join("lockstate");
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_mxlockd"))
        .arg("--lockstate")
        .arg(&lockstate)
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .arg("--socket")
        .arg(dir.path().join("sock"))
        .args(["--listen", "127.0.0.1:0", "--create"])
        .stderr(log)
        .spawn()
        .unwrap();
    let daemon = Daemon { dir, child };
    daemon.logged("this host only");
    assert_eq!(mode_of(&lockstate), 0o600);
    daemon.logged("claimed slot 0");
    assert!(daemon.end().success(), "SIGTERM while the slot is being claimed is a clean end");
}
