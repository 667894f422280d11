//! A recorded stream: what reached the disk, and what clients were told, in one total order over all nodes.
//!
//! The order is the order of the recorder's one lock. A write is issued when the device is handed it and written when the
//! device says so; it is *durable* when a flush that was issued after that, through the same node's path, has ended.
//! A client's line is put down after it was told something good (a grant), and before it asks for its end (a release): so
//! between the two it certainly believes.

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use mxlock_format::{Mode, NodeId, SessionId, Token};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

/// First bytes of a file, with the version of what follows.
const MAGIC: &[u8; 8] = b"mxcrash\x01";

/// A recorded run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stream {
    /// The whole lockstate when the recording began: freshly formatted.
    pub base: Vec<u8>,
    /// What happened.
    pub moments: Vec<Moment>,
}

/// An event with its time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moment {
    /// CLOCK_BOOTTIME.
    pub at_ns: u64,
    /// What happened.
    pub event: Event,
}

/// A lock of a client's session; the names of resources are those of `ConnectOptions::namespace`'s default.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct LockName {
    /// Number of the client.
    pub client: u32,
    /// The client's number for the lock.
    pub seq: u64,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// The device was handed a write.
    Write {
        /// Unique number of the request.
        id: u32,
        /// Whose path it came on.
        node: NodeId,
        /// Where, bytes.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// The device says that a write has ended: it is in a cache that may forget it.
    Written {
        /// Which.
        id: u32,
    },
    /// The device was handed a flush.
    Flush {
        /// Unique number of the request.
        id: u32,
        /// Whose path it came on.
        node: NodeId,
    },
    /// The flush has ended: what was written on this path before it began is durable.
    Flushed {
        /// Which.
        id: u32,
    },
    /// A daemon process was started.
    Started {
        /// Which node's.
        node: NodeId,
    },
    /// A daemon process is gone.
    Ended {
        /// Which node's.
        node: NodeId,
    },
    /// A client has a session.
    Session {
        /// Number of the client.
        client: u32,
        /// The node of its daemon.
        node: NodeId,
        /// The session.
        session: SessionId,
    },
    /// A client has connected again, to a daemon that was restarted: its locks stand.
    Confirmed {
        /// Which.
        client: u32,
        /// Its session: another one where it held nothing that the old one could be known by.
        session: SessionId,
    },
    /// A client has asked for a lock.
    Asked {
        /// Which.
        lock: LockName,
        /// What is locked.
        name: String,
        /// How.
        mode: Mode,
    },
    /// A client was told that it holds a lock, new or converted.
    Told {
        /// Which.
        lock: LockName,
        /// How.
        mode: Mode,
        /// The token.
        token: Token,
    },
    /// A client is about to ask for another mode, and to write a value.
    Converting {
        /// Which.
        lock: LockName,
        /// Number of the operation.
        op: u32,
        /// The mode wanted.
        mode: Mode,
        /// The value, which is unique in the stream.
        value: Option<u64>,
    },
    /// A client is about to release a lock, and to write a value.
    Releasing {
        /// Which.
        lock: LockName,
        /// The value, which is unique in the stream.
        value: Option<u64>,
    },
    /// A client was told that its lock is no more.
    Released {
        /// Which.
        lock: LockName,
    },
    /// A request of a client has ended in something else than a grant: the lock was never held, or is held as before.
    Denied {
        /// Which.
        lock: LockName,
        /// The mode that it is still held in.
        still: Option<Mode>,
    },
    /// A client relies on nothing any more: it ends, or its node's lease was lost.
    Over {
        /// Which.
        client: u32,
    },
}

impl Stream {
    /// The stream as a file's contents.
    ///
    /// # Errors
    /// None that a stream in memory could cause.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let plain = postcard::to_allocvec(self).map_err(|e| e.to_string())?;
        let mut encoder = DeflateEncoder::new(MAGIC.to_vec(), Compression::best());
        encoder.write_all(&plain).and_then(|()| encoder.finish()).map_err(|e| e.to_string())
    }

    /// Reads a file's contents.
    ///
    /// # Errors
    /// They are not a stream.
    pub fn from_bytes(bytes: &[u8]) -> Result<Stream, String> {
        let packed = bytes.strip_prefix(MAGIC).ok_or("this is no recorded stream of this version")?;
        let mut plain = Vec::new();
        DeflateDecoder::new(packed).read_to_end(&mut plain).map_err(|e| e.to_string())?;
        postcard::from_bytes(&plain).map_err(|e| e.to_string())
    }
}
