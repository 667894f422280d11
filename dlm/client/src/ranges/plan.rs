//! What a change of an owner's byte ranges takes: fcntl(2)'s rules for splitting and merging, without any I/O.
//!
//! A lock of mxlock has one range for life. So a range grows, shrinks or divides by taking new locks over what the owner
//! already holds (OWN) and letting go of the old ones *afterwards*: there is no moment at which a byte that stays locked is
//! not, and whatever fails before the last step leaves the old locks.

use super::RangeMode;
use mxlock_format::ByteRange;

/// A lock that covers a part of the resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Piece<H> {
    pub(super) range: ByteRange,
    pub(super) mode: RangeMode,
    pub(super) lock: H,
}

/// What a change takes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Plan {
    /// What is asked for, with everything of the same mode that it overlaps: taken first, and waited for.
    pub(super) wanted: Option<(ByteRange, RangeMode)>,
    /// The owner holds some of it already. Then those who wait may wait for that, and their turn is not waited for.
    pub(super) has_some: bool,
    /// The same with everything of the same mode beside it, where there is any.
    pub(super) merged: Option<ByteRange>,
    /// What remains of other locks that it overlaps.
    pub(super) rest: Vec<(ByteRange, RangeMode)>,
    /// Locks, by index, that are replaced by all this; and those that are only if they are merged.
    pub(super) replaced: Vec<usize>,
    pub(super) merging: Vec<usize>,
}

impl Plan {
    /// How to bring `range` into `mode` (`None`: unlocked); no change at all where it is so already.
    pub(super) fn new<H>(pieces: &[Piece<H>], range: ByteRange, mode: Option<RangeMode>) -> Plan {
        let same = |piece: &&Piece<H>| Some(piece.mode) == mode;
        if pieces.iter().filter(same).any(|piece| covers(piece.range, range)) {
            return Plan::default();
        }
        let mut plan = Plan::default();
        let mut wanted = range;
        for (at, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.range.overlaps(range)) {
            plan.has_some = true;
            plan.replaced.push(at);
            if Some(piece.mode) == mode {
                wanted = hull(wanted, piece.range);
            } else {
                plan.rest.extend(outside(piece.range, range).map(|part| (part, piece.mode)));
            }
        }
        plan.wanted = mode.map(|mode| (wanted, mode));
        let mut merged = wanted;
        for (at, piece) in pieces.iter().enumerate().filter(|(_, piece)| Some(piece.mode) == mode) {
            if touch(piece.range, wanted) {
                merged = hull(merged, piece.range);
                plan.merging.push(at);
            }
        }
        plan.merged = Some(merged).filter(|_| !plan.merging.is_empty());
        plan
    }
}

fn covers(outer: ByteRange, inner: ByteRange) -> bool {
    outer.start() <= inner.start() && inner.end() <= outer.end()
}

fn hull(a: ByteRange, b: ByteRange) -> ByteRange {
    ByteRange::new(a.start().min(b.start()), a.end().max(b.end())).expect("a start is not behind its end")
}

/// Whether one begins where the other ends.
fn touch(a: ByteRange, b: ByteRange) -> bool {
    let follows = |first: ByteRange, then: ByteRange| first.end().checked_add(1) == Some(then.start());
    follows(a, b) || follows(b, a)
}

/// The parts of `range` before and behind `hole`, which overlaps it.
fn outside(range: ByteRange, hole: ByteRange) -> impl Iterator<Item = ByteRange> {
    let before = hole.start().checked_sub(1).and_then(|end| ByteRange::new(range.start(), end));
    let behind = hole.end().checked_add(1).and_then(|start| ByteRange::new(start, range.end()));
    [before, behind].into_iter().flatten()
}

/// What is locked, as fcntl(2) sees it: neighbours of one mode are one.
pub(super) fn merged<H>(pieces: &[Piece<H>]) -> Vec<(ByteRange, RangeMode)> {
    let mut sorted: Vec<(ByteRange, RangeMode)> = pieces.iter().map(|piece| (piece.range, piece.mode)).collect();
    sorted.sort_by_key(|(range, _)| range.start());
    let mut all: Vec<(ByteRange, RangeMode)> = Vec::new();
    for (range, mode) in sorted {
        match all.last_mut() {
            Some((last, of)) if *of == mode && touch(*last, range) => *last = hull(*last, range),
            _ => all.push((range, mode)),
        }
    }
    all
}
