//! A recorded run: what is done to the cluster while clients lock.

use crate::clients::{Crowd, Habit};
use crate::lab::{GEOMETRY, Lab, NODES};
use crate::stream::Stream;

/// Grants between two things that are done to the cluster.
const PROGRESS: u64 = 40;

/// Records one run: start, handover, death of the master, a restart within the lease, planned stop of the master. The
/// daemons still run.
///
/// # Panics
/// When the daemons do not do what they should.
pub fn record(lab: &mut Lab) -> Stream {
    for node in 0..NODES {
        lab.start(node);
    }
    for daemon in &mut lab.daemons {
        daemon.ready();
    }
    let mut crowd = Crowd::new(&lab.recorder);
    for node in 0..NODES {
        for habit in [Habit::Mixed, Habit::Bursts, Habit::Keeper] {
            crowd.add(lab.daemons[node].id(), lab.daemons[node].socket(), habit);
        }
    }
    crowd.progress(PROGRESS);
    // Until D has passed nobody could succeed the first master.
    std::thread::sleep(std::time::Duration::from_millis(crate::lab::TIMING.dead_ms.into()));

    // Each node's way to write records has its turn: the next master is the other kind.
    let old = lab.master();
    let next = if old == 1 { 0 } else { 1 };
    lab.mxlock(old, &["handover", &next.to_string()]);
    assert_eq!(lab.other_master(old), next, "the one that was named");
    crowd.progress(PROGRESS);

    lab.kill(next);
    let master = lab.other_master(next);
    crowd.progress(PROGRESS);
    lab.start(next);
    lab.daemons[next].ready();
    crowd.progress(PROGRESS);

    let other = (0..NODES).find(|node| ![master, next].contains(node)).expect("there are three");
    lab.kill(other);
    lab.start(other);
    lab.daemons[other].ready();
    crowd.progress(PROGRESS);

    lab.terminate(master);
    lab.start(master);
    lab.other_master(master);
    lab.daemons[master].ready();
    crowd.progress(PROGRESS);
    crowd.end();
    lab.recorder.stream(GEOMETRY.total_bytes() as usize)
}
