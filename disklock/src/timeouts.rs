//! Assumption A2 (DESIGN section 10): a write lands soon after its issue, or never. Linux's defaults often break it.

use crate::target::device_directory;
use mxlock_format::Timing;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// One sentence for each timeout of the devices under `path` that allows a write to land later than A2 assumes:
/// `D / 1.05 - L` after its issue. For the log, and for `status`.
pub fn check_device_timeouts(path: &Path, timing: Timing) -> Vec<String> {
    let Ok(metadata) = fs::metadata(path) else { return Vec::new() };
    let dev = if metadata.file_type().is_block_device() { metadata.rdev() } else { metadata.dev() };
    let sysfs = Path::new("/sys");
    device_directory(sysfs, dev).map(|device| check(sysfs, &device, timing)).unwrap_or_default()
}

fn check(sysfs: &Path, device: &Path, timing: Timing) -> Vec<String> {
    let limit_ms = (u64::from(timing.dead_ms) * 100 / 105).saturating_sub(timing.lease_ms.into());
    let mut warnings = Vec::new();
    let mut devices = vec![device.to_owned()];
    while let Some(device) = devices.pop() {
        let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut warn = |what: &str, ms: u64, remedy: &str| {
            if ms > limit_ms {
                warnings.push(format!(
                    "{name}: {what} is {ms} ms, but a write must land within {limit_ms} ms of its issue or never: {remedy}"
                ));
            }
        };
        if let Some(seconds) = number(&device.join("device/timeout")) {
            warn("the SCSI command timeout", seconds * 1000, &format!("lower /sys/block/{name}/device/timeout"));
        } else if let Some(ms) = number(&device.join("queue/io_timeout")) {
            warn("the request timeout", ms, &format!("lower /sys/block/{name}/queue/io_timeout"));
        }
        if let Some(session) = iscsi_session(&device) {
            let file = sysfs.join("class/iscsi_session").join(&session).join("recovery_tmo");
            if let Some(seconds) = number(&file) {
                warn("the iSCSI replacement timeout", seconds * 1000, "lower node.session.timeo.replacement_timeout");
            }
        }
        if fs::read_to_string(device.join("dm/uuid")).is_ok_and(|uuid| uuid.starts_with("mpath-")) {
            warnings.push(format!(
                "{name}: a multipath device may hold writes back while it has no path: make sure that no_path_retry is not 'queue'"
            ));
        }
        let slaves = fs::read_dir(device.join("slaves")).into_iter().flatten().flatten();
        devices.extend(slaves.filter_map(|slave| whole_disk(&slave.path())));
    }
    warnings.sort();
    warnings.dedup();
    warnings
}

fn whole_disk(link: &Path) -> Option<PathBuf> {
    let directory = fs::canonicalize(link).ok()?;
    if directory.join("partition").exists() { directory.parent().map(Path::to_owned) } else { Some(directory) }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// `sessionN` in the path of an iSCSI disk's device.
fn iscsi_session(device: &Path) -> Option<String> {
    let path = fs::canonicalize(device.join("device")).ok()?;
    let mut parts = path.iter().filter_map(|part| part.to_str());
    parts.find(|p| p.strip_prefix("session").is_some_and(|n| n.parse::<u32>().is_ok())).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Section 10, A2: SCSI's 30 s and iSCSI's 120 s are too long for `fast` (6.3 s), also below a multipath device.
    #[test]
    fn long_timeouts_are_named_down_to_the_disks() {
        let sysfs = tempfile::tempdir().unwrap();
        let disk = sysfs.path().join("block/sda");
        let target = sysfs.path().join("host2/session7/target2:0:0");
        file(target.join("timeout"), "30\n");
        file(disk.join("queue/io_timeout"), "30000\n");
        std::os::unix::fs::symlink(&target, disk.join("device")).unwrap();
        file(sysfs.path().join("class/iscsi_session/session7/recovery_tmo"), "120\n");
        let multipath = sysfs.path().join("block/dm-0");
        file(multipath.join("dm/uuid"), "mpath-3600140\n");
        fs::create_dir_all(multipath.join("slaves")).unwrap();
        std::os::unix::fs::symlink(&disk, multipath.join("slaves/sda")).unwrap();

        let warnings = check(sysfs.path(), &multipath, Timing::FAST);
        assert_eq!(warnings.len(), 3, "{warnings:#?}");
        assert!(warnings.iter().any(|w| w.contains("sda: the SCSI command timeout is 30000 ms")), "{warnings:#?}");
        assert!(warnings.iter().any(|w| w.contains("iSCSI replacement timeout is 120000 ms")), "{warnings:#?}");
        assert!(warnings.iter().any(|w| w.contains("dm-0: a multipath")), "{warnings:#?}");

        file(target.join("timeout"), "5\n");
        file(sysfs.path().join("class/iscsi_session/session7/recovery_tmo"), "6\n");
        assert_eq!(check(sysfs.path(), &disk, Timing::FAST), Vec::<String>::new());
    }
}
