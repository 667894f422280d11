//! The manual pages: mxlockd(8) from the command line's definition, mxlock.toml(5) from the table of keys.

use crate::cli::Cli;
use crate::config::{KEYS, Key};
use crate::error::{Failure, Kind};
use clap::CommandFactory;
use std::fmt::Write;
use std::path::Path;

/// Writes them into an existing directory.
pub(crate) fn write_pages(directory: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::at(Kind::CannotCreate, "write into", directory, &error);
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    std::fs::write(directory.join("mxlock.toml.5"), configuration_page()).map_err(failed)
}

fn configuration_page() -> String {
    let mut page = String::from(
        ".TH mxlock.toml 5\n.SH NAME\nmxlock.toml \\- configuration of mxlockd\n.SH SYNOPSIS\n/etc/mxlock/NAME.toml\n.br\n\
         $XDG_CONFIG_HOME/mxlock/NAME.toml (when not root)\n.SH DESCRIPTION\nEvery key is optional, but a lockstate must \
         be given here or as a flag. Flags of mxlockd(8) override the file. An unknown key is an error (exit code 78). \
         Timing is not here: it is in the lockstate, the same for all nodes.\n.SH KEYS\n",
    );
    for Key { name, unit, range, default, reload, text } in KEYS {
        let range = if range.is_empty() { String::new() } else { format!(" Range: {range}.") };
        let when = if *reload { "on SIGHUP" } else { "at the start" };
        let body = format!("{text} Value: {unit}.{range} Default: {default}. Read {when}.");
        // Writing to a string does not fail.
        let _ = writeln!(page, ".TP\n.B {}\n{}", escaped(name), escaped(&body));
    }
    page.push_str(".SH SEE ALSO\nmxlockd(8), mxlock(1)\n");
    page
}

/// Text that roff does not take for requests.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INTERFACE.md: "every key is documented in mxlock.toml(5) with unit, range, default and whether SIGHUP reloads it".
    #[test]
    fn every_key_has_an_entry() {
        let page = configuration_page();
        for key in KEYS {
            assert!(page.contains(&format!(".B {}\n", key.name)), "{}", key.name);
        }
        assert!(page.contains("Value: milliseconds. Range: 0..86400000. Default: 30000. Read at the start."), "{page}");
        assert!(page.lines().all(|line| !line.starts_with('\'')));
    }

    #[test]
    fn pages_are_written() {
        let dir = tempfile::tempdir().unwrap();
        write_pages(dir.path()).unwrap();
        assert!(dir.path().join("mxlock.toml.5").exists());
        assert!(std::fs::read_dir(dir.path()).unwrap().count() > 1);
    }
}
