//! I3: every lock that a client was told it holds is named by a record on disk, until released or purged after fencing.
//!
//! The record names the lock itself or, as section 7 allows for a session that takes the same resource and range again,
//! an earlier lock of the same session there; with at least that mode as granted or wanted.

use super::stamps;
use mxlock_format::{ByteRange, LockId, LockRecord, Mode, Resource, View};

/// Whether `record` stands for this lock.
pub fn names(record: &LockRecord, lock: LockId, resource: &Resource, range: Option<ByteRange>, mode: Mode) -> bool {
    record.lock.session == lock.session
        && record.resource == *resource
        && record.range == range
        && (record.mode.covers(mode) || record.wanted.covers(mode))
}

/// Whether any record on disk that counts stands for this lock.
///
/// # Errors
/// None does.
pub fn check(
    records: &[Option<LockRecord>],
    newest: Option<&View>,
    lock: LockId,
    resource: &Resource,
    range: Option<ByteRange>,
    mode: Mode,
) -> Result<(), String> {
    let stands = |record: &LockRecord| names(record, lock, resource, range, mode) && stamps::counts(record, newest);
    if records.iter().flatten().any(stands) {
        return Ok(());
    }
    let near: Vec<_> = records.iter().flatten().filter(|record| record.lock.session == lock.session).collect();
    Err(format!(
        "no record on disk stands for {lock:?} on {resource:?} {range:?} in {mode}; of its session: {:?}",
        near.iter().map(|r| (r.lock, &r.resource, r.state, r.mode, r.wanted, r.table_epoch)).collect::<Vec<_>>()
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use mxlock_format::{Epoch, Incarnation, LockState, NodeId, Process, QualifiedName, SessionId, Token};

    pub(crate) fn resource() -> Resource {
        Resource::named(QualifiedName::new(b"sim", b"data").unwrap())
    }

    pub(crate) fn record(seq: u64, mode: Mode) -> LockRecord {
        LockRecord {
            resource: resource(),
            owner: NodeId::new(0).unwrap(),
            owner_incarnation: Incarnation(1),
            mode,
            wanted: mode,
            state: LockState::Granted,
            granted_at_ms: 0,
            epoch: Epoch(1),
            lock: LockId { session: SessionId(9), seq },
            token: Token::new(Epoch(1), 1),
            table_epoch: Epoch(1),
            queue_position: 0,
            persistent: false,
            orphan: false,
            process: Process { pid: 1, start_time: 0, uid: 0 },
            transaction: 0,
            range: None,
            orphan_lifetime_ms: 0,
            lvb: None,
        }
    }

    #[test]
    fn a_lock_without_its_record_is_seen() {
        let held = |records: &[Option<LockRecord>], session, mode| {
            let lock = LockId { session: SessionId(session), seq: 5 };
            check(records, None, lock, &resource(), None, mode)
        };
        let on_disk = [None, Some(record(4, Mode::PR))];
        assert!(held(&on_disk, 9, Mode::PR).is_ok(), "an earlier lock of the session stands for it");
        assert!(held(&on_disk, 9, Mode::EX).is_err(), "the record says less");
        assert!(held(&on_disk, 8, Mode::PR).is_err(), "it is another session's");
        assert!(held(&[None], 9, Mode::NL).is_err());
        let waiting = LockRecord { state: LockState::Waiting, mode: Mode::NL, wanted: Mode::EX, ..record(5, Mode::NL) };
        assert!(held(&[Some(waiting)], 9, Mode::EX).is_ok(), "granted at memory speed");
    }
}
