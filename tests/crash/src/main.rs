//! Records a run.
use mxlock_crash::{history::History, stream::Stream};
fn main() {
    let path = std::env::args().nth(2).unwrap();
    if std::env::args().nth(1).as_deref() == Some("record") {
        let stream = mxlock_crash::record::record().unwrap();
        let bytes = stream.to_bytes().unwrap();
        println!("{} moments, {} bytes", stream.moments.len(), bytes.len());
        std::fs::write(path, bytes).unwrap();
    } else {
        let stream = Stream::from_bytes(&std::fs::read(path).unwrap()).unwrap();
        let mut h = History::new(&stream).unwrap();
        let mut maxp = 0;
        let mut trusted = 0usize;
        let mut wr = 0;
        let mut bad = 0;
        for (i, m) in stream.moments.iter().enumerate() {
            if let Err(e) = h.apply(m.at_ns, &m.event) {
                println!("{i}: {e}");
                bad += 1;
            }
            if let Err(e) = h.check_superset() {
                println!("{i}: {e}");
                bad += 1;
            }
            if bad > 20 {
                break;
            }
            maxp = maxp.max(h.pending.len());
            if let mxlock_crash::stream::Event::Write { .. } = m.event {
                wr += 1;
            }
            trusted += h
                .clients
                .values()
                .filter(|c| h.trusts(c))
                .flat_map(|c| c.locks.values())
                .filter(|l| l.believed().is_some())
                .count();
        }
        println!(
            "max pending {maxp}, writes {wr}, trusted beliefs {trusted}, views {}, names {}, left pending {}",
            h.views.len(),
            h.names.len(),
            h.pending.len()
        );
    }
}
