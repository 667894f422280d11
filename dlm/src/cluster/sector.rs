//! The own heartbeat sector: what was handed out, and whether the disk holds it (DESIGN section 4, I6).

use crate::io::{BeatWrite, ImageId, IoFault};
use crate::time::BootTime;
use mxlock_format::{Heartbeat, HeartbeatError, Incarnation};
use std::collections::VecDeque;
use std::time::Duration;

use super::liveness::Pulse;

/// What the own sector was found to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Exactly what this beat wrote.
    AsWritten,
    /// An earlier write of ours that had failed, or one whose end is not known: the next beat replaces it.
    OwnOlder,
    /// It cannot be read, or its checksum is wrong. Nobody decides anything while it is (section 4), and only its owner
    /// knows what it said: the next beat writes it anew.
    Damaged,
    /// Another daemon's.
    Foreign(Incarnation),
    /// Our own with contents that we did not write last: the disk loses or mixes up writes.
    Changed,
}

/// What this node has handed out, and what came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnSector {
    last_id: u64,
    /// Images that the thread may be writing now, or write next; the newest last.
    handed_out: VecDeque<(ImageId, Heartbeat)>,
    /// What the last write that succeeded left.
    written: Option<Pulse>,
    /// Writes that ended in an error: they may have landed, or land late.
    uncertain: VecDeque<Uncertain>,
}

/// A run of heartbeats of one incarnation of which some failed.
#[derive(Clone, Debug)]
struct Uncertain {
    incarnation: Incarnation,
    first_seq: u64,
    last_seq: u64,
    /// When the last of them failed.
    failed_at: BootTime,
}

impl Uncertain {
    fn contains(&self, pulse: Pulse) -> bool {
        self.incarnation == pulse.incarnation && (self.first_seq..=self.last_seq).contains(&pulse.hb_seq)
    }
}

impl OwnSector {
    pub(super) fn newest(&self) -> Option<&Heartbeat> {
        self.handed_out.back().map(|(_, heartbeat)| heartbeat)
    }

    /// Gives the image a number.
    pub(super) fn hand_out(&mut self, heartbeat: Heartbeat) -> ImageId {
        self.last_id += 1;
        let id = ImageId(self.last_id);
        self.handed_out.push_back((id, heartbeat));
        id
    }

    /// The image with this number, if it was handed out and is not outdated.
    pub(super) fn image(&self, id: ImageId) -> Option<&Heartbeat> {
        self.handed_out.iter().find(|(other, _)| *other == id).map(|(_, heartbeat)| heartbeat)
    }

    /// Whether any write has ended well.
    pub(super) fn has_written(&self) -> bool {
        self.written.is_some()
    }

    /// Whether a write has failed that may be on disk, whole or in part.
    pub(super) fn may_have_landed(&self) -> bool {
        !self.uncertain.is_empty()
    }

    /// A write ended. A failed one cannot land any more after D (A2).
    pub(super) fn write_ended(&mut self, write: &BeatWrite, now: BootTime, dead: Duration) {
        // The thread always writes the newest image, so older ones are never written again.
        while self.handed_out.front().is_some_and(|&(id, _)| id < write.image) {
            self.handed_out.pop_front();
        }
        let Some(image) = self.image(write.image) else { return };
        let pulse = Pulse { incarnation: image.incarnation, hb_seq: write.hb_seq };
        match (&write.result, self.uncertain.back_mut()) {
            (Err(IoFault::Expired), _) => {}
            (Ok(()), _) => {
                self.written = Some(pulse);
                // What had landed by then is overwritten now.
                self.uncertain.retain(|failed| failed.failed_at + dead > write.started);
            }
            (Err(_), Some(last)) if last.incarnation == pulse.incarnation => {
                (last.last_seq, last.failed_at) = (pulse.hb_seq, now);
            }
            (Err(_), _) => {
                let Pulse { incarnation, hb_seq } = pulse;
                self.uncertain.push_back(Uncertain {
                    incarnation,
                    first_seq: hb_seq,
                    last_seq: hb_seq,
                    failed_at: now,
                });
            }
        }
    }

    /// Compares the own sector, as read after `write` had ended, with what was written.
    pub(super) fn check(&self, write: &BeatWrite, found: &Result<Heartbeat, HeartbeatError>) -> Found {
        let Ok(found) = found else { return Found::Damaged };
        let pulse = Pulse::of(found);
        let older = self.uncertain.iter().any(|failed| failed.contains(pulse));
        let Some(image) = self.image(write.image) else { return Found::Changed };
        match write.result {
            Ok(()) if pulse.hb_seq == write.hb_seq && same_contents(image, found) => Found::AsWritten,
            Ok(()) if older => Found::OwnOlder,
            Err(_) if older || self.written.is_none_or(|written| written == pulse) => Found::OwnOlder,
            _ if found.incarnation != image.incarnation => Found::Foreign(found.incarnation),
            _ => Found::Changed,
        }
    }
}

/// Equal but for what the heartbeat thread stamps.
pub(super) fn same_contents(image: &Heartbeat, found: &Heartbeat) -> bool {
    let stamped = Heartbeat {
        hb_seq: found.hb_seq,
        timestamp_ms: found.timestamp_ms,
        boottime_ns: found.boottime_ns,
        ..image.clone()
    };
    stamped == *found
}
