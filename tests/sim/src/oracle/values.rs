//! I9: an LVB read equals the last one written under PW or EX, or says that it is not valid.
//!
//! Each written value carries a number. A write that was acknowledged before a reader asked must not be missing from
//! what the reader is told is valid. And where a lock stays on the resource, a write is acknowledged only when a record
//! carries it (section 7): the next master will know the value from there alone.

use crate::clock::Time;
use mxlock_format::LockRecord;
use std::collections::BTreeMap;

#[derive(Debug)]
struct Written {
    resource: usize,
    acknowledged: Option<Time>,
}

/// All values written.
#[derive(Default)]
pub struct Values {
    written: BTreeMap<u64, Written>,
    /// By resource: values up to this number became invalid at that time, because a writer died or said so.
    died: BTreeMap<usize, (u64, Time)>,
}

impl Values {
    /// A new value for a resource: its number.
    pub fn write(&mut self, resource: usize) -> u64 {
        let number = self.written.len() as u64 + 1;
        self.written.insert(number, Written { resource, acknowledged: None });
        number
    }

    /// The bytes of a value.
    pub fn bytes(number: u64) -> Vec<u8> {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.extend_from_slice(&(!number).to_le_bytes());
        bytes
    }

    /// The write of a value is about to be acknowledged, and a lock on its resource stays. `records`: all of that resource
    /// on the disk. `in_doubt`: the daemon or the master has changed since it was asked for, and it may not have been written
    /// at all; then the value before it must not stand.
    ///
    /// # Errors
    /// None of them carries it, or a later one, or says that it is not valid.
    pub fn carried<'a>(
        number: u64,
        in_doubt: bool,
        mut records: impl Iterator<Item = &'a LockRecord> + Clone,
    ) -> Result<(), String> {
        let carries = |record: &LockRecord| {
            record.lvb.as_ref().is_some_and(|lvb| !lvb.valid || Values::number(&lvb.bytes) >= number)
        };
        let has_value = |record: &LockRecord| record.lvb.is_some();
        if records.clone().any(carries) || in_doubt && !records.any(has_value) {
            return Ok(());
        }
        Err(format!("value {number} is acknowledged, and no record carries it, though a lock stays"))
    }

    /// The number of a value.
    fn number(bytes: &[u8]) -> u64 {
        bytes.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
    }

    /// The write was acknowledged.
    pub fn acknowledge(&mut self, number: u64, now: Time) {
        if let Some(write) = self.written.get_mut(&number) {
            write.acknowledged.get_or_insert(now);
        }
    }

    /// A holder of PW or EX died: what was written before must not be called valid any more.
    pub fn writer_died(&mut self, resource: usize, now: Time) {
        self.died.insert(resource, (self.newest(), now));
    }

    /// The last value that anybody has written so far, on whatever resource.
    pub fn newest(&self) -> u64 {
        self.written.len() as u64
    }

    /// A holder of PW or EX said that the values up to `last` can no longer be trusted, and this was acknowledged.
    pub fn invalidated(&mut self, resource: usize, last: u64, now: Time) {
        let known = self.died.entry(resource).or_insert((last, now));
        if known.0 < last {
            *known = (last, now);
        }
    }

    /// A reader that asked at `asked` was told that `bytes` are valid; `excludes_writers`: its mode conflicts with PW.
    ///
    /// # Errors
    /// They are not a value of this resource, or a newer one was acknowledged before, or its writer had died.
    pub fn read(&self, resource: usize, bytes: &[u8], asked: Time, excludes_writers: bool) -> Result<(), String> {
        let number = Values::number(bytes);
        match self.written.get(&number) {
            Some(write) if write.resource == resource && bytes == Values::bytes(number) => {}
            _ => return Err(format!("resource {resource}: {bytes:02x?} was never written")),
        }
        let newer = self
            .written
            .range(number + 1..)
            .find(|(_, write)| write.resource == resource && write.acknowledged.is_some_and(|at| at < asked));
        if let Some((newer, _)) = newer {
            return Err(format!("resource {resource}: value {number} was read as valid, but {newer} had been written"));
        }
        match self.died.get(&resource) {
            Some(&(last, at)) if excludes_writers && number <= last && at < asked => Err(format!(
                "resource {resource}: value {number} was read as valid, but a holder of PW or EX died, or said that it is not, after it"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_the_last_one_is_seen() {
        let mut values = Values::default();
        let (first, second) = (values.write(0), values.write(0));
        let read = |values: &Values, number, asked| values.read(0, &Values::bytes(number), asked, true);
        values.acknowledge(first, 10);
        assert!(read(&values, first, 20).is_ok());
        values.acknowledge(second, 30);
        assert!(read(&values, first, 20).is_ok(), "it asked before the second was acknowledged");
        assert!(read(&values, first, 31).is_err());
        assert!(read(&values, second, 31).is_ok());
        assert!(values.read(1, &Values::bytes(second), 31, true).is_err(), "it is of another resource");
        assert!(values.read(0, b"rubbish", 31, true).is_err());
    }

    #[test]
    fn a_value_that_no_record_carries_is_seen() {
        use crate::oracle::superset::tests::record;
        use mxlock_format::{Lvb, LvbSequence, Mode};
        let with = |number, valid| {
            let lvb = Lvb { bytes: Values::bytes(number), sequence: LvbSequence::default(), valid };
            LockRecord { lvb: Some(lvb), ..record(1, Mode::NL) }
        };
        let carried = |records: &[LockRecord]| Values::carried(3, false, records.iter()).is_ok();
        assert!(!carried(&[]) && !carried(&[record(1, Mode::NL)]) && !carried(&[with(2, true)]));
        assert!(carried(&[with(2, true), with(3, true)]) && carried(&[with(4, true)]));
        assert!(carried(&[with(2, false)]), "a writer has died meanwhile");
        assert!(
            Values::carried(3, true, [].iter()).is_ok() && Values::carried(3, true, [with(2, true)].iter()).is_err()
        );
    }

    #[test]
    fn a_value_that_outlives_its_writers_death_is_seen() {
        let mut values = Values::default();
        let number = values.write(0);
        values.acknowledge(number, 10);
        values.writer_died(0, 20);
        assert!(values.read(0, &Values::bytes(number), 21, true).is_err());
        assert!(
            values.read(0, &Values::bytes(number), 21, false).is_ok(),
            "a CR or NL reader may look while it is written"
        );
        let next = values.write(0);
        assert!(values.read(0, &Values::bytes(next), 22, true).is_ok());
        values.invalidated(0, next, 30);
        assert!(values.read(0, &Values::bytes(next), 31, true).is_err(), "its writer said that it is not valid");
    }
}
