//! Opening sessions and taking them up again.

use super::*;
use crate::limits::MAX_SESSIONS;
use crate::planted::{Bug, planted};
use mxlock_proto::client::{CLIENT_PROTOCOL, Welcome};
use mxlock_proto::peer::{ClaimQuestion, ClaimVerdict, ReportedLock};

impl Member {
    pub(crate) fn connected(&mut self, conn: ConnId, process: Process) {
        self.conns.insert(conn, Conn { process, session: None });
    }

    pub(crate) fn process_of(&self, conn: ConnId) -> Option<Process> {
        self.conns.get(&conn).map(|c| c.process)
    }

    pub(crate) fn session_of(&self, conn: ConnId) -> Option<SessionId> {
        self.conns.get(&conn)?.session
    }

    pub(super) fn refuse_hello(&mut self, conn: ConnId, refusal: Refusal) {
        self.out.push_back(Output::Reply { conn, response: Response::Refused(refusal), valid_until: None });
        self.out.push_back(Output::Close { conn });
    }

    pub(crate) fn hello(&mut self, conn: ConnId, hello: Hello, subject: Option<Process>) {
        let Some(&Conn { process: caller, session: None }) = self.conns.get(&conn) else {
            return self.refuse_hello(conn, Refusal::BadFrame);
        };
        if hello.version != CLIENT_PROTOCOL {
            return self.refuse_hello(conn, Refusal::Version { daemon: CLIENT_PROTOCOL });
        }
        if self.refusing == Some(Denial::ShuttingDown) {
            return self.refuse_hello(conn, Refusal::ShuttingDown);
        }
        let process = match (hello.on_behalf_of, subject) {
            (None, _) => caller,
            (Some(_), None) => return self.refuse_hello(conn, Refusal::NoSuchProcess),
            (Some(_), Some(subject)) if subject.uid == caller.uid || caller.uid == 0 => subject,
            (Some(_), Some(_)) => return self.refuse_hello(conn, Refusal::Permission),
        };
        let Some(id) = hello.resume else {
            if self.sessions.len() + self.claims.len() >= MAX_SESSIONS {
                return self.refuse_hello(conn, Refusal::TooManySessions);
            }
            let id = loop {
                let id = SessionId(self.rng.next_u64());
                if id.0 != 0 && !self.sessions.contains_key(&id) {
                    break id;
                }
            };
            self.open(id, process, hello.on_behalf_of.is_some());
            return self.attach(id, conn, vec![]);
        };
        if let Some(session) = self.sessions.get(&id) {
            if session.process != process {
                return self.refuse_hello(conn, Refusal::NotYourSession);
            }
            if session.gone && !planted(Bug::GoneSessionResumed) {
                // The master was told that whoever may can adopt what is left of it: perhaps somebody has.
                return self.refuse_hello(conn, Refusal::UnknownSession);
            }
            let lost = hello
                .claims
                .iter()
                .filter(|claim| !session.locks.contains(&claim.seq))
                .map(|claim| claim.seq)
                .collect();
            let claimed: BTreeSet<u64> = hello.claims.iter().map(|claim| claim.seq).collect();
            let unclaimed: Vec<u64> = session.locks.difference(&claimed).copied().collect();
            self.attach(id, conn, lost);
            return self.tell_again(id, unclaimed);
        }
        // This daemon does not remember it: the master knows from the records (section 6).
        if let Some(claim) = self.claims.get_mut(&id).filter(|claim| claim.process == process) {
            // It reconnected before the verdict came.
            if let Some(old) = claim.conn.replace(conn) {
                self.out.push_back(Output::Close { conn: old });
            }
            claim.hello = hello;
            return;
        }
        self.claims.insert(id, WaitingClaim { conn: Some(conn), process, hello, asked: false });
        self.ask_claims();
    }

    fn open(&mut self, id: SessionId, process: Process, detached: bool) {
        self.sessions
            .insert(id, Session { process, conn: None, locks: BTreeSet::new(), detached, gone: false, deadline: None });
        self.out.push_back(Output::Watch { process });
    }

    fn attach(&mut self, id: SessionId, conn: ConnId, lost: Vec<u64>) {
        let session = self.sessions.get_mut(&id).expect("an open session");
        let away = session.conn.is_none() && !session.locks.is_empty();
        if let Some(old) = session.conn.replace(conn) {
            self.conns.entry(old).and_modify(|c| c.session = None);
            self.out.push_back(Output::Close { conn: old });
        }
        self.set_deadline(id, None);
        self.conns.get_mut(&conn).expect("an open connection").session = Some(id);
        if away {
            self.tell_presence(id, Presence::Here);
            self.disown_again(id);
        }
        let welcome = Welcome {
            session: id,
            node: self.node,
            lost,
            grace_ms: u32::try_from(self.grace.as_millis()).unwrap_or(u32::MAX),
            daemon: self.version.clone(),
        };
        self.out.push_back(Output::Reply { conn, response: Response::Welcome(welcome), valid_until: None });
    }

    /// Grants that the client does not believe in: their answers were lost, or it has given them up. It takes them or
    /// unlocks them.
    fn tell_again(&mut self, session: SessionId, seqs: Vec<u64>) {
        for seq in seqs {
            let id = LockId { session, seq };
            let lock = &self.locks[&id];
            if lock.granted.is_some() && lock.unlocking.is_none() {
                let op = lock.last_op;
                self.answer_granted(id, op);
            }
        }
    }

    /// Sends the questions that could not be sent before.
    pub(super) fn ask_claims(&mut self) {
        if self.reported.is_none() {
            return;
        }
        for (session, claim) in &mut self.claims {
            if !std::mem::replace(&mut claim.asked, true) {
                self.to_master.push_back(PeerMessage::Claim(ClaimQuestion {
                    session: *session,
                    process: claim.process,
                    claims: claim.hello.claims.clone(),
                    asked: claim.hello.asked.clone(),
                }));
            }
        }
    }

    /// The master's word about a session that this daemon did not remember.
    pub(crate) fn claimed(&mut self, now: Now, verdict: ClaimVerdict) {
        let Some(claim) = self.claims.remove(&verdict.session) else { return };
        if !verdict.known {
            return claim.conn.into_iter().for_each(|conn| self.refuse_hello(conn, Refusal::UnknownSession));
        }
        let id = verdict.session;
        self.open(id, claim.process, false);
        self.take_up(verdict.standing);
        let session = &self.sessions[&id];
        let lost = claim.hello.claims.iter().map(|c| c.seq).filter(|seq| !session.locks.contains(seq)).collect();
        match claim.conn {
            Some(conn) => self.attach(id, conn, lost),
            None => self.set_deadline(id, Some(now.boot + self.orphan_lifetime)),
        }
    }

    /// The master's word about a session for which nobody is connected (`mxlock lock`).
    pub(crate) fn inherit(&mut self, id: SessionId, process: Process, locks: Vec<ReportedLock>) {
        if !self.sessions.contains_key(&id) {
            self.open(id, process, true);
            self.take_up(locks);
        }
    }

    /// Takes locks of an open session into the books, as the master knows them.
    fn take_up(&mut self, locks: Vec<ReportedLock>) {
        for lock in locks {
            let lock_id = lock.lock;
            let order = self.take_order();
            let pending = lock.pending.map(|pending| {
                Box::new(Pending {
                    position: Some(pending.position),
                    sent: true,
                    ..Pending::new(pending.op, pending.wanted, pending.flags, order, None)
                })
            });
            self.locks.insert(
                lock_id,
                Box::new(OwnedLock {
                    resource: lock.resource,
                    range: lock.range,
                    granted: lock.granted,
                    token: lock.token,
                    granted_at_ms: lock.granted_at_ms,
                    transaction: lock.transaction,
                    orphan_lifetime_ms: lock.orphan_lifetime_ms,
                    persistent: lock.persistent,
                    last_op: 0,
                    demoted: false,
                    denied: None,
                    pending,
                    unlocking: None,
                    adopts: lock.adopted,
                    forsaken: None,
                    untold: false,
                    read: true,
                    lvb: lock.lvb.map(Box::new),
                }),
            );
            self.sessions.get_mut(&lock_id.session).expect("an open session").locks.insert(lock_id.seq);
        }
    }
}
