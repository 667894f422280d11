//! What clients ask for: every request of the protocol, with every flag that it knows, in a mix of which each seed has
//! its own share.

use crate::client::{Held, Op, UNLOCK, is_plain, left_by};
use crate::dice::{Dice, both};
use crate::oracle::values::Values;
use crate::world::World;
use mxlock_format::{ByteRange, Mode};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{AdoptRequest, ConvertRequest, LockRequest, Request, UnlockRequest};

/// Modes of new locks, those that others have to wait for most.
const MODES: [Mode; 9] = [Mode::EX, Mode::EX, Mode::EX, Mode::PR, Mode::PR, Mode::PW, Mode::CW, Mode::CR, Mode::NL];

/// Flags of new locks. Some make no sense, alone or with some modes: those requests must be denied.
const LOCK_FLAGS: [LockFlags; 16] = [
    LockFlags::NOQUEUE,
    LockFlags::NOQUEUE,
    LockFlags::NOQUEUE,
    LockFlags(LockFlags::NOQUEUE.0 | LockFlags::NOQUEUEBAST.0),
    LockFlags::NOORDER,
    LockFlags::NOORDER,
    LockFlags::HEADQUE,
    LockFlags::HEADQUE,
    LockFlags(LockFlags::HEADQUE.0 | LockFlags::NOORDER.0),
    LockFlags::ALTPR,
    LockFlags::ALTPR,
    LockFlags::ALTCW,
    LockFlags::NODLCKWT,
    LockFlags::EXPEDITE,
    LockFlags(LockFlags::EXPEDITE.0 | LockFlags::NOQUEUE.0),
    LockFlags::QUECVT,
];

/// Flags of conversions. An alternative that would give up what is held already is not asked for.
const CONVERT_FLAGS: [LockFlags; 13] = [
    LockFlags::NOQUEUE,
    LockFlags::NOQUEUE,
    LockFlags(LockFlags::NOQUEUE.0 | LockFlags::NOQUEUEBAST.0),
    LockFlags::QUECVT,
    LockFlags::QUECVT,
    LockFlags::NOORDER,
    LockFlags::HEADQUE,
    LockFlags::NODLCKWT,
    LockFlags::ALTPR,
    LockFlags::ALTCW,
    LockFlags::PERSISTENT,
    LockFlags::TRANSIENT,
    LockFlags::IVVALBLK,
];

/// Flags of requests for what the client holds already, or some of it.
const DIVIDE_FLAGS: [LockFlags; 4] = [
    LockFlags(LockFlags::NOQUEUE.0 | LockFlags::NOORDER.0),
    LockFlags(LockFlags::NOQUEUE.0 | LockFlags::NOORDER.0),
    LockFlags::NOORDER,
    LockFlags::NONE,
];

impl World {
    /// Asks for a new lock.
    pub fn ask(&mut self, client: usize) {
        let now = self.now;
        let (resources, keep) = (self.resources.len() as u64, self.setup.keep);
        let (flags_ppm, ranges_ppm) = (self.setup.flags_ppm, self.setup.ranges_ppm);
        let me = &mut self.clients[client];
        let index = me.dice.below(resources) as usize;
        if me.locks.values().any(|held| held.resource == index) {
            return if ranges_ppm > 0 {
                self.divide(client, index)
            };
        }
        let mut mode = *me.dice.pick(&MODES);
        let mut flags = if me.dice.chance(flags_ppm) { *me.dice.pick(&LOCK_FLAGS) } else { LockFlags::NONE };
        if flags == LockFlags::EXPEDITE && me.dice.chance(800_000) {
            mode = Mode::NL;
        }
        let range = if me.dice.chance(ranges_ppm) {
            let start = me.dice.below(8);
            ByteRange::new(start, start + me.dice.below(4))
        } else {
            None
        };
        let timeout_ms = if me.dice.chance(150_000) { Some(me.dice.range(0, 5_000)) } else { None };
        let persistent = range.is_none() && me.dice.chance(flags_ppm / 8);
        let lifetime = range.is_none() && !persistent && me.dice.chance(30_000 + flags_ppm / 8);
        let mut lifetime_ms = lifetime.then(|| me.dice.range(1_000, 8_000) as u32);
        let transaction = if me.dice.chance(200_000) { me.dice.below(4) } else { 0 };
        let seq = me.next_seq;
        me.next_seq += 1;
        // Drawn apart, as in `provoke`.
        let apart = &mut Dice::new(self.seed, "ranged orphan", both(client, seq as u32));
        let part = self.setup.ranged_orphans && range.is_some();
        let persistent = persistent || (part && apart.chance(300_000));
        if part && !persistent && apart.chance(200_000) {
            lifetime_ms = Some(apart.range(1_000, 8_000) as u32);
        }
        if persistent {
            flags = flags | LockFlags::PERSISTENT;
        }
        let keep_until = now + me.dice.spread(keep);
        me.locks.insert(seq, Held { persistent, lifetime_ms, transaction, ..Held::new(index, range, keep_until) });
        let (mode, flags) = self.provoke(client, seq, 0, mode, flags);
        let request = Request::Lock(LockRequest {
            seq,
            resource: self.resources[index].clone(),
            mode,
            flags,
            range,
            timeout_ms,
            transaction,
            orphan_lifetime_ms: lifetime_ms,
        });
        self.send_op(client, seq, 0, request, is_plain(flags, range), Writes::Nothing);
    }

    /// Asks for bytes around those that the client has locked already, as one does to divide or enlarge a range (OWN).
    fn divide(&mut self, client: usize, index: usize) {
        let now = self.now;
        let keep = self.setup.keep;
        let me = &mut self.clients[client];
        let parts: Vec<u64> = me
            .locks
            .values()
            .filter(|held| held.resource == index && held.range.is_some() && held.told.is_some())
            .map(|held| held.transaction)
            .collect();
        let Some(&transaction) = parts.first() else { return };
        let (start, mode) = (me.dice.below(8), *me.dice.pick(&MODES));
        let range = ByteRange::new(start, start + me.dice.below(4));
        let flags = LockFlags::OWN | *me.dice.pick(&DIVIDE_FLAGS);
        let seq = me.next_seq;
        me.next_seq += 1;
        let keep_until = now + me.dice.spread(keep);
        me.locks.insert(seq, Held { transaction, ..Held::new(index, range, keep_until) });
        self.coverage.divisions += 1;
        let request = Request::Lock(LockRequest {
            seq,
            resource: self.resources[index].clone(),
            mode,
            flags,
            range,
            timeout_ms: None,
            transaction,
            orphan_lifetime_ms: None,
        });
        self.send_op(client, seq, 0, request, false, Writes::Nothing);
    }

    /// Sends an operation, and remembers what the oracles need to judge its end.
    fn send_op(&mut self, client: usize, seq: u64, op: u32, request: Request, plain: bool, writes: Writes) {
        let now = self.now;
        let token_floor = self.oracles.tokens.greatest();
        let Some(held) = self.clients[client].locks.get(&seq) else { return };
        let behind = if plain { self.oracles.order.on(held.resource) } else { Vec::new() };
        let (value, invalidates) = match writes {
            Writes::Nothing => (None, None),
            Writes::Value(value) => (Some(value), None),
            Writes::Doubt => (None, Some(self.oracles.values.newest())),
        };
        let conn = self.clients[client].conn;
        let Some(held) = self.clients[client].locks.get_mut(&seq) else { return };
        held.ops.insert(
            op,
            Op {
                request: request.clone(),
                sent: now,
                token_floor,
                plain,
                behind,
                value,
                invalidates,
                resent: false,
                overtaken_by: None,
                demoted: false,
            },
        );
        if let Some(conn) = conn {
            self.send_request(conn, request);
        }
    }

    /// Asks for another mode of a lock that is held.
    pub fn convert(&mut self, client: usize) {
        let flags_ppm = self.setup.flags_ppm;
        let me = &mut self.clients[client];
        let free: Vec<u64> = me
            .locks
            .iter()
            .filter(|(_, held)| held.told.is_some() && held.ops.is_empty() && !held.unlocking)
            .map(|(&seq, _)| seq)
            .collect();
        if free.is_empty() {
            return;
        }
        let seq = *me.dice.pick(&free);
        let mode = *me.dice.pick(&Mode::ALL);
        let flags = if me.dice.chance(flags_ppm) { *me.dice.pick(&CONVERT_FLAGS) } else { LockFlags::NONE };
        // Two that wait for each other and for ever would be the callers' own fault.
        let timed = flags == LockFlags::NODLCKWT || me.dice.chance(300_000);
        let timeout_ms = timed.then(|| me.dice.range(0, 5_000));
        let write = me.dice.chance(500_000);
        let Some(held) = me.locks.get_mut(&seq) else { return };
        let Some(old) = held.told else { return };
        let alternative = match flags {
            LockFlags::ALTPR => Mode::PR,
            LockFlags::ALTCW => Mode::CW,
            _ => old,
        };
        let flags = if alternative.covers(old) { flags } else { LockFlags::NONE };
        let op = held.next_op;
        held.next_op += 1;
        held.cancelled = false;
        let (resource, range) = (held.resource, held.range);
        let (mode, flags) = self.provoke(client, seq, op, mode, flags);
        // Writers of parts may write at once, and then no order of values is promised.
        let whole = range.is_none();
        let writes = whole && matches!(old, Mode::PW | Mode::EX) && old != mode && old.covers(mode);
        let doubts = flags.contains(LockFlags::IVVALBLK);
        // Parts that overlap (OWN) must not both be left behind: whoever adopts one of them would be in conflict with the other.
        let flags = if whole { flags } else { LockFlags(flags.0 & !LockFlags::PERSISTENT.0) };
        let effect = match write && writes && self.believes(client, seq) {
            _ if doubts && writes => Writes::Doubt,
            true if !doubts => Writes::Value(self.oracles.values.write(resource)),
            _ => Writes::Nothing,
        };
        self.set_belief(client, seq, Some(left_by(old, mode, flags)));
        let request = Request::Convert(ConvertRequest { seq, op, mode, flags, timeout_ms, lvb: effect.bytes() });
        self.send_op(client, seq, op, request, false, effect);
    }

    /// In some seeds, makes requests that get in the way of each other's conversions, and conversions that give up what is
    /// held. (Drawn apart, so that the other seeds tell the same story with and without it.)
    fn provoke(&self, client: usize, seq: u64, op: u32, mode: Mode, flags: LockFlags) -> (Mode, LockFlags) {
        let mut dice = self.dice("provocation", both(client, (seq as u32) << 8 | op));
        if !self.setup.demotions || !dice.chance(700_000) {
            return (mode, flags);
        }
        let modes = if op == 0 { [Mode::PR, Mode::PR, Mode::CR] } else { [mode, Mode::PW, Mode::EX] };
        let demotable = op > 0 && !flags.contains(LockFlags::NOQUEUE) && dice.chance(800_000);
        (*dice.pick(&modes), if demotable { flags | LockFlags::CONVDEADLK } else { flags })
    }

    /// Ends a lock, with a value, without one, or with the word that the value is not to be trusted.
    pub fn unlock(&mut self, client: usize, seq: u64) {
        let choice = self.clients[client].dice.below(100);
        let believed = self.believes(client, seq);
        self.renounce(client, seq);
        let Some(held) = self.clients[client].locks.get_mut(&seq) else { return };
        held.unlocking = true;
        let whole = held.range.is_none();
        let writer = whole && matches!(held.told, Some(Mode::PW | Mode::EX)) && held.ops.is_empty() && believed;
        let resource = held.resource;
        let writes = match choice {
            0..=49 if writer => Writes::Value(self.oracles.values.write(resource)),
            50..=57 if writer => Writes::Doubt,
            _ => Writes::Nothing,
        };
        self.set_belief(client, seq, None);
        if let Some(lock) = self.clients[client].lock_id(seq) {
            self.oracles.order.forget(lock);
        }
        let invalidate_lvb = writes == Writes::Doubt;
        let request = Request::Unlock(UnlockRequest { seq, lvb: writes.bytes(), invalidate_lvb });
        self.send_op(client, seq, UNLOCK, request, false, writes);
    }

    /// Cancels something that waits, or unlocks it while it waits (FORCEUNLOCK).
    pub fn cancel(&mut self, client: usize) {
        let now = self.now;
        let me = &mut self.clients[client];
        let waiting: Vec<u64> = me
            .locks
            .iter()
            .filter(|(_, held)| {
                !held.cancelled && !held.unlocking && held.ops.values().any(|op| now - op.sent > 100 * crate::clock::MS)
            })
            .map(|(&seq, _)| seq)
            .collect();
        if waiting.is_empty() {
            return;
        }
        let seq = *me.dice.pick(&waiting);
        if me.dice.chance(300_000) {
            self.unlock(client, seq);
            return;
        }
        let lock = me.lock_id(seq);
        let Some(held) = me.locks.get_mut(&seq) else { return };
        held.cancelled = true;
        if let Some(lock) = lock {
            self.oracles.order.forget(lock);
        }
        self.renounce(client, seq);
        if let Some(conn) = self.clients[client].conn {
            self.send_request(conn, Request::Cancel { seq });
        }
    }

    /// Looks for an orphan: one that some process left behind, on whichever node, in its mode or another one.
    pub fn adopt_something(&mut self, client: usize) {
        let left = self.oracles.orphans.left();
        let me = &mut self.clients[client];
        let (resource, span, mode) = if left.is_empty() || me.dice.chance(100_000) {
            (me.dice.below(self.resources.len() as u64) as usize, ByteRange::ALL, *me.dice.pick(&Mode::ALL))
        } else {
            let orphan = &left[me.dice.below(left.len() as u64) as usize];
            let other = !orphan.certain || me.dice.chance(100_000);
            (orphan.resource, orphan.span, if other { *me.dice.pick(&Mode::ALL) } else { orphan.mode })
        };
        self.adopt(client, resource, span, mode);
    }

    /// The storm is over: what processes left behind for good is adopted and let go, one attempt after the other.
    pub fn adopt_what_is_left(&mut self, client: usize) {
        // Those that nobody knows of are seen in `mxlock locks`: here, on the disk.
        let on_disk = self.disk.records.iter().flatten().find(|record| record.orphan);
        let seen = on_disk.and_then(|record| {
            let resource = self.resources.iter().position(|resource| *resource == record.resource)?;
            Some((resource, record.range.unwrap_or(ByteRange::ALL), record.mode))
        });
        if let Some((resource, span, mode)) = self.oracles.orphans.next_attempt(self.now, seen) {
            self.adopt(client, resource, span, mode);
        }
    }

    fn adopt(&mut self, client: usize, resource: usize, span: ByteRange, mode: Mode) {
        let range = (span != ByteRange::ALL).then_some(span);
        let now = self.now;
        let keep = self.setup.keep;
        let storm = self.storm;
        let me = &mut self.clients[client];
        // At the end all clients may be waiting for what an orphan has.
        if me.locks.values().any(|held| held.resource == resource && (storm || held.told.is_some())) {
            return;
        }
        let seq = me.next_seq;
        me.next_seq += 1;
        let keep_until = now + me.dice.spread(keep);
        let persistent = self.storm && me.dice.chance(200_000);
        me.locks.insert(seq, Held { persistent, ..Held::new(resource, range, keep_until) });
        let request =
            Request::Adopt(AdoptRequest { seq, resource: self.resources[resource].clone(), range, mode, persistent });
        self.send_op(client, seq, 0, request, false, Writes::Nothing);
    }
}

/// What an operation does to the resource's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writes {
    Nothing,
    Value(u64),
    /// It is not to be trusted any more.
    Doubt,
}

impl Writes {
    fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Writes::Value(value) => Some(Values::bytes(value)),
            Writes::Nothing | Writes::Doubt => None,
        }
    }
}
