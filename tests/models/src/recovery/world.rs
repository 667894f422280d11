//! What can happen next.

use super::catalogue::Left;
use super::state::*;
use super::{Bounds, Step};
use mxlock_dlm::table::Standing;
use mxlock_format::Mode;
use stateright::{Model, Property};

/// What a client may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Lock(Mode),
    Persistent(Mode),
    NoQueue(Mode),
    Adopt(Mode),
    Convert(Mode, Mode),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Action {
    Ask(u8, Ask),
    GiveUp(u8),
    GiveUpWaiting(u8),
    Die(u8),
    Crash(u8),
    Restart(u8),
    Reconnect(u8),
    Report(u8),
    LoseLease(u8),
    RegainLease(u8),
    Up(u8),
    Down(u8),
    Elect { exclude: u8 },
    Rebuild,
    Activate,
    MasterDies { late: Option<u8> },
    Behind(u8),
    See(u8),
    Exclude(u8),
    Expire(u8),
    Done(u8),
    Lost(u8),
    Failed(u8),
}

/// The model within its bounds, with all rules or without one.
pub(super) struct World {
    pub(super) bounds: &'static Bounds,
    pub(super) without: Option<Left>,
}

impl World {
    fn without(&self, rule: Left) -> bool {
        self.without == Some(rule)
    }

    fn sessions(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.bounds.sessions
    }
}

impl State {
    /// Whether the master can take the next message of a node.
    fn hears(&self, at: u8) -> bool {
        let Some(master) = &self.master else { return false };
        let node = &self.nodes[usize::from(at)];
        match node.to_master.first() {
            Some(Up::Report(_)) => true,
            Some(_) => master.phase == Phase::Active && master.reported[usize::from(at)] == Some(node.incarnation),
            None => false,
        }
    }

    /// Whether the master has not seen yet that a daemon was restarted.
    fn is_replaced(&self, at: u8) -> bool {
        let node = &self.nodes[usize::from(at)];
        self.master.as_ref().is_some_and(|master| node.up && node.incarnation != master.seen[usize::from(at)])
    }

    /// Whether a client relies on a lock now: not while its node's lease is lost.
    fn relies(&self, world: &World, session: u8) -> Option<Held> {
        let node = &self.nodes[usize::from(world.bounds.homes[usize::from(session)])];
        self.clients[usize::from(session)].held.filter(|_| node.lease || !node.up)
    }

    /// Whether the disk names a lock of the session with at least this mode, however the writes under way end.
    fn is_named(&self, world: &World, session: u8, held: Held) -> bool {
        let names = |record: &Option<Record>| {
            record.is_some_and(|record| {
                record.id.session == session
                    && record.stamp >= self.table_epoch
                    && Durable::of(&record).covers(held.mode, held.persistent)
            })
        };
        (0..SLOTS as u8).any(|slot| {
            let lands = |write: &&Write| write.slot == slot && !(write.late && world.bounds.late_on_empty);
            let mut writes = self.writes.iter().filter(lands);
            names(&self.disk[usize::from(slot)]) && writes.all(|write| names(&write.image))
        })
    }

    /// Whether the table that is in force has a lock of the session with at least this mode.
    fn is_in_table(&self, session: u8, held: Held) -> bool {
        let Some(master) = self.master.as_ref().filter(|master| master.phase == Phase::Active) else { return true };
        let covers = |mode: Option<Mode>| mode.is_some_and(|mode| mode.covers(held.mode));
        master.locks.iter().any(|lock| {
            lock.id.session == session
                && (covers(lock.granted) || (lock.standing == Standing::Possible && covers(lock.wanted)))
        })
    }
}

fn no_conflict(world: &World, state: &State) -> bool {
    world.sessions().all(|one| {
        (0..one).all(|other| match (state.relies(world, one), state.relies(world, other)) {
            (Some(one), Some(other)) => one.mode.compatible(other.mode),
            _ => true,
        })
    })
}

fn all_named(world: &World, state: &State) -> bool {
    world.sessions().all(|session| match state.relies(world, session) {
        Some(held) => held.mode == Mode::NL || state.is_named(world, session, held),
        None => true,
    })
}

fn all_kept(world: &World, state: &State) -> bool {
    world.sessions().all(|session| match state.relies(world, session) {
        Some(held) => state.is_in_table(session, held),
        None => true,
    })
}

fn left_stays(world: &World, state: &State) -> bool {
    let _ = world;
    state.left.iter().all(|id| {
        state
            .disk
            .iter()
            .flatten()
            .any(|record| record.id == *id && record.stamp >= state.table_epoch && record.granted.is_some())
    })
}

fn released_stays(world: &World, state: &State) -> bool {
    let _ = world;
    let Some(master) = state.master.as_ref().filter(|master| master.phase == Phase::Active) else { return true };
    !master.locks.iter().any(|lock| lock.granted.is_some() && state.ended.contains(&lock.id))
}

pub(super) const I1: &str = "I1 no two clients rely on incompatible modes";
pub(super) const I2: &str = "I2 tokens increase";
pub(super) const I3: &str = "I3 every lock that a client relies on is named on disk";
pub(super) const I5: &str = "I5 a lock stays in the table until it is given up or its owner is dead";
pub(super) const I9: &str = "I9 a valid value is the last one written";
pub(super) const OUTLIVES: &str = "a PERSISTENT lock outlives its owner";
pub(super) const RELEASED: &str = "a released PERSISTENT lock does not come back";

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let node = |node: u8| Node {
            up: true,
            incarnation: 1,
            admitted: true,
            lease: true,
            reported: true,
            sessions: self.sessions().filter(|s| self.bounds.homes[usize::from(*s)] == node).map(|s| 1 << s).sum(),
            locks: vec![],
            to_master: vec![],
            from_master: vec![],
        };
        let client = |session: usize| Client {
            lives: session < usize::from(self.bounds.sessions),
            attached: session < usize::from(self.bounds.sessions),
            held: None,
            asking: Asking::Nothing,
            seq: 0,
            asks: self.bounds.asks[session],
        };
        let mut step = Step {
            world: self,
            state: State {
                disk: [None; SLOTS],
                writes: vec![],
                epoch: 0,
                table_epoch: 0,
                members: (1 << NODES) - 1,
                master: None,
                nodes: [node(0), node(1)],
                clients: [client(0), client(1), client(2)],
                faults: self.bounds.faults,
                written: NO_VALUE,
                values: 0,
                token: (0, 0),
                left: vec![],
                ended: vec![],
                stale_read: false,
                old_read: false,
                old_token: false,
            },
            effects: vec![],
        };
        step.elect();
        step.rebuild();
        step.activate();
        step.master_mut().reported = [Some(1); NODES];
        vec![step.state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.client_actions(state, actions);
        self.node_actions(state, actions);
        self.master_actions(state, actions);
        let reign = state.master.as_ref().map(|master| master.reign);
        for (write, at) in state.writes.iter().zip(0..) {
            actions.push(Action::Done(at));
            if Some(write.reign) != reign {
                actions.push(Action::Lost(at));
            } else if state.faults.errors > 0 {
                actions.push(Action::Failed(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut step = Step { world: self, state: last.clone(), effects: vec![] };
        step.take(action);
        if self.bounds.prompt {
            step.be_prompt();
        }
        debug_assert!(step.effects.is_empty());
        (step.state != *last).then_some(step.state)
    }

    fn properties(&self) -> Vec<Property<World>> {
        let mut properties = vec![
            Property::always(I1, no_conflict),
            Property::always(I2, |_, state: &State| !state.old_token),
            Property::always(I3, all_named),
            Property::always(I5, all_kept),
            Property::always(I9, |_, state: &State| !state.stale_read),
            Property::always(OUTLIVES, left_stays),
            Property::always(RELEASED, released_stays),
        ];
        if self.bounds.late_on_empty {
            // Where A2 fails, a late write and a second failure together can lose a lock (section 10).
            properties.retain(|property| property.name == RELEASED);
        }
        if self.bounds.values && self.bounds.reigns > 1 {
            properties.push(Property::sometimes("a value outlives a master", |_, state: &State| state.old_read));
        }
        properties
    }

    fn format_action(&self, action: &Action) -> String {
        describe(action)
    }
}

impl World {
    fn client_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for session in self.sessions() {
            let client = &state.clients[usize::from(session)];
            let node = &state.nodes[usize::from(self.bounds.homes[usize::from(session)])];
            if !client.lives {
                continue;
            }
            if client.attached && node.lease && client.asking == Asking::Nothing && client.asks > 0 {
                for &ask in self.bounds.menu[usize::from(session)] {
                    let possible = match (ask, client.held) {
                        (Ask::Convert(from, _), Some(held)) => held.mode == from,
                        (Ask::Adopt(_), None) => node.reported,
                        (Ask::Lock(_) | Ask::Persistent(_) | Ask::NoQueue(_), None) => true,
                        _ => false,
                    };
                    if possible {
                        actions.push(Action::Ask(session, ask));
                    }
                }
            }
            let idle = client.asking == Asking::Nothing || !client.attached;
            if client.held.is_some() && idle && (node.lease || !node.up) {
                actions.push(Action::GiveUp(session));
            }
            if self.bounds.impatient && client.attached && matches!(client.asking, Asking::Lock { .. }) {
                actions.push(Action::GiveUpWaiting(session));
            }
            if state.faults.deaths > 0 {
                actions.push(Action::Die(session));
            }
            let asked =
                node.to_master.iter().any(|message| matches!(message, Up::Claim { session: s, .. } if *s == session))
                    || node.from_master.iter().any(|m| matches!(m, Down::Claimed { session: s, .. } if *s == session));
            if !client.attached && node.up && node.reported && !asked {
                actions.push(Action::Reconnect(session));
            }
        }
    }

    fn node_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (node, at) in state.nodes.iter().zip(0..) {
            if !node.up {
                actions.push(Action::Restart(at));
                continue;
            }
            if state.faults.crashes > 0 {
                actions.push(Action::Crash(at));
            }
            if state.faults.leases > 0 && node.lease && node.admitted {
                actions.push(Action::LoseLease(at));
            }
            if !node.lease {
                actions.push(Action::RegainLease(at));
                continue;
            }
            let member = state.members & (1 << at) != 0;
            if state.master.is_some() && !node.reported && node.admitted && member {
                actions.push(Action::Report(at));
            }
            if !node.from_master.is_empty() {
                actions.push(Action::Down(at));
            }
            let Some(master) = &state.master else { continue };
            let hears = match node.to_master.first() {
                Some(Up::Report(_)) => true,
                Some(_) => master.phase == Phase::Active && master.reported[usize::from(at)] == Some(node.incarnation),
                None => false,
            };
            if hears {
                actions.push(Action::Up(at));
            }
        }
    }

    fn master_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Some(master) = &state.master else {
            let waits = state.writes.iter().any(|write| !write.late);
            if state.epoch < self.bounds.reigns && !waits {
                let dead = state.nodes.iter().zip(0..).filter(|(node, _)| !node.up || !node.lease);
                let dead: u8 = dead.map(|(_, at)| 1 << at).sum::<u8>() & state.members;
                actions.push(Action::Elect { exclude: 0 });
                if state.faults.exclusions > 0 && dead != 0 {
                    actions.push(Action::Elect { exclude: dead });
                }
            }
            return;
        };
        if state.epoch < self.bounds.reigns {
            actions.push(Action::MasterDies { late: None });
            if state.faults.late > 0 {
                let late = state.writes.iter().zip(0..).map(|(_, at)| Action::MasterDies { late: Some(at) });
                actions.extend(late);
            }
        }
        match master.phase {
            Phase::Hearing if master.awaited == 0 || self.bounds.unheard => actions.push(Action::Rebuild),
            Phase::Rewriting if !state.writes.iter().any(|write| write.reign == master.reign) => {
                actions.push(Action::Activate);
            }
            Phase::Hearing | Phase::Rewriting => {}
            Phase::Active => {
                for (slot, at) in master.slots.iter().zip(0..) {
                    if slot.behind {
                        actions.push(Action::Behind(at));
                    }
                }
            }
        }
        for (node, at) in state.nodes.iter().zip(0..) {
            let member = state.members & (1 << at) != 0;
            if node.up
                && (node.incarnation != master.seen[usize::from(at)] || !node.admitted && master.phase == Phase::Active)
            {
                actions.push(Action::See(at));
            }
            if !member && node.admitted && self.without(Left::NewIncarnation) && master.phase == Phase::Active {
                actions.push(Action::See(at));
            }
            if master.phase == Phase::Active {
                if member && state.faults.exclusions > 0 && (!node.up || !node.lease) {
                    actions.push(Action::Exclude(at));
                }
                let over = |lock: &Lock| lock.node == at && lock.expires && lock.standing == Standing::Possible;
                if master.locks.iter().any(over) {
                    actions.push(Action::Expire(at));
                }
            }
        }
    }
}

impl Step<'_> {
    fn take(&mut self, action: Action) {
        match action {
            Action::Ask(session, ask) => match ask {
                Ask::Lock(mode) => self.ask(session, mode, false, false, false),
                Ask::Persistent(mode) => self.ask(session, mode, true, false, false),
                Ask::NoQueue(mode) => self.ask(session, mode, false, true, false),
                Ask::Adopt(mode) => self.ask(session, mode, false, false, true),
                Ask::Convert(from, to) => {
                    let gives = self.world.bounds.values && from >= Mode::PW && from.covers(to);
                    self.ask_conversion(session, to, gives);
                }
            },
            Action::GiveUp(session) => {
                let client = *self.client(session);
                let writes = client.held.is_some_and(|held| held.mode >= Mode::PW);
                self.give_up(session, self.world.bounds.values && writes);
            }
            Action::GiveUpWaiting(session) => self.give_up_waiting(session),
            Action::Die(session) => {
                self.state.faults.deaths -= 1;
                self.die(session);
            }
            Action::Crash(node) => {
                self.state.faults.crashes -= 1;
                self.crash(node);
            }
            Action::Restart(node) => self.restart(node),
            Action::Reconnect(session) => self.reconnect(session),
            Action::Report(node) => self.report_to_master(node),
            Action::LoseLease(node) => {
                self.state.faults.leases -= 1;
                self.lose_lease(node);
            }
            Action::RegainLease(node) => self.regain_lease(node),
            Action::Up(node) => {
                let message = self.node(node).to_master.remove(0);
                self.handle(node, message);
            }
            Action::Down(node) => {
                let message = self.node(node).from_master.remove(0);
                self.hear(node, message);
            }
            Action::Elect { exclude } => self.take_over(exclude),
            Action::Rebuild => self.rebuild(),
            Action::Activate => self.activate(),
            Action::MasterDies { late } => self.master_dies(late),
            Action::Behind(slot) => self.write_behind(slot),
            Action::See(node) => {
                let incarnation = self.node(node).incarnation;
                self.replaced(node, incarnation);
                if self.master().phase == Phase::Active {
                    self.admit(node);
                    if self.without(Left::NewIncarnation) {
                        self.state.members |= 1 << node;
                    }
                }
            }
            Action::Exclude(node) => {
                self.state.faults.exclusions -= 1;
                self.exclude(node);
                self.purge_node(node);
            }
            Action::Expire(node) => {
                if !self.without(Left::OrphanWaits) {
                    self.deadline(node);
                }
                self.expire(node);
            }
            Action::Done(at) => self.done(at),
            Action::Lost(at) => {
                self.state.writes.remove(at.into());
            }
            Action::Failed(at) => {
                self.state.faults.errors -= 1;
                if self.without(Left::WaitForWrites) {
                    self.state.writes[usize::from(at)].late = true;
                }
                self.master_dies(None);
            }
        }
    }

    /// What the members send arrives at once, and a daemon that was restarted is seen at once.
    fn be_prompt(&mut self) {
        for node in 0..NODES as u8 {
            if self.state.is_replaced(node) {
                self.take(Action::See(node));
            }
            while self.state.hears(node) {
                self.take(Action::Up(node));
            }
        }
    }

    /// A write lands. If its master lives, it hears of it.
    fn done(&mut self, at: u8) {
        let write = self.state.writes.remove(at.into());
        let sector = &mut self.state.disk[usize::from(write.slot)];
        if write.late && self.world.bounds.late_on_empty && sector.is_some() {
            return;
        }
        *sector = write.image;
        if self.state.master.as_ref().is_some_and(|master| master.reign == write.reign && master.phase == Phase::Active)
        {
            self.record_written(write);
        }
    }

    /// The master dies, or resigns after a write that ended in an error: what is under way may land.
    fn master_dies(&mut self, late: Option<u8>) {
        if let Some(at) = late {
            self.state.faults.late -= 1;
            self.state.writes[usize::from(at)].late = true;
        }
        if self.without(Left::NoWriteAfterLease) {
            // It does not know yet, and writes on.
            for slot in 0..self.world.bounds.slots {
                if self.slot(slot).behind {
                    self.write_behind(slot);
                }
            }
            self.state.writes.iter_mut().for_each(|write| write.late = true);
        }
        self.state.master = None;
        for node in &mut self.state.nodes {
            node.reported = false;
            node.to_master.clear();
        }
    }

    fn take_over(&mut self, exclude: u8) {
        if exclude != 0 {
            self.state.faults.exclusions -= 1;
        }
        for node in (0..NODES as u8).filter(|node| exclude & (1 << node) != 0) {
            self.exclude(node);
        }
        self.elect();
    }

    /// The clients of a daemon that has lost its memory, and has not taken them up again, have passed their deadline.
    fn deadline(&mut self, node: u8) {
        for session in 0..self.world.bounds.sessions {
            let client = *self.client(session);
            if self.node_of(session) == node && !client.attached {
                if client.held.is_some_and(|held| held.mode >= Mode::PW) {
                    self.state.written = NO_VALUE;
                }
                let client = self.client(session);
                client.held = None;
                if !matches!(client.asking, Asking::Lock { .. }) {
                    client.asking = Asking::Nothing;
                }
            }
        }
    }
}

fn describe(action: &Action) -> String {
    match action {
        Action::Ask(session, ask) => match ask {
            Ask::Lock(mode) => format!("client {session} asks for {mode}"),
            Ask::Persistent(mode) => format!("client {session} asks for {mode} PERSISTENT"),
            Ask::NoQueue(mode) => format!("client {session} asks for {mode} NOQUEUE"),
            Ask::Adopt(mode) => format!("client {session} asks to adopt an orphan in {mode}"),
            Ask::Convert(from, to) => format!("client {session} asks to convert {from} to {to}"),
        },
        Action::GiveUp(session) => format!("client {session} gives its lock up"),
        Action::GiveUpWaiting(session) => format!("client {session} waits no longer"),
        Action::Die(session) => format!("the process of client {session} ends"),
        Action::Crash(node) => format!("the daemon of node {node} crashes"),
        Action::Restart(node) => format!("the daemon of node {node} starts again"),
        Action::Reconnect(session) => format!("client {session} claims its session"),
        Action::Report(node) => format!("node {node} reports"),
        Action::LoseLease(node) => format!("node {node} loses its lease"),
        Action::RegainLease(node) => format!("node {node} has its disk back"),
        Action::Up(node) => format!("the master hears node {node}"),
        Action::Down(node) => format!("node {node} hears the master"),
        Action::Elect { exclude: 0 } => "a new master reads the table".into(),
        Action::Elect { exclude } => format!("a new master excludes the dead ({exclude:02b}) and reads the table"),
        Action::Rebuild => "it has heard enough and begins to rewrite the table".into(),
        Action::Activate => "its table is on disk: the view is active".into(),
        Action::MasterDies { late: None } => "the master dies".into(),
        Action::MasterDies { late: Some(write) } => format!("the master dies, write {write} hangs"),
        Action::Behind(slot) => format!("slot {slot} is looked at behind"),
        Action::See(node) => format!("the master sees the incarnation of node {node}"),
        Action::Exclude(node) => format!("node {node} is excluded"),
        Action::Expire(node) => format!("the orphans of node {node} have lived long enough"),
        Action::Done(write) => format!("write {write} lands"),
        Action::Lost(write) => format!("write {write} never lands"),
        Action::Failed(write) => format!("write {write} ends in an error, and may land"),
    }
}
