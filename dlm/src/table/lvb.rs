//! Lock value blocks (DESIGN section 7; fs/dlm/lock.c `dlm_lvb_operations`, `set_lvb_lock`, `set_lvb_unlock`).

use super::entry::Res;
use super::{LvbTransfer, LvbUpdate, Payload, Table};
use mxlock_format::{Lvb, LvbSequence, Mode, Resource};

/// Which way the value goes when a lock passes from mode `was` to `now`. Read: any new lock, NL to any, CR, CW and PR to
/// themselves or up, PW to EX. Written: PW to itself or down, EX to any. PR to CW is neither.
pub(super) fn transfer(was: Option<Mode>, now: Mode) -> LvbTransfer {
    match (was, now) {
        (None, _) | (Some(Mode::PW), Mode::EX) => LvbTransfer::Read,
        (Some(Mode::PW | Mode::EX), _) => LvbTransfer::Written,
        // By number, as in the kernel's table: CW to PR reads, PR to CW does not.
        (Some(was), now) if now as u8 >= was as u8 => LvbTransfer::Read,
        _ => LvbTransfer::None,
    }
}

impl<P: Payload> Table<P> {
    /// Applies `update` to the value block of resource `r` and says what happened. Every change, an invalidation too,
    /// gets a sequence above all earlier ones, so that after a failover the newest record tells the truth, and a stale
    /// record of a lock that is gone never wins (the numbers are the table's, not the resource's).
    pub(super) fn update_lvb(&mut self, r: u32, update: LvbUpdate) -> LvbTransfer {
        let (bytes, valid) = match update {
            LvbUpdate::Keep => return LvbTransfer::None,
            LvbUpdate::Write(bytes) => (bytes, true),
            LvbUpdate::Invalidate => {
                let known = self.resources[r].more.as_mut().and_then(|more| more.lvb.take());
                (known.map(|lvb| lvb.bytes).unwrap_or_default(), false)
            }
        };
        self.lvb_writes += 1;
        let sequence = LvbSequence { epoch: self.epoch, n: self.lvb_writes };
        self.share(r).lvb = Some(Box::new(Lvb { bytes, sequence, valid }));
        LvbTransfer::Written
    }

    /// Changes the value block of a resource without touching a lock: for a holder of PW or EX that is known to be dead
    /// and whose locks leave only when their records are cleared (DESIGN section 5, order on a death).
    pub fn update_value(&mut self, resource: &Resource, update: LvbUpdate) -> LvbTransfer {
        match self.find_resource(resource) {
            Some(r) => self.update_lvb(r, update),
            None => LvbTransfer::None,
        }
    }

    /// Takes over a value block from a record of a lock that is gone itself, unless a newer one is known.
    pub fn restore_value(&mut self, resource: &Resource, lvb: Lvb) {
        if let Some(r) = self.find_resource(resource) {
            self.restore_lvb(r, lvb);
        }
    }

    /// Takes over a value block from a record, unless a newer one is known. Of two with one sequence, the one that is not
    /// valid wins.
    pub(super) fn restore_lvb(&mut self, r: u32, lvb: Lvb) {
        if lvb.sequence.epoch == self.epoch {
            self.lvb_writes = self.lvb_writes.max(lvb.sequence.n);
        }
        let rank = |lvb: &Lvb| (lvb.sequence, !lvb.valid);
        let slot = &mut self.share(r).lvb;
        if slot.as_ref().is_none_or(|known| rank(known) < rank(&lvb)) {
            *slot = Some(Box::new(lvb));
        }
    }
}

impl Res {
    pub(super) fn lvb(&self) -> Option<&Lvb> {
        self.more.as_ref()?.lvb.as_deref()
    }
}
