//! What a daemon leaves behind about its heartbeat writes, for the one that is started after it on the same boot.
//!
//! A heartbeat write that ended in an error, or was under way when its daemon was killed, may still land: the guard waits
//! until the kernel has ended it, and an error is an end. Whoever starts then must not vote before it can land no more
//! (`docs/decisions/009`). The note is a small file on a file system in memory: written without waiting for any
//! disk, there after a `kill -9`, and gone with the boot.

use crate::clock::boottime_ns;
use mxlock_format::{NodeId, Uuid};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const MAGIC: [u8; 8] = *b"mxnote01";
/// Magic, boot, lockspace, node.
const HEAD: usize = 8 + 16 + 16 + 4;
/// The head, whether a write is under way, and when the last one ended that ended badly.
const BYTES: usize = HEAD + 1 + 8;

/// The note of a running daemon.
#[derive(Debug)]
pub struct BeatNote {
    file: File,
    bytes: [u8; BYTES],
}

impl BeatNote {
    /// Takes over the note at `path`, or begins one. Also says when the predecessor's last heartbeat write ended that
    /// may still land, in ns of CLOCK_BOOTTIME; `None` if all are known to have ended well. Without a note of
    /// this boot, lockspace and slot nothing is known: now.
    ///
    /// The caller holds the guard of the slot, so that no other daemon writes the note.
    ///
    /// # Errors
    /// The file cannot be opened, read or written.
    pub fn open(path: &Path, boot_id: Uuid, lockspace: Uuid, node: NodeId) -> io::Result<(BeatNote, Option<u64>)> {
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&MAGIC);
        head[8..24].copy_from_slice(&boot_id.0);
        head[24..40].copy_from_slice(&lockspace.0);
        head[40..].copy_from_slice(&node.get().to_le_bytes());

        let mut bytes = [0; BYTES];
        let found = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => bytes[..HEAD] == head,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        let uncertain = match found && bytes[HEAD] == 0 {
            true => Some(note_time(&bytes)).filter(|&at| at != 0),
            false => Some(boottime_ns()),
        };
        bytes[..HEAD].copy_from_slice(&head);
        bytes[HEAD] = 0;
        bytes[HEAD + 1..].copy_from_slice(&uncertain.unwrap_or(0).to_le_bytes());
        file.write_all_at(&bytes, 0)?;
        Ok((BeatNote { file, bytes }, uncertain))
    }

    /// A heartbeat write is about to begin.
    pub(crate) fn begins(&mut self) {
        self.bytes[HEAD] = 1;
        self.write();
    }

    /// It has ended.
    pub(crate) fn ended(&mut self, well: bool, now_ns: u64) {
        self.bytes[HEAD] = 0;
        if !well {
            self.bytes[HEAD + 1..].copy_from_slice(&now_ns.to_le_bytes());
        }
        self.write();
    }

    fn write(&self) {
        // No note is the cautious one.
        if let Err(error) = self.file.write_all_at(&self.bytes, 0)
            && let Err(worse) = self.file.set_len(0)
        {
            tracing::error!("the note about the heartbeat can be neither written ({error}) nor emptied ({worse})");
        }
    }
}

fn note_time(bytes: &[u8; BYTES]) -> u64 {
    let mut time = [0; 8];
    time.copy_from_slice(&bytes[HEAD + 1..]);
    u64::from_le_bytes(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Uuid = Uuid([1; 16]);
    const SPACE: Uuid = Uuid([2; 16]);

    fn node(slot: u32) -> NodeId {
        NodeId::new(slot).unwrap()
    }

    /// Decision 009: a predecessor whose writes all ended well holds nothing up; one of which that is not known does.
    #[test]
    fn tells_whether_a_write_may_still_land() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note");
        let open = || BeatNote::open(&path, BOOT, SPACE, node(3)).unwrap();

        let before = boottime_ns();
        let (mut note, uncertain) = open();
        assert!(uncertain.is_some_and(|at| at >= before), "nothing is known of a first start");
        drop(note);
        assert_eq!(open().1, uncertain, "nor by a second one");

        std::fs::remove_file(&path).unwrap();
        (note, _) = open();
        note.bytes[HEAD + 1..].fill(0);
        note.begins();
        note.ended(true, 5);
        drop(note);
        let (mut note, uncertain) = open();
        assert_eq!(uncertain, None);

        note.begins();
        drop(note);
        let (mut note, uncertain) = open();
        assert!(uncertain.is_some_and(|at| at >= before), "killed while it wrote");

        note.begins();
        note.ended(false, 77);
        note.begins();
        note.ended(true, 99);
        drop(note);
        assert_eq!(open().1, Some(77), "a good write after it does not take a bad one back");
        for (boot, space, slot) in [(SPACE, SPACE, 3), (BOOT, BOOT, 3), (BOOT, SPACE, 4)] {
            let (_, other) = BeatNote::open(&path, boot, space, node(slot)).unwrap();
            assert!(other.is_some_and(|at| at >= before), "the note is another one's");
        }
    }
}
