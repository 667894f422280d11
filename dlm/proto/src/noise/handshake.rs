//! The handshake: who may have a link.

use super::{LENGTH_BYTES, MAX_HANDSHAKE_BYTES, NOISE_PROTOCOL, PROOF_BYTES, PeerChannel, write_message};
use mxlock_format::{ClusterKey, Incarnation, NodeId, Uuid};
use serde::{Deserialize, Serialize};
use snow::TransportState;
use std::fmt;

const PROLOGUE: &[u8] = b"mxlock peer 1";
const MAGIC: [u8; 4] = *b"mxlk";
const PREAMBLE_VERSION: u8 = 1;
const PREAMBLE_BYTES: usize = 24;

/// What each side says of itself in the handshake, encrypted under the cluster key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// Lowest and highest peer protocol version ([`crate::peer::PEER_PROTOCOLS`]).
    pub protocols: (u16, u16),
    /// The lockspace.
    pub lockspace: Uuid,
    /// The sender.
    pub node: NodeId,
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// The node that is meant; an address may have passed to another one.
    pub to_node: Option<NodeId>,
    /// The highest feature level that the sender knows.
    pub feature_level: u16,
}

/// Why no link came about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// What answered or called is no mxlockd.
    #[error("what is at the other end is not mxlockd: check the addresses and the port")]
    NotMxlock,
    /// A release with another handshake.
    #[error("the peer's handshake has version {found}, this daemon's {PREAMBLE_VERSION}: run the same release on both")]
    Preamble {
        /// The peer's version.
        found: u8,
    },
    /// Another lockspace.
    #[error("the peer belongs to lockspace {theirs}, this daemon to {ours}: check the addresses and the lockstate")]
    WrongLockspace {
        /// This daemon's.
        ours: Uuid,
        /// The peer's.
        theirs: Uuid,
    },
    /// The keys differ, or the bytes were changed on the way.
    #[error("the peer does not know this lockspace's cluster key: it may use an old copy of the lockstate")]
    WrongKey,
    /// No common protocol version.
    #[error(
        "the peer speaks peer protocols {}..={}, this daemon {}..={}: upgrade the older one",
        theirs.0, theirs.1, ours.0, ours.1
    )]
    Protocol {
        /// This daemon's.
        ours: (u16, u16),
        /// The peer's.
        theirs: (u16, u16),
    },
    /// The other end is another node than the one that was meant.
    #[error("reached node {found} where node {wanted} was expected: its address has changed, or two nodes share it")]
    WrongNode {
        /// Who was meant.
        wanted: NodeId,
        /// Who is there.
        found: NodeId,
    },
    /// This daemon dialled itself.
    #[error("the connection leads back to this daemon: an advertised address of another node is this host's")]
    Itself,
    /// The handshake does not fit.
    #[error("the peer's handshake is longer than {MAX_HANDSHAKE_BYTES} bytes")]
    TooLong,
    /// The peer's hello cannot be decoded.
    #[error("the peer's hello cannot be decoded: run the same release on both")]
    BadHello,
    /// The peer refused, for a reason that only it can see.
    #[error("the peer refused the link: {0}")]
    Refused(Verdict),
    /// The random generator or the cipher failed on this side.
    #[error("the cipher of the peer link cannot be set up: {0}")]
    Cipher(String),
}

/// What a responder says in clear when it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Verdict {
    WrongKey = 1,
    WrongLockspace = 2,
    Protocol = 3,
    WrongNode = 4,
    Itself = 5,
    Other = 255,
}

impl Verdict {
    fn from_byte(byte: u8) -> Option<Verdict> {
        use Verdict::*;
        match byte {
            0 => None,
            1 => Some(WrongKey),
            2 => Some(WrongLockspace),
            3 => Some(Protocol),
            4 => Some(WrongNode),
            5 => Some(Itself),
            _ => Some(Other),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::WrongKey => "the cluster keys differ; one side may use an old copy of the lockstate",
            Verdict::WrongLockspace => "it serves another lockspace",
            Verdict::Protocol => "it speaks no common protocol version; upgrade the older daemon",
            Verdict::WrongNode => "it is another node than the one expected at this address",
            Verdict::Itself => "the connection leads back to this daemon",
            Verdict::Other => "its log says why",
        })
    }
}

impl HandshakeError {
    fn verdict(&self) -> Verdict {
        match self {
            HandshakeError::WrongKey => Verdict::WrongKey,
            HandshakeError::WrongLockspace { .. } => Verdict::WrongLockspace,
            HandshakeError::Protocol { .. } | HandshakeError::Preamble { .. } => Verdict::Protocol,
            HandshakeError::WrongNode { .. } => Verdict::WrongNode,
            HandshakeError::Itself => Verdict::Itself,
            _ => Verdict::Other,
        }
    }
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> HandshakeError {
        match error {
            snow::Error::Decrypt => HandshakeError::WrongKey,
            other => HandshakeError::Cipher(other.to_string()),
        }
    }
}

/// A link that both sides have proven.
#[derive(Debug)]
pub struct Established {
    /// Carries the frames. Bytes that came behind the handshake are already in it: ask it for frames at once.
    pub channel: PeerChannel,
    /// What the peer says of itself.
    pub peer: PeerHello,
    /// The protocol version to speak.
    pub protocol: u16,
}

/// One side of a handshake that is under way.
///
/// Feed it what arrives and send what it appends to `out`, also when it fails: then close the connection.
pub struct PeerHandshake {
    own: PeerHello,
    input: Vec<u8>,
    step: Step,
    fault: Option<HandshakeError>,
}

enum Step {
    /// Initiator: the first message is sent.
    AwaitReply(Box<snow::HandshakeState>),
    /// Responder: nothing has come yet.
    AwaitCall(Box<snow::HandshakeState>),
    /// Responder: the reply is sent; the caller must still prove that it is alive.
    AwaitProof { transport: Box<TransportState>, peer: PeerHello, protocol: u16 },
    /// Established or failed.
    Over,
}

impl fmt::Debug for PeerHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::AwaitReply(_) => "AwaitReply",
            Step::AwaitCall(_) => "AwaitCall",
            Step::AwaitProof { .. } => "AwaitProof",
            Step::Over => "Over",
        };
        f.debug_struct("PeerHandshake").field("own", &self.own).field("step", &step).finish_non_exhaustive()
    }
}

impl PeerHandshake {
    /// The side that dialled; appends its first message to `out`.
    ///
    /// # Errors
    /// [`HandshakeError::Cipher`] when there is no randomness.
    pub fn initiator(key: &ClusterKey, own: PeerHello, out: &mut Vec<u8>) -> Result<PeerHandshake, HandshakeError> {
        let mut noise = builder(key, &prologue(own.lockspace))?.build_initiator()?;
        preamble(own.lockspace, 0, out);
        write_message(&hello_bytes(&own)?, out, |plain, message| noise.write_message(plain, message))?;
        Ok(PeerHandshake { own, input: Vec::new(), step: Step::AwaitReply(Box::new(noise)), fault: None })
    }

    /// The side that was dialled.
    ///
    /// # Errors
    /// [`HandshakeError::Cipher`] when the cipher cannot be set up.
    pub fn responder(key: &ClusterKey, own: PeerHello) -> Result<PeerHandshake, HandshakeError> {
        let noise = builder(key, &prologue(own.lockspace))?.build_responder()?;
        Ok(PeerHandshake { own, input: Vec::new(), step: Step::AwaitCall(Box::new(noise)), fault: None })
    }

    /// Takes in received bytes; appends to `out` what is to be sent, in the case of an error too. `None` until the link
    /// is established.
    ///
    /// # Errors
    /// Why there will be no link; the same from then on.
    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<Established>, HandshakeError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        self.input.extend_from_slice(bytes);
        let was_called = matches!(self.step, Step::AwaitCall(_));
        let sent = out.len();
        let result = self.advance(out);
        if let Err(fault) = &result {
            // A stranger gets no answer: it could be anything, and need not learn what this is.
            if was_called && out.len() == sent && *fault != HandshakeError::NotMxlock {
                preamble(self.own.lockspace, fault.verdict() as u8, out);
            }
            self.fault = Some(fault.clone());
            self.step = Step::Over;
            self.input = Vec::new();
        }
        result
    }

    fn advance(&mut self, out: &mut Vec<u8>) -> Result<Option<Established>, HandshakeError> {
        loop {
            match std::mem::replace(&mut self.step, Step::Over) {
                Step::AwaitCall(mut noise) => {
                    let Some((message, used)) = handshake_message(&self.input, self.own.lockspace)? else {
                        self.step = Step::AwaitCall(noise);
                        return Ok(None);
                    };
                    let peer = read_hello(&mut noise, message)?;
                    let protocol = self.accept(&peer)?;
                    self.input.drain(..used);
                    preamble(self.own.lockspace, 0, out);
                    write_message(&hello_bytes(&self.own)?, out, |plain, room| noise.write_message(plain, room))?;
                    self.step = Step::AwaitProof { transport: Box::new(noise.into_transport_mode()?), peer, protocol };
                }
                Step::AwaitProof { transport, peer, protocol } => {
                    let Some((proof, rest)) = self.input.split_first_chunk::<PROOF_BYTES>() else {
                        self.step = Step::AwaitProof { transport, peer, protocol };
                        return Ok(None);
                    };
                    let mut channel = PeerChannel::new(transport);
                    channel.open_proof(proof)?;
                    channel.extend(rest);
                    return Ok(Some(Established { channel, peer, protocol }));
                }
                Step::AwaitReply(mut noise) => {
                    let Some((message, used)) = handshake_message(&self.input, self.own.lockspace)? else {
                        self.step = Step::AwaitReply(noise);
                        return Ok(None);
                    };
                    let peer = read_hello(&mut noise, message)?;
                    let protocol = self.accept(&peer)?;
                    let mut channel = PeerChannel::new(Box::new(noise.into_transport_mode()?));
                    channel.seal_part(&[], out)?;
                    channel.extend(&self.input[used..]);
                    return Ok(Some(Established { channel, peer, protocol }));
                }
                Step::Over => return Ok(None),
            }
        }
    }

    /// Judges the peer's hello; the version to speak.
    fn accept(&self, peer: &PeerHello) -> Result<u16, HandshakeError> {
        let own = &self.own;
        if peer.incarnation == own.incarnation {
            return Err(HandshakeError::Itself);
        }
        if peer.lockspace != own.lockspace {
            return Err(HandshakeError::WrongLockspace { ours: own.lockspace, theirs: peer.lockspace });
        }
        let protocol = own.protocols.1.min(peer.protocols.1);
        if protocol < own.protocols.0 || protocol < peer.protocols.0 {
            return Err(HandshakeError::Protocol { ours: own.protocols, theirs: peer.protocols });
        }
        match (peer.to_node, own.to_node) {
            (Some(wanted), _) if wanted != own.node => Err(HandshakeError::WrongNode { wanted, found: own.node }),
            (_, Some(wanted)) if wanted != peer.node => Err(HandshakeError::WrongNode { wanted, found: peer.node }),
            _ => Ok(protocol),
        }
    }
}

/// The Noise message behind a good preamble, and the bytes that both take.
fn handshake_message(input: &[u8], ours: Uuid) -> Result<Option<(&[u8], usize)>, HandshakeError> {
    let known = input.len().min(MAGIC.len());
    if input[..known] != MAGIC[..known] {
        return Err(HandshakeError::NotMxlock);
    }
    let Some((head, rest)) = input.split_first_chunk::<PREAMBLE_BYTES>() else { return Ok(None) };
    if head[4] != PREAMBLE_VERSION {
        return Err(HandshakeError::Preamble { found: head[4] });
    }
    let mut theirs = Uuid::default();
    theirs.0.copy_from_slice(&head[8..]);
    if theirs != ours {
        return Err(HandshakeError::WrongLockspace { ours, theirs });
    }
    if let Some(verdict) = Verdict::from_byte(head[5]) {
        return Err(HandshakeError::Refused(verdict));
    }
    let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let len = usize::from(u16::from_le_bytes(*length));
    let used = PREAMBLE_BYTES + LENGTH_BYTES + len;
    if used > MAX_HANDSHAKE_BYTES {
        return Err(HandshakeError::TooLong);
    }
    Ok(rest.get(..len).map(|message| (message, used)))
}

fn builder<'a>(key: &'a ClusterKey, prologue: &'a [u8]) -> Result<snow::Builder<'a>, HandshakeError> {
    Ok(snow::Builder::new(NOISE_PROTOCOL.parse()?).psk(0, &key.0)?.prologue(prologue)?)
}

fn prologue(lockspace: Uuid) -> Vec<u8> {
    [PROLOGUE, &lockspace.0].concat()
}

fn preamble(lockspace: Uuid, verdict: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[PREAMBLE_VERSION, verdict, 0, 0]);
    out.extend_from_slice(&lockspace.0);
}

fn hello_bytes(hello: &PeerHello) -> Result<Vec<u8>, HandshakeError> {
    postcard::to_allocvec(hello).map_err(|e| HandshakeError::Cipher(e.to_string()))
}

fn read_hello(noise: &mut snow::HandshakeState, message: &[u8]) -> Result<PeerHello, HandshakeError> {
    let mut plain = [0; MAX_HANDSHAKE_BYTES];
    // Whatever the cipher dislikes in the peer's bytes, the cause that an operator can act on is the key.
    let len = noise.read_message(message, &mut plain).map_err(|_| HandshakeError::WrongKey)?;
    // Bytes behind the hello are allowed: a later release may say more.
    postcard::take_from_bytes(&plain[..len]).map(|(hello, _)| hello).map_err(|_| HandshakeError::BadHello)
}
