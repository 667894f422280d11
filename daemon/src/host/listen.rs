//! The two listening sockets: for clients (unix) and for peers (TCP).

use crate::config::Settings;
use crate::error::{Cause, Failure, Kind};
use crate::host::dirs::ensure_dir;
use crate::host::patience::within;
use nix::unistd::{Gid, Group};
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The clients' socket; its file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct ClientListener {
    pub(crate) socket: UnixListener,
    path: PathBuf,
}

impl Drop for ClientListener {
    fn drop(&mut self) {
        // It may have been removed already; a leftover is removed at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Binds the clients' socket with the modes of INTERFACE.md, "Permissions". A daemon that was killed may hold it for
/// `patience` more.
pub(crate) fn clients(settings: &Settings, patience: Duration) -> Result<ClientListener, Failure> {
    let path = &settings.socket;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        ensure_dir(dir, 0o755)?;
    }
    let group = group(settings)?;
    within(patience, |failure: &Failure| failure.kind == Kind::NotNow, || remove_leftover(path))?;
    let failed = |error: io::Error| Failure::at(Kind::CannotCreate, "listen on", path, &error);
    // Nobody but the owner can connect before the mode is set: the umask is 0077 (see `start`).
    let socket = UnixListener::bind(path).map_err(failed)?;
    let listener = ClientListener { socket, path: path.clone() };
    if let Some(gid) = group {
        nix::unistd::chown(path, None, Some(gid)).map_err(|e| failed(e.into()))?;
    }
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

/// The group that may connect: for root only, the one configured, else `mxlock` if it exists.
fn group(settings: &Settings) -> Result<Option<Gid>, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let name = settings.socket_group.as_deref().unwrap_or(crate::config::DEFAULT_GROUP);
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group.gid)),
        Ok(None) if settings.socket_group.is_some() => {
            Err(Failure::config(format_args!("socket_group: there is no group {name}: create it with groupadd")))
        }
        Ok(None) => Ok(None),
        Err(error) => Err(Failure::config(format_args!("the group {name} cannot be looked up: {}", error.desc()))),
    }
}

/// Removes the socket of a daemon that is gone; refuses where one still answers.
fn remove_leftover(path: &Path) -> Result<(), Failure> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Failure::at(Kind::CannotCreate, "listen on", path, &e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(Failure::new(
                Kind::CannotCreate,
                format_args!("{} exists and is no socket: remove it, or say --socket", path.display()),
            ));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Failure::new(
            Kind::NotNow,
            format_args!("another daemon listens on {}: stop it, or say --socket and --state-dir", path.display()),
        )),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|e| Failure::at(Kind::CannotCreate, "remove", path, &e))
        }
        Err(e) => Err(Failure::at(Kind::CannotCreate, "listen on", path, &e)),
    }
}

/// Binds the peers' socket. An address that was not asked for gives way to a free port when it is taken; for one that
/// was, a daemon that was killed may hold it for `patience` more.
pub(crate) fn peers(settings: &Settings, patience: Duration) -> Result<TcpListener, Failure> {
    let failed = |error: &io::Error| {
        let kind = match error.kind() {
            ErrorKind::PermissionDenied => Kind::Permission,
            ErrorKind::AddrInUse => Kind::NotNow,
            _ => Kind::CannotCreate,
        };
        Failure::new(kind, format_args!("cannot listen on {}: {}: say --listen IP:PORT", settings.listen, Cause(error)))
    };
    let taken = |error: &io::Error| error.kind() == ErrorKind::AddrInUse;
    let bound = if settings.listen_given {
        within(patience, taken, || TcpListener::bind(settings.listen))
    } else {
        TcpListener::bind(settings.listen).or_else(|error| match error {
            error if taken(&error) => TcpListener::bind(SocketAddr::new(settings.listen.ip(), 0)),
            error => Err(error),
        })
    };
    bound.map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::RunArgs;
    use crate::config::ConfigFile;

    fn settings(args: RunArgs) -> Settings {
        let args = RunArgs { lockstate: Some("/nowhere".into()), ..args };
        Settings::merge(ConfigFile::default(), None, &args).unwrap()
    }

    fn with_socket(path: &Path) -> Settings {
        settings(RunArgs { socket: Some(path.to_owned()), ..RunArgs::default() })
    }

    /// INTERFACE.md: socket 0660 root:mxlock, 0600 without that group or for a private user.
    #[test]
    fn the_socket_is_not_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/sock");
        let mut settings = with_socket(&path);
        let listener = clients(&settings, Duration::ZERO).unwrap();
        let wanted = if group(&settings).unwrap().is_some() { 0o660 } else { 0o600 };
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, wanted);
        drop(listener);
        assert!(!path.exists());

        if nix::unistd::geteuid().is_root() {
            settings.socket_group = Some("root".into());
            let _listener = clients(&settings, Duration::ZERO).unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
            settings.socket_group = Some("no-such-group".into());
            assert_eq!(group(&settings).unwrap_err().kind, Kind::Config);
        }
    }

    #[test]
    fn a_leftover_is_replaced_and_a_live_socket_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let settings = with_socket(&path);
        let _live = clients(&settings, Duration::ZERO).unwrap();
        assert_eq!(clients(&settings, Duration::ZERO).unwrap_err().kind, Kind::NotNow);
        assert!(path.exists());
    }

    #[test]
    fn a_file_in_the_way_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(clients(&with_socket(&path), Duration::ZERO).unwrap_err().kind, Kind::CannotCreate);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    /// INTERFACE.md: "listen port 7600, another one when taken".
    #[test]
    fn another_port_only_when_none_was_asked_for() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut settings = settings(RunArgs { listen: Some(address), ..RunArgs::default() });
        assert_eq!(peers(&settings, Duration::ZERO).unwrap_err().kind, Kind::NotNow);
        settings.listen_given = false;
        assert_ne!(peers(&settings, Duration::ZERO).unwrap().local_addr().unwrap().port(), address.port());
    }
}
