//! What the table keeps per lock and per resource, small: there may be millions.

use super::slab::NIL;
use super::{LockFlags, Payload, Standing};
use crate::planted::{Bug, planted};
use mxlock_format::{ByteRange, LockId, Lvb, Mode, Resource, SessionId};

/// A set of modes, one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub(super) struct ModeSet(u8);

/// By mode, the modes that conflict with it.
const CONFLICTING: [ModeSet; 6] = ModeSet::table(false);
/// By mode, the modes that permit everything that it does.
const COVERING: [ModeSet; 6] = ModeSet::table(true);

impl ModeSet {
    pub(super) const EMPTY: ModeSet = ModeSet(0);

    const fn table(covering: bool) -> [ModeSet; 6] {
        let mut sets = [ModeSet::EMPTY; 6];
        let mut pair = 0;
        while pair < 36 {
            let (mode, other) = (Mode::ALL[pair / 6], Mode::ALL[pair % 6]);
            let belongs = if covering { other.covers(mode) } else { !other.compatible(mode) };
            sets[pair / 6].0 |= (belongs as u8) << (pair % 6);
            pair += 1;
        }
        sets
    }

    pub(super) fn insert(&mut self, mode: Mode) {
        self.0 |= 1 << mode as u8;
    }

    pub(super) fn contains(self, mode: Mode) -> bool {
        self.0 & (1 << mode as u8) != 0
    }

    /// The modes, strongest first.
    pub(super) fn iter(self) -> impl Iterator<Item = Mode> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let highest = rest.checked_ilog2()?;
            rest &= !(1 << highest);
            Some(Mode::ALL[highest as usize])
        })
    }

    /// Whether some mode in the set permits everything that `mode` does.
    pub(super) fn covers(self, mode: Mode) -> bool {
        self.0 & COVERING[mode as usize].0 != 0
    }

    /// Whether `mode` conflicts with any mode in the set.
    pub(super) fn conflicts(self, mode: Mode) -> bool {
        self.0 & CONFLICTING[mode as usize].0 != 0
    }
}

impl FromIterator<Mode> for ModeSet {
    fn from_iter<T: IntoIterator<Item = Mode>>(modes: T) -> ModeSet {
        let mut set = ModeSet::EMPTY;
        modes.into_iter().for_each(|mode| set.insert(mode));
        set
    }
}

/// How many locks of a resource are in each mode: a conflict test must not look at every one of ten thousand readers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct ModeCounts([u32; 6]);

impl ModeCounts {
    pub(super) fn add(&mut self, modes: ModeSet) {
        modes.iter().for_each(|mode| self.0[mode as usize] += 1);
    }

    pub(super) fn sub(&mut self, modes: ModeSet) {
        modes.iter().for_each(|mode| self.0[mode as usize] -= 1);
    }

    /// The modes that occur, one occurrence of each in `except` not counted.
    pub(super) fn modes_except(&self, except: ModeSet) -> ModeSet {
        let mut set = ModeSet::EMPTY;
        for mode in Mode::ALL {
            let remain = self.0[mode as usize] > u32::from(except.contains(mode));
            set.0 |= u8::from(remain) << mode as u8;
        }
        set
    }
}

/// Where a lock is linked. Unlike [`super::Phase`], a possible holder is always among the holders.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Queue {
    Granted,
    Converting,
    Waiting,
}

/// The two ends of a doubly linked list through `Lock::prev` and `Lock::next`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct List {
    pub(super) head: u32,
    pub(super) tail: u32,
}

impl List {
    pub(super) const EMPTY: List = List { head: NIL, tail: NIL };

    pub(super) fn is_empty(self) -> bool {
        self.head == NIL
    }
}

/// A lock: 64 bytes and the caller's payload.
#[derive(Clone, Debug)]
pub(super) struct Lock<P> {
    pub(super) id: LockId,
    pub(super) range: ByteRange,
    pub(super) position: u64,
    pub(super) resource: u32,
    pub(super) prev: u32,
    pub(super) next: u32,
    pub(super) flags: LockFlags,
    pub(super) granted: Option<Mode>,
    pub(super) wanted: Option<Mode>,
    pub(super) queue: Queue,
    pub(super) standing: Standing,
    /// The wanted modes that the holder was told of since its granted mode was given to it.
    pub(super) told: ModeSet,
    pub(super) demoted: bool,
    pub(super) payload: P,
}

impl<P: Payload> Lock<P> {
    /// Its session and transaction.
    pub(super) fn belongs_to(&self) -> (SessionId, u64) {
        (self.id.session, self.payload.transaction())
    }

    /// With OWN: whose locks are not in its way.
    pub(super) fn own(&self) -> Option<(SessionId, u64)> {
        self.flags.contains(LockFlags::OWN).then(|| self.belongs_to())
    }
}

impl<P> Lock<P> {
    /// The modes that others must not conflict with: the granted one, and for a possible holder the wanted one too.
    pub(super) fn held(&self) -> ModeSet {
        if self.standing == Standing::Possible && planted(Bug::PossibleHoldersIgnored) {
            return ModeSet::EMPTY;
        }
        let possibly = if self.standing == Standing::Possible { self.wanted } else { None };
        self.granted.into_iter().chain(possibly).collect()
    }

    /// The queue in which a lock with these modes and this standing belongs.
    pub(super) fn home(&self) -> Queue {
        match (self.standing, self.granted, self.wanted) {
            (Standing::Possible, _, _) | (_, Some(_), None) | (_, None, None) => Queue::Granted,
            (_, Some(_), Some(_)) => Queue::Converting,
            (_, None, Some(_)) => Queue::Waiting,
        }
    }

    pub(super) fn is_ranged(&self) -> bool {
        self.range != ByteRange::ALL
    }
}

/// A resource: 64 bytes while it has one holder, which is the common case, and `More` from its second lock on.
#[derive(Clone, Debug)]
pub(super) struct Res {
    pub(super) name: Resource,
    pub(super) granted: List,
    pub(super) more: Option<Box<More>>,
}

/// The rest of a resource that several locks share, or that has a value block.
#[derive(Clone, Debug)]
pub(super) struct More {
    pub(super) converting: List,
    pub(super) waiting: List,
    /// `Lock::held` of every lock in the granted and converting lists.
    pub(super) held: ModeCounts,
    /// `Lock::wanted` of every lock in the converting and waiting lists.
    pub(super) wanted: ModeCounts,
    /// Locks with a range of their own, in any list. While there is none, the counts above answer every question.
    pub(super) ranged: u32,
    /// Locks with NOORDER in the converting and waiting lists. While there is none (and no range), nothing behind a
    /// blocked head can be granted.
    pub(super) unordered: u32,
    pub(super) lvb: Option<Box<Lvb>>,
}

impl More {
    pub(super) const fn new() -> More {
        More {
            converting: List::EMPTY,
            waiting: List::EMPTY,
            held: ModeCounts([0; 6]),
            wanted: ModeCounts([0; 6]),
            ranged: 0,
            unordered: 0,
            lvb: None,
        }
    }

    /// Whether strict order holds over the whole resource, so that a scan may stop at the first that is blocked.
    pub(super) fn is_strict(&self) -> bool {
        self.ranged == 0 && self.unordered == 0
    }
}

impl Res {
    pub(super) fn list(&self, queue: Queue) -> List {
        match (queue, &self.more) {
            (Queue::Granted, _) => self.granted,
            (_, None) => List::EMPTY,
            (Queue::Converting, Some(more)) => more.converting,
            (Queue::Waiting, Some(more)) => more.waiting,
        }
    }

    pub(super) fn list_mut(&mut self, queue: Queue) -> &mut List {
        let more = match queue {
            Queue::Granted => return &mut self.granted,
            _ => self.more.get_or_insert_with(|| Box::new(More::new())),
        };
        if queue == Queue::Converting { &mut more.converting } else { &mut more.waiting }
    }

    /// Whether any lock has a range of its own. Unknown, hence true, for a lone holder.
    pub(super) fn may_have_ranges(&self) -> bool {
        self.more.as_ref().is_none_or(|more| more.ranged > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory budget of issue 2: at most 400 bytes per held lock in the whole daemon.
    #[test]
    fn entries_are_small() {
        assert_eq!(size_of::<Lock<()>>(), 64);
        assert_eq!(size_of::<Res>(), 64);
        assert!(size_of::<More>() <= 88, "{}", size_of::<More>());
    }
}
