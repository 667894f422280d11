//! The clocks of DESIGN section 5: CLOCK_BOOTTIME for every decision, CLOCK_REALTIME for people.

use crate::DiskError;
use mxlock_format::Uuid;
use nix::time::{ClockId, clock_gettime};
use std::path::Path;

/// CLOCK_BOOTTIME in nanoseconds. It goes on while the machine sleeps, which CLOCK_MONOTONIC does not.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has CLOCK_BOOTTIME");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// CLOCK_REALTIME in milliseconds since 1970. Never compared with anything: other hosts' clocks differ.
pub fn realtime_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("every Linux has CLOCK_REALTIME");
    now.tv_sec() as u64 * 1_000 + now.tv_nsec() as u64 / 1_000_000
}

/// Which boot of this machine it is.
///
/// # Errors
/// [`DiskError::Io`] where /proc is not mounted or holds no uuid.
pub fn boot_id() -> Result<Uuid, DiskError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(|e| DiskError::io("read", path, e))?;
    parse_uuid(text.trim()).ok_or_else(|| {
        DiskError::io("read", path, std::io::Error::new(std::io::ErrorKind::InvalidData, "it does not hold a uuid"))
    })
}

/// Parses the usual 8-4-4-4-12 form.
fn parse_uuid(text: &str) -> Option<Uuid> {
    let digits: Vec<u8> = text.bytes().filter(|&b| b != b'-').collect();
    if digits.len() != 32 || text.len() != 36 {
        return None;
    }
    let mut uuid = Uuid::default();
    for (byte, pair) in uuid.0.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_survive_printing() {
        let text = "0f8b2a4c-1111-2222-3333-444455556666";
        assert_eq!(parse_uuid(text).unwrap().to_string(), text);
        assert_eq!(parse_uuid("0f8b2a4c"), None);
        assert_eq!(parse_uuid("zf8b2a4c-1111-2222-3333-444455556666"), None);
    }

    #[test]
    fn the_boot_has_an_id_and_time_goes_on() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        let before = boottime_ns();
        assert!(boottime_ns() >= before);
    }
}
