//! One seed determines everything (DESIGN section 2): the trace of two processes is the same, byte for byte.

use mxlock_sim::{keep_panics, run};
use std::process::Command;

fn trace(words: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_mxlock-sim")).args(words).output().expect("the simulator runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout[output.stdout.len() / 2..]));
    // The summary says how long it took.
    let text = String::from_utf8(output.stdout).expect("a trace is text");
    let lines = text.lines().filter(|line| !line.contains(" simulated hours in "));
    lines.flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}

/// Two processes have other addresses, other hash seeds and another time of day.
#[test]
fn two_processes_print_the_same_trace() {
    for seed in ["4", "11"] {
        let words = ["--seed", seed, "--minutes", "1", "--trace"];
        let (first, second) = (trace(&words), trace(&words));
        assert!(first.len() > 100_000, "a trace of {} bytes proves nothing", first.len());
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        assert_eq!((first.len(), differs), (second.len(), None), "seed {seed}");
    }
}

/// No map's order and no state of an earlier run gets in.
#[test]
fn the_same_seed_gives_the_same_trace() {
    keep_panics();
    for seed in [3, 11] {
        let (first, second) = (run(seed, 1, false), run(seed, 1, false));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.coverage, second.coverage, "seed {seed}");
    }
}
