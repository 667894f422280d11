//! Daemons that must not start: somebody else is there, or they may not, or they were told nonsense (issue 2, "Bad
//! input"; DESIGN sections 4 and 8).

use mxlock_e2e::command::{ours, output, run};
use mxlock_e2e::{Daemon, Setup, shared};
use mxlock_format::{Incarnation, NodeState, Uuid};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A slot that another daemon of this host has: refused by its owner's name, and by the per-node guard (section 8) where
/// the twin has a copy of the owner's identity.
#[test]
fn a_slot_that_is_in_use_on_this_host_is_75() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let twin = cluster.daemon_in("twin", 0, "1");
    twin.refusal().refused(75, "slot 1 belongs to host");
    let identity = |daemon: &Daemon| daemon.state_dir().join("identity.toml");
    std::fs::copy(identity(&cluster.daemons[1]), identity(&twin)).expect("a copy");
    twin.refusal().refused(75, &cluster.lockstate().display().to_string());
    cluster.mxlock(1, &["run", "-n", "alpha", "--", "true"]).ok();
    cluster.stop();
}

/// A slot that another host's daemon writes: seen by its signs of life, also when this node could make a claim to it.
#[test]
fn a_slot_that_is_in_use_on_another_host_is_75() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let surgery = cluster.surgery();
    let beat = |first: bool| {
        surgery.heartbeat(7, |heartbeat| {
            if first {
                heartbeat.node_uuid = Uuid([0x77; 16]);
                heartbeat.boot_id = Uuid([0x78; 16]);
                heartbeat.host = "elsewhere".into();
                heartbeat.incarnation = Incarnation(77);
                heartbeat.state = NodeState::Joining;
            }
            heartbeat.hb_seq += 1;
        });
    };
    beat(true);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                beat(false);
                std::thread::sleep(Duration::from_millis(u64::from(cluster.timing().renew_ms) / 2));
            }
        });
        let said = cluster.daemon_in("seventh", 0, "7").refusal();
        stop.store(true, Ordering::Relaxed);
        said.refused(75, "elsewhere");
    });
    assert_eq!(cluster.inspector().heartbeat(7)["host"], "elsewhere", "its sector is untouched");
    cluster.mxlock(1, &["run", "-n", "alpha", "--", "true"]).ok();
    cluster.stop();
}

/// The state directory's LOCK (section 8): a typed conflict that names the path.
#[test]
fn a_state_directory_in_use_is_75() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(1).start();
    let said = cluster.daemons[0].refusal();
    said.refused(75, &cluster.daemons[0].state_dir().join("LOCK").display().to_string());
    cluster.mxlock(0, &["run", "-n", "alpha", "--", "true"]).ok();
    cluster.stop();
}

/// A user who may not open the lockstate (0600), and one who may not use the socket.
#[test]
fn missing_permission_is_77() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(1).start();
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&cluster.lockstate()), 0o600);
    // All may come here, so that what is refused is the lockstate and the socket.
    let open = std::fs::Permissions::from_mode(0o755);
    for directory in [cluster.directory(), cluster.daemons[0].directory(), cluster.disk.directory()] {
        std::fs::set_permissions(directory, open.clone()).expect("it is ours");
    }
    let theirs = cluster.directory().join("theirs");
    std::fs::create_dir(&theirs).expect("a directory");
    run("chown", ["nobody", &theirs.display().to_string()]).ok();
    let as_nobody = |program: &str| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
        command.arg(mxlock_e2e::command::program(program));
        command
    };
    let mut daemon = as_nobody("mxlockd");
    daemon.arg("--state-dir").arg(theirs.join("state")).arg("--socket").arg(theirs.join("sock"));
    daemon.args(["--listen", "127.0.0.1:0", "--lockstate"]).arg(cluster.lockstate());
    output(&mut daemon).refused(77, "lockstate");
    let socket = cluster.daemons[0].socket();
    output(as_nobody("mxlock").arg("--socket").arg(&socket).arg("status")).refused(77, "permission");
    output(as_nobody("mxlock-inspect").arg(cluster.lockstate()).arg("summary")).refused(77, "lockstate");
    cluster.mxlock(0, &["run", "-n", "alpha", "--", "true"]).ok();
    cluster.stop();
}

/// Nonsense in the configuration: 78, with the place, before anything is touched.
#[test]
fn nonsense_in_the_configuration_is_78() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(1).prepare();
    for (config, what) in [
        ("colour = \"red\"\n", "unknown field `colour`"),
        ("node = 64\n", "node 64"),
        ("lockspace = \n", "line 1"),
        ("io = \"aio\"\n", "aio"),
        ("orphan_lifetime_ms = -1\n", "line 1"),
        ("\u{0}", "line 1"),
    ] {
        cluster.daemons[0].set_config(config);
        cluster.daemons[0].refusal().refused(78, what);
    }
    assert!(!cluster.daemons[0].state_dir().exists(), "nothing was touched");
    cluster.daemons[0].set_config("log = \"debug\"\n");
    cluster.daemons[0].start();
    cluster.daemons[0].ready();
    cluster.stop();
}

/// Timing that breaks D >= 1.05 (L+G+R) is refused at format (section 5).
#[test]
fn timing_that_cannot_be_safe_is_78() {
    let Some(_turn) = shared() else { return };
    let cluster = Setup::new().nodes(1).prepare();
    let lockstate = cluster.directory().join("lockstate");
    let format = |args: &[&str]| output(ours("mxlockd").arg("format").arg(&lockstate).args(args));
    format(&["--dead-ms", "12000"]).refused(78, "1.05");
    format(&["--lease-ms", "0"]).refused(78, "lease");
    assert!(!lockstate.exists());
}

/// Nobody listens: 69, and the sentence says what to look at.
#[test]
fn a_daemon_that_is_not_there_is_69() {
    let Some(_turn) = shared() else { return };
    let cluster = Setup::new().nodes(1).prepare();
    for args in [&["status"][..], &["run", "alpha", "--", "true"], &["locks"], &["handover"]] {
        cluster.mxlock(0, args).refused(69, "is mxlockd running?");
    }
}
