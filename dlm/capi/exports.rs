// The functions that both libraries export, by their C names. Included by `threaded` and `lt`.
//
// The rules of each are in `mxlock_capi::Library`; C programs vouch for their pointers by calling.

use libc::{c_char, c_int, c_uint, c_void, mode_t};
use mxlock_capi::abi::{Handle, KERNEL_VERSION, Lksb, Range, lkf};
use mxlock_capi::{Library, LockCall, code, value};
use std::ptr::{null, null_mut};

/// The arguments of most calls that lock.
#[allow(clippy::too_many_arguments)]
fn call(
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    namelen: c_uint,
    astaddr: *const c_void,
    astarg: *mut c_void,
    bastaddr: *const c_void,
) -> LockCall {
    LockCall {
        mode,
        lksb,
        flags,
        name,
        namelen,
        astaddr,
        astarg,
        bastaddr,
        range: null(),
        xid: null(),
        timeout: null(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_kernel_version(major: *mut u32, minor: *mut u32, patch: *mut u32) -> c_int {
    // SAFETY: the C caller's word.
    code(|| LIBRARY.kernel_version().map(|version| unsafe { tell([major, minor, patch], version) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_library_version(major: *mut u32, minor: *mut u32, patch: *mut u32) {
    // SAFETY: the C caller's word.
    unsafe { tell([major, minor, patch], KERNEL_VERSION) };
}

/// # Safety
/// Each place is null or can be written.
unsafe fn tell(places: [*mut u32; 3], version: [u32; 3]) -> c_int {
    for (place, number) in places.into_iter().zip(version) {
        if !place.is_null() {
            // SAFETY: the caller's word.
            unsafe { *place = number };
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_lock(
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    namelen: c_uint,
    _parent: u32,
    astaddr: *const c_void,
    astarg: *mut c_void,
    bastaddr: *const c_void,
    range: *const Range,
) -> c_int {
    let call = LockCall { range, ..call(mode, lksb, flags, name, namelen, astaddr, astarg, bastaddr) };
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.lock(LIBRARY.default_handle()?, call) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_lock_wait(
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    namelen: c_uint,
    _parent: u32,
    bastarg: *mut c_void,
    bastaddr: *const c_void,
    range: *const Range,
) -> c_int {
    let call = LockCall { range, ..call(mode, lksb, flags | lkf::WAIT, name, namelen, null(), bastarg, bastaddr) };
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.lock(LIBRARY.default_handle()?, call) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_ls_lock(
    lockspace: Handle,
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    namelen: c_uint,
    _parent: u32,
    astaddr: *const c_void,
    astarg: *mut c_void,
    bastaddr: *const c_void,
    range: *const Range,
) -> c_int {
    let call = LockCall { range, ..call(mode, lksb, flags, name, namelen, astaddr, astarg, bastaddr) };
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.lock(lockspace, call) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_ls_lockx(
    lockspace: Handle,
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    namelen: c_uint,
    _parent: u32,
    astaddr: *const c_void,
    astarg: *mut c_void,
    bastaddr: *const c_void,
    xid: *const u64,
    timeout: *const u64,
) -> c_int {
    let call = LockCall { xid, timeout, ..call(mode, lksb, flags, name, namelen, astaddr, astarg, bastaddr) };
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.lock(lockspace, call) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_ls_lock_wait(
    lockspace: Handle,
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    namelen: c_uint,
    _parent: u32,
    bastarg: *mut c_void,
    bastaddr: *const c_void,
    range: *const Range,
) -> c_int {
    let call = LockCall { range, ..call(mode, lksb, flags | lkf::WAIT, name, namelen, null(), bastarg, bastaddr) };
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.lock(lockspace, call) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_unlock(lkid: u32, flags: u32, lksb: *mut Lksb, astarg: *mut c_void) -> c_int {
    let lockspace = LIBRARY.known_default().unwrap_or(null_mut());
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.unlock(lockspace, lkid, flags, lksb, astarg) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_unlock_wait(lkid: u32, flags: u32, lksb: *mut Lksb) -> c_int {
    let lockspace = LIBRARY.known_default().unwrap_or(null_mut());
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.unlock(lockspace, lkid, flags | lkf::WAIT, lksb, null_mut()) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_ls_unlock(
    lockspace: Handle,
    lkid: u32,
    flags: u32,
    lksb: *mut Lksb,
    astarg: *mut c_void,
) -> c_int {
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.unlock(lockspace, lkid, flags, lksb, astarg) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_ls_unlock_wait(lockspace: Handle, lkid: u32, flags: u32, lksb: *mut Lksb) -> c_int {
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.unlock(lockspace, lkid, flags | lkf::WAIT, lksb, null_mut()) })
}

#[unsafe(no_mangle)]
extern "C" fn dlm_ls_deadlock_cancel(lockspace: Handle, lkid: u32, flags: u32) -> c_int {
    code(|| LIBRARY.deadlock_cancel(lockspace, lkid, flags))
}

#[unsafe(no_mangle)]
extern "C" fn dlm_ls_purge(lockspace: Handle, nodeid: c_int, pid: c_int) -> c_int {
    code(|| LIBRARY.purge(lockspace, nodeid, pid))
}

#[unsafe(no_mangle)]
extern "C" fn dlm_get_fd() -> c_int {
    code(|| LIBRARY.descriptor(LIBRARY.default_handle()?))
}

#[unsafe(no_mangle)]
extern "C" fn dlm_ls_get_fd(lockspace: Handle) -> c_int {
    code(|| LIBRARY.descriptor(lockspace))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_dispatch(fd: c_int) -> c_int {
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.dispatch(fd) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_create_lockspace(name: *const c_char, mode: mode_t) -> Handle {
    // SAFETY: the C caller's word.
    value(null_mut(), || unsafe { LIBRARY.create(name, mode, 0) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_new_lockspace(name: *const c_char, mode: mode_t, flags: u32) -> Handle {
    // SAFETY: the C caller's word.
    value(null_mut(), || unsafe { LIBRARY.create(name, mode, flags) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_open_lockspace(name: *const c_char) -> Handle {
    // SAFETY: the C caller's word.
    value(null_mut(), || unsafe { LIBRARY.open_existing(name) })
}

#[unsafe(no_mangle)]
extern "C" fn dlm_release_lockspace(_name: *const c_char, lockspace: Handle, force: c_int) -> c_int {
    code(|| LIBRARY.release(lockspace, force != 0))
}

#[unsafe(no_mangle)]
extern "C" fn dlm_close_lockspace(lockspace: Handle) -> c_int {
    code(|| LIBRARY.close(lockspace))
}
