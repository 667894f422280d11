//! Sizes and timing of a lockstate: what every heartbeat sector carries as a copy of the superblock.

use crate::{MAX_NODES, NodeId, SuperblockError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of every record, whatever the sector size.
pub const RECORD_BYTES: usize = 512;
/// Lock-record slots of a lockstate unless `format --slots` says otherwise.
pub const DEFAULT_SLOT_COUNT: u32 = 65_536;
/// Fewest slots that `format` accepts.
pub const MIN_SLOT_COUNT: u32 = 64;
/// Most slots that `format` accepts (8 GiB of 512-byte sectors).
pub const MAX_SLOT_COUNT: u32 = 1 << 24;

/// The sector size S of a lockstate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
#[repr(u32)]
#[allow(missing_docs)]
pub enum SectorSize {
    S512 = 512,
    S4096 = 4096,
}

impl SectorSize {
    /// The size with this many bytes.
    pub const fn from_bytes(bytes: u32) -> Option<SectorSize> {
        match bytes {
            512 => Some(SectorSize::S512),
            4096 => Some(SectorSize::S4096),
            _ => None,
        }
    }

    /// Bytes.
    pub const fn bytes(self) -> usize {
        self as usize
    }
}

impl From<SectorSize> for u32 {
    fn from(sector: SectorSize) -> u32 {
        sector as u32
    }
}

impl TryFrom<u32> for SectorSize {
    type Error = String;

    fn try_from(bytes: u32) -> Result<SectorSize, String> {
        SectorSize::from_bytes(bytes).ok_or_else(|| format!("a sector has 512 or 4096 bytes, not {bytes}"))
    }
}

/// Sector size and number of lock-record slots.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Geometry {
    pub sector: SectorSize,
    pub slot_count: u32,
}

impl Geometry {
    /// Byte offset of a node's heartbeat sector; also the byte of the per-node guard (section 8).
    pub const fn heartbeat_offset(self, node: NodeId) -> u64 {
        (node.index() * self.sector.bytes()) as u64
    }

    /// Byte offset of a lock-record slot.
    pub const fn slot_offset(self, slot: u32) -> u64 {
        (MAX_NODES as u64 + slot as u64) * self.sector.bytes() as u64
    }

    /// Bytes of the heartbeat region.
    pub const fn heartbeat_region_bytes(self) -> usize {
        MAX_NODES * self.sector.bytes()
    }

    /// Bytes of the whole lockstate.
    pub const fn total_bytes(self) -> u64 {
        self.slot_offset(self.slot_count)
    }
}

/// The timing of section 5, in milliseconds. R renew, L lease, G grace, D dead.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Timing {
    pub renew_ms: u32,
    pub lease_ms: u32,
    pub grace_ms: u32,
    pub dead_ms: u32,
    /// Silence after which active fence methods start; at least `lease_ms + grace_ms` by default.
    pub suspect_ms: u32,
}

impl Timing {
    /// Profile `fast`: 2 / 8 / 3 / 15 s.
    pub const FAST: Timing =
        Timing { renew_ms: 2_000, lease_ms: 8_000, grace_ms: 3_000, dead_ms: 15_000, suspect_ms: 11_000 };
    /// Profile `san`: 5 / 30 / 10 / 50 s, for storage whose paths take long to fail over.
    pub const SAN: Timing =
        Timing { renew_ms: 5_000, lease_ms: 30_000, grace_ms: 10_000, dead_ms: 50_000, suspect_ms: 40_000 };

    /// Whether the timing is safe (section 5): `R >= 50 ms`, `G > 0`, `L >= 2R`, `D >= 1.05 (L+G+R)` and a suspect
    /// time of at least `L+G`. A suspect time above D is allowed: then a node is found dead before it is fenced.
    ///
    /// # Errors
    /// The first of these rules that is broken.
    pub fn check(&self) -> Result<(), TimingError> {
        let Timing { renew_ms, lease_ms, grace_ms, dead_ms, suspect_ms } = *self;
        let [r, l, g, d] = [renew_ms, lease_ms, grace_ms, dead_ms].map(u64::from);
        if r < MIN_RENEW_MS || g == 0 {
            return Err(TimingError::TooShort);
        }
        if l < 2 * r {
            return Err(TimingError::LeaseShort { renew_ms, lease_ms });
        }
        let needed = (l + g + r) * 105;
        if d * 100 < needed {
            return Err(TimingError::DeadShort { dead_ms, needed_ms: needed.div_ceil(100) });
        }
        if u64::from(suspect_ms) < l + g {
            return Err(TimingError::SuspectShort { suspect_ms, needed_ms: l + g });
        }
        Ok(())
    }
}

/// Shortest renewal interval that `format` accepts.
pub const MIN_RENEW_MS: u64 = 50;

/// Why a timing is not safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum TimingError {
    #[error("the renewal interval must be at least {MIN_RENEW_MS} ms and the grace time above 0")]
    TooShort,
    #[error("a lease of {lease_ms} ms is shorter than two renewals of {renew_ms} ms")]
    LeaseShort { renew_ms: u32, lease_ms: u32 },
    #[error(
        "a node may be called dead after {needed_ms} ms at the earliest, 1.05 (lease + grace + renew), not after {dead_ms} ms"
    )]
    DeadShort { dead_ms: u32, needed_ms: u64 },
    #[error("fencing may start after {needed_ms} ms at the earliest (lease + grace), not after {suspect_ms} ms")]
    SuspectShort { suspect_ms: u32, needed_ms: u64 },
}

/// The 256-bit secret that peers prove to each other. Never printed or logged.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey(pub [u8; 32]);

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// A 128-bit identity (lockspace, installation, boot), printed in the usual 8-4-4-4-12 form.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Longest lockspace name, bytes.
pub const MAX_LOCKSPACE_NAME_BYTES: usize = 32;

/// What is the same in all heartbeat sectors of one lockstate.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Superblock {
    pub geometry: Geometry,
    pub timing: Timing,
    /// 1..=32 bytes of `[A-Za-z0-9._-]`.
    pub lockspace: String,
    pub uuid: Uuid,
    pub key: ClusterKey,
    pub feature_level: u16,
}

impl Superblock {
    /// Whether `name` can name a lockspace: 1..=32 bytes of `[A-Za-z0-9._-]`. It becomes a directory, so `.` and
    /// `..` cannot.
    ///
    /// # Errors
    /// [`SuperblockError::Name`].
    pub fn validate_name(name: &str) -> Result<(), SuperblockError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if (1..=MAX_LOCKSPACE_NAME_BYTES).contains(&name.len())
            && name.bytes().all(allowed)
            && !matches!(name, "." | "..")
        {
            Ok(())
        } else {
            Err(SuperblockError::Name(name.to_owned()))
        }
    }

    /// Whether a lockstate may be formatted with these values, and run on them.
    ///
    /// # Errors
    /// The first value that is out of bounds.
    pub fn check(&self) -> Result<(), SuperblockError> {
        Superblock::validate_name(&self.lockspace)?;
        let slot_count = self.geometry.slot_count;
        if !(MIN_SLOT_COUNT..=MAX_SLOT_COUNT).contains(&slot_count) {
            return Err(SuperblockError::SlotCount(slot_count));
        }
        Ok(self.timing.check()?)
    }
}
