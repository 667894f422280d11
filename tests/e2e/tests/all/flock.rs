//! `mxflock` beside util-linux's flock(1), and what only `mxflock` can do: the same on two nodes.

use mxlock_e2e::command::{Said, clean, output, program};
use mxlock_e2e::wait::{PATIENCE, until, until_true};
use mxlock_e2e::{Cluster, Setup, shared};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// Scripts for bash(1), where `$FLOCK` is either program, and what both have to say on standard error (in any case; empty:
/// nothing).
const SIDE_BY_SIDE: &[(&str, &str)] = &[
    // The three forms.
    ("$FLOCK f echo a 'b c'", ""),
    ("$FLOCK f -c 'echo one; echo two >&2; exit 3'", "two"),
    ("$FLOCK . -c 'echo directory'", ""),
    ("( $FLOCK 9 && echo in; ) 9>f", ""),
    ("( $FLOCK -s 8 && echo in; ) 8<.", ""),
    ("SHELL=/bin/echo $FLOCK f -c word", ""),
    ("$FLOCK f --command 'echo long'", ""),
    ("$FLOCK new true; ls", ""),
    ("echo old > f; $FLOCK f cat f", ""),
    ("echo typed | $FLOCK f cat", ""),
    ("$FLOCK f sh -c 'test -e /proc/self/fd/3; echo $?'", ""),
    // Exit codes of COMMAND.
    ("$FLOCK f false", ""),
    ("$FLOCK f sh -c 'exit 255'", ""),
    ("$FLOCK f sh -c 'kill -TERM $$'", ""),
    ("$FLOCK f sh -c 'kill -KILL $$'", ""),
    ("$FLOCK -F f sh -c 'exit 9'", ""),
    ("$FLOCK f /nonexistent", "failed to execute /nonexistent: No such file or directory"),
    ("$FLOCK -F f /nonexistent", "failed to execute /nonexistent: No such file or directory"),
    ("$FLOCK f /etc/passwd", "failed to execute /etc/passwd: Permission denied"),
    ("$FLOCK f ''", "failed to execute"),
    // Parsing.
    ("$FLOCK", "--help"),
    ("$FLOCK f", "bad file descriptor: 'f'"),
    ("$FLOCK -n f", "bad file descriptor: 'f'"),
    ("$FLOCK 1x", "bad file descriptor: '1x'"),
    ("$FLOCK 99999999999", "bad file descriptor: '99999999999'"),
    ("$FLOCK 77", "77: Bad file descriptor"),
    ("$FLOCK -u 77", "77: Bad file descriptor"),
    ("$FLOCK -1", "invalid option -- '1'"),
    ("$FLOCK -z f true", "invalid option -- 'z'"),
    ("$FLOCK -c true", "invalid option -- 'c'"),
    ("$FLOCK --bogus f true", "unrecognized option '--bogus'"),
    ("$FLOCK --n f true", "option '--n' is ambiguous"),
    ("$FLOCK --ver f true", "option '--ver' is ambiguous"),
    ("$FLOCK --shared=1 f true", "option '--shared' doesn't allow an argument"),
    ("$FLOCK --wait", "option '--wait' requires an argument"),
    ("$FLOCK -w", "option requires an argument -- 'w'"),
    ("$FLOCK -w abc f true", "invalid timeout value: 'abc'"),
    ("$FLOCK -E abc f true", "invalid exit code: 'abc'"),
    ("$FLOCK -E 256 f true", "exit code out of range"),
    ("$FLOCK -E -1 f true", "exit code out of range"),
    ("$FLOCK -F -o f true", "--no-fork and --close options are incompatible"),
    ("$FLOCK f -c", "-c requires exactly one command argument"),
    ("$FLOCK f -c a b", "-c requires exactly one command argument"),
    ("$FLOCK f -n true", "failed to execute -n"),
    ("$FLOCK f -- true", "failed to execute --"),
    ("$FLOCK -- f echo dashes", ""),
    ("$FLOCK -sn -E7 -w1.5 f echo together", ""),
    ("$FLOCK --nonb --excl f echo abbreviated", ""),
    ("$FLOCK --nb --timeout=1e1 --conflict-exit-code 4 f echo long", ""),
    ("$FLOCK -w .5 -x f echo fraction", ""),
    ("$FLOCK -w 0 f echo zero", ""),
    ("$FLOCK /nonexistent/f true", "cannot open lock file /nonexistent/f: No such file or directory"),
    ("$FLOCK '' true", "cannot open lock file"),
    ("$FLOCK --verbose f true", ""),
    // Conflicts. The holder is the same program.
    ("exec 9>f; $FLOCK 9; $FLOCK -n f echo in; echo $?", ""),
    ("exec 9>f; $FLOCK 9; $FLOCK -n -E 0 f echo in; echo $?", ""),
    ("exec 9>f; $FLOCK 9; $FLOCK -n -s -E 77 f echo in; echo $?", ""),
    ("exec 9>f; $FLOCK 9; $FLOCK -w 0.1 -E 8 f echo in; echo $?", ""),
    ("exec 9>f; $FLOCK 9; $FLOCK -w 0 -E 8 f echo in; echo $?", ""),
    ("exec 9>f; $FLOCK 9; $FLOCK -n --verbose f echo in; echo $?", "failed to get lock"),
    ("exec 9>f; $FLOCK 9; $FLOCK -w 0.1 --verbose f echo in; echo $?", "timeout while waiting to get lock"),
    ("exec 9>f; $FLOCK 9; $FLOCK -u f echo 'unlocked its own only'; $FLOCK -n f true; echo $?", ""),
    ("exec 9>f 8>f; $FLOCK 9; $FLOCK -n 8; echo $?; $FLOCK -n 9; echo $?", ""),
    ("exec 9>f 8>f; $FLOCK -s 9; $FLOCK -ns 8 && echo shared; $FLOCK -n f true; echo $?", ""),
    // Conversions: the old lock is removed first, even where the new one is refused.
    ("exec 9>f 8>f; $FLOCK -s 9; $FLOCK -s 8; $FLOCK -n 9; echo $?; $FLOCK -n -x 8; echo $?", ""),
    ("exec 9>f; $FLOCK 9; $FLOCK -s 9; $FLOCK -n -s f echo shared; $FLOCK -n f true; echo $?", ""),
    ("exec 9>f; $FLOCK -u 9; echo $?; $FLOCK 9; $FLOCK -u 9; $FLOCK -n f echo free", ""),
    ("exec 9>f 8>&9; $FLOCK 9; $FLOCK -u 8; $FLOCK -n f echo 'one description, two descriptors'", ""),
    ("exec 9>f; flock 9; $FLOCK 9; $FLOCK -n f true; echo $?; exec 9>&-; $FLOCK -n f echo free", ""),
    // How long a lock lasts: until the last descriptor is closed.
    ("exec 9>f; $FLOCK 9; exec 9>&-; $FLOCK -n f echo free", ""),
    ("( $FLOCK 9; echo in ) 9>f; $FLOCK -n f echo free", ""),
    ("exec 9>f 8>&9; $FLOCK 9; exec 9>&-; $FLOCK -n f true; echo $?", ""),
    ("exec 9>f; $FLOCK 9; sleep 0.5 & exec 9>&-; $FLOCK -n f true; echo $?; wait; $FLOCK -n f echo free", ""),
    (
        "$FLOCK f sh -c 'sleep 0.5 >/dev/null 2>&1 & echo started'; $FLOCK -n f true; echo $?; $FLOCK -w 9 f echo free",
        "",
    ),
    ("$FLOCK -o f sh -c 'sleep 0.5 >/dev/null 2>&1 & echo started'; $FLOCK -n f echo free", ""),
    ("$FLOCK -o f sh -c \"$FLOCK -n f true; echo \\$?\"", ""),
    ("$FLOCK f sh -c \"$FLOCK -n f true; echo \\$?; $FLOCK -u 3; $FLOCK -n f echo free\"", ""),
    ("$FLOCK -F f sh -c \"$FLOCK -n f true; echo \\$?\"; $FLOCK -n f echo free", ""),
    ("$FLOCK f true; $FLOCK -n f true; $FLOCK -n f true && echo free", ""),
    ("$FLOCK f $FLOCK -n g echo nested", ""),
    // Any descriptor will do, also those that programs are born with.
    ("exec 0<>f; $FLOCK 0; $FLOCK -n f true; echo $?; exec 0</dev/null; $FLOCK -n f echo free", ""),
    ("exec 8>&1 1>f; $FLOCK 1; $FLOCK -n f true; echo $? >&8; exec 1>&8; $FLOCK -n f echo free", ""),
    ("exec 8>&2 2>f; $FLOCK 2; $FLOCK -n f true; echo $?; exec 2>&8; $FLOCK -n f echo free", ""),
    // Nobody's output is kept open by the process that keeps the lock.
    ("exec 9>f; echo $( $FLOCK 9; echo substituted ); $FLOCK -n f true; echo $?", ""),
];

/// One daemon in the tests' own network namespace, and a directory for the files.
struct Place {
    cluster: Cluster,
    directory: TempDir,
}

impl Place {
    fn new(nodes: usize) -> Place {
        let cluster = Setup::new().nodes(nodes).start();
        Place { cluster, directory: tempfile::tempdir().expect("a directory") }
    }

    /// A bash script in a directory, with this program as `$FLOCK`.
    fn script(&self, node: usize, flock: &Path, directory: &Path, script: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "bash", "-c", script]).current_dir(directory);
        clean(&mut command);
        command.env("FLOCK", flock).env("MXLOCK_SOCKET", self.cluster.daemons[node].socket()).env("LC_ALL", "C");
        command
    }

    /// Runs a script with `mxflock` on a node.
    fn mxflock(&self, node: usize, script: &str) -> Said {
        output(&mut self.script(node, &program("mxflock"), self.directory.path(), script))
    }

    /// Starts one; its end is waited for with [`end`].
    fn start(&self, node: usize, script: &str) -> Child {
        let mut command = self.script(node, &program("mxflock"), self.directory.path(), script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bash runs")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Waits until a script has made a file.
    #[track_caller]
    fn await_file(&self, name: &str) {
        until_true(&format!("{name} is there"), PATIENCE, || self.file(name).exists());
    }
}

#[track_caller]
fn end(mut child: Child) -> Said {
    drop(child.stdin.take());
    until("a script ends", PATIENCE, || child.try_wait().expect("a child can be waited for"));
    Said::from_output(child.wait_with_output().expect("its output"))
}

/// The times that `--verbose` prints differ, and so do the names.
fn plain(text: &str) -> String {
    let text = text.replace("mxflock: ", "flock: ");
    let lines = text.lines().map(|line| match line.split_once(" took ") {
        Some((before, _)) => format!("{before} took N seconds\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// INTERFACE.md: `mxflock` accepts flock(1)'s exact syntax. The same scripts, the same exit codes and output, and the same
/// reason on standard error.
#[test]
fn mxflock_does_what_flock_does() {
    let Some(_turn) = shared() else { return };
    let mut place = Place::new(1);
    let mut wrong = Vec::new();
    for &(script, reason) in SIDE_BY_SIDE {
        let said = ["flock".into(), program("mxflock")].map(|flock: PathBuf| {
            let directory = tempfile::tempdir_in(place.directory.path()).expect("a directory");
            output(&mut place.script(0, &flock, directory.path(), script))
        });
        let [theirs, ours] = &said;
        let told = |said: &Said| match reason {
            "" => said.err.is_empty(),
            // Where help is, flock(1) of other versions says differently.
            _ => said.err.contains(reason),
        };
        if theirs.code != ours.code || plain(&theirs.out) != plain(&ours.out) || !told(theirs) || !told(ours) {
            wrong.push(format!("{script}\n  flock:   {theirs:?}\n  mxflock: {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), SIDE_BY_SIDE.len(), wrong.join("\n"));
    until_true("nothing is locked any more", PATIENCE, || place.cluster.mxlock(0, &["locks"]).out == "no locks\n");
    place.cluster.stop();
}

/// What flock(1) cannot: the file of the same path is locked on the other node, also through a symbolic link; a plain
/// flock(1) on this one is kept out as well.
#[test]
fn mxflock_locks_on_all_nodes() {
    let Some(_turn) = shared() else { return };
    let mut place = Place::new(2);
    let holder = place.start(0, "exec 9>f; $FLOCK 9; touch held; read -r line; exit 5");
    place.await_file("held");
    assert_eq!(place.mxflock(1, "$FLOCK -n f true").code, 1);
    assert_eq!(place.mxflock(1, "ln -s f link; $FLOCK -n -E 9 link true").code, 9);
    assert_eq!(place.mxflock(1, "flock -n f true").code, 1, "plain flock(1)");
    assert_eq!(place.mxflock(1, "$FLOCK -n other true").code, 0);
    let waiter = place.start(1, "$FLOCK f sh -c 'echo $MXLOCK_TOKEN'");
    let path = place.file("f").canonicalize().unwrap().display().to_string();
    until_true("the other node's request waits", PATIENCE, || {
        place.cluster.mxlock(0, &["-N", "flock", "locks", &path]).out.contains("waiting")
    });
    assert_eq!(end(holder).code, 5);
    let token: u64 = end(waiter).ok().trim().parse().expect("a token");
    assert!(token > 0);
    // Who is done is done on all nodes.
    for _ in 0..5 {
        assert_eq!(place.mxflock(0, "$FLOCK f true").code, 0);
        assert_eq!(place.mxflock(1, "exec 9>f; $FLOCK -n 9 && $FLOCK -u 9").code, 0);
    }
    // A name is the one of `mxlock run`.
    let holder = place.start(0, "$FLOCK --name backup f sh -c 'touch named; read -r line'");
    place.await_file("named");
    place.cluster.mxlock(1, &["run", "-n", "backup", "--", "true"]).refused(1, "backup");
    assert_eq!(place.mxflock(1, "$FLOCK -n f true").code, 1, "flock(2) still keeps the file");
    assert_eq!(end(holder).code, 1, "read(1) found the end of its input");
    place.cluster.stop();
}

/// A front that is interrupted while it waits takes its request with it.
#[test]
fn an_interrupted_mxflock_leaves_the_queue() {
    let Some(_turn) = shared() else { return };
    let mut place = Place::new(1);
    let held = place.cluster.hold(0, &["queue"]);
    let waiter = place.start(0, "exec $FLOCK --name queue f true");
    place.cluster.await_waiters(0, "queue", 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(waiter.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(end(waiter).code, 130);
    place.cluster.await_waiters(0, "queue", 0);
    assert_eq!(held.release(), 0);
    place.cluster.stop();
}

/// Section 5: when the lease is lost, whoever has the descriptor ends within the grace time, however it got it; who has not
/// goes on. In all three ways to hold: a descriptor, a COMMAND, and a COMMAND without a fork.
#[test]
fn who_relies_on_a_lost_lock_is_ended() {
    let Some(_turn) = shared() else { return };
    let mut place = Place::new(2);
    // The shell that holds the descriptor, a child that has inherited it, and a child that has closed it.
    let shell = place.start(1, "exec 9>f; $FLOCK 9 2>lost; sleep 30 & sleep 30 9>&- & touch a; wait");
    let command = place.start(1, "$FLOCK g sh -c \"trap '' TERM; touch b; while :; do sleep 0.1; done\"");
    let direct = place.start(1, "exec $FLOCK -F h sh -c 'touch c; exec sleep 30'");
    let other = place.start(1, "touch d; read -r line; echo goes on");
    for name in ["a", "b", "c", "d"] {
        place.await_file(name);
    }
    place.cluster.daemons[1].kill();
    let started = Instant::now();
    let shell = end(shell);
    assert_eq!((shell.code, shell.out.as_str()), (128 + 15, ""));
    let lost = std::fs::read_to_string(place.file("lost")).unwrap();
    assert!(lost.contains("mxflock: ") && lost.contains("ending the processes that rely on the lock"), "{lost}");
    let command = end(command);
    assert_eq!(command.code, 75, "{command:?}");
    assert!(command.err.contains("ending COMMAND"), "{command:?}");
    assert_eq!(end(direct).code, 128 + 15);
    let timing = place.cluster.timing();
    let bound = std::time::Duration::from_millis(u64::from(timing.lease_ms + timing.grace_ms));
    assert!(started.elapsed() < bound + PATIENCE, "{:?}", started.elapsed());
    assert_eq!(end(other).out, "goes on\n");
}

/// A keeper that is slow to release is waited for: by the front that ends, and by one on the same machine that does not wait
/// for the lock.
#[test]
fn a_slow_keeper_is_waited_for() {
    let Some(_turn) = shared() else { return };
    let mut place = Place::new(2);
    // `$6` is the process that took the lock: `lock: 1: FLOCK ADVISORY WRITE PID ...`.
    let stop =
        "k=$(awk '/FLOCK/ {print $6}' /proc/self/fdinfo/@); kill -STOP $k; exec @>&-; (sleep 0.1; kill -CONT $k) &";
    let script = format!("exec 9>f; $FLOCK 9; {}\n$FLOCK -n f echo free; wait", stop.replace('@', "9"));
    assert_eq!(place.mxflock(0, &script).ok(), "free\n");
    std::fs::write(place.file("stop"), stop.replace('@', "3")).unwrap();
    let script =
        "$FLOCK f sh -c '. ./stop' && \"$(dirname $FLOCK)/mxlock\" -N flock run -n \"$(realpath f)\" -- echo free";
    assert_eq!(place.mxflock(0, script).ok(), "free\n");
    place.cluster.stop();
}

/// Who kills the keeper takes the lock away: COMMAND must not go on without it.
#[test]
fn command_does_not_outlive_the_keeper() {
    let Some(_turn) = shared() else { return };
    let mut place = Place::new(1);
    let script = "exec $FLOCK f sh -c \"trap '' TERM; touch a; while :; do sleep 0.1; done\"";
    let front = place.start(0, script);
    place.await_file("a");
    let said = place.cluster.mxlock(0, &["--json", "locks"]).ok();
    let locks: serde_json::Value = serde_json::from_str(&said).unwrap();
    let keeper = locks["locks"][0]["pid"].as_i64().expect("the keeper") as i32;
    assert_ne!(keeper, front.id() as i32);
    let kill = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper), signal).unwrap();
    kill(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(place.mxflock(0, "$FLOCK -n f true").code, 1, "it ends with the lock, and not before");
    kill(nix::sys::signal::Signal::SIGKILL);
    let said = end(front);
    assert_eq!((said.code, said.err.contains("killing COMMAND")), (75, true), "{said:?}");
    place.cluster.stop();
}

/// A daemon that is not there is no conflict: another code than `-E`, and a sentence.
#[test]
fn no_daemon_is_not_a_conflict() {
    let Some(_turn) = shared() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("mxflock"));
    clean(&mut command);
    command.args(["-n", "-E", "9", "--socket", "/nonexistent/sock", "f", "true"]).current_dir(directory.path());
    output(&mut command).refused(69, "is mxlockd running?");
}
