//! The driver's side of peer links: who keeps a link with whom, how it breaks, what arrives.

use crate::clock::{MS, SEC, US};
use crate::net::{Pair, end_of, pair};
use crate::node::Daemon;
use crate::world::{Event, World};
use mxlock_dlm::io::Input;
use mxlock_format::NodeId;
use mxlock_proto::peer::{Outcome, OutcomeResult, PeerFrame, PeerMessage};

fn wants(from: &Daemon, to: &Daemon) -> bool {
    from.peers.get(&to.node) == Some(&to.incarnation)
}

fn host_at(pair: Pair, end: usize) -> usize {
    [pair.0, pair.1][end]
}

impl World {
    /// Looks at all links of a host: what is wanted and possible is connected, what is not wanted any more is broken.
    pub fn check_links_of(&mut self, host: usize) {
        for other in (0..self.hosts.len()).filter(|&other| other != host) {
            self.check_link(pair(host, other));
        }
    }

    /// Connects or breaks one link, as both daemons wish.
    pub fn check_link(&mut self, pair: Pair) {
        let now = self.now;
        let ends = (self.hosts[pair.0].daemon.as_ref(), self.hosts[pair.1].daemon.as_ref());
        let wanted = matches!(ends, (Some(a), Some(b)) if wants(a, b) && wants(b, a));
        let runs = [ends.0.map_or(0, |d| d.run), ends.1.map_or(0, |d| d.run)];
        let nodes = [ends.0.map(|d| d.node), ends.1.map(|d| d.node)];
        let link = self.net.link(pair);
        if link.conn != 0 && (!wanted || link.runs != runs) {
            self.break_link(pair, 5 * MS);
        }
        let link = self.net.link(pair);
        if !wanted || link.conn != 0 || self.net.is_blocked(pair) {
            return;
        }
        let link = self.net.link(pair);
        // Whoever still believes in the old link does not dial; the other end may.
        let believes = [0, 1].map(|end| link.up[end] != 0 && link.up_runs[end] == runs[end]);
        if believes == [true; 2] || link.not_before > now {
            let at = link.not_before.max(now + 20 * MS);
            self.schedule(at, Event::CheckLink { pair });
            return;
        }
        let conn = self.net.connect();
        let link = self.net.link(pair);
        let delays = [0, 1].map(|_| link.dice.range(100 * US, 60 * MS));
        link.conn = conn;
        link.runs = runs;
        link.nodes = nodes;
        link.last_arrival = delays.map(|delay| now + delay);
        for (end, delay) in delays.into_iter().enumerate() {
            self.schedule(now + delay, Event::LinkUp { pair, conn, end });
        }
    }

    /// One end hears that the link stands; it gives up an older one that it still believed in.
    pub fn link_up(&mut self, pair: Pair, conn: u64, end: usize) {
        let link = self.net.link(pair);
        if link.conn != conn {
            return;
        }
        let (runs, older) = (link.runs, link.up[end]);
        if older != 0 {
            self.coverage.links_replaced += 1;
            self.link_down(pair, end, older);
        }
        let link = self.net.link(pair);
        link.up[end] = conn;
        link.up_runs[end] = runs[end];
        link.up_nodes[end] = link.nodes[1 - end];
        let peer = host_at(pair, 1 - end);
        let Some(daemon) = self.daemon(peer, runs[1 - end]) else { return };
        let input = Input::PeerUp { node: daemon.node, incarnation: daemon.incarnation };
        self.tell(host_at(pair, end), runs[end], input);
    }

    /// Breaks a link; both ends hear of it within `notice`, and connect again later.
    pub fn break_link(&mut self, pair: Pair, notice: u64) {
        let link = self.net.link(pair);
        let hear = [0, 1].map(|_| link.dice.range(1, notice.max(2)));
        let pause = link.dice.range(10 * MS, 300 * MS);
        self.break_link_heard(pair, hear, hear[0].max(hear[1]) + pause);
    }

    /// Breaks a link; the ends hear of it after these times, and may connect again after `pause`.
    pub fn break_link_heard(&mut self, pair: Pair, hear: [u64; 2], pause: u64) {
        let now = self.now;
        let link = self.net.link(pair);
        if link.conn == 0 {
            return;
        }
        link.conn = 0;
        link.not_before = now + pause;
        let up = link.up;
        self.net.stranded.remove(&(pair, 0));
        self.net.stranded.remove(&(pair, 1));
        for end in [0, 1] {
            if up[end] != 0 {
                self.schedule(now + hear[end], Event::LinkDown { pair, end, conn: up[end] });
            }
        }
        self.schedule(now + pause, Event::CheckLink { pair });
    }

    /// One end hears that the link is gone, unless it has taken a newer one since.
    pub fn link_down(&mut self, pair: Pair, end: usize, conn: u64) {
        let link = self.net.link(pair);
        if link.up[end] != conn {
            return;
        }
        link.up[end] = 0;
        // The driver knows its peer by slot, also when that daemon is gone by now.
        let (run, node) = (link.up_runs[end], link.up_nodes[end]);
        if let Some(node) = node {
            self.tell(host_at(pair, end), run, Input::PeerDown { node });
        }
    }

    /// Breaks all links of a host whose daemon has ended.
    pub fn break_links_of(&mut self, host: usize) {
        let notice = if self.hosts[host].on { 50 * MS } else { 6 * SEC };
        for other in (0..self.hosts.len()).filter(|&other| other != host) {
            self.break_link(pair(host, other), notice);
        }
    }

    /// A partition has outlasted the keep-alive. Also where it blocks one direction only: what is not acknowledged is
    /// sent again for a while, then the link counts as broken.
    pub fn partition_noticed(&mut self, pair: Pair) {
        if self.net.is_blocked(pair) {
            self.break_link(pair, SEC);
        }
    }

    /// Sends a frame on the link to `to`, if there is one.
    pub fn send_frame(&mut self, host: usize, to: NodeId, frame: Box<PeerFrame>) {
        let now = self.now;
        let Some(run) = self.hosts[host].daemon.as_ref().map(|daemon| daemon.run) else { return };
        let Some(other) = self.hosts.iter().enumerate().position(|(other, them)| {
            other != host && them.daemon.as_ref().is_some_and(|d| d.node == to && d.incarnation == frame.to_incarnation)
        }) else {
            return;
        };
        let pair = pair(host, other);
        let end = end_of(pair, other);
        let noise = self.setup.noise;
        let link = self.net.link(pair);
        if link.conn == 0 || link.runs[1 - end] != run || link.up[1 - end] != link.conn {
            return;
        }
        let conn = link.conn;
        let (breaks, twice) =
            (link.frames[end].chance(noise.resets_ppm), link.frames[end].chance(noise.duplicates_ppm));
        if self.storm && breaks {
            self.break_link(pair, 2 * SEC);
            return;
        }
        let arrival = self.net.arrival(now, pair, end);
        if self.storm && twice {
            let again = self.net.arrival(now, pair, end);
            self.schedule(again, Event::Frame { pair, conn, end, frame: frame.clone() });
        }
        self.schedule(arrival, Event::Frame { pair, conn, end, frame });
    }

    /// A frame arrives, if its link still stands; in a partition it waits for the end of it.
    pub fn frame_arrives(&mut self, pair: Pair, conn: u64, end: usize, frame: Box<PeerFrame>) {
        let blocked = self.net.blocked.contains(&(pair, end));
        let link = self.net.link(pair);
        if link.conn != conn {
            return;
        }
        if blocked {
            self.net.stranded.entry((pair, end)).or_default().push(frame);
            return;
        }
        let run = link.runs[end];
        let node = frame.from;
        if let Some(PeerMessage::Outcome(Outcome { lock, result: OutcomeResult::Granted { token, .. }, .. })) =
            &frame.message
            && self.oracles.reigns.heard(run, *lock, *token, frame.epoch)
        {
            self.coverage.stale_grants += 1;
        }
        self.tell(host_at(pair, end), run, Input::Peer { node, frame: *frame });
    }

    /// The partition ends in one direction: what was on its way arrives, in order.
    pub fn unblock(&mut self, pair: Pair, end: usize) {
        if !self.net.blocked.remove(&(pair, end)) {
            return;
        }
        let frames = self.net.stranded.remove(&(pair, end)).unwrap_or_default();
        let conn = self.net.link(pair).conn;
        for frame in frames {
            if conn != 0 {
                let arrival = self.net.arrival(self.now, pair, end);
                self.schedule(arrival, Event::Frame { pair, conn, end, frame });
            }
        }
        self.check_link(pair);
    }
}
