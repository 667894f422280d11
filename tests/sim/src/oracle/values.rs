//! I9: an LVB read equals the last one written under PW or EX, or says that it is not valid.
//!
//! Each written value carries a number. A write that was acknowledged before a reader asked must not be missing from
//! what the reader is told is valid.

use crate::clock::Time;
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
    /// By resource: values up to this number became invalid at that time, because a writer died.
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

    /// The write was acknowledged.
    pub fn acknowledge(&mut self, number: u64, now: Time) {
        if let Some(write) = self.written.get_mut(&number) {
            write.acknowledged.get_or_insert(now);
        }
    }

    /// A holder of PW or EX died: what was written before must not be called valid any more.
    pub fn writer_died(&mut self, resource: usize, now: Time) {
        self.died.insert(resource, (self.written.len() as u64, now));
    }

    /// A reader that asked at `asked` was told that `bytes` are valid; `excludes_writers`: its mode conflicts with PW.
    ///
    /// # Errors
    /// They are not a value of this resource, or a newer one was acknowledged before, or its writer had died.
    pub fn read(&self, resource: usize, bytes: &[u8], asked: Time, excludes_writers: bool) -> Result<(), String> {
        let number = bytes.first_chunk().map(|chunk| u64::from_le_bytes(*chunk)).unwrap_or(0);
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
                "resource {resource}: value {number} was read as valid, but a holder of PW or EX died after it"
            )),
            _ => Ok(()),
        }
    }
}
