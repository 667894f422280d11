//! The disks that a crash at one moment could leave: every prefix, with the last write torn, and with the writes that are
//! not durable in any subset.

use crate::history::{History, Pending, Sector, names, record_in, resource};
use crate::replay::Image;
use mxlock_format::{MAX_NODES, RECORD_BYTES};

/// Writes under way of which all subsets are tried; of more, a sample.
const ALL_SUBSETS: usize = 6;
/// Size of the sample.
const SAMPLE: u64 = 12;

/// Which of the writes that are not durable have landed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Landed {
    /// All: the prefix itself.
    All,
    /// None of them.
    Nothing,
    /// Those whose bit is set, in the order of issue.
    These(u64),
    /// All, but of the last one, which has several sectors, only every other sector: A1 is about one sector.
    PartOfLast,
    /// All, but the last one only in part: the first half of its sectors, and half of the next sector.
    TornLast,
}

/// The ways to crash at this moment.
pub fn ways(pending: &[Pending], seed: u64) -> Vec<Landed> {
    let count = pending.len();
    let mut ways = vec![Landed::All];
    if count == 0 {
        return ways;
    }
    ways.extend([Landed::Nothing, Landed::TornLast]);
    ways.extend((pending[count - 1].sectors.len() > 1).then_some(Landed::PartOfLast));
    if count <= ALL_SUBSETS {
        ways.extend((1..(1 << count) - 1).map(Landed::These));
    } else {
        let mask = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
        ways.extend((0..SAMPLE).map(|at| Landed::These(mix(seed ^ (at << 48)) & mask)));
    }
    ways
}

/// The disk after a crash at this moment.
pub fn image(history: &History, landed: Landed) -> Image {
    let mut bytes = history.durable.clone();
    let mut torn = None;
    let last = history.pending.len().wrapping_sub(1);
    for (at, write) in history.pending.iter().enumerate() {
        match landed {
            Landed::Nothing => {}
            Landed::These(mask) if at < 64 && mask & (1 << at) == 0 => {}
            Landed::PartOfLast if at == last => {
                write.sectors.iter().step_by(2).for_each(|sector| put(&mut bytes, sector, RECORD_BYTES));
            }
            Landed::TornLast if at == last => torn = tear(&mut bytes, &write.sectors),
            _ => write.sectors.iter().for_each(|sector| put(&mut bytes, sector, RECORD_BYTES)),
        }
    }
    Image { bytes, torn }
}

fn put(bytes: &mut [u8], (at, sector): &Sector, length: usize) {
    bytes[at * RECORD_BYTES..][..length].copy_from_slice(&sector[..length]);
}

/// Half of a write; the torn sector, unless what came of it is as good as whole.
fn tear(bytes: &mut [u8], sectors: &[Sector]) -> Option<usize> {
    let (whole, rest) = sectors.split_at(sectors.len() / 2);
    whole.iter().for_each(|sector| put(bytes, sector, RECORD_BYTES));
    let half = rest.first()?;
    let before = bytes[half.0 * RECORD_BYTES..][..RECORD_BYTES].to_vec();
    put(bytes, half, RECORD_BYTES / 2);
    let after = &bytes[half.0 * RECORD_BYTES..][..RECORD_BYTES];
    (after != before && after != half.1).then_some(half.0)
}

/// Whether the torn sector held the record of a lock that its client relies on: then A1 has failed for a write in place.
pub fn tears_a_held_lock(history: &History, image: &Image) -> bool {
    let Some(slot) = image.torn.and_then(|sector| sector.checked_sub(MAX_NODES)) else { return false };
    let sector = slot + MAX_NODES;
    let durable = &history.durable[sector * RECORD_BYTES..][..RECORD_BYTES];
    let later = history.pending.iter().flat_map(|write| &write.sectors).filter(|(at, _)| *at == sector);
    let stood: Vec<_> = later.filter_map(|(_, bytes)| record_in(slot, bytes)).chain(record_in(slot, durable)).collect();
    history.clients.values().filter(|client| history.trusts(client)).any(|client| {
        client.locks.values().any(|lock| {
            let Some(mode) = lock.believed() else { return false };
            stood.iter().any(|record| names(record, client.session, &resource(&lock.name), mode))
        })
    })
}

/// A hash (splitmix64).
pub fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
