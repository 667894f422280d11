//! Where things are by default (INTERFACE.md, "Defaults").

use crate::error::{Failure, Kind};
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Default places of one lockspace for one user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Dirs {
    pub(crate) config: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) state: PathBuf,
}

/// The variables of the XDG base directory specification, and what stands in for them.
struct Environment {
    uid: u32,
    home: PathBuf,
    variable: fn(&str) -> Option<PathBuf>,
}

impl Dirs {
    /// System directories for root, the user's own otherwise.
    pub(crate) fn for_user(lockspace: &str) -> Dirs {
        Dirs::of(
            lockspace,
            &Environment {
                uid: nix::unistd::geteuid().as_raw(),
                home: std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")),
                variable: |name| std::env::var_os(name).map(PathBuf::from),
            },
        )
    }

    fn of(lockspace: &str, environment: &Environment) -> Dirs {
        if environment.uid == 0 {
            return Dirs {
                config: Path::new("/etc/mxlock").join(format!("{lockspace}.toml")),
                socket: Path::new("/run/mxlock").join(lockspace).join("sock"),
                state: Path::new("/var/lib/mxlock").join(lockspace),
            };
        }
        // The specification: a relative path in these variables is to be ignored.
        let set = |name: &str| (environment.variable)(name).filter(|path| path.is_absolute());
        let base = |name: &str, below_home: &str| set(name).unwrap_or_else(|| environment.home.join(below_home));
        let run = set("XDG_RUNTIME_DIR").unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", environment.uid)));
        Dirs {
            config: base("XDG_CONFIG_HOME", ".config").join("mxlock").join(format!("{lockspace}.toml")),
            socket: run.join("mxlock").join(lockspace).join("sock"),
            state: base("XDG_STATE_HOME", ".local/state").join("mxlock").join(lockspace),
        }
    }
}

/// Makes `dir` with its parents, if it is not there. What is made gets `mode`; what is there keeps its own.
pub(crate) fn ensure_dir(dir: &Path, mode: u32) -> Result<(), Failure> {
    if dir.is_dir() {
        return Ok(());
    }
    let failed = |error: std::io::Error| Failure::at(Kind::CannotCreate, "create the directory", dir, &error);
    DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(failed)?;
    // The umask may have taken bits away.
    std::fs::set_permissions(dir, Permissions::from_mode(mode)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_the_system_directories() {
        let environment = Environment { uid: 0, home: "/root".into(), variable: |_| Some("/elsewhere".into()) };
        let dirs = Dirs::of("build", &environment);
        assert_eq!(dirs.config, Path::new("/etc/mxlock/build.toml"));
        assert_eq!(dirs.socket, Path::new("/run/mxlock/build/sock"));
        assert_eq!(dirs.state, Path::new("/var/lib/mxlock/build"));
    }

    #[test]
    fn others_have_their_own() {
        let environment = Environment { uid: 1000, home: "/home/a".into(), variable: |_| None };
        let dirs = Dirs::of("build", &environment);
        assert_eq!(dirs.config, Path::new("/home/a/.config/mxlock/build.toml"));
        assert_eq!(dirs.socket, Path::new("/run/user/1000/mxlock/build/sock"));
        assert_eq!(dirs.state, Path::new("/home/a/.local/state/mxlock/build"));

        let variable = |name: &str| match name {
            "XDG_STATE_HOME" => Some("/s".into()),
            "XDG_CONFIG_HOME" => Some("relative".into()),
            _ => None,
        };
        let dirs = Dirs::of("build", &Environment { uid: 1000, home: "/home/a".into(), variable });
        assert_eq!(dirs.state, Path::new("/s/mxlock/build"));
        assert_eq!(dirs.config, Path::new("/home/a/.config/mxlock/build.toml"));
    }

    #[test]
    fn directories_get_the_mode_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/b");
        ensure_dir(&target, 0o711).unwrap();
        assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o711);
        ensure_dir(&target, 0o700).unwrap();
        assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o711);
    }
}
