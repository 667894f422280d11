//! The shared disk: real encoded sectors, one atomic write each (A1), everything else as unkind as A2 allows.
//!
//! A write of several sectors lands in pieces, in any order. A read samples its sectors at several moments. What else
//! goes wrong with an operation is its [`Fate`], drawn when it is issued ([`crate::trouble`]).
//!
//! Where the disk does not do what it said (a lost or misdirected write, a rotten bit), [`Disk::promised`] knows what
//! a slot should hold: the oracle of I3 judges the software by that, not by what the disk did.

use crate::clock::{MS, Time, US};
use crate::dice::{Dice, both, mix};
use crate::oracle::stamps;
use mxlock_dlm::io::{IoFault, IoId, Region};
use mxlock_format::{
    Fault, Geometry, Heartbeat, HeartbeatError, LockRecord, MAX_NODES, NodeId, RECORD_BYTES, SectorImage, Superblock,
    View,
};
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Which daemon run.
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

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does what it should.
    Good,
    /// An error; a write never lands.
    Error,
    /// A write that ends in an error and has landed all the same.
    ErrorLanded,
    /// A write that ends in an error and lands later, within A2.
    ErrorLate,
    /// A write that ends in an error and leaves one sector half old, half new.
    ErrorTorn,
    /// A read that cannot read one of its sectors.
    Unreadable,
    /// A write that is acknowledged and never lands.
    Lost,
    /// A record write that is acknowledged and lands in this slot.
    Misdirected(u32),
    /// A read that returns what the disk held when the trouble began.
    Stale,
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
    /// Pieces that the device has not answered yet.
    pub unanswered: usize,
    /// How it ends.
    pub result: Result<(), IoFault>,
    /// What becomes of it.
    pub fate: Fate,
    /// Its end was told; what is left of it lands late.
    pub ended: bool,
    /// It failed, and its daemon heard so.
    pub heard: bool,
    /// It lands long after its limit.
    pub overdue: bool,
    /// Its host has crashed and its fate was drawn.
    pub doomed: bool,
    /// Its own randomness.
    pub dice: Dice,
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
    /// What becomes of it.
    pub fate: Fate,
    /// Samples still to take.
    pub samples_left: u8,
    /// The sector that cannot be read, if it is its fate.
    pub unreadable: u32,
    region: Vec<Option<Result<Heartbeat, HeartbeatError>>>,
    bytes: Vec<u8>,
}

/// A record sector that changed.
pub struct Changed {
    /// Its slot.
    pub slot: u32,
    /// What stood there.
    pub before: Option<LockRecord>,
    /// What should have stood there.
    pub promised: Option<LockRecord>,
}

/// What the disk held once, for stale reads.
#[derive(Debug)]
pub struct Snapshot {
    heartbeats: Vec<Result<Heartbeat, HeartbeatError>>,
    bytes: Vec<u8>,
}

/// The kinds of operation: each has its own ordinals on each host.
#[derive(Clone, Copy)]
enum Lane {
    Beat,
    Record,
    Read,
}

/// Samples of one read.
pub const READ_SAMPLES: u8 = 3;

/// The disk.
pub struct Disk {
    /// Sector size and slot count.
    pub geometry: Geometry,
    /// All heartbeat sectors, decoded as they landed.
    pub heartbeats: Vec<Result<Heartbeat, HeartbeatError>>,
    heartbeat_bytes: Vec<[u8; RECORD_BYTES]>,
    bytes: Vec<u8>,
    /// All record sectors, decoded as they landed; one that cannot be decoded counts as none.
    pub records: Vec<Option<LockRecord>>,
    /// Slots whose contents are not what the disk promised, with what that was.
    pub broken: BTreeMap<u32, Option<LockRecord>>,
    /// Until when everything stalls.
    pub stalled_until: Time,
    /// Until when a host's path stalls.
    pub path_stalled_until: Vec<Time>,
    /// What stale reads return, by host.
    pub snapshots: BTreeMap<usize, Arc<Snapshot>>,
    /// Writes under way.
    pub writes: BTreeMap<u64, Write>,
    /// Reads under way.
    pub reads: BTreeMap<u64, Read>,
    next_id: u64,
    seed: u64,
    ordinals: Vec<[u32; 3]>,
    latency: Time,
    /// Operations in a million that take up to 1.5 s.
    pub hiccups_ppm: u64,
}

impl Disk {
    /// A daemon heard that a write of its core has failed.
    pub fn heard(&mut self, host: usize, run: u32, io: IoId) {
        let failed = self.writes.values_mut().find(|write| {
            (write.by.host, write.by.run) == (host, run) && matches!(write.purpose, Purpose::Core(own) if own == io)
        });
        if let Some(write) = failed {
            write.heard = true;
        }
    }

    /// A freshly formatted lockstate.
    pub fn new(
        seed: u64,
        superblock: &Superblock,
        base_epoch: mxlock_format::Epoch,
        hosts: usize,
        latency: Time,
    ) -> Disk {
        let mut disk = Disk {
            geometry: superblock.geometry,
            heartbeats: Vec::new(),
            heartbeat_bytes: Vec::new(),
            bytes: Vec::new(),
            records: Vec::new(),
            broken: BTreeMap::new(),
            stalled_until: 0,
            path_stalled_until: vec![0; hosts],
            snapshots: BTreeMap::new(),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_id: 0,
            seed,
            ordinals: vec![[0; 3]; hosts],
            latency,
            hiccups_ppm: 0,
        };
        disk.format(superblock, base_epoch);
        disk
    }

    /// Writes every sector anew.
    pub fn format(&mut self, superblock: &Superblock, base_epoch: mxlock_format::Epoch) {
        let slots = superblock.geometry.slot_count as usize;
        self.heartbeat_bytes =
            NodeId::all().map(|node| Heartbeat::empty(node, superblock, base_epoch).encode().0).collect();
        let sectors = NodeId::all().zip(&self.heartbeat_bytes);
        self.heartbeats = sectors.map(|(node, bytes)| Heartbeat::decode(node, bytes)).collect();
        self.bytes = vec![0; slots * RECORD_BYTES];
        self.records = vec![None; slots];
        self.broken.clear();
    }

    /// Until when I/O of `host` is held up.
    pub fn held_until(&self, host: usize) -> Time {
        self.stalled_until.max(self.path_stalled_until[host])
    }

    /// The randomness of a host's next operation of a kind.
    fn next_dice(&mut self, host: usize, lane: Lane) -> Dice {
        let ordinal = &mut self.ordinals[host][lane as usize];
        *ordinal += 1;
        let name = match lane {
            Lane::Beat => "beat",
            Lane::Record => "record",
            Lane::Read => "read",
        };
        Dice::new(self.seed, name, both(host, *ordinal))
    }

    /// How long an operation takes when nothing holds it up: microseconds mostly, seldom seconds.
    fn duration(&self, dice: &mut Dice) -> Time {
        if dice.chance(self.hiccups_ppm) {
            return dice.range(50 * crate::clock::MS, 1_500 * crate::clock::MS);
        }
        dice.spread(self.latency).max(10 * US)
    }

    /// Starts a write; returns its id and when each piece is due to land. `fate` draws what becomes of it.
    pub fn write(
        &mut self,
        now: Time,
        by: Issuer,
        purpose: Purpose,
        limit: Time,
        pieces: Vec<Piece>,
        fate: impl FnOnce(&mut Dice) -> Fate,
    ) -> (u64, Vec<(u8, Time)>) {
        self.next_id += 1;
        let id = self.next_id;
        let lane = if purpose == Purpose::Beat { Lane::Beat } else { Lane::Record };
        let mut dice = self.next_dice(by.host, lane);
        let due = (0..pieces.len()).map(|piece| (piece as u8, now + self.duration(&mut dice))).collect();
        let fate = fate(&mut dice);
        let unanswered = pieces.len();
        let pieces = pieces.into_iter().enumerate().map(|(at, piece)| (at as u8, piece)).collect();
        let write = Write {
            by,
            purpose,
            issued: now,
            limit,
            pieces,
            unanswered,
            result: Ok(()),
            fate,
            ended: false,
            heard: false,
            overdue: false,
            doomed: false,
            dice,
        };
        self.writes.insert(id, write);
        (id, due)
    }

    /// For how long a write waits where much else is being written; it keeps well within A2.
    pub fn some_wait(&mut self, write: u64) -> Time {
        self.writes.get_mut(&write).map_or(0, |write| write.dice.below(4_000) * MS)
    }

    /// The record writes that a host has under way land long after A2 allows.
    pub fn are_overdue(&mut self, host: usize) {
        let open = |write: &&mut Write| write.by.host == host && !write.ended && write.purpose != Purpose::Beat;
        self.writes.values_mut().filter(open).for_each(|write| write.overdue = true);
    }

    /// Sectors that should have landed long ago do so now: what they replace is what the disk still promises.
    pub fn land_overdue(&mut self, piece: &Piece) -> Vec<Changed> {
        let Piece::Records(first, bytes) = piece else { return Vec::new() };
        let mut changed = Vec::new();
        for (slot, sector) in (*first..).zip(bytes.chunks_exact(RECORD_BYTES)) {
            let promised = self.promised(slot).cloned();
            changed.extend(self.land_record(slot, sector, false));
            if self.records[slot as usize] != promised {
                self.broken.insert(slot, promised);
            }
        }
        changed
    }

    /// Starts a read; returns its id and the times of its samples.
    pub fn read(
        &mut self,
        now: Time,
        by: Issuer,
        purpose: Purpose,
        slots: Option<(u32, u32)>,
        fate: impl FnOnce(&mut Dice) -> Fate,
    ) -> (u64, Vec<Time>) {
        self.next_id += 1;
        let id = self.next_id;
        let mut dice = self.next_dice(by.host, Lane::Read);
        let step = self.duration(&mut dice) / u64::from(READ_SAMPLES) + 1;
        let fate = fate(&mut dice);
        let (sectors, region, bytes) = match slots {
            None => (MAX_NODES as u32, vec![None; MAX_NODES], Vec::new()),
            Some((_, count)) => (count, Vec::new(), vec![0; count as usize * RECORD_BYTES]),
        };
        // Of the region, one of the sectors that are in use.
        let unreadable = dice.below(u64::from(sectors.min(if slots.is_none() { 8 } else { sectors }))) as u32;
        let samples_left = READ_SAMPLES;
        let read = Read { by, purpose, issued: now, slots, fate, samples_left, unreadable, region, bytes };
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
        let old = self.snapshots.get(&read.by.host).filter(|_| read.fate == Fate::Stale);
        let (heartbeats, bytes) = match old {
            Some(old) => (&old.heartbeats, &old.bytes),
            None => (&self.heartbeats, &self.bytes),
        };
        match read.slots {
            None => {
                for (node, sector) in heartbeats.iter().enumerate().filter(|(node, _)| chosen(*node as u64)) {
                    read.region[node] = Some(sector.clone());
                }
            }
            Some((first, count)) => {
                for at in (0..count as usize).filter(|at| chosen(*at as u64)) {
                    let from = (first as usize + at) * RECORD_BYTES;
                    read.bytes[at * RECORD_BYTES..][..RECORD_BYTES].copy_from_slice(&bytes[from..from + RECORD_BYTES]);
                }
            }
        }
        read.samples_left == 0
    }

    /// Remembers the disk as it is, for the stale reads of a host.
    pub fn remember(&mut self, host: usize) {
        let snapshot = Snapshot { heartbeats: self.heartbeats.clone(), bytes: self.bytes.clone() };
        self.snapshots.insert(host, Arc::new(snapshot));
    }

    /// Lets one piece land; returns the record sectors whose contents changed.
    ///
    /// # Panics
    /// When the bytes are not what the format crate writes: a core may write nothing else.
    pub fn land(&mut self, piece: &Piece) -> Vec<Changed> {
        match piece {
            Piece::Heartbeat(node, image) => {
                self.set_heartbeat(*node, image.0);
                let heartbeat = &self.heartbeats[node.index()];
                assert!(heartbeat.is_ok(), "a damaged heartbeat was written: {heartbeat:?}");
                Vec::new()
            }
            Piece::Records(first, bytes) => {
                let sectors = (*first..).zip(bytes.chunks_exact(RECORD_BYTES));
                sectors.filter_map(|(slot, sector)| self.land_record(slot, sector, true)).collect()
            }
        }
    }

    /// One sector of a piece is left half old, half new: the first `keep` bytes are new. Those before it have landed.
    pub fn tear(&mut self, piece: &Piece, sector: usize, keep: usize) -> Vec<Changed> {
        match piece {
            Piece::Heartbeat(node, image) => {
                let mut torn = self.heartbeat_bytes[node.index()];
                torn[..keep].copy_from_slice(&image.0[..keep]);
                self.set_heartbeat(*node, torn);
                Vec::new()
            }
            Piece::Records(first, bytes) => {
                let mut changed = Vec::new();
                for (at, whole) in bytes.chunks_exact(RECORD_BYTES).enumerate().take(sector + 1) {
                    let slot = first + at as u32;
                    if at < sector {
                        changed.extend(self.land_record(slot, whole, true));
                        continue;
                    }
                    let mut torn: [u8; RECORD_BYTES] = self.record_bytes(slot).try_into().expect("a sector's bytes");
                    torn[..keep].copy_from_slice(&whole[..keep]);
                    let promised = self.promised(slot).cloned();
                    changed.extend(self.land_record(slot, &torn, false));
                    self.broken.insert(slot, promised);
                }
                changed
            }
        }
    }

    /// A bit of a record sector flips.
    pub fn rot_record(&mut self, slot: u32, bit: usize) {
        let mut bytes: [u8; RECORD_BYTES] = self.record_bytes(slot).try_into().expect("a sector's bytes");
        bytes[bit / 8] ^= 1 << (bit % 8);
        let promised = self.promised(slot).cloned();
        self.land_record(slot, &bytes, false);
        self.broken.insert(slot, promised);
    }

    /// A bit of a heartbeat sector flips.
    pub fn rot_heartbeat(&mut self, node: NodeId, bit: usize) {
        let mut bytes = self.heartbeat_bytes[node.index()];
        bytes[bit / 8] ^= 1 << (bit % 8);
        self.set_heartbeat(node, bytes);
    }

    /// A record write was acknowledged and has not landed where it should.
    pub fn forget(&mut self, piece: &Piece) {
        if let Piece::Records(first, bytes) = piece {
            for (slot, sector) in (*first..).zip(bytes.chunks_exact(RECORD_BYTES)) {
                let wanted = LockRecord::decode(slot, sector).unwrap_or_default();
                if self.records[slot as usize] != wanted {
                    self.broken.insert(slot, wanted);
                }
            }
        }
    }

    /// A record lands where it should not.
    pub fn misdirect(&mut self, target: u32, sector: &[u8]) {
        let promised = self.promised(target).cloned();
        self.land_record(target, sector, false);
        if self.records[target as usize] != promised {
            self.broken.insert(target, promised);
        }
    }

    fn set_heartbeat(&mut self, node: NodeId, bytes: [u8; RECORD_BYTES]) {
        self.heartbeats[node.index()] = Heartbeat::decode(node, &bytes);
        self.heartbeat_bytes[node.index()] = bytes;
    }

    fn land_record(&mut self, slot: u32, sector: &[u8], whole: bool) -> Option<Changed> {
        let promised = self.promised(slot).cloned();
        let old = &mut self.bytes[slot as usize * RECORD_BYTES..][..RECORD_BYTES];
        // A recovery writes damaged bytes back as they are: they still stand for what they said.
        let kept = old == sector && LockRecord::decode(slot, sector).is_err();
        if whole && !kept {
            self.broken.remove(&slot);
        }
        if old == sector {
            return None;
        }
        old.copy_from_slice(sector);
        let record = match LockRecord::decode(slot, sector) {
            Ok(record) => record,
            Err(error) => {
                assert!(!whole, "a damaged record was written: {error}");
                None
            }
        };
        let before = std::mem::replace(&mut self.records[slot as usize], record);
        Some(Changed { slot, before, promised })
    }

    /// What a slot holds, or should hold, had the disk done what it said.
    pub fn promised(&self, slot: u32) -> Option<&LockRecord> {
        self.broken.get(&slot).map_or(self.records[slot as usize].as_ref(), Option::as_ref)
    }

    /// Whether a slot holds something that looks good and is not what was promised. A record that is older than the table
    /// epoch, where nothing should be, misleads nobody: its stamp says that it does not count.
    pub fn lies_at(&self, slot: u32, newest: Option<&View>) -> bool {
        let harmless = |promised: &Option<LockRecord>| {
            let found = self.records[slot as usize].as_ref();
            promised.is_none() && found.is_some_and(|found| !stamps::counts(found, newest))
        };
        self.broken.get(&slot).filter(|promised| !harmless(promised)).is_some_and(|promised| {
            self.records[slot as usize] != *promised && LockRecord::decode(slot, self.record_bytes(slot)).is_ok()
        })
    }

    /// Whether record writes of a run are under way.
    pub fn has_record_writes_of(&self, run: u32) -> bool {
        self.writes.values().any(|write| write.by.run == run && !write.ended && write.purpose != Purpose::Beat)
    }

    /// The bytes of a record sector.
    pub fn record_bytes(&self, slot: u32) -> &[u8] {
        &self.bytes[slot as usize * RECORD_BYTES..][..RECORD_BYTES]
    }

    /// Whether a run still waits for writes of its own to end.
    pub fn has_writes_of(&self, run: u32) -> bool {
        self.writes.values().any(|write| write.by.run == run && !write.ended)
    }
}

impl Read {
    /// The heartbeat region as it was read.
    ///
    /// # Panics
    /// When not every sample was taken.
    pub fn into_region(self) -> Box<Region> {
        const EIO: i32 = 5;
        let bad = (self.fate == Fate::Unreadable).then_some(self.unreadable as usize);
        let mut sectors: Vec<_> =
            self.region.into_iter().map(|sector| sector.expect("all samples were taken")).collect();
        if let Some((bad, node)) = bad.and_then(|bad| Some((bad, NodeId::new(bad as u32)?))) {
            sectors[bad] = Err(HeartbeatError { node, fault: Fault::Unreadable { errno: EIO } });
        }
        match sectors.into_boxed_slice().try_into() {
            Ok(region) => region,
            Err(_) => unreachable!("a region has one sector per node"),
        }
    }

    /// The record sectors as they were read, and those that could not be.
    pub fn into_bytes(mut self) -> (Vec<u8>, Vec<u32>) {
        let (Fate::Unreadable, Some((first, _))) = (self.fate, self.slots) else { return (self.bytes, Vec::new()) };
        self.bytes[self.unreadable as usize * RECORD_BYTES..][..RECORD_BYTES].fill(0);
        (self.bytes, vec![first + self.unreadable])
    }
}
