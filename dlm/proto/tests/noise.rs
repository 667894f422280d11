//! Peer links: who gets one, and what happens to bytes on the way (DESIGN section 4).

use mxlock_format::{ClusterKey, Epoch, Incarnation, NodeId, Uuid};
use mxlock_proto::noise::{
    ChannelError, Established, HandshakeError, MAX_HANDSHAKE_BYTES, PeerChannel, PeerHandshake, PeerHello, Verdict,
};
use mxlock_proto::peer::{PEER_PROTOCOLS, PeerFrame, PeerMessage};
use proptest::prelude::*;

const LOCKSPACE: Uuid = Uuid([3; 16]);

fn key() -> ClusterKey {
    ClusterKey([7; 32])
}

fn hello(node: u32) -> PeerHello {
    PeerHello {
        protocols: PEER_PROTOCOLS,
        lockspace: LOCKSPACE,
        node: NodeId::new(node).unwrap(),
        incarnation: Incarnation(100 + u64::from(node)),
        to_node: None,
        feature_level: 1,
    }
}

fn frame(seq: u64, message: Option<PeerMessage>) -> PeerFrame {
    PeerFrame {
        from: NodeId::new(1).unwrap(),
        from_incarnation: Incarnation(101),
        to_incarnation: Incarnation(102),
        seq,
        ack: 0,
        epoch: Epoch(5),
        message,
    }
}

type Outcome = Result<Option<Established>, HandshakeError>;

/// Runs a handshake to its end, `chunk` bytes at a time; what each side got.
fn handshake(
    initiator: (&ClusterKey, PeerHello),
    responder: (&ClusterKey, PeerHello),
    chunk: usize,
) -> (Outcome, Outcome) {
    let mut to_responder = Vec::new();
    let mut a = PeerHandshake::initiator(initiator.0, initiator.1, &mut to_responder).unwrap();
    let mut b = PeerHandshake::responder(responder.0, responder.1).unwrap();
    let (mut a_end, mut b_end) = (Ok(None), Ok(None));
    for _ in 0..4 {
        let mut to_initiator = Vec::new();
        for part in std::mem::take(&mut to_responder).chunks(chunk) {
            if matches!(b_end, Ok(None)) {
                b_end = b.receive(part, &mut to_initiator);
            }
        }
        for part in to_initiator.chunks(chunk) {
            if matches!(a_end, Ok(None)) {
                a_end = a.receive(part, &mut to_responder);
            }
        }
    }
    (a_end, b_end)
}

fn linked() -> (PeerChannel, PeerChannel) {
    let (a, b) = handshake((&key(), hello(1)), (&key(), hello(2)), 4096);
    (a.unwrap().unwrap().channel, b.unwrap().unwrap().channel)
}

/// Both sides learn who the other is, however the bytes are cut.
#[test]
fn peers_with_the_key_meet() {
    for chunk in [1, 3, 25, 4096] {
        let (a, b) = handshake((&key(), hello(1)), (&key(), hello(2)), chunk);
        let (a, b) = (a.unwrap().unwrap(), b.unwrap().unwrap());
        assert_eq!((a.peer, b.peer), (hello(2), hello(1)));
        assert_eq!((a.protocol, b.protocol), (PEER_PROTOCOLS.1, PEER_PROTOCOLS.1));
    }
}

/// Section 4: both sides prove knowledge of the cluster key.
#[test]
fn a_wrong_key_is_said_on_both_sides() {
    let (a, b) = handshake((&key(), hello(1)), (&ClusterKey([8; 32]), hello(2)), 4096);
    assert_eq!(b.unwrap_err(), HandshakeError::WrongKey);
    assert_eq!(a.unwrap_err(), HandshakeError::Refused(Verdict::WrongKey));
}

/// A daemon of another lockspace at an old address is named as such.
#[test]
fn another_lockspace_is_said_on_both_sides() {
    let other = PeerHello { lockspace: Uuid([4; 16]), ..hello(2) };
    let (a, b) = handshake((&key(), hello(1)), (&key(), other), 4096);
    let mismatch = |ours, theirs| HandshakeError::WrongLockspace { ours, theirs };
    assert_eq!(b.unwrap_err(), mismatch(Uuid([4; 16]), LOCKSPACE));
    assert_eq!(a.unwrap_err(), mismatch(LOCKSPACE, Uuid([4; 16])));
}

/// The preamble travels in clear, but changing the lockspace in it gets nobody a link: the prologue binds it.
#[test]
fn a_forged_preamble_does_not_pass() {
    let mut call = Vec::new();
    let _a = PeerHandshake::initiator(&key(), hello(1), &mut call).unwrap();
    let other = Uuid([4; 16]);
    call[8..24].copy_from_slice(&other.0);
    let mut b = PeerHandshake::responder(&key(), PeerHello { lockspace: other, ..hello(2) }).unwrap();
    assert_eq!(b.receive(&call, &mut Vec::new()).unwrap_err(), HandshakeError::WrongKey);
}

/// Versions: the highest that both speak, or a typed refusal.
#[test]
fn versions_are_negotiated_or_refused() {
    let speaks = |node, protocols| PeerHello { protocols, ..hello(node) };
    let (a, b) = handshake((&key(), speaks(1, (1, 3))), (&key(), speaks(2, (2, 7))), 4096);
    assert_eq!((a.unwrap().unwrap().protocol, b.unwrap().unwrap().protocol), (3, 3));
    let (a, b) = handshake((&key(), speaks(1, (1, 1))), (&key(), speaks(2, (2, 7))), 4096);
    assert_eq!(b.unwrap_err(), HandshakeError::Protocol { ours: (2, 7), theirs: (1, 1) });
    assert_eq!(a.unwrap_err(), HandshakeError::Refused(Verdict::Protocol));
}

/// A daemon that dialled its own address finds out.
#[test]
fn a_link_to_oneself_is_refused() {
    let (a, b) = handshake((&key(), hello(1)), (&key(), hello(1)), 4096);
    assert_eq!(b.unwrap_err(), HandshakeError::Itself);
    assert_eq!(a.unwrap_err(), HandshakeError::Refused(Verdict::Itself));
}

/// An address that has passed to another node leads to no link.
#[test]
fn the_node_that_was_meant_must_answer() {
    let meant = PeerHello { to_node: NodeId::new(9), ..hello(1) };
    let (a, b) = handshake((&key(), meant), (&key(), hello(2)), 4096);
    let wrong = HandshakeError::WrongNode { wanted: NodeId::new(9).unwrap(), found: NodeId::new(2).unwrap() };
    assert_eq!(b.unwrap_err(), wrong);
    assert_eq!(a.unwrap_err(), HandshakeError::Refused(Verdict::WrongNode));
}

/// NNpsk0's first message can be recorded and sent again: the responder answers, but sees no link in it.
#[test]
fn a_replayed_call_is_not_a_link() {
    let mut call = Vec::new();
    let mut a = PeerHandshake::initiator(&key(), hello(1), &mut call).unwrap();
    let (mut reply, mut proof) = (Vec::new(), Vec::new());
    let mut b = PeerHandshake::responder(&key(), hello(2)).unwrap();
    assert!(b.receive(&call, &mut reply).unwrap().is_none());
    assert!(a.receive(&reply, &mut proof).unwrap().is_some());
    // The attacker has seen all of it and plays it to a fresh responder.
    let mut again = PeerHandshake::responder(&key(), hello(2)).unwrap();
    let mut ignored = Vec::new();
    assert!(again.receive(&call, &mut ignored).unwrap().is_none());
    assert_eq!(again.receive(&proof, &mut ignored).unwrap_err(), HandshakeError::WrongKey);
    assert!(b.receive(&proof, &mut ignored).unwrap().is_some());
}

/// A mirror that sends the initiator's own bytes back gets no link.
#[test]
fn a_reflected_call_is_refused() {
    let mut call = Vec::new();
    let mut a = PeerHandshake::initiator(&key(), hello(1), &mut call).unwrap();
    assert_eq!(a.receive(&call, &mut Vec::new()).unwrap_err(), HandshakeError::WrongKey);
}

/// A web browser or a port scanner is recognised by its first bytes and gets no answer.
#[test]
fn strangers_are_recognised_at_once() {
    let mut b = PeerHandshake::responder(&key(), hello(2)).unwrap();
    let mut out = Vec::new();
    assert_eq!(b.receive(b"GET", &mut out).unwrap_err(), HandshakeError::NotMxlock);
    assert_eq!(b.receive(b" / HTTP/1.1", &mut out).unwrap_err(), HandshakeError::NotMxlock);
    assert_eq!(out, b"");
}

/// A handshake that claims to be longer than the limit is refused before it is buffered.
#[test]
fn an_endless_handshake_is_refused() {
    let mut call = Vec::new();
    PeerHandshake::initiator(&key(), hello(1), &mut call).unwrap();
    call.truncate(24);
    call.extend_from_slice(&(MAX_HANDSHAKE_BYTES as u16).to_le_bytes());
    let mut b = PeerHandshake::responder(&key(), hello(2)).unwrap();
    assert_eq!(b.receive(&call, &mut Vec::new()).unwrap_err(), HandshakeError::TooLong);
}

/// What a peer says right behind its proof is not lost.
#[test]
fn frames_behind_the_proof_arrive() {
    let mut to_b = Vec::new();
    let mut a = PeerHandshake::initiator(&key(), hello(1), &mut to_b).unwrap();
    let mut b = PeerHandshake::responder(&key(), hello(2)).unwrap();
    let mut to_a = Vec::new();
    b.receive(&to_b, &mut to_a).unwrap();
    to_b.clear();
    let mut link = a.receive(&to_a, &mut to_b).unwrap().unwrap();
    link.channel.encrypt(&frame(1, None), &mut to_b).unwrap();
    let mut other = b.receive(&to_b, &mut Vec::new()).unwrap().unwrap();
    assert_eq!(other.channel.next_frame().unwrap(), Some(frame(1, None)));
}

/// A frame above the Noise limit of 65,535 bytes spans several messages; many small ones share one.
#[test]
fn frames_span_and_share_messages() {
    let (mut a, mut b) = linked();
    let message = "x".repeat(300_000);
    let reply = mxlock_proto::client::AdminReply::Failed { kind: mxlock_proto::client::FailureKind::NotNow, message };
    let large = frame(1, Some(PeerMessage::Reply { id: 1, reply }));
    let mut wire = Vec::new();
    a.encrypt(&large, &mut wire).unwrap();
    assert!(wire.len() < 301_000);
    for part in wire.chunks(1_000) {
        assert_eq!(b.next_frame().unwrap(), None);
        b.extend(part);
    }
    assert_eq!(b.next_frame().unwrap(), Some(large));

    wire.clear();
    for seq in 0..100 {
        a.push(&frame(seq, Some(PeerMessage::Look))).unwrap();
    }
    a.seal(&mut wire).unwrap();
    assert_eq!(usize::from(u16::from_le_bytes([wire[0], wire[1]])) + 2, wire.len());
    b.extend(&wire);
    for seq in 0..100 {
        assert_eq!(b.next_frame().unwrap(), Some(frame(seq, Some(PeerMessage::Look))));
    }
    wire.clear();
    a.seal(&mut wire).unwrap();
    assert_eq!(wire, b"");
}

/// A message that was changed, left out, doubled or sent back closes the link.
#[test]
fn altered_streams_are_detected() {
    let messages = |a: &mut PeerChannel| -> Vec<Vec<u8>> {
        (1..=2)
            .map(|seq| {
                let mut wire = Vec::new();
                a.encrypt(&frame(seq, None), &mut wire).unwrap();
                wire
            })
            .collect()
    };
    let (mut a, mut b) = linked();
    let sent = messages(&mut a);
    b.extend(&sent[1]);
    assert_eq!(b.next_frame().unwrap_err(), ChannelError::Altered);
    b.extend(&sent[0]);
    assert_eq!(b.next_frame().unwrap_err(), ChannelError::Altered);

    let (mut a, mut b) = linked();
    let sent = messages(&mut a);
    b.extend(&[&sent[0][..], &sent[0][..]].concat());
    assert_eq!(b.next_frame().unwrap(), Some(frame(1, None)));
    assert_eq!(b.next_frame().unwrap_err(), ChannelError::Altered);

    let (mut a, _) = linked();
    let sent = messages(&mut a);
    a.extend(&sent[0]);
    assert_eq!(a.next_frame().unwrap_err(), ChannelError::Altered);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Garbage on the port: no panic, no link.
    #[test]
    fn garbage_never_makes_a_link(bytes in prop::collection::vec(any::<u8>(), 0..3000), magic: bool) {
        let mut input = Vec::new();
        if magic {
            PeerHandshake::initiator(&key(), hello(1), &mut input).unwrap();
            input.truncate(bytes.len() % input.len());
        }
        input.extend_from_slice(&bytes);
        let mut b = PeerHandshake::responder(&key(), hello(2)).unwrap();
        let mut out = Vec::new();
        for part in input.chunks(100) {
            prop_assert!(!matches!(b.receive(part, &mut out), Ok(Some(_))));
        }
        prop_assert!(out.len() < MAX_HANDSHAKE_BYTES);
    }

    /// One flipped bit anywhere in a link's bytes is detected.
    #[test]
    fn a_flipped_bit_is_detected(bit in 0usize..8 * 60) {
        let (mut a, mut b) = linked();
        let mut wire = Vec::new();
        a.encrypt(&frame(1, Some(PeerMessage::Look)), &mut wire).unwrap();
        let bit = bit % (wire.len() * 8);
        wire[bit / 8] ^= 1 << (bit % 8);
        b.extend(&wire);
        // A longer length only makes the receiver wait for the rest, which then does not fit either.
        b.extend(&[0; 70_000]);
        prop_assert_eq!(b.next_frame().unwrap_err(), ChannelError::Altered);
    }
}
