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

mod channel;
mod handshake;

pub use channel::{ChannelError, PeerChannel};
pub use handshake::{Established, HandshakeError, PeerHandshake, PeerHello, Verdict};

/// The Noise protocol of all peer links.
pub const NOISE_PROTOCOL: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Most bytes that a side reads before the link is established.
pub const MAX_HANDSHAKE_BYTES: usize = 1 << 10;
/// Messages in one direction after which its key is changed; the nonce (64 bits) is never near its end.
pub const REKEY_MESSAGES: u64 = 1 << 20;

const LENGTH_BYTES: usize = 2;
const TAG_BYTES: usize = 16;
/// The initiator's first transport message has no contents.
const PROOF_BYTES: usize = LENGTH_BYTES + TAG_BYTES;
const MAX_MESSAGE_BYTES: usize = 65_535;
const MAX_PLAIN_BYTES: usize = MAX_MESSAGE_BYTES - TAG_BYTES;

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
