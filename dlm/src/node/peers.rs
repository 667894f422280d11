//! Links with the other nodes, and what comes in on them.

use super::*;
use crate::event::PeerFault;
use crate::io::PeerAddress;
use crate::planted::{Bug, planted};
use mxlock_format::NodeSet;

impl Core {
    fn identity(&self) -> Identity {
        Identity { node: self.config.node, incarnation: self.cluster.incarnation() }
    }

    /// Keeps links with every node whose heartbeat is alive: the disk is the only configuration.
    pub(super) fn watch_peers(&mut self) {
        if !self.cluster.is_slot_confirmed() {
            return;
        }
        let mut peers = Vec::new();
        let me = self.config.node;
        for node in NodeId::all().filter(|node| *node != me) {
            let Some(heartbeat) = self.cluster.heartbeat(node).filter(|heartbeat| heartbeat.state.is_active()) else {
                continue;
            };
            if self.cluster.silence(node, self.now.boot).is_some_and(|silence| silence >= self.dead) {
                continue;
            }
            let incarnation = heartbeat.incarnation;
            let addresses = heartbeat.addresses.clone();
            // The handshake may know a newer incarnation than the last read.
            if self.seen[node.index()] != Some(incarnation) {
                self.seen[node.index()] = Some(incarnation);
                self.link_with(node, incarnation);
            }
            peers.push(PeerAddress { node, incarnation, addresses });
        }
        if peers != self.peers {
            self.peers.clone_from(&peers);
            self.out.push_back(Output::Peers(peers));
        }
    }

    /// The conversation with an incarnation. The one before it is kept: a read that is out of date may show it for a
    /// moment, and the peer, who has noticed nothing, goes on where it was.
    fn link_with(&mut self, node: NodeId, incarnation: Incarnation) -> &mut Link {
        let now = self.now.boot;
        let (link, before) = (&mut self.links[node.index()], &mut self.links_before[node.index()]);
        if link.as_ref().is_none_or(|link| link.incarnation() != incarnation) {
            let again = before.take_if(|before| before.incarnation() == incarnation);
            *before = link.take();
            if let Some(before) = before {
                before.disconnected(now);
            }
            *link = again;
        }
        link.get_or_insert_with(|| Link::new(node, incarnation, now))
    }

    pub(super) fn peer_up(&mut self, node: NodeId, incarnation: Incarnation) {
        let (now, timing, me) = (self.now.boot, self.link_timing, self.identity());
        let mut frames = Vec::new();
        self.link_with(node, incarnation).connected(now, timing, me, &mut frames);
        self.push_frames(node, frames);
        self.reachability_changed();
        if self.cluster.wants_join().is_some() && self.cluster.view().is_some_and(|view| view.master == node) {
            self.send_join();
        }
    }

    pub(super) fn peer_down(&mut self, node: NodeId) {
        if let Some(link) = &mut self.links[node.index()] {
            link.disconnected(self.now.boot);
        }
        self.reachability_changed();
        self.cluster.peer_lost(self.now.boot, node);
    }

    fn reachability_changed(&mut self) {
        let up = |node: &NodeId| self.links[node.index()].as_ref().is_some_and(Link::is_up);
        let reachable: NodeSet = NodeId::all().filter(up).collect();
        self.cluster.set_reachable(reachable);
    }

    fn push_frames(&mut self, to: NodeId, frames: Vec<PeerFrame>) {
        self.out.extend(frames.into_iter().map(|frame| Output::Send { to, frame: Box::new(frame) }));
    }

    pub(super) fn send_to(&mut self, node: NodeId, epoch: Epoch, message: PeerMessage) {
        let (now, timing, me) = (self.now.boot, self.link_timing, self.identity());
        let mut frames = Vec::new();
        if let Some(link) = &mut self.links[node.index()] {
            link.send(now, timing, me, epoch, message, &mut frames);
        }
        self.push_frames(node, frames);
    }

    pub(super) fn links_on_time(&mut self) {
        let (now, timing, me) = (self.now.boot, self.link_timing, self.identity());
        for node in NodeId::all() {
            let mut frames = Vec::new();
            if let Some(link) = &mut self.links[node.index()] {
                link.on_time(now, timing, me, &mut frames);
            }
            self.push_frames(node, frames);
        }
    }

    pub(super) fn tell_others_to_look(&mut self) {
        for node in NodeId::all() {
            if self.links[node.index()].as_ref().is_some_and(Link::is_up) {
                self.send_to(node, Epoch(0), PeerMessage::Look);
            }
        }
    }

    /// Asks the master for admission or confirmation, again and again until it comes.
    pub(super) fn send_join(&mut self) {
        self.join_due = None;
        let Some(above) = self.cluster.wants_join() else { return };
        self.join_due = Some(self.now.boot + self.renew);
        let Some(view) = self.cluster.view() else { return };
        let master = view.master;
        if master != self.config.node && self.links[master.index()].as_ref().is_some_and(Link::is_up) {
            self.send_to(master, Epoch(0), PeerMessage::Join { above });
        }
    }

    pub(super) fn peer_frame(&mut self, node: NodeId, frame: PeerFrame) {
        let (now, timing, me) = (self.now.boot, self.link_timing, self.identity());
        let for_master = matches!(
            frame.message,
            Some(
                PeerMessage::Report(_)
                    | PeerMessage::Operation(_)
                    | PeerMessage::Session { .. }
                    | PeerMessage::Claim(_)
            )
        );
        let to_be_read = |view: &View| view.epoch < frame.epoch || !view.members.contains(node);
        if for_master && self.cluster.view().is_some_and(to_be_read) {
            // Said to the master that this node is, or by the member that its sender is, in a view that has still to be read:
            // not acknowledged, so that it comes again. Whoever was excluded comes again as another one.
            return self.cluster.look(now);
        }
        let Some(link) = &mut self.links[node.index()] else { return };
        let mut frames = Vec::new();
        let received = link.receive(now, timing, me, frame, &mut frames);
        self.push_frames(node, frames);
        let result = match received {
            Ok(Some((epoch, message))) => self.peer_message(node, epoch, message),
            Ok(None) => Ok(()),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = result {
            self.out.push_back(Output::Log(Event::PeerFault { node, fault }));
        }
    }

    fn peer_message(&mut self, node: NodeId, epoch: Epoch, message: PeerMessage) -> Result<(), PeerFault> {
        let incarnation = self.links[node.index()].as_ref().expect("the link it came on").incarnation();
        match message {
            PeerMessage::Join { above } => self.cluster.admit(self.now.boot, node, incarnation, above),
            PeerMessage::Admitted { view } => {
                if (view.master, view.master_incarnation) != (node, incarnation) {
                    return Err(PeerFault::NotMaster);
                }
                self.cluster.admitted(self.now.boot, view);
            }
            PeerMessage::Look => self.cluster.look(self.now.boot),
            PeerMessage::Ask { id, process, request } => self.asked_by_peer(node, id, process, request),
            PeerMessage::Reply { id, reply } => self.answered_by_peer(node, id, reply),
            PeerMessage::Report(_)
            | PeerMessage::Operation(_)
            | PeerMessage::Session { .. }
            | PeerMessage::Claim(_) => {
                // Said to the master of another reign: the sender will say it to the next one.
                let counts = |master: &&mut Box<Master>| master.reign() == epoch || planted(Bug::StaleReignAccepted);
                if let Some(master) = self.master.as_mut().filter(counts) {
                    master.handle(self.now, node, incarnation, message);
                }
            }
            PeerMessage::Outcome(_)
            | PeerMessage::Queued { .. }
            | PeerMessage::Bast { .. }
            | PeerMessage::Claimed(_)
            | PeerMessage::Inherit { .. }
            | PeerMessage::Lost { .. } => {
                let from_master = self.cluster.view().is_some_and(|view| {
                    (view.master, view.master_incarnation, reign_of(view)) == (node, incarnation, epoch)
                });
                // From the report to a newer master on, nothing of an older one counts (section 6).
                let counts = from_master && self.member.reported() == Some(epoch);
                if counts || planted(Bug::StaleReignAccepted) {
                    self.master_says(message);
                }
            }
        }
        Ok(())
    }

    /// Isolation, and a master that others cannot reach (section 4). Once a beat.
    pub(super) fn judge_links(&mut self) {
        let Some(view) = self.cluster.view().copied() else { return };
        let now = self.now.boot;
        if view.master != self.config.node {
            let cut_off = self.links[view.master.index()]
                .as_ref()
                .is_none_or(|link| !link.is_up() && now.since(link.down_since) >= self.dead);
            // A master that is silent on the disk as well is dead or dying: that is a failover, which clients wait for.
            let beats = self.cluster.silence(view.master, now).is_some_and(|silence| silence < self.renew * 2);
            if cut_off && beats && !self.isolated && self.cluster.is_member() {
                self.isolated = true;
                self.out.push_back(Output::Log(Event::Isolated { master: view.master }));
                self.member.deny_waiting(Denial::Isolated);
            }
            let reachable = self.links[view.master.index()].as_ref().is_some_and(Link::is_up);
            self.isolated &= !reachable;
        }
        let refusal = self.isolated.then_some(Denial::Isolated);
        self.member.refuse(refusal);
        self.yield_if_unreachable(&view);
    }

    /// A master that most members cannot reach, while they reach each other, resigns to the best connected one.
    fn yield_if_unreachable(&mut self, view: &View) {
        let now = self.now.boot;
        if !self.is_granting(self.now) || self.handover.is_some() {
            return;
        }
        let alive = |node: &NodeId| {
            *node != self.config.node
                && self.cluster.member_incarnation(*node).is_some()
                && self.cluster.silence(*node, now).is_some_and(|silence| silence < self.renew * 2)
        };
        let others: NodeSet = view.members.iter().filter(alive).collect();
        let long_down = |node: &NodeId| {
            self.links[node.index()]
                .as_ref()
                .is_none_or(|link| !link.is_up() && now.since(link.down_since) >= self.renew * 3)
        };
        let cut = others.iter().filter(long_down).count();
        if cut * 2 <= others.len() {
            return;
        }
        let degree = |node: NodeId| {
            let reach = self.cluster.heartbeat(node).map_or(NodeSet::EMPTY, |heartbeat| heartbeat.reachable);
            NodeSet(reach.0 & others.0).without(node).len()
        };
        let best = others.iter().max_by_key(|node| (degree(*node), std::cmp::Reverse(*node)));
        if let Some(best) = best.filter(|best| degree(*best) > others.len() - cut) {
            self.hand_over(Some(best));
        }
    }
}
