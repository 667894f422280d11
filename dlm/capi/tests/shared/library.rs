// Checks of a library as the linker and a C compiler see it. Included by the tests of both.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library beside the test program, under the name that programs look for.
fn library(directory: &Path) -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let built = deps.join(format!("lib{NAME}.so"));
    assert!(built.exists(), "{} is not built", built.display());
    for name in [format!("lib{NAME}.so"), format!("lib{NAME}.so.3")] {
        std::os::unix::fs::symlink(&built, directory.join(name)).unwrap();
    }
    built
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

/// What a shared library exports, sorted.
fn exports(library: &Path) -> Vec<String> {
    let listing = said(Command::new("nm").args(["-D", "--defined-only"]).arg(library));
    let mut names: Vec<String> = listing
        .lines()
        .filter_map(|line| line.split_once(" T "))
        .map(|(_, name)| name.split('@').next().unwrap_or(name).to_owned())
        .collect();
    names.sort();
    names
}

fn ours() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compiles a C program of `tests` against the header in `include` and links it with our library; what it says.
fn run(source: &str, include: &Path) -> String {
    let directory = tempfile::tempdir().unwrap();
    library(directory.path());
    let program = directory.path().join("program");
    let mut compiler = Command::new("cc");
    compiler.args(["-Wall", "-Wextra", "-Werror", "-std=gnu11"]).args(OPTIONS).arg("-I").arg(include);
    compiler.arg(ours().join("tests").join(source)).arg("-o").arg(&program);
    compiler.arg("-L").arg(directory.path()).arg(format!("-l{NAME}"));
    said(&mut compiler);
    let mut command = Command::new(&program);
    said(command.env("LD_LIBRARY_PATH", directory.path()).env("MXLOCK_SOCKET", "/nonexistent/sock"))
}

/// The symbols are those of Debian's libdlm3 4.2, neither more nor less.
#[test]
fn the_exported_functions_are_those_of_the_original() {
    let directory = tempfile::tempdir().unwrap();
    let listed: Vec<&str> = SYMBOLS.split_whitespace().collect();
    assert_eq!(listed.len(), COUNT);
    assert_eq!(exports(&library(directory.path())), listed);
    // The list itself, where the original is there.
    let original = Path::new("/usr/lib/x86_64-linux-gnu").join(format!("lib{NAME}.so.3"));
    if original.exists() {
        assert_eq!(exports(&original), listed);
    }
}

/// Programs look for the library by its soname.
#[test]
fn the_soname_is_that_of_the_original() {
    let directory = tempfile::tempdir().unwrap();
    let header = said(Command::new("objdump").arg("-p").arg(library(directory.path())));
    assert!(header.contains(&format!("SONAME               lib{NAME}.so.3\n")), "{header}");
}

/// Our header gives C programs the layout of tests/layout.txt; so does Debian's, where it is there. Both link with our
/// library.
#[test]
fn structures_and_numbers_are_those_of_the_original() {
    let expected: String =
        include_str!("../layout.txt").lines().take(LAYOUT_LINES).map(|line| format!("{line}\n")).collect();
    assert_eq!(run("layout.c", &ours().join("include")), expected);
    if Path::new("/usr/include/libdlm.h").exists() {
        assert_eq!(run("layout.c", Path::new("/usr/include")), expected);
    }
}

/// Nulls and nonsense are errors.
#[test]
fn bad_arguments_are_refused() {
    assert_eq!(run("null.c", &ours().join("include")), "");
}
