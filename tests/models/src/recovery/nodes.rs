//! Clients and their daemons (`dlm/src/member`).

use super::Step;
use super::catalogue::Left;
use super::state::*;
use mxlock_format::Mode;

/// The strongest mode that both permit.
pub(super) fn common(one: Mode, other: Mode) -> Mode {
    match (one.covers(other), other.covers(one)) {
        (true, _) => other,
        (_, true) => one,
        _ => Mode::CR,
    }
}

impl Step<'_> {
    pub(super) fn node_of(&self, session: u8) -> u8 {
        self.world.bounds.homes[usize::from(session)]
    }

    pub(super) fn node(&mut self, node: u8) -> &mut Node {
        &mut self.state.nodes[usize::from(node)]
    }

    pub(super) fn client(&mut self, session: u8) -> &mut Client {
        &mut self.state.clients[usize::from(session)]
    }

    fn owned_mut(&mut self, id: Id) -> Option<&mut Owned> {
        let node = self.node_of(id.session);
        self.node(node).locks.iter_mut().find(|owned| owned.id == id)
    }

    fn remove_owned(&mut self, id: Id) -> Option<Owned> {
        let node = self.node_of(id.session);
        let locks = &mut self.node(node).locks;
        let at = locks.iter().position(|owned| owned.id == id)?;
        Some(locks.remove(at))
    }

    /// Sends to the master, if this node has reported to it; if not, it is sent after the report.
    fn tell_master(&mut self, session: u8, message: Up) {
        let node = self.node_of(session);
        let node = self.node(node);
        if node.reported {
            node.to_master.push(message);
        }
    }

    fn take_value(&mut self, gives: bool) -> Option<u8> {
        gives.then(|| {
            self.state.values += 1;
            self.state.values
        })
    }

    /// A client asks for a new lock.
    pub(super) fn ask(&mut self, session: u8, wanted: Mode, persistent: bool, noqueue: bool, adopt: bool) {
        let client = self.client(session);
        client.seq += 1;
        client.asks -= 1;
        let id = Id { session, seq: client.seq };
        client.asking = Asking::Lock { seq: id.seq };
        let pending = Pending { wanted, value: None, noqueue: noqueue || adopt, position: 0 };
        let owned = Owned {
            id,
            granted: None,
            pending: Some(pending),
            unlocking: None,
            persistent,
            gone: false,
            token: (0, 0),
            value: None,
        };
        let node = self.node_of(session);
        self.node(node).locks.push(owned);
        self.node(node).locks.sort_by_key(|owned| owned.id);
        let message = if adopt { Up::Adopt { id, mode: wanted } } else { Up::Lock { id, wanted, persistent, noqueue } };
        self.tell_master(session, message);
    }

    /// A client asks for another mode. What it gives up it does not rely on from now on.
    pub(super) fn ask_conversion(&mut self, session: u8, wanted: Mode, gives: bool) {
        let value = self.take_value(gives);
        if let Some(value) = value {
            self.state.written = value;
        }
        let client = self.client(session);
        client.asks -= 1;
        client.asking = Asking::Convert { wanted, value };
        let held = client.held.as_mut().expect("a lock to convert");
        // What both modes permit is left in any case.
        held.mode = common(held.mode, wanted);
        let id = Id { session, seq: held.seq };
        self.owned_mut(id).expect("a lock of an attached client").pending =
            Some(Pending { wanted, value, noqueue: false, position: 0 });
        self.tell_master(session, Up::Convert { id, wanted, value });
    }

    /// A client gives its lock up.
    pub(super) fn give_up(&mut self, session: u8, gives: bool) {
        let value = self.take_value(gives);
        if let Some(value) = value {
            self.state.written = value;
        }
        let client = self.client(session);
        let held = client.held.take().expect("a lock to give up");
        let id = Id { session, seq: held.seq };
        if !client.attached {
            // Its daemon is down: the next one will be told.
            client.asking = Asking::Unlock { seq: held.seq, token: held.token, value };
            return;
        }
        let waits = value.is_some() || held.persistent;
        client.asking =
            if waits { Asking::Unlock { seq: held.seq, token: held.token, value } } else { Asking::Nothing };
        if waits {
            let owned = self.owned_mut(id).expect("a lock of an attached client");
            owned.pending = None;
            owned.unlocking = Some(value);
        } else {
            self.remove_owned(id);
        }
        self.tell_master(session, Up::Unlock { id, value, invalidate: false, answer: waits });
    }

    /// A client no longer waits for its new lock.
    pub(super) fn give_up_waiting(&mut self, session: u8) {
        let Asking::Lock { seq } = self.client(session).asking else { return };
        self.client(session).asking = Asking::Nothing;
        let id = Id { session, seq };
        self.remove_owned(id);
        self.tell_master(session, Up::Unlock { id, value: None, invalidate: false, answer: false });
    }

    /// A client's process ends; its daemon, if it runs, sees it.
    pub(super) fn die(&mut self, session: u8) {
        let client = self.client(session);
        client.lives = false;
        client.asks = 0;
        client.asking = Asking::Nothing;
        let held = client.held.take();
        if held.is_some_and(|held| held.mode >= Mode::PW) {
            self.state.written = NO_VALUE;
        }
        if let Some(held) = held.filter(|held| held.persistent) {
            self.state.left.push(Id { session, seq: held.seq });
        }
        if std::mem::take(&mut self.client(session).attached) {
            self.session_over(session);
        }
    }

    /// A daemon releases what is not PERSISTENT.
    fn session_over(&mut self, session: u8) {
        let node = self.node_of(session);
        let of_session: Vec<Owned> =
            self.node(node).locks.iter().filter(|owned| owned.id.session == session).copied().collect();
        let mut stays = false;
        for owned in of_session {
            let id = owned.id;
            if owned.persistent && owned.granted.is_some() && owned.unlocking.is_none() {
                let owned = self.owned_mut(id).expect("listed");
                owned.pending = None;
                owned.gone = true;
                stays = true;
            } else {
                self.remove_owned(id);
                self.tell_master(session, Up::Unlock { id, value: None, invalidate: true, answer: false });
            }
        }
        if stays {
            self.tell_master(session, Up::Gone { session });
        } else {
            self.node(node).sessions &= !(1 << session);
        }
    }

    /// A daemon dies; its clients go on, and believe in their locks until their deadline.
    pub(super) fn crash(&mut self, node: u8) {
        let at = self.node(node);
        at.up = false;
        at.reported = false;
        at.sessions = 0;
        at.locks.clear();
        at.to_master.clear();
        at.from_master.clear();
        for session in 0..self.world.bounds.sessions {
            if self.node_of(session) == node {
                self.client(session).attached = false;
            }
        }
    }

    /// It is started again. Clients that hold nothing and wait for nothing begin anew.
    pub(super) fn restart(&mut self, node: u8) {
        let at = self.node(node);
        at.up = true;
        at.incarnation += 1;
        at.admitted = false;
        at.lease = true;
    }

    /// The master admits the incarnation that it sees.
    pub(super) fn admit(&mut self, node: u8) {
        let seen = self.master().seen[usize::from(node)];
        let at = self.node(node);
        if at.up && !at.admitted && at.incarnation == seen {
            at.admitted = true;
            self.state.members |= 1 << node;
        }
    }

    /// A client comes back to a daemon that does not know its session.
    pub(super) fn reconnect(&mut self, session: u8) {
        let client = *self.client(session);
        // What is under way may be settled already: what is left of the mode in any case is claimed.
        let leaving = match client.asking {
            Asking::Unlock { seq, token, .. } => Some(Held { seq, mode: Mode::NL, token, persistent: false }),
            _ => None,
        };
        self.tell_master(session, Up::Claim { session, held: client.held.or(leaving) });
    }

    /// Tells the master of this reign what the node holds, and sends the rest again.
    pub(super) fn report_to_master(&mut self, node: u8) {
        let leave = !self.without(Left::ReportLeaves);
        let at = self.node(node);
        at.reported = true;
        at.to_master.clear();
        if leave {
            at.from_master.clear();
        }
        let report = Report { incarnation: at.incarnation, sessions: at.sessions, locks: at.locks.clone() };
        at.to_master.push(Up::Report(report));
        for owned in at.locks.clone() {
            let id = owned.id;
            if let Some(pending) = owned.pending.filter(|pending| pending.position == 0) {
                let Pending { wanted, value, noqueue, .. } = pending;
                let message = match owned.granted {
                    Some(_) => Up::Convert { id, wanted, value },
                    None => Up::Lock { id, wanted, persistent: owned.persistent, noqueue },
                };
                at.to_master.push(message);
            }
            if let Some(value) = owned.unlocking {
                at.to_master.push(Up::Unlock { id, value, invalidate: false, answer: true });
            }
        }
    }

    /// A message of the master.
    pub(super) fn hear(&mut self, node: u8, message: Down) {
        match message {
            Down::Granted { id, mode, token, value, read } => {
                let Some(owned) = self.owned_mut(id) else { return };
                if owned.pending.take_if(|pending| pending.wanted == mode).is_none() {
                    return;
                }
                owned.granted = Some(mode);
                owned.token = token;
                if value.is_some() {
                    owned.value = value;
                }
                let persistent = owned.persistent;
                let client = self.client(id.session);
                client.asking = Asking::Nothing;
                client.held = Some(Held { seq: id.seq, mode, token, persistent });
                // Under CR and CW somebody may be writing it.
                if let Some(value) = value.filter(|value| read && value.valid && mode >= Mode::PR) {
                    self.state.stale_read |= value.bytes != self.state.written;
                    self.state.old_read |= value.epoch < self.state.epoch;
                }
            }
            Down::Queued { id, position } => {
                if let Some(pending) = self.owned_mut(id).and_then(|owned| owned.pending.as_mut()) {
                    pending.position = position;
                }
            }
            Down::Denied { id } => {
                let Some(owned) = self.owned_mut(id) else { return };
                if owned.pending.take().is_none() {
                    return;
                }
                let granted = owned.granted;
                if granted.is_none() {
                    self.remove_owned(id);
                }
                let client = self.client(id.session);
                client.asking = Asking::Nothing;
                if let (Some(mode), Some(held)) = (granted, client.held.as_mut()) {
                    held.mode = mode;
                }
            }
            Down::Unlocked { id } => {
                if self.owned_mut(id).is_some_and(|owned| owned.unlocking.is_some()) {
                    if self.remove_owned(id).is_some_and(|owned| owned.persistent) {
                        self.state.ended.push(id);
                    }
                    self.client(id.session).asking = Asking::Nothing;
                }
            }
            Down::Lost { id } => {
                if self.remove_owned(id).is_some() {
                    self.client(id.session).held = None;
                    self.client(id.session).asking = Asking::Nothing;
                }
            }
            Down::Claimed { session, known, told } => self.taken_up(node, session, known, told),
        }
    }

    /// The master's word about a session that this daemon did not remember.
    fn taken_up(&mut self, node: u8, session: u8, known: bool, told: Vec<Owned>) {
        self.node(node).sessions |= 1 << session;
        let client = self.client(session);
        if !client.lives {
            // It died meanwhile.
            self.node(node).locks.extend(told);
            self.node(node).locks.sort_by_key(|owned| owned.id);
            return self.session_over(session);
        }
        client.attached = true;
        if !known {
            // It begins a new session, with nothing.
            client.held = None;
            client.asking = Asking::Nothing;
            return;
        }
        let Client { held, asking, .. } = *client;
        let is_told = |seq: u8| told.iter().any(|owned| owned.id.seq == seq);
        if held.is_some_and(|held| !is_told(held.seq)) {
            self.client(session).held = None;
        }
        self.node(node).locks.extend(&told);
        self.node(node).locks.sort_by_key(|owned| owned.id);
        // The client asks again for what it still wants, and lets go of the rest.
        match asking {
            Asking::Lock { seq } if is_told(seq) => {}
            Asking::Convert { wanted, value } if held.is_some_and(|held| is_told(held.seq)) => {
                let id = Id { session, seq: held.expect("just tested").seq };
                self.owned_mut(id).expect("told").pending =
                    Some(Pending { wanted, value, noqueue: false, position: 0 });
                self.tell_master(session, Up::Convert { id, wanted, value });
            }
            Asking::Unlock { seq, value, .. } if is_told(seq) => {
                let id = Id { session, seq };
                let owned = self.owned_mut(id).expect("told");
                owned.pending = None;
                owned.unlocking = Some(value);
                self.tell_master(session, Up::Unlock { id, value, invalidate: false, answer: true });
            }
            _ => self.client(session).asking = Asking::Nothing,
        }
        let wants = |id: Id| match asking {
            Asking::Lock { seq } | Asking::Unlock { seq, .. } => seq == id.seq,
            Asking::Nothing | Asking::Convert { .. } => false,
        };
        for id in told.iter().map(|owned| owned.id) {
            if held.is_none_or(|held| held.seq != id.seq) && !wants(id) {
                self.remove_owned(id);
                self.tell_master(session, Up::Unlock { id, value: None, invalidate: false, answer: false });
            }
        }
    }

    /// A node whose lease is lost: nobody there relies on a lock.
    pub(super) fn lose_lease(&mut self, node: u8) {
        self.node(node).lease = false;
    }

    /// The storage is back: confirmed, if it is still a member, with all its locks; else a new incarnation.
    pub(super) fn regain_lease(&mut self, node: u8) {
        let member = self.state.members & (1 << node) != 0;
        let at = self.node(node);
        at.lease = true;
        if member {
            return;
        }
        at.incarnation += 1;
        at.admitted = false;
        at.reported = false;
        at.to_master.clear();
        at.from_master.clear();
        at.locks.retain(|owned| owned.granted.is_none());
        for pending in at.locks.iter_mut().filter_map(|owned| owned.pending.as_mut()) {
            pending.position = 0;
        }
        for session in 0..self.world.bounds.sessions {
            if self.node_of(session) == node {
                let client = self.client(session);
                client.held = None;
                if !matches!(client.asking, Asking::Lock { .. }) {
                    client.asking = Asking::Nothing;
                }
            }
        }
    }

    /// A node is excluded: it was dead for D, and so are its locks for those who held them.
    pub(super) fn exclude(&mut self, node: u8) {
        self.state.members &= !(1 << node);
        for session in 0..self.world.bounds.sessions {
            if self.node_of(session) != node || self.node(node).lease && self.node(node).up {
                continue;
            }
            let down = !self.node(node).up;
            let client = *self.client(session);
            if client.held.is_some_and(|held| held.mode >= Mode::PW) {
                self.state.written = NO_VALUE;
            }
            if let Some(held) = client.held.filter(|held| held.persistent) {
                self.state.left.push(Id { session, seq: held.seq });
            }
            if down {
                let client = self.client(session);
                *client = Client { lives: false, held: None, asking: Asking::Nothing, asks: 0, ..*client };
            }
        }
    }
}
