//! The file, the flags over it, the defaults under it.

use super::file::MAX_SOCKET_PATH_BYTES;
use super::{Advertise, ConfigFile, FenceMethod, IoChoice, NodeWish};
use crate::cli::RunArgs;
use crate::error::Failure;
use crate::host::dirs::Dirs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Port that peers connect to, unless told otherwise.
pub(crate) const DEFAULT_PORT: u16 = 7600;
/// The group whose members may use root's socket, unless told otherwise.
pub(crate) const DEFAULT_GROUP: &str = "mxlock";
const DEFAULT_ORPHAN_LIFETIME_MS: u32 = 30_000;
const DEFAULT_CLEAR_BEHIND_MS: u32 = 100;
/// The environment variable that stands in for `--log`.
const LOG_VARIABLE: &str = "MXLOCK_LOG";

/// All that the daemon was told.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub struct Settings {
    pub lockspace: String,
    pub lockstate: PathBuf,
    pub create: bool,
    pub node: NodeWish,
    pub listen: SocketAddr,
    /// The address was given: no other port will do.
    pub listen_given: bool,
    pub advertise: Vec<Advertise>,
    pub socket: PathBuf,
    /// `None`: `mxlock`, if there is such a group.
    pub socket_group: Option<String>,
    pub state_dir: PathBuf,
    /// `None`: io_uring, with fall-back.
    pub io: Option<IoChoice>,
    pub accept_new_lockstate: bool,
    pub any_file_system: bool,
    /// SIGHUP changes it.
    pub log: String,
    pub fence: Vec<FenceMethod>,
    pub orphan_lifetime_ms: u32,
    pub clear_behind_ms: u32,
    /// The file that was read; SIGHUP reads it again.
    pub config: Option<PathBuf>,
}

/// `--log`, else the environment's word for it.
fn log_override(flag: Option<&str>) -> Option<String> {
    flag.map(str::to_owned).or_else(|| std::env::var(LOG_VARIABLE).ok().filter(|text| !text.is_empty()))
}

impl Settings {
    /// Whether silence for the dead time counts as fenced.
    pub fn fence_wait(&self) -> bool {
        self.fence.contains(&FenceMethod::Wait)
    }

    /// Reads the configuration file (the one given, else the default one if it exists) and puts the flags over it.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`].
    pub fn gather(args: &RunArgs) -> Result<Settings, Failure> {
        let name = args.lockspace.as_deref().unwrap_or("default");
        check_name(name)?;
        let (file, path) = match &args.config {
            Some(path) => (ConfigFile::read(path)?, Some(path.clone())),
            None => {
                let path = Dirs::for_user(name).config;
                if path.exists() { (ConfigFile::read(&path)?, Some(path)) } else { (ConfigFile::default(), None) }
            }
        };
        Settings::merge(file, path, args)
    }

    /// Puts the flags over `file`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] for what is missing or impossible.
    pub fn merge(file: ConfigFile, config: Option<PathBuf>, args: &RunArgs) -> Result<Settings, Failure> {
        let log = log_override(args.log.as_deref());
        if let Some(filter) = &log {
            crate::logging::check_filter(filter)
                .map_err(|e| Failure::config(format_args!("the log filter {filter:?} is wrong: {e}")))?;
        }
        let lockspace = args.lockspace.clone().or(file.lockspace).unwrap_or_else(|| "default".to_owned());
        check_name(&lockspace)?;
        let dirs = Dirs::for_user(&lockspace);
        let Some(lockstate) = args.lockstate.clone().or(file.lockstate) else {
            return Err(Failure::config(
                "no lockstate is given: say --lockstate PATH, or lockstate = \"PATH\" in the configuration",
            ));
        };
        let listen = args.listen.or(file.listen);
        let advertise =
            if args.advertise.is_empty() { file.advertise.unwrap_or_default() } else { args.advertise.clone() };
        if advertise.len() > mxlock_format::MAX_ADDRESSES {
            return Err(Failure::config(format_args!(
                "{} addresses are advertised, a heartbeat has room for {}",
                advertise.len(),
                mxlock_format::MAX_ADDRESSES
            )));
        }
        let socket = args.socket.clone().or(file.socket).unwrap_or(dirs.socket);
        let length = socket.as_os_str().len();
        if length > MAX_SOCKET_PATH_BYTES {
            return Err(Failure::config(format_args!(
                "the socket path {} has {length} bytes, a unix socket takes {MAX_SOCKET_PATH_BYTES}",
                socket.display()
            )));
        }
        Ok(Settings {
            lockspace,
            lockstate,
            create: args.create,
            node: args.node.or(file.node).unwrap_or_default(),
            listen: listen.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT))),
            listen_given: listen.is_some(),
            advertise,
            socket,
            socket_group: file.socket_group,
            state_dir: args.state_dir.clone().or(file.state_dir).unwrap_or(dirs.state),
            io: args.io.or(file.io),
            accept_new_lockstate: args.accept_new_lockstate,
            any_file_system: file.any_file_system.unwrap_or(false),
            log: log.or(file.log).unwrap_or_else(|| "info".to_owned()),
            fence: file.fence.unwrap_or_else(|| vec![FenceMethod::Wait]),
            orphan_lifetime_ms: file.orphan_lifetime_ms.unwrap_or(DEFAULT_ORPHAN_LIFETIME_MS),
            clear_behind_ms: file.clear_behind_ms.unwrap_or(DEFAULT_CLEAR_BEHIND_MS),
            config,
        })
    }
}

fn check_name(name: &str) -> Result<(), Failure> {
    mxlock_format::Superblock::validate_name(name).map_err(Failure::config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn merged(text: &str, args: RunArgs) -> Result<Settings, Failure> {
        Settings::merge(ConfigFile::parse(text).unwrap(), None, &args)
    }

    /// INTERFACE.md: "Flags override it", and the defaults.
    #[test]
    fn flags_override_the_file_and_the_file_the_defaults() {
        let text = "lockstate = \"/a\"\nnode = 3\norphan_lifetime_ms = 5\nadvertise = [\"10.0.0.1\"]";
        let settings = merged(text, RunArgs::default()).unwrap();
        assert_eq!(settings.lockstate, PathBuf::from("/a"));
        assert_eq!(settings.node, "3".parse().unwrap());
        assert_eq!(settings.listen, "0.0.0.0:7600".parse().unwrap());
        assert!(!settings.listen_given);
        assert_eq!(settings.orphan_lifetime_ms, 5);
        assert_eq!(settings.clear_behind_ms, 100);
        assert!(settings.fence_wait());
        assert_eq!(settings.advertise.len(), 1);

        let flags = RunArgs {
            lockstate: Some("/b".into()),
            node: Some(NodeWish::Auto),
            listen: Some("127.0.0.1:1".parse().unwrap()),
            advertise: vec!["10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap()],
            ..RunArgs::default()
        };
        let settings = merged(text, flags).unwrap();
        assert_eq!(settings.lockstate, PathBuf::from("/b"));
        assert_eq!(settings.node, NodeWish::Auto);
        assert!(settings.listen_given);
        assert_eq!(settings.advertise.len(), 2);
    }

    #[test]
    fn a_lockstate_must_be_given() {
        assert_eq!(merged("", RunArgs::default()).unwrap_err().kind, Kind::Config);
    }

    #[test]
    fn a_socket_path_must_fit() {
        let args = RunArgs { socket: Some("/x".repeat(60).into()), ..RunArgs::default() };
        let failure = merged("lockstate = \"/a\"", args).unwrap_err();
        assert_eq!(failure.kind, Kind::Config);
        assert!(failure.message.contains("120 bytes"), "{failure}");
    }
}
