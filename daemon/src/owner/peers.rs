//! Links with the other daemons: TCP, authenticated and encrypted with the cluster key (DESIGN section 4).
//!
//! Of two nodes the one with the larger number dials. The other one's newest proven link counts: its peer dials again
//! only when it has lost the old one.

use super::clients::Suppressed;
use super::link::{Link, Stage};
use super::slab::Slab;
use super::token::Token;
use super::wake::WakeSet;
use crate::limits::*;
use crate::logging::RateLimit;
use mxlock_disklock::io::EventLoop;
use mxlock_dlm::io::{Input, PeerAddress};
use mxlock_dlm::time::BootTime;
use mxlock_format::{ClusterKey, Incarnation, MAX_NODES, NodeId, Uuid};
use mxlock_proto::noise::{HandshakeError, PeerHandshake, PeerHello};
use mxlock_proto::peer::{PEER_PROTOCOLS, PeerFrame};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Who this node is to its peers.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) node: NodeId,
    /// It changes when the node is admitted anew.
    pub(crate) incarnation: Incarnation,
    pub(crate) lockspace: Uuid,
    pub(crate) key: ClusterKey,
    pub(crate) renew: Duration,
}

/// All links.
#[derive(Debug)]
pub(crate) struct Peers {
    own: Own,
    links: Slab<Link>,
    /// Whom the core wants links with.
    targets: BTreeMap<NodeId, Target>,
    /// The proven link of each node.
    up: [Option<u64>; MAX_NODES],
    /// Links with something to send.
    dirty: Vec<u64>,
    /// When `expire` has something to do.
    next_timer: Option<BootTime>,
    complaints: RateLimit,
}

#[derive(Debug)]
struct Target {
    incarnation: Incarnation,
    addresses: Vec<SocketAddr>,
    next_address: usize,
    /// The link that is being made to it.
    dialling: Option<u64>,
    /// Wait after the next failure of all addresses.
    back_off: Duration,
    dial_at: BootTime,
}

impl Peers {
    pub(crate) fn new(own: Own) -> Peers {
        Peers {
            own,
            links: Slab::default(),
            targets: BTreeMap::new(),
            up: [None; MAX_NODES],
            dirty: Vec::new(),
            next_timer: None,
            complaints: RateLimit::default(),
        }
    }

    /// This node's incarnation is another one now: the old one's links speak for nobody.
    pub(crate) fn set_incarnation(&mut self, incarnation: Incarnation, inputs: &mut VecDeque<Input>) {
        if self.own.incarnation != incarnation {
            self.own.incarnation = incarnation;
            for number in self.links.numbers() {
                self.close(number, inputs);
            }
        }
    }

    /// Keep links with exactly these.
    pub(crate) fn set_targets(&mut self, list: Vec<PeerAddress>, now: BootTime, inputs: &mut VecDeque<Input>) {
        let mut old = std::mem::take(&mut self.targets);
        for PeerAddress { node, incarnation, addresses } in list {
            let target = match old.remove(&node) {
                Some(target) if target.incarnation == incarnation && target.addresses == addresses => target,
                stale => {
                    if let Some(number) = stale.and_then(|target| target.dialling) {
                        self.close(number, inputs);
                    }
                    let back_off = FIRST_REDIAL;
                    Target { incarnation, addresses, next_address: 0, dialling: None, back_off, dial_at: now }
                }
            };
            self.targets.insert(node, target);
            self.drop_link_of(node, |linked| linked != incarnation, inputs);
        }
        for (node, target) in old {
            if let Some(number) = target.dialling {
                self.close(number, inputs);
            }
            self.drop_link_of(node, |_| true, inputs);
        }
        self.wake_at(now);
    }

    fn drop_link_of(&mut self, node: NodeId, which: impl Fn(Incarnation) -> bool, inputs: &mut VecDeque<Input>) {
        if let Some(number) = self.up[node.index()]
            && let Some((_, incarnation)) = self.links.get(number).and_then(|link| link.peer)
            && which(incarnation)
        {
            self.close(number, inputs);
        }
    }

    /// Somebody connected.
    pub(crate) fn accepted(
        &mut self,
        socket: OwnedFd,
        now: BootTime,
        io: &mut dyn EventLoop,
        inputs: &mut VecDeque<Input>,
    ) {
        let socket = TcpStream::from(socket);
        let Ok(address) = socket.peer_addr() else { return };
        if self.unproven() >= MAX_UNPROVEN_PEERS {
            self.complain(
                now,
                address,
                &format_args!("{MAX_UNPROVEN_PEERS} connections have not proven the cluster key"),
            );
            self.close_oldest_unproven(inputs);
        }
        let shaking = PeerHandshake::responder(&self.own.key, self.hello(None));
        match shaking {
            Ok(shaking) => {
                let deadline = now + HANDSHAKE_TIME;
                let number = self.links.insert(|_| Link::accepted(socket, address, shaking, deadline));
                self.wake_at(deadline);
                self.begin(number, io);
            }
            Err(error) => self.complain(now, address, &error),
        }
    }

    fn begin(&mut self, number: u64, io: &mut dyn EventLoop) {
        let renew = self.own.renew;
        let Some(link) = self.links.get_mut(number) else { return };
        link.tune(renew);
        link.stream.receive(io, Token::PeerReceive(number), PEER_RECEIVE_BYTES);
        link.stream.flush(io, Token::PeerSend(number));
    }

    /// Dials whom it is time to dial, and closes what has taken too long. Returns when to come again.
    pub(crate) fn expire(&mut self, now: BootTime, wakes: &WakeSet, inputs: &mut VecDeque<Input>) -> Option<BootTime> {
        if self.next_timer.is_none_or(|timer| now < timer) {
            return self.next_timer;
        }
        self.next_timer = None;
        for number in self.links.numbers() {
            let Some(link) = self.links.get(number) else { continue };
            match link.deadline {
                Some(deadline) if deadline <= now => {
                    let address = link.address;
                    if link.dialled.is_some() {
                        tracing::debug!(%address, "the peer does not answer");
                    } else {
                        self.complain(now, address, &"it has not proven the cluster key in time");
                    }
                    self.fail(number, now, inputs);
                }
                Some(deadline) => self.wake_at(deadline),
                None => {}
            }
        }
        let due: Vec<NodeId> = self.targets.keys().copied().filter(|&node| self.is_to_dial(node)).collect();
        for node in due {
            let dial_at = self.targets[&node].dial_at;
            if dial_at <= now {
                self.dial(node, now, wakes);
            } else {
                self.wake_at(dial_at);
            }
        }
        self.next_timer
    }

    fn is_to_dial(&self, node: NodeId) -> bool {
        node < self.own.node && self.up[node.index()].is_none() && self.targets[&node].dialling.is_none()
    }

    fn dial(&mut self, node: NodeId, now: BootTime, wakes: &WakeSet) {
        let renew = self.own.renew;
        let Some(target) = self.targets.get_mut(&node) else { return };
        let Some(&address) = target.addresses.get(target.next_address % target.addresses.len().max(1)) else { return };
        target.next_address += 1;
        let deadline = now + HANDSHAKE_TIME.min(renew * 4).max(Duration::from_millis(500));
        let dialled = Link::dial(address, node, deadline).and_then(|link| {
            let mut watched = Ok(());
            let number = self.links.insert(|number| {
                watched = link.wake_when_connected(wakes, number);
                link
            });
            watched.map(|()| number).inspect_err(|_| drop(self.links.remove(number)))
        });
        match dialled {
            Ok(number) => {
                target.dialling = Some(number);
                self.wake_at(deadline);
            }
            Err(error) => {
                tracing::debug!(peer = %node, %address, %error, "the peer cannot be dialled");
                self.redial_later(node, now);
            }
        }
    }

    /// After a failure: the next address at once, and after the last one a pause.
    fn redial_later(&mut self, node: NodeId, now: BootTime) {
        let renew = self.own.renew;
        let Some(target) = self.targets.get_mut(&node) else { return };
        target.dialling = None;
        let another_address = !target.next_address.is_multiple_of(target.addresses.len().max(1));
        if another_address {
            target.dial_at = now;
        } else {
            target.dial_at = now + target.back_off;
            target.back_off = (target.back_off * 2).min(renew.max(FIRST_REDIAL));
        }
        let dial_at = target.dial_at;
        self.wake_at(dial_at);
    }

    /// A connect ended, well or not. `index` is the low half of the link's number.
    pub(crate) fn connected(
        &mut self,
        index: u32,
        now: BootTime,
        wakes: &WakeSet,
        io: &mut dyn EventLoop,
        inputs: &mut VecDeque<Input>,
    ) {
        let Some(number) = self.links.numbers().into_iter().find(|&number| number as u32 == index) else { return };
        let hello = self.links.get(number).and_then(|link| link.dialled).map(|node| self.hello(Some(node)));
        let (Some(hello), Some(link)) = (hello, self.links.get_mut(number)) else { return };
        if !matches!(link.stage, Stage::Connecting) {
            return;
        }
        wakes.remove(&link.stream.socket);
        let address = link.address;
        let begun = link.finish_connect().map_err(|e| e.to_string()).and_then(|()| {
            PeerHandshake::initiator(&self.own.key, hello, &mut link.stream.out).map_err(|e| e.to_string())
        });
        match begun {
            Ok(shaking) => {
                link.stage = Stage::Shaking(Box::new(shaking));
                self.begin(number, io);
            }
            Err(error) => {
                tracing::debug!(%address, "the peer cannot be reached: {error}");
                self.fail(number, now, inputs);
            }
        }
    }

    /// A receive ended.
    pub(crate) fn received(
        &mut self,
        number: u64,
        room: Vec<u8>,
        result: io::Result<usize>,
        now: BootTime,
        io: &mut dyn EventLoop,
        inputs: &mut VecDeque<Input>,
    ) {
        let Some(link) = self.links.get_mut(number) else { return };
        if link.stream.is_shut() || !matches!(result, Ok(count) if count > 0) {
            link.stream.received(room);
            if let Err(error) = result {
                tracing::debug!(address = %link.address, %error, "the link broke");
            }
            self.fail(number, now, inputs);
            return;
        }
        let address = link.address;
        let taken = link.take_in(&room, inputs);
        link.stream.received(room);
        match taken {
            Ok(None) => {}
            Ok(Some(peer)) => {
                tracing::debug!(%address, peer = %peer.node, "the link stands");
                self.stands(number, &peer, inputs);
                // What came behind the handshake in the same bytes.
                let more = self.links.get_mut(number).map(|link| link.take_in(&[], inputs));
                if let Some(Err(error)) = more {
                    self.complain(now, address, &error);
                    self.fail(number, now, inputs);
                    return;
                }
            }
            Err(error) => {
                self.complain(now, address, &error);
                // The handshake's last word says to the other side what is wrong.
                if let Some(link) = self.links.get_mut(number) {
                    link.say_last_words();
                }
                self.fail(number, now, inputs);
                return;
            }
        }
        if let Some(link) = self.links.get_mut(number) {
            link.stream.receive(io, Token::PeerReceive(number), PEER_RECEIVE_BYTES);
            link.stream.flush(io, Token::PeerSend(number));
        }
    }

    /// The other side has proven that it knows the key.
    fn stands(&mut self, number: u64, peer: &PeerHello, inputs: &mut VecDeque<Input>) {
        let node = peer.node;
        if let Some(older) = self.up[node.index()].filter(|&older| older != number) {
            self.close(older, inputs);
        }
        self.up[node.index()] = Some(number);
        if let Some(target) = self.targets.get_mut(&node) {
            target.back_off = FIRST_REDIAL;
            target.next_address = 0;
            if target.dialling == Some(number) {
                target.dialling = None;
            }
        }
        inputs.push_back(Input::PeerUp { node, incarnation: peer.incarnation });
    }

    /// A send ended.
    pub(crate) fn sent(
        &mut self,
        number: u64,
        bytes: Vec<u8>,
        result: io::Result<usize>,
        now: BootTime,
        io: &mut dyn EventLoop,
        inputs: &mut VecDeque<Input>,
    ) {
        let Some(link) = self.links.get_mut(number) else { return };
        match link.stream.sent(io, Token::PeerSend(number), bytes, result) {
            Ok(()) => {
                link.stream.flush(io, Token::PeerSend(number));
                self.reap(number);
            }
            Err(error) => {
                tracing::debug!(address = %link.address, %error, "the link broke");
                self.fail(number, now, inputs);
            }
        }
    }

    /// A frame for a peer; without a link it is dropped (the core sends it again after `PeerUp`).
    pub(crate) fn send(&mut self, to: NodeId, frame: &PeerFrame) {
        let Some(number) = self.up[to.index()] else { return };
        let Some(link) = self.links.get_mut(number) else { return };
        match link.push(frame) {
            Ok(true) => self.dirty.push(number),
            Ok(false) => {}
            Err(error) => tracing::error!(peer = %to, "a frame cannot be sent: {error}"),
        }
    }

    /// Encrypts and sends what has gathered.
    pub(crate) fn flush(&mut self, now: BootTime, io: &mut dyn EventLoop, inputs: &mut VecDeque<Input>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for number in dirty.drain(..) {
            let Some(link) = self.links.get_mut(number) else { continue };
            let sealed = link.seal();
            if let Err(error) = sealed {
                tracing::info!(address = %link.address, "{error}");
                self.fail(number, now, inputs);
            } else if link.stream.backlog() > MAX_PEER_BACKLOG_BYTES {
                tracing::warn!(address = %link.address, "the peer does not read: its link is dropped");
                self.fail(number, now, inputs);
            } else {
                link.stream.flush(io, Token::PeerSend(number));
            }
        }
        self.dirty = dirty;
    }

    /// Whether nothing waits to be sent, at the daemon's end.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.links.values_mut().all(|link| !matches!(link.stage, Stage::Up(_)) || link.stream.backlog() == 0)
    }

    /// The link is of no use any more; its node is dialled again if that is this node's part.
    fn fail(&mut self, number: u64, now: BootTime, inputs: &mut VecDeque<Input>) {
        let Some(link) = self.links.get(number) else { return };
        let node = link.dialled.or(link.peer.map(|(node, _)| node));
        self.close(number, inputs);
        if let Some(node) = node
            && let Some(target) = self.targets.get(&node)
            && (target.dialling == Some(number) || self.is_to_dial(node))
        {
            self.redial_later(node, now);
        }
    }

    fn close(&mut self, number: u64, inputs: &mut VecDeque<Input>) {
        let Some(link) = self.links.get_mut(number) else { return };
        link.die();
        if let Some((node, _)) = link.peer
            && self.up[node.index()] == Some(number)
        {
            self.up[node.index()] = None;
            inputs.push_back(Input::PeerDown { node });
        }
        self.reap(number);
    }

    fn reap(&mut self, number: u64) {
        if self.links.get(number).is_some_and(|link| matches!(link.stage, Stage::Dead) && link.stream.is_idle()) {
            self.links.remove(number);
        }
    }

    fn unproven(&mut self) -> usize {
        self.links.values_mut().filter(|link| link.is_unproven()).count()
    }

    fn close_oldest_unproven(&mut self, inputs: &mut VecDeque<Input>) {
        let unproven = self.links.numbers().into_iter().filter(|&n| self.links.get(n).is_some_and(Link::is_unproven));
        let oldest = unproven.min_by_key(|&n| self.links.get(n).and_then(|link| link.deadline));
        if let Some(number) = oldest {
            self.close(number, inputs);
        }
    }

    fn hello(&self, to_node: Option<NodeId>) -> PeerHello {
        PeerHello {
            protocols: PEER_PROTOCOLS,
            lockspace: self.own.lockspace,
            node: self.own.node,
            incarnation: self.own.incarnation,
            to_node,
            feature_level: mxlock_format::FEATURE_LEVEL,
        }
    }

    fn wake_at(&mut self, time: BootTime) {
        self.next_timer = Some(self.next_timer.map_or(time, |timer| timer.min(time)));
    }

    fn complain(&mut self, now: BootTime, address: SocketAddr, what: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.complaints.permit(now) {
            tracing::warn!(%address, "a peer connection is closed: {what}{}", Suppressed(suppressed));
        }
    }
}

/// What is wrong with what came in on a link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Channel(#[from] mxlock_proto::noise::ChannelError),
}
