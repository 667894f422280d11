//! The lock-record sector: one per lock, written by the master alone (I6).

use crate::raw::{RawRecord, RawResource, padded};
use crate::sector::{check_canonical, check_frame};
use crate::{
    ByteRange, Epoch, FORMAT_VERSION, Fault, Incarnation, LockId, MAGIC, Mode, NodeId, QualifiedName, RECORD_BYTES,
    RecordError, Resource, ResourceError, ResourceId, ResourceKind, SectorImage, SessionId, Token, sector_to_image,
};
use serde::{Deserialize, Serialize};
use std::mem::offset_of;

/// Longest lock value block, bytes.
pub const MAX_LVB_BYTES: usize = 64;

/// A lock's state, with the numbers that are on disk. The published layout has all five; mxlock itself writes and
/// accepts records that are waiting, granted or converting.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
#[allow(missing_docs)]
pub enum LockState {
    Unlocked = 0,
    Waiting = 1,
    Granted = 2,
    Converting = 3,
    Blocked = 4,
}

/// When an LVB was written: greater is newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LvbSequence {
    pub epoch: Epoch,
    pub n: u64,
}

/// A lock value block: 0..=64 bytes, when it was written, and whether it can be trusted (I9).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Lvb {
    pub bytes: Vec<u8>,
    pub sequence: LvbSequence,
    /// False after a holder of PW or EX died or gave no value.
    pub valid: bool,
}

/// The client process that owns a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Process id on the owner's host.
    pub pid: u32,
    /// Its start time (field 22 of /proc/PID/stat), so that a reused pid is told apart.
    pub start_time: u64,
    /// Its user id.
    pub uid: u32,
}

/// A decoded lock-record sector.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct LockRecord {
    pub resource: Resource,
    pub owner: NodeId,
    pub owner_incarnation: Incarnation,
    /// Granted mode; NL for a new request that waits.
    pub mode: Mode,
    /// Wanted mode; equals `mode` for a settled lock.
    pub wanted: Mode,
    pub state: LockState,
    /// CLOCK_REALTIME, for people only.
    pub granted_at_ms: u64,
    /// Epoch of the grant.
    pub epoch: Epoch,
    pub lock: LockId,
    pub token: Token,
    /// The stamp (section 6).
    pub table_epoch: Epoch,
    /// Place in the queue of requests; grows over the lockspace's life.
    pub queue_position: u64,
    pub persistent: bool,
    pub orphan: bool,
    pub process: Process,
    /// Transaction id; 0 is none.
    pub transaction: u64,
    /// `None`: the whole resource.
    pub range: Option<ByteRange>,
    pub orphan_lifetime_ms: u32,
    pub lvb: Option<Lvb>,
}

impl LockState {
    /// All states in the order of their numbers.
    pub const ALL: [LockState; 5] =
        [LockState::Unlocked, LockState::Waiting, LockState::Granted, LockState::Converting, LockState::Blocked];

    /// The state with this number.
    pub const fn from_number(number: u8) -> Option<LockState> {
        if (number as usize) < LockState::ALL.len() { Some(LockState::ALL[number as usize]) } else { None }
    }

    const fn name(self) -> &'static str {
        match self {
            LockState::Unlocked => "unlocked",
            LockState::Waiting => "waiting",
            LockState::Granted => "granted",
            LockState::Converting => "converting",
            LockState::Blocked => "blocked",
        }
    }
}

const ACTIVE: u32 = 1;
const PERSISTENT: u8 = 1 << 0;
const ORPHAN: u8 = 1 << 1;
const LVB_PRESENT: u8 = 1 << 2;
const LVB_INVALID: u8 = 1 << 3;
const RANGED: u8 = 1 << 4;
const KNOWN_BITS: u8 = PERSISTENT | ORPHAN | LVB_PRESENT | LVB_INVALID | RANGED;

impl LockRecord {
    /// Whether the value can stand in a sector. `encode` demands it and `decode` guarantees it.
    ///
    /// # Errors
    /// [`Fault::ModeForState`] unless the lock is waiting with nothing granted, granted with nothing else wanted, or
    /// converting; [`Fault::LvbLength`].
    pub fn check(&self) -> Result<(), Fault> {
        let LockRecord { state, mode, wanted, .. } = *self;
        let possible = match state {
            LockState::Waiting => mode == Mode::NL,
            LockState::Granted => wanted == mode,
            LockState::Converting => true,
            LockState::Unlocked | LockState::Blocked => false,
        };
        if !possible {
            return Err(Fault::ModeForState { state: state.name(), mode, wanted });
        }
        match &self.lvb {
            Some(lvb) if lvb.bytes.len() > MAX_LVB_BYTES => Err(Fault::LvbLength(lvb.bytes.len())),
            _ => Ok(()),
        }
    }

    /// The sector's first 512 bytes.
    ///
    /// # Panics
    /// When [`LockRecord::check`] fails: that is a programmer's error, nothing is ever cut to fit.
    pub fn encode(&self) -> SectorImage {
        if let Err(fault) = self.check() {
            panic!("lock record {} cannot be encoded: {fault}", self.lock);
        }
        let mut image = self.to_image();
        image.seal();
        image
    }

    /// The record in a sector of 512 or 4096 bytes; `Ok(None)` for an all-zero sector, and for no other.
    ///
    /// # Errors
    /// Whatever is not exactly what [`LockRecord::encode`] could have written. Such a sector is not empty
    /// (PROTOTYPE 4).
    pub fn decode(slot: u32, bytes: &[u8]) -> Result<Option<LockRecord>, RecordError> {
        LockRecord::from_sector(bytes).map_err(|fault| RecordError { slot, fault })
    }

    fn from_sector(sector: &[u8]) -> Result<Option<LockRecord>, Fault> {
        let bytes = sector_to_image(sector)?;
        if *bytes == [0; RECORD_BYTES] {
            return Ok(None);
        }
        check_frame(bytes, offset_of!(RawRecord, version))?;
        let record = LockRecord::from_raw(bytemuck::cast_ref(bytes))?;
        record.check()?;
        check_canonical(bytes, &record.to_image())?;
        Ok(Some(record))
    }

    fn bits(&self) -> u8 {
        let lvb = match &self.lvb {
            None => 0,
            Some(Lvb { valid: true, .. }) => LVB_PRESENT,
            Some(Lvb { valid: false, .. }) => LVB_PRESENT | LVB_INVALID,
        };
        let flag = |set, bit| if set { bit } else { 0 };
        flag(self.persistent, PERSISTENT) | flag(self.orphan, ORPHAN) | lvb | flag(self.range.is_some(), RANGED)
    }

    fn to_image(&self) -> SectorImage {
        let mut image = SectorImage::zeroed();
        let raw: &mut RawRecord = bytemuck::cast_mut(&mut image.0);
        raw.magic = MAGIC.to_le_bytes();
        raw.flags = ACTIVE.to_le_bytes();
        raw.resource = bytemuck::cast(self.resource.id().to_bytes());
        raw.owner = self.owner.get().to_le_bytes();
        raw.mode = self.mode as u8;
        raw.state = self.state as u8;
        raw.granted_at_ms = self.granted_at_ms.to_le_bytes();
        raw.epoch = self.epoch.0.to_le_bytes();

        raw.version = FORMAT_VERSION.to_le_bytes();
        raw.wanted = self.wanted as u8;
        raw.bits = self.bits();
        raw.queue_position = self.queue_position.to_le_bytes();
        raw.session = self.lock.session.0.to_le_bytes();
        raw.seq = self.lock.seq.to_le_bytes();
        raw.owner_incarnation = self.owner_incarnation.0.to_le_bytes();
        raw.token = self.token.0.to_le_bytes();
        raw.table_epoch = self.table_epoch.0.to_le_bytes();
        raw.transaction = self.transaction.to_le_bytes();
        raw.process_start_time = self.process.start_time.to_le_bytes();
        raw.pid = self.process.pid.to_le_bytes();
        raw.uid = self.process.uid.to_le_bytes();
        raw.orphan_lifetime_ms = self.orphan_lifetime_ms.to_le_bytes();
        if let Some(range) = self.range {
            raw.range_start = range.start().to_le_bytes();
            raw.range_end = range.end().to_le_bytes();
        }
        if let Some(lvb) = &self.lvb {
            raw.lvb_len = lvb.bytes.len() as u8;
            raw.lvb_epoch = lvb.sequence.epoch.0.to_le_bytes();
            raw.lvb_n = lvb.sequence.n.to_le_bytes();
            raw.lvb = padded(&lvb.bytes);
        }
        if let Some(name) = self.resource.name() {
            raw.name_len = name.joined().len() as u8;
            raw.name = padded(name.joined());
        }
        image
    }

    fn from_raw(raw: &RawRecord) -> Result<LockRecord, Fault> {
        let flags = u32::from_le_bytes(raw.flags);
        if flags != ACTIVE {
            return Err(Fault::Flags(flags));
        }
        if raw.bits & !KNOWN_BITS != 0 || raw.bits & (LVB_PRESENT | LVB_INVALID) == LVB_INVALID {
            return Err(Fault::Bits(raw.bits));
        }
        let mode = |number| Mode::from_number(number).ok_or(Fault::Mode(number));
        let owner = u32::from_le_bytes(raw.owner);
        Ok(LockRecord {
            resource: resource_from_raw(raw)?,
            owner: NodeId::new(owner).ok_or(Fault::NodeNumber(owner))?,
            owner_incarnation: Incarnation(u64::from_le_bytes(raw.owner_incarnation)),
            mode: mode(raw.mode)?,
            wanted: mode(raw.wanted)?,
            state: LockState::from_number(raw.state).ok_or(Fault::LockState(raw.state))?,
            granted_at_ms: u64::from_le_bytes(raw.granted_at_ms),
            epoch: Epoch(u64::from_le_bytes(raw.epoch)),
            lock: LockId { session: SessionId(u64::from_le_bytes(raw.session)), seq: u64::from_le_bytes(raw.seq) },
            token: Token(u64::from_le_bytes(raw.token)),
            table_epoch: Epoch(u64::from_le_bytes(raw.table_epoch)),
            queue_position: u64::from_le_bytes(raw.queue_position),
            persistent: raw.bits & PERSISTENT != 0,
            orphan: raw.bits & ORPHAN != 0,
            process: Process {
                pid: u32::from_le_bytes(raw.pid),
                start_time: u64::from_le_bytes(raw.process_start_time),
                uid: u32::from_le_bytes(raw.uid),
            },
            transaction: u64::from_le_bytes(raw.transaction),
            range: range_from_raw(raw)?,
            orphan_lifetime_ms: u32::from_le_bytes(raw.orphan_lifetime_ms),
            lvb: lvb_from_raw(raw)?,
        })
    }
}

fn resource_from_raw(raw: &RawRecord) -> Result<Resource, Fault> {
    let RawResource { volume, ino, offset, ag, kind, .. } = raw.resource;
    let id = ResourceId {
        volume: u64::from_le_bytes(volume),
        ino: u64::from_le_bytes(ino),
        offset: u64::from_le_bytes(offset),
        ag: u32::from_le_bytes(ag),
        kind: ResourceKind::from_number(kind).ok_or(ResourceError::UnknownKind(kind))?,
    };
    if id.kind != ResourceKind::Name {
        return if raw.name_len == 0 { Ok(Resource::typed(id)?) } else { Err(Fault::NameOnTyped(kind)) };
    }
    let joined = raw.name.get(..raw.name_len.into()).ok_or(Fault::NameLength(raw.name_len))?;
    let resource = Resource::named(QualifiedName::from_joined(joined)?);
    if *resource.id() != id {
        return Err(Fault::NameHash);
    }
    Ok(resource)
}

fn range_from_raw(raw: &RawRecord) -> Result<Option<ByteRange>, Fault> {
    if raw.bits & RANGED == 0 {
        return Ok(None);
    }
    let (start, end) = (u64::from_le_bytes(raw.range_start), u64::from_le_bytes(raw.range_end));
    ByteRange::new(start, end).map(Some).ok_or(Fault::Range { start, end })
}

fn lvb_from_raw(raw: &RawRecord) -> Result<Option<Lvb>, Fault> {
    if raw.bits & LVB_PRESENT == 0 {
        return Ok(None);
    }
    let bytes = raw.lvb.get(..raw.lvb_len.into()).ok_or(Fault::LvbLength(raw.lvb_len.into()))?;
    let sequence = LvbSequence { epoch: Epoch(u64::from_le_bytes(raw.lvb_epoch)), n: u64::from_le_bytes(raw.lvb_n) };
    Ok(Some(Lvb { bytes: bytes.to_vec(), sequence, valid: raw.bits & LVB_INVALID == 0 }))
}
