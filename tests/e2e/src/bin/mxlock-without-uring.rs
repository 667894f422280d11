//! `mxlock-without-uring COMMAND...`: runs COMMAND under a seccomp filter that answers io_uring_setup(2) with EPERM, as
//! container runtimes do.
#![allow(unsafe_code)]

use nix::sys::prctl::set_no_new_privs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let error = match (words.next(), forbid_io_uring()) {
        (Some(program), Ok(())) => Command::new(program).args(words).exec(),
        (None, _) => io::Error::other("it takes a command"),
        (_, Err(error)) => error,
    };
    eprintln!("mxlock-without-uring: {error}");
    ExitCode::FAILURE
}

fn forbid_io_uring() -> io::Result<()> {
    set_no_new_privs()?;
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        // The number of the system call is the first field of seccomp_data.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_io_uring_setup as u32, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: program and filter live across the call, which copies them.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
