//! Reading a lockstate that others may be writing.

use super::image::Image;
use crate::common::failure::{Code, Failure};
use mxlock_disklock::guards::{ReaderSlot, Sidecar};
use mxlock_disklock::{DiskError, Lockstate, OpenOptions};
use std::path::Path;

/// An open lockstate and the reader slot that keeps maintenance away from it (section 8).
pub(crate) struct Reader {
    lockstate: Lockstate,
    _slot: Option<ReaderSlot>,
}

impl Reader {
    /// Opens for reading; a mount point means its `.mxfs/lockstate`.
    ///
    /// # Errors
    /// [`Code::Data`] when it is no lockstate, [`Code::NotNow`] during maintenance.
    pub(crate) fn open(path: &Path) -> Result<Reader, Failure> {
        let lockstate = Lockstate::open(path, OpenOptions { read_only: true, force: false })?;
        let slot = Sidecar::open_existing(&lockstate.sidecar_path())?.map(Sidecar::attach).transpose()?;
        Ok(Reader { lockstate, _slot: slot })
    }

    /// The heartbeat sectors, as they are now.
    pub(crate) fn read_heartbeats(&self) -> Result<Image, Failure> {
        let region = self.lockstate.read_heartbeats()?;
        Ok(Image::new(self.lockstate.superblock().clone(), region.to_vec()))
    }

    /// Everything, as it is now. Heartbeats are read last: then no record that was read is newer than they are.
    pub(crate) fn read_all(&self) -> Result<Image, Failure> {
        let mut table = Image::new(self.lockstate.superblock().clone(), Vec::new());
        for chunk in self.lockstate.table() {
            table.add_slots(chunk.first_slot, &chunk.records);
            table.unreadable.extend(chunk.unreadable.into_iter().map(|(slot, fault)| (slot, fault.to_string())));
        }
        let heartbeats = self.lockstate.read_heartbeats()?.to_vec();
        Ok(Image { heartbeats, ..table })
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Failure {
        Failure::new(Code::from_number(error.kind().exit_code()), error.to_string())
    }
}
