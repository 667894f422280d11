//! Changes to a lockstate that no daemon would make: damage, and the life signs of hosts that do not exist.

use mxlock_format::{Geometry, Heartbeat, NodeId};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A lockstate that is open for surgery.
#[derive(Debug)]
pub struct Surgery {
    file: File,
    geometry: Geometry,
}

impl Surgery {
    /// Opens a lockstate of known geometry.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub fn open(lockstate: &Path, geometry: Geometry) -> Surgery {
        let file = File::options().read(true).write(true).open(lockstate);
        Surgery { file: file.unwrap_or_else(|e| panic!("{}: {e}", lockstate.display())), geometry }
    }

    /// Reads a node's heartbeat, lets `change` change it, and writes it with a good checksum.
    ///
    /// # Panics
    /// When it is damaged.
    pub fn heartbeat(&self, node: usize, change: impl FnOnce(&mut Heartbeat)) {
        let node = NodeId::new(node as u32).expect("a slot");
        let offset = self.geometry.heartbeat_offset(node);
        let mut sector = vec![0; self.geometry.sector.bytes()];
        self.file.read_exact_at(&mut sector, offset).expect("the sector can be read");
        let mut heartbeat = Heartbeat::decode(node, &sector).expect("a heartbeat");
        change(&mut heartbeat);
        self.write(heartbeat.encode().as_ref(), offset);
    }

    /// Flips a bit of a node's heartbeat sector.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn damage_heartbeat(&self, node: usize) {
        self.flip(self.geometry.heartbeat_offset(NodeId::new(node as u32).expect("a slot")) + 100);
    }

    /// Flips a bit of a record's sector.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn damage_record(&self, slot: u32) {
        self.flip(self.geometry.slot_offset(slot) + 100);
    }

    fn flip(&self, offset: u64) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, offset).expect("the byte can be read");
        self.write(&[byte[0] ^ 1], offset);
    }

    fn write(&self, bytes: &[u8], offset: u64) {
        self.file.write_all_at(bytes, offset).expect("it can be written");
        // Daemons read past the page cache.
        self.file.sync_all().expect("it can be made durable");
    }
}
