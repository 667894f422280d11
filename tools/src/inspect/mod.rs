//! `mxlock-inspect`: the lockstate as it is on disk, daemon or no daemon. It never writes.

mod image;
mod json;
mod map;
mod read;
mod show;
#[cfg(test)]
mod tests;
mod verify;

use crate::common::app::{self, Outcome, emit};
use crate::common::failure::{Code, Failure};
use crate::common::json::document;
use crate::common::names;
use crate::common::text::count;
use clap::{Parser, Subcommand};
use image::Image;
use json::{
    HeartbeatJson, HeartbeatsDocument, LockJson, LocksDocument, SlotDocument, SummaryDocument, ViewDocument, ViewJson,
};
use mxlock_format::{LockRecord, NodeId};
use read::Reader;
use serde::Serialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Twice the default of `clear_behind_ms`.
const DEFAULT_AGAIN_AFTER_MS: u64 = 200;

const EXAMPLES: &str = "\
EXAMPLES
  mxlock-inspect /mnt/shared summary              what is on the disk, in short
  mxlock-inspect --json /dev/sdb1 locks           every lock record, for scripts
  mxlock-inspect /mnt/shared resource orders      who holds or waits for a name
  mxlock-inspect /mnt/shared map --png map.png    how full the table is
  mxlock-inspect /mnt/shared verify               exit code 0: clean, 1: findings, 65: no lockstate";

/// Read a lockstate from disk, without any daemon and without writing
#[derive(Parser, Debug)]
#[command(name = "mxlock-inspect", version, propagate_version = true, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
    /// The lockstate: a file, a block device, or a mount point that has .mxfs/lockstate
    path: PathBuf,
    #[command(subcommand)]
    command: Command,
}

/// What to show.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Lockspace, geometry, timing, view, and how many nodes and locks there are
    #[command(after_help = "EXAMPLES\n  mxlock-inspect /mnt/shared summary")]
    Summary,
    /// The heartbeat sectors of all nodes that ever used the lockstate
    #[command(after_help = "EXAMPLES\n  mxlock-inspect --json /mnt/shared heartbeats | jq '.heartbeats[].host'")]
    Heartbeats,
    /// All lock records
    #[command(after_help = "EXAMPLES\n  mxlock-inspect --json /mnt/shared locks | jq '.locks | length'")]
    Locks,
    /// One lock-record slot
    #[command(after_help = "EXAMPLES\n  mxlock-inspect /mnt/shared slot 4711")]
    Slot {
        /// Number of the slot, from 0
        #[arg(value_name = "N")]
        slot: u32,
    },
    /// One node's heartbeat sector with its ballot
    #[command(after_help = "EXAMPLES\n  mxlock-inspect /mnt/shared node 0")]
    Node {
        /// Node number, 0 to 63
        #[arg(value_name = "N", value_parser = parse_node)]
        node: NodeId,
    },
    /// The records of one named resource
    #[command(
        after_help = "EXAMPLES\n  mxlock-inspect /mnt/shared resource orders\n  mxlock-inspect /mnt/shared resource -N db orders"
    )]
    Resource {
        /// Its name, taken whole
        name: OsString,
        /// Its namespace
        #[arg(short = 'N', long, value_name = "NS")]
        namespace: Option<OsString>,
    },
    /// The newest committed view
    #[command(after_help = "EXAMPLES\n  mxlock-inspect /mnt/shared view")]
    View,
    /// How full the table is, and how far records stand from their home slots
    #[command(after_help = "EXAMPLES\n  mxlock-inspect /mnt/shared map --png map.png")]
    Map {
        /// Write a picture with one pixel for each slot: shared blue, exclusive dark blue, waiting or converting
        /// yellow, orphan pink, damaged red
        #[arg(long, value_name = "FILE")]
        png: Option<PathBuf>,
    },
    /// Check every sector: checksums, stamps, duplicates, incompatible grants
    #[command(after_help = "EXAMPLES\n  mxlock-inspect /mnt/shared verify && echo clean")]
    Verify {
        /// A finding counts only if it is still there when read again after this time: twice the clear_behind_ms of
        /// the cluster
        #[arg(long, value_name = "MS", default_value_t = DEFAULT_AGAIN_AFTER_MS)]
        again_after_ms: u64,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    app::run(std::env::args_os(), command)
}

fn command(cli: Cli) -> Outcome {
    let reader = Reader::open(&cli.path)?;
    let json = cli.json;
    match cli.command {
        Command::Summary => {
            let image = reader.read_all()?;
            print(json, &SummaryDocument::of(&image), || show::summary(&image))
        }
        Command::Heartbeats => {
            let image = reader.read_heartbeats()?;
            let used = image.heartbeats.iter().filter(|heartbeat| show::is_used(heartbeat));
            let document = HeartbeatsDocument { heartbeats: used.map(HeartbeatJson::new).collect() };
            print(json, &document, || show::heartbeats(&image))
        }
        Command::Locks => {
            let image = reader.read_all()?;
            print(json, &LocksDocument::of(&image, |_| true), || show::locks(&image, |_| true))
        }
        Command::Slot { slot } => show_slot(&reader, slot, json),
        Command::Node { node } => show_node(&reader, node, json),
        Command::Resource { name, namespace } => {
            let resource = names::resource(namespace.as_deref(), &name)?;
            let image = reader.read_all()?;
            let document = LocksDocument::of(&image, |record| record.resource == resource);
            let found = !document.locks.is_empty();
            print(json, &document, || show::locks(&image, |record| record.resource == resource))?;
            Ok(u8::from(!found))
        }
        Command::View => {
            let image = reader.read_heartbeats()?;
            let document = ViewDocument { view: image.view().map(ViewJson::from) };
            print(json, &document, || image.view().map_or("no view was ever committed\n".to_owned(), show::view))
        }
        Command::Map { png } => {
            let image = reader.read_all()?;
            if let Some(path) = png {
                map::write_png(&image, &path)?;
            }
            let map = map::Map::of(&image);
            print(json, &map, || map.to_string())
        }
        Command::Verify { again_after_ms } => verify(&reader, Duration::from_millis(again_after_ms), json),
    }
}

/// One document: as JSON or for people.
fn print<T: Serialize>(json: bool, value: &T, text: impl FnOnce() -> String) -> Outcome {
    emit(&if json { document(value) } else { text() })?;
    Ok(0)
}

fn show_slot(reader: &Reader, slot: u32, json: bool) -> Outcome {
    let image = reader.read_all()?;
    let slot_count = image.geometry().slot_count;
    if slot >= slot_count {
        return Err(Failure::new(Code::Usage, format!("there is no slot {slot}: use 0 to {}", slot_count - 1)));
    }
    let record = image.records().find(|(used, _)| *used == slot).map(|(_, record)| record);
    let damage = image.damaged_slots().find(|(damaged, _)| *damaged == slot).map(|(_, damage)| damage);
    let document = SlotDocument {
        slot,
        empty: record.is_none() && damage.is_none(),
        lock: record.map(|record| LockJson::new(&image, slot, record)),
        damage: damage.clone(),
    };
    print(json, &document, || match (record, damage) {
        (_, Some(damage)) => format!("lock record in slot {slot}: {damage}\n"),
        (Some(record), None) => show::record(&image, slot, record),
        (None, None) => format!("slot {slot} is empty\n"),
    })
}

fn show_node(reader: &Reader, node: NodeId, json: bool) -> Outcome {
    let image = reader.read_heartbeats()?;
    let sector = &image.heartbeats[node.index()];
    print(json, &HeartbeatJson::new(sector), || match sector {
        Err(error) => format!("{error}\n"),
        Ok(heartbeat) => show::node(heartbeat),
    })
}

/// What `verify` prints.
#[derive(Serialize)]
struct VerifyDocument<'a> {
    clean: bool,
    slots: u32,
    records: usize,
    #[serde(flatten)]
    report: &'a verify::Report,
}

fn verify(reader: &Reader, again_after: Duration, json: bool) -> Outcome {
    let (image, report) = verified(reader, again_after)?;
    let clean = report.findings.is_empty();
    let (slots, records) = (image.geometry().slot_count, image.records().count());
    let document = VerifyDocument { clean, slots, records, report: &report };
    print(json, &document, || verdict(&report, slots, records))?;
    Ok(u8::from(!clean))
}

/// Looks once, and again if there are findings that a running cluster may be about to mend.
fn verified(reader: &Reader, again_after: Duration) -> Result<(Image, verify::Report), Failure> {
    let mut image = reader.read_all()?;
    let mut report = verify::Report::of(&image);
    if !report.findings.is_empty() && image.good_heartbeats().any(|heartbeat| heartbeat.state.is_active()) {
        std::thread::sleep(again_after);
        image = reader.read_all()?;
        report = report.confirm(verify::Report::of(&image));
    }
    Ok((image, report))
}

/// For `mxlock demo`: the table of the locks in a namespace.
pub(crate) fn locks_in_namespace(path: &Path, namespace: &[u8]) -> Result<String, Failure> {
    let image = Reader::open(path)?.read_all()?;
    Ok(show::locks(&image, |record| is_in(record, namespace)))
}

/// For `mxlock demo`: how many records are in a namespace.
pub(crate) fn count_in_namespace(path: &Path, namespace: &[u8]) -> Result<usize, Failure> {
    let image = Reader::open(path)?.read_all()?;
    Ok(image.records().filter(|(_, record)| is_in(record, namespace)).count())
}

/// For `mxlock demo`: whether the lockstate is clean, and what `verify` prints.
pub(crate) fn verify_text(path: &Path) -> Result<(bool, String), Failure> {
    let (image, report) = verified(&Reader::open(path)?, Duration::from_millis(DEFAULT_AGAIN_AFTER_MS))?;
    let text = verdict(&report, image.geometry().slot_count, image.records().count());
    Ok((report.findings.is_empty(), text))
}

fn is_in(record: &LockRecord, namespace: &[u8]) -> bool {
    record.resource.name().is_some_and(|name| name.namespace() == namespace)
}

fn verdict(report: &verify::Report, slots: u32, records: usize) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text.push_str(&format!("finding: {}\n", finding.message));
    }
    for remark in &report.remarks {
        text.push_str(&format!("remark: {remark}\n"));
    }
    let findings = match report.findings.len() {
        0 => "clean".to_owned(),
        n => count(n, "finding"),
    };
    text.push_str(&format!("{findings}: 64 heartbeat sectors, {slots} slots, {}\n", count(records, "record")));
    text
}

/// Parses a node number.
///
/// # Errors
/// A sentence that says what is allowed.
pub(crate) fn parse_node(text: &str) -> Result<NodeId, String> {
    let number = text.parse().map_err(|_| format!("'{text}' is not a node number: use 0 to 63"))?;
    NodeId::new(number).ok_or_else(|| format!("there is no node {number}: use 0 to 63"))
}
