//! Which blocking notices mxlock owes, computed from what became of the requests: the rule of `dlm/src/table/notices.rs`,
//! from its words.
//!
//! While a request waits, each holder in its way has been told of a mode that covers the one wanted, since it got its own;
//! nothing else is told. The kernel says the same things, but
//! * repeats itself between PR and CW, and whatever it has said before when it has said something weaker since;
//! * says nothing to a holder that is itself converting, until that has ended;
//! * tells a holder of PR and of CW, which our library makes one notice of, as long as it was not dispatched;
//! * tells a new holder of what waits already only when the resource is next looked at, and then of the highest mode only.

use mxlock_format::Mode;
use std::collections::BTreeMap;

/// A lock as the answers show it.
#[derive(Clone, Debug)]
struct Lock {
    resource: String,
    held: Option<Mode>,
    wanted: Option<Mode>,
    /// What it would be granted instead.
    alternative: Option<Mode>,
    told: Vec<Mode>,
}

/// The locks of one script, by session and number.
#[derive(Debug, Default)]
pub struct Notices {
    locks: BTreeMap<String, Lock>,
}

/// How a notice of the kernel differs from ours; each kind has to occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oddity {
    /// The kernel tells a holder what it has heard already.
    Repeated,
    /// We tell a holder that converts, the kernel does not.
    Converting,
    /// We tell a new holder of what waits already at once.
    AtOnce,
    /// The kernel says that the value is not valid, to a conversion that neither reads nor writes it.
    Validity,
}

fn mode(word: &str) -> Option<Mode> {
    Mode::ALL.into_iter().find(|mode| format!("{mode:?}") == word)
}

/// The words of a request, and what was said: who, what, and the rest.
struct Line<'a> {
    request: Vec<&'a str>,
    result: &'a str,
    events: Vec<(&'a str, &'a str)>,
}

fn parse(line: &str) -> Line<'_> {
    let (request, answer) = line.split_once(" -> ").expect("a result");
    let mut answer = answer.split(", ");
    let result = answer.next().unwrap_or_default();
    let events = answer.map(|event| event.split_once(' ').expect("who and what")).collect();
    Line { request: request.split(' ').collect(), result, events }
}

/// Whether a conversion reads or writes the value (fs/dlm/lock.c, `dlm_lvb_operations`).
fn uses_value(was: Option<Mode>, now: Option<Mode>) -> bool {
    was.is_some_and(|was| was >= Mode::PW) || now >= was
}

impl Notices {
    /// The same line with the notices that mxlock owes in place of the kernel's, and how they differ.
    ///
    /// # Panics
    /// When the kernel tells a holder something that mxlock tells neither now nor has told before.
    pub fn ours(&mut self, line: &str) -> (String, Vec<Oddity>) {
        let Line { request, result, events } = parse(line);
        let before = self.locks.clone();
        let denied = self.apply(&request, result, &events);
        let mut owed: BTreeMap<String, Vec<Mode>> = BTreeMap::new();
        for (resource, wanted, me) in self.waiting().into_iter().chain(denied) {
            for (name, holder) in &mut self.locks {
                let conflicts = holder.held.is_some_and(|held| !held.compatible(wanted));
                if name == &me || holder.resource != resource || !conflicts {
                    continue;
                }
                if !holder.told.iter().any(|told| told.covers(wanted)) {
                    holder.told.push(wanted);
                    owed.entry(name.clone()).or_default().push(wanted);
                }
            }
        }
        let leaves = matches!(request[1], "die" | "purge");
        let mut oddities = Vec::new();
        for (name, what) in events.iter().filter_map(|(who, what)| Some((who, what.strip_prefix("bast ")?))) {
            let wanted = mode(what).expect("a mode");
            let Some(lock) = self.locks.get(*name) else { continue };
            if leaves {
                // Of another request of the process that has ended, which was about to go too.
                continue;
            }
            assert!(
                lock.told.iter().any(|told| told.covers(wanted)),
                "{line}: the kernel tells {name} of {what}, mxlock only of {:?}",
                lock.told
            );
            if !owed.get(*name).is_some_and(|told| told.iter().any(|told| told.covers(wanted))) {
                oddities.push(Oddity::Repeated);
            }
        }
        let mut told = Vec::new();
        for (who, what) in events.iter().filter(|(_, what)| !what.starts_with("bast ")) {
            let passing = what.contains(" VALNOTVALID") && before.get(*who).is_some_and(|lock| lock.held.is_some());
            if passing && !uses_value(before[*who].held, self.locks.get(*who).and_then(|lock| lock.held)) {
                oddities.push(Oddity::Validity);
                told.push(format!("{who} {}", what.replace(" VALNOTVALID", "")));
            } else {
                told.push(format!("{who} {what}"));
            }
        }
        for (name, modes) in &owed {
            let heard = |wanted: &Mode| events.contains(&(name, format!("bast {wanted:?}").as_str()));
            if !modes.iter().any(heard) {
                let converts = self.locks[name].wanted.is_some();
                oddities.push(if converts { Oddity::Converting } else { Oddity::AtOnce });
            }
            told.extend(modes.first().map(|wanted| format!("{name} bast {wanted:?}")));
        }
        // By lock; what was there first stays first.
        told.sort_by(|a, b| a.split(' ').next().cmp(&b.split(' ').next()));
        let ours = std::iter::once(format!("{} -> {result}", request.join(" "))).chain(told);
        (ours.collect::<Vec<_>>().join(", "), oddities)
    }

    /// Whether a conversion gives up what it holds (CONVDEADLK): somebody who is converting waits for that. It is told only with
    /// the answer.
    fn demotes(&self, request: &[&str]) -> bool {
        let me = request.get(2).map(|number| format!("{}{number}", request[0])).unwrap_or_default();
        let Some(lock) = self.locks.get(&me).filter(|_| request.contains(&"CONVDEADLK")) else { return false };
        let waits_for_it = |(name, other): (&String, &Lock)| {
            let clash = lock.held.zip(other.wanted).is_some_and(|(held, wanted)| !held.compatible(wanted));
            *name != me && other.resource == lock.resource && other.held.is_some() && clash
        };
        lock.wanted.is_none() && self.locks.iter().any(waits_for_it)
    }

    /// What waits: resource, mode, and who. The strongest first, so that one notice does for the weaker ones too.
    fn waiting(&self) -> Vec<(String, Mode, String)> {
        let waits = |(name, lock): (&String, &Lock)| Some((lock.resource.clone(), lock.wanted?, name.clone()));
        let mut all: Vec<_> = self.locks.iter().filter_map(waits).collect();
        all.sort_by_key(|(_, wanted, _)| std::cmp::Reverse(*wanted as u8));
        all
    }

    /// Takes in what happened. A request that was denied with NOQUEUEBAST tells the holders as well.
    fn apply(&mut self, request: &[&str], result: &str, events: &[(&str, &str)]) -> Option<(String, Mode, String)> {
        let session = request[0];
        let mut denied = None;
        let demoted = self.demotes(request);
        if result == "0" {
            match request[1] {
                "lock" | "conv" => {
                    let name = format!("{session}{}", request[2]);
                    let wanted = mode(request[3]);
                    let alternative = [("ALTPR", Mode::PR), ("ALTCW", Mode::CW)];
                    let alternative =
                        alternative.into_iter().find(|(flag, _)| request.contains(flag)).map(|(_, mode)| mode);
                    let new = |resource: &str| Lock {
                        resource: resource.to_owned(),
                        held: None,
                        wanted: None,
                        alternative: None,
                        told: Vec::new(),
                    };
                    let lock = if request[1] == "lock" {
                        self.locks.insert(name.clone(), new(request[4]));
                        self.locks.get_mut(&name)
                    } else {
                        self.locks.get_mut(&name)
                    };
                    let lock = lock.expect("a lock that is converted");
                    (lock.wanted, lock.alternative) = (wanted, alternative);
                    if demoted {
                        (lock.held, lock.told) = (Some(Mode::NL), Vec::new());
                    }
                    if request.contains(&"ORPHAN") {
                        // An adoption is granted without a word.
                        (lock.held, lock.wanted) = (lock.wanted, None);
                    }
                    if request.contains(&"NOQUEUEBAST") {
                        denied = Some((lock.resource.clone(), wanted.expect("a mode"), name));
                    }
                }
                "die" => self.locks.retain(|name, _| !name.starts_with(session)),
                "purge" if request[3] == session => self.locks.retain(|name, _| !name.starts_with(session)),
                _ => {}
            }
        }
        let mut was_denied = false;
        for (name, what) in events {
            let mut words = what.split(' ');
            if words.next() != Some("ast") {
                continue;
            }
            let status = words.next().unwrap_or_default();
            let Some(lock) = self.locks.get_mut(*name) else { continue };
            match status {
                "0" => {
                    let given = if what.contains("ALTMODE") { lock.alternative } else { lock.wanted };
                    (lock.held, lock.wanted) = (given, None);
                    lock.told.clear();
                }
                "EUNLOCK" => {
                    self.locks.remove(*name);
                }
                _ => {
                    was_denied |= status == "EAGAIN";
                    lock.wanted = None;
                    if lock.held.is_none() {
                        self.locks.remove(*name);
                    }
                }
            }
        }
        denied.filter(|_| was_denied)
    }
}
