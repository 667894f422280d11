//! The oldest test of a lock, under the worst of circumstances (issue 2).

use mxlock_e2e::referee::Witness;
use mxlock_e2e::{Cluster, Setup, alone};
use std::path::Path;
use std::time::{Duration, Instant};

/// Processes on each of three nodes.
const PER_NODE: usize = 8;
/// How far the number has to come after each death of a master.
const STEP: u64 = 60;

fn read(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.parse().ok()
}

#[track_caller]
fn progress(cluster: &Cluster, file: &Path, limit: Duration) {
    let before = read(file).unwrap_or(0);
    let until = Instant::now() + limit;
    while read(file).is_none_or(|now| now < before + STEP) {
        if Instant::now() > until {
            let table = cluster.mxlock(cluster.master(), &["locks"]).out;
            panic!("the number is {:?}, and was {before}, {limit:?} ago:\n{table}", read(file));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill_master(cluster: &mut Cluster) -> usize {
    let master = cluster.master();
    cluster.daemons[master].kill();
    master
}

/// A number in a plain file, read, increased and written under EX by 24 processes on three nodes, while the masters are
/// killed in turn, and come back at once or after their exclusion: no update is lost (I1).
#[test]
fn no_update_is_lost_while_masters_die() {
    let Some(_turn) = alone() else { return };
    let rounds = if std::env::var_os("MXLOCK_E2E_LONG").is_some() { 40 } else { 4 };
    let mut cluster = Setup::new().start();
    let file = cluster.directory().join("number");
    std::fs::write(&file, "0").expect("the number");
    let counting = file.display().to_string();
    let mut processes = Vec::new();
    for process in 0..3 * PER_NODE {
        let socket = cluster.daemons[process % 3].socket();
        let args = ["--name", "number", "--count", &counting];
        processes.push(Witness::start(cluster.directory(), &format!("counter-{process}"), &socket, &args));
    }
    let limit = cluster.failover_limit();
    progress(&cluster, &file, limit);
    for round in 0..rounds {
        let killed = kill_master(&mut cluster);
        if round % 2 == 0 {
            cluster.other_master(killed, limit);
            progress(&cluster, &file, limit);
        }
        cluster.daemons[killed].start();
        cluster.daemons[killed].ready();
        progress(&cluster, &file, limit);
    }
    let counted: u64 = processes.into_iter().map(Witness::counted).sum();
    assert_eq!(read(&file), Some(counted), "increments that were made and what is left of them");
    println!("measured: {counted} increments over {rounds} deaths of the master");
    cluster.inspector().verify();
    cluster.stop();
}
