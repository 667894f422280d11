//! Records runs of real daemons, and starts clusters from every disk that a crash could have left.

use clap::{Parser, Subcommand};
use mxlock_crash::campaign::{Effort, check};
use mxlock_crash::history::History;
use mxlock_crash::points::{Landed, image};
use mxlock_crash::replay::{Crash, replay};
use mxlock_crash::stream::Stream;
use mxlock_format::NodeId;
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
    },
    /// Replays one crash point and prints what happens.
    Show {
        /// The stream.
        file: PathBuf,
        /// The last moment before the crash.
        moment: usize,
        /// Which of the writes that are not durable have landed: `all`, `none`, `torn`, or a mask of bits.
        landed: String,
        /// What the crash took: `daemons`, `silent`, `power`, or a node's number.
        crash: String,
    },
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Record { file } => record(&file),
        Command::Replay { file, every, offset } => all(&file, Effort { every, offset }),
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
    let stream = mxlock_crash::record::record()?;
    let bytes = stream.to_bytes()?;
    println!("{} moments in {} bytes", stream.moments.len(), bytes.len());
    std::fs::write(file, bytes).map_err(|e| format!("{}: {e}", file.display()))
}

fn read(file: &Path) -> Result<Stream, String> {
    let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Stream::from_bytes(&bytes).map_err(|e| format!("{}: {e}", file.display()))
}

fn all(file: &Path, effort: Effort) -> Result<(), String> {
    let stream = read(file)?;
    let started = Instant::now();
    let report = check(&stream, effort).map_err(|broken| broken.to_string())?;
    println!("{report}\nin {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn show(file: &Path, moment: usize, landed: &str, crash: &str) -> Result<(), String> {
    let stream = read(file)?;
    let landed = match landed {
        "all" => Landed::All,
        "none" => Landed::Nothing,
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
