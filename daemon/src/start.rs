//! From settings to a running owner thread: guards, identity, lockstate, sockets, slot.

use crate::cli::RunArgs;
use crate::config::{ConfigFile, IoChoice, NodeWish, Settings};
use crate::error::{Failure, Kind};
use crate::format_command;
use crate::host::identity::{IdentityFile, random_bytes};
use crate::host::listen::{self, ClientListener};
use crate::host::patience::within;
use crate::host::signals::Signals;
use crate::host::systemd::Notifier;
use crate::host::{addresses, dirs};
use crate::limits::{HOST_NAME_BYTES, PREDECESSOR_TIME};
use crate::logging::{self, LogControl};
use crate::owner::{Ended, Files, Own, Owner, Parts, Story};
use mxlock_disklock::guards::{NodeGuard, ReaderSlot, Sidecar, StateDirLock};
use mxlock_disklock::io::{Backend, EventLoop, open_event_loop};
use mxlock_disklock::{
    BeatNote, DiskError, ErrorKind, HeartbeatConfig, HeartbeatThread, Lockstate, OpenOptions, Scope, boot_id,
    boottime_ns, check_device_timeouts, realtime_ms,
};
use mxlock_dlm::Core;
use mxlock_dlm::cluster::{Candidate, ClaimError, ClaimKind, candidates};
use mxlock_dlm::config::Config;
use mxlock_dlm::event::StopReason;
use mxlock_dlm::time::{BootTime, Now};
use mxlock_format::{Incarnation, NodeId, NodeSet, Timing, Uuid};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Beats that the owner thread has not taken; the heartbeat thread stops long before it is full.
const BEATS_WAITING: usize = 64;

/// Runs the daemon until it is told to stop.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let settings = Settings::gather(args)?;
    let log = logging::start(&settings.log)?;
    // Whatever is made is its owner's alone, unless its mode is set.
    umask(Mode::from_bits_truncate(0o077));
    raise_file_limit();
    let mut signals = Signals::install()?;
    let mut story = Story::new(Notifier::from_environment());

    dirs::ensure_dir(&settings.state_dir, 0o700)?;
    let busy = |error: &DiskError| error.kind() == ErrorKind::Conflict;
    let locked = within(PREDECESSOR_TIME, busy, || StateDirLock::exclusive(&settings.state_dir));
    let _state_lock = locked.map_err(disk_failure)?;
    let mut identity = IdentityFile::open(&settings.state_dir)?;
    let (lockstate, _reader) = open_lockstate(&settings)?;
    identity.enter_lockspace(lockstate.superblock().uuid, lockstate.path(), settings.accept_new_lockstate)?;
    let host = Host::gather(&settings, &lockstate, &identity)?;
    let clients = listen::clients(&settings, PREDECESSOR_TIME)?;
    let peers = listen::peers(&settings, PREDECESSOR_TIME)?;
    let files = Files::spawn(identity, settings.state_dir.clone())
        .map_err(|e| Failure::new(Kind::Io, format_args!("cannot start a thread: {e}")))?;
    announce(&settings, &lockstate, &peers);

    let mut daemon = Daemon { settings, args, log, lockstate, host, clients, peers, files };
    daemon.run(&mut signals, &mut story)
}

/// Everything that outlives the claim of one slot.
struct Daemon<'a> {
    settings: Settings,
    args: &'a RunArgs,
    log: LogControl,
    lockstate: Lockstate,
    host: Host,
    clients: ClientListener,
    peers: TcpListener,
    files: Files,
}

/// What the node says of itself.
struct Host {
    name: String,
    node_uuid: Uuid,
    boot_id: Uuid,
    remembered: Option<NodeId>,
    warnings: Vec<String>,
}

impl Host {
    fn gather(settings: &Settings, lockstate: &Lockstate, identity: &IdentityFile) -> Result<Host, Failure> {
        let mut warnings = check_device_timeouts(lockstate.path(), lockstate.timing());
        if lockstate.medium().refused.is_some() && settings.any_file_system {
            warnings.push(format!("the lockstate is on {}, on which locks may not be safe", lockstate.medium().name));
        }
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Host {
            name: host_name(&name),
            node_uuid: identity.identity.node_uuid,
            boot_id: boot_id().map_err(disk_failure)?,
            remembered: identity.identity.slot,
            warnings,
        })
    }
}

/// As much of a name as a heartbeat holds, without what cannot be printed.
fn host_name(name: &str) -> String {
    let mut kept = String::new();
    for c in name.chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > HOST_NAME_BYTES {
            break;
        }
        kept.push(c);
    }
    kept
}

impl Daemon<'_> {
    /// Tries slots until one is this node's, and runs on it.
    fn run(&mut self, signals: &mut Signals, story: &mut Story) -> Result<(), Failure> {
        let mut tried = NodeSet::EMPTY;
        let mut last = None;
        loop {
            let Some((candidate, guard)) = self.choose(tried, &mut last)? else {
                let busy = || Failure::new(Kind::NotNow, "no free slot could be claimed: all were taken meanwhile");
                return Err(last.unwrap_or_else(busy));
            };
            tried.insert(candidate.node);
            let node = candidate.node;
            story.set_node(node);
            match &candidate.kind {
                ClaimKind::OwnSameBoot | ClaimKind::Free => tracing::info!("taking slot {node}"),
                ClaimKind::OwnOtherBoot => {
                    tracing::info!("taking slot {node}: this node's of an earlier boot, if it stays silent")
                }
                ClaimKind::Foreign { host } => tracing::info!("taking slot {node}: host {host}'s, if it stays silent"),
            }
            let Ended { reason, confirmed, writes_ended } = self.run_on(candidate, signals, story)?;
            if writes_ended {
                drop(ManuallyDrop::into_inner(guard));
            }
            let failure = match stop_failure(&reason, node) {
                None => {
                    tracing::info!("{reason}");
                    return Ok(());
                }
                Some(failure) => failure,
            };
            let another = self.settings.node == NodeWish::Auto && !confirmed && writes_ended;
            if !another || !matches!(reason, StopReason::SlotBusy { .. } | StopReason::ForeignIncarnation { .. }) {
                return Err(failure);
            }
            tracing::info!("slot {node} was taken by another node: trying the next one");
            last = Some(failure);
        }
    }

    /// The best slot that was not tried, with its guard. The guard is given back only when all writes have ended
    /// (section 8); until then, and if this process ends in any other way, the kernel keeps it.
    fn choose(
        &self,
        tried: NodeSet,
        last: &mut Option<Failure>,
    ) -> Result<Option<(Candidate, ManuallyDrop<NodeGuard>)>, Failure> {
        let region = self.lockstate.read_heartbeats().map_err(disk_failure)?;
        let wish = match self.settings.node {
            NodeWish::Auto => None,
            NodeWish::Node(node) => Some(node),
        };
        let list = candidates(&region, wish, self.host.remembered, self.host.node_uuid, self.host.boot_id);
        for candidate in list.map_err(claim_failure)? {
            if tried.contains(candidate.node) {
                continue;
            }
            // The own slot's guard is held for a moment more by a daemon of this node that was killed.
            let own = matches!(candidate.kind, ClaimKind::OwnSameBoot | ClaimKind::OwnOtherBoot);
            let patience = if own { PREDECESSOR_TIME } else { Duration::ZERO };
            let guarded = within(
                patience,
                |error: &DiskError| error.kind() == ErrorKind::Conflict,
                || {
                    let (file, path) = (self.lockstate.file(), self.lockstate.path());
                    NodeGuard::acquire(file, path, self.lockstate.geometry(), candidate.node)
                },
            );
            match guarded {
                Ok(guard) => return Ok(Some((candidate, ManuallyDrop::new(guard)))),
                Err(error) if error.kind() == ErrorKind::Conflict && wish.is_none() => {
                    *last = Some(disk_failure(error));
                }
                Err(error) => return Err(disk_failure(error)),
            }
        }
        Ok(None)
    }

    fn run_on(&mut self, candidate: Candidate, signals: &mut Signals, story: &mut Story) -> Result<Ended, Failure> {
        let lockstate = &self.lockstate;
        let node = candidate.node;
        let timing = lockstate.timing();
        let renew = Duration::from_millis(timing.renew_ms.into());
        let incarnation = Incarnation(u64::from_le_bytes(random_bytes()?).max(1));
        let io = self.open_io()?;
        let path = note_path(&self.settings.socket);
        let dead = Duration::from_millis(timing.dead_ms.into());
        let whose = (self.host.boot_id, lockstate.superblock().uuid, node);
        let bad_note = |e| Failure::new(Kind::Io, format_args!("{}: {e}", path.display()));
        let (note, left) = BeatNote::open(&path, whose, dead).map_err(bad_note)?;
        let record_note = note.records().map_err(bad_note)?;
        let ballots_from = left.map(|left| BootTime(left.ballots_from_ns));
        let uncertain_until = left.map(|left| BootTime(left.uncertain_until_ns));
        let config = Config { ballots_from, uncertain_until, ..self.core_config(node, incarnation, &*io)? };
        // Read after the guard was taken, which may have been another daemon's of this host a moment ago.
        let region = lockstate.read_heartbeats().map_err(disk_failure)?;
        let now = Now { boot: BootTime(boottime_ns()), wall_ms: realtime_ms() };
        let core = Core::new(now, config, candidate, &region);

        let failed = |e: std::io::Error| Failure::new(Kind::Io, format_args!("cannot start the heartbeat: {e}"));
        let kick = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|e| failed(e.into()))?;
        let kick = Arc::new(kick);
        let alive = Arc::new(AtomicU64::new(boottime_ns()));
        let (sender, beats) = crossbeam_channel::bounded(BEATS_WAITING);
        let heart = HeartbeatThread::spawn(HeartbeatConfig {
            file: lockstate.open_heartbeat_file().map_err(disk_failure)?,
            node,
            geometry: lockstate.geometry(),
            renew,
            core_alive: Arc::clone(&alive),
            beats: sender,
            kick: Arc::clone(&kick),
            note: Some(note),
        })
        .map_err(failed)?;

        let superblock = lockstate.superblock();
        let own = Own { node, incarnation, lockspace: superblock.uuid, key: superblock.key.clone(), renew };
        let mut reload = || reload(&mut self.settings, self.args, &self.log);
        let parts = Parts {
            core,
            io,
            heart,
            record_note,
            beats,
            kick,
            alive,
            own,
            grace_ms: timing.grace_ms,
            clients: &self.clients,
            peers: &self.peers,
            files: &self.files,
            signals,
            story,
            reload: &mut reload,
        };
        Owner::new(parts)?.run()
    }

    fn open_io(&self) -> Result<Box<dyn EventLoop>, Failure> {
        let wanted = match self.settings.io {
            None | Some(IoChoice::Uring) => Backend::Uring,
            Some(IoChoice::Pwrite) => Backend::Threads,
        };
        let file = self.lockstate.duplicate_file().map_err(disk_failure)?;
        open_event_loop(wanted, file, self.lockstate.geometry()).map_err(disk_failure)
    }

    fn core_config(&self, node: NodeId, incarnation: Incarnation, io: &dyn EventLoop) -> Result<Config, Failure> {
        Ok(Config {
            node,
            superblock: self.lockstate.superblock().clone(),
            node_uuid: self.host.node_uuid,
            boot_id: self.host.boot_id,
            host: self.host.name.clone(),
            incarnation,
            ballots_from: None,
            uncertain_until: None,
            pid: std::process::id(),
            seed: u64::from_le_bytes(random_bytes()?),
            addresses: addresses::advertised(&self.settings.advertise, local_address(&self.peers)?),
            fence_wait: self.settings.fence_wait(),
            orphan_lifetime_ms: self.settings.orphan_lifetime_ms,
            clear_behind_ms: self.settings.clear_behind_ms,
            uid: nix::unistd::geteuid().as_raw(),
            lockstate: self.lockstate.path().display().to_string(),
            io: match io.backend() {
                Backend::Uring => "uring".to_owned(),
                Backend::Threads => "pwrite".to_owned(),
            },
            scope: format_command::scope_text(self.lockstate.medium().scope).to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            warnings: self.host.warnings.clone(),
        })
    }
}

/// Beside the socket, which is under /run: in memory, and gone with the boot.
fn note_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".heartbeat");
    path.into()
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|e| Failure::new(Kind::Io, format_args!("the peer socket has no address: {e}")))
}

/// Opens the lockstate and attaches to it, so that nobody formats it meanwhile.
fn open_lockstate(settings: &Settings) -> Result<(Lockstate, ReaderSlot), Failure> {
    let options = OpenOptions { read_only: false, force: settings.any_file_system };
    let open = || Lockstate::open(&settings.lockstate, options);
    let lockstate = match open() {
        Err(DiskError::Missing { .. }) if settings.create => {
            format_command::create(settings)?;
            open().map_err(disk_failure)?
        }
        other => other.map_err(disk_failure)?,
    };
    if settings.create && lockstate.medium().scope == Scope::Shared {
        tracing::warn!("--create has no effect: {} exists", lockstate.path().display());
    }
    let reader = Sidecar::open(&lockstate.sidecar_path()).and_then(Sidecar::attach).map_err(disk_failure)?;
    // It may have been formatted anew before the sidecar was ours.
    let again = open().map_err(disk_failure)?;
    if again.superblock() != lockstate.superblock() {
        let path = again.path().display();
        return Err(Failure::new(Kind::NotNow, format_args!("{path} was formatted meanwhile: start again")));
    }
    let found = &again.superblock().lockspace;
    if *found != settings.lockspace {
        return Err(Failure::new(
            Kind::Lockstate,
            format_args!(
                "{} is of lockspace {found}, not {}: check the path, or say --lockspace {found}",
                again.path().display(),
                settings.lockspace
            ),
        ));
    }
    Ok((again, reader))
}

/// SIGHUP: reads the configuration again and takes over what can change.
fn reload(settings: &mut Settings, args: &RunArgs, log: &LogControl) {
    let Some(path) = &settings.config else {
        tracing::info!("there is no configuration file to read again");
        return;
    };
    let file = match ConfigFile::read(path) {
        Ok(file) => file,
        Err(error) => {
            tracing::error!("the configuration stays as it was: {error}");
            return;
        }
    };
    let wanted = match Settings::merge(file, settings.config.clone(), args) {
        Ok(wanted) => wanted,
        Err(error) => {
            tracing::error!("the configuration stays as it was: {error}");
            return;
        }
    };
    match log.change(&wanted.log) {
        Ok(()) => settings.log.clone_from(&wanted.log),
        Err(error) => tracing::error!("the log filter stays as it was: {error}"),
    }
    if wanted == *settings {
        tracing::info!("read {} again", path.display());
    } else {
        tracing::warn!("read {} again: only the log filter changes without a restart", path.display());
    }
}

/// What an operator wants to know at once: which protection there is, and how long a failover takes.
fn announce(settings: &Settings, lockstate: &Lockstate, peers: &TcpListener) {
    let listening = peers.local_addr().map_or_else(|_| settings.listen.to_string(), |address| address.to_string());
    tracing::info!(
        "lockspace {} {}, {} on {} ({})",
        settings.lockspace,
        lockstate.superblock().uuid,
        lockstate.path().display(),
        lockstate.medium().name,
        format_command::scope_text(lockstate.medium().scope)
    );
    tracing::info!("clients at {}, peers at {listening}", settings.socket.display());
    if settings.fence_wait() {
        let bound = failover_bound(lockstate.timing());
        tracing::info!(
            "protection: advisory; a dead node's locks are free after at most {:.1} s (dead + 2 renew + 3 s)",
            bound.as_secs_f64()
        );
    } else {
        tracing::info!("protection: advisory; a dead node's locks are free after 'mxlock fence-ack NODE' only");
    }
}

/// D + 2R + 3 s, for the method `wait`.
fn failover_bound(timing: Timing) -> Duration {
    Duration::from_millis(u64::from(timing.dead_ms) + 2 * u64::from(timing.renew_ms) + 3_000)
}

/// Each client takes two descriptors: the soft limit (1,024 by default) is for programs that use select(2).
fn raise_file_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::debug!(%errno, "the limit of open files cannot be raised");
    }
}

/// A failure of the disk crate, with the exit code that it names.
pub(crate) fn disk_failure(error: DiskError) -> Failure {
    let kind = match error.kind() {
        ErrorKind::NotLockstate => Kind::Lockstate,
        ErrorKind::CannotCreate => Kind::CannotCreate,
        ErrorKind::Io => Kind::Io,
        ErrorKind::Conflict => Kind::NotNow,
        ErrorKind::Permission => Kind::Permission,
        ErrorKind::Configuration => Kind::Config,
    };
    Failure::new(kind, error)
}

fn claim_failure(error: ClaimError) -> Failure {
    let kind = match error {
        ClaimError::Damaged { .. } => Kind::Lockstate,
        _ => Kind::NotNow,
    };
    Failure::new(kind, error)
}

/// What it means that the core has stopped; `None`: it was asked to.
fn stop_failure(reason: &StopReason, node: NodeId) -> Option<Failure> {
    let kind = match reason {
        StopReason::Shutdown | StopReason::Left => return None,
        StopReason::SectorChanged => Kind::Io,
        _ => Kind::NotNow,
    };
    Some(Failure::new(kind, format_args!("node {node}: {reason}")))
}

/// Where `check-config` says that things are.
pub(crate) fn describe(path: PathBuf) -> Result<String, Failure> {
    let file = ConfigFile::read(&path)?;
    let lockstate_missing = file.lockstate.is_none();
    let args = RunArgs { lockstate: lockstate_missing.then(PathBuf::new), ..RunArgs::default() };
    let settings = Settings::merge(file, Some(path), &args)?;
    let lockstate = if lockstate_missing {
        "(to be given as --lockstate)".into()
    } else {
        settings.lockstate.display().to_string()
    };
    Ok(format!(
        "lockspace  {}\nlockstate  {lockstate}\nlisten     {}\nsocket     {}\nstate      {}\n",
        settings.lockspace,
        settings.listen,
        settings.socket.display(),
        settings.state_dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failover_bound_is_that_of_the_design() {
        assert_eq!(failover_bound(Timing::FAST), Duration::from_secs(15 + 4 + 3));
    }

    #[test]
    fn host_names_fit_a_heartbeat() {
        assert_eq!(host_name("a\nb"), "ab");
        assert_eq!(host_name(&"é".repeat(40)).len(), HOST_NAME_BYTES);
        assert_eq!(host_name(&"x".repeat(100)).len(), HOST_NAME_BYTES);
    }

    #[test]
    fn only_an_asked_for_end_is_no_failure() {
        let node = NodeId::new(1).unwrap();
        assert_eq!(stop_failure(&StopReason::Shutdown, node), None);
        assert_eq!(stop_failure(&StopReason::Left, node), None);
        let busy = stop_failure(&StopReason::SlotBusy { host: "a".into() }, node).unwrap();
        assert_eq!(busy.kind, Kind::NotNow);
        assert_eq!(stop_failure(&StopReason::SectorChanged, node).unwrap().kind, Kind::Io);
    }
}
