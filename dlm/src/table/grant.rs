//! The grant test and the service of the queues (DESIGN section 7; fs/dlm/lock.c `_can_be_granted`, `can_be_granted`,
//! `grant_pending_convert`, `grant_pending_wait`).
//!
//! Where ranges are involved, a lock that shares no byte with the request is treated as if it were on another
//! resource: it does not conflict, and nobody waits behind it. For locks without ranges this is exactly the kernel's
//! order; for overlapping ones I8 holds, since whoever waits is passed by none of those it overlaps.

use super::entry::{ModeSet, Queue};
use super::slab::NIL;
use super::{Effect, Grant, LockFlags, Payload, Table, lvb};
use crate::planted::{Bug, planted};
use mxlock_format::{ByteRange, Mode, SessionId};

/// A request under test, in the table or not yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// The lock itself, which is not in its own way; `NIL` for a new request.
    pub(super) me: u32,
    /// The mode held: a conversion.
    pub(super) granted: Option<Mode>,
    /// With OWN: the session and the transaction whose locks are not in the way.
    pub(super) own: Option<(SessionId, u64)>,
    pub(super) range: ByteRange,
    pub(super) flags: LockFlags,
    /// The lock behind which it is, or would be, queued.
    pub(super) after: u32,
    /// Whether this is the first try, before it is queued (`now` in the kernel).
    pub(super) first: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Grant {
        mode: Mode,
        alternative: bool,
    },
    /// The conversion would wait for one that waits for it.
    Deadlock,
    Wait,
}

impl<P: Payload> Table<P> {
    /// Can `wanted`, or its alternative, be granted? (`can_be_granted` in the kernel, without its side effects.)
    ///
    /// The kernel looks for a conversion deadlock before it tries the alternative, and looks again whenever the queues are
    /// served. Here the alternative comes first, since it is what the caller asked for and would be granted later anyway;
    /// and nobody who waits already loses a mode because of a request that came after.
    pub(super) fn judge(&self, r: u32, ask: &Ask, wanted: Mode) -> Verdict {
        if self.grantable(r, ask, wanted) {
            return Verdict::Grant { mode: wanted, alternative: false };
        }
        let alternative = match wanted {
            mode if mode != Mode::PR && ask.flags.contains(LockFlags::ALTPR) => Some(Mode::PR),
            mode if mode != Mode::CW && ask.flags.contains(LockFlags::ALTCW) => Some(Mode::CW),
            _ => None,
        };
        match alternative {
            Some(mode) if self.grantable(r, ask, mode) => Verdict::Grant { mode, alternative: true },
            _ if ask.first && !ask.flags.contains(LockFlags::NOQUEUE) && self.deadlocks(r, ask) => Verdict::Deadlock,
            _ => Verdict::Wait,
        }
    }

    /// The grant test of section 7, in its order.
    fn grantable(&self, r: u32, ask: &Ask, mode: Mode) -> bool {
        if ask.flags.contains(LockFlags::EXPEDITE) {
            return true;
        }
        let in_place = ask.first && !ask.flags.contains(LockFlags::QUECVT);
        // A conversion to a mode that its own covers takes nothing from anybody. In the kernel this follows from the
        // next test; here a possible holder may conflict with what is held already.
        let down = |held: Mode| held.covers(mode) || planted(Bug::PrToCwIsDown) && held as u8 >= mode as u8;
        if in_place && ask.granted.is_some_and(down) {
            return true;
        }
        if self.held_back && mode != Mode::NL || self.conflicts(r, ask, mode) {
            return false;
        }
        if in_place && ask.granted.is_some() {
            return true;
        }
        // The kernel tests QUECVT before NOORDER on the first try only, so that a conversion with both is queued and then
        // granted whenever the queues are next looked at. Here it need not wait for that.
        if ask.flags.contains(LockFlags::NOORDER) || planted(Bug::ReaderBarges) && ask.first {
            return true;
        }
        match ask.granted {
            Some(_) => !self.someone_ahead(r, Queue::Converting, ask.after, ask.range),
            // A new request: no one converts, and it is, or with HEADQUE would be, the first. (The kernel queues a
            // HEADQUE request that could be granted until something else happens on the resource.)
            None => {
                let last = self.list(r, Queue::Converting).tail;
                !self.someone_ahead(r, Queue::Converting, last, ask.range)
                    && !self.someone_ahead(r, Queue::Waiting, ask.after, ask.range)
            }
        }
    }

    /// Whether `mode` conflicts with what anybody but `me` holds, or possibly holds.
    fn conflicts(&self, r: u32, ask: &Ask, mode: Mode) -> bool {
        let Ask { me, own, range, .. } = *ask;
        match &self.resources[r].more {
            Some(more) if more.ranged == 0 && range == ByteRange::ALL && own.is_none() => {
                let mine = if me == NIL { ModeSet::EMPTY } else { self.held_in_lists(me) };
                more.held.modes_except(mine).conflicts(mode)
            }
            _ => self
                .walk_holders(r)
                .filter(|&(i, other)| i != me && meet(other.range, range))
                .filter(|(_, other)| own.is_none_or(|own| own != other.belongs_to() && !planted(Bug::OwnIsAnybodys)))
                .any(|(_, other)| other.held().conflicts(mode)),
        }
    }

    /// What lock `i` adds to the held modes of its resource.
    fn held_in_lists(&self, i: u32) -> ModeSet {
        let lock = &self.locks[i];
        if lock.queue == Queue::Waiting { ModeSet::EMPTY } else { lock.held() }
    }

    /// Whether a lock that overlaps `range` is in `queue` at or before `last`.
    fn someone_ahead(&self, r: u32, queue: Queue, last: u32, range: ByteRange) -> bool {
        debug_assert!(last == NIL || self.locks[last].queue == queue);
        if last == NIL || !self.resources[r].may_have_ranges() {
            return last != NIL;
        }
        let mut i = last;
        while i != NIL {
            if self.locks[i].range.overlaps(range) {
                return true;
            }
            i = self.locks[i].prev;
        }
        false
    }

    /// Whether a new conversion holds what one that is queued already waits for (`conversion_deadlock_detect`). Since none
    /// of those is let in, all that wait do so for earlier ones, and never in a circle.
    fn deadlocks(&self, r: u32, ask: &Ask) -> bool {
        let Some(held) = ask.granted else { return false };
        self.walk(r, Queue::Converting).any(|(_, other)| {
            other.range.overlaps(ask.range) && other.wanted.is_some_and(|wanted| !held.compatible(wanted))
        })
    }

    /// Serves the queues of a resource after a change: grants what can be granted, then sends the notices that the new
    /// holders need (`grant_pending_locks`).
    pub(super) fn serve(&mut self, r: u32, effects: &mut Vec<Effect>) {
        self.serve_converting(r, effects);
        self.serve_waiting(r, effects);
        self.notify_fresh(effects);
    }

    /// Conversions in order, from the head again after each grant. (The kernel finishes its pass before it starts again,
    /// which differs only where NOORDER or ranges let a later one go first.)
    pub(super) fn serve_converting(&mut self, r: u32, effects: &mut Vec<Effect>) {
        let mut i = self.list(r, Queue::Converting).head;
        while i != NIL {
            let (ask, wanted) = self.queued_ask(i);
            i = match self.judge(r, &ask, wanted) {
                Verdict::Grant { mode, alternative } => {
                    self.grant_queued(i, mode, alternative, effects);
                    self.list(r, Queue::Converting).head
                }
                Verdict::Deadlock | Verdict::Wait => self.next_to_try(r, i),
            };
        }
    }

    /// New requests in order. One pass is enough: a grant only adds conflicts.
    pub(super) fn serve_waiting(&mut self, r: u32, effects: &mut Vec<Effect>) {
        let mut i = self.list(r, Queue::Waiting).head;
        while i != NIL {
            let (ask, wanted) = self.queued_ask(i);
            let next = self.locks[i].next;
            i = match self.judge(r, &ask, wanted) {
                Verdict::Grant { mode, alternative } => {
                    self.grant_queued(i, mode, alternative, effects);
                    next
                }
                Verdict::Deadlock | Verdict::Wait => self.next_to_try(r, i),
            };
        }
    }

    /// The lock after `i`, which is blocked; or none, if nothing behind a blocked one can be granted.
    fn next_to_try(&self, r: u32, i: u32) -> u32 {
        let strict = self.resources[r].more.as_ref().is_none_or(|more| more.is_strict());
        if strict { NIL } else { self.locks[i].next }
    }

    /// The test to make for lock `i`, which is in a queue, and the mode that it wants.
    pub(super) fn queued_ask(&self, i: u32) -> (Ask, Mode) {
        let lock = &self.locks[i];
        let ask = Ask {
            me: i,
            granted: lock.granted,
            own: lock.own(),
            range: lock.range,
            flags: lock.flags,
            after: lock.prev,
            first: false,
        };
        (ask, lock.wanted.expect("a queued lock wants a mode"))
    }

    /// Moves lock `i` from its queue to the holders.
    fn grant_queued(&mut self, i: u32, mode: Mode, alternative: bool, effects: &mut Vec<Effect>) {
        self.unlink(i);
        let grant = self.give(i, mode, alternative);
        self.link_granted(i);
        debug_assert_ne!(grant.lvb, super::LvbTransfer::Written, "a conversion that writes the LVB never waits");
        effects.push(Effect::Granted(grant));
        self.fresh.push(i);
    }

    /// Writes the new mode into lock `i`, which is not counted at this moment. What was told about the old mode is
    /// forgotten.
    pub(super) fn give(&mut self, i: u32, mode: Mode, alternative: bool) -> Grant {
        let lock = &mut self.locks[i];
        let was = lock.granted.replace(mode);
        lock.wanted = None;
        lock.told = ModeSet::EMPTY;
        let demoted = std::mem::take(&mut lock.demoted);
        Grant { lock: lock.id, mode, was, alternative, demoted, lvb: lvb::transfer(was, mode) }
    }

    /// CONVDEADLK: the conversion of lock `i` gives up what it holds.
    pub(super) fn demote(&mut self, i: u32, effects: &mut Vec<Effect>) {
        self.count(i, false);
        let lock = &mut self.locks[i];
        lock.granted = Some(Mode::NL);
        lock.told = ModeSet::EMPTY;
        lock.demoted = true;
        effects.push(Effect::Demoted { lock: lock.id });
        self.count(i, true);
    }
}

/// Whether two ranges have a byte in common.
fn meet(a: ByteRange, b: ByteRange) -> bool {
    let edge = a.end() == b.start() || b.end() == a.start();
    a.overlaps(b) && !(edge && planted(Bug::RangesMissAByte))
}
