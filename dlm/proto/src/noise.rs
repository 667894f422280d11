//! Peer links: Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s with the cluster key as psk (DESIGN section 4).
//!
//! ```text
//! initiator                                                   responder
//! preamble 24 | length u16 LE | e, payload PeerHello   ->
//!                                <-   preamble 24 | length u16 LE | e, ee, payload PeerHello
//! length u16 LE | empty transport message              ->     (the initiator is no replay)
//! then, both ways: length u16 LE | transport message; the plaintexts together are a stream of peer frames
//! ```
//!
//! The preamble is `"mxlk" | preamble version u8 | verdict u8 | 0 u16 | lockspace uuid`. It goes in clear so that both
//! sides can *say* that the lockspaces differ; the prologue binds it, so that changing it fails the handshake. The
//! responder's verdict, when it is a refusal, ends the stream; it is not authenticated and only words the error.
//!
//! NNpsk0's first message can be replayed, so the responder calls the link established only when it has decrypted the
//! first transport message, which depends on its own fresh key. A daemon that dialled itself finds its own incarnation.
//!
//! Pure: bytes in, bytes out. Each side rekeys a direction after every [`REKEY_MESSAGES`] messages.

use crate::{
    frame::{self, FrameError, FrameReader, MAX_PEER_FRAME},
    peer::PeerFrame,
};
use mxlock_format::{ClusterKey, Incarnation, NodeId, Uuid};
use serde::{Deserialize, Serialize};
use snow::TransportState;
use std::fmt;

/// The Noise protocol of all peer links.
pub const NOISE_PROTOCOL: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Most bytes that a side reads before the link is established.
pub const MAX_HANDSHAKE_BYTES: usize = 1 << 10;
/// Messages in one direction after which its key is changed; the nonce (64 bits) is never near its end.
pub const REKEY_MESSAGES: u64 = 1 << 20;

const PROLOGUE: &[u8] = b"mxlock peer 1";
const MAGIC: [u8; 4] = *b"mxlk";
const PREAMBLE_VERSION: u8 = 1;
const PREAMBLE_BYTES: usize = 24;
const LENGTH_BYTES: usize = 2;
const TAG_BYTES: usize = 16;
/// The initiator's first transport message has no contents.
const PROOF_BYTES: usize = LENGTH_BYTES + TAG_BYTES;
const MAX_MESSAGE_BYTES: usize = 65_535;
const MAX_PLAIN_BYTES: usize = MAX_MESSAGE_BYTES - TAG_BYTES;

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

/// Appends `length | message`, the message written in place by `write`.
fn write_message(
    plain: &[u8],
    out: &mut Vec<u8>,
    write: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, snow::Error>,
) -> Result<(), snow::Error> {
    /// Two tags and a public key at most.
    const OVERHEAD_BYTES: usize = 64;
    let start = out.len();
    out.resize(start + LENGTH_BYTES + plain.len() + OVERHEAD_BYTES, 0);
    let room = &mut out[start + LENGTH_BYTES..];
    let room = if room.len() > MAX_MESSAGE_BYTES { &mut room[..MAX_MESSAGE_BYTES] } else { room };
    match write(plain, room) {
        Ok(len) => {
            out[start..start + LENGTH_BYTES].copy_from_slice(&(len as u16).to_le_bytes());
            out.truncate(start + LENGTH_BYTES + len);
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// Why a link must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// Bytes were changed, lost or doubled on the way.
    #[error("a message on the peer link was altered on its way: the link is closed")]
    Altered,
    /// The peer sent a frame that is none.
    #[error("the peer sent a bad frame: {0}")]
    Frame(#[from] FrameError),
    /// This side cannot encrypt any more (nonces used up).
    #[error("the peer link can carry no more messages: it must be opened anew")]
    Exhausted,
}

/// An established link: frames in, encrypted bytes out, and back.
pub struct PeerChannel {
    transport: Box<TransportState>,
    outgoing: Vec<u8>,
    cipher: Vec<u8>,
    cipher_start: usize,
    plain: FrameReader,
    fault: Option<ChannelError>,
}

impl fmt::Debug for PeerChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerChannel")
            .field("sent", &self.transport.sending_nonce())
            .field("received", &self.transport.receiving_nonce())
            .finish_non_exhaustive()
    }
}

impl PeerChannel {
    fn new(transport: Box<TransportState>) -> PeerChannel {
        PeerChannel {
            transport,
            outgoing: Vec::new(),
            cipher: Vec::new(),
            cipher_start: 0,
            plain: FrameReader::new(MAX_PEER_FRAME),
            fault: None,
        }
    }

    /// Appends one frame to `out`, encrypted. For several at once, [`PeerChannel::push`] and one
    /// [`PeerChannel::seal`] cost less.
    ///
    /// # Errors
    /// [`ChannelError::Frame`] when it is too long (the link stays usable), or [`ChannelError::Exhausted`].
    pub fn encrypt(&mut self, frame: &PeerFrame, out: &mut Vec<u8>) -> Result<(), ChannelError> {
        self.push(frame)?;
        self.seal(out)
    }

    /// Adds a frame to what the next `seal` encrypts.
    ///
    /// # Errors
    /// [`ChannelError::Frame`] when it is too long; the link stays usable.
    pub fn push(&mut self, frame: &PeerFrame) -> Result<(), ChannelError> {
        Ok(frame::encode_into(frame, &mut self.outgoing)?)
    }

    /// Appends all pushed frames to `out`, in as few messages as they fit in; nothing if none was pushed.
    ///
    /// # Errors
    /// [`ChannelError::Exhausted`].
    pub fn seal(&mut self, out: &mut Vec<u8>) -> Result<(), ChannelError> {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        for part in outgoing.chunks(MAX_PLAIN_BYTES) {
            self.seal_part(part, out).map_err(|_| ChannelError::Exhausted)?;
        }
        outgoing.clear();
        outgoing.shrink_to(MAX_MESSAGE_BYTES);
        self.outgoing = outgoing;
        Ok(())
    }

    fn seal_part(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), snow::Error> {
        write_message(part, out, |plain, message| self.transport.write_message(plain, message))?;
        if self.transport.sending_nonce().is_multiple_of(REKEY_MESSAGES) {
            self.transport.rekey_outgoing();
        }
        Ok(())
    }

    /// Takes in received bytes. Ask for all frames before the next call: then memory is bounded by the largest frame
    /// plus one read.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.cipher.drain(..self.cipher_start);
        self.cipher_start = 0;
        self.cipher.extend_from_slice(bytes);
    }

    /// The next frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// Why the link must be closed; the same from then on.
    pub fn next_frame(&mut self) -> Result<Option<PeerFrame>, ChannelError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let result = self.advance();
        if let Err(fault) = result {
            self.fault = Some(fault);
            (self.cipher, self.cipher_start) = (Vec::new(), 0);
        }
        result
    }

    fn advance(&mut self) -> Result<Option<PeerFrame>, ChannelError> {
        loop {
            if let Some(frame) = self.plain.next_frame()? {
                return Ok(Some(frame));
            }
            let pending = &self.cipher[self.cipher_start..];
            let Some((length, rest)) = pending.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
            let Some(message) = rest.get(..usize::from(u16::from_le_bytes(*length))) else { return Ok(None) };
            read_message(&mut self.transport, message, &mut self.plain)?;
            self.cipher_start += LENGTH_BYTES + message.len();
        }
    }

    /// The initiator's first transport message.
    fn open_proof(&mut self, proof: &[u8; PROOF_BYTES]) -> Result<(), HandshakeError> {
        let (length, message) = proof.split_at(LENGTH_BYTES);
        if length != (TAG_BYTES as u16).to_le_bytes() {
            return Err(HandshakeError::WrongKey);
        }
        read_message(&mut self.transport, message, &mut self.plain).map_err(|_| HandshakeError::WrongKey)
    }
}

/// Decrypts one message behind what `plain` has.
fn read_message(transport: &mut TransportState, message: &[u8], plain: &mut FrameReader) -> Result<(), ChannelError> {
    let room = plain.room_mut(message.len());
    let len = transport.read_message(message, room).map_err(|_| ChannelError::Altered)?;
    plain.filled(len);
    if transport.receiving_nonce().is_multiple_of(REKEY_MESSAGES) {
        transport.rekey_incoming();
    }
    Ok(())
}
