//! What the core wants done.

use crate::clock::{MS, SEC};
use crate::coverage::Coverage;
use crate::disk::{Piece, Purpose};
use crate::oracle::{Rule, writers};
use crate::world::{Event, World};
use mxlock_dlm::event::{Event as Said, StopReason};
use mxlock_dlm::io::{ConnId, Input, IoFault, IoId, Output};
use mxlock_dlm::time::BootTime;
use mxlock_format::{NodeState, RECORD_BYTES, SectorImage};
use mxlock_proto::client::{Answer, Denial, Response};
use mxlock_proto::peer::PeerMessage;

impl World {
    /// Carries one output out.
    pub(super) fn carry_out(&mut self, host: usize, output: Output) {
        let now = self.now;
        if self.log.on {
            self.log.line(now, &format!("h{host} -> {}", short(&format!("{output:?}"))));
        }
        let node_uuid = self.hosts[host].node_uuid;
        let Some(daemon) = self.hosts[host].daemon.as_mut() else { return };
        let run = daemon.run;
        match output {
            Output::Heartbeat { image, heartbeat, urgent, begin_by } => {
                let shown = (heartbeat.node, heartbeat.node_uuid);
                let verdict = writers::heartbeat(host, shown, (daemon.node, node_uuid));
                daemon.shown = heartbeat.incarnation;
                daemon.resigned = heartbeat.state == NodeState::Resigned;
                daemon.thread.newest = Some((image, heartbeat));
                daemon.thread.begin_by = begin_by;
                self.judge(Rule::I6, verdict);
                if urgent {
                    self.beat_soon(host);
                }
            }
            Output::BallotsFrom { from } => daemon.thread.ballots_from = Some(from),
            Output::Look => self.beat_soon(host),
            Output::Lease { until } => self.set_page(host, run, until),
            Output::WriteRecord { io, slot, image, deadline } => {
                let bytes = image.map_or_else(|| SectorImage::zeroed().0.to_vec(), |image| image.0.to_vec());
                self.write_records(host, io, slot, bytes, deadline);
            }
            Output::WriteTable { io, first_slot, count, deadline } => {
                let mirror = daemon.core.mirror();
                let mut bytes = Vec::with_capacity(count as usize * RECORD_BYTES);
                for slot in first_slot..first_slot + count {
                    bytes.extend_from_slice(&mirror.image(slot)[..]);
                }
                self.write_records(host, io, first_slot, bytes, deadline);
            }
            Output::ReadTable { io, first_slot, count } => {
                self.read_disk(host, run, Purpose::Core(io), Some((first_slot, count)));
            }
            Output::Quarantine { slot, reason, .. } => {
                self.quarantined(host, slot, &reason);
            }
            Output::NewIncarnation { incarnation } => {
                daemon.incarnation = incarnation;
                self.hosts[host].page_incarnations.insert(run, incarnation);
                self.break_links_of(host);
            }
            Output::Peers(peers) => {
                daemon.peers = peers.into_iter().map(|peer| (peer.node, peer.incarnation)).collect();
                self.check_links_of(host);
            }
            Output::Send { to, frame } => {
                self.hear_denial(&frame);
                if let Some(PeerMessage::Report(report)) = &frame.message
                    && report.last
                {
                    self.oracles.reigns.reported(run, report.epoch);
                }
                self.send_frame(host, to, frame);
            }
            Output::Reply { conn, response, valid_until } => self.reply(host, conn, response, valid_until),
            Output::Close { conn } => self.close_towards_client(conn),
            Output::Watch { process } => {
                daemon.watched.insert(process.pid);
                if !self.process_lives(process.pid) {
                    self.schedule(now + MS, Event::ProcessGone { host, run, process });
                }
            }
            Output::Unwatch { process } => {
                daemon.watched.remove(&process.pid);
            }
            Output::NameProcesses { .. } => unreachable!("no client of the simulator asks who is who"),
            Output::Log(said) => self.hear(host, said),
            Output::Stop { reason } => {
                let node = daemon.node;
                let wait = match reason {
                    StopReason::Shutdown | StopReason::Left => self.setup.stopped_for,
                    _ => daemon.dice.range(500 * MS, 3 * SEC),
                };
                self.trace(|| format!("h{host}: stops: {reason}"));
                if reason == StopReason::Left {
                    self.oracles.orphans.node_left(node);
                }
                self.end_daemon(host);
                self.schedule_start(host, now + wait);
            }
        }
    }

    fn set_page(&mut self, host: usize, run: u32, until: Option<BootTime>) {
        let was_valid = self.hosts[host].page_valid(run, self.now);
        let end = until.map(|until| (until, self.hosts[host].clock.when(until)));
        let length = std::time::Duration::from_millis(self.timing.lease_ms.into());
        let now = self.now;
        let times = (now, self.daemon(host, run).map_or(now, |daemon| daemon.last_core_run));
        let verdict = self.oracles.leases.page(run, end, times, length, self.oracles.views.changed_at());
        self.judge(Rule::Lease, verdict);
        self.hosts[host].pages.insert(run, until);
        if let Some(daemon) = self.daemon(host, run) {
            daemon.leaving = until.is_none() && daemon.asked_to_leave;
        }
        if !was_valid && self.hosts[host].page_valid(run, self.now) {
            self.page_revived(host, run);
        }
    }

    fn write_records(&mut self, host: usize, io: IoId, first: u32, bytes: Vec<u8>, deadline: BootTime) {
        let now = self.now;
        let count = (bytes.len() / RECORD_BYTES) as u32;
        let me = &self.hosts[host];
        let boot = me.clock.boot(now);
        let Some(daemon) = &me.daemon else { return };
        let (run, acts) = (daemon.run, self.acts_as_master(host));
        let verdict = writers::records(host, first, count, acts, daemon.writing.values().copied());
        if boot > deadline {
            self.expire(host, run, io);
            return;
        }
        self.judge(Rule::I6, verdict);
        if let Some(other) = self.other_master(host) {
            self.fail(Rule::I4, format!("host {host} writes records while host {other} acts as master"));
        }
        if let Some(daemon) = self.daemon(host, run) {
            daemon.writing.insert(io, (first, count));
            let by = daemon.shown;
            self.oracles.landing.issued(run, first, count, by);
        }
        let pieces = split(first, bytes, count);
        self.write_disk(host, run, Purpose::Core(io), pieces);
    }

    fn expire(&mut self, host: usize, run: u32, io: IoId) {
        if let Some(daemon) = self.daemon(host, run) {
            daemon.inbox.push_back(Input::Written { io, result: Err(IoFault::Expired) });
        }
    }

    /// Another host's daemon that acts as master now.
    pub fn other_master(&self, host: usize) -> Option<usize> {
        (0..self.hosts.len()).find(|&other| other != host && self.acts_as_master(other))
    }

    /// A reply goes to its client, unless its promise has ended (section 2).
    fn reply(&mut self, host: usize, conn: ConnId, response: Response, valid_until: Option<BootTime>) {
        let boot = self.hosts[host].clock.boot(self.now);
        if let (Some(until), Response::Answer { seq, op, .. }) = (valid_until, &response)
            && boot >= until
        {
            let (seq, op) = (*seq, *op);
            if let Some(daemon) = self.hosts[host].daemon.as_mut() {
                daemon.inbox.push_back(Input::Undelivered { conn, seq, op });
            }
            self.respond(conn, Response::Answer { seq, op, answer: Answer::Denied(Denial::LeaseLost) });
            return;
        }
        if let Response::Answer { seq, answer: Answer::Granted(grant) | Answer::GrantedDemoted(grant), .. } = &response
        {
            if valid_until.is_none() {
                self.fail(Rule::I1, format!("host {host} promises a lock without saying until when"));
            }
            self.check_record_before_telling(host, conn, *seq, grant.mode);
            self.check_reign_before_telling(host, conn, *seq, grant.token);
        }
        if let Response::Answer { seq, op, answer: Answer::Granted(_) | Answer::Unlocked } = &response {
            self.check_value_before_telling(host, conn, *seq, *op);
        }
        self.respond(conn, response);
    }

    /// What a core says happened: coverage, and what the oracle of views needs.
    fn hear(&mut self, host: usize, said: Said) {
        let now = self.now;
        self.log.fold(host as u64);
        self.trace(|| format!("h{host}: {said}"));
        count(&mut self.coverage, &said);
        let Some(daemon) = self.hosts[host].daemon.as_mut() else { return };
        match said {
            Said::SlotConfirmed { node } => self.hosts[host].remembered = Some(node),
            Said::LeaseLost | Said::Excluded { .. } => daemon.leaving = false,
            Said::Resigned { .. } => daemon.resigned = true,
            Said::FencingBlocked { node } => self.asked_to_fence(host, node),
            Said::DeadlockBroken { victim, .. } => self.gives_up_place(victim, 0),
            Said::ViewCommitted { view, own_proposal } => {
                let older = daemon.view.is_some_and(|known| view.epoch < known.epoch);
                daemon.view = Some(view);
                let acts = self.acts_as_master(host);
                if older {
                    self.fail(Rule::I4, format!("host {host} goes back to view {}", view.epoch));
                }
                let table = self.oracles.views.newest().map(|view| view.table_epoch);
                let seen = self.oracles.views.committed(view, now);
                self.judge(Rule::I4, seen);
                if own_proposal {
                    self.judge_choice(host, view.epoch);
                }
                if table < Some(view.table_epoch) {
                    // Older records do not count any more (section 6.3).
                    (0..self.clients.len()).for_each(|client| self.check_records(client));
                }
                if acts && let Some(other) = self.other_master(host) {
                    self.fail(Rule::I4, format!("hosts {host} and {other} both act as master"));
                }
            }
            Said::LeaseRegained { .. } => {
                // A node that leaves keeps its page void: it is for nobody any more.
                if let Some(daemon) = self.hosts[host].daemon.as_mut() {
                    daemon.leaving = daemon.asked_to_leave;
                }
            }
            _ => {}
        }
    }
}

fn count(coverage: &mut Coverage, said: &Said) {
    match said {
        Said::ElectionLost { .. } => coverage.elections_lost += 1,
        Said::ValueAdopted { .. } => coverage.values_adopted += 1,
        Said::LeaseLost => coverage.leases_lost += 1,
        Said::LeaseRegained { .. } => coverage.leases_regained += 1,
        Said::Resigned { .. } => coverage.resignations += 1,
        Said::ClaimsJudged { standing, .. } => coverage.claims_stood += standing,
        Said::ScrubRepaired { .. } => coverage.scrub_repairs += 1,
        Said::RecoveryReports { waiters, possible_holders, .. } => {
            coverage.recoveries_with_waiters += u64::from(*waiters > 0);
            coverage.recoveries_with_possible_holders += u64::from(*possible_holders > 0);
        }
        _ => {}
    }
}

/// Large table writes land in up to four pieces.
fn split(first: u32, bytes: Vec<u8>, count: u32) -> Vec<Piece> {
    if count < 8 {
        return vec![Piece::Records(first, bytes)];
    }
    let part = count.div_ceil(4) as usize;
    bytes
        .chunks(part * RECORD_BYTES)
        .enumerate()
        .map(|(at, chunk)| Piece::Records(first + (at * part) as u32, chunk.to_vec()))
        .collect()
}

pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
