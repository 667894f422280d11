//! Lost connections, ended processes, and what becomes of their locks (section 7, "Sessions").

use super::*;
use crate::limits::DETACHED_LIFETIME_MS;
use crate::planted::{Bug, planted};

impl Member {
    pub(crate) fn disconnected(&mut self, now: Now, conn: ConnId) {
        let Some(Conn { session, .. }) = self.conns.remove(&conn) else { return };
        for claim in self.claims.values_mut() {
            // The verdict is still to come: what stands then waits for the client as an orphan.
            claim.conn.take_if(|waiting| *waiting == conn);
        }
        self.claims.retain(|_, claim| claim.conn.is_some() || claim.asked);
        let Some(id) = session else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.conn != Some(conn) {
            return;
        }
        session.conn = None;
        if session.detached {
            return;
        }
        // The process may still live: its locks are orphans until it is back.
        if session.locks.is_empty() {
            self.end_session(id);
        } else {
            self.set_deadline(id, Some(now.boot + self.orphan_lifetime));
            self.tell_presence(id, Presence::Away);
        }
    }

    /// A client says that it is done.
    pub(crate) fn bye(&mut self, now: Now, session: SessionId) {
        self.session_over(now, session, false);
    }

    pub(crate) fn process_gone(&mut self, now: Now, process: Process) {
        let ids: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| s.process == process && !s.gone).map(|(id, _)| *id).collect();
        for id in ids {
            self.session_over(now, id, true);
        }
    }

    /// Whether a PERSISTENT lock may have become this one, as its client has asked.
    pub(super) fn may_have_adopted(&self, id: LockId) -> bool {
        self.locks.get(&id).is_some_and(|lock| {
            let asked = lock.granted.is_some() || lock.pending.as_ref().is_some_and(|pending| pending.sent);
            lock.adopts && lock.persistent && asked && !planted(Bug::AdoptionReleasedUnheard)
        })
    }

    /// The client of an adoption does not hear of it: what others left behind must not end with a request that was refused. The
    /// lock stays in the books, since this node has the final word about it.
    pub(super) fn forsake(&mut self, id: LockId, why: Denial) {
        self.locks.get_mut(&id).expect("a lock that was asked for").forsaken = Some(why);
        self.send_operation(id, 0, OperationKind::Disown);
    }

    /// The master was told that the session is here: not so for what its client knows nothing of.
    pub(super) fn disown_again(&mut self, session: SessionId) {
        for seq in self.sessions[&session].locks.clone() {
            let id = LockId { session, seq };
            if self.locks[&id].forsaken.is_some() {
                self.send_operation(id, 0, OperationKind::Disown);
            }
        }
    }

    /// Releases at once what is neither PERSISTENT nor asked to outlive its process.
    fn session_over(&mut self, now: Now, id: SessionId, may_linger: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.gone = true;
        let process = session.process;
        if let Some(conn) = session.conn.take() {
            self.conns.entry(conn).and_modify(|c| c.session = None);
            self.out.push_back(Output::Close { conn });
        }
        let mut longest = None;
        for seq in session.locks.clone() {
            let lock_id = LockId { session: id, seq };
            let lock = &self.locks[&lock_id];
            let lingers = may_linger && ![0, DETACHED_LIFETIME_MS].contains(&lock.orphan_lifetime_ms);
            if lock.granted.is_some() && lock.unlocking.is_none() && (lock.persistent || lingers) {
                self.drop_conversion(lock_id);
                if lingers && !self.locks[&lock_id].persistent {
                    longest = longest.max(Some(self.locks[&lock_id].orphan_lifetime_ms));
                }
            } else if lock.granted.is_none() && self.may_have_adopted(lock_id) {
                self.forsake(lock_id, Denial::SessionOver);
            } else {
                self.release_silently(lock_id);
            }
        }
        if self.sessions[&id].locks.is_empty() {
            return self.end_session(id);
        }
        self.unwatch(process);
        self.set_deadline(id, longest.map(|ms| now.boot + Duration::from_millis(ms.into())));
        self.tell_presence(id, Presence::Gone);
    }

    /// Nobody waits for a conversion any more. What it gives up may have been given to others already, so that a
    /// down-conversion goes on, of PR and CW only what both have in common is kept, and nothing where CONVDEADLK allowed to
    /// give up all.
    fn drop_conversion(&mut self, id: LockId) {
        self.count_as_demoted(id);
        let lock = self.locks.get_mut(&id).expect("listed by its session");
        let (Some(granted), Some(wanted)) = (lock.granted, lock.pending.as_ref().map(|pending| pending.wanted)) else {
            return;
        };
        if granted.covers(wanted) {
            return;
        }
        if !wanted.covers(granted) {
            lock.granted = Some(Mode::CR);
        }
        self.take_pending(id);
    }

    /// The lifetime of a session's orphans has run out.
    pub(super) fn orphans_expired(&mut self, id: SessionId) {
        self.set_deadline(id, None);
        let Some(session) = self.sessions.get(&id) else { return };
        for seq in session.locks.clone() {
            let lock_id = LockId { session: id, seq };
            let held = self.locks[&lock_id].granted.is_some();
            if !held && self.may_have_adopted(lock_id) {
                self.forsake(lock_id, Denial::SessionOver);
            } else if !(self.locks[&lock_id].persistent && held) {
                self.release_silently(lock_id);
            }
        }
        let session = self.sessions.get_mut(&id).expect("an open session");
        if session.locks.is_empty() {
            return self.end_session(id);
        }
        if !std::mem::replace(&mut session.gone, true) {
            // PERSISTENT ones stay, for whoever adopts them: their process may live, but has not come back in time.
            for seq in session.locks.clone() {
                let lock_id = LockId { session: id, seq };
                if self.locks[&lock_id].forsaken.is_none() {
                    self.drop_conversion(lock_id);
                }
            }
            self.tell_presence(id, Presence::Gone);
        }
    }

    pub(super) fn end_session(&mut self, id: SessionId) {
        self.set_deadline(id, None);
        if let Some(session) = self.sessions.remove(&id) {
            self.unwatch(session.process);
        }
    }

    /// Nobody is interested in a process any more when its last session is over.
    fn unwatch(&mut self, process: Process) {
        if !self.sessions.values().any(|session| session.process == process && !session.gone) {
            self.out.push_back(Output::Unwatch { process });
        }
    }

    /// When the orphans of a session end.
    pub(super) fn set_deadline(&mut self, id: SessionId, deadline: Option<BootTime>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(old) = std::mem::replace(&mut session.deadline, deadline) {
            self.orphans.remove(&(old, id));
        }
        if let Some(at) = deadline {
            self.orphans.insert((at, id));
        }
    }

    /// Releases a lock whose client is not there to be answered; a value it may have been changing cannot be trusted.
    fn release_silently(&mut self, id: LockId) {
        self.remove(id);
        let invalidate_lvb = !planted(Bug::ValueValidAfterDeath);
        let kind = OperationKind::Unlock { lvb: None, invalidate_lvb, answer: false };
        self.send_operation(id, UNLOCK_OP, kind);
    }

    /// Whether somebody relies on a lock, as others are told.
    pub(super) fn presence_of(&self, lock: LockId) -> Presence {
        match self.locks[&lock].forsaken {
            Some(_) => Presence::Gone,
            None => self.presence(lock.session),
        }
    }

    /// The sessions whose process could be asked to end before their locks go to somebody else.
    pub(crate) fn presence(&self, session: SessionId) -> Presence {
        match self.sessions.get(&session) {
            Some(Session { gone: true, .. }) | None => Presence::Gone,
            Some(Session { conn: None, detached: false, .. }) => Presence::Away,
            Some(_) => Presence::Here,
        }
    }
}
