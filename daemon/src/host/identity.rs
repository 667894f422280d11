//! What a node keeps over restarts: who it is, which lockspace it belongs to, which slot it had.

use crate::error::{Failure, Kind};
use mxlock_format::{NodeId, Uuid};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "identity.toml";

/// The contents of `<state>/identity.toml`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    /// Which installation this is; drawn once.
    pub(crate) node_uuid: Uuid,
    /// The lockspace that this state belongs to.
    pub(crate) lockspace: Option<Uuid>,
    /// The slot that was confirmed last.
    pub(crate) slot: Option<NodeId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    node_uuid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lockspace_uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<NodeId>,
}

/// The identity, and where it is kept. The holder has the state directory's lock (section 8), so nobody else writes.
#[derive(Debug)]
pub(crate) struct IdentityFile {
    path: PathBuf,
    pub(crate) identity: Identity,
}

impl IdentityFile {
    /// Reads it, or draws a new one and writes it.
    pub(crate) fn open(state_dir: &Path) -> Result<IdentityFile, Failure> {
        let path = state_dir.join(FILE_NAME);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let identity = parse(&text).ok_or_else(|| {
                    Failure::config(format_args!(
                        "{} is damaged: restore it, or remove it if this node's locks may be given up",
                        path.display()
                    ))
                })?;
                Ok(IdentityFile { path, identity })
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let file = IdentityFile {
                    path,
                    identity: Identity { node_uuid: random_uuid()?, lockspace: None, slot: None },
                };
                file.write()?;
                Ok(file)
            }
            Err(e) => Err(Failure::at(Kind::Io, "read", &path, &e)),
        }
    }

    /// Refuses another lockspace than the one this state belongs to, unless that is `accepted`; remembers it.
    pub(crate) fn enter_lockspace(&mut self, uuid: Uuid, lockstate: &Path, accepted: bool) -> Result<(), Failure> {
        match self.identity.lockspace {
            Some(known) if known == uuid => return Ok(()),
            Some(known) if !accepted => {
                return Err(Failure::new(
                    Kind::Lockstate,
                    format_args!(
                        "{} belongs to lockspace {uuid}, but {} to {known}: check the lockstate, or say \
                         --accept-new-lockstate if it was made anew",
                        lockstate.display(),
                        self.path.display()
                    ),
                ));
            }
            _ => {}
        }
        self.identity.lockspace = Some(uuid);
        self.identity.slot = None;
        self.write()
    }

    /// Remembers the slot.
    pub(crate) fn remember_slot(&mut self, slot: NodeId) -> Result<(), Failure> {
        if self.identity.slot == Some(slot) {
            return Ok(());
        }
        self.identity.slot = Some(slot);
        self.write()
    }

    fn write(&self) -> Result<(), Failure> {
        let Identity { node_uuid, lockspace, slot } = self.identity;
        let text =
            Text { node_uuid: node_uuid.to_string(), lockspace_uuid: lockspace.map(|uuid| uuid.to_string()), slot };
        let text = toml::to_string(&text).expect("three plain values can be written as TOML");
        replace_file(&self.path, text.as_bytes()).map_err(|e| Failure::at(Kind::CannotCreate, "write", &self.path, &e))
    }
}

/// Replaces `path` so that a crash leaves the old or the new contents: temporary file, fsync, rename, fsync of the
/// directory.
pub(crate) fn replace_file(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// A random (version 4) uuid.
pub(crate) fn random_uuid() -> Result<Uuid, Failure> {
    let mut uuid = Uuid(random_bytes()?);
    uuid.0[6] = uuid.0[6] & 0x0f | 0x40;
    uuid.0[8] = uuid.0[8] & 0x3f | 0x80;
    Ok(uuid)
}

/// Bytes of the system's entropy.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::new(Kind::Io, format_args!("the system gives no random numbers: {e}")))?;
    Ok(bytes)
}

fn parse(text: &str) -> Option<Identity> {
    let Text { node_uuid, lockspace_uuid, slot } = toml::from_str(text).ok()?;
    let lockspace = match lockspace_uuid {
        Some(text) => Some(parse_uuid(&text)?),
        None => None,
    };
    Some(Identity { node_uuid: parse_uuid(&node_uuid)?, lockspace, slot })
}

fn parse_uuid(text: &str) -> Option<Uuid> {
    let digits: Vec<u8> = text.bytes().filter(|&b| b != b'-').collect();
    let mut uuid = Uuid::default();
    if digits.len() != 2 * uuid.0.len() {
        return None;
    }
    for (byte, pair) in uuid.0.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (uuid.to_string() == text).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_identity_survives() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = IdentityFile::open(dir.path()).unwrap();
        let lockspace = random_uuid().unwrap();
        first.enter_lockspace(lockspace, Path::new("/l"), false).unwrap();
        first.remember_slot(NodeId::new(63).unwrap()).unwrap();
        let again = IdentityFile::open(dir.path()).unwrap();
        assert_eq!(again.identity, first.identity);
        assert_eq!(again.identity.slot, NodeId::new(63));
        let mode = dir.path().join(FILE_NAME).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// INTERFACE.md: "refuses another one (65) unless --accept-new-lockstate".
    #[test]
    fn another_lockspace_is_refused_unless_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = IdentityFile::open(dir.path()).unwrap();
        let [one, two] = [random_uuid().unwrap(), random_uuid().unwrap()];
        file.enter_lockspace(one, Path::new("/l"), false).unwrap();
        file.remember_slot(NodeId::new(3).unwrap()).unwrap();
        let failure = file.enter_lockspace(two, Path::new("/l"), false).unwrap_err();
        assert_eq!(failure.kind, Kind::Lockstate);
        assert!(failure.message.contains("--accept-new-lockstate"));
        assert_eq!(file.identity.lockspace, Some(one));
        file.enter_lockspace(two, Path::new("/l"), true).unwrap();
        assert_eq!(file.identity.slot, None, "the slot was one of the other lockspace");
    }

    #[test]
    fn damage_is_said_and_nothing_is_drawn_anew() {
        let dir = tempfile::tempdir().unwrap();
        IdentityFile::open(dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        for damaged in ["", "node_uuid = \"0\"", "node_uuid = 3", "x"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(IdentityFile::open(dir.path()).unwrap_err().kind, Kind::Config, "{damaged}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged);
        }
    }
}
