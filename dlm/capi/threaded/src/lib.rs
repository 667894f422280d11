//! `libdlm.so.3`: for programs with threads. See `mxlock-capi`.
#![allow(unsafe_code)]

static LIBRARY: Library = Library::new(true);

include!("../../exports.rs");

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_pthread_init() -> c_int {
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.default_dispatcher() })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dlm_ls_pthread_init(lockspace: Handle) -> c_int {
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.start_dispatcher(lockspace) })
}

#[unsafe(no_mangle)]
extern "C" fn dlm_pthread_cleanup() -> c_int {
    code(|| LIBRARY.close_default())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn lock_resource(resource: *const c_char, mode: c_int, flags: c_int, lockid: *mut c_int) -> c_int {
    // SAFETY: the C caller's word.
    code(|| unsafe { LIBRARY.lock_resource(resource, mode, flags, lockid) })
}

#[unsafe(no_mangle)]
extern "C" fn unlock_resource(lockid: c_int) -> c_int {
    code(|| LIBRARY.unlock_resource(lockid))
}
