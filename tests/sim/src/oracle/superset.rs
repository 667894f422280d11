//! I3: every lock that a client was told it holds is named by a record on disk, until released or purged after fencing.
//!
//! The record names the lock itself or, as section 7 allows for a session that takes the same resource and range again,
//! an earlier lock of the same session there; with at least that mode as granted or wanted.

use mxlock_format::{ByteRange, LockId, LockRecord, Mode, Resource};

/// Whether `record` stands for this lock.
pub fn names(record: &LockRecord, lock: LockId, resource: &Resource, range: Option<ByteRange>, mode: Mode) -> bool {
    record.lock.session == lock.session
        && record.resource == *resource
        && record.range == range
        && (record.mode.covers(mode) || record.wanted.covers(mode))
}

/// Whether any record on disk stands for this lock.
///
/// # Errors
/// None does.
pub fn check(
    records: &[Option<LockRecord>],
    lock: LockId,
    resource: &Resource,
    range: Option<ByteRange>,
    mode: Mode,
) -> Result<(), String> {
    if records.iter().flatten().any(|record| names(record, lock, resource, range, mode)) {
        return Ok(());
    }
    let near: Vec<_> = records.iter().flatten().filter(|record| record.lock.session == lock.session).collect();
    Err(format!(
        "no record on disk stands for {lock:?} on {resource:?} {range:?} in {mode}; of its session: {:?}",
        near.iter().map(|r| (r.lock, &r.resource, r.state, r.mode, r.wanted)).collect::<Vec<_>>()
    ))
}
