//! The examples of the Rust client, with real daemons: what its documentation promises.

use mxlock_e2e::command::{Said, clean, program};
use mxlock_e2e::wait::{PATIENCE, until, until_true};
use mxlock_e2e::{Cluster, Setup, shared};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// An example on a node, with what it says on standard output as far as it has come.
struct Example {
    child: Child,
    out: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Example {
    fn start(cluster: &Cluster, node: usize, words: &[&str]) -> Example {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program(&format!("examples/{}", words[0]))).args(&words[1..]);
        clean(&mut command);
        command.env("MXLOCK_SOCKET", cluster.daemons[node].socket());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("setpriv runs");
        let out = Arc::new(Mutex::new(String::new()));
        let (mut pipe, said) = (child.stdout.take().expect("piped"), Arc::clone(&out));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                said.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Example { child, out, reader }
    }

    fn lines(&self) -> Vec<String> {
        self.out.lock().unwrap().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn await_line(&self, line: &str) {
        until_true(&format!("the example says '{line}'"), PATIENCE, || self.lines().iter().any(|said| said == line));
    }

    /// Its input ends; so does it.
    #[track_caller]
    fn end(mut self) -> Said {
        drop(self.child.stdin.take());
        until("the example ends", PATIENCE, || self.child.try_wait().expect("a child can be waited for"));
        self.reader.join().expect("its output was read");
        let mut said = Said::from_output(self.child.wait_with_output().expect("its errors"));
        said.out = self.out.lock().unwrap().clone();
        said
    }
}

/// I1, I9 with guards, conversions and value blocks: nothing that two nodes count is lost. And with an event loop: a reader
/// on a third one hears of every writer, and has the last value.
#[test]
fn rust_examples_count_and_follow() {
    const ROUNDS: u64 = 30;
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().start();
    let follower = Example::start(&cluster, 2, &["cache", "visits"]);
    follower.await_line("nothing counted yet");
    let counters = [0, 1].map(|node| Example::start(&cluster, node, &["counter", "visits", &ROUNDS.to_string()]));
    let ends = counters.map(|counter| counter.end().ok());
    let counts: Vec<u64> =
        ends.iter().map(|said| said.split(' ').next().and_then(|word| word.parse().ok()).expect("a count")).collect();
    assert_eq!(counts.iter().max(), Some(&(2 * ROUNDS)), "{ends:?}");
    follower.await_line(&(2 * ROUNDS).to_string());
    let said = follower.end().ok();
    let shown: Vec<u64> = said.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(shown.is_sorted(), "{said}");
    assert!(said.contains("out of date soon"), "{said}");
    until_true("their locks are released", PATIENCE, || cluster.mxlock(0, &["locks"]).out == "no locks\n");
    cluster.stop();
}

/// Section 5: without its daemon an event loop hears of the loss at the lease's deadline.
#[test]
fn an_event_loop_hears_of_its_loss() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let mut follower = Example::start(&cluster, 1, &["cache", "visits"]);
    follower.await_line("nothing counted yet");
    cluster.daemons[1].kill();
    until("the example ends", PATIENCE, || follower.child.try_wait().unwrap());
    let said = follower.end();
    assert_eq!(said.code, 1);
    assert!(said.err.contains("the lock is lost: the node's lease ended"), "{said:?}");
}
