//! Opening a lockstate, and reading it.

use crate::guards::Sidecar;
use crate::heartbeat::{Region, decode_region, read_sectors};
use crate::io::{AlignedBuf, CHUNK_BYTES, IoFault, to_records};
use crate::target::{self, Medium, TargetKind};
use crate::{DiskError, foreign};
use mxlock_format::{Geometry, Heartbeat, MAX_NODES, SectorSize, Superblock, Timing};
use nix::fcntl::PosixFadviseAdvice;
use std::fs::{File, OpenOptions as FileOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How to open.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Never written: for the inspector. Where the file system has no O_DIRECT it is read through the page cache,
    /// which is emptied first.
    pub read_only: bool,
    /// Accept a file system that is refused otherwise (NFS, FUSE...).
    pub force: bool,
}

/// An open lockstate whose geometry, identity and length have been checked.
#[derive(Debug)]
pub struct Lockstate {
    path: PathBuf,
    kind: TargetKind,
    medium: Medium,
    file: File,
    direct: bool,
    superblock: Superblock,
    heartbeats: Box<Region>,
}

/// A part of the lock-record table, as read.
#[derive(Clone, Debug)]
pub struct TableChunk {
    /// The first slot.
    pub first_slot: u32,
    /// 512 bytes for each slot; zero where the device failed.
    pub records: Vec<u8>,
    /// Slots that could not be read even alone, or whose sector has bytes behind the record.
    pub unreadable: Vec<(u32, IoFault)>,
}

impl Lockstate {
    /// Opens the lockstate that `path` means, and checks it: medium, alignment, identity, length.
    ///
    /// Damaged heartbeat sectors are no reason to refuse as long as one is good; they are in [`Lockstate::heartbeats`].
    ///
    /// # Errors
    /// [`DiskError`], with the exit code that the programs use.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Lockstate, DiskError> {
        let path = target::resolve(path);
        let kind = target::kind_of(&path)?;
        let medium = target::medium(&path, kind)?;
        if let Some(reason) = medium.refused.filter(|_| !options.force && !options.read_only) {
            let reason = format!("it is on {}: {reason}", medium.name);
            return Err(DiskError::FileSystem { path, reason });
        }
        let (file, direct) = open_file(&path, options.read_only)?;
        let length = target::length(&file, &path, kind)?;
        let alignment = if direct { target::write_alignment(&file, kind) } else { 512 };
        let head = read_head(&file, &path, length, alignment)?;
        let (superblock, heartbeats) = recognise(&path, &head)?;

        let Geometry { sector, slot_count } = superblock.geometry;
        if alignment as usize > sector.bytes() {
            return Err(DiskError::Alignment { path, sector: sector.bytes() as u32, alignment });
        }
        let needed = superblock.geometry.total_bytes();
        if length < needed {
            let sector = sector.bytes() as u32;
            return Err(DiskError::TooShort { path, found: length, needed, slots: slot_count, sector });
        }
        Ok(Lockstate { path, kind, medium, file, direct, superblock, heartbeats })
    }

    /// The file or device itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// File or device.
    pub fn kind(&self) -> TargetKind {
        self.kind
    }

    /// What it is on, and who can reach it.
    pub fn medium(&self) -> &Medium {
        &self.medium
    }

    /// What all its good heartbeat sectors agree on.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Sector size and slot count.
    pub fn geometry(&self) -> Geometry {
        self.superblock.geometry
    }

    /// R, L, G and D.
    pub fn timing(&self) -> Timing {
        self.superblock.timing
    }

    /// The heartbeat sectors as they were when it was opened.
    pub fn heartbeats(&self) -> &Region {
        &self.heartbeats
    }

    /// The O_DIRECT descriptor for record I/O: [`crate::guards::NodeGuard`] and the event loop get duplicates of this
    /// one, which share its open file description.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// A duplicate of [`Lockstate::file`].
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn duplicate_file(&self) -> Result<File, DiskError> {
        self.file.try_clone().map_err(|e| DiskError::io("duplicate the descriptor of", &self.path, e))
    }

    /// A description of its own for the heartbeat thread: O_DIRECT and O_DSYNC.
    ///
    /// # Errors
    /// [`DiskError::Io`]; [`DiskError::NotLockstate`] where the path has come to mean another file.
    pub fn open_heartbeat_file(&self) -> Result<File, DiskError> {
        let io = |action, e| DiskError::io(action, &self.path, e);
        let file = FileOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
            .open(&self.path)
            .map_err(|e| io("open", e))?;
        let (ours, now) =
            (self.file.metadata().map_err(|e| io("stat", e))?, file.metadata().map_err(|e| io("stat", e))?);
        if (ours.dev(), ours.ino(), ours.rdev()) != (now.dev(), now.ino(), now.rdev()) {
            let reason = "it was replaced while the daemon was starting".into();
            return Err(DiskError::NotLockstate { path: self.path.clone(), reason });
        }
        Ok(file)
    }

    /// Where its sidecar is (section 8).
    pub fn sidecar_path(&self) -> PathBuf {
        match self.kind {
            TargetKind::File => Sidecar::path_for_file(&self.path),
            TargetKind::Device => Sidecar::path_for_device(self.superblock.uuid),
        }
    }

    /// Reads the 64 heartbeat sectors again.
    ///
    /// # Errors
    /// [`DiskError::Io`] when none of them can be read.
    pub fn read_heartbeats(&self) -> Result<Box<Region>, DiskError> {
        self.forget_cached();
        let mut buf = AlignedBuf::zeroed(self.geometry().heartbeat_region_bytes());
        let unreadable = read_sectors(&self.file, 0, &mut buf, self.geometry().sector.bytes())
            .map_err(|fault| DiskError::io("read the heartbeats of", &self.path, fault.errno()))?;
        Ok(decode_region(&buf, &unreadable, self.geometry()))
    }

    /// Most slots for [`Lockstate::read_table`].
    pub fn chunk_slots(&self) -> u32 {
        (CHUNK_BYTES / self.geometry().sector.bytes()) as u32
    }

    /// Reads `count` slots with one sequential read. If that fails, each sector is read by itself (PROTOTYPE 10).
    ///
    /// # Panics
    /// If a slot does not exist, or `count` is 0 or above [`Lockstate::chunk_slots`].
    pub fn read_table(&self, first_slot: u32, count: u32) -> TableChunk {
        let geometry = self.geometry();
        assert!(count > 0 && count <= self.chunk_slots(), "{count} slots are not 1..={}", self.chunk_slots());
        assert!(first_slot < geometry.slot_count && count <= geometry.slot_count - first_slot, "no such slots");
        self.forget_cached();
        let mut buf = AlignedBuf::zeroed(count as usize * geometry.sector.bytes());
        let mut unreadable: Vec<(u32, IoFault)> =
            match read_sectors(&self.file, geometry.slot_offset(first_slot), &mut buf, geometry.sector.bytes()) {
                Ok(bad) => bad.into_iter().map(|(i, fault)| (first_slot + i as u32, fault)).collect(),
                Err(fault) => (first_slot..first_slot + count).map(|slot| (slot, fault)).collect(),
            };
        let (records, behind) = to_records(&buf, first_slot, geometry);
        unreadable.extend(behind);
        TableChunk { first_slot, records, unreadable }
    }

    /// All slots, chunk by chunk (PROTOTYPE 6: all of them).
    pub fn table(&self) -> impl Iterator<Item = TableChunk> + '_ {
        let (slots, step) = (self.geometry().slot_count, self.chunk_slots());
        (0..slots).step_by(step as usize).map(move |first| self.read_table(first, step.min(slots - first)))
    }

    /// Without O_DIRECT another host's writes are seen only by dropping what is cached.
    fn forget_cached(&self) {
        if !self.direct {
            let _ = nix::fcntl::posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }
}

/// True: with O_DIRECT.
fn open_file(path: &Path, read_only: bool) -> Result<(File, bool), DiskError> {
    let direct = FileOptions::new().read(true).write(!read_only).custom_flags(libc::O_DIRECT).open(path);
    match direct {
        Ok(file) => Ok((file, true)),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) && read_only => {
            File::open(path).map(|file| (file, false)).map_err(|e| DiskError::io("open", path, e))
        }
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            let reason = "its file system has no O_DIRECT, without which other hosts' writes are not seen".into();
            Err(DiskError::FileSystem { path: path.to_owned(), reason })
        }
        Err(e) => Err(DiskError::io("open", path, e)),
    }
}

/// Bytes that hold the heartbeat region whatever the sector size.
pub(crate) const HEAD_BYTES: usize = MAX_NODES * SectorSize::S4096.bytes();

/// The first [`HEAD_BYTES`], or what there is of them. Sectors that cannot be read are zero, and so do not decode.
pub(crate) fn read_head(file: &File, path: &Path, length: u64, alignment: u32) -> Result<AlignedBuf, DiskError> {
    let alignment = alignment as usize;
    let whole = length.min(HEAD_BYTES as u64) as usize / alignment * alignment;
    if whole < MAX_NODES * SectorSize::S512.bytes() {
        let reason = format!("it has only {length} bytes");
        return Err(DiskError::NotLockstate { path: path.to_owned(), reason });
    }
    let mut head = AlignedBuf::zeroed(whole);
    read_sectors(file, 0, &mut head, alignment).map_err(|fault| DiskError::io("read", path, fault.errno()))?;
    Ok(head)
}

/// The heartbeat sectors in a head with this sector size, if there is a good one among them.
pub(crate) fn decode_head(head: &[u8], sector: SectorSize) -> Option<Box<Region>> {
    // Decoding a sector does not depend on the slot count.
    let geometry = Geometry { sector, slot_count: 0 };
    let region = decode_region(head.get(..geometry.heartbeat_region_bytes())?, &[], geometry);
    region.iter().flatten().any(|hb| hb.superblock.geometry.sector == sector).then_some(region)
}

fn recognise(path: &Path, head: &[u8]) -> Result<(Superblock, Box<Region>), DiskError> {
    // 512, then 4096 (section 3).
    let region = [SectorSize::S512, SectorSize::S4096].into_iter().find_map(|sector| decode_head(head, sector));
    let Some(region) = region else {
        let reason = match foreign::identify(head) {
            Some(what) => format!("it carries {what}"),
            None if head.iter().all(|&b| b == 0) => "it holds only zeros: create one with 'mxlockd format'".into(),
            None => {
                let first =
                    decode_region(&head[..MAX_NODES * 512], &[], Geometry { sector: SectorSize::S512, slot_count: 0 });
                match first.into_iter().next() {
                    Some(Err(error)) => format!("none of its heartbeat sectors can be believed ({error})"),
                    _ => "none of its heartbeat sectors can be believed".into(),
                }
            }
        };
        return Err(DiskError::NotLockstate { path: path.to_owned(), reason });
    };
    let mut good = region.iter().flatten();
    let first = good.next().expect("decode_head found one");
    if let Some((other, what)) = good.find_map(|hb| disagreement(first, hb).map(|what| (hb, what))) {
        let (first, second) = (first.node.get(), other.node.get());
        return Err(DiskError::Disagree { path: path.to_owned(), first, second, what });
    }
    Ok((first.superblock.clone(), region))
}

fn disagreement(a: &Heartbeat, b: &Heartbeat) -> Option<&'static str> {
    let (a, b) = (&a.superblock, &b.superblock);
    [
        (a.uuid != b.uuid, "lockspace's uuid"),
        (a.geometry != b.geometry, "geometry"),
        (a.timing != b.timing, "timing"),
        (a.lockspace != b.lockspace, "lockspace's name"),
        (a.key != b.key, "cluster key"),
    ]
    .into_iter()
    .find_map(|(differs, what)| differs.then_some(what))
}
