//! What clients believe that they hold, and what must be true of it: I1, I3, and what a daemon may tell them (I4, I9).

use super::{Conn, ConnOwner, World};
use crate::client::Held;
use crate::oracle::exclusion::Belief;
use crate::oracle::values::Values;
use crate::oracle::{Rule, superset};
use mxlock_dlm::io::ConnId;
use mxlock_format::{Incarnation, Mode, Resource, Token};

impl World {
    /// Whether a client believes now that it holds a lock.
    pub fn believes(&self, client: usize, seq: u64) -> bool {
        self.clients[client].locks.get(&seq).is_some_and(|held| held.believed.is_some())
            && self.trusts(client)
            && self.is_of_this_incarnation(client, seq)
    }

    /// Whether the lease page names the incarnation under which a lock was granted.
    fn is_of_this_incarnation(&self, client: usize, seq: u64) -> bool {
        let me = &self.clients[client];
        let (Some(run), Some(held)) = (me.page, me.locks.get(&seq)) else { return false };
        held.incarnation == self.hosts[me.host].page_incarnation(run)
    }

    /// The incarnation that the page of a client names.
    pub fn incarnation_of(&self, client: usize) -> Incarnation {
        let me = &self.clients[client];
        me.page.map_or_else(Incarnation::default, |run| self.hosts[me.host].page_incarnation(run))
    }

    /// Whether a client may rely on its locks now: no loss was told, and its lease page stands.
    pub fn trusts(&self, client: usize) -> bool {
        let me = &self.clients[client];
        me.alive && !me.lease_lost && me.page.is_some_and(|run| self.hosts[me.host].page_valid(run, self.now))
    }

    /// The record of a client's lock was damaged, and the daemon that knew the lock as well is gone: both copies of one
    /// fact (`docs/faults.md`).
    fn lost_with_its_record(&self, client: usize) -> bool {
        let me = &self.clients[client];
        let run = self.hosts[me.host].daemon.as_ref().map(|daemon| daemon.run);
        self.oracles.damage.has_hit(me.session) && me.page != run
    }

    /// The client and number of a lock that is alive.
    pub fn client_of(&self, lock: mxlock_format::LockId) -> Option<(usize, u64)> {
        let client = self.clients.iter().position(|client| client.alive && client.session == Some(lock.session))?;
        self.clients[client].locks.contains_key(&lock.seq).then_some((client, lock.seq))
    }

    /// Changes what a client believes of a lock; a new or stronger belief is checked (I1).
    pub fn set_belief(&mut self, client: usize, seq: u64, mode: Option<Mode>) {
        let Some(held) = self.clients[client].locks.get_mut(&seq) else { return };
        held.believed = mode;
        let (resource, span, transaction) = (held.resource, held.span(), held.transaction);
        let belief = mode.map(|mode| Belief { client, seq, mode, span, transaction });
        self.oracles.exclusion.set(resource, client, seq, belief);
        if mode.is_some() {
            self.check_exclusion(client, seq);
        }
    }

    /// I1 for one lock.
    pub fn check_exclusion(&mut self, client: usize, seq: u64) {
        let Some(held) = self.clients[client].locks.get(&seq) else { return };
        let verdict = self.oracles.exclusion.check(held.resource, client, seq, |belief| {
            self.trusts(belief.client)
                && self.is_of_this_incarnation(belief.client, belief.seq)
                && !self.lost_with_its_record(belief.client)
        });
        self.judge(Rule::I1, verdict);
    }

    /// The records that count for I3: where the disk broke its word, what it promised.
    fn stands_on_disk(
        &self,
        lock: mxlock_format::LockId,
        resource: &Resource,
        range: Option<mxlock_format::ByteRange>,
        mode: Mode,
    ) -> Result<(), String> {
        let promised = |record: &mxlock_format::LockRecord| superset::names(record, lock, resource, range, mode);
        if self.disk.broken.values().flatten().any(promised) {
            return Ok(());
        }
        superset::check(&self.disk.records, self.oracles.views.newest().as_ref(), lock, resource, range, mode)
    }

    /// I3 for one lock, if its client believes in it now.
    pub fn check_record(&mut self, client: usize, seq: u64) {
        if !self.believes(client, seq) {
            return;
        }
        let me = &self.clients[client];
        let (Some(lock), Some(held)) = (me.lock_id(seq), me.locks.get(&seq)) else { return };
        let Some(mode) = held.believed else { return };
        let resource = &self.resources[held.resource];
        let verdict = self.stands_on_disk(lock, resource, held.range, mode);
        self.judge(Rule::I3, verdict);
    }

    /// I3 for all locks of a client, unless a damaged record of it may be written back as it is.
    pub fn check_records(&mut self, client: usize) {
        let locks: Vec<u64> = self.clients[client].locks.keys().copied().collect();
        if !self.oracles.damage.has_hit(self.clients[client].session) {
            locks.into_iter().for_each(|seq| self.check_record(client, seq));
        }
    }

    /// I1 and I3 for all locks of a client, after it began to rely on them again.
    pub fn check_client(&mut self, client: usize) {
        let locks: Vec<u64> = self.clients[client].locks.keys().copied().collect();
        for seq in locks {
            self.check_exclusion(client, seq);
            self.check_record(client, seq);
        }
    }

    /// A lease page that had run out stands again: beliefs that rest on it begin anew.
    pub fn page_revived(&mut self, host: usize, run: u32) {
        let clients: Vec<usize> = (0..self.clients.len())
            .filter(|&client| self.clients[client].host == host && self.clients[client].page == Some(run))
            .collect();
        for client in clients {
            self.check_client(client);
        }
    }

    /// I3 at the moment when a daemon sends a grant.
    pub fn check_record_before_telling(&mut self, host: usize, conn: ConnId, seq: u64, mode: Mode) {
        let Some(Conn { owner: ConnOwner::Client(client), .. }) = self.conns.get(&conn) else { return };
        let me = &self.clients[*client];
        if !me.alive || me.conn != Some(conn) {
            return;
        }
        let (Some(lock), Some(held)) = (me.lock_id(seq), me.locks.get(&seq)) else { return };
        if held.unlocking {
            return;
        }
        let resource = &self.resources[held.resource];
        let verdict = self
            .stands_on_disk(lock, resource, held.range, mode)
            .map_err(|error| format!("host {host} tells a grant: {error}"));
        self.judge(Rule::I3, verdict);
    }

    /// I4 at the moment when a daemon sends a grant: it is not of a master whose time was over.
    pub fn check_reign_before_telling(&mut self, host: usize, conn: ConnId, seq: u64, token: Token) {
        let Some(Conn { owner: ConnOwner::Client(client), run, .. }) = self.conns.get(&conn) else { return };
        let Some(lock) = self.clients[*client].lock_id(seq) else { return };
        let verdict = self.oracles.reigns.told(*run, lock, token);
        self.judge(Rule::I4, verdict.map_err(|error| format!("host {host}: {error}")));
    }

    /// I9 at the moment when a daemon acknowledges an operation that wrote a value, where another client has held a lock on
    /// the resource since before that.
    pub fn check_value_before_telling(&mut self, host: usize, conn: ConnId, seq: u64, op: u32) {
        let Some(Conn { owner: ConnOwner::Client(client), .. }) = self.conns.get(&conn) else { return };
        let writer = *client;
        let Some(held) = self.clients[writer].locks.get(&seq) else { return };
        let Some((value, sent, resent)) = held.ops.get(&op).and_then(|op| Some((op.value?, op.sent, op.resent))) else {
            return;
        };
        let resource = held.resource;
        let stays = (0..self.clients.len()).find(|&other| {
            let since_before = |held: &Held| held.resource == resource && held.told_at < sent && held.ops.is_empty();
            let mut locks = self.clients[other].locks.iter();
            other != writer && locks.any(|(&seq, held)| since_before(held) && self.believes(other, seq))
        });
        let Some(stays) = stays else { return };
        self.coverage.values_carried += 1;
        let promised = self.disk.broken.values().flatten();
        let records = self.disk.records.iter().flatten().chain(promised);
        let of_it = records.filter(|record| record.resource == self.resources[resource]);
        let in_doubt = resent || self.oracles.views.changed_at().is_some_and(|at| at >= sent);
        let verdict = Values::carried(value, in_doubt, of_it);
        self.judge(
            Rule::I9,
            verdict.map_err(|error| format!("host {host}, resource {resource}, held by client {stays}: {error}")),
        );
    }
}
