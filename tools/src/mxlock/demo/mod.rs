//! `mxlock demo`: a three-node cluster on this machine, shown working and failing over, that checks itself.

mod cluster;
mod counter;

use super::cli::Demo;
use crate::common::app::{Outcome, emit};
use crate::common::failure::{Code, Failure};
use crate::common::json::document;
use crate::common::text::duration_ms;
use crate::inspect;
use cluster::{Cluster, NODES};
use counter::Counter;
use mxlock_client::{Client, Lock, LockSpec};
use mxlock_format::{Mode, NodeId, QualifiedName, Resource};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// The namespace of all names of the demo.
const NAMESPACE: &[u8] = b"demo";
/// How long the counter runs before and after the failover.
const COUNTING: Duration = Duration::from_millis(700);
/// What a loaded machine may take beyond the failover's bound before the demo calls it a failure.
const SLACK: Duration = Duration::from_secs(30);

/// The result, for `--json`.
#[derive(Serialize)]
struct Verdict {
    ok: bool,
    nodes: u32,
    killed: NodeId,
    new_master: NodeId,
    /// From SIGKILL until a survivor was granted a new lock.
    failover_ms: u64,
    /// From SIGKILL until a survivor was granted what the dead node had held.
    purge_ms: u64,
    failover_bound_ms: u64,
    increments: u64,
}

/// Runs the story; its temporary directory goes with it, unless it failed or is to be kept.
pub(super) fn demo(demo: &Demo, json: bool) -> Outcome {
    let teller = Teller { json };
    let mut cluster = Cluster::prepare(demo)?;
    let outcome = story(&mut cluster, &teller).and_then(|verdict| cluster.stop().map(|()| verdict));
    match outcome {
        Ok(verdict) => {
            cluster.clean_up(demo.keep);
            let seconds = |ms: u64| format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10);
            let bound = seconds(verdict.failover_bound_ms);
            emit(&if json {
                document(&verdict)
            } else {
                format!("demo: ok, failover in {} (bound {bound})\n", seconds(verdict.failover_ms))
            })?;
            Ok(0)
        }
        Err(failure) => {
            let logs = cluster.last_words();
            cluster.clean_up(true);
            let place = cluster.directory().display();
            Err(Failure::new(failure.code, format!("demo: failed: {failure} (logs are in {place})\n{logs}")))
        }
    }
}

/// Tells the story on stdout, or on stderr where stdout is for a document.
struct Teller {
    json: bool,
}

impl Teller {
    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.json {
            eprint!("{text}");
            return Ok(());
        }
        emit(text)
    }

    fn step(&self, text: &str) -> Result<(), Failure> {
        self.say(&format!("\n== {text}\n"))
    }
}

fn story(cluster: &mut Cluster, teller: &Teller) -> Result<Verdict, Failure> {
    let lockstate = cluster.lockstate().to_owned();
    teller.step(&format!("Three daemons share the lockstate {}", lockstate.display()))?;
    teller.say(&cluster.format()?)?;
    for node in 0..NODES {
        cluster.start(node)?;
    }
    for node in 0..NODES {
        cluster.wait_ready(node)?;
    }
    teller.say(&super::report::nodes(&cluster.nodes(0)?))?;

    let status = cluster.status(0)?;
    let bound = Duration::from_millis(status.failover_bound_ms.unwrap_or(u64::MAX));
    let master = status.master.ok_or_else(|| wrong("the cluster is ready without a master"))?;
    let survivor = NodeId::all().find(|&node| node != master).expect("there are 64 nodes").index();

    teller.step("Each node holds a lock of its own in EX, and shares one in PR; the disk has a record of each")?;
    let clients = (0..NODES).map(|node| cluster.client(node)).collect::<Result<Vec<_>, _>>()?;
    let mut held: Vec<Vec<Lock<'_>>> = Vec::new();
    for (node, client) in clients.iter().enumerate() {
        held.push(vec![
            client.lock(&spec(&format!("node-{node}"), Mode::EX))?,
            client.lock(&spec("shared", Mode::PR))?,
        ]);
    }
    let other = client_must_not_get(&clients[survivor], &own_name(master))?;
    teller.say(&inspect::locks_in_namespace(&lockstate, NAMESPACE)?)?;
    expect_records(&lockstate, 2 * NODES)?;
    teller.say(&format!("node {survivor} asked for what node {master} holds and was told: {other}\n"))?;

    teller.step("Six clients increment a counter in a file, each time under an EX lock")?;
    let counter = Counter::start(cluster)?;
    std::thread::sleep(COUNTING);

    teller.step(&format!("SIGKILL for node {master}, the master"))?;
    let waiter = clients[survivor].submit_lock(&spec(&own_name(master), Mode::EX))?;
    let killed = Instant::now();
    cluster.kill(master.index())?;
    let limit = bound + SLACK;
    let failover = first_grant(cluster, survivor, killed, limit)?;
    let new_master = cluster.status(survivor)?.master.ok_or_else(|| wrong("there is no master after the failover"))?;
    teller.say(&format!(
        "node {new_master} is master; the first new lock was granted after {}\n",
        duration_ms(failover.as_millis() as u64)
    ))?;
    let purge = await_answer(&clients[survivor], waiter, killed, limit)?;
    teller.say(&format!(
        "what node {master} had held was given to the waiter on node {survivor} after {}\n",
        duration_ms(purge.as_millis() as u64)
    ))?;
    if new_master == master {
        return Err(wrong("the dead node is still master"));
    }
    for (node, locks) in held.iter().enumerate().filter(|(node, _)| *node != master.index()) {
        if let Some(lost) = locks.iter().find(|lock| !lock.is_valid()) {
            return Err(wrong(&format!("node {node} lost its lock on '{}' in the failover", lost.resource())));
        }
    }
    teller.say("the survivors kept their locks\n")?;

    teller.step(&format!("Node {master} comes back, and the counter is read"))?;
    cluster.start(master.index())?;
    cluster.wait_ready(master.index())?;
    std::thread::sleep(COUNTING);
    let increments = counter.finish()?;
    teller.say(&format!("{increments} increments, none lost\n"))?;
    teller.say(&super::report::nodes(&cluster.nodes(survivor)?))?;

    teller.step("The inspector reads the disk")?;
    teller.say(&inspect::locks_in_namespace(&lockstate, NAMESPACE)?)?;
    let (clean, text) = inspect::verify_text(&lockstate)?;
    teller.say(&text)?;
    if !clean {
        return Err(wrong("the inspector has findings"));
    }
    Ok(Verdict {
        ok: true,
        nodes: NODES as u32,
        killed: master,
        new_master,
        failover_ms: failover.as_millis() as u64,
        purge_ms: purge.as_millis() as u64,
        failover_bound_ms: status.failover_bound_ms.unwrap_or(u64::MAX),
        increments,
    })
}

fn own_name(node: NodeId) -> String {
    format!("node-{node}")
}

fn spec(name: &str, mode: Mode) -> LockSpec {
    let name = QualifiedName::new(NAMESPACE, name.as_bytes()).expect("the demo's names are short");
    LockSpec::new(Resource::named(name)).mode(mode)
}

fn wrong(what: &str) -> Failure {
    Failure::new(Code::No(1), what)
}

/// Exclusion, seen from outside: the reason why it was not granted.
fn client_must_not_get(client: &Client, name: &str) -> Result<String, Failure> {
    match client.try_lock(&spec(name, Mode::EX)) {
        Ok(_) => Err(wrong(&format!("'{name}' was granted twice"))),
        Err(error) => Ok(error.to_string()),
    }
}

/// I3, seen from outside: the locks that are held are on the disk.
fn expect_records(lockstate: &Path, count: usize) -> Result<(), Failure> {
    let found = inspect::count_in_namespace(lockstate, NAMESPACE)?;
    if found < count {
        return Err(wrong(&format!("{count} locks are held, but the disk has records of {found}")));
    }
    Ok(())
}

/// Asks for a new lock on a node until it is granted; says how long after `since` that was.
fn first_grant(cluster: &Cluster, node: usize, since: Instant, limit: Duration) -> Result<Duration, Failure> {
    let client = cluster.client(node)?;
    let lock = client.lock_timeout(&spec("after-failover", Mode::EX), limit)?;
    let elapsed = since.elapsed();
    lock.unlock(None)?;
    Ok(elapsed)
}

/// Waits for a request that was submitted before; says how long after `since` it was granted.
fn await_answer(client: &Client, seq: u64, since: Instant, limit: Duration) -> Result<Duration, Failure> {
    while since.elapsed() < limit {
        client.poll_events(Some(Duration::from_millis(100)))?;
        if let Some(lock) = client.guard(seq) {
            let elapsed = since.elapsed();
            lock.unlock(None)?;
            return Ok(elapsed);
        }
    }
    Err(wrong("the dead node's lock was given to nobody"))
}
