//! The recorded run that is kept: what is in it, and a sample of its crash points. `scripts/test sim` replays more of
//! them, `scripts/test --long` all.

mod common;

use common::golden;
use mxlock_crash::campaign::{Effort, check, count};
use mxlock_crash::history::History;
use mxlock_crash::stream::{Event, Stream};
use mxlock_format::{MAX_NODES, NodeId};
use std::collections::BTreeMap;

/// Crash points that are replayed here, about.
const SAMPLE: u64 = 120;

/// I1 to I11 and the return of service on an even sample of the crash points; I3 on all of them.
#[test]
fn crash_points_of_the_kept_run() {
    let stream = golden();
    let every = count(&stream).unwrap() / SAMPLE;
    let report = check(&stream, Effort { every, offset: 0, torn: false, torn_held: true }).unwrap();
    println!("{report}");
    report.verdict().unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(report.prefixes, stream.moments.len());
    assert_eq!(report.replays.len(), 4, "every kind of crash is in the sample: {report}");
    assert!(report.kept > 0 && report.torn > 0, "{report}");
}

/// The kept run goes where crashes hurt: otherwise its crash points would prove little.
#[test]
fn the_kept_run_covers_the_write_path() {
    let stream = golden();
    let mut history = History::new(&stream).unwrap();
    let (mut singles, mut batches, mut tables) = (BTreeMap::new(), BTreeMap::new(), 0);
    let (mut starts, mut ends) = (0, 0);
    for moment in &stream.moments {
        match &moment.event {
            Event::Flush { node, .. } => {
                let records = history.pending.iter().filter(|write| write.written && write.node == *node);
                let records = records.filter(|write| write.sectors[0].0 >= MAX_NODES).count();
                match records {
                    0 => {}
                    1 => *singles.entry(*node).or_insert(0) += 1,
                    _ => *batches.entry(*node).or_insert(0) += 1,
                }
            }
            Event::Write { bytes, .. } if bytes.len() > 64 * 512 => tables += 1,
            Event::Started { .. } => starts += 1,
            Event::Ended { .. } => ends += 1,
            _ => {}
        }
        history.apply(moment.at_ns, &moment.event).unwrap();
    }
    // Node 0 uses io_uring, node 1 does not; both were master.
    for node in NodeId::all().take(2) {
        let both = [singles.get(&node), batches.get(&node)].map(|count| count.copied().unwrap_or(0));
        assert!(both.iter().all(|count| *count > 10), "node {node}: single writes and batches: {both:?}");
    }
    assert!(tables >= 3, "recoveries rewrite the table: {tables}");
    assert_eq!((starts, ends), (6, 3), "three starts, and three restarts");
    assert!(history.views.len() >= 8, "views: {}", history.views.len());
    let values = history.values.values().flatten().filter(|value| value.acknowledged).count();
    assert!(values > 100, "values written: {values}");
}

/// The file is what the library makes of what it reads.
#[test]
fn the_file_reads_back() {
    let stream = golden();
    let again = Stream::from_bytes(&stream.to_bytes().unwrap()).unwrap();
    assert_eq!(format!("{:?}", again.moments), format!("{:?}", stream.moments));
    assert!(again.base == stream.base);
    assert!(Stream::from_bytes(b"mxcrash\x02").is_err());
}
