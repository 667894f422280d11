//! Clients, as the client library does it (`dlm/client/src`), and what they do to their daemons.

use super::Step;
use super::state::*;
use super::table::resource;
use mxlock_dlm::io::{ConnId, Output};
use mxlock_format::{Mode, Process, Token};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{
    AdoptRequest, Answer, Claim, ConvertRequest, Grant, Hello, LockRequest, LossReason, Refusal, Response,
    UnlockRequest,
};

fn conn(client: usize) -> ConnId {
    ConnId(client as u64)
}

fn process(client: usize) -> Process {
    Process { pid: 100 + client as u32, start_time: 1, uid: 1000 }
}

fn unlock(seq: u64, value: Option<u8>) -> UnlockRequest {
    UnlockRequest { seq, lvb: value.map(|value| vec![value]), invalidate_lvb: false }
}

/// A lifetime that is neither none nor the default.
const LIFETIME_MS: u32 = 60_000;

impl Client {
    /// What it relies on: of a mode that is being converted what is left in any case.
    pub(super) fn relies(&self) -> Option<Mode> {
        let held = self.held?;
        match self.asking {
            Some(Asking::Unlock { .. }) => None,
            Some(Asking::Convert { wanted, .. }) => Some(common(held.mode, wanted)),
            _ => Some(held.mode),
        }
    }
}

impl Step<'_> {
    pub(super) fn home(&self, client: usize) -> usize {
        self.world.bounds.clients[client].home
    }

    fn client(&mut self, client: usize) -> &mut Client {
        &mut self.state.clients[client]
    }

    fn node_of(&mut self, client: usize) -> &mut Node {
        let home = self.home(client);
        &mut self.state.nodes[home]
    }

    /// A value to be written, if this gives up PW or EX.
    fn value_for(&mut self, from: Mode, to: Option<Mode>) -> Option<u8> {
        if !self.world.bounds.values || from < Mode::PW || to.is_some_and(|to| !from.covers(to) || to >= Mode::PW) {
            return None;
        }
        self.state.ghost.values += 1;
        self.state.ghost.written = self.state.ghost.values;
        Some(self.state.ghost.values)
    }

    pub(super) fn ask(&mut self, client: usize, ask: Ask) {
        let held = self.client(client).held;
        self.client(client).asks -= 1;
        if let (Ask::Convert(from, wanted), Some(_)) = (ask, held) {
            let value = self.value_for(from, Some(wanted));
            self.client(client).op += 1;
            let op = self.client(client).op;
            self.client(client).asking = Some(Asking::Convert { op, wanted, value });
        } else {
            let at = self.client(client);
            (at.seq, at.op) = (at.seq + 1, 0);
            at.asking = Some(Asking::New(ask));
        }
        self.send_request(client);
    }

    /// Sends what was not answered, for the first time or again.
    fn send_request(&mut self, client: usize) {
        let Client { session: Some(session), asking: Some(asking), seq, held, .. } = *self.client(client) else {
            return;
        };
        let member = self.node_of(client).member.change();
        match asking {
            Asking::New(ask @ (Ask::Adopt(mode) | Ask::AdoptPersistent(mode))) => {
                let (resource, persistent) = (resource(), ask.is_persistent());
                member.adopt(session, AdoptRequest { seq, resource, range: None, mode, persistent });
            }
            Asking::New(ask) => {
                let (mode, flags) = match ask {
                    Ask::Persistent(mode) => (mode, LockFlags::PERSISTENT),
                    Ask::NoQueue(mode) => (mode, LockFlags::NOQUEUE),
                    Ask::Lock(mode) | Ask::Lingering(mode) | Ask::Timed(mode) => (mode, LockFlags::NONE),
                    Ask::Adopt(_) | Ask::AdoptPersistent(_) | Ask::Convert(..) => unreachable!("no new lock"),
                };
                let lingers = matches!(ask, Ask::Lingering(_)).then_some(LIFETIME_MS);
                let timeout_ms = matches!(ask, Ask::Timed(_)).then_some(1);
                let request = LockRequest {
                    seq,
                    resource: resource(),
                    mode,
                    flags,
                    range: None,
                    timeout_ms,
                    transaction: 0,
                    orphan_lifetime_ms: lingers,
                };
                member.lock(session, request);
            }
            Asking::Convert { op, wanted, value } => {
                let lvb = value.map(|value| vec![value]);
                let flags = LockFlags::NONE;
                member.convert(session, ConvertRequest { seq, op, mode: wanted, flags, timeout_ms: None, lvb });
            }
            Asking::Unlock { value } => {
                let seq = held.map_or(seq, |held| held.seq);
                member.unlock(session, unlock(seq, value));
            }
        }
        self.pump();
    }

    /// A client gives its lock up, now or when it is back.
    pub(super) fn give_up(&mut self, client: usize) {
        let held = self.client(client).held.expect("a lock to give up");
        let value = self.value_for(held.mode, None);
        self.client(client).asking = Some(Asking::Unlock { value });
        if self.client(client).attached {
            self.send_request(client);
        }
    }

    /// A client that has asked for an adoption wants it no more: if it has it, it is released with the request, but for
    /// a PERSISTENT one.
    pub(super) fn no_adopter(&mut self, client: usize) {
        if matches!(self.client(client).asking, Some(Asking::New(ask)) if ask.is_adoption() && !ask.is_persistent()) {
            self.state.ghost.renounced = true;
        }
    }

    /// A client takes a request back.
    pub(super) fn cancel(&mut self, client: usize) {
        self.no_adopter(client);
        self.client(client).asking = Some(Asking::Unlock { value: None });
        self.send_request(client);
    }

    /// A client's process ends, and its daemon, if there is one, is told.
    pub(super) fn die(&mut self, client: usize) {
        self.no_adopter(client);
        self.no_more(client);
        let at = self.client(client);
        (at.lives, at.asking, at.asks) = (false, None, 0);
        let connected = std::mem::take(&mut at.connected);
        at.attached = false;
        if self.node_of(client).up {
            let member = self.node_of(client).member.change();
            member.process_gone(process(client));
            if connected {
                member.disconnected(conn(client));
            }
        }
        self.pump();
    }

    /// A client relies on its lock no more, without having given it up.
    pub(super) fn no_more(&mut self, client: usize) {
        let at = *self.client(client);
        let Some(held) = at.held else { return };
        // What was given up is written, or not valid.
        if at.relies().is_some_and(|mode| mode >= Mode::PW) {
            self.state.ghost.written = 0;
        }
        let releasing = matches!(at.asking, Some(Asking::Unlock { .. }));
        if let (true, false, Some(session)) = (held.persistent, releasing, at.session) {
            self.state.ghost.left.push(mxlock_format::LockId { session, seq: held.seq });
        }
        let at = self.client(client);
        at.held = None;
        at.asking.take_if(|asking| !matches!(asking, Asking::New(_)));
    }

    /// A client that is away has passed its deadline.
    pub(super) fn overdue(&mut self, client: usize) {
        if !self.client(client).attached && self.client(client).held.is_some() {
            self.client(client).overdue = true;
            self.no_more(client);
        }
    }

    /// The time of a client's request is over, says its daemon.
    pub(super) fn time_out(&mut self, client: usize) {
        let session = self.client(client).session;
        let member = &mut self.node_of(client).member;
        let id = member.timed().into_iter().find(|id| Some(id.session) == session).expect("a request with a limit");
        member.change().end_wait(id);
        self.pump();
    }

    /// The lifetime of a client's orphans is over, says its daemon: it is away for long, or dead.
    pub(super) fn end_lifetime(&mut self, client: usize) {
        let session = self.client(client).session.expect("a session with orphans");
        self.overdue(client);
        self.node_of(client).member.change().end_lifetime(session);
        self.pump();
    }

    pub(super) fn cut(&mut self, client: usize) {
        let at = self.client(client);
        (at.connected, at.attached) = (false, false);
        if self.node_of(client).up {
            self.node_of(client).member.change().disconnected(conn(client));
        }
        self.pump();
    }

    /// A client opens a session, or takes its own up again.
    pub(super) fn greet(&mut self, client: usize) {
        let at = *self.client(client);
        self.client(client).connected = true;
        let claims = at.held.map(|held| {
            let mode = match at.asking {
                Some(Asking::Convert { wanted, .. }) => common(held.mode, wanted),
                Some(Asking::Unlock { .. }) => Mode::NL,
                _ => held.mode,
            };
            Claim { seq: held.seq, resource: resource(), range: None, mode, token: held.token }
        });
        let claims = claims.into_iter().collect();
        // With `held` the request that waits is another one of the same lock.
        let asked = at.asking.filter(|_| at.held.is_none()).map(|_| at.seq).into_iter().collect();
        let hello = Hello { resume: at.session, claims, asked, ..Hello::first() };
        let member = self.node_of(client).member.change();
        member.connected(conn(client), process(client));
        member.hello(conn(client), hello);
        self.pump();
    }

    /// What a daemon says to its clients.
    pub(super) fn carry_out(&mut self, node: usize, output: Output) {
        match output {
            Output::Reply { conn, response, .. } => self.hear(conn.0 as usize, response),
            Output::Close { conn } => {
                let client = conn.0 as usize;
                if std::mem::take(&mut self.client(client).connected) {
                    self.client(client).attached = false;
                    self.state.nodes[node].member.change().disconnected(conn);
                }
            }
            _ => {}
        }
    }

    fn hear(&mut self, client: usize, response: Response) {
        match response {
            Response::Welcome(welcome) => {
                let lost = |seq: u64| welcome.lost.contains(&seq);
                if std::mem::take(&mut self.client(client).overdue) {
                    // Whatever the daemon kept.
                    let at = self.client(client);
                    (at.session, at.asking) = (None, None);
                    self.node_of(client).member.change().bye(welcome.session);
                    return;
                }
                let at = self.client(client);
                (at.session, at.attached) = (Some(welcome.session), true);
                if at.held.is_some_and(|held| lost(held.seq)) {
                    self.torn(client);
                }
                let at = self.client(client);
                if let (Some(held), Some(Asking::Convert { wanted, .. })) = (&mut at.held, at.asking) {
                    held.mode = common(held.mode, wanted);
                }
                self.state.ghost.shown.claimed |= self.client(client).held.is_some();
                self.send_request(client);
            }
            Response::Refused(refusal) => {
                let at = *self.client(client);
                if let (Refusal::UnknownSession, Some(_)) = (refusal, at.held) {
                    self.torn(client);
                }
                let at = self.client(client);
                at.overdue = false;
                at.session = None;
                // What was asked for and not granted is asked for again in the next session, under the same number.
                at.asking.take_if(|asking| !matches!(asking, Asking::New(_)));
            }
            Response::Answer { seq, op, answer } => self.answered(client, seq, op, answer),
            Response::Lost { seq, reason } => {
                let Some(held) = self.client(client).held.filter(|held| held.seq == seq) else { return };
                // Whoever was excluded has passed its deadline before.
                debug_assert!(held.seq == seq && reason != LossReason::Excluded);
                self.torn(client);
            }
            _ => {}
        }
    }

    /// A lock that a client relies on is taken from it.
    fn torn(&mut self, client: usize) {
        let at = *self.client(client);
        if at.relies().is_some_and(|mode| mode != Mode::NL) {
            self.broken(Broken::Torn);
        }
        self.no_more(client);
    }

    pub(super) fn broken(&mut self, what: Broken) {
        self.state.ghost.broken.get_or_insert(what);
    }

    fn answered(&mut self, client: usize, seq: u64, op: u32, answer: Answer) {
        let at = *self.client(client);
        let expected = match at.asking {
            Some(Asking::New(_)) => (at.seq, 0) == (seq, op),
            Some(Asking::Convert { op: asked, .. }) => (at.seq, asked) == (seq, op),
            Some(Asking::Unlock { .. }) => at.seq == seq && op == u32::MAX,
            None => false,
        };
        let known = at.held.is_some_and(|held| held.seq == seq) || (at.asking.is_some() && at.seq == seq);
        match answer {
            Answer::Granted(_) | Answer::GrantedDemoted(_) if !known => {
                // It was given up while the daemon was away.
                let Some(session) = at.session else { return };
                self.node_of(client).member.change().unlock(session, unlock(seq, None));
            }
            _ if !expected => {}
            Answer::Granted(grant) | Answer::GrantedDemoted(grant) => self.granted(client, seq, grant),
            Answer::Denied(_) | Answer::DeniedDemoted(_) if op != u32::MAX => self.client(client).asking = None,
            Answer::Unlocked | Answer::Denied(_) | Answer::DeniedDemoted(_) => {
                if let (Some(held), Some(session)) = (at.held.filter(|held| held.persistent), at.session) {
                    self.state.ghost.ended.push(mxlock_format::LockId { session, seq: held.seq });
                }
                let at = self.client(client);
                (at.held, at.asking) = (None, None);
            }
        }
    }

    fn granted(&mut self, client: usize, seq: u64, grant: Grant) {
        let at = *self.client(client);
        let Some(asking) = at.asking else { return };
        let persistent = match asking {
            Asking::New(ask) => ask.is_persistent(),
            _ => at.held.is_some_and(|held| held.persistent),
        };
        let Token(token) = grant.token;
        let older = at.held.is_some_and(|held| held.token >= grant.token);
        let tokens = &mut self.state.ghost.tokens;
        let passed = Mode::ALL.into_iter().any(|mode| !mode.compatible(grant.mode) && tokens[mode as usize] >= token);
        let highest = &mut tokens[grant.mode as usize];
        *highest = (*highest).max(token);
        if older || passed {
            self.broken(Broken::Token);
        }
        // In a mode that others may write beside, the value is as old as the answer.
        let alone = !grant.mode.compatible(Mode::PW);
        if alone && grant.lvb.is_some_and(|lvb| lvb.valid && lvb.bytes != [self.state.ghost.written]) {
            self.broken(Broken::Value);
        }
        if let Asking::New(ask) = asking
            && ask.is_adoption()
        {
            self.state.ghost.shown.adopted = true;
            let left = std::mem::take(&mut self.state.ghost.left);
            self.state.ghost.ended.extend(left);
            self.state.ghost.ended.sort();
        }
        self.state.ghost.shown.swapped |= matches!(asking, Asking::Convert { wanted, .. }
            if at.held.is_some_and(|held| !held.mode.covers(wanted) && !wanted.covers(held.mode)));
        let at = self.client(client);
        at.held = Some(Held { seq, mode: grant.mode, token: grant.token, persistent });
        at.asking = None;
    }
}
