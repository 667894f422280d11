//! I10: at rest (no pending writes), the decoded table equals memory.
//!
//! Asked when everything is healed and nobody has locks any more: then both must be empty, byte for byte.

use mxlock_format::LockRecord;

/// Compares a slot of the master's mirror with the disk, and the disk with the truth, that nobody holds anything.
///
/// # Errors
/// They differ, or there is a record.
pub fn slot(slot: u32, memory: &[u8], disk: &[u8], record: Option<&LockRecord>) -> Result<(), String> {
    if memory != disk {
        return Err(format!("slot {slot} differs from the master's mirror; on disk: {record:?}"));
    }
    match record {
        Some(record) => Err(format!("slot {slot} is not empty, though nobody has a lock: {record:?}")),
        None if disk.iter().any(|&byte| byte != 0) => Err(format!("slot {slot} holds neither a record nor zeros")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::superset::tests::record;

    #[test]
    fn a_difference_or_a_remnant_is_seen() {
        let record = record(1, mxlock_format::Mode::EX);
        let image = record.encode();
        assert!(slot(0, &[0; 512], &[0; 512], None).is_ok());
        assert!(slot(0, &[0; 512], &image.0, Some(&record)).is_err(), "memory says it was cleared");
        assert!(slot(0, &image.0, &image.0, Some(&record)).is_err(), "nobody has a lock");
        assert!(slot(0, &[1; 512], &[1; 512], None).is_err(), "rubbish that nobody reports");
    }
}
