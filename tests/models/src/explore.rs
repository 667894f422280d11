//! Runs a model and says what came out.

use crate::Rule;
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What became of one property.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Its name.
    pub property: &'static str,
    /// Whether that is as it should be: no state breaks what must always hold, some state shows what can be.
    pub good: bool,
    /// The shortest way to the state that breaks it, or shows it: its actions.
    pub way: Option<Vec<String>>,
}

/// What came out of one exploration.
#[derive(Clone, Debug)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Longest way on which no state comes twice.
    pub depth: usize,
    /// Time taken.
    pub took: Duration,
    /// The properties, in the model's order.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.good)
    }

    /// What became of the property.
    pub fn outcome(&self, property: &str) -> Option<&Outcome> {
        self.outcomes.iter().find(|outcome| outcome.property == property)
    }
}

/// Explores breadth first, on one thread: the ways that it finds are the shortest.
///
/// All of it, or until a property is broken; when a rule is left out, until the property breaks that it protects.
pub fn explore<M>(model: M, without: Option<&Rule>) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let began = Instant::now();
    let properties = model.properties();
    let finish = match without {
        Some(rule) => HasDiscoveries::AnyOf(BTreeSet::from([rule.breaks])),
        None => HasDiscoveries::AnyFailures,
    };
    let checker = model.checker().threads(1).finish_when(finish).spawn_bfs().join();
    let mut found = checker.discoveries();
    let outcomes = properties.iter().map(|property| {
        let way = found
            .remove(property.name)
            .map(|path| path.into_actions().into_iter().map(|action| checker.model().format_action(&action)).collect());
        let good = way.is_some() == (property.expectation == Expectation::Sometimes);
        Outcome { property: property.name, good, way }
    });
    Report {
        outcomes: outcomes.collect(),
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
    }
}
