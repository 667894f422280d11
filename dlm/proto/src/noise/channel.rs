//! The established link: frames in, encrypted bytes out, and back.

use super::{
    HandshakeError, LENGTH_BYTES, MAX_MESSAGE_BYTES, MAX_PLAIN_BYTES, PROOF_BYTES, REKEY_MESSAGES, TAG_BYTES,
    write_message,
};
use crate::frame::{self, FrameError, FrameReader, MAX_PEER_FRAME};
use crate::peer::PeerFrame;
use snow::TransportState;
use std::fmt;

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
    /// [`REKEY_MESSAGES`]; less in tests.
    rekey_messages: u64,
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
    pub(super) fn new(transport: Box<TransportState>) -> PeerChannel {
        PeerChannel {
            transport,
            outgoing: Vec::new(),
            cipher: Vec::new(),
            cipher_start: 0,
            plain: FrameReader::new(MAX_PEER_FRAME),
            fault: None,
            rekey_messages: REKEY_MESSAGES,
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

    pub(super) fn seal_part(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), snow::Error> {
        write_message(part, out, |plain, message| self.transport.write_message(plain, message))?;
        if self.transport.sending_nonce().is_multiple_of(self.rekey_messages) {
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
            let len = usize::from(u16::from_le_bytes(*length));
            let Some(message) = rest.get(..len) else { return Ok(None) };
            let room = self.plain.room_mut(len);
            let plain_len = self.transport.read_message(message, room).map_err(|_| ChannelError::Altered)?;
            self.plain.filled(plain_len);
            self.received();
            self.cipher_start += LENGTH_BYTES + len;
        }
    }

    /// The initiator's first transport message.
    pub(super) fn open_proof(&mut self, proof: &[u8; PROOF_BYTES]) -> Result<(), HandshakeError> {
        let (length, message) = proof.split_at(LENGTH_BYTES);
        if length != (TAG_BYTES as u16).to_le_bytes() {
            return Err(HandshakeError::WrongKey);
        }
        self.transport.read_message(message, &mut []).map_err(|_| HandshakeError::WrongKey)?;
        self.received();
        Ok(())
    }

    /// Counts a message that was decrypted.
    fn received(&mut self) {
        if self.transport.receiving_nonce().is_multiple_of(self.rekey_messages) {
            self.transport.rekey_incoming();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::{Epoch, Incarnation, NodeId};

    fn channel(initiator: bool, every: u64, noise: snow::HandshakeState) -> PeerChannel {
        let mut channel = PeerChannel::new(Box::new(noise.into_transport_mode().unwrap()));
        assert_eq!(channel.transport.is_initiator(), initiator);
        channel.rekey_messages = every;
        channel
    }

    fn pair(every: (u64, u64)) -> (PeerChannel, PeerChannel) {
        let build = || snow::Builder::new(super::super::NOISE_PROTOCOL.parse().unwrap()).psk(0, &[1; 32]).unwrap();
        let (mut a, mut b) = (build().build_initiator().unwrap(), build().build_responder().unwrap());
        let (mut wire, mut plain) = ([0; 200], [0; 200]);
        let len = a.write_message(&[], &mut wire).unwrap();
        b.read_message(&wire[..len], &mut plain).unwrap();
        let len = b.write_message(&[], &mut wire).unwrap();
        a.read_message(&wire[..len], &mut plain).unwrap();
        (channel(true, every.0, a), channel(false, every.1, b))
    }

    fn frame(seq: u64) -> PeerFrame {
        PeerFrame {
            from: NodeId::new(1).unwrap(),
            from_incarnation: Incarnation(1),
            to_incarnation: Incarnation(2),
            seq,
            ack: 0,
            epoch: Epoch(1),
            message: None,
        }
    }

    fn send(from: &mut PeerChannel, to: &mut PeerChannel, seq: u64) -> Result<Option<PeerFrame>, ChannelError> {
        let mut wire = Vec::new();
        from.encrypt(&frame(seq), &mut wire)?;
        to.extend(&wire);
        to.next_frame()
    }

    /// Both sides change a direction's key after the same message, each direction by its own count.
    #[test]
    fn keys_change_together() {
        let (mut a, mut b) = pair((3, 3));
        for seq in 0..10 {
            assert_eq!(send(&mut a, &mut b, seq), Ok(Some(frame(seq))));
        }
        for seq in 0..4 {
            assert_eq!(send(&mut b, &mut a, seq), Ok(Some(frame(seq))));
        }
    }

    /// The change is real: a side that does not take part cannot read on.
    #[test]
    fn keys_do_change() {
        let (mut a, mut b) = pair((3, 1_000));
        let read = (0..4).map(|seq| send(&mut a, &mut b, seq)).collect::<Vec<_>>();
        assert!(read[..3].iter().all(Result::is_ok));
        assert_eq!(read[3], Err(ChannelError::Altered));
    }
}
