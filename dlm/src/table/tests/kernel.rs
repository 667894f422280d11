//! The table alone against the answers of the kernel DLM in `tests/golden/kdlm`, with what libdlm does not show of mxlock: the
//! modes of blocking notices. (The end-to-end test of the same scripts compares everything else.)

use super::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn mode(word: &str) -> Option<Mode> {
    Mode::ALL.into_iter().find(|mode| mode.to_string() == word)
}

fn flags(words: &[&str]) -> LockFlags {
    let set = |word: &&str| LockFlags::NAMES.iter().find(|(_, name)| name == word).map(|(flag, _)| *flag);
    words
        .iter()
        .filter_map(set)
        .filter(|flag| *flag != LockFlags::PERSISTENT)
        .fold(LockFlags::NONE, |all, flag| all | flag)
}

/// Ours where it differs on purpose, by script and request; and whether the rest of the script depends on it.
fn differences() -> BTreeMap<(String, usize), (String, bool)> {
    let text = std::fs::read_to_string(repository().join("tests/kdlm/differences.txt")).unwrap();
    let mut all = BTreeMap::new();
    let mut at = None;
    for line in text.lines() {
        if let Some(place) = line.strip_prefix("@ ") {
            let words: Vec<&str> = place.split(' ').collect();
            at = Some(((words[0].to_owned(), words[1].parse().unwrap()), words.len() == 3));
        } else if let Some(ours) = line.strip_prefix("> ")
            && let Some((at, last)) = at.take()
        {
            all.insert(at, (ours.to_owned(), last));
        }
    }
    all
}

/// A script under way.
struct Script {
    table: Table<()>,
    next: u64,
    names: HashMap<LockId, String>,
    locks: BTreeMap<String, LockId>,
    /// Of which modes a lock has been told since it got its own.
    told: HashMap<String, Vec<Mode>>,
    effects: Vec<Effect>,
    heard: BTreeSet<String>,
}

impl Script {
    fn new() -> Script {
        let mut table = Table::new();
        table.set_epoch(Epoch(7));
        Script {
            table,
            next: 0,
            names: HashMap::new(),
            locks: BTreeMap::new(),
            told: HashMap::new(),
            effects: Vec::new(),
            heard: BTreeSet::new(),
        }
    }

    fn place(&mut self) -> u64 {
        self.next += 16;
        (1 << 32) + self.next
    }

    fn granted(&mut self, grant: Grant) {
        let name = self.names[&grant.lock].clone();
        let demoted = if grant.demoted { " DEMOTED" } else { "" };
        let alternative = if grant.alternative { " ALTMODE" } else { "" };
        self.heard.insert(format!("{name} ast 0{demoted}{alternative}"));
        self.told.insert(name, Vec::new());
    }

    fn outcome(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Outcome::Granted(grant) => self.granted(grant),
            Outcome::Queued { .. } => {}
            Outcome::Denied(DenyReason::WouldQueue) => drop(self.heard.insert(format!("{name} ast EAGAIN"))),
            Outcome::Denied(DenyReason::Deadlock) => drop(self.heard.insert(format!("{name} ast EDEADLK"))),
        }
    }

    /// Does it; what everybody hears, without blocking notices.
    fn play(&mut self, request: &[&str]) -> BTreeSet<String> {
        let name = request.get(2).map(|number| format!("{}{number}", request[0])).unwrap_or_default();
        let session = SessionId(u64::from(request[0].as_bytes()[0]));
        let id = self.locks.get(&name).copied();
        let mut effects = std::mem::take(&mut self.effects);
        match (request[1], id) {
            ("lock", _) => {
                let position = self.place();
                let lock = LockId { session, seq: position };
                self.names.insert(lock, name.clone());
                let (mode, flags) = (mode(request[3]).unwrap(), flags(&request[5..]));
                let resource = resource(request[4]);
                let asked = Request { lock, resource, mode, flags, range: ByteRange::ALL, position, payload: () };
                let outcome = self.table.request(asked, &mut effects).unwrap();
                if !matches!(outcome, Outcome::Denied(_)) {
                    self.locks.insert(name.clone(), lock);
                }
                self.outcome(&name, outcome);
            }
            ("conv", Some(lock)) => {
                let (position, mode, flags) = (self.place(), mode(request[3]).unwrap(), flags(&request[4..]));
                let outcome = self.table.convert(lock, mode, flags, position, LvbUpdate::Keep, &mut effects).unwrap();
                self.outcome(&name, outcome);
            }
            ("unlock", Some(lock)) => {
                self.table.unlock(lock, LvbUpdate::Keep, &mut effects).unwrap();
                self.locks.remove(&name);
                self.heard.insert(format!("{name} ast EUNLOCK"));
            }
            ("cancel" | "deadlock-cancel", Some(lock)) => {
                let status = if request[1] == "cancel" { "ECANCEL" } else { "EDEADLK" };
                let demoted = if self.table.get(lock).unwrap().demoted { " DEMOTED" } else { "" };
                match self.table.cancel(lock, &mut effects).unwrap() {
                    Cancelled::NotWaiting => {}
                    Cancelled::Removed(_) => {
                        self.locks.remove(&name);
                        self.heard.insert(format!("{name} ast {status}"));
                    }
                    Cancelled::Reverted { .. } => drop(self.heard.insert(format!("{name} ast {status}{demoted}"))),
                }
            }
            ("die", _) => {
                let dead: Vec<String> =
                    self.locks.keys().filter(|name| name.starts_with(request[0])).cloned().collect();
                for lock in dead.iter().filter_map(|name| self.locks.remove(name)) {
                    self.table.unlock(lock, LvbUpdate::Invalidate, &mut effects).unwrap();
                }
            }
            _ => {}
        }
        self.table.check_invariants().unwrap();
        for effect in effects.drain(..) {
            match effect {
                Effect::Granted(grant) => self.granted(grant),
                Effect::Bast { holder, wanted } => {
                    let told = self.told.get_mut(&self.names[&holder]).unwrap();
                    assert!(!told.iter().any(|told| told.covers(wanted)), "{request:?}: {wanted} again");
                    told.push(wanted);
                }
                Effect::Demoted { .. } => {}
                Effect::Denied { .. } => panic!("only after a failover"),
            }
        }
        self.effects = effects;
        // Who is gone hears nothing.
        let gone = (request[1] == "die").then_some(request[0]);
        std::mem::take(&mut self.heard)
            .into_iter()
            .filter(|heard| gone.is_none_or(|gone| !heard.starts_with(gone)))
            .collect()
    }
}

/// DESIGN section 7: "exactly those of the Linux kernel DLM".
#[test]
fn the_table_does_what_the_kernel_does() {
    let differences = differences();
    let (mut requests, mut notices, mut demotions) = (0, 0, 0);
    for entry in std::fs::read_dir(repository().join("tests/golden/kdlm")).unwrap() {
        let path = entry.unwrap().path();
        // Orphans and purges are not the table's business.
        if path.ends_with("orphans.txt") || path.ends_with("random-2000.txt") {
            continue;
        }
        let (mut script, mut number, mut over, mut play) = (String::new(), 0, false, Script::new());
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            if let Some(name) = line.strip_prefix("## ") {
                (script, number, over, play) = (name.to_owned(), 0, false, Script::new());
            }
            if over || !line.contains(" -> ") {
                continue;
            }
            number += 1;
            let mut line = line.to_owned();
            if let Some((ours, last)) = differences.get(&(script.clone(), number)) {
                (line, over) = (ours.clone(), *last);
            }
            let (request, answer) = line.split_once(" -> ").unwrap();
            let request: Vec<&str> = request.split(' ').collect();
            let mut answer = answer.split(", ");
            if answer.next() != Some("0") {
                continue;
            }
            requests += 1;
            let (basts, asts): (Vec<&str>, Vec<&str>) = answer.partition(|event| event.contains(" bast "));
            let without_value = |event: &&str| {
                let event = event.replace(" VALNOTVALID", "");
                event.split(" v=").next().unwrap().to_owned()
            };
            let wanted: BTreeSet<String> = asts.iter().map(without_value).collect();
            demotions += wanted.iter().filter(|event| event.contains("DEMOTED")).count();
            assert_eq!(play.play(&request), wanted, "{script} {number}: {line}");
            for bast in basts.into_iter().filter(|_| request[1] != "die") {
                let (holder, wanted) = bast.split_once(" bast ").unwrap();
                let told = &play.told[holder];
                let wanted = mode(wanted).unwrap();
                assert!(told.iter().any(|told| told.covers(wanted)), "{script} {number}: {line}: told {told:?}");
                notices += 1;
            }
        }
    }
    assert!(requests > 8_000 && notices > 1_000 && demotions >= 10, "{requests} {notices} {demotions}");
}
