//! Which keepers of a lock there are on this machine: each has a socket with a name in the abstract namespace.
//!
//! The keeper of a lock whose last descriptor was closed needs a moment to release it. A `mxflock -n` that follows in the
//! same script must not fail because of that.

use mxlock_format::Resource;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The beginning of the names of all keepers of a resource.
fn prefix(resource: &Resource) -> String {
    resource.id().to_bytes().iter().fold("mxflock/".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// Shows this keeper until the socket is closed.
pub(super) fn show(resource: &Resource) -> io::Result<UnixDatagram> {
    let name = format!("{}/{}", prefix(resource), std::process::id());
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Whether there is a keeper of this resource.
pub(super) fn any(resource: &Resource) -> bool {
    let name = format!(" @{}/", prefix(resource));
    std::fs::read_to_string("/proc/net/unix").is_ok_and(|sockets| sockets.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::names::resource;
    use std::ffi::OsStr;

    #[test]
    fn a_keeper_is_seen_while_it_is_there() {
        let [one, other] = ["mxflock-one", "mxflock-other"].map(|name| resource(None, OsStr::new(name)).unwrap());
        let socket = show(&one).unwrap();
        assert!(any(&one) && !any(&other));
        drop(socket);
        assert!(!any(&one));
    }
}
