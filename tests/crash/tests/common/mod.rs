//! The recorded run that is kept.

use mxlock_crash::history::History;
use mxlock_crash::stream::Stream;

/// Three nodes, both ways to issue writes, both ways to make them durable; a handover, a dead master and its recovery, a
/// restart within the lease, a planned stop.
pub(crate) fn golden() -> Stream {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/three-nodes.stream");
    Stream::from_bytes(&std::fs::read(path).expect("the stream is there")).expect("it is a stream")
}

/// What is known after so many moments.
#[allow(dead_code)]
pub(crate) fn history_after(stream: &Stream, moments: usize) -> History {
    let mut history = History::new(stream).expect("a stream begins with a lockstate");
    for moment in &stream.moments[..moments] {
        history.apply(moment.at_ns, &moment.event).expect("the stream keeps the rules");
    }
    history
}
