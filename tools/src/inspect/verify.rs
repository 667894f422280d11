//! `mxlock-inspect PATH verify`: what a healthy lockstate cannot show.
//!
//! A *finding* breaks a rule of the design; a *remark* is legal and worth knowing. The table of a live lockspace is a
//! superset of the truth for moments (section 7: records are brought up to date behind grants and releases), so a
//! finding counts only if a second reading, later than any such moment, shows it too: [`Report::confirm`].

use super::image::Image;
use mxlock_format::{ByteRange, Heartbeat, LockId, LockRecord, LockState, Mode, Superblock, TOKEN_COUNTER_BITS, Token};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// What is wrong, in kinds that scripts can match.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A heartbeat sector is zero or not valid: view changes stop (section 4).
    HeartbeatDamaged,
    /// A heartbeat sector carries another superblock than the others (section 3).
    SuperblockDiffers,
    /// A record sector is neither empty nor valid (PROTOTYPE 4).
    RecordDamaged,
    /// One lock has two records (PROTOTYPE 2).
    DuplicateLock,
    /// Two grants have one token (I2).
    DuplicateToken,
    /// Incompatible modes are granted on overlapping ranges (I1).
    IncompatibleGrants,
    /// A record was written in a view that nobody has committed (I4).
    FromTheFuture,
}

/// Something that breaks a rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Finding {
    /// What kind.
    pub(super) kind: Kind,
    /// The record slots that it is about, in order.
    pub(super) slots: Vec<u32>,
    /// The node slot that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<u32>,
    /// One sentence.
    pub(super) message: String,
    /// The locks that it is about: with the kind, slots and node they tell whether two readings show the same thing.
    #[serde(skip)]
    locks: Vec<LockId>,
}

/// The result of looking at one reading, or at two.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Report {
    /// Rules that are broken.
    pub(super) findings: Vec<Finding>,
    /// Legal, and worth knowing.
    pub(super) remarks: Vec<String>,
}

impl Report {
    /// Checks every sector of a reading.
    pub(super) fn of(image: &Image) -> Report {
        let mut report = Report::default();
        report.check_heartbeats(image);
        report.check_sectors(image);
        report.check_identities(image);
        report.check_grants(image);
        report.check_stamps(image);
        report.remark_on_placement(image);
        report
    }

    /// What both readings show; remarks are those of the later one.
    #[must_use]
    pub(super) fn confirm(self, later: Report) -> Report {
        let same =
            |a: &Finding, b: &Finding| (a.kind, a.node, &a.slots, &a.locks) == (b.kind, b.node, &b.slots, &b.locks);
        let findings =
            later.findings.into_iter().filter(|new| self.findings.iter().any(|old| same(old, new))).collect();
        Report { findings, remarks: later.remarks }
    }

    fn find(&mut self, kind: Kind, message: String) {
        self.findings.push(Finding { kind, slots: Vec::new(), node: None, message, locks: Vec::new() });
    }

    fn find_records(&mut self, kind: Kind, mut records: Vec<(u32, &LockRecord)>, message: String) {
        records.sort_unstable_by_key(|(slot, _)| *slot);
        self.findings.push(Finding {
            kind,
            slots: records.iter().map(|(slot, _)| *slot).collect(),
            node: None,
            message,
            locks: records.iter().map(|(_, record)| record.lock).collect(),
        });
    }

    fn check_heartbeats(&mut self, image: &Image) {
        for heartbeat in &image.heartbeats {
            let (kind, node, message) = match heartbeat {
                Err(error) => (Kind::HeartbeatDamaged, error.node, error.to_string()),
                Ok(heartbeat) => {
                    let node = heartbeat.node;
                    let Some(what) = difference(heartbeat, &image.superblock) else { continue };
                    (Kind::SuperblockDiffers, node, format!("heartbeat sector of node {node}: its {what} differs"))
                }
            };
            self.find(kind, message);
            self.findings.last_mut().expect("just added").node = Some(node.get());
        }
    }

    fn check_sectors(&mut self, image: &Image) {
        for (slot, reason) in image.damaged_slots() {
            self.find(Kind::RecordDamaged, format!("lock record in slot {slot}: {reason}"));
            self.findings.last_mut().expect("just added").slots = vec![slot];
        }
    }

    /// A lock has one record, a token one grant. Stale records do not count.
    fn check_identities(&mut self, image: &Image) {
        let mut by_lock: BTreeMap<LockId, Vec<(u32, &LockRecord)>> = BTreeMap::new();
        let mut by_token: BTreeMap<Token, Vec<(u32, &LockRecord)>> = BTreeMap::new();
        for (slot, record) in counting(image) {
            by_lock.entry(record.lock).or_default().push((slot, record));
            // A request that waits has no token yet.
            if record.token.0 != 0 {
                by_token.entry(record.token).or_default().push((slot, record));
            }
        }
        for (lock, records) in by_lock.into_iter().filter(|(_, records)| records.len() > 1) {
            let message = format!("lock {lock} has {} records, in slots {}", records.len(), slots(&records));
            self.find_records(Kind::DuplicateLock, records, message);
        }
        for (token, records) in by_token {
            let first = records[0].1.lock;
            if records.iter().any(|(_, record)| record.lock != first) {
                let message =
                    format!("token {token} was given to {} locks, in slots {}", records.len(), slots(&records));
                self.find_records(Kind::DuplicateToken, records, message);
            }
        }
    }

    /// I1, as far as the disk shows it: a converting lock holds its `mode` and only wants the other.
    fn check_grants(&mut self, image: &Image) {
        let mut by_resource: HashMap<_, Vec<(u32, &LockRecord)>> = HashMap::new();
        for (slot, record) in counting(image) {
            if record.state != LockState::Waiting && record.mode != Mode::NL {
                by_resource.entry(&record.resource).or_default().push((slot, record));
            }
        }
        let mut resources: Vec<_> = by_resource.into_iter().collect();
        resources.sort_unstable_by_key(|(resource, _)| *resource);
        for (resource, holders) in resources {
            // Thousands of readers of one resource are no reason to compare each with each.
            let mode = holders[0].1.mode;
            if mode.compatible(mode) && holders.iter().all(|(_, record)| record.mode == mode) {
                continue;
            }
            for (i, &(slot_a, a)) in holders.iter().enumerate() {
                for &(slot_b, b) in &holders[i + 1..] {
                    // A session may divide what it holds before it lets go of the whole (OWN).
                    let own = (a.owner, a.lock.session, a.transaction) == (b.owner, b.lock.session, b.transaction)
                        && (a.range.is_some() || b.range.is_some());
                    if own || a.lock == b.lock || a.mode.compatible(b.mode) || !range(a).overlaps(range(b)) {
                        continue;
                    }
                    let message = format!(
                        "'{resource}' is held by node {} in {} (slot {slot_a}{}) and by node {} in {} (slot {slot_b}{})",
                        a.owner,
                        a.mode,
                        note(image, a),
                        b.owner,
                        b.mode,
                        note(image, b),
                    );
                    self.find_records(Kind::IncompatibleGrants, vec![(slot_a, a), (slot_b, b)], message);
                }
            }
        }
    }

    /// Stamps and grants are never above the newest committed view, a token never above its record's stamp.
    fn check_stamps(&mut self, image: &Image) {
        let Some(view) = image.view() else {
            if let Some((slot, record)) = image.records().next() {
                let message = format!("slot {slot} holds lock {} although no view was ever committed", record.lock);
                self.find_records(Kind::FromTheFuture, vec![(slot, record)], message);
            }
            return;
        };
        let mut stale = 0;
        let mut foreign = 0;
        for (slot, record) in image.records() {
            let token_epoch = record.token.0 >> TOKEN_COUNTER_BITS;
            let newest = record.table_epoch.max(record.epoch);
            if newest > view.epoch {
                let message =
                    format!("slot {slot}: lock {} is of epoch {newest}, the newest view {}", record.lock, view.epoch);
                self.find_records(Kind::FromTheFuture, vec![(slot, record)], message);
            } else if token_epoch > view.epoch.0 {
                let message = format!(
                    "slot {slot}: lock {} has a token of epoch {token_epoch}, the newest view is {}",
                    record.lock, view.epoch
                );
                self.find_records(Kind::FromTheFuture, vec![(slot, record)], message);
            } else if record.table_epoch < view.table_epoch {
                stale += 1;
            } else if !view.members.contains(record.owner) && !view.owed.contains(record.owner) && !record.orphan {
                foreign += 1;
            }
        }
        if stale > 0 {
            self.remarks.push(format!(
                "{stale} records have a stamp below table epoch {}: they do not count",
                view.table_epoch
            ));
        }
        if foreign > 0 {
            self.remarks
                .push(format!("{foreign} records are of nodes that are not members: they are about to be purged"));
        }
    }

    /// With the mirror in memory, gaps before a record are legal (section 3); long probes say that the table is full.
    fn remark_on_placement(&mut self, image: &Image) {
        let farthest = image.records().map(|(slot, record)| (image.distance(slot, record), slot)).max();
        if let Some((distance, slot)) = farthest.filter(|(distance, _)| *distance > 0) {
            self.remarks
                .push(format!("the record farthest from its home slot is {distance} slots behind it, in slot {slot}"));
        }
        let gaps = image.records().filter(|&(slot, record)| has_gap(image, slot, record)).count();
        if gaps > 0 {
            self.remarks.push(format!("{gaps} records stand behind slots that were cleared since"));
        }
    }
}

/// The records that count: valid, and not stale.
fn counting(image: &Image) -> impl Iterator<Item = (u32, &LockRecord)> {
    image.records().filter(|(_, record)| !image.is_stale(record))
}

fn range(record: &LockRecord) -> ByteRange {
    record.range.unwrap_or(ByteRange::ALL)
}

fn slots(records: &[(u32, &LockRecord)]) -> String {
    let numbers: Vec<String> = records.iter().map(|(slot, _)| slot.to_string()).collect();
    numbers.join(", ")
}

/// Section 6: records of incarnations that are gone may be possible holders, which may conflict until they are resolved.
fn note(image: &Image, record: &LockRecord) -> &'static str {
    match image.heartbeat(record.owner) {
        Some(heartbeat) if heartbeat.incarnation != record.owner_incarnation => ", of an earlier incarnation",
        _ => "",
    }
}

/// Whether a slot between a record and its home is free.
fn has_gap(image: &Image, slot: u32, record: &LockRecord) -> bool {
    let slot_count = image.geometry().slot_count;
    let home = record.resource.home_slot(slot_count);
    let used_below = |slot: u32| image.slots.partition_point(|(used, _)| *used < slot);
    let used_between = if home <= slot {
        used_below(slot) - used_below(home)
    } else {
        image.slots.len() - used_below(home) + used_below(slot)
    };
    used_between < image.distance(slot, record) as usize
}

/// In what a heartbeat sector differs from the superblock. What a running cluster can change is compared only for
/// nodes that run: a slot that nobody uses keeps what it was given.
fn difference(heartbeat: &Heartbeat, superblock: &Superblock) -> Option<&'static str> {
    let (a, b) = (&heartbeat.superblock, superblock);
    let runs = heartbeat.state.is_active();
    match () {
        () if a.uuid != b.uuid => Some("lockspace uuid"),
        () if a.geometry != b.geometry => Some("geometry"),
        () if a.lockspace != b.lockspace => Some("lockspace name"),
        () if runs && a.timing != b.timing => Some("timing"),
        () if runs && a.key != b.key => Some("cluster key"),
        () if runs && a.feature_level != b.feature_level => Some("feature level"),
        () => None,
    }
}
