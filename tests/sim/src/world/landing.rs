//! What lands on the disk, and what the oracles of views, exclusions and records make of it.

use super::World;
use crate::clock::MS;
use crate::disk::{Changed, Piece};
use crate::faults::Fault;
use crate::node::Host;
use crate::oracle::landing::Landing;
use crate::oracle::{Rule, stamps};
use mxlock_format::{Epoch, LockState, Phase};

impl World {
    /// A piece of a write has reached the disk: the oracles of views and records look at it.
    pub fn landed(&mut self, run: u32, piece: Piece) {
        let now = self.now;
        let Piece::Heartbeat(node, _) = &piece else {
            if let Piece::Records(first, _) = &piece
                && self.setup.fence_wait
            {
                // A machine that an operator has switched off was vouched for at once: then a write may come later.
                let verdict = self.oracles.landing.landed(run, *first, self.oracles.views.newest().as_ref());
                self.judge(Rule::I6, verdict);
            }
            let changed = self.disk.land(&piece);
            return self.records_changed(changed);
        };
        let node = node.index();
        let before = self.disk.heartbeats[node].clone();
        self.disk.land(&piece);
        let Ok(after) = &self.disk.heartbeats[node] else { return };
        self.log.fold(after.hb_seq);
        let verdict = match &before {
            // A failed write that lands late goes back in time: that is the disk's doing, not its owner's.
            Ok(before) if before.incarnation == after.incarnation && after.hb_seq < before.hb_seq => {
                after.view.map_or(Ok(()), |view| self.oracles.views.committed(view, now))
            }
            Ok(before) => self.oracles.views.landed(before, after, now),
            Err(_) => Ok(()),
        };
        self.judge(Rule::I4, verdict);
        self.judge_exclusion(node);
        if let Ok(after) = self.disk.heartbeats[node].clone() {
            let verdict = self.oracles.ballots.landed(&after, &self.disk.heartbeats);
            self.judge(Rule::I4, verdict);
            let newest = self.oracles.views.newest();
            let verdict = Landing::resigned(&after, newest.as_ref(), self.disk.has_record_writes_of(run));
            self.judge(Rule::I6, verdict);
            self.ballot_landed(before.as_ref().ok(), &after);
        }
    }

    /// I5: whether what a heartbeat that has just landed carries excludes somebody without reason.
    fn judge_exclusion(&mut self, node: usize) {
        let now = self.now;
        let Ok(heartbeat) = &self.disk.heartbeats[node] else { return };
        let dead = u64::from(self.timing.dead_ms) * MS;
        self.oracles.judgement.landed(heartbeat.node, now, dead);
        let Some(value) = heartbeat.block.value else { return };
        let owner = |host: &Host| host.daemon.as_ref().is_some_and(|daemon| daemon.shown == value.master_incarnation);
        let (Some(before), Some(judge)) = (self.oracles.views.before(value.epoch), self.hosts.iter().position(owner))
        else {
            return;
        };
        if heartbeat.node != value.master || !self.oracles.judgement.is_new(&value) {
            return;
        }
        // A little less, for rounding.
        let limit = self.hosts[judge].clock.true_length(dead) - MS;
        let limit = self.setup.fence_wait.then_some(limit);
        let verdict = self.oracles.judgement.proposed(&before, &value, judge, now, limit);
        self.judge(Rule::I5, verdict);
    }

    /// I4: a host says that its own proposal was chosen.
    pub fn judge_choice(&mut self, host: usize, epoch: Epoch) {
        let Some(node) = self.hosts[host].daemon.as_ref().map(|daemon| daemon.node) else { return };
        let Ok(own) = &self.disk.heartbeats[node.index()] else { return };
        let verdict = self.oracles.ballots.chosen(own, epoch, &self.disk.heartbeats);
        self.judge(Rule::I4, verdict);
    }

    /// A sector of a write is left half written.
    pub fn torn(&mut self, piece: &Piece, sector: usize, keep: usize) {
        let changed = self.disk.tear(piece, sector, keep);
        self.records_changed(changed);
    }

    /// A bit of a record flips.
    pub fn rot_record(&mut self, slot: u32, bit: usize) {
        let before = self.disk.records[slot as usize].as_ref().map(|record| record.lock);
        self.disk.rot_record(slot, bit);
        self.look_for_damage(slot, before);
    }

    fn look_for_damage(&mut self, slot: u32, before: Option<mxlock_format::LockId>) {
        let sound =
            self.disk.records[slot as usize].is_some() || self.disk.record_bytes(slot).iter().all(|byte| *byte == 0);
        self.oracles.damage.landed(slot, sound);
        if let Some(lock) = before.filter(|_| !sound) {
            self.oracles.orphans.damaged(lock);
            self.oracles.damage.hits(lock.session);
        }
    }

    /// Records have changed on the disk: the oracles of records look at them.
    pub fn records_changed(&mut self, all: Vec<Changed>) {
        for changed in all {
            self.log.fold(u64::from(changed.slot));
            self.look_for_damage(changed.slot, changed.before.as_ref().map(|record| record.lock));
            let after = self.disk.records[changed.slot as usize].clone();
            if let Some(record) = &after {
                self.log.fold(record.token.0);
                if record.state == LockState::Waiting
                    && let Some((client, seq)) = self.client_of(record.lock)
                    && let Some(held) = self.clients[client].locks.get(&seq)
                    && held.ops.get(&0).is_some_and(|op| op.plain)
                {
                    self.oracles.order.queued(record.lock, held.resource);
                }
            }
            if let (Some(before), Some(after), None) = (&changed.before, &after, &changed.promised)
                && self.oracles.views.newest().is_some_and(|view| view.phase == Phase::Recovering)
            {
                let known = self.client_of(before.lock).is_some();
                let verdict = stamps::rewritten(before, after, self.oracles.views.newest().as_ref(), known);
                self.judge(Rule::Stamps, verdict);
            }
            if let Some(before) = changed.before
                && let Some((client, seq)) = self.client_of(before.lock)
            {
                // The record may have stood for a later lock of the same session, too.
                let affected: Vec<u64> = self.clients[client]
                    .locks
                    .iter()
                    .filter(|(other, held)| **other == seq || self.resources[held.resource] == before.resource)
                    .map(|(&other, _)| other)
                    .collect();
                for seq in affected {
                    self.check_record(client, seq);
                }
            }
        }
    }

    /// A core has found a damaged record: there must be one, or it cannot be read.
    pub fn quarantined(&mut self, host: usize, slot: u32, reason: &str) {
        self.coverage.quarantined += 1;
        let trouble = self.kinds.iter().any(|kind| {
            matches!(kind, Fault::RotRecord | Fault::TornWrites | Fault::ReadErrors | Fault::LosePath | Fault::LoseDisk)
        }) || self.setup.noise.torn_ppm > 0;
        let verdict = self.oracles.damage.said(host, slot, reason, trouble);
        self.judge(Rule::I11, verdict);
    }
}
