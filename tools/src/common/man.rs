//! Man pages from the same definitions as `--help`.
//!
//! The text after the help becomes sections: a line in capitals is a title, indented lines stand as they are, and what
//! comes before the first title belongs to the description.

use super::failure::{Code, Failure};
use clap_mangen::Man;
use std::io::{self, Write};
use std::path::Path;

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "done"),
    ("1", "no: not granted, findings, not found"),
    ("64", "wrong usage"),
    ("65", "the lockstate is not one, is damaged, or belongs to another lockspace"),
    ("69", "the daemon, or the cluster, cannot be reached"),
    ("73, 74", "cannot create; I/O error"),
    ("75", "not now: lease lost, fencing blocked, locks still held, conflict with another process"),
    ("77", "permission"),
    ("78", "configuration"),
];

/// Writes the pages of a program and its commands into a directory.
///
/// # Errors
/// [`Code::CannotCreate`].
pub fn write_pages(command: clap::Command, directory: &Path) -> Result<(), Failure> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_tree(&command, directory)
        .map_err(|e| Failure::new(Code::CannotCreate, Failure::system("write into", directory.display(), &e).message))
}

fn write_tree(command: &clap::Command, directory: &Path) -> io::Result<()> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_tree(sub, directory)?;
    }
    let man = Man::new(command.clone());
    std::fs::write(directory.join(man.get_filename()), page(command, &man)?)
}

fn page(command: &clap::Command, man: &Man) -> io::Result<Vec<u8>> {
    let after = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string).unwrap_or_default();
    let (prose, sections) = split(&after);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    for paragraph in prose {
        write!(page, ".PP\n{}\n", escaped(paragraph))?;
    }
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    for (title, lines) in sections {
        section(&mut page, title)?;
        writeln!(page, ".nf")?;
        for line in lines {
            writeln!(page, "{}", escaped(line))?;
        }
        writeln!(page, ".fi")?;
    }
    section(&mut page, "EXIT STATUS")?;
    for (code, meaning) in EXIT_STATUS {
        write!(page, ".TP\n{}\n{}\n", escaped(code), escaped(meaning))?;
    }
    Ok(page)
}

fn section(page: &mut Vec<u8>, title: &str) -> io::Result<()> {
    if title.contains(' ') { writeln!(page, ".SH \"{title}\"") } else { writeln!(page, ".SH {title}") }
}

/// The paragraphs before the first title, and the titles with their lines.
fn split(text: &str) -> (Vec<&str>, Vec<(&str, Vec<&str>)>) {
    let mut prose = Vec::new();
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let is_title = !line.starts_with(' ') && !line.contains(char::is_lowercase);
        match sections.last_mut() {
            _ if is_title => sections.push((line, Vec::new())),
            Some((_, lines)) => lines.push(line.strip_prefix("  ").unwrap_or(line)),
            None => prose.push(line),
        }
    }
    (prose, sections)
}

/// Text as troff prints it literally.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with(['.', ' ']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_after_the_help_becomes_sections() {
        let text = "It waits.\n\nAnd ends.\n\nENVIRONMENT OF COMMAND\n  A  b\n\nEXAMPLES\n  x -- y\n    z\n";
        let (prose, sections) = split(text);
        assert_eq!(prose, ["It waits.", "And ends."]);
        assert_eq!(sections, [("ENVIRONMENT OF COMMAND", vec!["A  b"]), ("EXAMPLES", vec!["x -- y", "  z"])]);
    }

    #[test]
    fn nothing_is_a_troff_request() {
        assert_eq!(escaped(".x 'a' \\b --c"), "\\&.x \\(aqa\\(aq \\eb \\-\\-c");
    }
}
