//! A host and its daemon: the core's driver.

use super::{Crash, DISK, Happening, MS, NETWORK, SOCKET, Time, World};
use mxlock_dlm::Core;
use mxlock_dlm::cluster::candidates;
use mxlock_dlm::config::Config;
use mxlock_dlm::event::Event as Said;
use mxlock_dlm::io::{Beat, BeatRead, BeatWrite, ConnId, ImageId, Input, IoId, Output, Region, TableChunk};
use mxlock_dlm::time::BootTime;
use mxlock_format::{Heartbeat, Incarnation, NodeId, RECORD_BYTES, SectorImage, Uuid, View};
use mxlock_proto::client::{Answer, Denial, Response};
use mxlock_proto::peer::PeerFrame;
use std::collections::BTreeMap;

/// A machine.
pub(super) struct Host {
    pub(super) node: NodeId,
    node_uuid: Uuid,
    boot_id: Uuid,
    pub(super) runs: u32,
    pub(super) daemon: Option<Daemon>,
    /// End of the lease by daemon run.
    pub(super) page: Option<BootTime>,
    /// It refused to start, and said why.
    pub(super) refused: Option<String>,
}

/// A daemon.
pub(super) struct Daemon {
    pub(super) run: u32,
    pub(super) core: Box<Core>,
    incarnation: Incarnation,
    wake_at: Option<Time>,
    peers: BTreeMap<NodeId, Incarnation>,
    pub(super) view: Option<View>,
    newest: Option<(ImageId, Box<Heartbeat>)>,
    hb_seq: u64,
    busy: bool,
    urgent: bool,
    beat_at: Option<Time>,
    started: Time,
    writing: Option<(BeatWrite, SectorImage)>,
}

impl Host {
    pub(super) fn new(node: NodeId, node_uuid: Uuid, boot_id: Uuid) -> Host {
        Host { node, node_uuid, boot_id, runs: 0, daemon: None, page: None, refused: None }
    }
}

impl World<'_> {
    pub(super) fn daemon(&mut self, host: usize, run: u32) -> Option<&mut Daemon> {
        self.hosts[host].daemon.as_mut().filter(|daemon| daemon.run == run)
    }

    pub(super) fn start(&mut self, host: usize) {
        let me = &self.hosts[host];
        let found = candidates(&self.disk.region, Some(me.node), Some(me.node), me.node_uuid, me.boot_id);
        let candidate = match found.map(|all| all.into_iter().next()) {
            Ok(Some(candidate)) => candidate,
            Ok(None) => return self.fail(format!("node {} is given no slot", self.hosts[host].node)),
            Err(error) => {
                self.say(|| format!("h{host}: {error}"));
                self.hosts[host].refused = Some(error.to_string());
                if self.heartbeat_damage.is_none() {
                    self.fail(format!("node {} does not start: {error}", self.hosts[host].node));
                }
                self.heartbeat_damage = Some(true);
                return;
            }
        };
        let run = self.hosts[host].runs + 1;
        // Different from every incarnation that was recorded, which are random.
        let incarnation = Incarnation(0xc4a5_0000_0000_0001 + ((host as u64) << 8) + u64::from(run));
        let config = self.config(host, incarnation);
        let core = Box::new(Core::new(self.clock(), config, candidate, &self.disk.region));
        let me = &mut self.hosts[host];
        me.runs = run;
        me.daemon = Some(Daemon {
            run,
            core,
            incarnation,
            wake_at: None,
            peers: BTreeMap::new(),
            view: None,
            newest: None,
            hb_seq: 0,
            busy: false,
            urgent: false,
            beat_at: None,
            started: 0,
            writing: None,
        });
        self.drain(host);
        self.beat_from(host, self.now);
    }

    fn config(&self, host: usize, incarnation: Incarnation) -> Config {
        let me = &self.hosts[host];
        Config {
            node: me.node,
            superblock: self.superblock.clone(),
            node_uuid: me.node_uuid,
            boot_id: me.boot_id,
            host: format!("crash{}", me.node),
            incarnation,
            seed: incarnation.0,
            addresses: vec![std::net::SocketAddr::from(([10, 77, 0, host as u8 + 1], 7600))],
            ballots_from: Some(BootTime::default()),
            uncertain_until: None,
            fence_wait: true,
            orphan_lifetime_ms: crate::lab::ORPHAN_LIFETIME_MS,
            clear_behind_ms: crate::lab::CLEAR_BEHIND_MS,
            uid: 0,
            pid: 1,
            lockstate: "replay".to_owned(),
            io: "replay".to_owned(),
            scope: "shared".to_owned(),
            version: "replay".to_owned(),
            warnings: Vec::new(),
        }
    }

    /// Hands an input to a core and carries out what it says.
    pub(super) fn tell(&mut self, host: usize, run: u32, input: Input) {
        let now = self.clock();
        let Some(daemon) = self.daemon(host, run) else { return };
        daemon.core.handle(now, input);
        self.drain(host);
    }

    fn drain(&mut self, host: usize) {
        while let Some(daemon) = &mut self.hosts[host].daemon {
            let Some(output) = daemon.core.poll_output() else { break };
            self.carry_out(host, output);
        }
        let now = self.now;
        let Some(daemon) = &mut self.hosts[host].daemon else { return };
        if let Some(BootTime(at)) = daemon.core.next_wakeup() {
            // A core that wants to be woken at once is woken a little later, so that time passes.
            let at = at.max(now + MS / 100);
            if daemon.wake_at.is_none_or(|planned| at < planned || planned <= now) {
                daemon.wake_at = Some(at);
                let run = daemon.run;
                self.schedule(at, Happening::Wake { host, run });
            }
        }
    }

    pub(super) fn wake(&mut self, host: usize, run: u32) {
        let now = self.now;
        let Some(daemon) = self.daemon(host, run) else { return };
        if daemon.wake_at == Some(now) {
            daemon.wake_at = None;
            self.tell(host, run, Input::Tick);
        }
    }

    // ---- the heartbeat thread ----

    fn beat_from(&mut self, host: usize, at: Time) {
        let Some(daemon) = &mut self.hosts[host].daemon else { return };
        daemon.beat_at = Some(at);
        let run = daemon.run;
        self.schedule(at, Happening::Beat { host, run });
    }

    fn beat_soon(&mut self, host: usize) {
        let now = self.now;
        match &mut self.hosts[host].daemon {
            Some(daemon) if daemon.busy => daemon.urgent = true,
            Some(_) => self.beat_from(host, now),
            None => {}
        }
    }

    /// Its turn begins: the newest image is written.
    pub(super) fn beat(&mut self, host: usize, run: u32) {
        let (now, clock) = (self.now, self.clock());
        let Some(daemon) = self.daemon(host, run).filter(|daemon| !daemon.busy && daemon.beat_at == Some(now)) else {
            return;
        };
        daemon.busy = true;
        daemon.urgent = false;
        daemon.beat_at = None;
        daemon.started = now;
        daemon.writing = daemon.newest.as_ref().map(|(image, heartbeat)| {
            daemon.hb_seq += 1;
            let mut stamped = heartbeat.clone();
            stamped.hb_seq = daemon.hb_seq;
            stamped.timestamp_ms = clock.wall_ms;
            stamped.boottime_ns = clock.boot.0;
            let write = BeatWrite { image: *image, hb_seq: daemon.hb_seq, started: clock.boot, result: Ok(()) };
            (write, stamped.encode())
        });
        self.schedule(now + DISK, Happening::BeatLands { host, run });
    }

    /// Its write has ended: the region is read.
    pub(super) fn beat_lands(&mut self, host: usize, run: u32) {
        let now = self.now;
        let node = self.hosts[host].node;
        let Some(daemon) = self.daemon(host, run) else { return };
        if let Some(image) = daemon.writing.as_ref().map(|(_, image)| image.clone()) {
            self.disk.write_heartbeat(node, &image.0);
        }
        let region = self.disk.region.clone();
        self.schedule(now + DISK, Happening::BeatDone { host, run, issued: now, region });
    }

    /// Its read has ended.
    pub(super) fn beat_done(&mut self, host: usize, run: u32, issued: Time, region: Box<Region>) {
        let now = self.now;
        let renew = u64::from(self.superblock.timing.renew_ms) * MS;
        let Some(daemon) = self.daemon(host, run) else { return };
        daemon.busy = false;
        let next = if daemon.urgent { now } else { now.max(daemon.started + renew) };
        let write = daemon.writing.take().map(|(write, _)| write);
        let read = Some(Ok(BeatRead { issued: BootTime(issued), ended: BootTime(now), region }));
        self.beat_from(host, next);
        self.tell(host, run, Input::Beat(Beat { write, read }));
    }

    // ---- what a core wants ----

    fn carry_out(&mut self, host: usize, output: Output) {
        let now = self.now;
        let Some(daemon) = &mut self.hosts[host].daemon else { return };
        let run = daemon.run;
        match output {
            Output::Heartbeat { image, heartbeat, urgent, .. } => {
                daemon.newest = Some((image, heartbeat));
                if urgent {
                    self.beat_soon(host);
                }
            }
            // No daemon of the replay is killed with a write under way.
            Output::BallotsFrom { .. } => {}
            Output::Look => self.beat_soon(host),
            Output::Lease { until } => self.hosts[host].page = until,
            Output::WriteRecord { io, slot, image, deadline } => {
                let bytes = image.map_or_else(|| vec![0; RECORD_BYTES], |image| image.0.to_vec());
                self.write(host, io, slot as usize, bytes, deadline);
            }
            Output::WriteTable { io, first_slot, count, deadline } => {
                let mirror = daemon.core.mirror();
                let mut bytes = Vec::with_capacity(count as usize * RECORD_BYTES);
                (first_slot..first_slot + count).for_each(|slot| bytes.extend_from_slice(&mirror.image(slot)[..]));
                self.write(host, io, first_slot as usize, bytes, deadline);
            }
            Output::ReadTable { io, first_slot, count } => {
                let bytes = self.disk.slots(first_slot as usize, count as usize).to_vec();
                let chunk = TableChunk { first_slot, bytes, unreadable: Vec::new() };
                self.tell_later(now + DISK, host, Input::TableRead { io, result: Ok(chunk) });
            }
            Output::Quarantine { slot, reason, .. } => self.quarantined(slot, &reason),
            Output::NewIncarnation { incarnation } => {
                daemon.incarnation = incarnation;
                self.cut_links(host);
                self.schedule(now, Happening::Links);
            }
            Output::Peers(peers) => {
                daemon.peers = peers.into_iter().map(|peer| (peer.node, peer.incarnation)).collect();
                self.schedule(now, Happening::Links);
            }
            Output::Send { to, frame } => self.send(host, to, frame),
            Output::Reply { conn, response, valid_until } => self.reply(host, conn, response, valid_until),
            Output::Close { conn } => self.hang_up(conn.0),
            Output::Watch { process } => {
                if self.crash == Crash::Power && process == self.history.process {
                    self.tell_later(now + MS, host, Input::ProcessGone { process });
                }
            }
            Output::Unwatch { .. } => {}
            Output::NameProcesses { .. } => unreachable!("no client here asks who is who"),
            Output::Log(said) => self.hear(host, said),
            Output::Stop { reason } => {
                let node = self.hosts[host].node;
                self.fail(format!("the daemon of node {node}, run {run}, stops: {reason}"));
            }
        }
    }

    pub(super) fn tell_later(&mut self, at: Time, host: usize, input: Input) {
        if let Some(run) = self.hosts[host].daemon.as_ref().map(|daemon| daemon.run) {
            self.schedule(at, Happening::Tell { host, run, input: Box::new(input) });
        }
    }

    fn write(&mut self, host: usize, io: IoId, first: usize, bytes: Vec<u8>, deadline: BootTime) {
        let count = bytes.len() / RECORD_BYTES;
        self.check_write(host, first, count, deadline);
        let Some(run) = self.hosts[host].daemon.as_ref().map(|daemon| daemon.run) else { return };
        self.disk.writing.insert((host, io.0, first, count));
        self.schedule(self.now + DISK, Happening::Lands { host, run, io: io.0, first, bytes });
    }

    pub(super) fn lands(&mut self, host: usize, run: u32, io: u64, first: usize, bytes: &[u8]) {
        self.disk.writing.remove(&(host, io, first, bytes.len() / RECORD_BYTES));
        let replaced = self.disk.write_records(self.now, first, bytes);
        self.check_replaced(&replaced);
        self.tell(host, run, Input::Written { io: IoId(io), result: Ok(()) });
    }

    fn hear(&mut self, host: usize, said: Said) {
        self.say(|| format!("h{host}: {said}"));
        match said {
            Said::ViewCommitted { view, .. } => {
                if let Some(daemon) = &mut self.hosts[host].daemon {
                    daemon.view = Some(view);
                }
                self.check_view(host, view);
            }
            Said::DamagedHeartbeat { node, .. } if Some(node.index()) == self.torn => {
                self.heartbeat_damage = Some(true);
            }
            Said::DamagedHeartbeat { node, reason } => {
                self.fail(format!("I11: the sector of node {node} is called damaged, and is not: {reason}"));
            }
            _ => {}
        }
    }

    fn reply(&mut self, host: usize, conn: ConnId, mut response: Response, valid_until: Option<BootTime>) {
        let promised = match &response {
            Response::Answer { seq, op, answer } if answer.is_grant() => Some((*seq, *op)),
            _ => None,
        };
        if let Some((seq, op)) = promised
            && valid_until.is_none_or(|until| until.0 <= self.now)
        {
            self.tell_later(self.now, host, Input::Undelivered { conn, seq, op });
            response = Response::Answer { seq, op, answer: Answer::Denied(Denial::LeaseLost) };
        }
        self.schedule(self.now + SOCKET, Happening::Response { conn: conn.0, response: Box::new(response) });
    }

    // ---- links ----

    /// Connects whom both want it, and cuts what one does not want any more.
    pub(super) fn links(&mut self) {
        let ends: Vec<_> = (0..self.hosts.len())
            .map(|host| {
                let me = &self.hosts[host];
                me.daemon.as_ref().map(|d| (me.node, d.incarnation, d.peers.clone()))
            })
            .collect();
        for a in 0..ends.len() {
            for b in a + 1..ends.len() {
                let wanted = match (&ends[a], &ends[b]) {
                    (Some((a, ai, ap)), Some((b, bi, bp))) => ap.get(b) == Some(bi) && bp.get(a) == Some(ai),
                    _ => false,
                };
                if !wanted {
                    self.cut(a, b);
                } else if !self.links.contains_key(&(a, b)) {
                    self.next += 1;
                    self.links.insert((a, b), self.next);
                    for (one, other) in [(a, b), (b, a)] {
                        if let Some((node, incarnation, _)) = &ends[other] {
                            let up = Input::PeerUp { node: *node, incarnation: *incarnation };
                            self.tell_later(self.now + NETWORK, one, up);
                        }
                    }
                }
            }
        }
    }

    fn cut_links(&mut self, host: usize) {
        for other in 0..self.hosts.len() {
            self.cut(host.min(other), host.max(other));
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a, b)).is_some() {
            for (one, other) in [(a, b), (b, a)] {
                let node = self.hosts[other].node;
                self.tell_later(self.now + NETWORK, one, Input::PeerDown { node });
            }
        }
    }

    fn send(&mut self, host: usize, to: NodeId, frame: Box<PeerFrame>) {
        let Some(other) = self.hosts.iter().position(|host| host.node == to) else { return };
        if let Some(&link) = self.links.get(&(host.min(other), host.max(other))) {
            self.schedule(self.now + NETWORK, Happening::Frame { link, to: other, frame });
        }
    }

    pub(super) fn frame(&mut self, link: u64, to: usize, frame: PeerFrame) {
        if self.links.values().any(|&known| known == link)
            && let Some(run) = self.hosts[to].daemon.as_ref().map(|daemon| daemon.run)
        {
            self.tell(to, run, Input::Peer { node: frame.from, frame });
        }
    }
}
