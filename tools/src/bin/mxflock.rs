//! `mxflock`; see `mxlock_tools::mxflock`.

fn main() -> std::process::ExitCode {
    mxlock_tools::mxflock::main()
}
