//! Disks: loop devices, with XFS on them or bare.

use crate::command::run;
use std::fs::File;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A device, bytes: a little more than the smallest XFS that mkfs.xfs makes. Its image is sparse.
const DEVICE_BYTES: u64 = 320 << 20;

/// Where the image of a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// `$TMPDIR` or /var/tmp: the machine's own storage.
    Storage,
    /// Memory, where the kernel can do direct I/O to it (tmpfs, Linux 6.6), else as `Storage`: with heartbeats every few
    /// hundred milliseconds a test must not depend on what else writes to the machine's storage.
    Steady,
}

/// A disk that goes away when it is dropped. The order of fields is the order in which they go.
#[derive(Debug)]
pub struct Disk {
    mount: Option<Mount>,
    device: LoopDevice,
    directory: TempDir,
}

#[derive(Debug)]
struct Mount(PathBuf);

#[derive(Debug)]
struct LoopDevice(PathBuf);

impl Disk {
    /// XFS on a loop device with logical sectors of `sector` bytes, mounted.
    ///
    /// # Errors
    /// What the first tool that failed said.
    pub fn xfs(sector: u32, place: Place) -> Result<Disk, String> {
        let mut disk = Disk::bare(sector, place)?;
        disk.make_xfs()?;
        let point = disk.directory.path().join("mnt");
        std::fs::create_dir(&point).map_err(|e| format!("{}: {e}", point.display()))?;
        tool("mount", &[disk.device(), &point])?;
        disk.mount = Some(Mount(point));
        Ok(disk)
    }

    /// A bare loop device with direct I/O.
    ///
    /// # Errors
    /// As [`Disk::xfs`].
    pub fn bare(sector: u32, place: Place) -> Result<Disk, String> {
        let storage = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        match place {
            Place::Steady => Disk::attach(Path::new("/dev/shm"), sector).or_else(|_| Disk::attach(&storage, sector)),
            Place::Storage => Disk::attach(&storage, sector),
        }
    }

    fn attach(place: &Path, sector: u32) -> Result<Disk, String> {
        let directory = tempfile::Builder::new().prefix("mxlock-e2e-disk-").tempdir_in(place);
        let directory = directory.map_err(|e| format!("{}: {e}", place.display()))?;
        let image = directory.path().join("image");
        let made = File::create(&image).and_then(|file| file.set_len(DEVICE_BYTES));
        made.map_err(|e| format!("{}: {e}", image.display()))?;
        let device = LoopDevice::attach(&image, sector)?;
        Ok(Disk { mount: None, device, directory })
    }

    /// The block device.
    pub fn device(&self) -> &Path {
        &self.device.0
    }

    /// The directory that holds the image and the mount point.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where it is mounted.
    ///
    /// # Panics
    /// When it is bare.
    pub fn mount_point(&self) -> &Path {
        &self.mount.as_ref().expect("the disk has a file system").0
    }

    /// What to give to `mxlockd --lockstate`: the mount point, or the device.
    pub fn target(&self) -> &Path {
        self.mount.as_ref().map_or(self.device(), |mount| &mount.0)
    }

    /// The lockstate itself.
    pub fn lockstate(&self) -> PathBuf {
        match &self.mount {
            Some(Mount(point)) => point.join(".mxfs/lockstate"),
            None => self.device().to_owned(),
        }
    }

    /// Makes a file system on the bare device, without mounting it.
    ///
    /// # Errors
    /// What mkfs.xfs said.
    pub fn make_xfs(&self) -> Result<(), String> {
        tool("mkfs.xfs", &[Path::new("-q"), Path::new("-f"), self.device()])
    }

    /// Mounts it anew, read-only or read-write.
    ///
    /// # Panics
    /// When that fails.
    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        tool("mount", &[Path::new("-o"), Path::new(&options), self.mount_point()]).expect("a remount succeeds");
    }
}

impl LoopDevice {
    fn attach(image: &Path, sector: u32) -> Result<LoopDevice, String> {
        let sector = sector.to_string();
        let args = ["--find", "--show", "--direct-io=on", "--sector-size", &sector];
        let said = run("losetup", args.iter().map(Path::new).chain([image]));
        if said.code != 0 {
            return Err(format!("losetup: {}", said.err.trim()));
        }
        let device = LoopDevice(PathBuf::from(said.out.trim()));
        // losetup only warns where the image's file system cannot do direct I/O.
        let listed = run("losetup", ["--list", "--noheadings", "--output", "DIO", said.out.trim()]);
        if listed.out.trim() != "1" {
            return Err(format!("losetup: {} does not do direct I/O", image.display()));
        }
        Ok(device)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily when a process that is about to end still has something open: the device follows.
        if tool("umount", &[&self.0]).is_err() {
            complain(tool("umount", &[Path::new("-l"), &self.0]));
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        complain(tool("losetup", &[Path::new("-d"), &self.0]));
    }
}

fn tool(name: &str, args: &[&Path]) -> Result<(), String> {
    if !in_path(name) {
        return Err(format!("{name} is not installed"));
    }
    let said = run(name, args);
    if said.code == 0 { Ok(()) } else { Err(format!("{name}: {}", said.err.trim())) }
}

/// Whether there is such a program.
pub(crate) fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// A test's verdict stands; what is left behind is named.
pub(crate) fn complain(result: Result<(), String>) {
    if let Err(why) = result {
        eprintln!("left behind: {why}");
    }
}
