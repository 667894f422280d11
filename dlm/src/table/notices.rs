//! Blocking notices (DESIGN section 7; fs/dlm/lock.c `send_bast_queue`, `lock_requires_bast`).
//!
//! The rule: while a request waits, every holder whose mode conflicts with it has been told of that mode or of one that
//! covers it, since the holder got its mode. So a notice is due in two moments only: when a request joins a queue, and
//! when a lock becomes a holder or gets another mode.
//!
//! Differences from the kernel. It keeps the highest mode told as a number, so that it repeats itself for PR and CW
//! against each other and says nothing of CW after PR; here the two are incomparable and each is told once. It does not
//! tell a converting lock that its granted mode is in the way; here a holder is a holder. After a grant it tells the new
//! holder of the highest mode wanted, whichever that is; here of the strongest ones that conflict with it and overlap.

use super::entry::{ModeSet, Queue};
use super::slab::NIL;
use super::{Effect, Payload, Standing, Table};
use mxlock_format::{ByteRange, Mode};

impl<P: Payload> Table<P> {
    /// Tells the holders that `wanted` is waited for. `me` is the lock that wants it, if it is in the table; `queued` says
    /// that it is in a queue.
    pub(super) fn notify_holders(
        &mut self,
        r: u32,
        me: u32,
        range: ByteRange,
        wanted: Mode,
        effects: &mut Vec<Effect>,
    ) {
        // If somebody else waits for this mode or a stronger one, all have been told but that one itself, which cannot be
        // in the granted queue. So a long queue of readers is not asked again for each writer that joins.
        let told_already = self.resources[r].more.as_ref().is_some_and(|more| {
            let queued = me != NIL && self.locks[me].queue != Queue::Granted;
            let mine = if queued { ModeSet::from_iter([wanted]) } else { ModeSet::EMPTY };
            more.ranged == 0 && range == ByteRange::ALL && more.wanted.modes_except(mine).covers(wanted)
        });
        let queues: &[Queue] = if told_already { &[Queue::Converting] } else { &[Queue::Granted, Queue::Converting] };
        for &queue in queues {
            let mut i = self.list(r, queue).head;
            while i != NIL {
                let holder = &self.locks[i];
                let next = holder.next;
                if i != me && holder.range.overlaps(range) {
                    self.tell(i, wanted, effects);
                }
                i = next;
            }
        }
    }

    /// Tells holder `i` of the modes that others wait for.
    pub(super) fn notify_holder(&mut self, i: u32, effects: &mut Vec<Effect>) {
        let lock = &self.locks[i];
        let r = lock.resource;
        let Some(more) = &self.resources[r].more else { return };
        if lock.queue == Queue::Waiting || (more.converting.is_empty() && more.waiting.is_empty()) {
            return;
        }
        let wanted: ModeSet = if more.ranged == 0 {
            let mine = if lock.queue == Queue::Granted { ModeSet::EMPTY } else { lock.wanted.into_iter().collect() };
            more.wanted.modes_except(mine)
        } else {
            let overlapping = |(j, other): &(u32, &super::entry::Lock<P>)| *j != i && other.range.overlaps(lock.range);
            self.walk_blocked(r).filter(overlapping).filter_map(|(_, other)| other.wanted).collect()
        };
        wanted.iter().for_each(|mode| self.tell(i, mode, effects));
    }

    /// Sends the notice, if `wanted` conflicts and is news to the holder. A possible holder cannot be reached.
    fn tell(&mut self, i: u32, wanted: Mode, effects: &mut Vec<Effect>) {
        let lock = &mut self.locks[i];
        let in_the_way = lock.granted.is_some_and(|held| !held.compatible(wanted));
        if in_the_way && lock.standing != Standing::Possible && !lock.told.covers(wanted) {
            lock.told.insert(wanted);
            effects.push(Effect::Bast { holder: lock.id, wanted });
        }
    }

    /// Tells those that got a mode in this operation.
    pub(super) fn notify_fresh(&mut self, effects: &mut Vec<Effect>) {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.drain(..).for_each(|i| self.notify_holder(i, effects));
        self.fresh = fresh;
    }
}
