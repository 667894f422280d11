//! Clients after the crash: those that lived and come back, and new ones that want everything.

use super::{Conn, Crash, Happening, MS, SOCKET, Time, World};
use crate::history::{ClientLock, Operation, resource};
use mxlock_client::UNLOCK_OP;
use mxlock_dlm::io::{ConnId, Input};
use mxlock_format::{Mode, NodeId, Process, SessionId, Token};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{
    Answer, Claim, ConvertRequest, Denial, Grant, Hello, LockRequest, Refusal, Request, Response, UnlockRequest,
    Welcome,
};
use std::collections::BTreeMap;

/// Between two tries to connect.
const RETRY: Time = 20 * MS;
/// How long a challenger waits after a denial that passes.
const PAUSE: Time = 100 * MS;
/// How often the world is looked at.
const LOOK: Time = 25 * MS;
/// How long the survivors keep their locks after the last of them was welcomed: time for the challengers to be given
/// what is not theirs.
const KEEP: Time = 300 * MS;
/// When they let go at the latest.
const KEEP_AT_MOST: Time = 4_000 * MS;

/// What a client's trust in its locks rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Page {
    /// The page of a daemon that is gone: it ends at that time.
    Old(Time),
    /// The page of this run of its host's daemon.
    Run(u32),
}

/// A client.
pub(super) struct Caller {
    pub(super) host: usize,
    process: Process,
    /// `Some`: it is new, and this many others on its host asked for the same name before it.
    pub(super) rank: Option<u64>,
    pub(super) name: String,
    session: Option<SessionId>,
    conn: Option<u64>,
    welcomed: bool,
    lease_lost: bool,
    page: Page,
    pub(super) locks: BTreeMap<u64, CallerLock>,
    /// A challenger: it has held its name. A survivor: it has nothing left to do.
    pub(super) done: bool,
    /// The token of a challenger's grant, if its request was never sent twice.
    pub(super) order: Option<Token>,
    denied: bool,
}

/// A lock of a client.
pub(super) struct CallerLock {
    pub(super) lock: ClientLock,
    /// The greatest token told to anybody when the operation was sent.
    floor: Token,
    /// The client relied on it when the crash came.
    held_before: bool,
}

impl Caller {
    fn new(host: usize, process: Process, page: Page) -> Caller {
        Caller {
            host,
            process,
            rank: None,
            name: String::new(),
            session: None,
            conn: None,
            welcomed: false,
            lease_lost: false,
            page,
            locks: BTreeMap::new(),
            done: false,
            order: None,
            denied: false,
        }
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.session
    }
}

impl World<'_> {
    pub(super) fn make_callers(&mut self) {
        let by_node: BTreeMap<NodeId, usize> =
            self.hosts.iter().enumerate().map(|(host, them)| (them.node, host)).collect();
        if self.crash != Crash::Power {
            for client in self.history.clients.values() {
                let Some(&host) = by_node.get(&client.node) else { continue };
                let page = Page::Old(self.history.deadline_ns(client));
                let mut caller = Caller::new(host, self.history.process, page);
                caller.session = Some(client.session);
                for (&seq, lock) in &client.locks {
                    let held_before = self.history.trusts(client) && lock.believed().is_some();
                    self.outcome.held += u64::from(held_before);
                    let floor = self.history.token;
                    caller.locks.insert(seq, CallerLock { lock: lock.clone(), floor, held_before });
                }
                self.add(caller);
            }
        }
        let alive: Vec<usize> =
            (0..self.hosts.len()).filter(|&host| self.crash != Crash::Host(self.hosts[host].node)).collect();
        let mut pid = 1_000_000;
        // Where nobody has locked anything yet, there is one name nonetheless: service resumes.
        let names = self.history.names.iter().map(String::as_str).chain(["never locked before"]);
        for (at, name) in names.enumerate() {
            // Two on one host, whose order is known, and one on another.
            for (host, rank) in [(at, 0), (at, 1), (at + 1, 0)] {
                pid += 1;
                let process = Process { pid, start_time: 1, uid: 0 };
                let mut caller = Caller::new(alive[host % alive.len()], process, Page::Old(0));
                caller.rank = Some(rank);
                caller.name = name.to_owned();
                self.add(caller);
            }
        }
    }

    fn add(&mut self, caller: Caller) {
        let at = self.callers.len();
        let silent = caller.rank.is_none() && self.crash == Crash::Silent;
        self.callers.push(caller);
        if !silent {
            self.schedule(self.began + MS, Happening::Connect { caller: at });
        }
    }

    /// Whether a client may rely on its locks now.
    pub(super) fn trusts(&self, caller: &Caller) -> bool {
        let host = &self.hosts[caller.host];
        !caller.lease_lost
            && match caller.page {
                Page::Old(until) => self.now < until,
                Page::Run(run) => {
                    host.daemon.as_ref().is_some_and(|daemon| daemon.run == run)
                        && host.page.is_some_and(|until| self.now < until.0)
                }
            }
    }

    pub(super) fn connect(&mut self, at: usize) {
        let caller = &self.callers[at];
        if caller.done || caller.conn.is_some() {
            return;
        }
        // Without a daemon the locks end at the page's deadline (section 5).
        if caller.session.is_some() && caller.rank.is_none() && !self.trusts(caller) {
            return self.give_up(at);
        }
        let host = caller.host;
        let Some(run) = self.hosts[host].daemon.as_ref().map(|daemon| daemon.run) else {
            return self.schedule(self.now + RETRY, Happening::Connect { caller: at });
        };
        self.next += 1;
        let conn = self.next;
        self.conns.insert(conn, Conn { caller: at, host, run });
        let caller = &mut self.callers[at];
        caller.conn = Some(conn);
        let (process, resume, claims, asked) = (caller.process, caller.session, claims(caller), asked(caller));
        self.tell_later(self.now + SOCKET, host, Input::Connected { conn: ConnId(conn), process });
        let hello = Hello { resume, claims, asked, ..Hello::first() };
        self.ask(conn, Request::Hello(hello));
    }

    fn ask(&mut self, conn: u64, request: Request) {
        self.schedule(self.now + SOCKET, Happening::Request { conn, request: Box::new(request) });
    }

    pub(super) fn request(&mut self, conn: u64, request: Request) {
        if let Some(Conn { host, run, .. }) = self.conns.get(&conn) {
            let (host, run) = (*host, *run);
            self.tell(host, run, Input::Client { conn: ConnId(conn), request, subject: None });
        }
    }

    /// The daemon closes a connection.
    pub(super) fn hang_up(&mut self, conn: u64) {
        let Some(Conn { caller, host, .. }) = self.conns.remove(&conn) else { return };
        self.tell_later(self.now + SOCKET, host, Input::Disconnected { conn: ConnId(conn) });
        let me = &mut self.callers[caller];
        if me.conn == Some(conn) {
            me.conn = None;
            me.welcomed = false;
            self.schedule(self.now + PAUSE, Happening::Connect { caller });
        }
    }

    pub(super) fn response(&mut self, conn: u64, response: Response) {
        let Some(at) = self.conns.get(&conn).map(|conn| conn.caller) else { return };
        if !matches!(response, Response::Bast { .. }) {
            self.say(|| format!("c{at} <- {response:?}"));
        }
        match response {
            Response::Welcome(welcome) => self.welcomed(at, welcome),
            Response::Refused(refusal) => self.refused(at, conn, refusal),
            Response::Answer { seq, op, answer } => self.answered(at, seq, op, answer),
            Response::Lost { seq, reason } => {
                if self.believes(at, seq) {
                    self.fail(format!("I5: client {at} lost lock {seq} within its lease: {reason:?}"));
                }
                self.callers[at].locks.remove(&seq);
            }
            Response::LeaseLost => self.callers[at].lease_lost = true,
            Response::LeaseRegained => {
                self.callers[at].lease_lost = false;
                self.check_beliefs(at);
            }
            Response::Bast { .. } | Response::Admin { .. } => {}
        }
    }

    pub(super) fn believes(&self, at: usize, seq: u64) -> bool {
        let caller = &self.callers[at];
        caller.locks.get(&seq).is_some_and(|held| held.lock.believed().is_some()) && self.trusts(caller)
    }

    fn welcomed(&mut self, at: usize, welcome: Welcome) {
        let caller = &self.callers[at];
        if caller.session.is_some_and(|session| session != welcome.session) {
            return self.fail(format!("I5: client {at} took up its session and was given another one"));
        }
        for seq in welcome.lost {
            if self.believes(at, seq) {
                let name = &self.callers[at].locks[&seq].lock.name;
                return self.fail(format!("I5: client {at} claimed lock {seq} on '{name}' in time, and it is lost"));
            }
            self.callers[at].locks.remove(&seq);
        }
        if self.callers[at].rank.is_none() && !self.trusts(&self.callers[at]) {
            // The deadline passed before the answer came: what it held is lost to it, and it says goodbye.
            return self.give_up(at);
        }
        let run = self.callers[at].conn.and_then(|conn| self.conns.get(&conn)).map(|conn| conn.run);
        let caller = &mut self.callers[at];
        caller.session = Some(welcome.session);
        caller.welcomed = true;
        caller.page = Page::Run(run.unwrap_or_default());
        caller.lease_lost = false;
        self.outcome.kept += caller.locks.values().filter(|held| held.held_before).count() as u64;
        if self.callers[at].rank.is_some() {
            return self.challenge(at);
        }
        self.check_beliefs(at);
        let pending: Vec<Request> = self.callers[at]
            .locks
            .iter()
            .filter_map(|(&seq, held)| Some(request(seq, &held.lock, held.lock.pending?)))
            .collect();
        let conn = self.callers[at].conn;
        for request in pending {
            if let Some(conn) = conn {
                self.ask(conn, request);
            }
        }
    }

    /// A challenger asks for its name.
    fn challenge(&mut self, at: usize) {
        let floor = self.greatest_token();
        let caller = &mut self.callers[at];
        let Some(conn) = caller.conn.filter(|_| !caller.done && caller.locks.is_empty()) else { return };
        let seq = if caller.denied { self.next } else { 1 };
        self.next += 1;
        let operation = Operation::Lock { mode: Mode::EX };
        let lock = ClientLock { name: caller.name.clone(), told: None, token: Token(0), pending: Some(operation) };
        let request = request(seq, &lock, operation);
        let request = match request {
            Request::Lock(lock) => Request::Lock(LockRequest { timeout_ms: None, ..lock }),
            other => other,
        };
        caller.locks.insert(seq, CallerLock { lock, floor, held_before: false });
        self.ask(conn, request);
    }

    fn refused(&mut self, at: usize, conn: u64, refusal: Refusal) {
        match refusal {
            Refusal::ShuttingDown | Refusal::TooManySessions => {}
            Refusal::UnknownSession if self.callers[at].rank.is_none() => {
                if let Some(seq) = self.callers[at].locks.keys().copied().find(|&seq| self.believes(at, seq)) {
                    let name = &self.callers[at].locks[&seq].lock.name;
                    return self
                        .fail(format!("I5: client {at} holds lock {seq} on '{name}', and its session is unknown"));
                }
                return self.give_up(at);
            }
            other => return self.fail(format!("I7: client {at} was refused: {other:?}")),
        }
        self.hang_up(conn);
    }

    fn answered(&mut self, at: usize, seq: u64, op: u32, answer: Answer) {
        let held = self.callers[at].locks.get_mut(&seq);
        let expected = held.as_ref().and_then(|held| held.lock.pending).map(number);
        let Some(held) = held.filter(|_| expected == Some(op)) else {
            return self.unexpected(at, seq, op, &answer);
        };
        let operation = held.lock.pending.take();
        match answer {
            Answer::Granted(grant) | Answer::GrantedDemoted(grant) => self.granted(at, seq, &grant),
            Answer::Unlocked => {
                self.callers[at].locks.remove(&seq);
            }
            Answer::DeniedDemoted(denial) => {
                held.lock.told = Some(Mode::NL);
                self.denied(at, seq, operation, denial);
            }
            Answer::Denied(denial) => self.denied(at, seq, operation, denial),
        }
    }

    /// An answer that nobody waits for (I7), unless a daemon that knows the session only from its records took a request
    /// up from there that was over: the end of it is not wanted, and neither is the lock.
    fn unexpected(&mut self, at: usize, seq: u64, op: u32, answer: &Answer) {
        let survivor = self.callers[at].rank.is_none();
        if !survivor || op != 0 {
            return self.fail(format!("I7: client {at} hears of operation {op} of lock {seq}: {answer:?}"));
        }
        if let Answer::Granted(grant) = answer
            && !self.callers[at].locks.contains_key(&seq)
        {
            let name = String::new();
            let lock = ClientLock { name, told: Some(grant.mode), token: grant.token, pending: None };
            let floor = grant.token;
            self.callers[at].locks.insert(seq, CallerLock { lock, floor, held_before: false });
            self.unlock(at, seq);
        }
    }

    fn granted(&mut self, at: usize, seq: u64, grant: &Grant) {
        let Some(held) = self.callers[at].locks.get_mut(&seq) else { return };
        let raised = held.lock.told.is_none_or(|told| !told.covers(grant.mode));
        let floor = held.floor;
        held.lock.told = Some(grant.mode);
        held.lock.token = grant.token;
        if raised {
            self.check_token(at, grant.token, floor);
            self.check_value(at, seq, grant);
        }
        if !self.trusts(&self.callers[at]) {
            return self.unlock(at, seq);
        }
        self.check_belief(at, seq);
        let caller = &mut self.callers[at];
        if caller.rank.is_some() {
            caller.done = true;
            caller.order = (!caller.denied).then_some(grant.token);
            self.check_order(at);
            self.unlock(at, seq);
        } else if self.released {
            self.unlock(at, seq);
        }
    }

    fn denied(&mut self, at: usize, seq: u64, operation: Option<Operation>, denial: Denial) {
        let challenger = self.callers[at].rank.is_some();
        match (operation, denial) {
            (_, Denial::LeaseLost | Denial::Isolated) => {}
            // The table has 128 slots, and those of released and waiting locks are cleared behind: asked again, it has room.
            (_, Denial::TableFull) => {}
            (_, Denial::Damaged) if self.torn.is_some() => {}
            (_, Denial::TimedOut | Denial::NotFound | Denial::Deadlock) if !challenger => {}
            _ => return self.fail(format!("I7: client {at}: {operation:?} of lock {seq} is denied: {denial:?}")),
        }
        match operation {
            Some(Operation::Convert { .. }) if denial != Denial::NotFound => {
                self.check_belief(at, seq);
                if self.released {
                    self.unlock(at, seq);
                }
            }
            Some(Operation::Unlock { .. }) if denial != Denial::NotFound => self.unlock(at, seq),
            _ => {
                self.callers[at].locks.remove(&seq);
            }
        }
        self.callers[at].denied = true;
    }

    fn unlock(&mut self, at: usize, seq: u64) {
        let caller = &mut self.callers[at];
        let (Some(held), Some(conn)) = (caller.locks.get_mut(&seq), caller.conn) else { return };
        let operation = Operation::Unlock { value: None };
        held.lock.pending = Some(operation);
        let request = request(seq, &held.lock, operation);
        self.ask(conn, request);
    }

    /// A client gives up its session and all that was in it.
    fn give_up(&mut self, at: usize) {
        let caller = &mut self.callers[at];
        let conn = caller.conn.take();
        caller.locks.clear();
        caller.session = None;
        caller.done = true;
        if let Some(conn) = conn {
            let host = self.callers[at].host;
            self.ask(conn, Request::Bye);
            self.tell_later(self.now + 2 * SOCKET, host, Input::Disconnected { conn: ConnId(conn) });
        }
    }

    /// Looks whether it is time for the next step.
    pub(super) fn look(&mut self) {
        self.schedule(self.now + LOOK, Happening::Look);
        self.survivors();
        // Challengers that were denied, or lost their connection, try again.
        for at in 0..self.callers.len() {
            let caller = &self.callers[at];
            if caller.rank.is_some() && caller.welcomed && caller.locks.is_empty() && !caller.done {
                self.challenge(at);
            }
        }
        if self.resumed_at.is_none() && self.callers.iter().all(|caller| caller.rank.is_none() || caller.done) {
            self.resumed_at = Some(self.now);
            self.outcome.resumed_ms = (self.now - self.began) / MS;
        }
        self.check_progress();
    }

    fn survivors(&mut self) {
        for at in 0..self.callers.len() {
            let caller = &self.callers[at];
            if caller.rank.is_none() && !caller.done && !caller.welcomed && !self.trusts(caller) {
                self.give_up(at);
            }
        }
        let settled = self.callers.iter().all(|caller| caller.rank.is_some() || caller.done || caller.welcomed);
        if settled && self.settled_at.is_none() {
            self.settled_at = Some(self.now);
        }
        let kept = self.settled_at.is_some_and(|at| self.now >= at + KEEP);
        if self.released || !(kept || self.now >= self.began + KEEP_AT_MOST) {
            return;
        }
        self.released = true;
        for at in 0..self.callers.len() {
            let caller = &self.callers[at];
            if caller.rank.is_some() || !caller.welcomed {
                continue;
            }
            let idle: Vec<u64> = caller
                .locks
                .iter()
                .filter(|(_, held)| held.lock.told.is_some() && held.lock.pending.is_none())
                .map(|(&seq, _)| seq)
                .collect();
            for seq in idle {
                self.unlock(at, seq);
            }
        }
    }
}

/// The locks to claim.
fn claims(caller: &Caller) -> Vec<Claim> {
    let held = caller.locks.iter().filter_map(|(&seq, held)| {
        let mode = held.lock.believed()?;
        Some(Claim { seq, resource: resource(&held.lock.name), range: None, mode, token: held.lock.token })
    });
    held.collect()
}

/// The locks that it has asked for without hearing of them.
fn asked(caller: &Caller) -> Vec<u64> {
    let unheard = |held: &CallerLock| held.lock.told.is_none() && held.lock.pending.is_some();
    caller.locks.iter().filter(|(_, held)| unheard(held)).map(|(&seq, _)| seq).collect()
}

/// The number of an operation.
fn number(operation: Operation) -> u32 {
    match operation {
        Operation::Lock { .. } => 0,
        Operation::Convert { op, .. } => op,
        Operation::Unlock { .. } => UNLOCK_OP,
    }
}

fn request(seq: u64, lock: &ClientLock, operation: Operation) -> Request {
    let bytes = |value: Option<u64>| value.map(crate::clients::value_bytes);
    match operation {
        Operation::Lock { mode } => Request::Lock(LockRequest {
            seq,
            resource: resource(&lock.name),
            mode,
            flags: LockFlags::NONE,
            range: None,
            timeout_ms: Some(1_500),
            transaction: 0,
            orphan_lifetime_ms: None,
        }),
        Operation::Convert { op, mode, value } => Request::Convert(ConvertRequest {
            seq,
            op,
            mode,
            flags: LockFlags::NONE,
            timeout_ms: Some(375),
            lvb: bytes(value),
        }),
        Operation::Unlock { value } => Request::Unlock(UnlockRequest { seq, lvb: bytes(value), invalidate_lvb: false }),
    }
}
