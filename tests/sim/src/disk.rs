//! The shared disk: real encoded sectors, one atomic write each (A1), everything else as unkind as A2 allows.
//!
//! A write of several sectors lands in pieces, in any order. A read samples its sectors at several moments. A stall, of
//! the whole disk or of one host's path, holds everything up; a write that is held up for longer than A2 never lands and
//! ends in an error. The writes of a crashed host land late, within A2, or never.

use crate::clock::{MS, Time, US};
use crate::dice::{Dice, mix};
use mxlock_dlm::io::{IoFault, IoId, Region};
use mxlock_format::{
    Geometry, Heartbeat, HeartbeatError, LockRecord, MAX_NODES, NodeId, RECORD_BYTES, SectorImage, Superblock,
};
use std::collections::BTreeMap;

/// What an I/O is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The heartbeat thread's write or read.
    Beat,
    /// The core's, with its id.
    Core(IoId),
    /// The read of the region before a daemon starts.
    Start,
}

/// Who issued it: a host, which boot of it, which daemon run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Index of the host.
    pub host: usize,
    /// Which boot of the host.
    pub boot: u32,
    /// Which daemon run, unique in the world.
    pub run: u32,
}

/// Sectors that land together.
#[derive(Clone, Debug)]
pub enum Piece {
    /// A heartbeat sector.
    Heartbeat(NodeId, Box<SectorImage>),
    /// Record sectors from a slot on, 512 bytes each.
    Records(u32, Vec<u8>),
}

/// A write under way.
#[derive(Debug)]
pub struct Write {
    /// Who issued it.
    pub by: Issuer,
    /// What for.
    pub purpose: Purpose,
    /// When.
    pub issued: Time,
    /// The last moment at which it may land (A2).
    pub limit: Time,
    /// What has not landed yet.
    pub pieces: BTreeMap<u8, Piece>,
    /// How it ends.
    pub result: Result<(), IoFault>,
    /// Its host has crashed and its fate was drawn.
    pub doomed: bool,
}

/// A read under way.
#[derive(Debug)]
pub struct Read {
    /// Who issued it.
    pub by: Issuer,
    /// What for.
    pub purpose: Purpose,
    /// When.
    pub issued: Time,
    /// Which record slots (first, count); `None`: the heartbeat region.
    pub slots: Option<(u32, u32)>,
    /// Samples still to take.
    pub samples_left: u8,
    region: Vec<Option<Result<Heartbeat, HeartbeatError>>>,
    bytes: Vec<u8>,
}

/// A record sector that changed.
pub struct Changed {
    /// Its slot.
    pub slot: u32,
    /// What stood there.
    pub before: Option<LockRecord>,
}

/// Samples of one read.
pub const READ_SAMPLES: u8 = 3;

/// The disk.
pub struct Disk {
    /// Sector size and slot count.
    pub geometry: Geometry,
    /// All heartbeat sectors, decoded as they landed.
    pub heartbeats: Vec<Result<Heartbeat, HeartbeatError>>,
    bytes: Vec<u8>,
    /// All record sectors, decoded as they landed.
    pub records: Vec<Option<LockRecord>>,
    /// Until when everything stalls.
    pub stalled_until: Time,
    /// Until when a host's path stalls.
    pub path_stalled_until: Vec<Time>,
    /// Writes under way.
    pub writes: BTreeMap<u64, Write>,
    /// Reads under way.
    pub reads: BTreeMap<u64, Read>,
    next_id: u64,
    /// The disk's own randomness.
    pub dice: Dice,
    /// Mean latency of an operation.
    pub latency: Time,
}

impl Disk {
    /// A freshly formatted lockstate.
    pub fn new(
        superblock: &Superblock,
        base_epoch: mxlock_format::Epoch,
        hosts: usize,
        latency: Time,
        dice: Dice,
    ) -> Disk {
        let slots = superblock.geometry.slot_count as usize;
        Disk {
            geometry: superblock.geometry,
            heartbeats: NodeId::all()
                .map(|node| Heartbeat::decode(node, Heartbeat::empty(node, superblock, base_epoch).encode().as_ref()))
                .collect(),
            bytes: vec![0; slots * RECORD_BYTES],
            records: vec![None; slots],
            stalled_until: 0,
            path_stalled_until: vec![0; hosts],
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_id: 0,
            dice,
            latency,
        }
    }

    /// Until when I/O of `host` is held up.
    pub fn held_until(&self, host: usize) -> Time {
        self.stalled_until.max(self.path_stalled_until[host])
    }

    /// How long an operation takes when nothing holds it up: microseconds mostly, seldom seconds.
    fn duration(&mut self) -> Time {
        if self.dice.chance(3_000) {
            return self.dice.range(50 * MS, 1_500 * MS);
        }
        self.dice.spread(self.latency).max(10 * US)
    }

    /// Starts a write; returns its id and when each piece is due to land.
    pub fn write(
        &mut self,
        now: Time,
        by: Issuer,
        purpose: Purpose,
        limit: Time,
        pieces: Vec<Piece>,
    ) -> (u64, Vec<(u8, Time)>) {
        self.next_id += 1;
        let id = self.next_id;
        let due = (0..pieces.len()).map(|piece| (piece as u8, now + self.duration())).collect();
        let pieces = pieces.into_iter().enumerate().map(|(at, piece)| (at as u8, piece)).collect();
        self.writes.insert(id, Write { by, purpose, issued: now, limit, pieces, result: Ok(()), doomed: false });
        (id, due)
    }

    /// Starts a read; returns its id and the times of its samples.
    pub fn read(&mut self, now: Time, by: Issuer, purpose: Purpose, slots: Option<(u32, u32)>) -> (u64, Vec<Time>) {
        self.next_id += 1;
        let id = self.next_id;
        let step = self.duration() / u64::from(READ_SAMPLES) + 1;
        let (region, bytes) = match slots {
            None => (vec![None; MAX_NODES], Vec::new()),
            Some((_, count)) => (Vec::new(), vec![0; count as usize * RECORD_BYTES]),
        };
        let read = Read { by, purpose, issued: now, slots, samples_left: READ_SAMPLES, region, bytes };
        self.reads.insert(id, read);
        (id, (1..=u64::from(READ_SAMPLES)).map(|sample| now + sample * step).collect())
    }

    /// Takes one sample of a read: about a third of its sectors, chosen by a hash.
    ///
    /// # Panics
    /// When there is no such read.
    pub fn sample(&mut self, id: u64) -> bool {
        let read = self.reads.get_mut(&id).expect("a sample belongs to a read");
        read.samples_left -= 1;
        let turn = u64::from(read.samples_left);
        let chosen = |sector: u64| mix(id ^ (sector << 32)) % u64::from(READ_SAMPLES) == turn;
        match read.slots {
            None => {
                for (node, sector) in self.heartbeats.iter().enumerate().filter(|(node, _)| chosen(*node as u64)) {
                    read.region[node] = Some(sector.clone());
                }
            }
            Some((first, count)) => {
                for at in (0..count as usize).filter(|at| chosen(*at as u64)) {
                    let from = (first as usize + at) * RECORD_BYTES;
                    read.bytes[at * RECORD_BYTES..][..RECORD_BYTES]
                        .copy_from_slice(&self.bytes[from..from + RECORD_BYTES]);
                }
            }
        }
        read.samples_left == 0
    }

    /// Lets one piece land; returns the record sectors whose contents changed.
    ///
    /// # Panics
    /// When the bytes are not what the format crate writes: a core may write nothing else.
    pub fn land(&mut self, piece: Piece) -> Vec<Changed> {
        match piece {
            Piece::Heartbeat(node, image) => {
                let heartbeat = Heartbeat::decode(node, &image.0[..]);
                assert!(heartbeat.is_ok(), "a damaged heartbeat was written: {heartbeat:?}");
                self.heartbeats[node.index()] = heartbeat;
                Vec::new()
            }
            Piece::Records(first, bytes) => {
                let mut changed = Vec::new();
                for (at, sector) in bytes.chunks_exact(RECORD_BYTES).enumerate() {
                    let slot = first as usize + at;
                    let old = &mut self.bytes[slot * RECORD_BYTES..][..RECORD_BYTES];
                    if old != sector {
                        old.copy_from_slice(sector);
                        let record = LockRecord::decode(slot as u32, sector)
                            .unwrap_or_else(|error| panic!("a damaged record was written: {error}"));
                        let before = std::mem::replace(&mut self.records[slot], record);
                        changed.push(Changed { slot: slot as u32, before });
                    }
                }
                changed
            }
        }
    }

    /// The bytes of a record sector.
    pub fn record_bytes(&self, slot: u32) -> &[u8] {
        &self.bytes[slot as usize * RECORD_BYTES..][..RECORD_BYTES]
    }

    /// Whether a run still has writes under way.
    pub fn has_writes_of(&self, run: u32) -> bool {
        self.writes.values().any(|write| write.by.run == run)
    }
}

impl Read {
    /// The heartbeat region as it was read.
    ///
    /// # Panics
    /// When not every sample was taken.
    pub fn into_region(self) -> Box<Region> {
        let sectors: Vec<_> = self.region.into_iter().map(|sector| sector.expect("all samples were taken")).collect();
        match sectors.into_boxed_slice().try_into() {
            Ok(region) => region,
            Err(_) => unreachable!("a region has one sector per node"),
        }
    }

    /// The record sectors as they were read.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
