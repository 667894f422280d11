//! Frames: `length u32 LE (of what follows) | version u8 | body in postcard encoding`.
//!
//! Pure: bytes in, messages out. A reader never keeps more than one incomplete frame plus what one read brought, grows
//! only with what has really arrived, and says exactly what is wrong with a bad frame. After an error a stream has no
//! frame boundary any more: the connection must be closed.

use crate::{
    client::{Request, Response},
    peer::PeerFrame,
};
use serde::{Serialize, de::DeserializeOwned};

/// Version of the encoding. It changes when the meaning of bytes does; what is said is versioned in the hellos.
pub const FRAME_VERSION: u8 = 1;
/// Bytes of the length field.
pub const LENGTH_BYTES: usize = 4;
/// Largest frame (version and body) on a client connection, `Hello` and `Welcome` excepted.
pub const MAX_CLIENT_FRAME: usize = 256 << 10;
/// Largest `Hello` or `Welcome`: claims for 65,536 locks (the most that a session can have) of 236 bytes each.
pub const MAX_HELLO_FRAME: usize = 16 << 20;
/// Largest frame on a peer link: a verdict about the 65,536 locks that a session can have, 430 bytes each. All other
/// peer frames are far below 1 MiB.
pub const MAX_PEER_FRAME: usize = 32 << 20;

/// A reader with nothing in it keeps at most this much memory.
const IDLE_BYTES: usize = 64 << 10;
/// Least room that `spare_mut` makes.
const READ_BYTES: usize = 8 << 10;

/// What travels in frames.
pub trait Frame: Serialize + DeserializeOwned {
    /// Most bytes (version and body) that this message may take.
    fn max_len(&self) -> usize;
}

impl Frame for Request {
    fn max_len(&self) -> usize {
        if matches!(self, Request::Hello(_)) { MAX_HELLO_FRAME } else { MAX_CLIENT_FRAME }
    }
}

impl Frame for Response {
    fn max_len(&self) -> usize {
        if matches!(self, Response::Welcome(_)) { MAX_HELLO_FRAME } else { MAX_CLIENT_FRAME }
    }
}

impl Frame for PeerFrame {
    fn max_len(&self) -> usize {
        MAX_PEER_FRAME
    }
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Too long, sent or received.
    #[error("a frame of {len} bytes is above the limit of {max}")]
    Oversized {
        /// Its length; for a frame to be sent, the length at which encoding stopped.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Another encoding.
    #[error("a frame has version {found}, this program speaks version {expected}: both sides need the same release")]
    Version {
        /// As received.
        found: u8,
        /// [`FRAME_VERSION`].
        expected: u8,
    },
    /// The body is not a message.
    #[error("a frame of {len} bytes cannot be decoded")]
    Malformed {
        /// Its length.
        len: usize,
    },
    /// The body goes on behind the message.
    #[error("a frame has {excess} bytes behind its message")]
    Trailing {
        /// How many.
        excess: usize,
    },
}

/// Appends `message` to `out` as one frame, encoded in place. On an error `out` is as before.
///
/// # Errors
/// [`FrameError::Oversized`] when it does not fit in [`Frame::max_len`].
pub fn encode_into<T: Frame>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    let max = message.max_len();
    out.extend_from_slice(&[0, 0, 0, 0, FRAME_VERSION]);
    let sink = Sink { limit: start + LENGTH_BYTES + max, out };
    // The types have no unserialisable part, so the only error is that of the sink.
    if postcard::serialize_with_flavor::<T, Sink<'_>, ()>(message, sink).is_err() {
        let len = out.len() - start - LENGTH_BYTES;
        out.truncate(start);
        return Err(FrameError::Oversized { len, max });
    }
    let len = (out.len() - start - LENGTH_BYTES) as u32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
    Ok(())
}

/// Writes behind what is already in the buffer, up to a limit.
struct Sink<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
}

impl postcard::ser_flavors::Flavor for Sink<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        if self.limit - self.out.len() < data.len() {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.out.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        if self.out.len() == self.limit {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.out.push(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Takes frames out of a byte stream, however it is cut.
///
/// ```
/// use mxlock_proto::client::Request;
/// use mxlock_proto::frame::{FrameReader, MAX_CLIENT_FRAME, encode_into};
///
/// let mut wire = Vec::new();
/// encode_into(&Request::Bye, &mut wire).unwrap();
/// let mut reader = FrameReader::new(MAX_CLIENT_FRAME);
/// reader.extend(&wire[..3]);
/// assert_eq!(reader.next_frame::<Request>(), Ok(None));
/// reader.extend(&wire[3..]);
/// assert_eq!(reader.next_frame(), Ok(Some(Request::Bye)));
/// ```
#[derive(Debug)]
pub struct FrameReader {
    /// Zero-filled beyond `end`; its length is the memory in use.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    max: usize,
    fault: Option<FrameError>,
}

impl FrameReader {
    /// A reader that accepts frames of up to `max` bytes (version and body).
    pub fn new(max: usize) -> FrameReader {
        FrameReader { buffer: Vec::new(), start: 0, end: 0, max, fault: None }
    }

    /// Changes the limit from the next frame on: a daemon accepts [`MAX_HELLO_FRAME`] once, then [`MAX_CLIENT_FRAME`].
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Bytes received and not yet taken out.
    pub fn pending(&self) -> usize {
        self.end - self.start
    }

    /// Appends received bytes. Take all complete frames out before the next call: then memory is bounded by the limit
    /// plus one read.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.buffer[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// At least 8 KiB to read into, followed by [`FrameReader::filled`]; for callers that read with no buffer of
    /// their own.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        self.room_mut(READ_BYTES)
    }

    /// At least `count` bytes to fill, followed by [`FrameReader::filled`].
    pub(crate) fn room_mut(&mut self, count: usize) -> &mut [u8] {
        self.reserve(count);
        &mut self.buffer[self.end..]
    }

    /// The first `count` bytes of what `spare_mut` returned were received.
    ///
    /// # Panics
    /// When `count` is more than that.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.buffer.len() - self.end, "more bytes than there was room for");
        self.end += count;
    }

    /// The next complete message, or `None` until more bytes come.
    ///
    /// # Errors
    /// What is wrong with the stream; the same from then on.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let taken = take(&self.buffer[self.start..self.end], self.max);
        match taken {
            Ok(None) => Ok(None),
            Ok(Some((message, used))) => {
                self.start += used;
                if self.start == self.end {
                    (self.start, self.end) = (0, 0);
                    if self.buffer.len() > IDLE_BYTES {
                        self.buffer = Vec::new();
                    }
                }
                Ok(Some(message))
            }
            Err(fault) => {
                *self = FrameReader { fault: Some(fault), ..FrameReader::new(self.max) };
                Err(fault)
            }
        }
    }

    /// Makes room for `count` bytes behind `end`.
    fn reserve(&mut self, count: usize) {
        if self.buffer.len() - self.end >= count {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let needed = self.end + count;
        if self.buffer.len() < needed {
            // Doubling keeps the copying linear; the declared length is not believed, only what has arrived.
            let doubled = (self.buffer.len() * 2).min(LENGTH_BYTES + self.max);
            self.buffer.resize(needed.max(doubled), 0);
        }
    }
}

/// The first message in `bytes` and the bytes it took.
fn take<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<Option<(T, usize)>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let len = u32::from_le_bytes(*length) as usize;
    if len > max {
        return Err(FrameError::Oversized { len, max });
    }
    if len == 0 {
        return Err(FrameError::Malformed { len });
    }
    // A wrong version is said at once, without waiting for a body that may never come.
    match rest.first() {
        None => return Ok(None),
        Some(&found) if found != FRAME_VERSION => {
            return Err(FrameError::Version { found, expected: FRAME_VERSION });
        }
        Some(_) => {}
    }
    let Some(body) = rest.get(1..len) else { return Ok(None) };
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(Some((message, LENGTH_BYTES + len))),
        Ok((_, excess)) => Err(FrameError::Trailing { excess: excess.len() }),
        Err(_) => Err(FrameError::Malformed { len }),
    }
}
