//! `mxlockd`; see the library of the same name.

fn main() -> std::process::ExitCode {
    mxlockd::main()
}
