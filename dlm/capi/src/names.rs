//! Lockspaces and resources of libdlm in the words of mxlockd: a lockspace is a namespace, a resource is a name in it.
//!
//! The kernel's resource names are 0 to 64 arbitrary bytes; mxlockd's are 1 to 135 bytes without NUL. Text stays as it
//! is; bytes 0 and 1 become two bytes each, and the empty name becomes a single byte 1, which nothing else does.

use crate::abi::{DLM_LOCKSPACE_LEN, DLM_RESNAME_MAXLEN};
use mxlock_client::{QualifiedName, Resource};
use nix::errno::Errno;

const ESCAPE: u8 = 1;

/// Whether this can be a lockspace: a name of 1 to 64 bytes that can also be a file's.
pub(crate) fn lockspace(name: &[u8]) -> Result<(), Errno> {
    let bad =
        name.is_empty() || name.len() > DLM_LOCKSPACE_LEN || name.contains(&b'/') || name == b"." || name == b"..";
    if bad { Err(Errno::EINVAL) } else { Ok(()) }
}

/// The resource `name` of a lockspace.
pub(crate) fn resource(lockspace: &[u8], name: &[u8]) -> Result<Resource, Errno> {
    if name.len() > DLM_RESNAME_MAXLEN {
        return Err(Errno::EINVAL);
    }
    let mut text = Vec::with_capacity(name.len());
    for &byte in name {
        match byte {
            0 | ESCAPE => text.extend([ESCAPE, byte + 2]),
            other => text.push(other),
        }
    }
    if text.is_empty() {
        text.push(ESCAPE);
    }
    QualifiedName::new(lockspace, &text).map(Resource::named).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Different names of the kernel are different names here, and text is left alone.
    #[test]
    fn names_are_told_apart() {
        let names: [&[u8]; 9] = [b"", b"\0", b"\x01", b"\x02", b"\x03", b"\0\0", b"\x01\x02", b"\x01\x03", b"text"];
        let ours: HashSet<Resource> = names.iter().map(|name| resource(b"ls", name).unwrap()).collect();
        assert_eq!(ours.len(), names.len());
        let text = Resource::named(QualifiedName::new(b"ls", b"VGLK \xff").unwrap());
        assert_eq!(resource(b"ls", b"VGLK \xff"), Ok(text));
        assert!(resource(&[b'a'; 64], &[0; 64]).is_ok(), "the longest of both fit");
        assert_eq!(resource(b"ls", &[b'a'; 65]), Err(Errno::EINVAL));
    }

    /// A lockspace is also a file's name.
    #[test]
    fn lockspaces_are_file_names() {
        assert!(lockspace(b"lvm_global").is_ok() && lockspace(&[b'a'; 64]).is_ok());
        let bad: [&[u8]; 5] = [b"", b".", b"..", b"a/b", &[b'a'; 65]];
        assert!(bad.iter().all(|name| lockspace(name) == Err(Errno::EINVAL)));
    }
}
