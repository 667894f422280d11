//! The programs as scripts see them, without a daemon: exit codes and the inspector on real files.

use mxlock_disklock::format::{FormatOptions, format};
use mxlock_format::{SectorSize, Timing};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const MXLOCK: &str = env!("CARGO_BIN_EXE_mxlock");
const INSPECT: &str = env!("CARGO_BIN_EXE_mxlock-inspect");
const MXFLOCK: &str = env!("CARGO_BIN_EXE_mxflock");
const BENCH: &str = env!("CARGO_BIN_EXE_mxlock-bench");

/// Exit code, stdout, stderr.
fn call(program: &str, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(program)
        .args(arguments)
        .env_remove("MXLOCK_SOCKET")
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A directory for lockstates, where direct I/O works.
fn directory() -> TempDir {
    let place = if Path::new("/var/tmp").is_dir() { PathBuf::from("/var/tmp") } else { std::env::temp_dir() };
    tempfile::tempdir_in(place).unwrap()
}

fn lockstate(directory: &TempDir, sector: SectorSize) -> String {
    let path = directory.path().join("lockstate");
    let options = FormatOptions {
        lockspace: "test".to_owned(),
        slots: 256,
        sector: Some(sector),
        timing: Timing::FAST,
        force: false,
    };
    format(&path, &options, &mut |_| {}).unwrap();
    path.to_str().unwrap().to_owned()
}

/// INTERFACE.md, "Exit codes": wrong usage is 64, never clap's 2, and is said on stderr under the program's name.
#[test]
fn wrong_usage_is_64() {
    for (program, arguments) in [
        (MXLOCK, &["run"][..]),
        (MXLOCK, &["nonsense"]),
        (MXLOCK, &[]),
        (MXLOCK, &["run", "-m", "XX", "a", "--", "true"]),
        (MXLOCK, &["run", "", "--", "true"]),
        (MXLOCK, &["--json", "run", "a", "--", "true"]),
        (MXLOCK, &["run", "--status-fd", "77", "a", "--", "true"]),
        (MXLOCK, &["fence-ack", "3"]),
        (INSPECT, &["/dev/null"]),
        (INSPECT, &["/dev/null", "slot", "x"]),
        (BENCH, &["--workload", "nothing"]),
        (MXFLOCK, &[]),
        (MXFLOCK, &["nonsense"]),
    ] {
        let (code, out, err) = call(program, arguments);
        assert_eq!((code, out.as_str()), (64, ""), "{arguments:?}: {err}");
        let name = Path::new(program).file_name().unwrap().to_str().unwrap();
        let one_sentence = err.starts_with(&format!("{name}: ")) && err.lines().count() == 1;
        assert!(one_sentence || arguments.is_empty(), "{arguments:?}: {err}");
    }
}

#[test]
fn help_and_version_are_answers() {
    for program in [MXLOCK, MXFLOCK, INSPECT, BENCH] {
        let (code, out, _) = call(program, &["--help"]);
        assert!(code == 0 && out.contains("EXAMPLES"), "{out}");
        let (code, out, _) = call(program, &["--version"]);
        assert!(code == 0 && out.contains(env!("CARGO_PKG_VERSION")), "{out}");
    }
    assert!(call(MXLOCK, &["run", "--help"]).1.contains("MXLOCK_TOKEN"));
}

/// INTERFACE.md: 69 when the daemon cannot be reached, in one sentence.
#[test]
fn no_daemon_is_69() {
    let socket = ["-S", "/nonexistent/sock"];
    for (program, arguments) in [
        (MXLOCK, &["status"][..]),
        (MXLOCK, &["run", "a", "--", "true"]),
        (MXLOCK, &["lock", "a"]),
        (MXLOCK, &["wait-ready", "-w", "0"]),
        (BENCH, &["--seconds", "1"]),
    ] {
        let (code, out, err) = call(program, &[&socket, arguments].concat());
        assert_eq!((code, out.as_str()), (69, ""), "{arguments:?}: {err}");
        assert!(err.contains("/nonexistent/sock") && err.lines().count() == 1, "{err}");
    }
}

/// INTERFACE.md: 65 for what is no lockstate, 0 for a clean one, 1 for one with findings.
#[test]
fn verify_has_the_exit_codes_of_the_contract() {
    let directory = directory();
    let missing = directory.path().join("missing");
    assert_eq!(call(INSPECT, &[missing.to_str().unwrap(), "verify"]).0, 65);
    let foreign = directory.path().join("foreign");
    std::fs::write(&foreign, vec![0x5a; 1 << 20]).unwrap();
    let (code, _, err) = call(INSPECT, &[foreign.to_str().unwrap(), "verify"]);
    assert_eq!(code, 65, "PROTOTYPE 4: a file full of 0x5a is no lockstate");
    assert!(err.starts_with("mxlock-inspect: ") && err.lines().count() == 1, "{err}");

    let path = lockstate(&directory, SectorSize::S512);
    let (code, out, err) = call(INSPECT, &[&path, "verify"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, "clean: 64 heartbeat sectors, 256 slots, 0 records\n");

    // One flipped bit in an empty slot: neither empty nor valid any more.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[(64 + 17) * 512 + 99] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let (code, out, _) = call(INSPECT, &["--json", &path, "verify"]);
    assert_eq!(code, 1);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["clean"], false);
    assert_eq!(
        (&document["findings"][0]["kind"], &document["findings"][0]["slots"]),
        (&"record_damaged".into(), &[17].into())
    );
}

#[test]
fn the_inspector_reads_both_sector_sizes() {
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let directory = directory();
        let path = lockstate(&directory, sector);
        let (code, out, err) = call(INSPECT, &[&path, "summary", "--json"]);
        assert_eq!(code, 0, "{err}");
        let summary: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&summary["lockspace"], &summary["view"]), (&"test".into(), &serde_json::Value::Null));
        assert_eq!(summary["nodes"]["empty"], 64);
        assert_eq!(summary["geometry"]["sector_bytes"], sector.bytes());
        for command in [&["heartbeats"][..], &["locks"], &["slot", "255"], &["node", "63"], &["view"], &["map"]] {
            for json in [&["--json"][..], &[]] {
                let (code, out, err) = call(INSPECT, &[json, &[path.as_str()], command].concat());
                assert_eq!((code, err.as_str()), (0, ""), "{command:?}");
                assert!(
                    json.is_empty() || serde_json::from_str::<serde_json::Value>(&out).is_ok(),
                    "{command:?}: {out}"
                );
            }
        }
        assert_eq!(call(INSPECT, &[&path, "resource", "nobody"]).0, 1, "not found");
        assert_eq!(call(INSPECT, &[&path, "slot", "256"]).0, 64, "no such slot");
    }
}

/// The inspector never writes: it reads what it may only read, and leaves it as it was.
#[test]
fn the_inspector_does_not_write() {
    let directory = directory();
    let path = lockstate(&directory, SectorSize::S512);
    let before = (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap().modified().unwrap());
    let entries = || std::fs::read_dir(directory.path()).unwrap().count();
    let files = entries();
    for command in ["summary", "locks", "verify"] {
        assert_eq!(call(INSPECT, &[&path, command]).0, 0);
    }
    assert!(before == (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap().modified().unwrap()));
    assert_eq!(entries(), files);
}

/// A reader that goes away is no error: `mxlock-inspect PATH map | head -1`.
#[test]
fn a_closed_pipe_is_quiet() {
    let directory = directory();
    let path = lockstate(&directory, SectorSize::S512);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = Command::new(INSPECT).args([&path, "map"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
