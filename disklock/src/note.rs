//! What a daemon leaves behind about its writes, for the one that is started after it on the same boot.
//!
//! A heartbeat write that ended in an error, or was under way when its daemon was killed, may still land: the guard waits
//! until the kernel has ended it, and an error is an end. Whoever starts then must not vote before it can land no more,
//! nor before the core of the daemon that was killed would have voted (`docs/decisions/009`). A record write that ended in
//! an error may land as well: until then nobody may follow the master that issued it, who says so in its heartbeat, if it
//! still can. The note is a small file on a file system in memory: written without waiting for any disk, there after a
//! `kill -9`, and gone with the boot.

use crate::clock::boottime_ns;
use mxlock_format::{NodeId, Uuid};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

const MAGIC: [u8; 8] = *b"mxnote03";
/// Magic, boot, lockspace, node.
const HEAD: usize = 8 + 16 + 16 + 4;
/// Whether a write is under way.
const WRITING: usize = HEAD;
/// When the last write ended that ended badly; 0: none did.
const BAD: usize = WRITING + 1;
/// No ballot before, by the core's word.
const BALLOTS: usize = BAD + 8;
const BYTES: usize = BALLOTS + 8;
/// Until when a record write may land that ended badly. Written by another thread than what is before it.
const UNCERTAIN: usize = BYTES;

/// What the note of a predecessor says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    /// From when on a ballot may be cast, in ns of CLOCK_BOOTTIME, as far as it depends on the predecessor; 0: at once.
    pub ballots_from_ns: u64,
    /// Until when one of its record writes may land; 0: none.
    pub uncertain_until_ns: u64,
}

/// The note of a running daemon.
#[derive(Debug)]
pub struct BeatNote {
    file: File,
    bytes: [u8; BYTES],
    dead: Duration,
    /// What it says is the predecessor's, or caution: the core has not spoken yet, and no write has failed.
    inherited: bool,
}

impl BeatNote {
    /// Takes over the note at `path`, or begins one; `dead` is D. `None`: without a note of this boot, lockspace and slot
    /// nothing is known of a predecessor.
    ///
    /// The caller holds the guard of the slot, so that no other daemon writes the note.
    ///
    /// # Errors
    /// The file cannot be opened, read or written.
    pub fn open(
        path: &Path,
        (boot_id, lockspace, node): (Uuid, Uuid, NodeId),
        dead: Duration,
    ) -> io::Result<(BeatNote, Option<Left>)> {
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&MAGIC);
        head[8..24].copy_from_slice(&boot_id.0);
        head[24..40].copy_from_slice(&lockspace.0);
        head[40..].copy_from_slice(&node.get().to_le_bytes());

        let (mut bytes, mut uncertain) = ([0; BYTES], [0; 8]);
        let read =
            file.read_exact_at(&mut bytes, 0).and_then(|()| file.read_exact_at(&mut uncertain, UNCERTAIN as u64));
        let found = match read {
            Ok(()) => bytes[..HEAD] == head,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        if !found {
            bytes.fill(0);
            bytes[..HEAD].copy_from_slice(&head);
        }
        if !found || bytes[WRITING] != 0 {
            bytes[WRITING] = 0;
            set_time(&mut bytes, BAD, boottime_ns());
        }
        let note = BeatNote { file, bytes, dead, inherited: true };
        note.file.write_all_at(&note.bytes, 0)?;
        if !found {
            uncertain = [0; 8];
            note.file.write_all_at(&uncertain, UNCERTAIN as u64)?;
        }
        let uncertain_until_ns = u64::from_le_bytes(uncertain);
        let left = found.then(|| Left { ballots_from_ns: note.ballots_from(), uncertain_until_ns });
        Ok((note, left))
    }

    /// The part for the thread that hears how record writes end.
    ///
    /// # Errors
    /// The descriptor cannot be duplicated.
    pub fn records(&self) -> io::Result<RecordNote> {
        Ok(RecordNote { file: self.file.try_clone()?, dead: self.dead })
    }

    fn ballots_from(&self) -> u64 {
        let bad = Some(time(&self.bytes, BAD)).filter(|&at| at != 0);
        let after_bad = bad.map_or(0, |at| at.saturating_add(self.dead.as_nanos() as u64));
        after_bad.max(time(&self.bytes, BALLOTS))
    }

    /// The core, which knows what the predecessor left and how the slot was taken, casts no ballot before. Kept with
    /// the next write.
    pub(crate) fn core_votes_from(&mut self, ns: u64) {
        if std::mem::take(&mut self.inherited) {
            set_time(&mut self.bytes, BAD, 0);
        }
        set_time(&mut self.bytes, BALLOTS, ns);
    }

    /// A heartbeat write is about to begin.
    pub(crate) fn begins(&mut self) {
        self.bytes[WRITING] = 1;
        self.write();
    }

    /// It has ended.
    pub(crate) fn ended(&mut self, well: bool, now_ns: u64) {
        self.bytes[WRITING] = 0;
        if !well {
            self.inherited = false;
            let bad = now_ns.max(time(&self.bytes, BAD));
            set_time(&mut self.bytes, BAD, bad);
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

/// The note about record writes.
#[derive(Debug)]
pub struct RecordNote {
    file: File,
    dead: Duration,
}

impl RecordNote {
    /// A record write has ended in an error, at `now_ns`: it may land until D later. To be called before anything is made of it.
    pub fn failed(&self, now_ns: u64) {
        let until = now_ns.saturating_add(self.dead.as_nanos() as u64);
        if let Err(error) = self.file.write_all_at(&until.to_le_bytes(), UNCERTAIN as u64) {
            tracing::error!("the note about a failed record write cannot be written: {error}");
        }
    }
}

fn time(bytes: &[u8; BYTES], at: usize) -> u64 {
    let mut time = [0; 8];
    time.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(time)
}

fn set_time(bytes: &mut [u8; BYTES], at: usize, ns: u64) {
    bytes[at..at + 8].copy_from_slice(&ns.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Uuid = Uuid([1; 16]);
    const SPACE: Uuid = Uuid([2; 16]);
    const DEAD: Duration = Duration::from_nanos(1_000);

    fn node(slot: u32) -> NodeId {
        NodeId::new(slot).unwrap()
    }

    /// Decision 009: a predecessor whose writes all ended well holds nothing up; one of which that is not known does.
    #[test]
    fn tells_whether_a_write_may_still_land() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note");
        let open = || {
            let (note, left) = BeatNote::open(&path, (BOOT, SPACE, node(3)), DEAD).unwrap();
            (note, left.map(|left| left.ballots_from_ns))
        };

        let before = boottime_ns();
        let (note, from) = open();
        assert_eq!(from, None, "nothing is known of a first start");
        drop(note);
        let (mut note, from) = open();
        assert!(from.is_some_and(|at| at >= before + 1_000), "and its core has said nothing: {from:?}");

        note.core_votes_from(0);
        note.begins();
        note.ended(true, 5);
        drop(note);
        let (mut note, from) = open();
        assert_eq!(from, Some(0), "all went well, and the core had nothing to wait for");

        note.begins();
        drop(note);
        let (mut note, from) = open();
        assert!(from.is_some_and(|at| at >= before + 1_000), "killed while it wrote");

        note.core_votes_from(50);
        note.begins();
        note.ended(false, 77);
        note.core_votes_from(60);
        note.begins();
        note.ended(true, 99);
        drop(note);
        assert_eq!(open().1, Some(1_077), "neither a good write nor the core's word takes a bad write back");
        let (mut note, _) = open();
        note.core_votes_from(2_000);
        note.begins();
        note.ended(true, 99);
        drop(note);
        assert_eq!(open().1, Some(2_000), "what the core waited for");
        for (boot, space, slot) in [(SPACE, SPACE, 3), (BOOT, BOOT, 3), (BOOT, SPACE, 4)] {
            let (_, other) = BeatNote::open(&path, (boot, space, node(slot)), DEAD).unwrap();
            assert_eq!(other, None, "the note is another one's");
        }
    }

    /// A record write that ended in an error outlives the daemon, and its successor's heartbeats; not a boot.
    #[test]
    fn tells_until_when_a_record_may_land() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note");
        let open = |boot| BeatNote::open(&path, (boot, SPACE, node(3)), DEAD).unwrap();
        let until = |left: Option<Left>| left.unwrap().uncertain_until_ns;

        drop(open(BOOT));
        let (mut note, left) = open(BOOT);
        assert_eq!(until(left), 0);
        note.records().unwrap().failed(500);
        note.begins();
        note.ended(true, 600);
        drop(note);
        assert_eq!(until(open(BOOT).1), 1_500);
        assert_eq!(until(open(BOOT).1), 1_500, "until that time, however often it is started");
        assert_eq!(open(SPACE).1, None);
        assert_eq!(until(open(SPACE).1), 0);
    }
}
