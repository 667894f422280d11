//! What must hold in every state, and what must happen at all.

use super::Bounds;
use super::state::*;
use super::world::World;
use mxlock_dlm::table::Standing;
use mxlock_format::Mode;
use stateright::Property;

impl State {
    /// What a client relies on now: nothing while its node's lease is lost.
    fn relies(&self, world: &World, client: usize) -> Option<Mode> {
        let node = &self.nodes[world.bounds.clients[client].home];
        self.clients[client].relies().filter(|_| node.lease || !node.up)
    }
}

fn no_conflict(world: &World, state: &State) -> bool {
    (0..state.clients.len()).all(|one| {
        (0..one).all(|other| match (state.relies(world, one), state.relies(world, other)) {
            (Some(one), Some(other)) => one.compatible(other),
            _ => true,
        })
    })
}

fn all_named(world: &World, state: &State) -> bool {
    (0..state.clients.len()).all(|client| match (state.relies(world, client), &state.clients[client]) {
        (Some(mode), Client { session: Some(session), held: Some(held), .. }) if mode != Mode::NL => {
            state.is_named(*session, mode, held.persistent)
        }
        _ => true,
    })
}

fn all_kept(world: &World, state: &State) -> bool {
    let Some(reign) = state.active() else { return true };
    (0..state.clients.len()).all(|client| match (state.relies(world, client), state.clients[client].session) {
        (Some(mode), Some(session)) if mode != Mode::NL => reign.master.locks().any(|lock| {
            let covers = |held: Option<Mode>| held.is_some_and(|held| held.covers(mode));
            let possible = lock.standing == Standing::Possible && covers(lock.wanted);
            lock.lock.session == session && (covers(lock.granted) || possible)
        }),
        _ => true,
    })
}

fn left_stays(_: &World, state: &State) -> bool {
    if state.ghost.left.is_empty() || state.ghost.renounced {
        return true;
    }
    // Under its own name, or that of whoever adopts it.
    let mut sectors = state.disk.iter().flatten().map(|image| &image.says);
    sectors.any(|says| says.persistent && says.stamp >= state.table_epoch && says.granted.is_some())
}

fn released_stays(_: &World, state: &State) -> bool {
    let Some(reign) = state.active() else { return true };
    // As a possible holder it waits for its owner's word.
    let back = |standing| standing != Standing::Possible;
    let mut locks = reign.master.locks().filter(|lock| lock.granted.is_some() && back(lock.standing));
    !locks.any(|lock| state.ghost.ended.contains(&lock.lock))
}

fn in_order(_: &World, state: &State) -> bool {
    state.reign.as_ref().is_none_or(|reign| reign.master.check_invariants().is_ok())
}

pub(super) const I1: &str = "I1 no two clients rely on incompatible modes";
pub(super) const I2: &str = "I2 tokens increase";
pub(super) const I3: &str = "I3 every lock that a client relies on is named on disk";
pub(super) const I5: &str = "I5 a lock stays until it is given up or its owner is dead";
pub(super) const TOLD: &str = "I5 nobody hears that a lock is lost which it relies on";
pub(super) const I9: &str = "I9 a valid value is the last one written";
pub(super) const OUTLIVES: &str = "a PERSISTENT lock outlives its owner";
pub(super) const RELEASED: &str = "what was released or adopted does not come back";
const MEMORY: &str = "the table keeps its invariants";
pub(super) const HEALS: &str = "without faults everything comes to rest";

/// What is asked of every state within the bounds, and what must happen somewhere.
pub(super) fn all(bounds: &Bounds) -> Vec<Property<World>> {
    let mut properties = vec![
        Property::always(I1, no_conflict),
        Property::always(I2, |_, state: &State| state.ghost.broken != Some(Broken::Token)),
        Property::always(I3, all_named),
        Property::always(I5, all_kept),
        Property::always(TOLD, |_, state: &State| state.ghost.broken != Some(Broken::Torn)),
        Property::always(I9, |_, state: &State| state.ghost.broken != Some(Broken::Value)),
        Property::always(OUTLIVES, left_stays),
        Property::always(RELEASED, released_stays),
        Property::always(MEMORY, in_order),
    ];
    if bounds.faults.late > 0 {
        // Where A2 fails, a late write and a second failure together can lose a lock (section 10).
        properties.retain(|property| property.name == RELEASED);
    }
    if bounds.heals {
        properties.push(Property::always(HEALS, |world: &World, state: &State| world.heals(state)));
    }
    let menu = || bounds.clients.iter().flat_map(|part| part.menu);
    if menu().any(|ask| ask.is_adoption()) {
        properties.push(Property::sometimes("an orphan is adopted", |_, state: &State| state.ghost.shown.adopted));
    }
    if bounds.faults.crashes > 0 {
        properties.push(Property::sometimes("a lock is claimed", |_, state: &State| state.ghost.shown.claimed));
    }
    properties
}
