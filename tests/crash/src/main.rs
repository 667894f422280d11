//! Records runs of real daemons, and starts clusters from every disk that a crash could have left.

use clap::{Parser, Subcommand};
use mxlock_crash::campaign::{Effort, check, count};
use mxlock_crash::history::History;
use mxlock_crash::lab::Lab;
use mxlock_crash::points::{Landed, image};
use mxlock_crash::real::start_on_prefixes;
use mxlock_crash::replay::{Crash, replay};
use mxlock_crash::stream::{Event, Moment, Stream};
use mxlock_format::{Heartbeat, LockRecord, MAX_NODES, NodeId, RECORD_BYTES};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(version, about = "Crash points on the real write path: records, and replays what was recorded")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs three daemons on a recording device for some seconds. Needs root, FUSE and loop devices.
    Record {
        /// Where the stream is written.
        file: PathBuf,
    },
    /// Starts a cluster from every disk that a crash during the recorded run could have left.
    Replay {
        /// The stream.
        file: PathBuf,
        /// Only every Nth crash point.
        #[arg(long, default_value_t = 1)]
        every: u64,
        /// The number of the first one.
        #[arg(long, default_value_t = 0)]
        offset: u64,
        /// Only disks with a torn sector.
        #[arg(long)]
        torn: bool,
        /// Also disks on which the torn sector was the record of a lock that was relied on.
        #[arg(long)]
        torn_held: bool,
    },
    /// Records a run, replays it, and starts the real daemons on some of the disks. `MXLOCK_E2E_REQUIRE=1` makes it fail
    /// where the machine cannot do that, instead of saying so.
    Live {
        /// Crash points to replay, about.
        #[arg(long, default_value_t = 1_000)]
        replays: u64,
        /// Disks to start real daemons on.
        #[arg(long, default_value_t = 5)]
        starts: usize,
    },
    /// Prints what was recorded.
    List {
        /// The stream.
        file: PathBuf,
    },
    /// Replays one crash point and prints what happens.
    Show {
        /// The stream.
        file: PathBuf,
        /// The last moment before the crash.
        moment: usize,
        /// Which of the writes that are not durable have landed: `all`, `none`, `part`, `torn`, or a mask of bits.
        landed: String,
        /// What the crash took: `daemons`, `silent`, `power`, or a node's number.
        crash: String,
    },
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Record { file } => record(&file),
        Command::Replay { file, every, offset, torn, torn_held } => {
            read(&file).and_then(|stream| all(&stream, Effort { every, offset, torn, torn_held }))
        }
        Command::List { file } => list(&file),
        Command::Live { replays, starts } => live(replays, starts),
        Command::Show { file, moment, landed, crash } => show(&file, moment, &landed, &crash),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("mxlock-crash: {why}");
            ExitCode::FAILURE
        }
    }
}

fn record(file: &Path) -> Result<(), String> {
    let stream = mxlock_crash::record::record(&mut Lab::prepare()?);
    let bytes = stream.to_bytes()?;
    println!("{} moments in {} bytes", stream.moments.len(), bytes.len());
    std::fs::write(file, bytes).map_err(|e| format!("{}: {e}", file.display()))
}

fn read(file: &Path) -> Result<Stream, String> {
    let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Stream::from_bytes(&bytes).map_err(|e| format!("{}: {e}", file.display()))
}

fn all(stream: &Stream, effort: Effort) -> Result<(), String> {
    let started = Instant::now();
    let report = check(stream, effort)?;
    println!("{report}\nin {:.1} s", started.elapsed().as_secs_f64());
    report.verdict()
}

fn list(file: &Path) -> Result<(), String> {
    let stream = read(file)?;
    let begin = stream.moments.first().map_or(0, |moment| moment.at_ns);
    for (at, Moment { at_ns, event }) in stream.moments.iter().enumerate() {
        let what = match event {
            Event::Write { id, node, offset, bytes } => {
                let first = offset / RECORD_BYTES as u64;
                let what = describe(*node, first as usize, bytes);
                format!("write {id} of node {node}, sectors {first} (+{}): {what}", bytes.len() / RECORD_BYTES)
            }
            other => format!("{other:?}"),
        };
        println!("{at:>6} {:>9.3} ms  {what}", (at_ns - begin) as f64 / 1e6);
    }
    Ok(())
}

fn describe(node: NodeId, first: usize, bytes: &[u8]) -> String {
    let Some(slot) = first.checked_sub(MAX_NODES) else {
        return Heartbeat::decode(node, bytes).map_or_else(
            |error| error.to_string(),
            |heartbeat| format!("{:?}, view {}, block {:?}", heartbeat.state, heartbeat.epoch, heartbeat.block),
        );
    };
    match LockRecord::decode(slot as u32, &bytes[..RECORD_BYTES]) {
        Ok(Some(r)) => format!("{:?} {:?} {}->{} {:?} {:?}", r.lock, r.state, r.mode, r.wanted, r.token, r.resource),
        Ok(None) => "empty".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn live(replays: u64, starts: usize) -> Result<(), String> {
    let mut lab = match Lab::prepare() {
        Ok(lab) => lab,
        Err(why) if std::env::var_os("MXLOCK_E2E_REQUIRE").is_none_or(|v| v != "1") => {
            println!("skipped: {why}");
            return Ok(());
        }
        Err(why) => return Err(format!("MXLOCK_E2E_REQUIRE is set, but {why}")),
    };
    let stream = mxlock_crash::record::record(&mut lab);
    let every = count(&stream)?.div_ceil(replays.max(1));
    all(&stream, Effort { every, offset: 0, torn: false, torn_held: false }).map_err(|why| keep(&stream, &why))?;
    let started = Instant::now();
    let done = start_on_prefixes(&mut lab, &stream, starts).map_err(|why| keep(&stream, &why))?;
    println!("real daemons started on {done} of the disks, in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Keeps the stream of a failure.
fn keep(stream: &Stream, why: &str) -> String {
    let path = std::env::temp_dir().join(format!("mxlock-crash-{}.stream", std::process::id()));
    let kept = stream.to_bytes().and_then(|bytes| std::fs::write(&path, bytes).map_err(|e| e.to_string()));
    match kept {
        Ok(()) => format!("{why}\nthe stream is kept in {}", path.display()),
        Err(error) => format!("{why}\nthe stream cannot be kept: {error}"),
    }
}

fn show(file: &Path, moment: usize, landed: &str, crash: &str) -> Result<(), String> {
    let stream = read(file)?;
    let landed = match landed {
        "all" => Landed::All,
        "none" => Landed::Nothing,
        "part" => Landed::PartOfLast,
        "torn" => Landed::TornLast,
        mask => Landed::These(mask.parse().map_err(|_| format!("'{mask}' is no mask"))?),
    };
    let crash = match crash {
        "daemons" => Crash::Daemons,
        "silent" => Crash::Silent,
        "power" => Crash::Power,
        node => {
            let number = node.parse().map_err(|_| format!("'{node}' is no node"))?;
            Crash::Host(NodeId::new(number).ok_or_else(|| format!("there is no node {number}"))?)
        }
    };
    let mut history = History::new(&stream)?;
    for passed in stream.moments.get(..=moment).ok_or("there are not so many moments")? {
        history.apply(passed.at_ns, &passed.event)?;
    }
    for write in &history.pending {
        let sectors: Vec<_> = write.sectors.iter().map(|(at, _)| at).collect();
        println!(
            "not durable: write {} of node {}, sectors {sectors:?}, written {}",
            write.id, write.node, write.written
        );
    }
    for (number, client) in history.clients.iter().filter(|(_, client)| history.trusts(client)) {
        println!("client {number}: node {}, {:?}", client.node, client.session);
        for (seq, lock) in &client.locks {
            println!("    {seq}: '{}' told {:?} {:?}, pending {:?}", lock.name, lock.told, lock.token, lock.pending);
        }
    }
    let outcome = replay(&history, image(&history, landed), crash, true)?;
    println!("{outcome:?}");
    Ok(())
}
