//! A whole cluster: a disk with a lockstate, a network, and daemons.

use crate::command::{Said, ours, output, program};
use crate::daemon::Daemon;
use crate::disk::{Disk, Place};
use crate::held::Held;
use crate::inspect::Inspector;
use crate::net::{Network, address};
use crate::surgery::Surgery;
use crate::wait::{PATIENCE, until};
use mxlock_client::Client;
use mxlock_format::{Geometry, SectorSize, Timing};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// For tests that do not have all day: R, which a start takes several times, is 0.15 times that of profile `fast`, and G
/// too. L is more in proportion: on a busy machine a heartbeat takes two seconds, and must not cost a node its lease.
pub const QUICK: Timing = Timing { renew_ms: 300, lease_ms: 4_000, grace_ms: 400, dead_ms: 5_000, suspect_ms: 4_500 };
/// For tests of daemons that come back before their lease ends, or that sleep: what is left of it has to be enough for
/// processes to start on a busy machine.
pub const STEADY: Timing =
    Timing { renew_ms: 500, lease_ms: 6_000, grace_ms: 1_200, dead_ms: 8_200, suspect_ms: 7_400 };
/// Slots, where it does not matter how many: 2 MiB.
const FEW_SLOTS: u32 = 4_096;

/// What cluster to make. [`Setup::new`]: three nodes, XFS with 512-byte sectors, quick timing, io_uring.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    nodes: usize,
    sector: u32,
    bare: bool,
    local: bool,
    timing: Timing,
    slots: u32,
    io: Option<&'static str>,
    config: &'static str,
}

impl Setup {
    /// The usual cluster.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Setup {
        Setup {
            nodes: 3,
            sector: 512,
            bare: false,
            local: false,
            timing: QUICK,
            slots: FEW_SLOTS,
            io: None,
            config: "",
        }
    }

    /// With another number of nodes.
    #[must_use]
    pub fn nodes(self, nodes: usize) -> Setup {
        Setup { nodes, ..self }
    }

    /// On a device with sectors of so many bytes.
    #[must_use]
    pub fn sector(self, sector: u32) -> Setup {
        Setup { sector, ..self }
    }

    /// On the device itself, without a file system.
    #[must_use]
    pub fn bare(self) -> Setup {
        Setup { bare: true, ..self }
    }

    /// With daemons in the namespace of the tests, on loopback addresses.
    #[must_use]
    pub fn local(self) -> Setup {
        Setup { local: true, ..self }
    }

    /// With slower timing, for daemons that come back.
    #[must_use]
    pub fn steady(self) -> Setup {
        Setup { timing: STEADY, ..self }
    }

    /// With the timing and the number of slots that users get.
    #[must_use]
    pub fn defaults(self) -> Setup {
        Setup { timing: Timing::FAST, slots: mxlock_format::DEFAULT_SLOT_COUNT, ..self }
    }

    /// With `--io`.
    #[must_use]
    pub fn io(self, io: &'static str) -> Setup {
        Setup { io: Some(io), ..self }
    }

    /// With these lines in every configuration file.
    #[must_use]
    pub fn config(self, config: &'static str) -> Setup {
        Setup { config, ..self }
    }

    /// Makes disk, lockstate and network; starts nothing.
    ///
    /// # Panics
    /// When any of that fails.
    #[track_caller]
    pub fn prepare(self) -> Cluster {
        let place = if self.timing == Timing::FAST { Place::Storage } else { Place::Steady };
        let disk = if self.bare { Disk::bare(self.sector, place) } else { Disk::xfs(self.sector, place) };
        let disk = disk.unwrap_or_else(|e| panic!("{e}"));
        let network = Network::new(self.nodes).unwrap_or_else(|e| panic!("{e}"));
        let directory = tempfile::Builder::new().prefix("mxlock-e2e-").tempdir().expect("a directory");
        let mut cluster = Cluster { setup: self, daemons: Vec::new(), network, disk, directory };
        cluster.format(&[]).ok();
        for node in 0..self.nodes {
            let daemon = cluster.daemon(node);
            cluster.daemons.push(daemon);
        }
        cluster
    }

    /// Makes the cluster and waits until all nodes grant locks. The lowest node is master.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn start(self) -> Cluster {
        let mut cluster = self.prepare();
        // The first node alone, so that the tests know who is master.
        cluster.daemons[0].start();
        cluster.daemons[0].ready();
        for daemon in &mut cluster.daemons[1..] {
            daemon.start();
        }
        for daemon in &mut cluster.daemons[1..] {
            daemon.ready();
        }
        assert_eq!(cluster.master(), 0, "the node that was alone is master");
        cluster
    }
}

/// A cluster. The order of fields is the order in which they go.
#[derive(Debug)]
pub struct Cluster {
    setup: Setup,
    /// The daemons by node.
    pub daemons: Vec<Daemon>,
    /// The network between them.
    pub network: Network,
    /// The disk that they share.
    pub disk: Disk,
    directory: TempDir,
}

impl Cluster {
    /// Runs `mxlockd format` on the disk.
    pub fn format(&self, more: &[&str]) -> Said {
        let Timing { renew_ms, lease_ms, grace_ms, dead_ms, .. } = self.setup.timing;
        let flags = [
            ("--slots", self.setup.slots),
            ("--renew-ms", renew_ms),
            ("--lease-ms", lease_ms),
            ("--grace-ms", grace_ms),
            ("--dead-ms", dead_ms),
        ];
        let mut command = ours("mxlockd");
        command.arg("format").arg(self.disk.target());
        for (flag, value) in flags {
            command.args([flag, &value.to_string()]);
        }
        output(command.args(more))
    }

    /// A daemon that is prepared but does not belong to the cluster's list: for a node beyond it, or a second one of a
    /// node.
    ///
    /// # Panics
    /// When its directory exists.
    pub fn daemon(&self, node: usize) -> Daemon {
        self.daemon_in(&node_name(node), node, &node.to_string())
    }

    /// A daemon with a directory of this name, in the namespace of `node`, started with `--node WISH`.
    ///
    /// # Panics
    /// When the directory exists.
    pub fn daemon_in(&self, name: &str, node: usize, wish: &str) -> Daemon {
        let mut args: Vec<String> = ["--node", wish, "--lockstate"].map(str::to_owned).into();
        args.push(self.disk.target().display().to_string());
        // The usual port of the node's address, unless it is somebody else's.
        let port = if name == node_name(node) { 7_600 } else { 0 };
        let listen = if self.setup.local { "127.0.0.1:0".to_owned() } else { format!("{}:{port}", address(node)) };
        args.extend(["--listen".to_owned(), listen]);
        if self.setup.local {
            args.extend(["--advertise", "127.0.0.1"].map(str::to_owned));
        }
        if let Some(io) = self.setup.io {
            args.extend(["--io".to_owned(), io.to_owned()]);
        }
        let namespace = (!self.setup.local).then(|| self.network.namespace(node).to_owned());
        Daemon::new(node, self.directory.path().join(name), namespace, self.setup.config, args)
    }

    /// A directory for the test's own files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The lockstate itself.
    pub fn lockstate(&self) -> PathBuf {
        self.disk.lockstate()
    }

    /// The lockstate, open for surgery.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub fn surgery(&self) -> Surgery {
        let sector = SectorSize::from_bytes(self.setup.sector).expect("512 or 4096");
        Surgery::open(&self.lockstate(), Geometry { sector, slot_count: self.setup.slots })
    }

    /// The timing in force.
    pub fn timing(&self) -> Timing {
        self.setup.timing
    }

    /// How long to wait for a failover: longer than it may take, see [`Cluster::judge_failover`].
    pub fn failover_limit(&self) -> Duration {
        self.failover_bound() + PATIENCE
    }

    /// D + 2R + 3 s: how long a failover may take (issue 2).
    fn failover_bound(&self) -> Duration {
        let Timing { renew_ms, dead_ms, .. } = self.setup.timing;
        Duration::from_millis(u64::from(dead_ms) + 2 * u64::from(renew_ms) + 3_000)
    }

    /// How often a daemon has had no good heartbeat for 2R.
    pub fn gaps(&self) -> usize {
        let late = |daemon: &Daemon| daemon.log().lines().filter(|line| line.contains("the heartbeat is")).count();
        self.daemons.iter().map(late).sum()
    }

    /// A failover took so long. It may take D + 2R + 3 s, where the heartbeats came in time: after a gap in its own a node
    /// begins anew to count how long others are silent (section 5), so on a machine that is too slow only that is measured.
    ///
    /// # Panics
    /// When it took too long, and there were no more gaps than these before it began.
    #[track_caller]
    pub fn judge_failover(&self, took: Duration, gaps_before: usize) {
        let (bound, gaps) = (self.failover_bound(), self.gaps() - gaps_before);
        assert!(took < bound || gaps > 0, "{took:?} is more than {bound:?}");
        if gaps > 0 {
            println!("not judged: {gaps} gaps in the heartbeats of this machine");
        }
    }

    /// D.
    pub fn dead_time(&self) -> Duration {
        Duration::from_millis(self.setup.timing.dead_ms.into())
    }

    /// Lets D pass: before that, nodes that have just taken a slot cast no ballot (section 4), and nobody could succeed a
    /// master that stops. Nothing shows when it is over.
    pub fn let_ballots_begin(&self) {
        std::thread::sleep(self.dead_time());
    }

    /// The inspector on the lockstate.
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self.lockstate())
    }

    /// The master as the disk has it.
    ///
    /// # Panics
    /// When there is no view.
    #[track_caller]
    pub fn master(&self) -> usize {
        self.inspector().view().expect("there is a view").master
    }

    /// Waits until another node than `old` is master and has rebuilt the table; says who.
    ///
    /// # Panics
    /// When that is not within `limit`.
    #[track_caller]
    pub fn other_master(&self, old: usize, limit: Duration) -> usize {
        until(&format!("another master than node {old}"), limit, || {
            let view = self.inspector().view()?;
            (view.master != old && view.active).then_some(view.master)
        })
    }

    /// A session with a node.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn client(&self, node: usize) -> Client {
        self.daemons[node].client()
    }

    /// Runs `mxlock` against a node's daemon to its end.
    #[track_caller]
    pub fn mxlock(&self, node: usize, args: &[&str]) -> Said {
        output(ours("mxlock").arg("--socket").arg(self.daemons[node].socket()).args(args))
    }

    /// Starts `mxlock run ARGS -- ...` on a node and waits until it holds.
    #[track_caller]
    pub fn hold(&self, node: usize, args: &[&str]) -> Held {
        let held = self.request(node, args);
        held.granted();
        held
    }

    /// Starts `mxlock run ARGS -- ...` on a node, which may wait for its lock.
    pub fn request(&self, node: usize, args: &[&str]) -> Held {
        Held::start(&program("mxlock"), &self.daemons[node].socket(), args)
    }

    /// Waits until the table has `count` waiting requests for `name`.
    ///
    /// # Panics
    /// When it does not get them.
    #[track_caller]
    pub fn await_waiters(&self, node: usize, name: &str, count: usize) {
        until(&format!("{count} requests wait for '{name}'"), crate::wait::PATIENCE, || {
            let said = self.mxlock(node, &["--json", "locks", name]);
            let document: serde_json::Value = serde_json::from_str(&said.out).ok()?;
            let waiting = document["locks"].as_array()?.iter().filter(|lock| lock["state"] == "waiting").count();
            (waiting == count).then_some(())
        });
    }

    /// Stops all daemons, the highest first, and expects each to end well.
    ///
    /// # Panics
    /// When one does not.
    #[track_caller]
    pub fn stop(&mut self) {
        for daemon in self.daemons.iter_mut().rev().filter(|daemon| daemon.is_started()) {
            assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
        }
    }
}

fn node_name(node: usize) -> String {
    format!("node{node}")
}
