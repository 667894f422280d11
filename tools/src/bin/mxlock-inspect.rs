//! `mxlock-inspect`; see `mxlock_tools::inspect`.

fn main() -> std::process::ExitCode {
    mxlock_tools::inspect::main()
}
