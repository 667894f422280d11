//! What the kernel DLM answers (`tests/golden/kdlm`), and where mxlock answers otherwise on purpose: blocking notices by a rule
//! (`notices.rs`), everything else line by line, with the reason (`tests/kdlm/differences.txt`).

mod notices;

pub use notices::{Notices, Oddity};

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What mxlock does otherwise.
#[derive(Debug)]
pub struct Differences {
    reasons: Vec<String>,
    /// By script and request (counted from 1).
    lines: BTreeMap<(String, usize), Difference>,
    oddities: BTreeSet<Oddity>,
}

#[derive(Debug)]
struct Difference {
    kernel: String,
    mxlock: String,
    /// What follows depends on it, and is not compared.
    last: bool,
    used: bool,
}

impl Differences {
    /// Reads the list.
    ///
    /// # Panics
    /// When it makes no sense.
    pub fn read(path: &Path) -> Differences {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut all = Differences { reasons: Vec::new(), lines: BTreeMap::new(), oddities: BTreeSet::new() };
        let (mut at, mut kernel) = (None, None);
        for line in text.lines() {
            let (sign, rest) = line.split_at(line.len().min(2));
            match sign {
                "= " => all.reasons.push(rest.to_owned()),
                "@ " => {
                    assert!(!all.reasons.is_empty(), "{line}: there is no reason before it");
                    let (place, last) = rest.strip_suffix(" last").map_or((rest, false), |place| (place, true));
                    let (script, request) = place.split_once(' ').expect("@ SCRIPT REQUEST");
                    at = Some(((script.to_owned(), request.parse().expect("a number")), last));
                }
                "< " => kernel = Some(rest.to_owned()),
                "> " => {
                    let (at, last) = at.take().expect("a place before the lines");
                    let kernel = kernel.take().expect("the kernel's line before ours");
                    let difference = Difference { kernel, mxlock: rest.to_owned(), last, used: false };
                    assert!(all.lines.insert(at, difference).is_none(), "{line}: a second one");
                }
                "" | "# " | "#" => {}
                _ => panic!("{}: what is this: {line}", path.display()),
            }
        }
        all
    }

    /// Every one was met, and `documentation` names each reason.
    ///
    /// # Panics
    /// With those that are not so.
    pub fn all_needed(&self, documentation: &str) {
        let idle: Vec<_> = self.lines.iter().filter(|(_, difference)| !difference.used).map(|(at, _)| at).collect();
        assert!(idle.is_empty(), "differences that there are not: {idle:?}");
        for oddity in [Oddity::Repeated, Oddity::Converting, Oddity::AtOnce, Oddity::Validity] {
            assert!(self.oddities.contains(&oddity), "the kernel does not differ like this: {oddity:?}");
        }
        for reason in &self.reasons {
            assert!(documentation.contains(reason), "docs/features.md does not say: {reason}");
        }
    }

    /// What mxlock has to answer where the kernel answers `recorded`.
    ///
    /// # Panics
    /// When a difference is about another line than the kernel's, or a notice of the kernel is not understood.
    pub fn expected(&mut self, recorded: &str) -> String {
        let (mut script, mut request, mut over) = (String::new(), 0, false);
        let mut notices = Notices::default();
        let mut out = String::new();
        for line in recorded.lines() {
            let mut line = line.to_owned();
            if let Some(name) = line.strip_prefix("## ") {
                (script, request, over) = (name.to_owned(), 0, false);
                notices = Notices::default();
            } else if over {
                continue;
            } else if line.contains(" -> ") {
                request += 1;
                if let Some(difference) = self.lines.get_mut(&(script.clone(), request)) {
                    assert_eq!(difference.kernel, line, "{script} {request}: the kernel's line is another");
                    difference.used = true;
                    over = difference.last;
                    line.clone_from(&difference.mxlock);
                }
                let (ours, oddities) = notices.ours(&line);
                self.oddities.extend(oddities);
                line = ours;
            }
            out += &line;
            out.push('\n');
        }
        out
    }
}

/// A line without the modes of its notices, which libdlm does not tell. What a process leaves behind ends one by one, and who
/// gets a lock may be told of what has not ended yet: not compared.
fn comparable(line: &str) -> String {
    let leaves = [" die -> ", " purge "].iter().any(|request| line.contains(request));
    let told = line.split(", ").filter_map(|word| match word.split_once(" bast ") {
        Some(_) if leaves => None,
        Some((who, _)) => Some(format!("{who} bast")),
        None => Some(word.to_owned()),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Where the answers are not as expected, to be read by a person.
pub fn compare(file: &str, expected: &str, answered: &str) -> String {
    let mut complaints = String::new();
    let (mut script, mut request) = (file, 0);
    for (wanted, found) in expected.lines().zip(answered.lines()) {
        if let Some(name) = wanted.strip_prefix("## ") {
            (script, request) = (name, 0);
        } else if wanted.contains(" -> ") {
            request += 1;
        }
        if comparable(wanted) != comparable(found) {
            complaints += &format!("@ {script} {request}\n< {wanted}\n> {found}\n");
        }
    }
    if expected.lines().count() != answered.lines().count() {
        complaints += &format!("{file}: {} lines instead of {}\n", answered.lines().count(), expected.lines().count());
    }
    complaints
}
