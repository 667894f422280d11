//! Making a lockstate (DESIGN section 3): `mxlockd format`.

use crate::guards::{Maintenance, Sidecar};
use crate::heartbeat::Region;
use crate::io::{AlignedBuf, CHUNK_BYTES, IoFault};
use crate::lockstate::{HEAD_BYTES, decode_head, read_head};
use crate::target::{self, IN_DIRECTORY, Medium, TargetKind};
use crate::{DiskError, LockConflict, Lockstate, OpenOptions, foreign, realtime_ms};
use mxlock_format::{
    ClusterKey, Epoch, FEATURE_LEVEL, Geometry, Heartbeat, MAGIC, NodeId, SectorSize, Superblock, Timing, Uuid,
    fill_sector,
};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{DirBuilder, File, OpenOptions as FileOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What to make.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// Name of the lockspace.
    pub lockspace: String,
    /// Lock-record slots.
    pub slots: u32,
    /// Sector size; `None`: as the device has it.
    pub sector: Option<SectorSize>,
    /// R, L, G, D.
    pub timing: Timing,
    /// Overwrite foreign data, and accept a file system that is refused otherwise. A lockstate in use is never
    /// overwritten.
    pub force: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Watching an existing lockstate for a sign of life.
    Watching {
        /// So long already.
        watched: Duration,
        /// Of so long (its D).
        total: Duration,
    },
    /// Writing zeros.
    Writing {
        /// Bytes written.
        done: u64,
        /// Of so many.
        total: u64,
    },
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Formatted {
    /// The lockstate itself.
    pub path: PathBuf,
    /// What it is on.
    pub medium: Medium,
    /// Its identity, with the new uuid and key.
    pub superblock: Superblock,
    /// The epoch that the first view will follow.
    pub base_epoch: Epoch,
}

/// Makes a lockstate of what `path` means: a mount point or directory, a file (which need not exist), or a device.
///
/// # Errors
/// [`DiskError`]; nothing has been overwritten unless it is [`DiskError::Io`]. While an existing lockstate shows
/// signs of life, on this host or any other, it is a [`LockConflict`], forced or not.
pub fn format(
    path: &Path,
    options: &FormatOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Formatted, DiskError> {
    check_options(options)?;
    let target = Target::open(path, options.force)?;
    let result = target.format(options, progress);
    if result.is_err() && target.created {
        // Half a lockstate would only be in the way.
        let _ = std::fs::remove_file(&target.path);
    }
    result
}

fn check_options(options: &FormatOptions) -> Result<(), DiskError> {
    let sector = options.sector.unwrap_or(SectorSize::S512);
    superblock(options, sector).check().map_err(|e| DiskError::Options(e.to_string()))
}

/// The superblock but for uuid and key.
fn superblock(options: &FormatOptions, sector: SectorSize) -> Superblock {
    Superblock {
        geometry: Geometry { sector, slot_count: options.slots },
        timing: options.timing,
        lockspace: options.lockspace.clone(),
        uuid: Uuid::default(),
        key: ClusterKey([0; 32]),
        feature_level: FEATURE_LEVEL,
    }
}

struct Target {
    path: PathBuf,
    kind: TargetKind,
    medium: Medium,
    file: File,
    length: u64,
    alignment: u32,
    /// The file did not exist.
    created: bool,
}

/// What is there before.
struct Before {
    /// Heartbeats of an old lockstate.
    region: Option<Box<Region>>,
    /// The head has record magics, though nothing in it can be believed.
    looks_like_lockstate: bool,
    head: AlignedBuf,
}

impl Target {
    fn open(path: &Path, force: bool) -> Result<Target, DiskError> {
        if path.is_dir() {
            let directory = path.join(IN_DIRECTORY[0]);
            match DirBuilder::new().mode(0o700).create(&directory) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(cannot_create(&directory, e)),
                _ => {}
            }
        }
        let path = target::resolve(path);
        let (kind, created) = match target::kind_of(&path) {
            Ok(kind) => (kind, false),
            Err(DiskError::Missing { .. }) => (TargetKind::File, true),
            Err(e) => return Err(e),
        };
        let beside = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let judged = if created { beside } else { &path };
        let medium = target::medium(judged, kind).map_err(|e| match e {
            DiskError::Io { source, .. } if created => cannot_create(&path, source),
            other => other,
        })?;
        if let Some(reason) = medium.refused.filter(|_| !force) {
            let reason = format!("it is on {}: {reason} (--force accepts it)", medium.name);
            return Err(DiskError::FileSystem { path, reason });
        }
        let exclusive = if kind == TargetKind::Device { libc::O_EXCL } else { 0 };
        let file = FileOptions::new()
            .read(true)
            .write(true)
            .create(kind == TargetKind::File)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_DIRECT | exclusive)
            .open(&path)
            .map_err(|e| match e.raw_os_error() {
                Some(libc::EBUSY) => {
                    let what = "the device is mounted or claimed by another program: release it first".into();
                    LockConflict { path: path.clone(), what }.into()
                }
                Some(libc::EINVAL) => {
                    let reason = "its file system has no O_DIRECT".into();
                    DiskError::CannotCreate { path: path.clone(), reason }
                }
                _ => cannot_create(&path, e),
            })?;
        let length = target::length(&file, &path, kind)?;
        let alignment = target::write_alignment(&file, kind);
        Ok(Target { path, kind, medium, file, length, alignment, created })
    }

    fn format(&self, options: &FormatOptions, progress: &mut dyn FnMut(Progress)) -> Result<Formatted, DiskError> {
        let sector = self.choose_sector(options.sector)?;
        let mut superblock = superblock(options, sector);
        let total = superblock.geometry.total_bytes();
        if self.kind == TargetKind::Device && self.length < total {
            return Err(self.cannot(format!(
                "it has {} bytes, and {} slots of {} bytes need {total}: ask for fewer --slots",
                self.length,
                options.slots,
                sector.bytes()
            )));
        }

        let before = self.look()?;
        let _maintenance = self.keep_others_away(&before)?;
        if !options.force {
            self.refuse_foreign(&before)?;
        }
        self.watch(&before, progress)?;

        getrandom::fill(&mut superblock.uuid.0).map_err(|e| self.cannot(format!("no random numbers: {e}")))?;
        // A random uuid, RFC 9562 version 4.
        superblock.uuid.0[6] = superblock.uuid.0[6] & 0x0f | 0x40;
        superblock.uuid.0[8] = superblock.uuid.0[8] & 0x3f | 0x80;
        getrandom::fill(&mut superblock.key.0).map_err(|e| self.cannot(format!("no random numbers: {e}")))?;
        let base_epoch = first_epoch(before.region.as_deref(), realtime_ms());

        self.write_all(&superblock, base_epoch, progress)?;
        let read_back = Lockstate::open(&self.path, OpenOptions { read_only: true, force: true })?;
        if *read_back.superblock() != superblock {
            return Err(DiskError::io("read back", &self.path, Errno::EIO));
        }
        Ok(Formatted { path: self.path.clone(), medium: self.medium.clone(), superblock, base_epoch })
    }

    /// Section 3: 4096 where the device's logical or physical sector is 4096.
    fn choose_sector(&self, wanted: Option<SectorSize>) -> Result<SectorSize, DiskError> {
        let least = if self.alignment > 512 { SectorSize::S4096 } else { SectorSize::S512 };
        if self.alignment > 4096 {
            return Err(self.cannot(format!("its device wants writes of {} bytes", self.alignment)));
        }
        match wanted {
            Some(sector) if sector < least => {
                Err(self.cannot(format!("its device cannot write {} bytes: use --sector 4096", sector.bytes())))
            }
            Some(sector) => Ok(sector),
            None if target::device_sector(&self.file, self.kind).is_some_and(|bytes| bytes > 512) => {
                Ok(SectorSize::S4096)
            }
            None => Ok(least),
        }
    }

    fn look(&self) -> Result<Before, DiskError> {
        match read_head(&self.file, &self.path, self.length, self.alignment) {
            Ok(head) => {
                let region =
                    [SectorSize::S512, SectorSize::S4096].into_iter().find_map(|sector| decode_head(&head, sector));
                let magic = MAGIC.to_le_bytes();
                let looks_like_lockstate = head.chunks_exact(512).any(|sector| sector.starts_with(&magic));
                Ok(Before { region, looks_like_lockstate, head })
            }
            // Too short to be anything of ours.
            Err(DiskError::NotLockstate { .. }) => {
                Ok(Before { region: None, looks_like_lockstate: false, head: AlignedBuf::zeroed(1) })
            }
            Err(e) => Err(e),
        }
    }

    /// The maintenance guard. A device without a lockstate has no sidecar, because nobody could use it.
    fn keep_others_away(&self, before: &Before) -> Result<Option<Maintenance>, DiskError> {
        let path = match self.kind {
            TargetKind::File => Sidecar::path_for_file(&self.path),
            TargetKind::Device => match before.region.as_deref().and_then(|r| r.iter().flatten().next()) {
                Some(old) => Sidecar::path_for_device(old.superblock.uuid),
                None => return Ok(None),
            },
        };
        Sidecar::open(&path)?.maintain().map(Some)
    }

    /// A whole lockstate may be formatted anew; anything else that is there is somebody's data. A file system made
    /// over an old lockstate leaves some of its heartbeats standing, so one bad sector is enough for suspicion.
    fn refuse_foreign(&self, before: &Before) -> Result<(), DiskError> {
        if before.region.as_deref().is_some_and(|region| region.iter().all(Result::is_ok)) {
            return Ok(());
        }
        let foreign = |what: &str| Err(DiskError::Foreign { path: self.path.clone(), what: what.into() });
        if let Some(what) = foreign::identify(&before.head) {
            return foreign(what);
        }
        if before.looks_like_lockstate {
            return foreign("a damaged lockstate (see 'mxlock-inspect PATH verify')");
        }
        // Backup partition tables and some RAID metadata are at the end.
        for offset in [0, self.length.saturating_sub(CHUNK_BYTES as u64)] {
            if self.read_end(offset)?.is_some_and(|buf| buf.iter().any(|&b| b != 0)) {
                return foreign("data of an unknown kind");
            }
        }
        Ok(())
    }

    /// Up to 1 MiB from `offset` rounded up to what O_DIRECT accepts.
    fn read_end(&self, offset: u64) -> Result<Option<AlignedBuf>, DiskError> {
        let alignment = u64::from(self.alignment);
        let start = offset.next_multiple_of(alignment);
        if start >= self.length {
            return Ok(None);
        }
        // The last, partial block of a file comes back short.
        let mut buf = AlignedBuf::zeroed(CHUNK_BYTES);
        nix::sys::uio::pread(&self.file, &mut buf, start as i64).map_err(|e| DiskError::io("read", &self.path, e))?;
        Ok(Some(buf))
    }

    /// In any case, an existing lockstate is watched for its D; anything that changes is a sign of life.
    fn watch(&self, before: &Before, progress: &mut dyn FnMut(Progress)) -> Result<(), DiskError> {
        let timings = before.region.iter().flat_map(|r| r.iter().flatten()).map(|hb| hb.superblock.timing);
        let (dead_ms, renew_ms) = match timings.map(|t| (t.dead_ms, t.renew_ms)).max() {
            Some(longest) => longest,
            // Its own timing cannot be read: that of the slowest profile.
            None if before.looks_like_lockstate => (Timing::SAN.dead_ms, Timing::SAN.renew_ms),
            None => return Ok(()),
        };
        let (began, total) = (Instant::now(), Duration::from_millis(dead_ms.into()));
        let step = Duration::from_millis(u64::from(renew_ms) / 2).min(Duration::from_millis(500));
        let pause = |watched| {
            std::thread::sleep(step.min(total - watched));
            began.elapsed()
        };
        look_until(total, pause, |watched| {
            let now = read_head(&self.file, &self.path, self.length, self.alignment)?;
            if let Some(at) = (0..now.len()).find(|&i| now[i] != before.head[i]) {
                let what = format!("a node is using this lockstate (byte {at} changed): stop all nodes first");
                return Err(LockConflict { path: self.path.clone(), what }.into());
            }
            progress(Progress::Watching { watched: watched.min(total), total });
            Ok(())
        })
    }

    /// The table first, then all heartbeats in one write: after a crash in between the old epoch can still be read,
    /// so that tokens go on growing (I2).
    fn write_all(
        &self,
        superblock: &Superblock,
        base_epoch: Epoch,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), DiskError> {
        let io = |action, e: Errno| DiskError::io(action, &self.path, e);
        let total = superblock.geometry.total_bytes();
        if self.kind == TargetKind::File {
            let fail = |e| DiskError::io("prepare", &self.path, e);
            self.file.set_permissions(Permissions::from_mode(0o600)).map_err(fail)?;
            self.file.set_len(total).map_err(fail)?;
            match fallocate(&self.file, FallocateFlags::empty(), 0, total as i64) {
                // Writing the zeros allocates as well.
                Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(io("allocate", errno)),
            }
        }

        // Unwritten extents would make the first write of each block a metadata transaction: so zeros are *written*.
        let zeros = AlignedBuf::zeroed(CHUNK_BYTES);
        let head_bytes = total.min(HEAD_BYTES as u64) as usize;
        let mut at = head_bytes as u64;
        while at < total {
            let len = (total - at).min(CHUNK_BYTES as u64) as usize;
            self.write(&zeros[..len], at)?;
            at += len as u64;
            progress(Progress::Writing { done: at - head_bytes as u64, total });
        }
        nix::unistd::fsync(&self.file).map_err(|e| io("sync", e))?;

        let mut head = AlignedBuf::zeroed(head_bytes);
        for (node, sector) in NodeId::all().zip(head.chunks_exact_mut(superblock.geometry.sector.bytes())) {
            fill_sector(&Heartbeat::empty(node, superblock, base_epoch).encode(), sector);
        }
        self.write(&head, 0)?;
        nix::unistd::fsync(&self.file).map_err(|e| io("sync", e))?;
        progress(Progress::Writing { done: total, total });

        if self.kind == TargetKind::File {
            // The file's name, and that of the directory it is in.
            for directory in self.path.ancestors().skip(1).take(2) {
                let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
                let opened = File::open(directory).and_then(|d| d.sync_all());
                opened.map_err(|e| DiskError::io("sync", directory, e))?;
            }
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let wrote = nix::sys::uio::pwrite(&self.file, bytes, offset as i64);
        match IoFault::check(bytes.len(), wrote) {
            Ok(()) => Ok(()),
            Err(IoFault::Short { .. }) => Err(DiskError::io("write", &self.path, Errno::ENOSPC)),
            Err(fault) => Err(DiskError::io("write", &self.path, fault.errno())),
        }
    }

    fn cannot(&self, reason: String) -> DiskError {
        DiskError::CannotCreate { path: self.path.clone(), reason }
    }
}

/// Looks at once, and again after each `pause`, until a look that was *begun* after `total`: a look that took long, or a
/// machine that stood still behind it, has seen nothing of the rest (section 5: silence ends with a read that was issued
/// after the limit). `pause` and `look` get the time at which the last look, or this one, began.
fn look_until<E>(
    total: Duration,
    pause: impl Fn(Duration) -> Duration,
    mut look: impl FnMut(Duration) -> Result<(), E>,
) -> Result<(), E> {
    let mut begun = Duration::ZERO;
    loop {
        look(begun)?;
        if begun >= total {
            return Ok(());
        }
        begun = pause(begun);
    }
}

fn cannot_create(path: &Path, source: std::io::Error) -> DiskError {
    if source.kind() == ErrorKind::PermissionDenied {
        return DiskError::io("create", path, source);
    }
    let reason = Errno::from_raw(source.raw_os_error().unwrap_or(libc::EIO)).desc().to_lowercase();
    DiskError::CannotCreate { path: path.to_owned(), reason }
}

/// Epochs that a lockstate can hardly have gone through between two heartbeats that others have read.
const DAMAGED_JUMP: u64 = 10_000;

/// Above every epoch that the old lockstate has seen or may be agreeing on, and at least the hours since 1970: tokens
/// grow across a reformat even if the old one cannot be read (I2). A damaged sector may have been the only one that
/// knew the newest epochs: they are jumped over.
fn first_epoch(old: Option<&Region>, now_ms: u64) -> Epoch {
    let highest = old
        .iter()
        .flat_map(|region| region.iter().flatten())
        .flat_map(|hb| {
            [Some(hb.epoch), Some(hb.block.instance), hb.view.map(|v| v.epoch), hb.block.value.map(|v| v.epoch)]
        })
        .flatten()
        .max();
    let hours = Epoch(now_ms / 3_600_000);
    let damaged = old.is_some_and(|region| region.iter().any(Result::is_err));
    let jump = if damaged { DAMAGED_JUMP } else { 0 };
    Epoch(highest.map_or(hours, |epoch| epoch.next().max(hours)).0 + jump)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::{Block, Fault, HeartbeatError};

    const HOUR_MS: u64 = 3_600_000;

    /// Section 5: what is silent is known by a look that was begun after the limit, however long the one before took.
    #[test]
    fn a_look_that_took_long_is_not_the_last() {
        let second = Duration::from_secs;
        let clock = std::cell::Cell::new(Duration::ZERO);
        let mut looks = Vec::new();
        let pause = |_| {
            clock.set(clock.get() + second(1));
            clock.get()
        };
        let done: Result<(), ()> = look_until(second(10), pause, |begun| {
            looks.push(begun);
            clock.set(clock.get() + second(20));
            Ok(())
        });
        assert_eq!((done, looks), (Ok(()), vec![second(0), second(21)]));
        let refused =
            look_until(second(10), |at| at + second(4), |begun| if begun < second(8) { Ok(()) } else { Err(begun) });
        assert_eq!(refused, Err(second(8)));
    }

    /// Section 3: the epoch starts above the old one's, and at least at the number of hours since 1970.
    #[test]
    fn the_first_epoch_is_above_the_old_and_the_hours() {
        assert_eq!(first_epoch(None, 500_000 * HOUR_MS + 1), Epoch(500_000));
        let options =
            FormatOptions { lockspace: "test".into(), slots: 64, sector: None, timing: Timing::FAST, force: false };
        let superblock = superblock(&options, SectorSize::S512);
        let region = |epoch, instance| -> Box<Region> {
            let mut nodes = NodeId::all();
            Box::new(std::array::from_fn(|_| {
                let mut hb = Heartbeat::empty(nodes.next().unwrap(), &superblock, Epoch(epoch));
                hb.block = Block { instance: Epoch(instance), ..Block::default() };
                Ok(hb)
            }))
        };
        assert_eq!(first_epoch(Some(&region(7, 0)), 5 * HOUR_MS), Epoch(8));
        assert_eq!(first_epoch(Some(&region(7, 9)), 5 * HOUR_MS), Epoch(10));
        assert_eq!(first_epoch(Some(&region(7, 9)), 50 * HOUR_MS), Epoch(50));
        // A damaged sector may have known a newer epoch than all others.
        let mut damaged = region(7, 9);
        damaged[3] = Err(HeartbeatError { node: NodeId::new(3).unwrap(), fault: Fault::Zero });
        assert!(first_epoch(Some(&damaged), 5 * HOUR_MS) > Epoch(1_000));
    }
}
