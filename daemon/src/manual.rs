//! The manual pages: mxlockd(8) from the command line's definition, mxlock.toml(5) from the table of keys.

use crate::cli::Cli;
use crate::config::{KEYS, Key};
use crate::error::{Failure, Kind};
use clap::CommandFactory;
use clap_mangen::Man;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

/// Writes them into an existing directory.
pub(crate) fn write_pages(directory: &Path) -> Result<(), Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    for page in command.get_subcommands().filter(|sub| !sub.is_hide_set()).chain([&command]) {
        let man = Man::new(page.clone()).section("8");
        let path = directory.join(man.get_filename());
        let written = command_page(page, &man).and_then(|text| std::fs::write(&path, text));
        written.map_err(|e| Failure::at(Kind::CannotCreate, "write", &path, &e))?;
    }
    let path = directory.join("mxlock.toml.5");
    std::fs::write(&path, configuration_page()).map_err(|e| Failure::at(Kind::CannotCreate, "write", &path, &e))
}

/// The text after the help becomes sections: a line that is not indented is a title.
fn command_page(command: &clap::Command, man: &Man) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for line in after.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("  ") {
            Some(text) => writeln!(page, "{}", escaped(text))?,
            None => writeln!(page, ".fi\n.SH \"{line}\"\n.nf")?,
        }
    }
    writeln!(page, ".fi")?;
    Ok(page)
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
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect(name);
        assert!(read("mxlock.toml.5").contains(".SH KEYS"));
        assert!(read("mxlockd.8").contains(".SH \"EXIT STATUS\""));
        assert!(read("mxlockd-format.8").contains(".SH \"EXAMPLES\""));
    }
}
