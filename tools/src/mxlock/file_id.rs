//! `run --file`: a file as a resource that is the same on every node.
//!
//! The volume is FNV-1a-64 of the 16 bytes of the file system's UUID, the inode its number. `st_dev` and `f_fsid` say
//! nothing on another host: both come from device numbers.

use crate::common::failure::{Code, Failure};
use mxlock_format::{Resource, ResourceId, ResourceKind, Uuid};
use std::fs::File;
use std::hash::Hasher;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The resource of the file or directory at `path`; symbolic links are followed.
///
/// # Errors
/// Where the file cannot be opened, or its file system has no UUID.
pub(crate) fn resource(path: &Path) -> Result<Resource, Failure> {
    let failed = |e: std::io::Error| Failure::system("lock the file", path.display(), &e);
    // Opening a fifo or a device could wait or do something: neither has a place on a shared file system to identify.
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
        return Err(Failure::new(Code::Usage, format!("{} is neither a file nor a directory", path.display())));
    }
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let uuid = ioctl::file_system_uuid(&file).or_else(|| uuid_of_device(metadata.st_dev())).ok_or_else(|| {
        let path = path.display();
        Failure::new(
            Code::Usage,
            format!("cannot lock the file {path}: its file system has no UUID; lock a name instead"),
        )
    })?;
    let id = ResourceId { volume: volume(uuid), ino: metadata.st_ino(), offset: 0, ag: 0, kind: ResourceKind::Inode };
    Ok(Resource::typed(id).expect("an inode is a typed resource"))
}

/// FNV-1a-64 of the UUID's bytes.
fn volume(uuid: Uuid) -> u64 {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(&uuid.0);
    hasher.finish()
}

/// For kernels before 6.9: the UUID under which udev lists the device that the file system is on.
fn uuid_of_device(device: u64) -> Option<Uuid> {
    std::fs::read_dir("/dev/disk/by-uuid").ok()?.flatten().find_map(|entry| {
        let metadata = std::fs::metadata(entry.path()).ok()?;
        (metadata.st_rdev() == device).then(|| parse_uuid(entry.file_name().to_str()?))?
    })
}

/// The usual 8-4-4-4-12 form. FAT and ISO 9660 have shorter serial numbers, which are no UUIDs.
fn parse_uuid(text: &str) -> Option<Uuid> {
    let groups: Vec<&str> = text.split('-').collect();
    if groups.iter().map(|group| group.len()).ne([8, 4, 4, 4, 12]) || !text.is_ascii() {
        return None;
    }
    let digits = groups.concat();
    let mut uuid = Uuid::default();
    for (i, byte) in uuid.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(uuid)
}

#[allow(unsafe_code)]
mod ioctl {
    use mxlock_format::Uuid;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    /// `struct fsuuid2` of linux/fs.h.
    #[repr(C)]
    #[derive(Default)]
    pub(super) struct FsUuid2 {
        len: u8,
        uuid: [u8; 16],
    }

    nix::ioctl_read!(fs_ioc_getfsuuid, 0x15, 0, FsUuid2);

    /// The 128-bit UUID of the file system that a file is on, from Linux 6.9.
    pub(super) fn file_system_uuid(file: &File) -> Option<Uuid> {
        let mut answer = FsUuid2::default();
        // SAFETY: the descriptor is open, and `answer` is the 17-byte struct that FS_IOC_GETFSUUID fills.
        unsafe { fs_ioc_getfsuuid(file.as_raw_fd(), &mut answer) }.ok()?;
        (answer.len == 16 && answer.uuid != [0; 16]).then_some(Uuid(answer.uuid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_parsed_strictly() {
        assert_eq!(
            parse_uuid("00112233-4455-6677-8899-aabbccddeeff").unwrap().0,
            [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]
        );
        for wrong in ["1234-ABCD", "", "00112233-4455-6677-8899-aabbccddeefg", "0011223344556677-8899-aabbccddeeff"] {
            assert_eq!(parse_uuid(wrong), None, "{wrong}");
        }
    }

    /// Golden: other programs that lock files must come to the same volume.
    #[test]
    fn the_volume_is_fnv_1a_of_the_uuid() {
        assert_eq!(volume(Uuid([0; 16])), 0x8820_1fb9_60ff_6465);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        assert_eq!(resource(Path::new("/dev/null")).unwrap_err().code, Code::Usage);
        assert_eq!(resource(Path::new("/nonexistent/x")).unwrap_err().code, Code::Io);
    }

    /// Two names of one inode are one resource; procfs has no UUID.
    #[test]
    fn files_are_told_apart_by_inode() {
        let directory = tempfile::tempdir().unwrap();
        let [a, b, link] = ["a", "b", "link"].map(|name| directory.path().join(name));
        File::create(&a).unwrap();
        File::create(&b).unwrap();
        std::fs::hard_link(&a, &link).unwrap();
        match resource(&a) {
            Ok(first) => {
                assert_eq!(first, resource(&link).unwrap());
                assert_ne!(first, resource(&b).unwrap());
            }
            Err(failure) => assert!(failure.message.contains("has no UUID"), "{failure}"),
        }
        let failure = resource(Path::new("/proc/version")).unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.message.contains("has no UUID"), "{failure}");
    }
}
