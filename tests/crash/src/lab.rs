//! Real daemons on the recording device: one loop device, network namespace and host name per node.

use crate::device::Recorder;
use crate::stream::Event;
use fuser::BackgroundSession;
use mxlock_e2e::command::ours;
use mxlock_e2e::inspect::Inspector;
use mxlock_e2e::net::{Network, address};
use mxlock_e2e::{Daemon, run, until};
use mxlock_format::{Geometry, SectorSize, Timing};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// R is a tenth of profile `fast`'s. The lease is longer than 4R: so the clients of a daemon that is started again at
/// once have time to claim their locks, which is what is to be checked.
pub const TIMING: Timing = Timing { renew_ms: 200, lease_ms: 1_600, grace_ms: 300, dead_ms: 2_400, suspect_ms: 1_900 };
/// Few slots: a stream is replayed thousands of times, and each time the table is read.
pub const GEOMETRY: Geometry = Geometry { sector: SectorSize::S512, slot_count: 128 };
/// Lifetime of the orphans of a restart; at least L + G.
pub const ORPHAN_LIFETIME_MS: u32 = 2_000;
/// A record of a released lock is cleared within this time.
pub const CLEAR_BEHIND_MS: u32 = 30;
/// Nodes.
pub const NODES: usize = 3;

/// The daemons and what they stand on. The order of fields is the order in which they go.
#[derive(Debug)]
pub struct Lab {
    /// The daemons by node.
    pub daemons: Vec<Daemon>,
    network: Network,
    disks: Vec<LoopDevice>,
    mounted: Option<BackgroundSession>,
    /// What records.
    pub recorder: Recorder,
    directory: TempDir,
}

#[derive(Debug)]
struct LoopDevice(PathBuf);

impl Lab {
    /// A formatted lockstate and daemons that are not started. What is recorded begins here.
    ///
    /// # Errors
    /// What this machine lacks.
    pub fn prepare() -> Result<Lab, String> {
        let directory = tempfile::Builder::new().prefix("mxlock-crash-").tempdir().map_err(|e| e.to_string())?;
        let point = directory.path().join("device");
        std::fs::create_dir(&point).map_err(|e| e.to_string())?;
        let recorder = Recorder::new(GEOMETRY.total_bytes().next_multiple_of(64 << 10) as usize);
        let mounted = recorder.mount(&point).map_err(|e| format!("FUSE: {e}"))?;
        let mut lab = Lab {
            daemons: Vec::new(),
            network: Network::new(NODES)?,
            disks: Vec::new(),
            mounted: Some(mounted),
            recorder,
            directory,
        };
        for node in 0..NODES {
            lab.disks.push(LoopDevice::attach(&point.join(format!("node{node}")))?);
        }
        lab.format();
        lab.recorder.begin();
        for node in 0..NODES {
            lab.daemons.push(lab.daemon(node));
        }
        Ok(lab)
    }

    fn format(&self) {
        let mut command = ours("mxlockd");
        command.arg("format").arg(&self.disks[0].0);
        let Timing { renew_ms, lease_ms, grace_ms, dead_ms, .. } = TIMING;
        for (flag, value) in [
            ("--slots", GEOMETRY.slot_count),
            ("--renew-ms", renew_ms),
            ("--lease-ms", lease_ms),
            ("--grace-ms", grace_ms),
            ("--dead-ms", dead_ms),
        ] {
            command.args([flag, &value.to_string()]);
        }
        mxlock_e2e::command::output(&mut command).ok();
    }

    fn daemon(&self, node: usize) -> Daemon {
        let mut args: Vec<String> = vec!["--node".into(), node.to_string()];
        args.extend(["--lockstate".into(), self.disks[node].0.display().to_string()]);
        args.extend(["--listen".into(), format!("{}:7600", address(node))]);
        // Both ways to issue writes: whoever is master uses his.
        args.extend(["--io", if node == 1 { "pwrite" } else { "uring" }].map(str::to_owned));
        let config = format!("orphan_lifetime_ms = {ORPHAN_LIFETIME_MS}\nclear_behind_ms = {CLEAR_BEHIND_MS}\n");
        let directory = self.directory.path().join(format!("n{node}"));
        let mut daemon = Daemon::new(node, directory, Some(self.network.namespace(node).to_owned()), &config, args);
        // A stream that is kept says nothing of the machine that it was recorded on.
        let name = format!("hostname crash{node} && exec \"$@\"");
        daemon.wrap(&["unshare", "--uts", "sh", "-c", &name, "sh"]);
        daemon
    }

    /// Starts a daemon on what is on the disk now.
    pub fn start(&mut self, node: usize) {
        let id = self.daemons[node].id();
        self.recorder.note(Event::Started { node: id });
        self.daemons[node].start();
    }

    /// Kills what runs, puts an image on the disk, and starts all daemons on it.
    pub fn restart_on(&mut self, image: &[u8]) {
        for daemon in self.daemons.iter_mut().filter(|daemon| daemon.is_started()) {
            daemon.kill();
        }
        self.recorder.put(image);
        for daemon in &mut self.daemons {
            daemon.start();
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self, node: usize) {
        self.daemons[node].kill();
        let id = self.daemons[node].id();
        self.recorder.note(Event::Ended { node: id });
    }

    /// SIGTERM.
    pub fn terminate(&mut self, node: usize) {
        assert_eq!(self.daemons[node].terminate(), 0, "{}", self.daemons[node].log());
        let id = self.daemons[node].id();
        self.recorder.note(Event::Ended { node: id });
    }

    /// The inspector, on the disk of node 0.
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self.disks[0].0.clone())
    }

    /// The master of the newest view.
    pub fn master(&self) -> usize {
        self.inspector().view().expect("there is a view").master
    }

    /// Waits for another master than `old` whose table is rebuilt.
    pub fn other_master(&self, old: usize) -> usize {
        until(&format!("another master than node {old}"), Duration::from_secs(15), || {
            let view = self.inspector().view()?;
            (view.master != old && view.active).then_some(view.master)
        })
    }

    /// Runs `mxlock` against a node.
    pub fn mxlock(&self, node: usize, args: &[&str]) {
        let mut command = ours("mxlock");
        command.arg("--socket").arg(self.daemons[node].socket()).args(args);
        mxlock_e2e::command::output(&mut command).ok();
    }
}

impl LoopDevice {
    fn attach(image: &Path) -> Result<LoopDevice, String> {
        let args = ["--find", "--show", "--direct-io=on", "--sector-size", "512"];
        let said = run("losetup", args.iter().map(Path::new).chain([image]));
        if said.code != 0 {
            return Err(format!("losetup: {}", said.err.trim()));
        }
        let device = LoopDevice(PathBuf::from(said.out.trim()));
        let listed = run("losetup", ["--list", "--noheadings", "--output", "DIO", said.out.trim()]);
        if listed.out.trim() != "1" {
            return Err("losetup: no direct I/O to FUSE".into());
        }
        Ok(device)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let said = run("losetup", [Path::new("-d"), &self.0]);
        if said.code != 0 {
            eprintln!("left behind: losetup: {}", said.err.trim());
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The daemons first, then the loop devices: the file system can be unmounted when nobody uses it.
        self.daemons.clear();
        self.disks.clear();
        if let Some(mounted) = self.mounted.take() {
            drop(mounted);
        }
    }
}
