//! What can happen next.

use super::catalogue::Left;
use super::heal::Healed;
use super::state::*;
use super::table::config;
use super::{Bounds, Step, promises};
use crate::kept::Hashed;
use mxlock_dlm::model::ModelMember;
use mxlock_dlm::planted::plant;
use mxlock_format::Epoch;
use stateright::{Model, Property};

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Action {
    Ask(usize, Ask),
    GiveUp(usize),
    Cancel(usize),
    TimeOut(usize),
    Die(usize),
    Cut(usize),
    Greet(usize),
    EndLifetime(usize),
    Crash(usize),
    Restart(usize),
    Report(usize),
    LoseLease(usize),
    RegainLease(usize),
    Up(usize),
    Down(usize),
    Leave(usize),
    Gone(usize),
    See(usize),
    Admit(usize),
    Exclude(usize),
    Expire(usize),
    Elect(u8),
    LosePatience,
    Activate(u8),
    MasterDies(Option<usize>),
    HandOver,
    Resign,
    Behind(u32),
    Land(usize),
    Vanish(usize),
    Fail(usize),
}

/// The model within its bounds, with all rules or without one.
pub(super) struct World {
    pub(super) bounds: &'static Bounds,
    pub(super) without: Option<Left>,
    pub(super) healed: Healed,
}

/// Leaves a rule of the code out for as long as it lives.
struct Planted;

impl Drop for Planted {
    fn drop(&mut self) {
        plant(None);
    }
}

impl World {
    pub(super) fn new(bounds: &'static Bounds, without: Option<Left>) -> World {
        World { bounds, without, healed: Healed::default() }
    }

    pub(super) fn without(&self, rule: Left) -> bool {
        self.without == Some(rule)
    }

    fn plant(&self) -> Planted {
        if let Some(Left::Code(bug)) = self.without {
            plant(Some(bug));
        }
        Planted
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let node = |node: usize| Node {
            up: true,
            incarnation: 1,
            admitted: false,
            lease: true,
            leaving: false,
            member: Hashed::new(ModelMember::new(&config(node, 1, self.bounds.slots))),
            to_master: vec![],
            from_master: vec![],
        };
        let client = |asks: u8| Client {
            lives: true,
            session: None,
            connected: false,
            attached: false,
            overdue: false,
            held: None,
            asking: None,
            seq: 0,
            op: 0,
            asks,
        };
        let mut step = Step {
            world: self,
            state: State {
                disk: [const { None }; SLOTS],
                writes: vec![],
                epoch: Epoch(100),
                table_epoch: Epoch(100),
                members: (1 << NODES) - 1,
                reign: None,
                nodes: [node(0), node(1)],
                clients: self.bounds.clients.iter().map(|part| client(part.asks)).collect(),
                faults: self.bounds.faults,
                ghost: Ghost::default(),
            },
        };
        step.elect(0);
        step.activate(0);
        for node in 0..NODES {
            step.admit(node);
            step.report(node);
            while step.can_hear(node) {
                step.take_up(node);
            }
        }
        for client in 0..step.state.clients.len() {
            step.greet(client);
        }
        vec![step.sealed()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.client_actions(state, actions);
        self.node_actions(state, actions);
        self.master_actions(state, actions);
        let epoch = state.reign.as_ref().map(|reign| reign.epoch);
        for (at, write) in state.writes.iter().enumerate() {
            actions.push(Action::Land(at));
            if Some(write.reign) != epoch {
                actions.push(Action::Vanish(at));
            } else if state.faults.errors > 0 {
                actions.push(Action::Fail(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let _planted = self.plant();
        let mut step = Step { world: self, state: last.clone() };
        step.take(action);
        let state = step.sealed();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<World>> {
        promises::all(self.bounds)
    }

    fn format_action(&self, action: &Action) -> String {
        describe(action)
    }
}

impl World {
    fn client_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (at, client) in state.clients.iter().enumerate() {
            let node = &state.nodes[self.bounds.clients[at].home];
            if node.up {
                let expiring = |session| node.member.orphaned().contains(&session);
                if client.session.is_some_and(expiring) {
                    actions.push(Action::EndLifetime(at));
                }
                if client.session.is_some_and(|session| node.member.timed().iter().any(|id| id.session == session)) {
                    actions.push(Action::TimeOut(at));
                }
            }
            if !client.lives {
                continue;
            }
            if client.attached && node.lease && client.asking.is_none() && client.asks > 0 && !node.leaving {
                for &ask in self.bounds.clients[at].menu {
                    let possible = match (ask, client.held) {
                        (Ask::Convert(from, _), Some(held)) => held.mode == from,
                        (Ask::Convert(..), None) => false,
                        (_, held) => held.is_none(),
                    };
                    if possible {
                        actions.push(Action::Ask(at, ask));
                    }
                }
            }
            if client.held.is_some() && client.asking.is_none() && (node.lease || !node.up) {
                actions.push(Action::GiveUp(at));
            }
            if client.attached
                && matches!(client.asking, Some(Asking::New(_)))
                && (self.bounds.impatient || state.has_persistent_orphan())
            {
                actions.push(Action::Cancel(at));
            }
            if state.faults.deaths > 0 {
                actions.push(Action::Die(at));
            }
            if client.attached && state.faults.cuts > 0 {
                actions.push(Action::Cut(at));
            }
            if !client.connected && node.up && node.lease && !node.leaving {
                actions.push(Action::Greet(at));
            }
        }
    }

    fn node_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (at, node) in state.nodes.iter().enumerate() {
            if !node.up {
                if !node.leaving {
                    actions.push(Action::Restart(at));
                }
                continue;
            }
            if state.faults.crashes > 0 && !node.leaving {
                actions.push(Action::Crash(at));
            }
            if state.faults.leases > 0 && node.lease && node.admitted {
                actions.push(Action::LoseLease(at));
            }
            if !node.lease {
                actions.push(Action::RegainLease(at));
                continue;
            }
            let reign = state.reign.as_ref();
            if reign.is_some_and(|reign| {
                node.admitted && state.is_member(at) && node.member.reported() != Some(reign.epoch)
            }) {
                actions.push(Action::Report(at));
            }
            if !node.from_master.is_empty() {
                actions.push(Action::Down(at));
            }
            if reign.is_some() && !node.to_master.is_empty() {
                actions.push(Action::Up(at));
            }
            if state.faults.leaves > 0 && node.admitted && !node.leaving {
                actions.push(Action::Leave(at));
            }
            if node.leaving
                && state.active().is_some_and(|reign| node.member.reported() == Some(reign.epoch))
                && node.to_master.is_empty()
            {
                actions.push(Action::Gone(at));
            }
        }
    }

    fn master_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let dead = state.dead();
        let may_exclude = dead != 0 && u32::from(state.faults.exclusions) >= dead.count_ones();
        let Some(reign) = &state.reign else {
            if state.writes.iter().all(|write| write.late) || self.without(Left::WaitForWrites) {
                actions.push(Action::Elect(0));
                if may_exclude {
                    actions.push(Action::Elect(dead));
                }
            }
            return;
        };
        if state.faults.deposed > 0 {
            actions.push(Action::MasterDies(None));
            if state.faults.late > 0 {
                actions.extend((0..state.writes.len()).map(|at| Action::MasterDies(Some(at))));
            }
        }
        let active = reign.master.is_active();
        if active && state.faults.handovers > 0 {
            actions.push(Action::HandOver);
        }
        if reign.draining {
            if reign.master.is_drained() {
                actions.push(Action::Resign);
            }
            return;
        }
        if reign.master.is_hearing() && (self.bounds.unheard || dead != 0) {
            actions.push(Action::LosePatience);
        }
        if reign.rewritten {
            actions.push(Action::Activate(0));
            if may_exclude {
                actions.push(Action::Activate(dead));
            }
        }
        for (at, node) in state.nodes.iter().enumerate() {
            if node.up && node.incarnation != reign.seen[at] && state.is_member(at) {
                actions.push(Action::See(at));
            }
            if !active {
                continue;
            }
            if node.up && node.lease && !node.admitted && !node.leaving {
                actions.push(Action::Admit(at));
            }
            if dead & (1 << at) != 0 && state.faults.exclusions > 0 {
                actions.push(Action::Exclude(at));
            }
        }
        if active {
            actions.extend(reign.master.slots_behind().into_iter().map(Action::Behind));
            actions.extend(reign.master.nodes_with_orphans().iter().map(|node| Action::Expire(node.index())));
        }
    }
}

impl Step<'_> {
    pub(super) fn take(&mut self, action: Action) {
        let faults = &mut self.state.faults;
        match action {
            Action::Ask(client, ask) => self.ask(client, ask),
            Action::GiveUp(client) => self.give_up(client),
            Action::Cancel(client) => self.cancel(client),
            Action::TimeOut(client) => self.time_out(client),
            Action::Die(client) => {
                faults.deaths -= 1;
                self.die(client);
            }
            Action::Cut(client) => {
                faults.cuts -= 1;
                self.cut(client);
            }
            Action::Greet(client) => self.greet(client),
            Action::EndLifetime(client) => self.end_lifetime(client),
            Action::Crash(node) => {
                faults.crashes -= 1;
                self.crash(node);
            }
            Action::Restart(node) => self.restart(node),
            Action::Report(node) => self.report(node),
            Action::LoseLease(node) => {
                faults.leases -= 1;
                self.lose_lease(node);
            }
            Action::RegainLease(node) => self.regain_lease(node),
            Action::Up(node) => self.take_up(node),
            Action::Down(node) => self.take_down(node),
            Action::Leave(node) => {
                faults.leaves -= 1;
                self.leave(node);
            }
            Action::Gone(node) => self.gone(node),
            Action::See(node) => self.see(node),
            Action::Admit(node) => self.admit(node),
            Action::Exclude(node) => self.purge(node),
            Action::Expire(node) => self.expire(node),
            Action::Elect(exclude) => self.elect(exclude),
            Action::LosePatience => self.lose_patience(),
            Action::Activate(exclude) => self.activate(exclude),
            Action::MasterDies(hangs) => {
                faults.deposed -= 1;
                if let Some(at) = hangs {
                    faults.late -= 1;
                    self.state.writes[at].late = true;
                }
                self.end_reign();
            }
            Action::HandOver => {
                faults.handovers -= 1;
                self.hand_over();
            }
            Action::Resign => self.end_reign(),
            Action::Behind(slot) => self.look_behind(slot),
            Action::Land(at) => self.land(at),
            Action::Vanish(at) => {
                self.state.writes.remove(at);
            }
            Action::Fail(at) => {
                faults.errors -= 1;
                self.fail(at);
            }
        }
        if self.world.bounds.prompt {
            self.be_prompt();
        }
    }

    /// A daemon that was restarted is seen at once.
    fn be_prompt(&mut self) {
        for node in 0..NODES {
            let at = &self.state.nodes[node];
            let new = |reign: &Reign| !reign.draining && reign.seen[node] != at.incarnation;
            if at.up && self.state.is_member(node) && self.state.reign.as_ref().is_some_and(new) {
                self.see(node);
            }
        }
    }

    fn sealed(mut self) -> State {
        self.state.nodes.iter_mut().for_each(|node| node.member.seal());
        if let Some(reign) = &mut self.state.reign {
            reign.master.seal();
        }
        self.state
    }
}

fn describe(action: &Action) -> String {
    match action {
        Action::Ask(client, ask) => match ask {
            Ask::Lock(mode) => format!("client {client} asks for {mode}"),
            Ask::Persistent(mode) => format!("client {client} asks for {mode} PERSISTENT"),
            Ask::Lingering(mode) => format!("client {client} asks for {mode} with a lifetime as an orphan"),
            Ask::Timed(mode) => format!("client {client} asks for {mode} for a while"),
            Ask::NoQueue(mode) => format!("client {client} asks for {mode} NOQUEUE"),
            Ask::Adopt(mode) => format!("client {client} asks to adopt an orphan in {mode}"),
            Ask::AdoptPersistent(mode) => format!("client {client} asks to adopt an orphan in {mode} PERSISTENT"),
            Ask::Convert(from, to) => format!("client {client} asks to convert {from} to {to}"),
        },
        Action::GiveUp(client) => format!("client {client} gives its lock up"),
        Action::Cancel(client) => format!("client {client} waits no longer"),
        Action::TimeOut(client) => format!("the time of client {client}'s request is over"),
        Action::Die(client) => format!("the process of client {client} ends"),
        Action::Cut(client) => format!("client {client} loses its connection"),
        Action::Greet(client) => format!("client {client} is back"),
        Action::EndLifetime(client) => {
            format!("the orphans of client {client} have lived long enough, says its daemon")
        }
        Action::Crash(node) => format!("the daemon of node {node} crashes"),
        Action::Restart(node) => format!("the daemon of node {node} starts again"),
        Action::Report(node) => format!("node {node} reports"),
        Action::LoseLease(node) => format!("node {node} loses its lease"),
        Action::RegainLease(node) => format!("node {node} has its disk back"),
        Action::Up(node) => format!("the master hears node {node}"),
        Action::Down(node) => format!("node {node} hears the master"),
        Action::Leave(node) => format!("node {node} leaves and releases its locks"),
        Action::Gone(node) => format!("the view without node {node}"),
        Action::See(node) => format!("the master sees the incarnation of node {node}"),
        Action::Admit(node) => format!("node {node} is admitted"),
        Action::Exclude(node) => format!("node {node} is excluded"),
        Action::Expire(node) => format!("the orphans of node {node} have lived long enough, says the master"),
        Action::Elect(0) => "a new master reads the table".into(),
        Action::Elect(exclude) => format!("a new master excludes the dead ({exclude:02b}) and reads the table"),
        Action::LosePatience => "it has waited long enough, and goes on without the rest".into(),
        Action::Activate(0) => "its table is on disk: the view is active".into(),
        Action::Activate(exclude) => {
            format!("its table is on disk: the view is active, without the dead ({exclude:02b})")
        }
        Action::MasterDies(None) => "the master dies".into(),
        Action::MasterDies(Some(write)) => format!("the master dies, and write {write} hangs"),
        Action::HandOver => "the master begins to hand over".into(),
        Action::Resign => "it has drained its writes and resigns".into(),
        Action::Behind(slot) => format!("slot {slot} is looked at behind"),
        Action::Land(write) => format!("write {write} lands"),
        Action::Vanish(write) => format!("write {write} never lands"),
        Action::Fail(write) => format!("write {write} ends in an error, and may land"),
    }
}
