//! A client for the end-to-end tests: it locks in a loop and writes down when it believed that it held the lock, or
//! increments a number in a file under the lock. It ends when its standard input does. See `mxlock_e2e::referee`.

use mxlock_client::{Client, ClientError, ConnectOptions, Lock, LockSpec, Mode, boottime_ns};
use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for a lock; then it is looked whether to end.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a held lock is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

struct Args {
    socket: PathBuf,
    log: PathBuf,
    name: String,
    mode: Mode,
    /// How long a lock is held.
    hold: Duration,
    /// A number to increment.
    count: Option<PathBuf>,
}

fn main() -> ExitCode {
    match arguments().and_then(|args| if args.count.is_some() { count(&args) } else { witness(&args) }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mxlock-referee: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Args, Box<dyn Error>> {
    let mut args = Args {
        socket: PathBuf::new(),
        log: PathBuf::new(),
        name: String::new(),
        mode: Mode::EX,
        hold: Duration::ZERO,
        count: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or_else(|| format!("{flag} takes a value"))?;
        match flag.as_str() {
            "--socket" => args.socket = value.into(),
            "--log" => args.log = value.into(),
            "--name" => args.name = value,
            "--mode" => args.mode = value.parse().map_err(|_| format!("{value} is no mode"))?,
            "--hold-ms" => args.hold = Duration::from_millis(value.parse()?),
            "--count" => args.count = Some(value.into()),
            _ => return Err(format!("{flag} is unknown").into()),
        }
    }
    Ok(args)
}

/// True when standard input has ended.
fn told_to_end() -> Arc<AtomicBool> {
    let end = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&end);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        set.store(true, Ordering::Relaxed);
    });
    end
}

/// Runs sessions until told to end; a session that fails is followed by another one.
fn sessions(
    args: &Args,
    mut turn: impl FnMut(&Client, &AtomicBool) -> Result<(), ClientError>,
) -> Result<(), Box<dyn Error>> {
    let end = told_to_end();
    let options = ConnectOptions {
        socket: Some(args.socket.clone()),
        answer_timeout: Duration::from_secs(10),
        ..ConnectOptions::default()
    };
    while !end.load(Ordering::Relaxed) {
        let session = Client::connect(options.clone()).and_then(|client| {
            while !end.load(Ordering::Relaxed) {
                turn(&client, &end)?;
            }
            Ok(())
        });
        match session {
            Ok(()) => {}
            Err(ClientError::Usage(what)) => return Err(what.into()),
            // No daemon, or it is gone, or the lease is: another session, a little later.
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    Ok(())
}

/// Asks for the lock; `None` when it was not granted in a while.
fn take<'c>(client: &'c Client, args: &Args) -> Result<Option<Lock<'c>>, ClientError> {
    let spec = LockSpec::name(&args.name).map_err(|e| ClientError::Usage(e.to_string()))?;
    match client.lock(&spec.mode(args.mode).timeout(PATIENCE)) {
        Ok(lock) => Ok(Some(lock)),
        Err(ClientError::Denied { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn witness(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut log = File::options().append(true).open(&args.log)?;
    sessions(args, |client, end| {
        let asked_ns = boottime_ns();
        let Some(lock) = take(client, args)? else { return Ok(()) };
        let granted_ns = boottime_ns();
        if !lock.is_valid() {
            return Ok(());
        }
        let mut write = |line: String| {
            log.write_all(line.as_bytes()).map_err(|source| ClientError::Io { what: "writing what was seen", source })
        };
        write(format!("G {} {} {asked_ns} {granted_ns} {}\n", args.name, lock.mode(), lock.token()))?;
        let started = Instant::now();
        let mut believed_ns = granted_ns;
        loop {
            // The clock first: at that time the lock was believed in, if it still is afterwards.
            let now_ns = boottime_ns();
            if !lock.is_valid() {
                break;
            }
            believed_ns = now_ns;
            if started.elapsed() >= args.hold || end.load(Ordering::Relaxed) {
                break;
            }
            // What the daemon says has to be taken in.
            client.poll_events(Some(LOOK_INTERVAL))?;
        }
        write(format!("E {believed_ns}\n"))?;
        // A lock that is lost cannot be unlocked.
        let _ = lock.unlock(None);
        Ok(())
    })
}

fn count(args: &Args) -> Result<(), Box<dyn Error>> {
    let file = args.count.as_deref().ok_or("no file to count in")?;
    let mut counted: u64 = 0;
    sessions(args, |client, _| {
        let Some(lock) = take(client, args)? else { return Ok(()) };
        let value = read(file)?;
        // The last look before the write, which takes far less than the grace time.
        if lock.is_valid() {
            std::fs::write(file, (value + 1).to_string())
                .map_err(|source| ClientError::Io { what: "writing the number", source })?;
            counted += 1;
        }
        let _ = lock.unlock(None);
        Ok(())
    })?;
    std::fs::write(&args.log, counted.to_string())?;
    Ok(())
}

/// Under the lock the number is always whole.
fn read(file: &Path) -> Result<u64, ClientError> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|source| ClientError::Io { what: "reading the number", source })?;
    text.parse().map_err(|_| ClientError::Usage(format!("{text:?} is not a number: an update was torn")))
}
