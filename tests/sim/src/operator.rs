//! The operator: what people do at the keyboard, in a storm and after it.

use crate::clock::{MS, SEC, Time};
use crate::world::{ConnOwner, Event, World};
use mxlock_format::{Epoch, NodeId, NodeSet};
use mxlock_proto::client::{AdminRequest, Hello, Request};

impl World {
    /// The operator's command on a host.
    pub fn ask_operator(&mut self, host: usize, request: AdminRequest) {
        let Some(conn) = self.open_conn(ConnOwner::Operator(host), host) else { return };
        let hello = Hello::first();
        self.send_request(conn, Request::Hello(hello));
        self.send_request(conn, Request::Admin { id: conn.0, request });
    }

    /// A daemon says that it waits for somebody to declare a node gone (section 5, `wait` is not listed).
    pub fn asked_to_fence(&mut self, host: usize, node: NodeId) {
        if let Some(after) = self.setup.operator.reacts_after {
            self.schedule(self.now + after, Event::PullPlug { host, node });
        }
    }

    /// The operator switches off the machine that had this slot, *then* says so. Without a machine there is nothing to
    /// switch off: it was replaced.
    pub fn pull_plug(&mut self, host: usize, node: NodeId) {
        let newest = self.oracles.views.newest();
        if !newest.is_some_and(|view| view.members.contains(node)) {
            return;
        }
        let owners = self.owners_of(node);
        let works = |&host: &usize| {
            let me = &self.hosts[host];
            me.daemon.as_ref().is_some_and(|daemon| daemon.node == node && me.page_valid(daemon.run, self.now))
        };
        if owners.iter().any(works) {
            return;
        }
        self.coverage.plugs_pulled += 1;
        let acks_after = self.setup.operator.acks_after;
        for owner in owners {
            self.crash_host(owner, acks_after + 2 * SEC);
        }
        self.schedule(self.now + acks_after, Event::FenceAck { host, node });
    }

    /// `mxlock fence-ack NODE`, while every machine that it can be is off.
    pub fn fence_ack(&mut self, host: usize, node: NodeId) {
        if self.owners_of(node).iter().all(|&owner| !self.hosts[owner].on) {
            self.oracles.judgement.permit(node);
            self.ask_operator(host, AdminRequest::FenceAck { node });
        }
    }

    /// The hosts whose daemon has, or last had, this slot; a clone and its original both.
    fn owners_of(&self, node: NodeId) -> Vec<usize> {
        let has = |host: &crate::node::Host| match &host.daemon {
            Some(daemon) => daemon.node == node,
            None => host.remembered == Some(node),
        };
        (0..self.hosts.len()).filter(|&at| has(&self.hosts[at])).collect()
    }

    /// The storm is over: everything is put right, and nobody asks for anything new.
    pub fn heal(&mut self) {
        self.storm = false;
        self.trace(|| "*** the storm is over".to_owned());
        let now = self.now;
        self.disk.stalled_until = now;
        self.disk.path_stalled_until.fill(now);
        (0..self.hosts.len()).for_each(|host| self.oracles.judgement.sees(host, now));
        self.troubles.end_all();
        self.disk.writes.retain(|_, write| !write.overdue);
        self.net.slow_until.clear();
        self.silent_until.fill(now);
        for (pair, end) in self.net.blocked.clone() {
            self.unblock(pair, end);
        }
        for client in 0..self.clients.len() {
            // Those of late hosts may not have come at all yet.
            self.schedule(now + SEC, Event::Connect { client });
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].asleep_until = now;
            self.hosts[host].power = None;
            self.end_clone(host);
            if let Some(run) = self.hosts[host].daemon.as_ref().map(|daemon| daemon.run) {
                self.resume(host, run);
            }
            self.power_on(host);
            if self.hosts[host].daemon.is_none() {
                // A slot whose owner was replaced while no master lived can be given to nobody: any other will do.
                self.hosts[host].wish = None;
            }
            if self.hosts[host].daemon.is_none() && self.hosts[host].starting.is_none() {
                self.schedule_start(host, now + 10 * MS);
            }
        }
    }

    /// After the storm the operator does, every few seconds, what `mxlock status` asks for: he vouches for members that
    /// no machine is any more. The machines themselves are all on, and speak for themselves.
    pub fn tend(&mut self, healed_for: Time) {
        self.tend_damage(healed_for);
        if self.setup.fence_wait || healed_for < 20 * SEC {
            return;
        }
        // As the daemons know them: a newer view may have been chosen by somebody who is no more.
        let views = self.hosts.iter().filter_map(|host| host.daemon.as_ref()?.view);
        let members = views.fold(NodeSet::EMPTY, |all, view| NodeSet(all.0 | view.members.with(view.master).0));
        let owned = |node: NodeId| self.hosts.iter().any(|host| host.daemon.as_ref().is_some_and(|d| d.node == node));
        let gone: Vec<NodeId> = members.iter().filter(|&node| !owned(node)).collect();
        for node in gone {
            self.oracles.judgement.permit(node);
            for host in 0..self.hosts.len() {
                self.ask_operator(host, AdminRequest::FenceAck { node });
            }
        }
    }

    /// A heartbeat sector that no daemon writes stays damaged, and may have held the only accepted value: the operator
    /// stops all daemons, waits, and formats the lockstate anew.
    fn tend_damage(&mut self, healed_for: Time) {
        let written =
            |node: NodeId| self.hosts.iter().any(|host| host.daemon.as_ref().is_some_and(|daemon| daemon.node == node));
        let hopeless = NodeId::all().any(|node| self.disk.heartbeats[node.index()].is_err() && !written(node));
        if self.formats_at.is_none() && hopeless && healed_for > 15 * SEC {
            self.trace(|| "*** the operator stops all daemons to format the lockstate anew".to_owned());
            self.coverage.reformats += 1;
            for host in 0..self.hosts.len() {
                self.end_daemon(host);
                self.hosts[host].start_at = None;
            }
            // `mxlockd format` watches the old lockstate for D before it writes.
            let at = self.now + 2 * u64::from(self.timing.dead_ms) * MS;
            self.formats_at = Some(at);
            self.schedule(at, Event::Format);
        }
    }

    /// `mxlockd format --force`: another lockspace uuid, an epoch above all that the old one has seen.
    pub fn format(&mut self) {
        let highest =
            self.disk.heartbeats.iter().flatten().map(|heartbeat| heartbeat.epoch.max(heartbeat.block.instance));
        // As `disklock/src/format.rs`: damaged sectors may have known newer epochs.
        let jump = if self.disk.heartbeats.iter().any(Result::is_err) { 10_000 } else { 0 };
        let base = Epoch(highest.max().map_or(500_000, |highest| highest.next().0) + jump);
        let mut dice = self.dice("format", self.now);
        self.superblock.uuid = dice.uuid();
        let superblock = self.superblock.clone();
        self.disk.format(&superblock, base);
        self.oracles.damage = crate::oracle::damage::Damage::default();
        self.oracles.orphans = crate::oracle::release::Orphans::default();
        self.oracles.views.formatted(base);
        self.trace(|| format!("*** formatted anew, above {base}"));
        for host in 0..self.hosts.len() {
            let me = &mut self.hosts[host];
            (me.remembered, me.wish, me.starting) = (None, None, None);
            self.schedule_start(host, self.now + dice.range(100 * MS, 3 * SEC));
        }
    }
}
