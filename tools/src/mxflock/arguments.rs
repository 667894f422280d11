//! The command line, parsed as flock(1) parses its own with getopt_long(3): options end at the first word that is none,
//! short ones can be put together, long ones abbreviated, and the last of two that contradict each other counts.

use super::options::{Definition, Meaning, OPTIONS};
use crate::common::failure::{Code, Failure};
use mxlock_format::Mode;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

/// Longest time that `-w` can give: 366 days, as with `mxlock run`.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;

/// What to do.
#[derive(Debug, PartialEq)]
pub(super) enum Arguments {
    Help,
    Version,
    Lock(Request),
}

/// What to lock and how.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    /// The mode; `None`: unlock.
    pub(super) mode: Option<Mode>,
    /// Longest wait: `None` for ever, zero not at all.
    pub(super) timeout: Option<Duration>,
    pub(super) conflict_code: u8,
    pub(super) close: bool,
    pub(super) no_fork: bool,
    pub(super) verbose: bool,
    pub(super) lockspace: Option<String>,
    pub(super) socket: Option<PathBuf>,
    pub(super) what: What,
    pub(super) target: Target,
}

/// What the lock's name is made of.
#[derive(Debug, PartialEq)]
pub(super) enum What {
    /// The path of the file, in this namespace.
    Path { namespace: Option<OsString> },
    /// A name.
    Name { namespace: Option<OsString>, name: OsString },
    /// The file system's UUID and the inode's number.
    Inode,
}

/// What stands after the options.
#[derive(Debug, PartialEq)]
pub(super) enum Target {
    /// A descriptor of the caller.
    Descriptor(i32),
    /// A file or directory, and what to run.
    File { path: PathBuf, command: Vec<OsString> },
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Code::Usage, message)
}

/// `message`, and where help is.
fn try_help(message: impl std::fmt::Display) -> Failure {
    usage(format!("{message} (see 'mxflock --help')"))
}

/// A word of the command line, for a message.
fn shown(word: &OsStr) -> impl std::fmt::Display {
    word.as_bytes().escape_ascii()
}

/// Parses the arguments, the program's name not among them; `shell` is `$SHELL`.
///
/// # Errors
/// [`Code::Usage`] with what is wrong.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>, shell: Option<OsString>) -> Result<Arguments, Failure> {
    let mut words = words.into_iter().peekable();
    let mut given = Given::default();
    while let Some(word) = words.next_if(|word| word.len() > 1 && word.as_bytes()[0] == b'-') {
        if word == "--" {
            break;
        }
        let mut next = || words.next();
        let answer = match word.as_bytes().strip_prefix(b"--") {
            Some(long) => given.long(long, &mut next)?,
            None => given.short(&word.as_bytes()[1..], &mut next)?,
        };
        // The first of these ends all, as with flock(1).
        if let Some(answer) = answer {
            return Ok(answer);
        }
    }
    given.request(words.collect(), shell).map(Arguments::Lock)
}

/// The options so far.
#[derive(Default)]
struct Given {
    shared: bool,
    unlock: bool,
    nonblock: bool,
    timeout: Option<Duration>,
    conflict_code: Option<u8>,
    close: bool,
    no_fork: bool,
    verbose: bool,
    inode: bool,
    lockspace: Option<String>,
    socket: Option<PathBuf>,
    namespace: Option<OsString>,
    name: Option<OsString>,
}

impl Given {
    fn long(&mut self, word: &[u8], next: &mut dyn FnMut() -> Option<OsString>) -> Result<Option<Arguments>, Failure> {
        let (name, attached) = match word.iter().position(|&b| b == b'=') {
            Some(at) => (&word[..at], Some(OsString::from_vec(word[at + 1..].to_vec()))),
            None => (word, None),
        };
        let (option, full) = find_long(name)?;
        let value = match (option.value, attached) {
            (None, None) => OsString::new(),
            (None, Some(_)) => return Err(try_help(format_args!("option '--{full}' doesn't allow an argument"))),
            (Some(_), Some(value)) => value,
            (Some(_), None) => {
                next().ok_or_else(|| try_help(format_args!("option '--{full}' requires an argument")))?
            }
        };
        self.take(option.meaning, value)
    }

    /// A cluster of short options; the rest of the word after one that takes a value is its value.
    fn short(
        &mut self,
        cluster: &[u8],
        next: &mut dyn FnMut() -> Option<OsString>,
    ) -> Result<Option<Arguments>, Failure> {
        for (at, letter) in cluster.iter().enumerate() {
            let shown = letter.escape_ascii();
            let option = OPTIONS.iter().find(|option| option.short.contains(letter));
            let option = option.ok_or_else(|| try_help(format_args!("invalid option -- '{shown}'")))?;
            let rest = &cluster[at + 1..];
            if option.value.is_none() {
                if let Some(answer) = self.take(option.meaning, OsString::new())? {
                    return Ok(Some(answer));
                }
                continue;
            }
            let value = if rest.is_empty() { next() } else { Some(OsString::from_vec(rest.to_vec())) };
            let value = value.ok_or_else(|| try_help(format_args!("option requires an argument -- '{shown}'")))?;
            return self.take(option.meaning, value);
        }
        Ok(None)
    }

    fn take(&mut self, meaning: Meaning, value: OsString) -> Result<Option<Arguments>, Failure> {
        match meaning {
            Meaning::Shared => (self.shared, self.unlock) = (true, false),
            Meaning::Exclusive => (self.shared, self.unlock) = (false, false),
            Meaning::Unlock => self.unlock = true,
            Meaning::Nonblock => self.nonblock = true,
            Meaning::Timeout => self.timeout = Some(seconds(&value)?),
            Meaning::ConflictCode => self.conflict_code = Some(exit_code(&value)?),
            Meaning::Close => self.close = true,
            Meaning::NoFork => self.no_fork = true,
            Meaning::Verbose => self.verbose = true,
            Meaning::Inode => self.inode = true,
            Meaning::Lockspace => {
                let name = value.into_string();
                self.lockspace =
                    Some(name.map_err(|name| usage(format!("'{}' is no name of a lockspace", shown(&name))))?);
            }
            Meaning::Socket => self.socket = Some(value.into()),
            Meaning::Namespace => self.namespace = Some(value),
            Meaning::Name => self.name = Some(value),
            Meaning::Help => return Ok(Some(Arguments::Help)),
            Meaning::Version => return Ok(Some(Arguments::Version)),
        }
        Ok(None)
    }

    fn request(self, rest: Vec<OsString>, shell: Option<OsString>) -> Result<Request, Failure> {
        if self.no_fork && self.close {
            return Err(usage("the --no-fork and --close options are incompatible"));
        }
        let what = match (self.name, self.inode) {
            (Some(_), true) => return Err(usage("the --name and --inode options are incompatible")),
            (Some(name), false) => What::Name { namespace: self.namespace, name },
            (None, true) if self.namespace.is_some() => {
                return Err(usage("the --namespace and --inode options are incompatible"));
            }
            (None, true) => What::Inode,
            (None, false) => What::Path { namespace: self.namespace },
        };
        let mode = if self.shared { Mode::PR } else { Mode::EX };
        Ok(Request {
            mode: (!self.unlock).then_some(mode),
            timeout: if self.nonblock { Some(Duration::ZERO) } else { self.timeout },
            conflict_code: self.conflict_code.unwrap_or(1),
            close: self.close,
            no_fork: self.no_fork,
            verbose: self.verbose,
            lockspace: self.lockspace,
            socket: self.socket,
            what,
            target: target(rest, shell)?,
        })
    }
}

/// The option with this long name, or the one that it abbreviates.
fn find_long(name: &[u8]) -> Result<(&'static Definition, &'static str), Failure> {
    let all = || OPTIONS.iter().flat_map(|option| option.long.iter().map(move |long| (option, *long)));
    if let Some(found) = all().find(|(_, long)| long.as_bytes() == name) {
        return Ok(found);
    }
    let shown = name.escape_ascii();
    let mut begin_so: Vec<_> =
        all().filter(|(option, long)| !option.own && long.as_bytes().starts_with(name)).collect();
    // Several names of one option are no ambiguity.
    begin_so.dedup_by_key(|(option, _)| option.meaning);
    match begin_so[..] {
        [] => Err(try_help(format_args!("unrecognized option '--{shown}'"))),
        [found] => Ok(found),
        _ => {
            let names: Vec<_> = begin_so.iter().map(|(_, long)| format!("'--{long}'")).collect();
            Err(try_help(format_args!("option '--{shown}' is ambiguous; possibilities: {}", names.join(" "))))
        }
    }
}

/// What stands after the options.
fn target(rest: Vec<OsString>, shell: Option<OsString>) -> Result<Target, Failure> {
    let mut rest = rest.into_iter();
    let Some(first) = rest.next() else { return Err(try_help("requires file descriptor, file or directory")) };
    let command: Vec<_> = rest.collect();
    match &command[..] {
        [] => descriptor(&first).map(Target::Descriptor),
        [option, words @ ..] if option == "-c" || option == "--command" => {
            let [word] = words else {
                return Err(usage(format!("{} requires exactly one command argument", shown(option))));
            };
            let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
            let command = vec![shell, "-c".into(), word.clone()];
            Ok(Target::File { path: first.into(), command })
        }
        _ => Ok(Target::File { path: first.into(), command }),
    }
}

fn descriptor(word: &OsStr) -> Result<i32, Failure> {
    word.to_str()
        .and_then(|text| text.trim_start().parse().ok())
        .ok_or_else(|| usage(format!("bad file descriptor: '{}': give a number, or a file and a command", shown(word))))
}

fn seconds(word: &OsStr) -> Result<Duration, Failure> {
    let seconds: Option<f64> = word.to_str().and_then(|text| text.trim_start().parse().ok());
    match seconds {
        // Rounded up: a time that is not 0 does not become 0.
        Some(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => {
            Ok(Duration::from_millis((seconds * 1_000.0).ceil() as u64))
        }
        _ => Err(usage(format!("invalid timeout value: '{}': use seconds from 0 to {MAX_SECONDS}", shown(word)))),
    }
}

fn exit_code(word: &OsStr) -> Result<u8, Failure> {
    let number: Option<i64> = word.to_str().and_then(|text| text.trim_start().parse().ok());
    let number = number.ok_or_else(|| usage(format!("invalid exit code: '{}'", shown(word))))?;
    number.try_into().map_err(|_| usage("exit code out of range (expected 0 to 255)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Arguments, Failure> {
        parse(line.iter().map(OsString::from), Some("/bin/bash".into()))
    }

    fn request(line: &str) -> Request {
        match parsed(&line.split_whitespace().collect::<Vec<_>>()) {
            Ok(Arguments::Lock(request)) => request,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn command(line: &str) -> Vec<String> {
        let Target::File { command, .. } = request(line).target else { panic!("{line}: no command") };
        command.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn the_three_forms() {
        assert_eq!(request("9").target, Target::Descriptor(9));
        assert_eq!(command("f cmd a b"), ["cmd", "a", "b"]);
        assert_eq!(command("f -c word"), ["/bin/bash", "-c", "word"]);
        let Ok(Arguments::Lock(without)) = parse(["f", "--command", "w"].map(OsString::from), None) else { panic!() };
        let Target::File { command, .. } = without.target else { panic!() };
        assert_eq!(command, ["/bin/sh", "-c", "w"]);
    }

    /// getopt_long(3) with a leading `+`: options end at the first word that is none.
    #[test]
    fn options_end_at_the_first_other_word() {
        assert_eq!(command("f -n true"), ["-n", "true"]);
        assert_eq!(command("f -- true"), ["--", "true"]);
        assert_eq!(command("-- -f true"), ["true"]);
        assert_eq!(request("-n f true").timeout, Some(Duration::ZERO));
    }

    #[test]
    fn short_options_together_and_values_attached() {
        let all = request("-sFw1.5 -E99 f true");
        assert_eq!((all.mode, all.no_fork, all.conflict_code), (Some(Mode::PR), true, 99));
        assert_eq!(all.timeout, Some(Duration::from_millis(1_500)));
        assert_eq!(request("-w 1e1 f true").timeout, Some(Duration::from_secs(10)));
        assert_eq!(request("-w.0001 f true").timeout, Some(Duration::from_millis(1)));
    }

    #[test]
    fn long_options_and_their_abbreviations() {
        for line in ["--nonblock f t", "--nb f t", "--nonblocking f t", "--nonb f t"] {
            assert_eq!(request(line).timeout, Some(Duration::ZERO), "{line}");
        }
        for line in ["--timeout=1 f t", "--wait 1 f t", "--t 1 f t"] {
            assert_eq!(request(line).timeout, Some(Duration::from_secs(1)), "{line}");
        }
        // Ours do not make flock's abbreviations ambiguous.
        assert_eq!(request("--s f t").mode, Some(Mode::PR));
        for line in [&["--n", "f", "t"][..], &["--ver", "f"], &["--c", "9"], &["--sock", "/s", "9"]] {
            assert_eq!(parsed(line).unwrap_err().code, Code::Usage, "{line:?}");
        }
        assert_eq!(request("--name n 9").what, What::Name { namespace: None, name: "n".into() });
    }

    /// The last one of -s, -x, -e and -u counts; with flock(1) as well.
    #[test]
    fn the_last_mode_counts() {
        assert_eq!(request("-sx 9").mode, Some(Mode::EX));
        assert_eq!(request("-xs 9").mode, Some(Mode::PR));
        assert_eq!(request("-su 9").mode, None);
        assert_eq!(request("-ue 9").mode, Some(Mode::EX));
    }

    #[test]
    fn help_and_version_end_all() {
        assert_eq!(parsed(&["-n", "-h", "-z"]), Ok(Arguments::Help));
        assert_eq!(parsed(&["-nV"]), Ok(Arguments::Version));
    }

    #[test]
    fn wrong_usage() {
        for line in [
            &[][..],
            &["f"],
            &["1x"],
            &["99999999999"],
            &["-w"],
            &["-w", "x", "9"],
            &["-w", "-1", "9"],
            &["-E", "256", "9"],
            &["-E", "-1", "9"],
            &["-E", "x", "9"],
            &["-Fo", "f", "t"],
            &["f", "-c"],
            &["f", "-c", "a", "b"],
            &["-z", "9"],
            &["-1"],
            &["--bogus", "9"],
            &["--shared=1", "9"],
            &["--wait"],
            &["--name", "a", "--inode", "9"],
        ] {
            assert_eq!(parsed(line).unwrap_err().code, Code::Usage, "{line:?}");
        }
    }
}
