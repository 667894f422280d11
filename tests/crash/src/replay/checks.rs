//! What must hold, each rule by its number in DESIGN section 9.

use super::{Crash, MS, RESUMED_WITHIN, STOPPED_FOR, World};
use crate::history::{names, resource};
use mxlock_dlm::time::BootTime;
use mxlock_format::{LockRecord, Mode, Token, View};
use mxlock_proto::client::Grant;

/// The table is at rest when no record was written for so long.
const REST: u64 = 300 * MS;

impl World<'_> {
    /// I1, and I3: nobody else relies on an incompatible lock, and a record names this one.
    pub(super) fn check_belief(&mut self, at: usize, seq: u64) {
        let caller = &self.callers[at];
        let Some(held) = caller.locks.get(&seq) else { return };
        let (Some(mode), Some(session)) = (held.lock.believed(), caller.session()) else { return };
        if !self.trusts(caller) {
            return;
        }
        for (other, them) in self.callers.iter().enumerate() {
            let conflict = them.locks.iter().find(|(other_seq, theirs)| {
                (other, **other_seq) != (at, seq)
                    && theirs.lock.name == held.lock.name
                    && theirs.lock.believed().is_some_and(|theirs| !theirs.compatible(mode))
            });
            if let Some((other_seq, theirs)) = conflict
                && self.trusts(them)
            {
                let why = format!(
                    "I1: on '{}' client {at} holds lock {seq} in {mode}, and client {other} lock {other_seq} in {:?}",
                    held.lock.name, theirs.lock.told
                );
                return self.fail(why);
            }
        }
        let resource = resource(&held.lock.name);
        let named = self.disk.records.iter().flatten().any(|record| names(record, session, &resource, mode));
        if !named && !self.is_torn_away(at, seq) {
            let why = format!("I3: no record names lock {seq} of client {at} on '{}' in {mode}", held.lock.name);
            self.fail(why);
        }
    }

    /// Its record was the sector that the crash tore: what stands there is damage, which blocks whatever has no record.
    fn is_torn_away(&self, at: usize, seq: u64) -> bool {
        self.torn.is_some() && !self.disk.damaged().is_empty() && self.callers[at].locks.contains_key(&seq)
    }

    /// I1 and I3 for all locks of a client that begins to rely on them anew.
    pub(super) fn check_beliefs(&mut self, at: usize) {
        let all: Vec<u64> = self.callers[at].locks.keys().copied().collect();
        for seq in all {
            self.check_belief(at, seq);
        }
    }

    /// I3: records were written over or cleared.
    pub(super) fn check_replaced(&mut self, replaced: &[LockRecord]) {
        for record in replaced {
            for at in 0..self.callers.len() {
                if self.callers[at].session() == Some(record.lock.session) {
                    self.check_beliefs(at);
                }
            }
        }
    }

    /// The greatest token that anybody was told.
    pub(super) fn greatest_token(&self) -> Token {
        let now = self.callers.iter().flat_map(|caller| caller.locks.values().map(|held| held.lock.token));
        let done = self.callers.iter().filter_map(|caller| caller.order);
        now.chain(done).fold(self.history.token, Token::max)
    }

    /// I2: larger than every token told before it was asked for, in the stream or since.
    pub(super) fn check_token(&mut self, at: usize, token: Token, floor: Token) {
        if token <= floor {
            self.fail(format!("I2: client {at} is given token {token:?}, and {floor:?} was told before it asked"));
        }
    }

    /// I8: of two new requests of one host the first one is served first.
    pub(super) fn check_order(&mut self, at: usize) {
        let me = &self.callers[at];
        let (Some(0), Some(token)) = (me.rank, me.order) else { return };
        let overtaken = self.callers.iter().any(|other| {
            other.rank == Some(1)
                && other.host == me.host
                && other.name == me.name
                && other.order.is_some_and(|o| o < token)
        });
        if overtaken {
            let why = format!("I8: the second request of host {} for '{}' was served first", me.host, me.name);
            self.fail(why);
        }
    }

    /// I9: a value that is called valid is the last one that was acknowledged, or one that was on its way then.
    pub(super) fn check_value(&mut self, at: usize, seq: u64, grant: &Grant) {
        let Some(lvb) = grant.lvb.as_ref().filter(|lvb| lvb.valid) else { return };
        let name = &self.callers[at].locks[&seq].lock.name;
        let number = lvb.bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let values = self.history.values.get(name).map_or(&[][..], Vec::as_slice);
        let known = values.iter().position(|value| value.number == number);
        let last = values.iter().rposition(|value| value.acknowledged);
        if known.is_none() || known < last {
            let written = last.map(|last| values[last].number);
            let why = format!("I9: '{name}': {number} is read as valid, and {written:?} was written last");
            return self.fail(why);
        }
        // Whoever held PW or EX and is gone may have changed what the value describes.
        let came_back = |client: u32| self.crash == Crash::Daemons || self.lives_on(client);
        let writer = self.history.clients.iter().find(|(number, client)| {
            let wrote = |mode| matches!(mode, Mode::PW | Mode::EX);
            self.history.trusts(client)
                && client.locks.values().any(|lock| &lock.name == name && lock.believed().is_some_and(wrote))
                && !came_back(**number)
        });
        if let Some((writer, _)) = writer {
            let why = format!("I9: '{name}': {number} is read as valid, but its writer, client {writer}, is gone");
            self.fail(why);
        }
    }

    /// Whether a recorded client's host is still there.
    fn lives_on(&self, client: u32) -> bool {
        match self.crash {
            Crash::Daemons => true,
            Crash::Host(gone) => self.history.clients.get(&client).is_some_and(|client| client.node != gone),
            Crash::Silent | Crash::Power => false,
        }
    }

    /// I4: one view per epoch, over the stream and everything after.
    pub(super) fn check_view(&mut self, host: usize, view: View) {
        let known = *self.views.entry(view.epoch).or_insert(view);
        if known != view {
            self.fail(format!("I4: host {host} has committed {view:?}, and {known:?} was"));
        }
    }

    /// I6: records are written by the master of the newest view, within its lease, and never twice at once.
    pub(super) fn check_write(&mut self, host: usize, first: usize, count: usize, deadline: BootTime) {
        let node = self.hosts[host].node;
        let newest = self.views.values().next_back();
        if newest.is_none_or(|view| view.master != node) {
            self.fail(format!("I6: node {node} writes slot {first}, and the newest view is {newest:?}"));
        }
        if deadline.0 <= self.now || self.hosts[host].page.is_none_or(|until| until.0 <= self.now) {
            self.fail(format!("I6: node {node} writes slot {first} outside its lease"));
        }
        if self.disk.writing.iter().any(|(_, _, at, length)| first < at + length && *at < first + count) {
            self.fail(format!("section 7: slot {first} (+{count}) is written while a write of it is in flight"));
        }
    }

    /// I11: what is damaged is reported, and nothing else is.
    pub(super) fn quarantined(&mut self, slot: u32, reason: &str) {
        self.say(|| format!("slot {slot} is damaged: {reason}"));
        let known = self.unreported.remove(&slot) || self.disk.damaged().contains(&slot);
        if !known {
            self.fail(format!("I11: slot {slot} is called damaged, and is not: {reason}"));
        }
    }

    /// Service resumes in time, or cannot because a heartbeat sector is damaged, which was said.
    pub(super) fn check_progress(&mut self) {
        let passed = self.now - self.began;
        if self.heartbeat_damage.is_some() {
            let granted = self.callers.iter().any(|caller| caller.rank.is_some() && caller.done);
            if granted {
                self.fail("section 4: a heartbeat sector is damaged, and yet there is a new master".to_owned());
            }
            return;
        }
        if passed > RESUMED_WITHIN {
            let why = self.unwell();
            self.fail(format!("service does not resume: {why}"));
        }
    }

    fn unwell(&self) -> String {
        let waiting = self.callers.iter().enumerate().find(|(_, caller)| caller.rank.is_some() && !caller.done);
        let views: Vec<_> = self
            .hosts
            .iter()
            .map(|host| host.daemon.as_ref().and_then(|daemon| daemon.view.map(|v| v.epoch)))
            .collect();
        if let Some((at, caller)) = waiting {
            return format!("client {at} of host {} still waits for '{}'; views {views:?}", caller.host, caller.name);
        }
        let held = self.callers.iter().position(|caller| !caller.locks.is_empty());
        let records: Vec<_> = self.disk.records.iter().flatten().map(|r| (r.lock, r.state, &r.resource)).collect();
        format!("client {held:?} still has locks, damaged {:?}, records {records:?}", self.disk.damaged())
    }

    /// Whether there is nothing left to see.
    pub(super) fn is_over(&self) -> bool {
        if self.heartbeat_damage.is_some() {
            return self.now > self.began + STOPPED_FOR;
        }
        self.resumed_at.is_some_and(|at| self.now > at + REST)
            && self.now > self.disk.last_write + REST
            && self.disk.writing.is_empty()
            && self.callers.iter().all(|caller| caller.locks.is_empty())
            && self.disk.records.iter().all(Option::is_none)
            && self.disk.damaged().is_empty()
    }

    /// I10: at rest the table is what the master remembers. I11: all damage was reported.
    pub(super) fn at_rest(&mut self) {
        if let Some(said) = self.heartbeat_damage {
            self.outcome.stopped = true;
            if !said {
                self.fail("I11: a heartbeat sector is damaged, and nobody says so".to_owned());
            }
            return;
        }
        if let Some(slot) = self.unreported.first() {
            let why = format!("I11: slot {slot} was damaged, and nobody has said so");
            return self.fail(why);
        }
        let master = self.views.values().next_back().map(|view| view.master);
        let Some(host) = self.hosts.iter().position(|host| Some(host.node) == master) else {
            return self.fail("no master at rest".to_owned());
        };
        let Some(daemon) = &self.hosts[host].daemon else { return self.fail("the master is gone".to_owned()) };
        if let Err(error) = daemon.core.check_invariants() {
            return self.fail(format!("the master's memory: {error}"));
        }
        let differs = (0..self.disk.records.len())
            .find(|&slot| daemon.core.mirror().image(slot as u32)[..] != *self.disk.slot(slot));
        if let Some(slot) = differs {
            self.fail(format!("I10: slot {slot} is not what the master remembers"));
        }
    }
}
