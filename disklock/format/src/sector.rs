//! The 512 bytes that a record is, and the sector that carries them.

use crate::{Fault, RECORD_BYTES, SectorSize};
use std::fmt;

/// First four bytes of every record, little-endian ("KLXM" in a dump).
pub const MAGIC: u32 = 0x4D58_4C4B;

/// The version of the byte layout that this crate writes and reads. It grows when bytes change their meaning; a
/// reader refuses every other one.
pub const FORMAT_VERSION: u16 = 1;

/// The highest feature level that this code can work at. A view's level says what its members may write.
pub const FEATURE_LEVEL: u16 = 1;

/// Where the checksum is; it covers everything before it.
const CRC_OFFSET: usize = RECORD_BYTES - 4;

/// An encoded record, aligned for direct I/O on devices with 512-byte sectors.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(512))]
pub struct SectorImage(pub [u8; RECORD_BYTES]);

const _: () = assert!(size_of::<SectorImage>() == RECORD_BYTES && align_of::<SectorImage>() == RECORD_BYTES);

impl SectorImage {
    /// 512 zeros: an empty lock-record slot.
    pub const fn zeroed() -> SectorImage {
        SectorImage([0; RECORD_BYTES])
    }

    /// Whether every byte is zero.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; RECORD_BYTES]
    }

    /// Stores the CRC-32C of the first 508 bytes in the last four.
    pub(crate) fn seal(&mut self) {
        let crc = checksum(&self.0);
        self.0[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
    }
}

impl AsRef<[u8]> for SectorImage {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SectorImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A heartbeat image holds the cluster key: never print the bytes.
        f.debug_struct("SectorImage").field("zero", &self.is_zero()).finish_non_exhaustive()
    }
}

/// CRC-32C (Castagnoli) of a record's first 508 bytes.
pub fn checksum(record: &[u8; RECORD_BYTES]) -> u32 {
    crc32c::crc32c(&record[..CRC_OFFSET])
}

/// The record in a sector of 512 or 4096 bytes.
///
/// # Errors
/// [`Fault::Length`] when it is neither, [`Fault::TailNotZero`] when a 4096-byte sector has anything after its first
/// 512 bytes.
pub fn sector_to_image(sector: &[u8]) -> Result<&[u8; RECORD_BYTES], Fault> {
    let Some((record, tail)) = sector.split_first_chunk() else { return Err(Fault::Length(sector.len())) };
    if !is_sector(sector.len()) {
        return Err(Fault::Length(sector.len()));
    }
    match first_difference(tail, &ZEROS[..tail.len()]) {
        None => Ok(record),
        Some(at) => Err(Fault::TailNotZero { offset: RECORD_BYTES + at }),
    }
}

/// Puts a record into a sector buffer and zeros the rest of it.
///
/// # Panics
/// When the buffer is not a sector of 512 or 4096 bytes.
pub fn fill_sector(image: &SectorImage, sector: &mut [u8]) {
    assert!(is_sector(sector.len()), "a sector has 512 or 4096 bytes, not {}", sector.len());
    let (record, tail) = sector.split_at_mut(RECORD_BYTES);
    record.copy_from_slice(&image.0);
    tail.fill(0);
}

fn is_sector(bytes: usize) -> bool {
    u32::try_from(bytes).is_ok_and(|bytes| SectorSize::from_bytes(bytes).is_some())
}

/// Checks that `record` is sealed and of this version; `version_at` is where its kind keeps the version.
pub(crate) fn check_frame(record: &[u8; RECORD_BYTES], version_at: usize) -> Result<(), Fault> {
    let found = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
    if found != MAGIC {
        return Err(Fault::Magic { found });
    }
    let stored = u32::from_le_bytes([record[508], record[509], record[510], record[511]]);
    let computed = checksum(record);
    if stored != computed {
        return Err(Fault::Checksum { stored, computed });
    }
    let version = u16::from_le_bytes([record[version_at], record[version_at + 1]]);
    if version != FORMAT_VERSION {
        return Err(Fault::Version(version));
    }
    Ok(())
}

/// Checks that a record is byte for byte what its decoded values encode to. So padding, reserved bytes and the
/// unused parts of fields are zero, and one value has exactly one image (PROTOTYPE 5).
pub(crate) fn check_canonical(record: &[u8; RECORD_BYTES], encoded: &SectorImage) -> Result<(), Fault> {
    match first_difference(&record[..CRC_OFFSET], &encoded.0[..CRC_OFFSET]) {
        None => Ok(()),
        Some(offset) => Err(Fault::Stray { offset }),
    }
}

static ZEROS: [u8; SectorSize::S4096.bytes()] = [0; SectorSize::S4096.bytes()];

/// Where two slices of one length differ first. Recovery asks this for every sector of the table, and mostly they
/// do not: so compare them whole (memcmp) before looking at bytes.
fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b { None } else { a.iter().zip(b).position(|(a, b)| a != b) }
}
