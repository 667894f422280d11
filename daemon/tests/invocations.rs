//! Bad invocations end with the published exit code and one sentence (INTERFACE.md, "Exit codes"; issue 2, "Bad input").

use std::path::Path;
use std::process::{Command, Output};

/// What one run said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn mxlockd(args: &[&str]) -> Said {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_mxlockd"))
        .args(args)
        .env_remove("NOTIFY_SOCKET")
        .env_remove("MXLOCK_LOG")
        .output()
        .expect("the binary runs");
    Said {
        code: status.code().expect("it ends by itself"),
        out: String::from_utf8(stdout).expect("plain text"),
        err: String::from_utf8(stderr).expect("plain text"),
    }
}

/// Runs the daemon with a state directory and a socket of its own.
fn daemon(dir: &Path, more: &[&str]) -> Said {
    let state = dir.join("state").display().to_string();
    let socket = dir.join("run/sock").display().to_string();
    let listen = ["--listen", "127.0.0.1:0"];
    mxlockd(&[&["--state-dir", &state, "--socket", &socket][..], &listen, more].concat())
}

fn refused(said: &Said, code: i32, what: &str) {
    assert_eq!(said.code, code, "stdout: {}\nstderr: {}", said.out, said.err);
    let last = said.err.lines().last().unwrap_or_default();
    assert!(last.starts_with("mxlockd: ") && last.contains(what), "{what:?} is not in {last:?}");
    assert!(!said.err.contains("panicked") && !said.err.contains("Kind::"), "{}", said.err);
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn wrong_usage_is_64_and_help_is_0() {
    for args in [&["--no-such-flag"][..], &["--node", "64"], &["--listen", "nowhere"], &["format"], &["--io", "aio"]] {
        assert_eq!(mxlockd(args).code, 64, "{args:?}");
    }
    let help = mxlockd(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.out.contains("EXAMPLES"));
    assert_eq!(mxlockd(&["--version"]).code, 0);
    assert!(mxlockd(&["format", "--help"]).out.contains("EXAMPLES"));
}

#[test]
fn nonsense_configuration_is_78() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "mxlock.toml");
    for (text, what) in [
        ("lockstat = \"/x\"", "unknown field `lockstat`"),
        ("node = 64", "node 64"),
        ("node = ", "line 1"),
        ("orphan_lifetime_ms = 86400001", "orphan_lifetime_ms"),
        ("log = \"=,=\"", "log"),
    ] {
        std::fs::write(&file, text).unwrap();
        refused(&mxlockd(&["check-config", &file]), 78, what);
        refused(&daemon(dir.path(), &["--config", &file]), 78, what);
    }
    std::fs::write(&file, "lockspace = \"build\"\nlockstate = \"/mnt/x\"\n").unwrap();
    let good = mxlockd(&["check-config", &file]);
    assert_eq!(good.code, 0, "{}", good.err);
    assert!(good.out.contains("/mnt/x") && good.out.contains("build"));
    refused(&mxlockd(&["check-config", &path(dir.path(), "missing.toml")]), 78, "cannot read the configuration");
    refused(&daemon(dir.path(), &[]), 78, "--lockstate");
    refused(&daemon(dir.path(), &["--lockstate", "/x", "--lockspace", "a/b"]), 78, "a/b");
}

/// "Nothing is created at start".
#[test]
fn a_missing_lockstate_is_65_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let lockstate = path(dir.path(), "lockstate");
    refused(&daemon(dir.path(), &["--lockstate", &lockstate]), 65, "no lockstate at");
    assert!(!Path::new(&lockstate).exists());
}

/// PROTOTYPE 4: a file full of 0x5a is no lockstate; neither is a short one.
#[test]
fn a_foreign_file_is_65() {
    let dir = tempfile::tempdir().unwrap();
    let lockstate = path(dir.path(), "lockstate");
    for (bytes, what) in [(vec![0x5a; 1 << 20], "is not a lockstate"), (vec![0; 100], "is not a lockstate")] {
        std::fs::write(&lockstate, bytes).unwrap();
        refused(&daemon(dir.path(), &["--lockstate", &lockstate]), 65, what);
    }
}

#[test]
fn unsafe_timing_is_78_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let lockstate = path(dir.path(), "lockstate");
    refused(&mxlockd(&["format", &lockstate, "--dead-ms", "9000"]), 78, "1.05");
    refused(&mxlockd(&["format", &lockstate, "--lease-ms", "100"]), 78, "lease");
    refused(&mxlockd(&["format", &lockstate, "--lockspace", "a b"]), 64, "a b");
    assert!(!Path::new(&lockstate).exists());
}

#[test]
fn the_wrong_lockspace_is_65_and_so_is_another_uuid() {
    let dir = tempfile::tempdir().unwrap();
    let lockstate = path(dir.path(), "lockstate");
    let made = mxlockd(&["format", &lockstate, "--lockspace", "one", "--slots", "64"]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.contains("lockspace  one") && made.out.contains("uuid"), "{}", made.out);
    refused(&daemon(dir.path(), &["--lockstate", &lockstate]), 65, "--lockspace one");

    let identity = "node_uuid = \"0f8b2a4c-1111-4222-8333-444455556666\"\n\
                    lockspace_uuid = \"0f8b2a4c-1111-4222-8333-444455557777\"\n";
    std::fs::write(dir.path().join("state/identity.toml"), identity).unwrap();
    let args = ["--lockstate", &lockstate, "--lockspace", "one"];
    refused(&daemon(dir.path(), &args), 65, "--accept-new-lockstate");
}

/// Section 8: the state directory is one daemon's.
#[test]
fn a_busy_state_directory_is_75() {
    let dir = tempfile::tempdir().unwrap();
    let lockstate = path(dir.path(), "lockstate");
    std::fs::create_dir(dir.path().join("state")).unwrap();
    let lock = std::fs::File::create(dir.path().join("state/LOCK")).unwrap();
    lock.lock().unwrap();
    refused(&daemon(dir.path(), &["--lockstate", &lockstate]), 75, "LOCK");
}

#[test]
fn what_cannot_be_made_is_73() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("state"), "a file").unwrap();
    refused(&daemon(dir.path(), &["--lockstate", &path(dir.path(), "x")]), 73, "state");
}
