//! `mxlock`; see `mxlock_tools::mxlock`.

fn main() -> std::process::ExitCode {
    mxlock_tools::mxlock::main()
}
