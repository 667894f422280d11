//! What a PATH means, and whether a lockstate may live there (INTERFACE, "mxlockd").

use crate::DiskError;
use crate::io::sys;
use nix::sys::statfs::{FsType, statfs};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Who can reach what is stored there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Other hosts too.
    Shared,
    /// Only the daemons of this host.
    ThisHost,
}

/// File or block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// A regular file.
    File,
    /// A block device, partition or logical volume.
    Device,
}

/// What carries a lockstate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    /// `block device`, or the file system's name.
    pub name: String,
    /// Who can reach it.
    pub scope: Scope,
    /// Why a lockstate is refused there unless forced.
    pub refused: Option<&'static str>,
}

/// The lockstate of a mount point or other directory.
pub(crate) const IN_DIRECTORY: [&str; 2] = [".mxfs", "lockstate"];

/// The lockstate that PATH means: itself, or `<PATH>/.mxfs/lockstate` for a directory.
pub fn resolve(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(IN_DIRECTORY[0]).join(IN_DIRECTORY[1]) } else { path.to_owned() }
}

/// What kind of thing an existing lockstate path is.
pub(crate) fn kind_of(path: &Path) -> Result<TargetKind, DiskError> {
    let file_type = match fs::metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(DiskError::Missing { path: path.to_owned(), hint: missing_hint(path) });
        }
        Err(e) => return Err(DiskError::io("stat", path, e)),
    };
    if file_type.is_file() {
        Ok(TargetKind::File)
    } else if file_type.is_block_device() {
        Ok(TargetKind::Device)
    } else {
        let reason = "it is neither a regular file nor a block device".into();
        Err(DiskError::NotLockstate { path: path.to_owned(), reason })
    }
}

/// For a path inside `<mount>/.mxfs`, a missing mount is the likely reason.
fn missing_hint(path: &Path) -> String {
    let mount = path.parent().filter(|dir| dir.ends_with(IN_DIRECTORY[0])).and_then(Path::parent);
    match mount {
        Some(mount) if !is_mount_point(mount) => {
            format!(
                "nothing is mounted at {}: mount the file system, or create one with 'mxlockd format'",
                mount.display()
            )
        }
        _ => "create one with 'mxlockd format'".into(),
    }
}

fn is_mount_point(directory: &Path) -> bool {
    let device = |p: &Path| fs::metadata(p).map(|m| (m.dev(), m.ino()));
    match (device(directory), device(&directory.join(".."))) {
        (Ok((dev, ino)), Ok((above_dev, above_ino))) => dev != above_dev || ino == above_ino,
        _ => false,
    }
}

/// What a lockstate at `path`, which need not exist yet, would be on.
///
/// # Errors
/// [`DiskError::Io`] where there is no directory for it.
pub fn medium_at(path: &Path) -> Result<Medium, DiskError> {
    match kind_of(path) {
        Ok(kind) => medium(path, kind),
        Err(_) if path.is_dir() => medium(path, TargetKind::File),
        Err(_) => {
            let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            medium(beside, TargetKind::File)
        }
    }
}

/// Judges the file system that holds `path`, which must exist.
pub(crate) fn medium(path: &Path, kind: TargetKind) -> Result<Medium, DiskError> {
    if kind == TargetKind::Device {
        return Ok(Medium { name: "block device".into(), scope: Scope::Shared, refused: None });
    }
    let FsType(magic) = statfs(path).map_err(|e| DiskError::io("statfs", path, e))?.filesystem_type();
    // MXFS shares XFS's magic number; the mount table tells them apart.
    if fs::metadata(path).ok().and_then(|m| mounted_type(m.dev())).as_deref() == Some("mxfs") {
        return Ok(Medium { name: "mxfs".into(), scope: Scope::Shared, refused: None });
    }
    Ok(judge(magic as u32))
}

/// Numbers from linux/magic.h and the file systems' own headers.
fn judge(magic: u32) -> Medium {
    use Scope::{Shared, ThisHost};
    const CACHED: &str = "a network file system keeps pages in each client and promises neither that a sector is \
                          written whole nor when: use a block device or a cluster file system";
    const USER_SPACE: &str = "a FUSE file system may cache, split or lose writes, and dies with its process: use a \
                              block device or a cluster file system";
    const UNKNOWN: &str = "it is not known whether its direct writes reach the disk whole, and at once";
    let (name, scope, refused) = match magic {
        0x7461_636f => ("ocfs2", Shared, None),
        0x0116_1970 => ("gfs2", Shared, None),
        0x5846_5342 => ("xfs", ThisHost, None),
        0xef53 => ("ext4", ThisHost, None),
        0x9123_683e => ("btrfs", ThisHost, None),
        0x0102_1994 => ("tmpfs", ThisHost, None),
        0xf2f5_2010 => ("f2fs", ThisHost, None),
        0x2fc1_2fc1 => ("zfs", ThisHost, None),
        0xca45_1a4e => ("bcachefs", ThisHost, None),
        0x794c_7630 => ("overlayfs", ThisHost, None),
        0x6969 => ("nfs", Shared, Some(CACHED)),
        0xff53_4d42 | 0xfe53_4d42 => ("smb", Shared, Some(CACHED)),
        0x00c3_6400 => ("ceph", Shared, Some(CACHED)),
        0x0102_1997 => ("9p", Shared, Some(CACHED)),
        0x5346_414f => ("afs", Shared, Some(CACHED)),
        0x0bd0_0bd0 => ("lustre", Shared, Some(CACHED)),
        0x6573_5546 => ("fuse", Shared, Some(USER_SPACE)),
        _ => return Medium { name: format!("file system {magic:#x}"), scope: Shared, refused: Some(UNKNOWN) },
    };
    Medium { name: name.into(), scope, refused }
}

/// The type of the file system on device `dev`, from the mount table.
fn mounted_type(dev: u64) -> Option<String> {
    let wanted = format!("{}:{}", nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // 36 35 98:0 /root /mount options - type source options
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&wanted))?;
    line.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}

/// Length in bytes of an open file or device.
pub(crate) fn length(file: &File, path: &Path, kind: TargetKind) -> Result<u64, DiskError> {
    match kind {
        TargetKind::File => file.metadata().map(|m| m.len()).map_err(|e| DiskError::io("stat", path, e)),
        TargetKind::Device => {
            let (_, _, bytes) =
                sys::device_geometry(file.as_fd()).map_err(|e| DiskError::io("ask for the size of", path, e))?;
            Ok(bytes)
        }
    }
}

/// The smallest write that O_DIRECT accepts, bytes (at least 512).
pub(crate) fn write_alignment(file: &File, kind: TargetKind) -> u32 {
    let device = match kind {
        TargetKind::Device => sys::device_geometry(file.as_fd()).ok().map(|(logical, _, _)| logical),
        TargetKind::File => None,
    };
    device.or_else(|| sys::direct_alignment(file.as_fd())).unwrap_or(512).max(512)
}

/// The larger of logical and physical sector size of the device underneath, bytes: a smaller write to it is a
/// read-modify-write of its neighbours (section 3). `None` where there is no one device, as for btrfs and tmpfs.
pub(crate) fn device_sector(file: &File, kind: TargetKind) -> Option<u32> {
    match kind {
        TargetKind::Device => {
            sys::device_geometry(file.as_fd()).ok().map(|(logical, physical, _)| logical.max(physical))
        }
        TargetKind::File => {
            let dev = file.metadata().ok()?.dev();
            let device = device_directory(Path::new("/sys"), dev)?;
            let read =
                |name| -> Option<u32> { fs::read_to_string(device.join("queue").join(name)).ok()?.trim().parse().ok() };
            Some(read("logical_block_size")?.max(read("physical_block_size")?))
        }
    }
}

/// The sysfs directory of a whole disk, given the number of the disk or one of its partitions.
pub(crate) fn device_directory(sysfs: &Path, dev: u64) -> Option<PathBuf> {
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    let directory = fs::canonicalize(sysfs.join(format!("dev/block/{major}:{minor}"))).ok()?;
    if directory.join("partition").exists() { directory.parent().map(Path::to_owned) } else { Some(directory) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INTERFACE: file systems are judged by type.
    #[test]
    fn file_systems_are_judged_by_type() {
        for (magic, name, scope, refused) in [
            (0x7461_636f, "ocfs2", Scope::Shared, false),
            (0x0116_1970, "gfs2", Scope::Shared, false),
            (0x5846_5342, "xfs", Scope::ThisHost, false),
            (0xef53, "ext4", Scope::ThisHost, false),
            (0x9123_683e, "btrfs", Scope::ThisHost, false),
            (0x6969, "nfs", Scope::Shared, true),
            (0x6573_5546, "fuse", Scope::Shared, true),
            (0xdead_beef, "file system 0xdeadbeef", Scope::Shared, true),
        ] {
            let medium = judge(magic);
            assert_eq!((medium.name.as_str(), medium.scope, medium.refused.is_some()), (name, scope, refused));
        }
    }

    #[test]
    fn a_missing_mount_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = kind_of(&resolve(directory.path())).unwrap_err();
        assert!(error.to_string().contains("nothing is mounted at"), "{error}");
        assert_eq!(error.kind().exit_code(), 65);
        assert!(is_mount_point(Path::new("/proc")));
    }
}
