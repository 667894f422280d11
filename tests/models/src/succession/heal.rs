//! Liveness, the sound way: from every reachable state, with faults switched off, one fair continuation leads to rest.
//!
//! stateright's `eventually` does not see ways that end in a cycle. Here a scheduler that needs no luck takes over: it
//! takes the first thing that can happen, in an order in which nobody is forgotten, until nothing more can. Each of its
//! steps is a step of the model, so its way runs through reachable states, and it is followed only up to one from which
//! it is known to end well: that makes about one step for each state.

use super::state::*;
use super::world::{Action, World};
use mxlock_dlm::model::InTable;
use mxlock_dlm::table::Standing;
use stateright::Model;
use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Mutex;

/// More steps than any way to rest has.
const PATIENCE: usize = 400;

/// The states from which everything is known to come to rest.
#[derive(Default)]
pub(super) struct Healed(Mutex<HashSet<u64>>);

fn hash(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// What comes first; `None` for faults, and for what somebody would have to want.
fn rank(state: &State, action: &Action) -> Option<u8> {
    Some(match action {
        Action::Land(_) => 0,
        Action::Up(_) => 1,
        Action::Down(_) => 2,
        Action::RegainLease(_) | Action::Restart(_) | Action::See(_) => 3,
        Action::Resign => 4,
        Action::Elect(0) => 5,
        Action::Report(_) => 6,
        Action::Activate(0) => 7,
        Action::Admit(_) => 8,
        Action::Greet(_) => 9,
        Action::Gone(_) => 10,
        Action::Behind(_) => 11,
        // Only now: nobody who could still speak is passed over.
        Action::LosePatience => 12,
        // Whoever holds something has had it long enough.
        Action::GiveUp(_) => 13,
        Action::Expire(_) | Action::EndLifetime(_) => 14,
        // Behind an orphan that nobody adopts a request waits for ever, as it must.
        Action::Cancel(_) if state.has_persistent_orphan() => 15,
        _ => return None,
    })
}

impl State {
    /// Whether requests may wait for ever.
    pub(super) fn has_persistent_orphan(&self) -> bool {
        let orphan = |lock: &InTable| lock.standing == Standing::Orphan && lock.persistent;
        self.active().is_some_and(|reign| reign.master.locks().any(|lock| orphan(&lock)))
    }

    /// Whether everything is as it should be when nothing more happens.
    fn is_at_rest(&self) -> bool {
        let Some(reign) = self.active() else { return false };
        let served = |client: &Client| !client.lives || (client.held.is_none() && client.asking.is_none());
        let ready = |node: &Node| {
            (node.leaving && !node.up) || (node.up && node.lease && node.member.reported() == Some(reign.epoch))
        };
        // Nothing is left but orphans that anybody may adopt, and the disk says so. Behind one may wait what was taken back:
        // if its daemon or its master died then, nobody takes it out of the queue before it is granted.
        let (held, waiting): (Vec<_>, Vec<_>) = reign.master.locks().partition(|lock| lock.granted.is_some());
        let orphan = |lock: &InTable| lock.standing == Standing::Orphan && lock.persistent && lock.wanted.is_none();
        let orphans = held.iter().all(orphan) && (waiting.is_empty() || !held.is_empty());
        let disk: Vec<&Summary> = self.disk.iter().flatten().map(|image| &image.says).collect();
        let (names, waits): (Vec<&Summary>, Vec<&Summary>) = disk.iter().partition(|says| says.granted.is_some());
        let same = names.len() == held.len()
            && held.iter().all(|lock| names.iter().any(|says| says.lock == lock.lock && says.granted == lock.granted))
            && waits.iter().all(|says| waiting.iter().any(|lock| lock.lock == says.lock));
        self.writes.is_empty()
            && reign.master.is_at_rest()
            && self.clients.iter().all(served)
            && self.nodes.iter().all(ready)
            && orphans
            && same
    }
}

impl World {
    /// The next step of the scheduler.
    fn next_healing(&self, state: &State) -> Option<Action> {
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        let ranked = actions.into_iter().filter_map(|action| Some((rank(state, &action)?, action)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, action)| action)
    }

    /// Where the first way that does not come to rest ends. With a rule left out, that is no news.
    fn tell(&self, steps: &[String], end: &State) {
        if self.without.is_none() {
            eprintln!("without faults it ends in this way:");
            steps.iter().for_each(|step| eprintln!("       {step}"));
            eprintln!("  with {end:#?}");
        }
    }

    /// Whether everything comes to rest from here.
    pub(super) fn heals(&self, state: &State) -> bool {
        let mut known = self.healed.0.lock().expect("nobody panics here");
        let mut way = Vec::new();
        let mut here = state.clone();
        let mut steps = Vec::new();
        for _ in 0..PATIENCE {
            let name = hash(&here);
            if known.contains(&name) {
                break;
            }
            way.push(name);
            let next = self.next_healing(&here);
            let next = next.and_then(|action| {
                steps.push(self.format_action(&action));
                self.next_state(&here, action)
            });
            let Some(next) = next else {
                if !here.is_at_rest() {
                    self.tell(&steps, &here);
                    return false;
                }
                break;
            };
            here = next;
        }
        let ended = way.len() < PATIENCE;
        known.extend(way.into_iter().filter(|_| ended));
        ended
    }
}
