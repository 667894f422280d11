//! Section 6.3 and 6.5: a record counts by its stamp. What is older than the table epoch of the view is no record of this
//! table any more: nothing rests on it (`superset` asks for one that counts), and no recovery brings it back.

use mxlock_format::{Epoch, LockRecord, View};

/// Whether a record counts under the newest view.
pub fn counts(record: &LockRecord, newest: Option<&View>) -> bool {
    newest.is_none_or(|view| record.table_epoch >= view.table_epoch)
}

/// A record is written over `before` with `after`, under the view `newest`. `known`: whether its lock is known to any
/// session, which may have told of it.
///
/// # Errors
/// It did not count, nobody spoke for it, and now it counts.
pub fn rewritten(before: &LockRecord, after: &LockRecord, newest: Option<&View>, known: bool) -> Result<(), String> {
    let table_epoch = newest.map_or(Epoch(0), |view| view.table_epoch);
    let comes_back = before.lock == after.lock && !counts(before, newest) && counts(after, newest);
    if comes_back && !known {
        return Err(format!(
            "a record of {:?} with the stamp {} counts again with {}: the table is of {table_epoch}",
            before.lock, before.table_epoch, after.table_epoch
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::superset::tests::record;
    use mxlock_format::{Incarnation, Mode, NodeId, NodeSet, Phase};

    #[test]
    fn a_record_that_comes_back_is_seen() {
        let newest = View {
            epoch: Epoch(9),
            master: NodeId::new(0).unwrap(),
            master_incarnation: Incarnation(1),
            phase: Phase::Recovering,
            members: NodeSet(1),
            owed: NodeSet(0),
            table_epoch: Epoch(7),
            feature_level: 1,
        };
        let stamped = |epoch| LockRecord { table_epoch: Epoch(epoch), ..record(1, Mode::EX) };
        assert!(!counts(&stamped(6), Some(&newest)) && counts(&stamped(7), Some(&newest)));
        let rewritten =
            |before, after, known| super::rewritten(&stamped(before), &stamped(after), Some(&newest), known);
        assert!(rewritten(7, 9, false).is_ok());
        assert!(rewritten(6, 9, false).is_err());
        assert!(rewritten(6, 9, true).is_ok(), "its owner has told of it");
        assert!(
            super::rewritten(
                &stamped(6),
                &LockRecord { table_epoch: Epoch(9), ..record(2, Mode::EX) },
                Some(&newest),
                false
            )
            .is_ok()
        );
    }
}
