//! The same requests to the kernel's DLM and to mxlock: the answers must be the same, but where `tests/kdlm/differences.txt`
//! says why not. What the kernel answers was recorded by `scripts/kdlm-record`; what is played is explained in
//! `tests/kdlm/kdlm.c`.

use mxlock_e2e::kdlm::{Differences, compare};
use mxlock_e2e::libdlm::{Libraries, Library};
use mxlock_e2e::{Setup, shared};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// Plays every recorded script on `nodes` daemons.
fn play(nodes: usize, only: impl Fn(&str) -> bool) -> Differences {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut differences = Differences::read(&root.join("tests/kdlm/differences.txt"));
    let mut cluster = Setup::new().nodes(nodes).steady().start();
    let libraries = Libraries::new();
    let sources = ["kdlm.c", "words.c", "session.c", "random.c", "device.c"];
    let program = libraries.compile_all(&root.join("tests/kdlm"), &sources, Library::Light);
    let sockets: Vec<String> = cluster.daemons.iter().map(|daemon| daemon.socket().display().to_string()).collect();
    let mut recorded: Vec<_> =
        std::fs::read_dir(root.join("tests/golden/kdlm")).unwrap().map(|entry| entry.unwrap().path()).collect();
    recorded.sort();
    let mut complaints = String::new();
    for path in recorded {
        let file = path.file_name().unwrap().to_str().unwrap();
        if !only(file) {
            continue;
        }
        let wanted = differences.expected(&std::fs::read_to_string(&path).unwrap());
        let mut command = libraries.command(&program, &cluster.daemons[0].socket());
        command.arg("play").env("MXLOCK_SOCKETS", sockets.join(":"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let text = wanted.clone();
        let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().ok();
        assert!(output.status.success(), "{file}: {}", output.status);
        complaints += &compare(file, &wanted, std::str::from_utf8(&output.stdout).unwrap());
    }
    cluster.stop();
    assert!(complaints.is_empty(), "\n{complaints}");
    differences
}

/// DESIGN section 7: "exactly those of the Linux kernel DLM, plus what it lacks".
#[test]
fn the_answers_are_those_of_the_kernel_dlm() {
    let Some(_turn) = shared() else { return };
    play(1, |_| true).all_needed(include_str!("../../../../docs/features.md"));
}

/// The same, with each session on a node of its own; purges name a node, so that the scripts about orphans mean something else
/// there.
#[test]
fn the_answers_over_three_nodes_are_those_of_the_kernel_dlm() {
    let Some(_turn) = shared() else { return };
    play(3, |file| {
        file != "orphans.txt" && (!file.starts_with("random-") || file < "random-100" || file == "random-1000.txt")
    });
}
