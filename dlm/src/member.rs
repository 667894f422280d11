//! This node's side of the lock protocol: its clients' sessions and the locks they own (sections 6 and 7).
//!
//! The member has the final word about its own locks. Whatever it is waiting for is sent to the master of the newest
//! view; when that changes, it first reports what it holds and what waits at a place that an earlier master gave it, and
//! then sends everything else again. From the report on nothing of the old master counts.

mod hello;
#[cfg(feature = "model")]
mod model;
mod orphans;
mod outcomes;
mod report;
mod requests;
#[cfg(test)]
mod tests;

use crate::Map;
use crate::config::Config;
use crate::io::{ConnId, Output};
use crate::rng::Rng;
use crate::time::{BootTime, Now};
use mxlock_format::{ByteRange, Epoch, Incarnation, LockId, Lvb, Mode, NodeId, Process, Resource, SessionId, Token};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{Answer, Denial, Grant, Hello, LossReason, Refusal, Response};
use mxlock_proto::peer::{OperationKind, PeerMessage, Presence};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// The operation number of an unlock, in answers and outcomes.
pub(crate) const UNLOCK_OP: u32 = u32::MAX;

/// A client's conversation.
#[derive(Clone, Hash, Debug)]
struct Session {
    process: Process,
    conn: Option<ConnId>,
    locks: BTreeSet<u64>,
    /// Opened for another process (`mxlock lock`): lives as long as that one, without a connection.
    detached: bool,
    /// The process has ended; what is left are PERSISTENT locks and those with an orphan lifetime.
    gone: bool,
    /// When its orphans end.
    deadline: Option<BootTime>,
}

/// A connection.
#[derive(Clone, Hash, Debug)]
struct Conn {
    process: Process,
    session: Option<SessionId>,
}

/// An operation that has no outcome yet.
#[derive(Clone, Hash, Debug)]
struct Pending {
    op: u32,
    wanted: Mode,
    flags: LockFlags,
    /// The new value of a down-conversion.
    lvb: Option<Vec<u8>>,
    /// The place that a master gave it.
    position: Option<u64>,
    /// Gives the order in which operations are sent again.
    order: u64,
    deadline: Option<BootTime>,
    /// What a cancelled conversion is answered with.
    cancelled: Option<Denial>,
    /// A master was asked: it may have carried it out.
    sent: bool,
    /// What was held counts as given up for it (CONVDEADLK), whatever the master that was asked did.
    demoted: bool,
}

impl Pending {
    fn new(op: u32, wanted: Mode, flags: LockFlags, order: u64, deadline: Option<BootTime>) -> Pending {
        let (position, cancelled) = (None, None);
        Pending { op, wanted, flags, lvb: None, position, order, deadline, cancelled, sent: false, demoted: false }
    }

    /// Whether a master may have demoted a lock that holds `held` for this conversion (CONVDEADLK, decision 015).
    fn may_demote(&self, held: Option<Mode>) -> bool {
        let gives_up = |held: Mode| held != Mode::NL && !held.covers(self.wanted);
        self.sent && self.flags.contains(LockFlags::CONVDEADLK) && held.is_some_and(gives_up)
    }
}

/// An unlock that waits for the master.
#[derive(Clone, Hash, Debug)]
struct Unlocking {
    lvb: Option<Vec<u8>>,
    invalidate_lvb: bool,
    order: u64,
    /// A master was asked: it may have carried it out.
    sent: bool,
}

/// A lock as its owner's side knows it.
#[derive(Clone, Hash, Debug)]
struct OwnedLock {
    resource: Resource,
    range: Option<ByteRange>,
    granted: Option<Mode>,
    token: Token,
    granted_at_ms: u64,
    transaction: u64,
    orphan_lifetime_ms: u32,
    persistent: bool,
    /// Its last operation, whether it gave up what was held before (CONVDEADLK), and what it was denied with then: a repeated
    /// question gets the same answer.
    last_op: u32,
    demoted: bool,
    denied: Option<Denial>,
    pending: Option<Box<Pending>>,
    unlocking: Option<Box<Unlocking>>,
    /// It was asked for as somebody else's orphan.
    adopts: bool,
    /// Its client was told this instead of a grant, or has ended: once the PERSISTENT lock that it asked to adopt is this node's,
    /// it is an orphan again.
    forsaken: Option<Denial>,
    /// A grant that came while the lease was lost: told when it is regained.
    untold: bool,
    /// The last grant read the value: it belongs to the answer.
    read: bool,
    lvb: Option<Box<Lvb>>,
}

/// A `Hello` that waits for the master's verdict.
#[derive(Clone, Hash, Debug)]
struct WaitingClaim {
    conn: Option<ConnId>,
    process: Process,
    hello: Hello,
    asked: bool,
}

/// All sessions and locks of this node.
#[derive(Clone)]
pub(crate) struct Member {
    node: NodeId,
    incarnation: Incarnation,
    version: String,
    grace: Duration,
    orphan_lifetime: Duration,
    clear_before_ack: bool,
    conns: BTreeMap<ConnId, Conn>,
    sessions: BTreeMap<SessionId, Session>,
    locks: Map<LockId, Box<OwnedLock>>,
    claims: BTreeMap<SessionId, WaitingClaim>,
    timeouts: BTreeSet<(BootTime, LockId)>,
    /// Sessions with a deadline, by time.
    orphans: BTreeSet<(BootTime, SessionId)>,
    /// Requests that were given up and that the master has still to forget, with what their clients were told.
    taken_back: BTreeMap<LockId, Denial>,
    next_order: u64,
    /// The reign whose master was told what this node holds.
    reported: Option<Epoch>,
    lease_until: Option<BootTime>,
    /// Why requests are refused at the moment.
    refusing: Option<Denial>,
    rng: Rng,
    pub(crate) to_master: VecDeque<PeerMessage>,
    pub(crate) out: VecDeque<Output>,
}

impl Member {
    pub(crate) fn new(config: &Config, rng: Rng) -> Member {
        let timing = &config.superblock.timing;
        let grace = Duration::from_millis(timing.grace_ms.into());
        // At least L + G (section 7).
        let orphan_floor = Duration::from_millis(timing.lease_ms.into()) + grace;
        Member {
            node: config.node,
            incarnation: config.incarnation,
            version: config.version.clone(),
            grace,
            orphan_lifetime: Duration::from_millis(config.orphan_lifetime_ms.into()).max(orphan_floor),
            clear_before_ack: config.clear_behind_ms == 0,
            conns: BTreeMap::new(),
            sessions: BTreeMap::new(),
            locks: Map::default(),
            claims: BTreeMap::new(),
            timeouts: BTreeSet::new(),
            orphans: BTreeSet::new(),
            taken_back: BTreeMap::new(),
            next_order: 0,
            reported: None,
            lease_until: None,
            refusing: None,
            rng,
            to_master: VecDeque::new(),
            out: VecDeque::new(),
        }
    }

    /// Locks that are held.
    pub(crate) fn held_count(&self) -> u64 {
        self.locks.values().filter(|lock| lock.granted.is_some()).count() as u64
    }

    /// All locks and requests.
    pub(crate) fn lock_count(&self) -> u64 {
        self.locks.len() as u64
    }

    pub(crate) fn set_lease(&mut self, until: Option<BootTime>) {
        self.lease_until = until;
    }

    /// The daemon goes down: nothing more is granted.
    pub(crate) fn refuse(&mut self, why: Option<Denial>) {
        self.refusing = why;
    }

    /// The lease is lost (section 5): nothing more is promised, everybody is told.
    pub(crate) fn lease_lost(&mut self) {
        self.lease_until = None;
        self.tell_everybody(Response::LeaseLost);
    }

    /// The lease is back under the same incarnation: the sessions keep their locks.
    pub(crate) fn lease_regained(&mut self, until: Option<BootTime>) {
        self.lease_until = until;
        self.tell_everybody(Response::LeaseRegained);
        let mut untold: Vec<LockId> = self.locks.iter().filter(|(_, lock)| lock.untold).map(|(id, _)| *id).collect();
        untold.sort();
        for id in untold {
            let lock = self.locks.get_mut(&id).expect("just listed");
            lock.untold = false;
            let op = lock.last_op;
            self.answer_granted(id, op);
        }
    }

    /// This node was excluded: its locks are gone, its sessions stay (with nothing), its waiting requests are asked again.
    pub(crate) fn excluded(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        self.forget_master();
        let mut ids: Vec<LockId> = self.locks.keys().copied().collect();
        ids.sort();
        for id in ids {
            let lock = self.locks.get_mut(&id).expect("just listed");
            if lock.forsaken.is_some() {
                self.remove(id);
                continue;
            }
            if lock.granted.is_none() {
                lock.pending.as_mut().expect("a lock without a mode waits for one").position = None;
                continue;
            }
            let op = lock.pending.as_ref().map(|pending| pending.op);
            // A PERSISTENT one became an orphan if the master had not heard of the unlock: nobody knows that it has ended.
            let released = lock.unlocking.is_some() && !lock.persistent;
            let refused = lock.unlocking.is_some() && lock.persistent;
            let untold = lock.untold.then_some(lock.last_op);
            if let Some(op) = op.or(untold) {
                self.answer(id, op, Answer::Denied(Denial::LeaseLost));
            }
            if refused {
                self.answer(id, UNLOCK_OP, Answer::Denied(Denial::NotFound));
            }
            if released {
                self.answer(id, UNLOCK_OP, Answer::Unlocked);
            } else {
                self.tell(id.session, Response::Lost { seq: id.seq, reason: LossReason::Excluded });
            }
            self.remove(id);
        }
        let empty: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| s.gone && s.locks.is_empty()).map(|(id, _)| *id).collect();
        for session in empty {
            self.end_session(session);
        }
        for claim in self.claims.values_mut() {
            claim.asked = false;
        }
    }

    /// `mxlock leave --release`: every lock of this node ends.
    pub(crate) fn release_all(&mut self) {
        let mut ids: Vec<LockId> = self.locks.keys().copied().collect();
        ids.sort();
        for id in ids {
            self.lost(id, LossReason::Left);
            let kind = OperationKind::Unlock { lvb: None, invalidate_lvb: true, answer: false };
            self.send_operation(id, UNLOCK_OP, kind);
        }
        // Who is waiting for the master's word on the locks of an earlier daemon gets none of them any more.
        for claim in std::mem::take(&mut self.claims).into_values() {
            claim.conn.into_iter().for_each(|conn| self.refuse_hello(conn, Refusal::ShuttingDown));
        }
    }

    /// Sessions that have come back to this daemon, and whose locks the master has still to name.
    pub(crate) fn claims_open(&self) -> usize {
        self.claims.len()
    }

    fn tell_everybody(&mut self, response: Response) {
        let conns = self.sessions.values().filter_map(|session| session.conn);
        self.out.extend(conns.map(|conn| Output::Reply { conn, response: response.clone(), valid_until: None }));
    }

    /// Sends to a session's client, if it is connected; if not, the client asks again when it is back.
    fn tell(&mut self, session: SessionId, response: Response) {
        if let Some(conn) = self.sessions.get(&session).and_then(|s| s.conn) {
            self.out.push_back(Output::Reply { conn, response, valid_until: None });
        }
    }

    fn answer(&mut self, id: LockId, op: u32, answer: Answer) {
        self.tell(id.session, Response::Answer { seq: id.seq, op, answer });
    }

    /// Says that the lock is held: only while the lease lasts (section 2).
    fn answer_granted(&mut self, id: LockId, op: u32) {
        let Some(until) = self.lease_until else {
            self.locks.get_mut(&id).expect("a lock that is answered for").untold = true;
            return;
        };
        let lock = &self.locks[&id];
        let Some(conn) = self.sessions.get(&id.session).and_then(|s| s.conn).filter(|_| lock.forsaken.is_none()) else {
            return;
        };
        let grant = Grant {
            mode: lock.granted.expect("a granted lock"),
            token: lock.token,
            lvb: lock.lvb.as_deref().filter(|lvb| lock.read && !lvb.bytes.is_empty()).map(Into::into),
            valid_until_ns: until.0,
        };
        let demoted = lock.demoted && op == lock.last_op;
        let answer = if demoted { Answer::GrantedDemoted(grant) } else { Answer::Granted(grant) };
        let response = Response::Answer { seq: id.seq, op, answer };
        self.out.push_back(Output::Reply { conn, response, valid_until: Some(until) });
    }

    /// Sends an operation to the master, if this node has reported to it; if not, it is sent after the report.
    fn send_operation(&mut self, lock: LockId, op: u32, kind: OperationKind) {
        if self.reported.is_none() {
            return;
        }
        if let Some(owned) = self.locks.get_mut(&lock) {
            match (&mut owned.unlocking, &mut owned.pending) {
                (Some(unlocking), _) if op == UNLOCK_OP => unlocking.sent = true,
                (_, Some(pending)) if op == pending.op => pending.sent = true,
                _ => {}
            }
        }
        let operation = mxlock_proto::peer::Operation { lock, op, kind };
        self.to_master.push_back(PeerMessage::Operation(operation));
    }

    fn tell_presence(&mut self, session: SessionId, presence: Presence) {
        if self.reported.is_some() {
            self.to_master.push_back(PeerMessage::Session { session, presence });
        }
    }

    fn take_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    /// Takes a lock out of all books.
    fn remove(&mut self, id: LockId) -> Option<Box<OwnedLock>> {
        let lock = self.locks.remove(&id)?;
        if let Some(deadline) = lock.pending.as_ref().and_then(|pending| pending.deadline) {
            self.timeouts.remove(&(deadline, id));
        }
        if let Some(session) = self.sessions.get_mut(&id.session) {
            session.locks.remove(&id.seq);
        }
        Some(lock)
    }

    /// The master that was asked for a conversion with CONVDEADLK cannot say any more whether it has given away what the
    /// lock held: it counts as given away. The client has agreed to that by asking.
    fn count_as_demoted(&mut self, id: LockId) {
        let Some(lock) = self.locks.get_mut(&id) else { return };
        if let Some(pending) = lock.pending.as_mut().filter(|pending| pending.may_demote(lock.granted)) {
            pending.demoted = true;
            lock.granted = Some(Mode::NL);
        }
    }

    /// Ends a conversion without a grant: the lock holds its old mode, or NL if it was demoted.
    fn deny_conversion(&mut self, id: LockId, why: Denial, demoted: bool) {
        let Some(pending) = self.take_pending(id) else { return };
        let lock = self.locks.get_mut(&id).expect("a lock that was converting");
        lock.last_op = pending.op;
        lock.demoted = demoted || pending.demoted;
        lock.denied = lock.demoted.then_some(why);
        if lock.demoted {
            lock.granted = Some(Mode::NL);
        }
        let answer = if lock.demoted { Answer::DeniedDemoted(why) } else { Answer::Denied(why) };
        self.answer(id, pending.op, answer);
    }

    /// Takes the pending operation out of a lock.
    fn take_pending(&mut self, id: LockId) -> Option<Box<Pending>> {
        let pending = self.locks.get_mut(&id)?.pending.take()?;
        if let Some(deadline) = pending.deadline {
            self.timeouts.remove(&(deadline, id));
        }
        Some(pending)
    }

    /// The next time at which something has to happen by itself.
    pub(crate) fn deadline(&self) -> Option<BootTime> {
        let timeout = self.timeouts.first().map(|(at, _)| *at);
        let orphans = self.orphans.first().map(|(at, _)| *at);
        [timeout, orphans].into_iter().flatten().min()
    }

    pub(crate) fn on_time(&mut self, now: Now) {
        while let Some(&(at, id)) = self.timeouts.first() {
            if at > now.boot {
                break;
            }
            self.timeouts.pop_first();
            self.time_out(id);
        }
        while let Some(&(at, session)) = self.orphans.first() {
            if at > now.boot {
                break;
            }
            self.orphans_expired(session);
        }
    }
}
