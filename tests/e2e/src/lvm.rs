//! Hosts that share a volume group: Debian's lvmlockd and lvm, unmodified, on our `libdlm_lt.so.3`.
//!
//! A host is a mount namespace with a `/run` of its own, and with the files that lvmlockd reads where dlm_controld would have put
//! them. No device mapper is needed: `activation = 0` lets lvm do everything but that.

use crate::command::{Said, clean, output};
use crate::held::runs;
use crate::libdlm::Libraries;
use crate::wait::{PATIENCE, until_true};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a host does before it becomes lvmlockd: `$1` is a directory of its own.
const HOST: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs run /run
mkdir -p /run/lvm /run/lock/lvm
mount -t tmpfs sys /sys/kernel
mkdir -p /sys/kernel/config/dlm/cluster/spaces
echo mxlock > /sys/kernel/config/dlm/cluster/cluster_name
exec lvmlockd -f -D -g dlm > "$1/lvmlockd.log" 2>&1
"#;

/// `%DEVICE%` is the only device that lvm looks at.
const CONFIG: &str = r#"
global { use_lvmlockd=1 activation=0 use_lvmpolld=0 event_activation=0 notify_dbus=0 locking_dir="/run/lock/lvm" }
activation { udev_sync=0 udev_rules=0 monitoring=0 }
devices { use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source="none" scan_lvs=0
          filter=["a|^%DEVICE%$|", "r|.*|"] global_filter=["a|^%DEVICE%$|", "r|.*|"] }
backup { backup=0 archive=0 }
"#;

/// A host.
#[derive(Debug)]
pub struct Host {
    number: usize,
    directory: PathBuf,
    libraries: PathBuf,
    socket: PathBuf,
    lvmlockd: Child,
}

/// Whether the programs are there. Where they are not, and `MXLOCK_E2E_REQUIRE` is not set, that is said.
///
/// # Panics
/// With `MXLOCK_E2E_REQUIRE=1`, when they are not.
pub fn installed() -> bool {
    let missing: Vec<&str> = ["lvm", "lvmlockd"]
        .into_iter()
        .filter(|name| !["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|bin| Path::new(bin).join(name).exists()))
        .collect();
    if !missing.is_empty() {
        let required = std::env::var_os("MXLOCK_E2E_REQUIRE").is_some_and(|value| value == "1");
        assert!(!required, "MXLOCK_E2E_REQUIRE is set, but there is no {missing:?}");
        eprintln!("skipped: there is no {missing:?}");
    }
    missing.is_empty()
}

impl Host {
    /// Starts a host whose lock manager is the daemon at `socket`.
    ///
    /// # Panics
    /// When lvmlockd does not come up.
    pub fn start(number: usize, directory: &Path, libraries: &Libraries, socket: &Path, device: &Path) -> Host {
        let directory = directory.join(format!("host{number}"));
        std::fs::create_dir(&directory).expect("a directory for the host");
        let config = CONFIG.replace("%DEVICE%", &device.display().to_string());
        std::fs::write(directory.join("lvm.conf"), config).expect("a configuration for lvm");
        let libraries = libraries.path().to_owned();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", HOST, "host"]).arg(&directory);
        environment(&mut command, &directory, &libraries, socket);
        let errors = File::create(directory.join("errors")).expect("a file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let lvmlockd = command.spawn().expect("unshare runs");
        let host = Host { number, directory, libraries: libraries.clone(), socket: socket.to_owned(), lvmlockd };
        until_true(&format!("lvmlockd of host {number}"), PATIENCE, || host.log().contains("lvmlockd started"));
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", host.pid())).expect("it runs");
        let ours = libraries.join("libdlm_lt.so.3").canonicalize().expect("it is there");
        assert!(maps.contains(&*ours.to_string_lossy()), "lvmlockd has loaded another library than {}", ours.display());
        host
    }

    /// The process id of lvmlockd, whose namespace is the host.
    fn pid(&self) -> Pid {
        Pid::from_raw(self.lvmlockd.id() as i32)
    }

    /// Runs a command of lvm on the host.
    pub fn lvm(&self, words: &[&str]) -> Said {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.pid().to_string(), "--", "lvm"]).args(words);
        environment(&mut command, &self.directory, &self.libraries, &self.socket);
        output(&mut command)
    }

    /// What dlm_controld would say about a volume group's lockspace here: which hosts have it started.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn set_members(&self, group: &str, members: &[usize]) {
        let space = format!("/proc/{}/root/sys/kernel/config/dlm/cluster/spaces/lvm_{group}", self.pid());
        let _ = std::fs::remove_dir_all(&space);
        for member in members {
            std::fs::create_dir_all(format!("{space}/nodes/{}", member + 1)).expect("a directory for a member");
        }
    }

    /// What lvmlockd has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("lvmlockd.log")).unwrap_or_default()
    }

    /// `kill -9` of lvmlockd: the host is gone with it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        kill(self.pid(), Signal::SIGKILL).expect("lvmlockd runs");
        let _ = self.lvmlockd.wait();
    }

    /// Whether lvmlockd runs.
    pub fn runs(&self) -> bool {
        runs(self.pid())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.lvmlockd.kill();
        let _ = self.lvmlockd.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("---- the log of lvmlockd of host {}, its last lines", self.number);
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("{line}");
            }
        }
    }
}

fn environment(command: &mut Command, directory: &Path, libraries: &Path, socket: &Path) {
    clean(command);
    command.env("LD_LIBRARY_PATH", libraries).env("MXLOCK_SOCKET", socket).env("LVM_SYSTEM_DIR", directory);
    command.env("LVM_SUPPRESS_FD_WARNINGS", "1").env("LC_ALL", "C");
}
