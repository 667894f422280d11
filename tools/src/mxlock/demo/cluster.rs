//! Three daemons as child processes, in directories of their own.

use super::super::cli::Demo;
use crate::common::failure::{Code, Failure};
use crate::mxlock::run::die_with_parent;
use mxlock_client::{Client, ConnectOptions};
use mxlock_proto::client::{AdminReply, AdminRequest};
use mxlock_proto::report::{Node, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How many daemons.
pub(super) const NODES: usize = 3;
/// Longest time for a daemon to answer on its socket, and to grant locks after that.
const START: Duration = Duration::from_secs(120);
/// Longest time for a daemon to stop.
const STOP: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Lines of each log that are shown after a failure.
const LOG_LINES: usize = 6;

/// The daemons and their files.
pub(super) struct Cluster {
    mxlockd: PathBuf,
    renew_ms: u32,
    directory: Option<TempDir>,
    directory_path: PathBuf,
    /// Only where the lockstate is elsewhere.
    lockstate_directory: Option<TempDir>,
    lockstate: PathBuf,
    daemons: [Option<Child>; NODES],
}

impl Cluster {
    /// Finds the daemon program and makes the directories.
    pub(super) fn prepare(demo: &Demo) -> Result<Cluster, Failure> {
        let mxlockd = find_program("mxlockd", demo.bin_dir.as_deref())?;
        let directory = temporary_directory(&default_place())?;
        let lockstate_directory = demo.lockstate_dir.as_deref().map(temporary_directory).transpose()?;
        let lockstate = lockstate_directory.as_ref().unwrap_or(&directory).path().join("lockstate");
        Ok(Cluster {
            mxlockd,
            renew_ms: demo.renew_ms,
            directory_path: directory.path().to_owned(),
            directory: Some(directory),
            lockstate_directory,
            lockstate,
            daemons: [None, None, None],
        })
    }

    pub(super) fn lockstate(&self) -> &Path {
        &self.lockstate
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory_path
    }

    /// Formats the lockstate; returns what the daemon's program said.
    pub(super) fn format(&self) -> Result<String, Failure> {
        let renew = self.renew_ms;
        // Profile `fast` in proportion: 2 / 8 / 3 / 15 s.
        let [lease, grace, dead] = [renew * 4, renew * 3 / 2, renew * 15 / 2];
        let output = Command::new(&self.mxlockd)
            .arg("format")
            .arg(&self.lockstate)
            .args(["--lockspace", "demo"])
            .args(["--renew-ms", &renew.to_string(), "--lease-ms", &lease.to_string()])
            .args(["--grace-ms", &grace.to_string(), "--dead-ms", &dead.to_string()])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Failure::system("run", self.mxlockd.display(), &e))?;
        if !output.status.success() {
            let code = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(74);
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let sentence = format!("{said} (--lockstate-dir names another place)");
            return Err(Failure::new(Code::from_number(code), sentence));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a node's daemon; its log goes to a file.
    pub(super) fn start(&mut self, node: usize) -> Result<(), Failure> {
        let directory = self.node_directory(node);
        std::fs::create_dir_all(&directory).map_err(|e| Failure::system("create", directory.display(), &e))?;
        let configuration = directory.join("mxlock.toml");
        let log_path = directory.join("log");
        // An empty file keeps a configuration of this machine out.
        File::create(&configuration).map_err(|e| Failure::system("create", configuration.display(), &e))?;
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.map_err(|e| Failure::system("create", log_path.display(), &e))?;
        let mut command = Command::new(&self.mxlockd);
        command
            .arg("--config")
            .arg(configuration)
            .args(["--lockspace", "demo", "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1"])
            .args(["--node", &node.to_string()])
            .arg("--lockstate")
            .arg(&self.lockstate)
            .arg("--socket")
            .arg(self.socket(node))
            .arg("--state-dir")
            .arg(directory.join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().map_err(|e| Failure::system("open", log_path.display(), &e))?))
            .stderr(Stdio::from(log));
        die_with_parent(&mut command, Signal::SIGTERM);
        let child = command.spawn().map_err(|e| Failure::system("run", self.mxlockd.display(), &e))?;
        self.daemons[node] = Some(child);
        Ok(())
    }

    /// Waits until a node grants locks.
    pub(super) fn wait_ready(&mut self, node: usize) -> Result<(), Failure> {
        let started = Instant::now();
        let client = loop {
            match self.client(node) {
                Ok(client) => break client,
                Err(failure) if started.elapsed() > START => return Err(failure),
                Err(_) => std::thread::sleep(POLL_INTERVAL),
            }
            if let Some(Ok(Some(status))) = self.daemons[node].as_mut().map(Child::try_wait) {
                return Err(Failure::new(Code::Unreachable, format!("the daemon of node {node} ended: {status}")));
            }
        };
        client.admin(AdminRequest::WaitReady { timeout_ms: Some(START.as_millis() as u64) })?;
        Ok(())
    }

    /// A session with a node.
    pub(super) fn client(&self, node: usize) -> Result<Client, Failure> {
        Ok(Client::connect(self.options(node))?)
    }

    /// How to connect to a node.
    pub(super) fn options(&self, node: usize) -> ConnectOptions {
        ConnectOptions { socket: Some(self.socket(node)), ..ConnectOptions::new("demo") }
    }

    pub(super) fn status(&self, node: usize) -> Result<Status, Failure> {
        match self.client(node)?.admin(AdminRequest::Status)? {
            AdminReply::Status(status) => Ok(*status),
            _ => Err(super::super::odd_reply()),
        }
    }

    pub(super) fn nodes(&self, node: usize) -> Result<Vec<Node>, Failure> {
        match self.client(node)?.admin(AdminRequest::Nodes)? {
            AdminReply::Nodes(nodes) => Ok(nodes),
            _ => Err(super::super::odd_reply()),
        }
    }

    /// Kills a node's daemon without a chance to do anything.
    pub(super) fn kill(&mut self, node: usize) -> Result<(), Failure> {
        let Some(mut child) = self.daemons[node].take() else { return Ok(()) };
        let failed = |e: std::io::Error| Failure::system("kill", format_args!("the daemon of node {node}"), &e);
        child.kill().map_err(failed)?;
        child.wait().map(drop).map_err(failed)
    }

    /// Stops all daemons as an administrator would: SIGTERM to each, and a while to end.
    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        for child in self.daemons.iter().flatten() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        }
        let started = Instant::now();
        for (node, daemon) in self.daemons.iter_mut().enumerate() {
            let Some(child) = daemon else { continue };
            loop {
                match child.try_wait() {
                    Ok(Some(status)) if status.success() => break,
                    Ok(Some(status)) => {
                        let sentence = format!("the daemon of node {node} did not stop well: {status}");
                        return Err(Failure::new(Code::No(1), sentence));
                    }
                    Ok(None) if started.elapsed() < STOP => std::thread::sleep(POLL_INTERVAL),
                    _ => {
                        let sentence = format!("the daemon of node {node} did not stop within {} s", STOP.as_secs());
                        return Err(Failure::new(Code::No(1), sentence));
                    }
                }
            }
            *daemon = None;
        }
        Ok(())
    }

    /// The ends of all logs.
    pub(super) fn last_words(&self) -> String {
        let mut text = String::new();
        for node in 0..NODES {
            let log = std::fs::read_to_string(self.node_directory(node).join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                text.push_str(&format!("node {node}: {line}\n"));
            }
        }
        text
    }

    /// Ends what still runs, and removes the directories unless they are to be kept.
    pub(super) fn clean_up(&mut self, keep: bool) {
        for node in 0..NODES {
            // What is gone already is fine.
            let _ = self.kill(node);
        }
        for directory in [self.directory.take(), self.lockstate_directory.take()].into_iter().flatten() {
            if keep {
                crate::common::app::say("mxlock", &format!("kept {}", directory.keep().display()));
            }
        }
    }

    fn node_directory(&self, node: usize) -> PathBuf {
        self.directory_path.join(format!("node{node}"))
    }

    fn socket(&self, node: usize) -> PathBuf {
        self.node_directory(node).join("sock")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.clean_up(false);
    }
}

/// $TMPDIR, else /var/tmp: /tmp is often in memory, where a lockstate shows nothing about disks.
fn default_place() -> PathBuf {
    let on_disk = PathBuf::from("/var/tmp");
    match std::env::var_os("TMPDIR").filter(|place| !place.is_empty()) {
        Some(place) => place.into(),
        None if on_disk.is_dir() => on_disk,
        None => std::env::temp_dir(),
    }
}

fn temporary_directory(place: &Path) -> Result<TempDir, Failure> {
    tempfile::Builder::new().prefix("mxlock-demo-").tempdir_in(place).map_err(|e| {
        let failure = Failure::system("create a directory in", place.display(), &e);
        Failure { code: Code::CannotCreate, ..failure }
    })
}

/// A program in a directory, beside this one, or in $PATH.
fn find_program(name: &str, directory: Option<&Path>) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = match directory {
        Some(directory) => vec![directory.to_owned()],
        None => beside.into_iter().chain(std::env::split_paths(&paths)).collect(),
    };
    places.iter().map(|place| place.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        let sentence = format!("{name} is neither beside mxlock nor in $PATH: name its directory with --bin-dir");
        Failure::new(Code::CommandNotFound, sentence)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_where_they_should_be() {
        assert!(find_program("sh", None).is_ok());
        let failure = find_program("sh", Some(Path::new("/nonexistent"))).unwrap_err();
        assert_eq!(failure.code, Code::CommandNotFound);
        assert!(failure.message.contains("--bin-dir"));
    }
}
