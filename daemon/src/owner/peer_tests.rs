//! Links between two daemons of one process, over real sockets.

use super::peers::{Own, Peers};
use super::token::Token;
use super::wake::{Wake, WakeSet};
use mxlock_disklock::boottime_ns;
use mxlock_disklock::io::{EpollLoop, Event, EventLoop, Outcome};
use mxlock_dlm::io::{Input, PeerAddress};
use mxlock_dlm::time::BootTime;
use mxlock_format::{ClusterKey, Epoch, Geometry, Incarnation, NodeId, SectorSize, Uuid};
use mxlock_proto::peer::{PeerFrame, PeerMessage};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// One daemon's half.
struct Side {
    node: NodeId,
    incarnation: Incarnation,
    peers: Peers,
    io: EpollLoop,
    wakes: WakeSet,
    listener: TcpListener,
    inputs: VecDeque<Input>,
    heard: Vec<Input>,
}

fn now() -> BootTime {
    BootTime(boottime_ns())
}

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

impl Side {
    fn new(number: u32, incarnation: u64, key: u8) -> Side {
        let own = Own {
            node: node(number),
            incarnation: Incarnation(incarnation),
            lockspace: Uuid([7; 16]),
            key: ClusterKey([key; 32]),
            // Four of them are the patience with a handshake.
            renew: Duration::from_secs(2),
        };
        let geometry = Geometry { sector: SectorSize::S512, slot_count: 64 };
        let mut io = EpollLoop::new(tempfile::tempfile().unwrap(), geometry).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let wakes = WakeSet::new().unwrap();
        io.accept(listener.as_fd(), Token::PeerAccept.into());
        io.poll_readable(wakes.as_fd(), Token::Wake.into());
        let (node, incarnation) = (own.node, own.incarnation);
        Side {
            node,
            incarnation,
            peers: Peers::new(own),
            io,
            wakes,
            listener,
            inputs: VecDeque::new(),
            heard: Vec::new(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn target(&self) -> PeerAddress {
        PeerAddress { node: self.node, incarnation: self.incarnation, addresses: vec![self.address()] }
    }

    fn keep(&mut self, targets: Vec<PeerAddress>) {
        self.peers.set_targets(targets, now(), &mut self.inputs);
    }

    fn turn(&mut self) {
        self.peers.expire(now(), &self.wakes, &mut self.inputs);
        let mut events = Vec::new();
        self.io.wait(Some(Duration::from_millis(1)), &mut events).unwrap();
        let (io, inputs) = (&mut self.io, &mut self.inputs);
        for Event { token, outcome } in events {
            match (Token::from(token), outcome) {
                (Token::PeerAccept, Outcome::Accepted(socket)) => {
                    self.peers.accepted(socket.unwrap(), now(), io, inputs);
                    io.accept(self.listener.as_fd(), token);
                }
                (Token::Wake, _) => {
                    let mut woken = Vec::new();
                    self.wakes.take(&mut woken);
                    for wake in woken {
                        let Wake::Connected(index) = wake else { panic!("{wake:?}") };
                        self.peers.connected(index, now(), &self.wakes, io, inputs);
                    }
                    io.poll_readable(self.wakes.as_fd(), token);
                }
                (Token::PeerReceive(n), Outcome::Received { buf, result }) => {
                    self.peers.received(n, buf, result, now(), io, inputs);
                }
                (Token::PeerSend(n), Outcome::Sent { buf, result }) => {
                    self.peers.sent(n, buf, result, now(), io, inputs);
                }
                other => panic!("{other:?}"),
            }
        }
        self.peers.flush(now(), &mut self.io, &mut self.inputs);
        self.heard.extend(self.inputs.drain(..));
    }

    /// How often this was heard.
    fn ups(&self) -> usize {
        self.heard.iter().filter(|input| matches!(input, Input::PeerUp { .. })).count()
    }

    fn downs(&self) -> usize {
        self.heard.iter().filter(|input| matches!(input, Input::PeerDown { .. })).count()
    }
}

fn run_until(sides: &mut [&mut Side], what: &str, done: impl Fn(&[&mut Side]) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done(sides) {
        assert!(
            Instant::now() < until,
            "{what} did not happen: {:?}",
            sides.iter().map(|s| &s.heard).collect::<Vec<_>>()
        );
        for side in sides.iter_mut() {
            side.turn();
        }
    }
}

fn frame(from: &Side, to: &Side, seq: u64) -> PeerFrame {
    PeerFrame {
        from: from.node,
        from_incarnation: from.incarnation,
        to_incarnation: to.incarnation,
        seq,
        ack: 0,
        epoch: Epoch(1),
        message: Some(PeerMessage::Look),
    }
}

fn linked(one: &mut Side, two: &mut Side) {
    let (target_one, target_two) = (one.target(), two.target());
    one.keep(vec![target_two]);
    two.keep(vec![target_one]);
    run_until(&mut [one, two], "the link", |sides| sides.iter().all(|side| side.ups() == 1));
}

/// Section 4: both sides prove that they know the key; the incarnation is the one proven. The larger node dials, so one
/// link comes about; frames arrive in order.
#[test]
fn two_nodes_link_once_and_talk() {
    let (mut one, mut two) = (Side::new(1, 11, 9), Side::new(2, 22, 9));
    linked(&mut one, &mut two);
    assert!(matches!(one.heard[..], [Input::PeerUp { incarnation: Incarnation(22), .. }]), "{:?}", one.heard);
    for seq in 1..=100 {
        let (there, back) = (frame(&one, &two, seq), frame(&two, &one, seq));
        one.peers.send(two.node, &there);
        two.peers.send(one.node, &back);
    }
    run_until(&mut [&mut one, &mut two], "200 frames", |sides| sides.iter().all(|side| side.heard.len() == 101));
    let numbers = |side: &Side| -> Vec<u64> {
        let frames = side.heard.iter().filter_map(|input| match input {
            Input::Peer { frame, .. } => Some(frame.seq),
            _ => None,
        });
        frames.collect()
    };
    assert_eq!(numbers(&one), (1..=100).collect::<Vec<_>>());
    assert_eq!(numbers(&two), numbers(&one));
}

/// Issue 2, "wrong cluster key": no link, and others are served on.
#[test]
fn a_wrong_key_links_nobody() {
    let (mut one, mut stranger) = (Side::new(1, 11, 9), Side::new(3, 33, 8));
    let target = one.target();
    stranger.keep(vec![target]);
    let until = Instant::now() + Duration::from_millis(500);
    run_until(&mut [&mut one, &mut stranger], "half a second", |_| Instant::now() >= until);
    assert!(one.heard.is_empty() && stranger.heard.is_empty());
    let mut two = Side::new(2, 22, 9);
    linked(&mut one, &mut two);
}

/// A link that broke is made anew; a node that is no target any more is let go; a new incarnation drops all links.
#[test]
fn links_follow_the_targets() {
    let (mut one, mut two) = (Side::new(1, 11, 9), Side::new(2, 22, 9));
    linked(&mut one, &mut two);
    two.peers.set_incarnation(Incarnation(23), &mut two.inputs);
    two.incarnation = Incarnation(23);
    let target_two = two.target();
    one.keep(vec![target_two]);
    run_until(&mut [&mut one, &mut two], "the link of the new incarnation", |sides| {
        sides.iter().all(|side| side.ups() == 2 && side.downs() == 1)
    });
    two.keep(Vec::new());
    run_until(&mut [&mut one, &mut two], "the end of the link", |sides| sides.iter().all(|side| side.downs() == 2));
    let until = Instant::now() + Duration::from_millis(300);
    run_until(&mut [&mut one, &mut two], "some time", |_| Instant::now() >= until);
    assert_eq!((one.ups(), two.ups()), (2, 2), "nobody dials whom the core does not want");
}

/// An address that nobody answers at does not keep the next one from being tried.
#[test]
fn addresses_are_tried_in_turn() {
    let (mut one, mut two) = (Side::new(1, 11, 9), Side::new(2, 22, 9));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut target = one.target();
    target.addresses.insert(0, nobody);
    two.keep(vec![target]);
    run_until(&mut [&mut one, &mut two], "the link", |sides| sides.iter().all(|side| side.ups() == 1));
}

/// Strangers who say nothing cannot keep a peer out: the oldest of them gives way.
#[test]
fn silent_strangers_give_way() {
    let (mut one, mut two) = (Side::new(1, 11, 9), Side::new(2, 22, 9));
    let strangers: Vec<TcpStream> =
        (0..crate::limits::MAX_UNPROVEN_PEERS + 8).map(|_| TcpStream::connect(one.address()).unwrap()).collect();
    linked(&mut one, &mut two);
    drop(strangers);
}
