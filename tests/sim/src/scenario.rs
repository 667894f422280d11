//! What of a seed is played: all of it, or what is left after shrinking. Its text form is what `tests/sim/regressions`
//! holds.
//!
//! ```text
//! # One line of story or more.
//! seed 1341
//! seconds 215            length of the storm
//! focus handovers        the storm is about one thing
//! only-faults            no planned fault but those below
//! fault crash-master 3 at 71.250000000   the third one of its kind, at this second
//! off duplicates         noise that is left out
//! without-client 2
//! steps 0 3..9,12..40    of client 0, only these steps (the end is not included)
//! ```

use crate::clock::{SEC, Time};
use crate::faults::Fault;
use crate::faults::plan::{Planned, plan};
use crate::focus::Focus;
use crate::setup::Setup;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// What is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// Length of the storm.
    pub seconds: u64,
    /// Only these faults, at these times, whatever the plan of the seed says today; `None`: all of the plan.
    pub only: Option<BTreeSet<Planned>>,
    /// Noise that is left out.
    pub off: BTreeSet<&'static str>,
    /// Clients that never come.
    pub without: BTreeSet<usize>,
    /// Of these clients, only these steps, as ranges whose end is not included.
    pub steps: BTreeMap<usize, Vec<(u32, u32)>>,
    /// The daemon that carries out this output of all dies after it.
    pub death_after: Option<u64>,
    /// Play this setup instead of the one that is drawn for the seed.
    pub calm: bool,
    /// What the storm is about.
    pub focus: Option<Focus>,
}

/// A line that is not part of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: '{}' is not understood", self.line, self.text)
    }
}

impl Scenario {
    /// All of a seed.
    pub fn whole(seed: u64, minutes: u64) -> Scenario {
        Scenario {
            seed,
            seconds: minutes * 60,
            only: None,
            off: BTreeSet::new(),
            without: BTreeSet::new(),
            steps: BTreeMap::new(),
            death_after: None,
            calm: false,
            focus: None,
        }
    }

    /// Length of the storm.
    pub fn storm(&self) -> Time {
        self.seconds * SEC
    }

    /// The parameters of the seed, less the noise that is left out.
    pub fn setup(&self) -> Setup {
        let mut setup = if self.calm { Setup::calm() } else { Setup::draw(self.seed) };
        if let Some(focus) = self.focus {
            focus.apply(self.seed, &mut setup);
        }
        for (name, ppm) in setup.noise.all() {
            if self.off.contains(name) {
                *ppm = 0;
            }
        }
        setup
    }

    /// The planned faults that are played.
    pub fn faults(&self, setup: &Setup) -> Vec<Planned> {
        match &self.only {
            Some(only) => only.iter().copied().filter(|fault| fault.at < self.storm()).collect(),
            None => plan(self.seed, setup, self.storm()),
        }
    }

    /// Whether a client takes part.
    pub fn has_client(&self, client: usize) -> bool {
        !self.without.contains(&client)
    }

    /// Whether a client takes this step.
    pub fn has_step(&self, client: usize, step: u32) -> bool {
        self.steps.get(&client).is_none_or(|ranges| ranges.iter().any(|&(from, to)| (from..to).contains(&step)))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}\nseconds {}", self.seed, self.seconds)?;
        if self.calm {
            writeln!(f, "calm")?;
        }
        if let Some(focus) = self.focus {
            writeln!(f, "focus {}", focus.name())?;
        }
        if let Some(output) = self.death_after {
            writeln!(f, "death-after {output}")?;
        }
        if let Some(only) = &self.only {
            writeln!(f, "only-faults")?;
            for Planned { at, kind, ordinal } in only {
                writeln!(f, "fault {} {ordinal} at {}.{:09}", kind.name(), at / SEC, at % SEC)?;
            }
        }
        for name in &self.off {
            writeln!(f, "off {name}")?;
        }
        for client in &self.without {
            writeln!(f, "without-client {client}")?;
        }
        for (client, ranges) in &self.steps {
            let ranges: Vec<String> = ranges.iter().map(|(from, to)| format!("{from}..{to}")).collect();
            writeln!(f, "steps {client} {}", if ranges.is_empty() { "none".to_owned() } else { ranges.join(",") })?;
        }
        Ok(())
    }
}

impl FromStr for Scenario {
    type Err = BadLine;

    fn from_str(text: &str) -> Result<Scenario, BadLine> {
        let mut scenario = Scenario::whole(0, 0);
        for (at, line) in text.lines().enumerate() {
            let said = line.split('#').next().unwrap_or_default().trim();
            if !said.is_empty() && scenario.read(said).is_none() {
                return Err(BadLine { line: at + 1, text: said.to_owned() });
            }
        }
        if scenario.seconds == 0 {
            return Err(BadLine { line: text.lines().count() + 1, text: "(no 'seconds')".to_owned() });
        }
        Ok(scenario)
    }
}

impl Scenario {
    fn read(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["seed", seed] => self.seed = seed.parse().ok()?,
            ["seconds", seconds] => self.seconds = seconds.parse().ok()?,
            ["calm"] => self.calm = true,
            ["focus", focus] => self.focus = Some(Focus::named(focus)?),
            ["death-after", output] => self.death_after = Some(output.parse().ok()?),
            ["only-faults"] => {
                self.only.get_or_insert_default();
            }
            ["fault", kind, ordinal, "at", at] => {
                let (seconds, ns) = at.split_once('.').filter(|(_, ns)| ns.len() == 9)?;
                let at = seconds.parse::<Time>().ok()? * SEC + ns.parse::<Time>().ok()?;
                let (kind, ordinal) = (Fault::named(kind)?, ordinal.parse().ok()?);
                self.only.as_mut()?.insert(Planned { at, kind, ordinal });
            }
            ["off", name] => {
                let mut noise = crate::setup::Noise::QUIET;
                let known = noise.all().into_iter().map(|(known, _)| known).find(|known| *known == name)?;
                self.off.insert(known);
            }
            ["without-client", client] => {
                self.without.insert(client.parse().ok()?);
            }
            ["steps", client, "none"] => {
                self.steps.insert(client.parse().ok()?, Vec::new());
            }
            ["steps", client, ranges] => {
                let ranges: Option<Vec<(u32, u32)>> = ranges
                    .split(',')
                    .map(|range| {
                        let (from, to) = range.split_once("..")?;
                        Some((from.parse().ok()?, to.parse().ok()?))
                    })
                    .collect();
                self.steps.insert(client.parse().ok()?, ranges?);
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mut scenario = Scenario::whole(1341, 4);
        assert_eq!(scenario.to_string().parse(), Ok(scenario.clone()));
        let one = Planned { at: 7 * SEC + 1, kind: Fault::CrashMaster, ordinal: 3 };
        scenario.only = Some([one, Planned { at: 90 * SEC, kind: Fault::LateWrites, ordinal: 12 }].into());
        scenario.off = ["resets", "pauses"].into();
        scenario.without = [2, 5].into();
        scenario.steps = [(0, vec![(1, 4), (9, 200)]), (1, vec![])].into();
        scenario.death_after = Some(77);
        scenario.calm = true;
        scenario.focus = Some(Focus::Handovers);
        assert_eq!(scenario.to_string().parse(), Ok(scenario.clone()));
        let told = format!("# A story.\n\n{scenario}");
        assert_eq!(told.parse(), Ok(scenario));
    }

    #[test]
    fn a_bad_line_is_named() {
        let fault = "fault crash-master 3 at 1.000000000";
        let bad = format!("seed 1\nseconds 10\n{fault}\n").parse::<Scenario>();
        assert_eq!(bad, Err(BadLine { line: 3, text: fault.to_owned() }), "'only-faults' is missing");
        assert!("seed 1\n".parse::<Scenario>().is_err());
        assert!("seed 1\nseconds 10\noff sunshine\n".parse::<Scenario>().is_err());
    }
}
