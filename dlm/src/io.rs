//! The core's boundary: what comes in, what goes out (DESIGN section 2).
//!
//! The driver (daemon or simulator) calls [`crate::Core::handle`] with one [`Input`] and the time, then drains
//! [`crate::Core::poll_output`] and carries the outputs out *in order*. Outputs that start I/O carry an id; the driver
//! reports its end with exactly one input that carries the same id.

use crate::time::BootTime;
use mxlock_format::{Heartbeat, HeartbeatError, Incarnation, MAX_NODES, NodeId, Process, SectorImage};
use mxlock_proto::client::{Request, Response};
use mxlock_proto::peer::PeerFrame;
use std::net::SocketAddr;
use std::sync::Arc;

/// An I/O request of the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IoId(pub u64);

/// A client connection, named by the driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// A version of the own heartbeat, named by the core; greater is newer, 0 is none.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ImageId(pub u64);

/// The 64 heartbeat sectors as one read returned them.
pub type Region = [Result<Heartbeat, HeartbeatError>; MAX_NODES];

/// Why an I/O failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IoFault {
    /// The deadline had passed before it was issued: nothing was written.
    #[error("not issued: its time had passed")]
    Expired,
    /// It ended in an error: what is on disk is not known.
    #[error("{0}")]
    Failed(Arc<str>),
}

/// One turn of the heartbeat thread: write the newest image, *then* read the region (section 4).
#[derive(Clone, Debug)]
pub struct Beat {
    /// The image written; `None` when nothing was published yet, and only the region was read.
    pub write: Option<BeatWrite>,
    /// The read that was issued after the write had ended; `None` when the write failed and no read was made.
    pub read: Option<Result<BeatRead, IoFault>>,
}

/// The write half of a beat.
#[derive(Clone, Debug)]
pub struct BeatWrite {
    /// Which image.
    pub image: ImageId,
    /// The sequence number that the thread stamped.
    pub hb_seq: u64,
    /// When the write began.
    pub started: BootTime,
    /// How it ended.
    pub result: Result<(), IoFault>,
}

/// The read half of a beat.
#[derive(Clone, Debug)]
pub struct BeatRead {
    /// When the read was issued.
    pub issued: BootTime,
    /// When it ended.
    pub ended: BootTime,
    /// What was read.
    pub region: Box<Region>,
}

/// A part of the lock-record table, as read.
#[derive(Clone, Debug)]
pub struct TableChunk {
    /// The first slot.
    pub first_slot: u32,
    /// 512 bytes for each slot.
    pub bytes: Vec<u8>,
    /// Slots that could not be read (their bytes are zero), or whose sector has bytes behind the record.
    pub unreadable: Vec<u32>,
}

/// What the driver tells the core.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed ([`crate::Core::next_wakeup`]).
    Tick,
    /// A turn of the heartbeat thread ended.
    Beat(Beat),
    /// A `WriteRecord` or `WriteTable` ended.
    Written {
        /// Its id.
        io: IoId,
        /// How it ended.
        result: Result<(), IoFault>,
    },
    /// A `ReadTable` ended.
    TableRead {
        /// Its id.
        io: IoId,
        /// What was read.
        result: Result<TableChunk, IoFault>,
    },
    /// An authenticated link with a peer stands (both directions).
    PeerUp {
        /// The peer.
        node: NodeId,
        /// Its incarnation, as proven in the handshake.
        incarnation: Incarnation,
    },
    /// The link is gone.
    PeerDown {
        /// The peer.
        node: NodeId,
    },
    /// A frame came in on the link of `node`.
    Peer {
        /// The peer whose link it is.
        node: NodeId,
        /// The frame.
        frame: PeerFrame,
    },
    /// A client connected; the process is what the kernel says of it.
    Connected {
        /// The connection.
        conn: ConnId,
        /// The peer process.
        process: Process,
    },
    /// A client's request.
    Client {
        /// The connection.
        conn: ConnId,
        /// The request. A `Hello` with `on_behalf_of` comes with that process filled in by the driver.
        request: Request,
        /// For `Hello` with `on_behalf_of`: that process, if it exists.
        subject: Option<Process>,
    },
    /// A client's connection ended (also after `Output::Close`).
    Disconnected {
        /// The connection.
        conn: ConnId,
    },
    /// An answer that carried `valid_until` was not sent in time: the driver sent `Denied(LeaseLost)` instead.
    Undelivered {
        /// The connection.
        conn: ConnId,
        /// The lock.
        seq: u64,
        /// The operation.
        op: u32,
    },
    /// A watched process ended, or did not exist.
    ProcessGone {
        /// The process.
        process: Process,
    },
    /// The answer to `Output::NameProcesses`.
    ProcessNames {
        /// Its number.
        id: u64,
        /// The command of each process, in the order asked for; `None` when it is gone.
        names: Vec<Option<String>>,
    },
    /// SIGTERM: hand over and stop.
    Shutdown,
}

/// A peer to keep a link with.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct PeerAddress {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub addresses: Vec<SocketAddr>,
}

/// What the core wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Publish this as the own heartbeat; `urgent`: begin a beat at once (or right after the one under way).
    Heartbeat {
        /// Its number.
        image: ImageId,
        /// Its contents; the thread stamps hb_seq, timestamp_ms and boottime_ns.
        heartbeat: Box<Heartbeat>,
        /// Do not wait for the tick.
        urgent: bool,
        /// As long as this daemon has written nothing: not to be begun after this ([`IoFault::Expired`]). Whoever takes a
        /// slot writes soon after it looked there.
        begin_by: Option<BootTime>,
    },
    /// No ballot is cast before. To be kept, over a `kill -9` but not over a boot, for the daemon that takes this slot next:
    /// [`crate::config::Config::ballots_from`]. Without an image that was written since it may be forgotten.
    BallotsFrom {
        /// That time.
        from: BootTime,
    },
    /// Begin a beat at once: something is to be seen on disk.
    Look,
    /// The lease page's contents: the lease runs until then; `None`: it is lost.
    Lease {
        /// End of the lease.
        until: Option<BootTime>,
    },
    /// Write one record sector.
    WriteRecord {
        /// Comes back in `Input::Written`.
        io: IoId,
        /// Where.
        slot: u32,
        /// What; `None` clears the sector.
        image: Option<Box<SectorImage>>,
        /// Not to be issued after this (section 5).
        deadline: BootTime,
    },
    /// Read a part of the table.
    ReadTable {
        /// Comes back in `Input::TableRead`.
        io: IoId,
        /// First slot.
        first_slot: u32,
        /// Number of slots.
        count: u32,
    },
    /// Write a part of the table as it stands in [`crate::Core::mirror`] now.
    WriteTable {
        /// Comes back in `Input::Written`.
        io: IoId,
        /// First slot.
        first_slot: u32,
        /// Number of slots.
        count: u32,
        /// Not to be issued after this.
        deadline: BootTime,
    },
    /// A damaged sector's bytes, to be kept for people (`<state>/quarantine`).
    Quarantine {
        /// The slot.
        slot: u32,
        /// Its 512 bytes as read.
        bytes: Box<[u8; 512]>,
        /// What is wrong with it.
        reason: String,
    },
    /// This node goes on under another incarnation: drop all links, and present this one from now on.
    NewIncarnation {
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// Keep links with exactly these peers.
    Peers(Vec<PeerAddress>),
    /// Send a frame; without a link it is dropped (the core sends it again after `PeerUp`).
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        frame: Box<PeerFrame>,
    },
    /// Send a response to a client. With `valid_until` it is an answer that promises a lock: not after that time.
    Reply {
        /// The connection.
        conn: ConnId,
        /// The response.
        response: Response,
        /// End of the promise.
        valid_until: Option<BootTime>,
    },
    /// Close a client's connection after what was sent before.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Report `ProcessGone` when this process ends (or at once, if it is gone).
    Watch {
        /// The process.
        process: Process,
    },
    /// No more interest in this process.
    Unwatch {
        /// The process.
        process: Process,
    },
    /// Say in `Input::ProcessNames` which commands these processes are. For people.
    NameProcesses {
        /// Comes back with the answer.
        id: u64,
        /// The processes.
        processes: Vec<Process>,
    },
    /// Something for the log and for `mxlock events`.
    Log(crate::event::Event),
    /// The core has ended; the process shall too.
    Stop {
        /// Why.
        reason: crate::event::StopReason,
    },
}
