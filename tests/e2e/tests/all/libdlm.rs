//! C programs on the libraries of the kernel DLM's interface.

use mxlock_e2e::command::output;
use mxlock_e2e::libdlm::{Libraries, Library};
use mxlock_e2e::wait::{PATIENCE, until};
use mxlock_e2e::{Cluster, Setup, shared};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

/// What programs rely on, library by library: `dlm/capi/tests/locks.c` says what.
#[test]
fn c_programs_lock_as_with_the_kernel_dlm() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(1).start();
    let libraries = Libraries::new();
    for library in [Library::Light, Library::Threaded] {
        let program = libraries.compile("locks.c", library);
        output(&mut libraries.command(&program, &cluster.daemons[0].socket())).ok();
    }
    cluster.stop();
}

/// I1, I9: threads of two programs on two nodes count in the value block; none of it is lost.
#[test]
fn threads_of_c_programs_count_in_a_value_block() {
    const ROUNDS: u64 = 25;
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let libraries = Libraries::new();
    let program = libraries.compile("counter.c", Library::Threaded);
    let start = |node: usize, rounds: u64| {
        let mut command = libraries.command(&program, &cluster.daemons[node].socket());
        let command = command.arg(rounds.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let count = |child: &mut Child| {
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let mut children = [start(0, ROUNDS), start(1, ROUNDS)];
    for child in &mut children {
        count(child);
    }
    let mut reader = start(0, 0);
    assert_eq!(count(&mut reader), 2 * 4 * ROUNDS);
    for mut child in children.into_iter().chain([reader]) {
        drop(child.stdin.take());
        let status = until("the program ends", PATIENCE, || child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
    cluster.stop();
}

/// A program that holds an EX lock on `name`.
fn holder(cluster: &Cluster, libraries: &Libraries, node: usize, name: &str) -> Child {
    let program = libraries.compile("holder.c", Library::Light);
    let mut command = libraries.command(&program, &cluster.daemons[node].socket());
    let mut child =
        command.arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    child
}

/// Section 5: sessions survive a restart of their daemon. The program does nothing for it: it sleeps.
#[test]
fn a_c_program_keeps_its_lock_over_a_restart_of_the_daemon() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).steady().start();
    let libraries = Libraries::new();
    let mut child = holder(&cluster, &libraries, 1, "kept");
    cluster.daemons[1].kill();
    cluster.daemons[1].start();
    cluster.daemons[1].ready();
    // Far beyond the lease that it had from the first process: it has another one now.
    cluster.let_ballots_begin();
    let spaces = cluster.mxlock(0, &["--json", "locks"]).ok();
    assert!(spaces.contains("kept"), "{spaces}");
    drop(child.stdin.take());
    let status = until("the program ends", PATIENCE, || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    cluster.stop();
}

/// A program that has lost its locks, and cannot be told, is killed before anybody else gets them.
#[test]
fn a_c_program_whose_locks_are_lost_is_killed() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let libraries = Libraries::new();
    let mut child = holder(&cluster, &libraries, 1, "lost");
    cluster.daemons[1].kill();
    let status = until("the program ends", PATIENCE, || child.try_wait().unwrap());
    assert_eq!(status.signal(), Some(9), "{status}");
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(said.contains("has lost locks of lockspace 'alpha'"), "{said}");
}
