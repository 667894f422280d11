//! `libdlm_lt.so.3` as programs see it.

const NAME: &str = "dlm_lt";
const OPTIONS: [&str; 1] = ["-U_REENTRANT"];
const COUNT: usize = 21;
/// Without the functions for threads, which are the last ones of the list.
const LAYOUT_LINES: usize = 64;
const SYMBOLS: &str = "dlm_close_lockspace dlm_create_lockspace dlm_dispatch dlm_get_fd dlm_kernel_version
    dlm_library_version dlm_lock dlm_lock_wait dlm_ls_deadlock_cancel dlm_ls_get_fd dlm_ls_lock dlm_ls_lock_wait
    dlm_ls_lockx dlm_ls_purge dlm_ls_unlock dlm_ls_unlock_wait dlm_new_lockspace dlm_open_lockspace dlm_release_lockspace
    dlm_unlock dlm_unlock_wait";

include!("../../tests/shared/library.rs");
