//! The recording device: a FUSE file system of one image in memory, under one name per node.
//!
//! A loop device stands on each name, so that each node has a disk of its own that happens to have the same contents, as
//! hosts that share a LUN have. The daemons do what they do to any block device; a loop device that does direct I/O passes
//! each write on as it is and turns a synchronous write into a write and a flush, so that everything is seen here, and
//! who did it.

use crate::stream::{Event, Moment, Stream};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};
use mxlock_client::boottime_ns;
use mxlock_format::NodeId;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// The image and everything that happened to it.
#[derive(Debug)]
struct State {
    image: Vec<u8>,
    base: Option<Vec<u8>>,
    moments: Vec<Moment>,
    last_id: u32,
}

/// The recorder's one lock is what gives the stream its order.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Mutex<State>>);

impl Recorder {
    /// An image of zeros. Nothing is recorded yet.
    pub fn new(bytes: usize) -> Recorder {
        Recorder(Arc::new(Mutex::new(State { image: vec![0; bytes], base: None, moments: Vec::new(), last_id: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to record: what is on the device now is the base.
    pub fn begin(&self) {
        let mut state = self.state();
        state.base = Some(state.image.clone());
        state.moments.clear();
    }

    /// What was recorded.
    ///
    /// # Panics
    /// When nothing was begun.
    pub fn stream(&self, lockstate_bytes: usize) -> Stream {
        let state = self.state();
        let base = state.base.as_ref().expect("a recording was begun");
        Stream { base: base[..lockstate_bytes].to_vec(), moments: state.moments.clone() }
    }

    /// Replaces what is on the device. Nobody uses it.
    pub fn put(&self, image: &[u8]) {
        self.state().image[..image.len()].copy_from_slice(image);
    }

    /// Puts an event down.
    pub fn note(&self, event: Event) {
        self.state().note(event);
    }

    /// Mounts the device's files `node0`, `node1`, ... at `point`.
    ///
    /// # Errors
    /// There is no FUSE, or it may not be mounted.
    pub fn mount(&self, point: &Path) -> io::Result<BackgroundSession> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("mxlock-crash".to_owned()), MountOption::NoAtime];
        config.n_threads = Some(2);
        fuser::spawn_mount(Files(self.clone()), point, &config)
    }
}

impl State {
    fn note(&mut self, event: Event) {
        if self.base.is_some() {
            self.moments.push(Moment { at_ns: boottime_ns(), event });
        }
    }

    fn take_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }
}

/// Attributes never change.
const TTL: Duration = Duration::from_secs(3_600);
/// Inode of the file of node 0.
const FIRST_INODE: u64 = 2;

struct Files(Recorder);

impl Files {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let directory = inode == INodeNo::ROOT;
        let size = if directory { 0 } else { self.0.state().image.len() as u64 };
        FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if directory { FileType::Directory } else { FileType::RegularFile },
            perm: if directory { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 512,
            flags: 0,
        }
    }
}

fn node_of(inode: INodeNo) -> Option<NodeId> {
    NodeId::new(u32::try_from(u64::from(inode).checked_sub(FIRST_INODE)?).ok()?)
}

impl Filesystem for Files {
    fn init(&mut self, _req: &Request, _config: &mut KernelConfig) -> io::Result<()> {
        Ok(())
    }

    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let slot = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
        match slot.and_then(NodeId::new) {
            Some(node) => {
                let inode = INodeNo(FIRST_INODE + u64::from(node.get()));
                reply.entry(&TTL, &self.attributes(inode), Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(ino));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Nothing is cached, and writes do not wait for one another.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.0.state();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(state.image.len());
        let to = from.saturating_add(size as usize).min(state.image.len());
        reply.data(&state.image[from..to]);
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.0.state();
        let (Some(node), Ok(from)) = (node_of(ino), usize::try_from(offset)) else { return reply.error(Errno::EIO) };
        if from.checked_add(data.len()).is_none_or(|end| end > state.image.len()) {
            return reply.error(Errno::ENOSPC);
        }
        let id = state.take_id();
        state.note(Event::Write { id, node, offset, bytes: data.to_vec() });
        drop(state);
        // Others may come in between: writes and reads of other sectors are under way at the same time.
        std::thread::yield_now();
        let mut state = self.0.state();
        state.image[from..from + data.len()].copy_from_slice(data);
        state.note(Event::Written { id });
        drop(state);
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let Some(node) = node_of(ino) else { return reply.error(Errno::EIO) };
        let mut state = self.0.state();
        let id = state.take_id();
        state.note(Event::Flush { id, node });
        drop(state);
        std::thread::yield_now();
        // The reply follows the line: nobody can know of the flush's end before it is put down.
        self.0.note(Event::Flushed { id });
        reply.ok();
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
