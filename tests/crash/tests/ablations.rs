//! Each check fails when what it guards is taken away: writes that are dropped or come too late, and knowledge that the
//! restarted cluster must not contradict.

mod common;

use common::{golden, history_after};
use mxlock_crash::history::{History, Value, names, record_in, resource};
use mxlock_crash::points::{Landed, image};
use mxlock_crash::replay::{Crash, replay};
use mxlock_crash::stream::{Event, Stream};
use mxlock_format::{Epoch, MAX_NODES, Mode, NodeId, RECORD_BYTES, Token};

/// The first rule that a stream breaks by itself.
fn verdict(stream: &Stream) -> Result<(), String> {
    let mut history = History::new(stream)?;
    stream.moments.iter().try_for_each(|moment| {
        history.apply(moment.at_ns, &moment.event)?;
        history.check_superset()
    })
}

/// Where a client is told of a new EX lock for the first time after its record was written, and that write.
fn fresh_grant(stream: &Stream) -> (usize, usize, u32) {
    let mut last = None;
    for (at, moment) in stream.moments.iter().enumerate() {
        match &moment.event {
            Event::Write { id, offset, bytes, .. } if *offset >= (MAX_NODES * RECORD_BYTES) as u64 => {
                let slot = *offset as usize / RECORD_BYTES - MAX_NODES;
                last = record_in(slot, &bytes[..RECORD_BYTES]).map(|record| (at, *id, record));
            }
            Event::Told { lock, mode: Mode::EX, token } => {
                if let Some((write, id, record)) = &last
                    && record.token == *token
                    && record.lock.seq == lock.seq
                {
                    return (at, *write, *id);
                }
            }
            _ => {}
        }
    }
    panic!("nobody was granted anything")
}

fn without(stream: &Stream, gone: impl Fn(&Event) -> bool) -> Stream {
    let moments = stream.moments.iter().filter(|moment| !gone(&moment.event)).cloned().collect();
    Stream { base: stream.base.clone(), moments }
}

/// A moment at which somebody relies on EX, and nothing is under way.
fn quiet_holder(stream: &Stream) -> (History, String, usize) {
    let mut history = History::new(stream).unwrap();
    for moment in &stream.moments {
        history.apply(moment.at_ns, &moment.event).unwrap();
        if !history.pending.is_empty() || history.views.len() < 6 {
            continue;
        }
        let held = history.clients.values().filter(|client| history.trusts(client)).find_map(|client| {
            let (_, lock) = client.locks.iter().find(|(_, lock)| lock.believed() == Some(Mode::EX))?;
            let slot = (0..history.superblock.geometry.slot_count as usize).find(|&slot| {
                let bytes = &history.durable[(MAX_NODES + slot) * RECORD_BYTES..][..RECORD_BYTES];
                let stands = |record| names(&record, client.session, &resource(&lock.name), Mode::EX);
                record_in(slot, bytes).is_some_and(stands)
            })?;
            Some((lock.name.clone(), slot))
        });
        if let Some((name, slot)) = held {
            return (history, name, slot);
        }
    }
    panic!("nobody holds anything while nothing is written")
}

#[track_caller]
fn breaks(rule: &str, result: Result<(), String>) {
    let why = result.expect_err("it is to be seen");
    assert!(why.starts_with(rule), "{rule} was expected, not: {why}");
}

#[test]
fn the_kept_run_keeps_the_rules() {
    verdict(&golden()).unwrap();
}

/// Section 7: before a client is told, the record is on disk.
#[test]
fn a_dropped_write_is_seen() {
    let stream = golden();
    let (_, _, dropped) = fresh_grant(&stream);
    breaks("I3", verdict(&without(&stream, |event| matches!(event, Event::Write { id, .. } if *id == dropped))));
}

/// "Nothing is acknowledged before it is on stable storage": told after the write has ended, but before the flush has.
#[test]
fn an_answer_before_the_flush_is_seen() {
    let mut stream = golden();
    let (told, write, id) = fresh_grant(&stream);
    let written = stream.moments[write..told]
        .iter()
        .position(|moment| matches!(moment.event, Event::Written { id: done } if done == id))
        .expect("it ended before the client was told");
    let early = stream.moments.remove(told);
    stream.moments.insert(write + written + 1, early);
    breaks("I3", verdict(&stream));
}

/// A disk that says it has flushed and has not.
#[test]
fn a_lost_flush_is_seen() {
    let stream = golden();
    let (told, ..) = fresh_grant(&stream);
    let flush = stream.moments[..told].iter().rev().find_map(|moment| match moment.event {
        Event::Flushed { id } => Some(id),
        _ => None,
    });
    breaks("I3", verdict(&without(&stream, |event| matches!(event, Event::Flushed { id } if Some(*id) == flush))));
}

/// A record is cleared only after its client has asked for the end of the lock.
#[test]
fn a_clear_before_the_release_is_seen() {
    let ends = |event: &Event| matches!(event, Event::Releasing { .. } | Event::Released { .. });
    breaks("I3", verdict(&without(&golden(), ends)));
}

/// I6: who writes what.
#[test]
fn a_foreign_writer_is_seen() {
    let stream = golden();
    for heartbeats in [true, false] {
        let mut stream = stream.clone();
        let stranger = NodeId::new(9).unwrap();
        let node = stream.moments.iter_mut().skip(500).find_map(|moment| match &mut moment.event {
            Event::Write { node, offset, .. } if (*offset < (MAX_NODES * RECORD_BYTES) as u64) == heartbeats => {
                Some(node)
            }
            _ => None,
        });
        *node.expect("there are both") = stranger;
        breaks("I6", verdict(&stream));
    }
}

/// The replay sees a lost record of a held lock: its client claims it in time.
#[test]
fn a_lost_record_is_seen() {
    let (history, _, slot) = quiet_holder(&golden());
    let mut image = image(&history, Landed::All);
    replay(&history, image.clone(), Crash::Daemons, false).expect("the disk as it was is fine");
    image.bytes[(MAX_NODES + slot) * RECORD_BYTES..][..RECORD_BYTES].fill(0);
    let why = replay(&history, image, Crash::Daemons, false).expect_err("it is to be seen");
    assert!(["I1", "I3", "I5"].iter().any(|rule| why.starts_with(rule)), "{why}");
}

/// The replay sees a lock given away under clients that are silent, and still within their lease.
#[test]
fn a_lock_given_away_is_seen() {
    let (history, _, slot) = quiet_holder(&golden());
    let mut image = image(&history, Landed::All);
    image.bytes[(MAX_NODES + slot) * RECORD_BYTES..][..RECORD_BYTES].fill(0);
    let why = replay(&history, image, Crash::Silent, false).expect_err("it is to be seen");
    assert!(["I1", "I3"].iter().any(|rule| why.starts_with(rule)), "{why}");
}

/// I2: a token that was told is never reached again.
#[test]
fn a_token_from_the_past_is_seen() {
    let (mut history, ..) = quiet_holder(&golden());
    history.token = Token(history.token.0 + (1 << 60));
    breaks("I2", replay(&history, image(&history, Landed::All), Crash::Daemons, false).map(drop));
}

/// I4: views that were committed are not chosen again otherwise.
#[test]
fn a_second_view_of_an_epoch_is_seen() {
    let (mut history, ..) = quiet_holder(&golden());
    let newest = *history.views.values().next_back().unwrap();
    let epoch = Epoch(newest.epoch.0 + 1);
    history.views.insert(epoch, mxlock_format::View { epoch, table_epoch: epoch, ..newest });
    breaks("I4", replay(&history, image(&history, Landed::All), Crash::Daemons, false).map(drop));
}

/// I9: a value that is read as valid is not older than one that was acknowledged.
#[test]
fn an_old_value_is_seen() {
    let stream = golden();
    let seen = (1..300).any(|part| {
        let mut history = history_after(&stream, stream.moments.len() * part / 300);
        for values in history.values.values_mut() {
            values.push(Value { number: u64::MAX, acknowledged: true });
        }
        let image = image(&history, Landed::All);
        matches!(replay(&history, image, Crash::Daemons, false), Err(why) if why.starts_with("I9"))
    });
    assert!(seen, "no old value was noticed at any of the points");
}

/// I11: damage is reported; and with a damaged heartbeat sector nobody becomes master (section 4).
#[test]
fn damage_is_reported() {
    let (history, ..) = quiet_holder(&golden());
    let empty = (0..history.superblock.geometry.slot_count as usize)
        .find(|slot| history.durable[(MAX_NODES + slot) * RECORD_BYTES..][..RECORD_BYTES].iter().all(|byte| *byte == 0))
        .expect("the table is not full");
    for (sector, stops) in [(MAX_NODES + empty, false), (1, true)] {
        let mut image = image(&history, Landed::All);
        image.bytes[sector * RECORD_BYTES + 100] ^= 0x40;
        image.torn = Some(sector);
        let outcome = replay(&history, image, Crash::Daemons, false).unwrap();
        assert_eq!(outcome.stopped, stops);
    }
}
