//! `mxlock` against a daemon that does exactly what a test tells it.

#[path = "../../dlm/client/tests/fake/mod.rs"]
mod fake;

use fake::{Conn, Fake, LONG_NS, PATIENCE, Page};
use mxlock_client::{Mode, boottime_ns};
use mxlock_proto::client::{AdminReply, AdminRequest, Denial, FailureKind, Request, Response};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `mxlock` with these arguments, speaking to the fake daemon.
fn mxlock(fake: &Fake, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mxlock"));
    command.arg("--socket").arg(fake.options().socket.unwrap()).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The greeting of a new session.
fn greet(fake: &Fake) -> Conn {
    let mut conn = fake.accept();
    assert_eq!(conn.hello().resume, None);
    conn.welcome(&fake.page, 7, &[]);
    conn
}

/// The exit code, stdout and stderr of a program that has ended or is about to.
fn end(mut child: Child) -> (i32, String, String) {
    let text = |pipe: Option<Box<dyn Read + Send>>| {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = pipe.map(|mut pipe| pipe.read_to_string(&mut text));
            sender.send(text)
        });
        receiver
    };
    let out = text(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let err = text(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let out = out.recv_timeout(PATIENCE);
    let err = err.recv_timeout(PATIENCE);
    if out.is_err() || err.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().unwrap();
    let (out, err) = (out.expect("somebody keeps stdout open"), err.expect("somebody keeps stderr open"));
    (status.code().unwrap_or_else(|| panic!("{status}: {err}")), out, err)
}

/// Runs `mxlock run` with `options`, a lock and a shell script, with a daemon that grants and then takes the release.
fn run_script(options: &[&str], script: &str) -> (i32, String, String) {
    let fake = Fake::new();
    let arguments = [&["run"], options, &["name", "--", "sh", "-c", script]].concat();
    let child = mxlock(&fake, &arguments).spawn().unwrap();
    let mut conn = greet(&fake);
    let seq = conn.grant_next(Mode::EX);
    assert_eq!(conn.unlock_next(), seq);
    end(child)
}

/// Whether a process runs: it is there, and no zombie.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Reads a line of a program's stdout.
fn line(out: &mut impl BufRead) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// INTERFACE.md: COMMAND's status is passed through, 128+n for a signal.
#[test]
fn the_status_of_command_is_passed_through() {
    assert_eq!(run_script(&[], "exit 0").0, 0);
    assert_eq!(run_script(&[], "exit 7"), (7, String::new(), String::new()));
    assert_eq!(run_script(&[], "kill -TERM $$").0, 128 + 15);
}

#[test]
fn command_sees_token_and_names() {
    let fake = Fake::new();
    let script = "printf '%s %s' \"$MXLOCK_TOKEN\" \"$MXLOCK_NAMES\"";
    let child = mxlock(&fake, &["run", "b:c", "a", "--", "sh", "-c", script]).spawn().unwrap();
    let mut conn = greet(&fake);
    let seqs = [conn.grant_next(Mode::EX), conn.grant_next(Mode::EX)];
    assert_eq!([conn.unlock_next(), conn.unlock_next()], seqs);
    let (code, out, _) = end(child);
    assert_eq!(code, 0);
    // The fake daemon's tokens are 100 + seq; the names stand in the order in which they were taken.
    assert!([r"102 a:b\:c", r"102 b\:c:a"].contains(&out.as_str()), "{out}");
}

/// INTERFACE.md: `-E` is the code when the lock is not granted, 1 without it; `-n` and `-w` reach the daemon.
#[test]
fn a_lock_that_is_not_granted() {
    for (options, timeout_ms, code) in
        [(&["-n"][..], Some(0), 1), (&["-w", "1.5", "-E", "99"], Some(1_500), 99), (&["-E", "3"], None, 3)]
    {
        let fake = Fake::new();
        let arguments = [&["run"], options, &["name", "--", "true"]].concat();
        let child = mxlock(&fake, &arguments).spawn().unwrap();
        let mut conn = greet(&fake);
        let Request::Lock(lock) = conn.next() else { panic!("not a lock request") };
        assert!(lock.timeout_ms <= timeout_ms && lock.timeout_ms.is_some() == timeout_ms.is_some(), "{lock:?}");
        conn.deny(lock.seq, 0, Denial::Busy);
        let (found, _, err) = end(child);
        assert_eq!(found, code);
        assert_eq!(err, "mxlock: 'name': it is held in a conflicting mode\n");
    }
}

/// INTERFACE.md: 126/127 as in env(1), and the locks are released.
#[test]
fn a_command_that_cannot_be_executed() {
    for (command, code) in [("/nonexistent/command", 127), ("/etc/passwd", 126)] {
        let fake = Fake::new();
        let child = mxlock(&fake, &["run", "name", "--", command]).spawn().unwrap();
        let mut conn = greet(&fake);
        let seq = conn.grant_next(Mode::EX);
        let Request::Unlock(unlock) = conn.next() else { panic!("not an unlock") };
        assert_eq!(unlock.seq, seq);
        let (found, _, err) = end(child);
        assert_eq!(found, code, "{err}");
        assert!(err.starts_with(&format!("mxlock: cannot execute '{command}': ")), "{err}");
    }
}

/// INTERFACE.md: `granted`, `not-granted`, `lost` or `exit N` on the status descriptor; COMMAND does not inherit it.
#[test]
fn the_status_descriptor_tells_what_happened() {
    let fake = Fake::new();
    let socket = fake.options().socket.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let script = format!(
        "exec {} -S {} run --status-fd 3 name -- sh -c 'test -e /proc/self/fd/3 && exit 99; exit 5' 3>{}",
        env!("CARGO_BIN_EXE_mxlock"),
        socket.display(),
        file.path().display()
    );
    let child = Command::new("sh").args(["-c", &script]).stderr(Stdio::piped()).spawn().unwrap();
    let mut conn = greet(&fake);
    conn.grant_next(Mode::EX);
    conn.unlock_next();
    assert_eq!(end(child).0, 5);
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "granted\nexit 5\n");
}

/// What a lost lock must end: a command that ignores SIGTERM, with a descendant in a session of its own.
const STUBBORN: &str =
    "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & echo $$; wait";

/// Section 5: without the daemon the locks are lost at the deadline that the lease page shows, and what depends on them
/// has ended by deadline + grace, however it is hidden.
#[test]
fn command_and_descendants_end_within_the_grace_time_of_the_deadline() {
    let fake = Fake::new();
    fake.page.write(4, 800);
    let mut child = mxlock(&fake, &["run", "name", "--", "sh", "-c", STUBBORN]).spawn().unwrap();
    let mut conn = greet(&fake);
    conn.grant_next(Mode::EX);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let pids = [line(&mut out), line(&mut out)];
    assert!(pids.iter().all(|pid| runs(pid)), "{pids:?}");
    // The daemon is gone; its last word was a lease that ends soon.
    let deadline = Instant::now() + Duration::from_millis(300);
    fake.page.set_deadline(boottime_ns() + 300_000_000);
    drop(conn);
    let (code, _, err) = end(child);
    assert_eq!(code, 75, "{err}");
    assert!(Instant::now() >= deadline, "not before the deadline");
    // Far from never; that it aims at the grace time is tested where it is computed (`kill_time`).
    assert!(Instant::now() < deadline + PATIENCE, "within the grace time");
    assert!(pids.iter().all(|pid| !runs(pid)), "{pids:?} survived");
    assert!(err.contains("ending COMMAND") && err.contains("COMMAND is gone\n"), "{err}");
}

/// Section 5: the daemon says that the lease is lost; a command that listens to SIGTERM is not killed.
#[test]
fn a_lost_lease_is_a_sigterm_first() {
    let fake = Fake::new();
    let script = "trap 'echo ended; exit 0' TERM; echo started; while :; do sleep 0.05; done";
    let mut child = mxlock(&fake, &["run", "name", "--", "sh", "-c", script]).spawn().unwrap();
    let mut conn = greet(&fake);
    conn.grant_next(Mode::EX);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut out), "started");
    fake.page.set_deadline(0);
    conn.send(&Response::LeaseLost);
    assert_eq!(line(&mut out), "ended");
    let (code, _, err) = end(child);
    assert_eq!(code, 75);
    assert!(err.starts_with("mxlock: "), "{err}");
}

/// `--on-bast`: COMMAND, and it alone, hears that somebody waits.
#[test]
fn a_blocking_notice_becomes_a_signal() {
    let fake = Fake::new();
    let script = "trap 'echo noticed; exit 4' USR1; echo started; while :; do sleep 0.05; done";
    let mut child = mxlock(&fake, &["run", "--on-bast", "USR1", "name", "--", "sh", "-c", script]).spawn().unwrap();
    let mut conn = greet(&fake);
    let seq = conn.grant_next(Mode::EX);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut out), "started");
    conn.send(&Response::Bast { seq, wanted: Mode::PR });
    assert_eq!(line(&mut out), "noticed");
    conn.unlock_next();
    assert_eq!(end(child).0, 4);
}

/// Signals for mxlock are meant for COMMAND: it decides how it ends.
#[test]
fn sigterm_is_passed_on() {
    let fake = Fake::new();
    let script = "trap 'exit 6' TERM; echo started; while :; do sleep 0.05; done";
    let mut child = mxlock(&fake, &["run", "name", "--", "sh", "-c", script]).spawn().unwrap();
    let mut conn = greet(&fake);
    conn.grant_next(Mode::EX);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut out), "started");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    conn.unlock_next();
    assert_eq!(end(child).0, 6);
}

/// Who kills mxlock kills COMMAND: it must not go on without its locks.
#[test]
fn command_does_not_outlive_mxlock() {
    let fake = Fake::new();
    let script = "trap '' TERM HUP INT; echo $$; while :; do sleep 0.05; done";
    let mut child = mxlock(&fake, &["run", "name", "--", "sh", "-c", script]).spawn().unwrap();
    let mut conn = greet(&fake);
    conn.grant_next(Mode::EX);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let pid = line(&mut out);
    assert!(runs(&pid));
    child.kill().unwrap();
    child.wait().unwrap();
    let started = Instant::now();
    while runs(&pid) {
        if started.elapsed() > PATIENCE {
            let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
            panic!("COMMAND goes on");
        }
        std::thread::yield_now();
    }
}

/// A daemon that restarts before the deadline takes nothing away: mxlock claims its locks, COMMAND goes on.
#[test]
fn a_restarted_daemon_gets_the_session_back() {
    let mut fake = Fake::new();
    let mut child = mxlock(&fake, &["run", "name", "--", "sh", "-c", "echo started; read -r line; exit 8"]);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    let mut conn = greet(&fake);
    let seq = conn.grant_next(Mode::EX);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut out), "started");
    drop(conn);
    fake.start(Page::new(2, LONG_NS));
    let mut conn = fake.accept();
    let hello = conn.hello();
    assert_eq!(hello.resume.map(|session| session.0), Some(7));
    assert_eq!(hello.claims.iter().map(|claim| claim.seq).collect::<Vec<_>>(), [seq]);
    conn.welcome(&fake.page, 7, &[]);
    drop(child.stdin.take());
    assert_eq!(conn.unlock_next(), seq);
    assert_eq!(end(child).0, 8);
}

/// A daemon that does not answer the release keeps nobody waiting for long: the session ends with the process.
#[test]
fn an_unanswered_release_is_not_waited_for_long() {
    let fake = Fake::new();
    let started = Instant::now();
    let child = mxlock(&fake, &["run", "name", "--", "true"]).spawn().unwrap();
    let mut conn = greet(&fake);
    conn.grant_next(Mode::EX);
    let Request::Unlock(_) = conn.next() else { panic!("not an unlock") };
    assert_eq!(conn.next(), Request::Bye);
    conn.end();
    assert_eq!(end(child).0, 0);
    assert!(started.elapsed() < PATIENCE);
}

/// Section 2: a grant that the lease does not cover any more when it arrives starts no command.
#[test]
fn a_lock_that_is_lost_before_command_starts() {
    let fake = Fake::new();
    let child = mxlock(&fake, &["run", "a", "b", "--", "sh", "-c", "echo ran"]).spawn().unwrap();
    let mut conn = greet(&fake);
    conn.grant_next(Mode::EX);
    let Request::Lock(lock) = conn.next() else { panic!("not a lock request") };
    fake.page.set_deadline(1);
    conn.grant(lock.seq, 0, Mode::EX);
    let (code, out, err) = end(child);
    assert_eq!((code, out.as_str()), (75, ""), "{err}");
}

/// `mxlock lock`: the session is another process's, and stays when mxlock ends: no `Bye`.
#[test]
fn lock_leaves_its_session_to_the_caller() {
    let fake = Fake::new();
    let child = mxlock(&fake, &["lock", "name"]).spawn().unwrap();
    let mut conn = fake.accept();
    assert_eq!(conn.hello().on_behalf_of, Some(std::process::id()));
    conn.welcome(&fake.page, 7, &[]);
    conn.grant_next(Mode::EX);
    conn.end();
    let (code, out, _) = end(child);
    assert_eq!(code, 0);
    assert_eq!(out, format!("granted EX on 'name' to process {}, token 101\n", std::process::id()));
}

/// One question to the daemon and its reply.
fn ask(arguments: &[&str], reply: AdminReply) -> (AdminRequest, (i32, String, String)) {
    let fake = Fake::new();
    let child = mxlock(&fake, arguments).spawn().unwrap();
    let mut conn = greet(&fake);
    let Request::Admin { id, request } = conn.next() else { panic!("not a question") };
    conn.send(&Response::Admin { id, reply });
    (request, end(child))
}

#[test]
fn orders_reach_the_daemon() {
    let (request, (code, out, _)) = ask(&["unlock", "name", "--pid", "42"], AdminReply::Ok);
    assert!(matches!(request, AdminRequest::UnlockFor { pid: 42, .. }), "{request:?}");
    assert_eq!((code, out.as_str()), (0, ""));
    let (request, (code, ..)) = ask(&["handover", "2"], AdminReply::Ok);
    assert!(matches!(request, AdminRequest::Handover { to: Some(node) } if node.get() == 2), "{request:?}");
    assert_eq!(code, 0);
    let (request, _) = ask(&["leave", "--release"], AdminReply::Ok);
    assert_eq!(request, AdminRequest::Leave { release: true });
    let (request, (_, out, _)) = ask(&["--json", "fence-ack", "3", "--yes"], AdminReply::Ok);
    assert!(matches!(request, AdminRequest::FenceAck { node } if node.get() == 3), "{request:?}");
    assert_eq!(out, "{\n  \"done\": true\n}\n");
    let (request, _) = ask(&["wait-ready", "-w", "2"], AdminReply::Ok);
    assert!(matches!(request, AdminRequest::WaitReady { timeout_ms: Some(1_000..=2_000) }), "{request:?}");
}

/// INTERFACE.md: leave refuses (75) while locks are held; 77 without permission; 1 when there is no such lock.
#[test]
fn refusals_have_their_exit_codes() {
    for (kind, expected) in
        [(FailureKind::NotFound, 1), (FailureKind::Usage, 64), (FailureKind::NotNow, 75), (FailureKind::Permission, 77)]
    {
        let reply = AdminReply::Failed { kind, message: "3 locks are held".to_owned() };
        let (_, (code, _, err)) = ask(&["leave"], reply);
        assert_eq!((code, err.as_str()), (expected, "mxlock: 3 locks are held\n"));
    }
}
