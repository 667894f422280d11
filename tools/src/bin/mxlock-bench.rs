//! `mxlock-bench`; see `mxlock_tools::bench`.

fn main() -> std::process::ExitCode {
    mxlock_tools::bench::main()
}
