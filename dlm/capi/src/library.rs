//! What a program calls, with its open lockspaces by handle and by descriptor.
//!
//! A handle is a number, not an address: one that was closed, or never was one, is refused.

use crate::abi::{self, DLM_RESNAME_MAXLEN, Handle, Lksb, LksbAt, Range, lkf};
use crate::lockspace::{Callback, LockArgs, Lockspace, Opening, UnlockArgs};
use crate::status;
use libc::{c_char, c_int, c_uint, c_void, pid_t};
use mxlock_client::{ByteRange, ConnectOptions};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The lockspace of the calls that name none.
const DEFAULT_LOCKSPACE: &[u8] = b"default";

/// One of the two libraries.
#[derive(Debug)]
pub struct Library {
    threaded: bool,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    lockspaces: BTreeMap<usize, Arc<Lockspace>>,
    last: usize,
    default: Option<usize>,
    version_known: bool,
}

/// The arguments that say what a lock or conversion is to be, as they come from C.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct LockCall {
    pub mode: u32,
    pub lksb: *mut Lksb,
    pub flags: u32,
    pub name: *const c_void,
    pub namelen: c_uint,
    pub astaddr: *const c_void,
    pub astarg: *mut c_void,
    pub bastaddr: *const c_void,
    pub range: *const Range,
    pub xid: *const u64,
    pub timeout: *const u64,
}

/// How a call ends in C: 0 or -1, with errno.
pub fn code(call: impl FnOnce() -> Result<c_int, Errno>) -> c_int {
    value(-1, call)
}

/// How a call that returns something ends in C; nothing unwinds into the caller.
pub fn value<T>(failed: T, call: impl FnOnce() -> Result<T, Errno>) -> T {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Errno::EIO));
    result.unwrap_or_else(|error| {
        error.set();
        failed
    })
}

impl Library {
    /// The library for threads (libdlm), or (`false`) the other one (libdlm_lt): in the latter a thread that waits for an
    /// operation dispatches meanwhile, and synchronous calls return their status.
    pub const fn new(threaded: bool) -> Library {
        let open = Open { lockspaces: BTreeMap::new(), last: 0, default: None, version_known: false };
        Library { threaded, open: Mutex::new(open) }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, handle: Handle) -> Option<Arc<Lockspace>> {
        self.open().lockspaces.get(&handle.addr()).cloned()
    }

    fn take(&self, handle: Handle) -> Result<Arc<Lockspace>, Errno> {
        let mut open = self.open();
        let lockspace = open.lockspaces.remove(&handle.addr()).ok_or(Errno::EINVAL)?;
        open.default.take_if(|default| *default == handle.addr());
        Ok(lockspace)
    }

    /// The lockspace that knows a lock: another handle of this process on the same one does as well, as with the kernel.
    fn owner(&self, handle: Handle, lkid: u32) -> Result<Arc<Lockspace>, Errno> {
        let asked = self.find(handle).ok_or(Errno::EINVAL)?;
        if asked.knows(lkid) {
            return Ok(asked);
        }
        let all: Vec<_> = self.open().lockspaces.values().cloned().collect();
        let others = all.into_iter().filter(|other| other.name() == asked.name());
        others.into_iter().find(|other| other.knows(lkid)).ok_or(Errno::ENOENT)
    }

    // ---- lockspaces ----

    fn open_lockspace(&self, name: &[u8], opening: Opening) -> Result<Handle, Errno> {
        let lockspace = Lockspace::open(name, opening, self.threaded)?;
        let mut open = self.open();
        open.version_known = true;
        open.last += 1;
        let handle = open.last;
        open.lockspaces.insert(handle, lockspace);
        Ok(std::ptr::without_provenance_mut(handle))
    }

    /// `dlm_create_lockspace`, `dlm_new_lockspace`.
    ///
    /// # Safety
    /// `name` is null or a string.
    ///
    /// # Errors
    /// As errno has them.
    pub unsafe fn create(&self, name: *const c_char, mode: u32, flags: u32) -> Result<Handle, Errno> {
        // SAFETY: the caller's word.
        let name = unsafe { string(name) }?;
        let exclusive = flags & abi::DLM_LSFL_NEWEXCL != 0;
        self.open_lockspace(name, Opening::New { mode, exclusive })
    }

    /// `dlm_open_lockspace`.
    ///
    /// # Safety
    /// As [`Library::create`].
    ///
    /// # Errors
    /// As errno has them.
    pub unsafe fn open_existing(&self, name: *const c_char) -> Result<Handle, Errno> {
        // SAFETY: the caller's word.
        let name = unsafe { string(name) }?;
        self.open_lockspace(name, Opening::Existing)
    }

    /// `dlm_close_lockspace`.
    ///
    /// # Errors
    /// As errno has them.
    pub fn close(&self, handle: Handle) -> Result<c_int, Errno> {
        self.take(handle)?.close().map(|()| 0)
    }

    /// `dlm_release_lockspace`. The name plays no part: the handle has one.
    ///
    /// # Errors
    /// As errno has them.
    pub fn release(&self, handle: Handle, force: bool) -> Result<c_int, Errno> {
        self.take(handle)?.release(force).map(|()| 0)
    }

    /// The default lockspace's handle, which is opened, or created, when it is used first.
    ///
    /// # Errors
    /// As errno has them.
    pub fn default_handle(&self) -> Result<Handle, Errno> {
        if let Some(handle) = self.known_default() {
            return Ok(handle);
        }
        let opened = self
            .open_lockspace(DEFAULT_LOCKSPACE, Opening::Existing)
            .or_else(|_| self.open_lockspace(DEFAULT_LOCKSPACE, Opening::New { mode: 0o600, exclusive: false }))?;
        let mut open = self.open();
        match open.default {
            None => {
                open.default = Some(opened.addr());
                Ok(opened)
            }
            // Another thread was faster.
            Some(known) => {
                drop(open);
                self.close(opened)?;
                Ok(std::ptr::without_provenance_mut(known))
            }
        }
    }

    /// The default lockspace's handle, if it is open.
    pub fn known_default(&self) -> Option<Handle> {
        self.open().default.map(std::ptr::without_provenance_mut)
    }

    /// `dlm_ls_get_fd`.
    ///
    /// # Errors
    /// As errno has them.
    pub fn descriptor(&self, handle: Handle) -> Result<c_int, Errno> {
        self.find(handle).map(|lockspace| lockspace.descriptor()).ok_or(Errno::EINVAL)
    }

    /// `dlm_dispatch`.
    ///
    /// # Safety
    /// Status blocks and functions that the lockspace was given are still there.
    ///
    /// # Errors
    /// EBADF when the descriptor is no lockspace's.
    pub unsafe fn dispatch(&self, fd: c_int) -> Result<c_int, Errno> {
        let lockspace = self.open().lockspaces.values().find(|lockspace| lockspace.descriptor() == fd).cloned();
        // SAFETY: the caller's word.
        unsafe { lockspace.ok_or(Errno::EBADF)?.dispatch() }.map(|()| 0)
    }

    /// `dlm_ls_pthread_init`.
    ///
    /// # Safety
    /// As [`Library::dispatch`], from now on.
    ///
    /// # Errors
    /// EEXIST when it has one.
    pub unsafe fn start_dispatcher(&self, handle: Handle) -> Result<c_int, Errno> {
        let lockspace = self.find(handle).ok_or(Errno::EINVAL)?;
        // SAFETY: the caller's word.
        unsafe { lockspace.start_dispatcher() }.map(|()| 0)
    }

    // ---- locks ----

    /// `dlm_ls_lock`, `dlm_ls_lockx` and, with WAIT, `dlm_ls_lock_wait`.
    ///
    /// # Safety
    /// Every pointer is null or points to what the interface says; what the operation is told through stays until it has
    /// ended.
    ///
    /// # Errors
    /// As errno has them.
    pub unsafe fn lock(&self, handle: Handle, call: LockCall) -> Result<c_int, Errno> {
        let LockCall { mode, lksb, flags, name, namelen, astaddr, astarg, bastaddr, range, xid, timeout } = call;
        let waits = flags & lkf::WAIT != 0;
        if handle.is_null() || lksb.is_null() || (astaddr.is_null() && !waits) {
            return Err(Errno::EINVAL);
        }
        let convert = flags & lkf::CONVERT != 0;
        let lksb = LksbAt(lksb.expose_provenance());
        // What no flag asks for is not looked at: programs leave it as it is.
        // SAFETY: not null; the caller vouches for the rest.
        let (lkid, value) = unsafe {
            let lkid = if convert { lksb.lkid() } else { 0 };
            (lkid, if flags & lkf::VALBLK == 0 { None } else { Some(lksb.value().ok_or(Errno::EINVAL)?) })
        };
        // SAFETY: the caller's word.
        let (name, range, xid, timeout) = unsafe {
            let name = if convert { None } else { Some(bytes(name, namelen)?) };
            // In hundredths of a second; zero is none.
            let timeout = if flags & lkf::TIMEOUT == 0 { None } else { at(timeout).filter(|time| *time != 0) };
            (name, at(range), at(xid), timeout)
        };
        let range = range.map(|range| ByteRange::new(range.ra_start, range.ra_end).ok_or(Errno::EINVAL)).transpose()?;
        let args = LockArgs {
            mode,
            flags,
            name,
            lkid,
            value,
            lksb,
            cast: Callback { function: astaddr.expose_provenance(), argument: astarg.expose_provenance() },
            bast: Callback { function: bastaddr.expose_provenance(), argument: astarg.expose_provenance() },
            range,
            xid: xid.unwrap_or(0),
            timeout: timeout.map(|time| Duration::from_millis(time.saturating_mul(10))),
        };
        let lockspace = if convert { self.owner(handle, lkid)? } else { self.find(handle).ok_or(Errno::EINVAL)? };
        // SAFETY: the caller's word.
        let status = unsafe { lockspace.lock(args) }?;
        Ok(self.returned(status))
    }

    /// `dlm_ls_unlock` and, with WAIT, `dlm_ls_unlock_wait`.
    ///
    /// # Safety
    /// As [`Library::lock`].
    ///
    /// # Errors
    /// As errno has them.
    pub unsafe fn unlock(
        &self,
        handle: Handle,
        lkid: u32,
        flags: u32,
        lksb: *mut Lksb,
        argument: *mut c_void,
    ) -> Result<c_int, Errno> {
        if handle.is_null() {
            return Err(Errno::ENOTCONN);
        }
        if lkid == 0 || lksb.is_null() {
            return Err(Errno::EINVAL);
        }
        let lksb = LksbAt(lksb.expose_provenance());
        // SAFETY: not null; the caller vouches for the rest. Without a buffer there is no value to write.
        let value = if flags & lkf::VALBLK == 0 { None } else { unsafe { lksb.value() } };
        let args = UnlockArgs { lkid, flags, value, lksb, argument: argument.expose_provenance() };
        // SAFETY: the caller's word.
        let status = unsafe { self.owner(handle, lkid)?.unlock(args) }?;
        Ok(self.returned(status))
    }

    /// What a call returns whose operation has ended with `status`.
    fn returned(&self, status: Option<c_int>) -> c_int {
        match status {
            Some(status) if !self.threaded => status::returned(status),
            _ => 0,
        }
    }

    /// `dlm_ls_deadlock_cancel`.
    ///
    /// # Errors
    /// As errno has them.
    pub fn deadlock_cancel(&self, handle: Handle, lkid: u32, flags: u32) -> Result<c_int, Errno> {
        if handle.is_null() {
            return Err(Errno::ENOTCONN);
        }
        if lkid == 0 {
            return Err(Errno::EINVAL);
        }
        self.owner(handle, lkid)?.deadlock_cancel(lkid, flags).map(|()| 0)
    }

    /// `dlm_ls_purge`.
    ///
    /// # Errors
    /// As errno has them.
    pub fn purge(&self, handle: Handle, node: c_int, pid: pid_t) -> Result<c_int, Errno> {
        if handle.is_null() {
            return Err(Errno::ENOTCONN);
        }
        self.find(handle).ok_or(Errno::EINVAL)?.purge(node, pid).map(|()| 0)
    }

    // ---- the simple interface of the library for threads ----

    /// `lock_resource`.
    ///
    /// # Safety
    /// `name` is null or a string, `lockid` null or a lock id's place.
    ///
    /// # Errors
    /// As errno has them.
    pub unsafe fn lock_resource(
        &self,
        name: *const c_char,
        mode: c_int,
        flags: c_int,
        lockid: *mut c_int,
    ) -> Result<c_int, Errno> {
        if self.known_default().is_none() {
            // SAFETY: nothing was given to a lockspace that has just been opened.
            unsafe { self.start_dispatcher(self.default_handle()?) }?;
        }
        if lockid.is_null() {
            return Err(Errno::EINVAL);
        }
        let mut lksb = Lksb { sb_status: 0, sb_lkid: 0, sb_flags: 0, sb_lvbptr: std::ptr::null_mut() };
        let flags = flags as u32 | lkf::WAIT;
        if flags & lkf::CONVERT != 0 {
            // SAFETY: not null; the caller's word.
            lksb.sb_lkid = unsafe { *lockid } as u32;
        }
        // SAFETY: the caller's word.
        let name = unsafe { string(name) }?;
        let call = LockCall {
            mode: mode as u32,
            lksb: &raw mut lksb,
            flags,
            name: name.as_ptr().cast(),
            namelen: name.len() as c_uint,
            astaddr: std::ptr::null(),
            astarg: std::ptr::null_mut(),
            bastaddr: std::ptr::null(),
            range: std::ptr::null(),
            xid: std::ptr::null(),
            timeout: std::ptr::null(),
        };
        // SAFETY: the call waits, so that the status block outlives the operation.
        unsafe { self.lock(self.default_handle()?, call) }?;
        // SAFETY: not null; the caller's word.
        unsafe { *lockid = lksb.sb_lkid as c_int };
        Errno::set_raw(lksb.sb_status);
        Ok(if lksb.sb_status == 0 { 0 } else { -1 })
    }

    /// `unlock_resource`.
    ///
    /// # Errors
    /// As errno has them.
    pub fn unlock_resource(&self, lockid: c_int) -> Result<c_int, Errno> {
        let handle = self.known_default().ok_or(Errno::ENOTCONN)?;
        let mut lksb = Lksb { sb_status: 0, sb_lkid: 0, sb_flags: 0, sb_lvbptr: std::ptr::null_mut() };
        // SAFETY: the call waits, so that the status block outlives the operation.
        unsafe { self.unlock(handle, lockid as u32, lkf::WAIT, &raw mut lksb, std::ptr::null_mut()) }?;
        Errno::set_raw(lksb.sb_status);
        Ok(if lksb.sb_status == abi::EUNLOCK { 0 } else { -1 })
    }

    /// `dlm_pthread_init`.
    ///
    /// # Safety
    /// As [`Library::start_dispatcher`].
    ///
    /// # Errors
    /// As errno has them.
    pub unsafe fn default_dispatcher(&self) -> Result<c_int, Errno> {
        // SAFETY: the caller's word.
        unsafe { self.start_dispatcher(self.default_handle()?) }
    }

    /// `dlm_pthread_cleanup`.
    ///
    /// # Errors
    /// As errno has them.
    pub fn close_default(&self) -> Result<c_int, Errno> {
        self.known_default().map_or(Ok(0), |handle| self.close(handle))
    }

    // ---- versions ----

    /// `dlm_kernel_version`: there is one while mxlockd can be reached.
    ///
    /// # Errors
    /// ENOTCONN when it cannot.
    pub fn kernel_version(&self) -> Result<[u32; 3], Errno> {
        let known = self.open().version_known;
        let answers =
            || ConnectOptions::default().socket_candidates().iter().any(|path| UnixStream::connect(path).is_ok());
        if known || answers() {
            self.open().version_known = true;
            return Ok(abi::KERNEL_VERSION);
        }
        Err(Errno::ENOTCONN)
    }
}

/// # Safety
/// `text` is null or a string.
unsafe fn string<'t>(text: *const c_char) -> Result<&'t [u8], Errno> {
    if text.is_null() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: not null; the caller's word.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// # Safety
/// `name` is null or points to `length` bytes.
unsafe fn bytes(name: *const c_void, length: c_uint) -> Result<Vec<u8>, Errno> {
    let length = length as usize;
    if length > DLM_RESNAME_MAXLEN || (name.is_null() && length > 0) {
        return Err(Errno::EINVAL);
    }
    if length == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: not null, and not longer than the caller says.
    Ok(unsafe { std::slice::from_raw_parts(name.cast::<u8>(), length) }.to_vec())
}

/// What a pointer of the program points to, wherever that is.
///
/// # Safety
/// It is null, or what it points to can be read.
unsafe fn at<T: Copy>(pointer: *const T) -> Option<T> {
    // SAFETY: not null; the caller's word.
    if pointer.is_null() { None } else { Some(unsafe { pointer.read_unaligned() }) }
}
