//! Which faults a seed plans, and when: a function of the seed alone, so that what happens in between changes nothing.

use crate::clock::Time;
use crate::dice::Dice;
use crate::faults::Fault;
use crate::setup::Setup;

/// One planned fault. What it does exactly is drawn from (seed, kind, ordinal) when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Planned {
    /// When.
    pub at: Time,
    /// What.
    pub kind: Fault,
    /// Which one of its kind.
    pub ordinal: u32,
}

/// Most faults of one kind in a run.
const MOST: u32 = 10_000;

/// The faults of a storm of this length, in the order of their times.
pub fn plan(seed: u64, setup: &Setup, storm: Time) -> Vec<Planned> {
    let mut all = Vec::new();
    for &(kind, every) in &setup.faults {
        let mut dice = Dice::new(seed, kind.name(), 0);
        let mut at = 0;
        for ordinal in 1..=MOST {
            at += dice.range(every / 8, every * 2);
            if at >= storm {
                break;
            }
            all.push(Planned { at, kind, ordinal });
        }
    }
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SEC;

    /// A longer storm only adds faults; a kind that is left out changes no other.
    #[test]
    fn the_plan_of_one_kind_depends_on_nothing_else() {
        let mut setup = (0..).map(Setup::draw).find(|setup| setup.faults.len() > 5).expect("such seeds are common");
        let long = plan(7, &setup, 900 * SEC);
        let short = plan(7, &setup, 300 * SEC);
        assert!(!short.is_empty());
        assert_eq!(short, long.iter().copied().filter(|fault| fault.at < 300 * SEC).collect::<Vec<_>>());
        let left_out = setup.faults.remove(2).0;
        let without = plan(7, &setup, 300 * SEC);
        assert_eq!(without, short.into_iter().filter(|fault| fault.kind != left_out).collect::<Vec<_>>());
    }
}
