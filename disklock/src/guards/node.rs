use super::ofd::{Kind, try_lock};
use crate::{DiskError, LockConflict};
use mxlock_format::{Geometry, NodeId};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The per-node guard: an exclusive OFD lock on byte `node * S` of the lockstate.
///
/// It is taken through the open file description of the record writes. A write that is under way keeps that
/// description alive after the process is gone, so the guard is free only when its last write has ended. It keeps two
/// daemons of one host (or of one cluster file system) from running as the same node.
#[derive(Debug)]
pub struct NodeGuard {
    file: File,
    bytes: Range<u64>,
    path: PathBuf,
    node: NodeId,
}

impl NodeGuard {
    /// Takes the guard. `file` must be the file that the ring or the writer threads get, or a duplicate of it
    /// (`File::try_clone`); it must be open for writing. `path` is for the error.
    ///
    /// # Errors
    /// [`LockConflict`] while another process runs as this node, or its last write has not ended.
    pub fn acquire(file: &File, path: &Path, geometry: Geometry, node: NodeId) -> Result<NodeGuard, DiskError> {
        let offset = geometry.heartbeat_offset(node);
        let bytes = offset..offset + 1;
        let file = file.try_clone().map_err(|e| DiskError::io("duplicate the descriptor of", path, e))?;
        match try_lock(&file, Kind::Exclusive, bytes.clone()) {
            Ok(true) => Ok(NodeGuard { file, bytes, path: path.to_owned(), node }),
            Ok(false) => Err(LockConflict {
                path: path.to_owned(),
                what: format!("another daemon on this host is node {node}: stop it, or choose another node"),
            }
            .into()),
            Err(errno) => Err(DiskError::io("lock", path, errno)),
        }
    }

    /// Which node.
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl Drop for NodeGuard {
    /// Given back at once, for a daemon that tries several slots in one description. Whoever drops it has ended its
    /// writes.
    fn drop(&mut self) {
        if let Err(errno) = try_lock(&self.file, Kind::Unlock, self.bytes.clone()) {
            tracing::warn!(path = %self.path.display(), %errno, "the node guard stays until the process ends");
        }
    }
}
