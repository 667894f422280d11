//! A second lock table, written for plainness: vectors, full scans, and every rule spelled out where it applies. It
//! shares types with the real one, but no logic, not even the compatibility matrix.

use super::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) id: LockId,
    range: (u64, u64),
    pub(super) position: u64,
    pub(super) granted: Option<Mode>,
    pub(super) wanted: Option<Mode>,
    flags: LockFlags,
    standing: Standing,
    told: Vec<Mode>,
    demoted: bool,
}

/// One resource. `holders` has everybody who holds and does not convert, and all possible holders.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) holders: Vec<Item>,
    pub(super) converting: Vec<Item>,
    pub(super) waiting: Vec<Item>,
    /// Bytes, validity, number of the write.
    pub(super) lvb: Option<(Vec<u8>, bool, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) nodes: BTreeMap<String, Node>,
    writes: u64,
}

fn number(mode: Mode) -> usize {
    mode as usize
}

/// The VMS matrix, as in every textbook.
fn compatible(a: Mode, b: Mode) -> bool {
    const MATRIX: [[u8; 6]; 6] = [
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
    ];
    MATRIX[number(a)][number(b)] == 1
}

/// A mode covers another if it excludes at least what the other excludes.
fn covers(a: Mode, b: Mode) -> bool {
    Mode::ALL.into_iter().all(|m| !compatible(a, m) || compatible(b, m))
        && (a == b || !Mode::ALL.into_iter().all(|m| !compatible(b, m) || compatible(a, m)))
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0.max(b.0) <= a.1.min(b.1)
}

impl Item {
    fn is_possible(&self) -> bool {
        self.standing == Standing::Possible
    }

    fn holds_against(&self, mode: Mode) -> bool {
        let also = if self.is_possible() { self.wanted } else { None };
        [self.granted, also].into_iter().flatten().any(|held| !compatible(held, mode))
    }

    fn has(&self, flag: LockFlags) -> bool {
        self.flags.contains(flag)
    }
}

/// The request under test, and what is ahead of it.
struct Test<'a> {
    item: &'a Item,
    others: Vec<&'a Item>,
    conversions_ahead: Vec<&'a Item>,
    waiting_ahead: Vec<&'a Item>,
    first: bool,
}

impl Test<'_> {
    fn passes(&self, mode: Mode) -> bool {
        let Test { item, .. } = self;
        let meets = |other: &&&Item| overlap(other.range, item.range);
        if item.has(LockFlags::EXPEDITE) {
            return true;
        }
        let in_place = self.first && item.granted.is_some() && !item.has(LockFlags::QUECVT);
        if in_place && item.granted.is_some_and(|held| covers(held, mode)) {
            return true;
        }
        let own = |other: &Item| item.has(LockFlags::OWN) && other.id.session == item.id.session;
        if self.others.iter().filter(meets).any(|other| other.holds_against(mode) && !own(other)) {
            return false;
        }
        if in_place || item.has(LockFlags::NOORDER) {
            return true;
        }
        let nobody_converts = self.conversions_ahead.iter().filter(meets).count() == 0;
        nobody_converts && (item.granted.is_some() || self.waiting_ahead.iter().filter(meets).count() == 0)
    }

    fn alternative(&self, wanted: Mode) -> Option<Mode> {
        if self.item.has(LockFlags::ALTPR) && wanted != Mode::PR {
            Some(Mode::PR)
        } else if self.item.has(LockFlags::ALTCW) && wanted != Mode::CW {
            Some(Mode::CW)
        } else {
            None
        }
    }
}

impl Node {
    fn all(&self) -> impl Iterator<Item = &Item> {
        self.holders.iter().chain(&self.converting).chain(&self.waiting)
    }

    fn queue_of(&mut self, item: &Item) -> &mut Vec<Item> {
        match (item.is_possible(), item.granted, item.wanted) {
            (true, ..) | (_, _, None) => &mut self.holders,
            (_, Some(_), _) => &mut self.converting,
            (_, None, _) => &mut self.waiting,
        }
    }

    /// Where `item` goes among the conversions, or among the waiting.
    fn place(&self, item: &Item, at_head: bool, keep_clear: bool) -> usize {
        let queue = if item.granted.is_some() { &self.converting } else { &self.waiting };
        let mut place =
            if at_head { 0 } else { queue.iter().rposition(|q| q.position <= item.position).map_or(0, |p| p + 1) };
        if item.granted.is_some() && keep_clear {
            let wanted = item.wanted.unwrap();
            let blocks = |q: &Item| overlap(q.range, item.range) && !compatible(q.granted.unwrap(), wanted);
            place = place.max(queue.iter().rposition(blocks).map_or(0, |p| p + 1));
        }
        place
    }

    fn insert(&mut self, mut item: Item, place: usize) -> u64 {
        let queue = self.queue_of(&item);
        let low = if place == 0 { 0 } else { queue[place - 1].position };
        if let Some(behind) = queue.get(place) {
            if item.position < low || item.position > behind.position {
                item.position = behind.position.saturating_sub(1).max(low);
            }
        } else {
            item.position = item.position.max(low);
        }
        let position = item.position;
        queue.insert(place, item);
        position
    }

    fn take(&mut self, id: LockId) -> Option<Item> {
        for queue in [&mut self.holders, &mut self.converting, &mut self.waiting] {
            if let Some(at) = queue.iter().position(|item| item.id == id) {
                return Some(queue.remove(at));
            }
        }
        None
    }

    fn find(&mut self, id: LockId) -> Option<&mut Item> {
        self.holders.iter_mut().chain(&mut self.converting).chain(&mut self.waiting).find(|item| item.id == id)
    }

    /// The mode that can be granted to `item`, which is not in any queue, if it went to `place`.
    fn first_try(&self, item: &Item, place: usize) -> Option<(Mode, bool)> {
        let test = Test {
            item,
            others: self.holders.iter().chain(&self.converting).filter(|other| other.id != item.id).collect(),
            conversions_ahead: self
                .converting
                .iter()
                .take(if item.granted.is_some() { place } else { usize::MAX })
                .collect(),
            waiting_ahead: self.waiting.iter().take(place).collect(),
            first: true,
        };
        let wanted = item.wanted.unwrap();
        if test.passes(wanted) {
            return Some((wanted, false));
        }
        let alternative = test.alternative(wanted)?;
        test.passes(alternative).then_some((alternative, true))
    }

    /// Whether somebody who converts waits for what `item`, a new conversion, holds.
    fn deadlocks(&self, item: &Item) -> bool {
        let Some(held) = item.granted else { return false };
        self.converting.iter().any(|c| overlap(c.range, item.range) && !compatible(held, c.wanted.unwrap()))
    }

    /// Grants one queued request, the first that can be; false if there is none.
    fn grant_one(&mut self, conversions_only: bool, effects: &mut Vec<Effect>) -> bool {
        for at in 0..self.converting.len() {
            let item = &self.converting[at];
            let test = Test {
                item,
                others: self.holders.iter().chain(&self.converting).filter(|other| other.id != item.id).collect(),
                conversions_ahead: self.converting[..at].iter().collect(),
                waiting_ahead: vec![],
                first: false,
            };
            let wanted = item.wanted.unwrap();
            let options = [Some((wanted, false)), test.alternative(wanted).map(|mode| (mode, true))];
            if let Some((mode, alternative)) = options.into_iter().flatten().find(|&(mode, _)| test.passes(mode)) {
                let item = self.converting.remove(at);
                effects.push(Effect::Granted(self.grant(item, mode, alternative)));
                return true;
            }
        }
        for at in 0..if conversions_only { 0 } else { self.waiting.len() } {
            let item = &self.waiting[at];
            let test = Test {
                item,
                others: self.holders.iter().chain(&self.converting).collect(),
                conversions_ahead: self.converting.iter().collect(),
                waiting_ahead: self.waiting[..at].iter().collect(),
                first: false,
            };
            let wanted = item.wanted.unwrap();
            let options = [Some((wanted, false)), test.alternative(wanted).map(|mode| (mode, true))];
            if let Some((mode, alternative)) = options.into_iter().flatten().find(|&(mode, _)| test.passes(mode)) {
                let item = self.waiting.remove(at);
                effects.push(Effect::Granted(self.grant(item, mode, alternative)));
                return true;
            }
        }
        false
    }

    fn grant(&mut self, mut item: Item, mode: Mode, alternative: bool) -> Grant {
        let was = item.granted;
        let lvb = match was.map(number) {
            None => LvbTransfer::Read,
            Some(5) => LvbTransfer::Written,
            Some(4) => {
                if mode == Mode::EX {
                    LvbTransfer::Read
                } else {
                    LvbTransfer::Written
                }
            }
            Some(n) if n <= number(mode) => LvbTransfer::Read,
            Some(_) => LvbTransfer::None,
        };
        let grant = Grant { lock: item.id, mode, was, alternative, demoted: item.demoted, lvb };
        (item.granted, item.wanted, item.demoted) = (Some(mode), None, false);
        item.told.clear();
        self.holders.push(item);
        grant
    }

    fn serve(&mut self, effects: &mut Vec<Effect>) {
        while self.grant_one(false, effects) {}
        self.tell_all(effects);
    }

    /// The rule of notices, applied to everybody.
    fn tell_all(&mut self, effects: &mut Vec<Effect>) {
        let blocked: Vec<Item> = self.converting.iter().chain(&self.waiting).cloned().collect();
        for holder in self.holders.iter_mut().chain(&mut self.converting) {
            for mode in Mode::ALL.into_iter().rev() {
                let is_wanted =
                    |b: &Item| b.id != holder.id && overlap(b.range, holder.range) && b.wanted == Some(mode);
                if blocked.iter().any(is_wanted) {
                    tell(holder, mode, effects);
                }
            }
        }
    }

    fn tell_of(&mut self, item: &Item, effects: &mut Vec<Effect>) {
        for holder in self.holders.iter_mut().chain(&mut self.converting) {
            if holder.id != item.id && overlap(holder.range, item.range) {
                tell(holder, item.wanted.unwrap(), effects);
            }
        }
    }

    fn end_deadlocks(&mut self, effects: &mut Vec<Effect>) {
        let mut at = 0;
        while at < self.converting.len() {
            let item = self.converting[at].clone();
            let waits_for_it =
                |c: &Item| overlap(c.range, item.range) && !compatible(item.granted.unwrap(), c.wanted.unwrap());
            if self.converting[..at].iter().any(waits_for_it) {
                if item.has(LockFlags::CONVDEADLK) {
                    self.converting[at].granted = Some(Mode::NL);
                    self.converting[at].demoted = true;
                    self.converting[at].told.clear();
                    effects.push(Effect::Demoted { lock: item.id });
                } else if !item.has(LockFlags::NODLCKWT) {
                    let mut item = self.converting.remove(at);
                    effects.push(Effect::Denied { lock: item.id, reason: DenyReason::Deadlock });
                    (item.wanted, item.demoted) = (None, false);
                    self.holders.push(item);
                    continue;
                }
            }
            at += 1;
        }
    }
}

fn tell(holder: &mut Item, wanted: Mode, effects: &mut Vec<Effect>) {
    let in_the_way = holder.granted.is_some_and(|held| !compatible(held, wanted));
    if in_the_way && !holder.is_possible() && !holder.told.iter().any(|&told| covers(told, wanted)) {
        holder.told.push(wanted);
        effects.push(Effect::Bast { holder: holder.id, wanted });
    }
}

impl Model {
    fn name_of(&self, id: LockId) -> Option<String> {
        self.nodes.iter().find(|(_, node)| node.all().any(|item| item.id == id)).map(|(name, _)| name.clone())
    }

    fn node_of(&mut self, id: LockId) -> Result<&mut Node, TableError> {
        let name = self.name_of(id).ok_or(TableError::Unknown(id))?;
        Ok(self.nodes.get_mut(&name).unwrap())
    }

    fn sweep(&mut self) {
        self.nodes.retain(|_, node| node.all().count() > 0);
    }

    pub(super) fn request(
        &mut self,
        request: Request<()>,
        name: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, TableError> {
        let Request { lock: id, mode, flags, range, position, .. } = request;
        let bad = flags.contains(LockFlags::QUECVT)
            || flags.contains(LockFlags::CONVDEADLK)
            || flags.contains(LockFlags::EXPEDITE) && (mode != Mode::NL || flags.contains(LockFlags::NOQUEUE));
        if bad {
            return Err(TableError::Flags { flags, rule: "" });
        }
        if self.name_of(id).is_some() {
            return Err(TableError::Duplicate(id));
        }
        let item = Item {
            id,
            range: range.into(),
            position,
            granted: None,
            wanted: Some(mode),
            flags,
            standing: Standing::Confirmed,
            told: vec![],
            demoted: false,
        };
        let node = self.nodes.entry(name.to_owned()).or_default();
        let place = node.place(&item, flags.contains(LockFlags::HEADQUE), true);
        if let Some((mode, alternative)) = node.first_try(&item, place) {
            let grant = node.grant(item, mode, alternative);
            node.tell_all(effects);
            return Ok(Outcome::Granted(grant));
        }
        if flags.contains(LockFlags::NOQUEUE) {
            if flags.contains(LockFlags::NOQUEUEBAST) {
                node.tell_of(&item, effects);
            }
            self.sweep();
            return Ok(Outcome::Denied(DenyReason::WouldQueue));
        }
        let position = node.insert(item, place);
        node.tell_all(effects);
        Ok(Outcome::Queued { position, demoted: false })
    }

    pub(super) fn convert(
        &mut self,
        id: LockId,
        mode: Mode,
        flags: LockFlags,
        position: u64,
        lvb: LvbUpdate,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, TableError> {
        let mut writes = self.writes;
        let node = self.node_of(id)?;
        let old = node.find(id).unwrap().clone();
        if old.is_possible() {
            return Err(TableError::NotConfirmed(id));
        }
        let (Some(held), None) = (old.granted, old.wanted) else { return Err(TableError::Busy(id)) };
        let bad = flags.contains(LockFlags::EXPEDITE)
            || flags.contains(LockFlags::OWN)
            || flags.contains(LockFlags::CONVDEADLK) && flags.contains(LockFlags::NOQUEUE)
            || flags.contains(LockFlags::QUECVT) && covers(held, mode);
        if bad {
            return Err(TableError::Flags { flags, rule: "" });
        }
        let mut item = Item { wanted: Some(mode), flags, position, ..old.clone() };
        let at_head = flags.contains(LockFlags::HEADQUE);
        let mut place = node.place(&item, at_head, true);
        let mut given = node.first_try(&item, place);
        let deadlock = given.is_none() && !flags.contains(LockFlags::NOQUEUE) && node.deadlocks(&item);
        if deadlock && flags.contains(LockFlags::CONVDEADLK) {
            (item.granted, item.demoted) = (Some(Mode::NL), true);
            item.told.clear();
            let lock = node.find(id).unwrap();
            lock.granted = item.granted;
            lock.told.clear();
            effects.push(Effect::Demoted { lock: id });
            while node.grant_one(true, effects) {}
            place = node.place(&item, at_head, true);
            given = node.first_try(&item, place);
        } else if deadlock && !flags.contains(LockFlags::NODLCKWT) {
            return Ok(Outcome::Denied(DenyReason::Deadlock));
        }
        if given.is_none() && flags.contains(LockFlags::NOQUEUE) {
            if flags.contains(LockFlags::NOQUEUEBAST) {
                node.tell_of(&item, effects);
            }
            return Ok(Outcome::Denied(DenyReason::WouldQueue));
        }
        let keep_position = old.position;
        node.take(id);
        let Some((mode, alternative)) = given else {
            let demoted = item.demoted;
            let position = node.insert(item, place);
            node.serve(effects);
            return Ok(Outcome::Queued { position, demoted });
        };
        item.position = keep_position;
        let mut grant = node.grant(item, mode, alternative);
        if grant.lvb == LvbTransfer::Written {
            grant.lvb = write(node, &mut writes, lvb);
        }
        node.serve(effects);
        self.writes = writes;
        Ok(Outcome::Granted(grant))
    }

    /// Returns what was done to the value block.
    pub(super) fn unlock(
        &mut self,
        id: LockId,
        lvb: LvbUpdate,
        effects: &mut Vec<Effect>,
    ) -> Result<LvbTransfer, TableError> {
        let mut writes = self.writes;
        let node = self.node_of(id)?;
        let item = node.take(id).unwrap();
        let possibly = if item.is_possible() { item.wanted } else { None };
        let strong = [item.granted, possibly].into_iter().flatten().any(|mode| number(mode) >= 4);
        let mut transfer = LvbTransfer::None;
        if node.all().count() > 0 && strong {
            transfer = write(node, &mut writes, lvb);
        }
        node.serve(effects);
        self.writes = writes;
        self.sweep();
        Ok(transfer)
    }

    pub(super) fn cancel(&mut self, id: LockId, effects: &mut Vec<Effect>) -> Result<Option<Option<Mode>>, TableError> {
        let node = self.node_of(id)?;
        let item = node.find(id).unwrap().clone();
        if item.wanted.is_none() {
            return Ok(None);
        }
        let mut item = node.take(id).unwrap();
        (item.wanted, item.demoted) = (None, false);
        let mode = item.granted;
        if mode.is_some() {
            node.holders.push(item);
        }
        node.serve(effects);
        self.sweep();
        Ok(Some(mode))
    }

    pub(super) fn rebast(&mut self, id: LockId, effects: &mut Vec<Effect>) -> Result<(), TableError> {
        let node = self.node_of(id)?;
        node.find(id).unwrap().told.clear();
        node.tell_all(effects);
        Ok(())
    }

    pub(super) fn restate(
        &mut self,
        id: LockId,
        granted: Option<Mode>,
        wanted: Option<Mode>,
        standing: Standing,
        effects: &mut Vec<Effect>,
    ) -> Result<(), TableError> {
        let node = self.node_of(id)?;
        if granted.is_none() && wanted.is_none() {
            return Err(TableError::NoMode(id));
        }
        let mut item = node.take(id).unwrap();
        if granted != item.granted {
            item.told.clear();
        }
        (item.granted, item.wanted, item.standing) = (granted, wanted, standing);
        item.demoted = item.demoted && wanted.is_some();
        if wanted.is_none() || standing == Standing::Possible {
            node.holders.push(item);
        } else {
            let mut place = node.place(&item, false, true);
            let queue = if granted.is_some() { &node.converting } else { &node.waiting };
            while place > 0 && queue[place - 1].position == item.position && queue[place - 1].id > item.id {
                place -= 1;
            }
            node.insert(item, place);
        }
        node.end_deadlocks(effects);
        node.serve(effects);
        Ok(())
    }
}

fn write(node: &mut Node, writes: &mut u64, update: LvbUpdate) -> LvbTransfer {
    let (bytes, valid) = match update {
        LvbUpdate::Keep => return LvbTransfer::None,
        LvbUpdate::Write(bytes) => (bytes, true),
        LvbUpdate::Invalidate => (node.lvb.take().map_or(vec![], |(bytes, ..)| bytes), false),
    };
    *writes += 1;
    node.lvb = Some((bytes, valid, *writes));
    LvbTransfer::Written
}
