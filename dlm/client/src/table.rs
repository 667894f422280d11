//! What a client knows of its locks: which it holds, what it has asked for and not been answered, what it would claim
//! and send again after a reconnect. No I/O.

use crate::event::{Event, Loss};
use mxlock_format::{ByteRange, Incarnation, Mode, Resource, Token};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{Answer, Claim, Denial, Grant, LvbValue, Request, UnlockRequest};
use std::collections::{HashMap, VecDeque};

/// The `op` of the answer to an unlock.
pub const UNLOCK_OP: u32 = u32::MAX;

/// Events of the connection that a client keeps when nobody asks for them; the oldest are dropped.
const MAX_LINK_EVENTS: usize = 64;

/// A lock that is held.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) mode: Mode,
    pub(crate) token: Token,
    pub(crate) lvb: Option<LvbValue>,
    /// The daemon's incarnation at the grant: under another one the lock is gone.
    pub(crate) incarnation: Incarnation,
    /// The last conversion gave up what was held before (CONVDEADLK).
    pub(crate) demoted: bool,
}

/// An operation without an answer.
#[derive(Debug)]
struct Pending {
    op: u32,
    /// Order of submission over all locks.
    order: u64,
    request: Request,
    /// When its own timeout ends.
    expires_ns: Option<u64>,
    cancelled: bool,
    /// The lock was claimed without the mode that this conversion may have given up (CONVDEADLK).
    demoted: bool,
}

impl Pending {
    /// Whether `mode` may be given up for it: a conversion with CONVDEADLK to what the mode does not cover.
    fn may_demote(&self, mode: Mode) -> bool {
        match &self.request {
            Request::Convert(convert) => {
                convert.flags.contains(LockFlags::CONVDEADLK) && mode != Mode::NL && !mode.covers(convert.mode)
            }
            _ => false,
        }
    }

    /// What is left in any case, while this is under way, of a lock that was held in `mode`.
    fn leaves(&self, mode: Mode) -> Mode {
        match &self.request {
            _ if self.may_demote(mode) => Mode::NL,
            Request::Convert(convert) => common(mode, convert.mode),
            Request::Unlock(_) => Mode::NL,
            _ => mode,
        }
    }

    /// The answer, with what this client knows and its daemon does not.
    fn complete(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Granted(grant) if self.demoted => Answer::GrantedDemoted(grant),
            Answer::Denied(denial) if self.demoted => Answer::DeniedDemoted(denial),
            other => other,
        }
    }
}

/// A lock, from its request to its end.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) resource: Resource,
    range: Option<ByteRange>,
    pub(crate) held: Option<Held>,
    pending: Vec<Pending>,
    next_op: u32,
    /// A guard exists: the entry stays until the guard is gone.
    guarded: bool,
    /// Nobody waits for its answers any more.
    silent: bool,
    pub(crate) lost: Option<Loss>,
    /// Mode of the blocking notice that is in the queue.
    bast: Option<Mode>,
}

/// All locks of a session, and what is to be told about them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<u64, Entry>,
    last_seq: u64,
    last_order: u64,
    held: usize,
    events: VecDeque<Event>,
    /// The operation that a blocking call waits for, and its answer.
    awaited: Option<(u64, u32)>,
    answer: Option<Answer>,
}

impl Table {
    /// A number for a new lock.
    pub(crate) fn next_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }

    /// Whether any lock is held, released ones whose release is not confirmed included.
    pub(crate) fn holds_any(&self) -> bool {
        self.held > 0
    }

    /// Whether there is anything that a session must be taken up again for.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.values().all(|entry| entry.lost.is_some())
    }

    pub(crate) fn get(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(&seq)
    }

    /// A lock that is neither lost nor given up.
    pub(crate) fn living(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(&seq).filter(|entry| entry.lost.is_none() && !entry.silent)
    }

    /// A new lock whose request (`Lock` or `Adopt`) is about to be sent.
    pub(crate) fn begin(&mut self, seq: u64, resource: Resource, range: Option<ByteRange>) {
        let entry = Entry {
            resource,
            range,
            held: None,
            pending: Vec::new(),
            next_op: 1,
            guarded: false,
            silent: false,
            lost: None,
            bast: None,
        };
        self.entries.insert(seq, entry);
    }

    /// The number of the lock's next conversion.
    pub(crate) fn next_op(&mut self, seq: u64) -> Option<u32> {
        self.living(seq)?;
        let entry = self.entries.get_mut(&seq)?;
        let op = entry.next_op;
        entry.next_op += 1;
        Some(op)
    }

    /// Notes an operation that must be answered.
    pub(crate) fn expect(&mut self, seq: u64, op: u32, request: Request, expires_ns: Option<u64>) {
        self.last_order += 1;
        let order = self.last_order;
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.pending.push(Pending { op, order, request, expires_ns, cancelled: false, demoted: false });
        }
    }

    /// Whether the operation has no answer yet.
    pub(crate) fn is_pending(&self, seq: u64, op: u32) -> bool {
        self.entries.get(&seq).is_some_and(|entry| entry.pending.iter().any(|pending| pending.op == op))
    }

    /// Notes that the lock's waiting operation was cancelled; false when nothing waits.
    pub(crate) fn cancel(&mut self, seq: u64) -> bool {
        let Some(entry) = self.entries.get_mut(&seq) else { return false };
        let waiting = entry.pending.iter_mut().find(|pending| pending.op != UNLOCK_OP);
        waiting.map(|pending| pending.cancelled = true).is_some()
    }

    /// Nobody waits for answers about this lock any more. Returns whether there is something to unlock.
    pub(crate) fn silence(&mut self, seq: u64) -> bool {
        let Some(entry) = self.entries.get_mut(&seq) else { return false };
        entry.silent = true;
        entry.guarded = false;
        if entry.lost.is_some() || (entry.held.is_none() && entry.pending.is_empty()) {
            self.remove(seq);
            return false;
        }
        !entry.pending.iter().any(|pending| pending.op == UNLOCK_OP)
    }

    /// A guard takes charge of the lock, or (`false`) gives it up.
    pub(crate) fn guard(&mut self, seq: u64, guarded: bool) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        entry.guarded = guarded;
        if !guarded && entry.lost.is_some() {
            self.remove(seq);
        }
    }

    /// From now on the answer to this operation is for [`Table::take_answer`], not an event.
    pub(crate) fn wait_for(&mut self, seq: u64, op: u32) {
        self.awaited = Some((seq, op));
        self.answer = None;
    }

    /// The answer that was waited for.
    pub(crate) fn take_answer(&mut self) -> Option<Answer> {
        let answer = self.answer.take()?;
        self.awaited = None;
        Some(answer)
    }

    /// Nobody waits any more.
    pub(crate) fn stop_waiting(&mut self) {
        self.awaited = None;
        self.answer = None;
    }

    /// Whether a lock or request with this number is in the books.
    pub(crate) fn knows(&self, seq: u64) -> bool {
        self.entries.contains_key(&seq)
    }

    /// Takes in an answer of the daemon. True: the lock was granted too late to be believed and must be unlocked.
    ///
    /// A grant counts only while `now < valid_until` (section 2): this process may have been paused since.
    pub(crate) fn answered(
        &mut self,
        seq: u64,
        op: u32,
        answer: Answer,
        now_ns: u64,
        incarnation: Incarnation,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&seq) else { return false };
        // An answer that is not expected is the second one to a request that was sent twice.
        let Some(place) = entry.pending.iter().position(|pending| pending.op == op) else { return false };
        let silent = entry.silent;
        let (answer, must_unlock) = match entry.pending[place].complete(answer) {
            Answer::Granted(grant) | Answer::GrantedDemoted(grant) if op == UNLOCK_OP => {
                // No daemon says this; rather an unlock without an answer than a lock believed released.
                debug_assert!(false, "a grant {grant:?} in answer to an unlock");
                return false;
            }
            // Nobody is there to try again: the request stays until all are sent again.
            Answer::Denied(denial) if op == UNLOCK_OP && silent && denial != Denial::NotFound => return false,
            other => {
                entry.pending.remove(place);
                match other {
                    Answer::Granted(grant) | Answer::GrantedDemoted(grant) if now_ns >= grant.valid_until_ns => {
                        (Answer::Denied(Denial::LeaseLost), self.too_late(seq, op, &grant, incarnation))
                    }
                    Answer::Granted(ref grant) | Answer::GrantedDemoted(ref grant) => {
                        let demoted = matches!(other, Answer::GrantedDemoted(_));
                        self.hold(seq, grant, incarnation, demoted);
                        (other, false)
                    }
                    Answer::DeniedDemoted(_) => {
                        self.demoted(seq);
                        (other, false)
                    }
                    Answer::Denied(Denial::NotFound) if op == UNLOCK_OP => {
                        self.ended(seq);
                        (Answer::Unlocked, false)
                    }
                    Answer::Unlocked => {
                        self.ended(seq);
                        (Answer::Unlocked, false)
                    }
                    Answer::Denied(_) => {
                        if op == 0 && !self.is_pending(seq, UNLOCK_OP) {
                            self.remove(seq);
                        }
                        (other, false)
                    }
                }
            }
        };
        self.report(seq, op, answer, silent);
        if must_unlock {
            self.silence(seq);
        }
        must_unlock
    }

    /// A grant that came after its end. A new lock is to be given back; of a converted one the truth is kept.
    fn too_late(&mut self, seq: u64, op: u32, grant: &Grant, incarnation: Incarnation) -> bool {
        self.hold(seq, grant, incarnation, false);
        op == 0 && !self.is_pending(seq, UNLOCK_OP)
    }

    /// Others may have what the lock held: NL is left of it.
    fn demoted(&mut self, seq: u64) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        if let Some(held) = &mut entry.held {
            (held.mode, held.demoted) = (Mode::NL, true);
        }
        entry.bast = None;
    }

    fn hold(&mut self, seq: u64, grant: &Grant, incarnation: Incarnation, demoted: bool) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        let lvb = grant.lvb.clone();
        let held = Held { mode: grant.mode, token: grant.token, lvb, incarnation, demoted };
        if entry.held.replace(held).is_none() {
            self.held += 1;
        }
        // What was asked of the old mode is settled.
        entry.bast = None;
    }

    /// The lock is no more: what was still asked of it ends too.
    fn ended(&mut self, seq: u64) {
        let Some(entry) = self.remove(seq) else { return };
        for pending in entry.pending {
            let answer = if pending.op == UNLOCK_OP { Answer::Unlocked } else { Answer::Denied(Denial::Cancelled) };
            self.report(seq, pending.op, answer, entry.silent);
        }
    }

    fn remove(&mut self, seq: u64) -> Option<Entry> {
        let entry = self.entries.remove(&seq)?;
        if entry.held.is_some() && entry.lost.is_none() {
            self.held -= 1;
        }
        Some(entry)
    }

    fn report(&mut self, seq: u64, op: u32, answer: Answer, silent: bool) {
        if self.awaited == Some((seq, op)) {
            self.answer = Some(answer);
        } else if !silent {
            self.events.push_back(Event::Answer { seq, op, answer });
        }
    }

    /// A lock has ended without our doing; what was asked of it ends too.
    pub(crate) fn lose(&mut self, seq: u64, loss: Loss) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        if entry.lost.is_some() {
            return;
        }
        let was_held = entry.held.is_some();
        let (silent, guarded) = (entry.silent, entry.guarded);
        let pending = std::mem::take(&mut entry.pending);
        if was_held {
            self.held -= 1;
        }
        entry.lost = Some(loss);
        if !guarded {
            self.entries.remove(&seq);
        }
        let mut given_up = silent;
        for pending in pending {
            let answer = match &pending.request {
                // The lock is no more, as was asked for. Whether a value was written cannot be known.
                Request::Unlock(unlock) => {
                    given_up = true;
                    if unlock.lvb.is_none() { Answer::Unlocked } else { Answer::Denied(Denial::SessionOver) }
                }
                _ => Answer::Denied(Denial::SessionOver),
            };
            self.report(seq, pending.op, answer, silent);
        }
        if was_held && !given_up {
            self.events.push_back(Event::Lost { seq, loss });
        }
    }

    /// All locks that are held are lost; requests that wait for a new lock go on. Whether there was any.
    pub(crate) fn lose_all(&mut self, loss: Loss) -> bool {
        self.lose_where(loss, |_| true)
    }

    /// The locks that were granted under another incarnation are lost.
    pub(crate) fn lose_others(&mut self, incarnation: Incarnation) -> bool {
        self.lose_where(Loss::Lease, |held| held.incarnation != incarnation)
    }

    fn lose_where(&mut self, loss: Loss, lost: impl Fn(&Held) -> bool) -> bool {
        let mut gone: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.lost.is_none() && entry.held.as_ref().is_some_and(&lost))
            .map(|(&seq, _)| seq)
            .collect();
        gone.sort_unstable();
        for &seq in &gone {
            self.lose(seq, loss);
        }
        !gone.is_empty()
    }

    /// The locks that are held were confirmed by the daemon of this incarnation, in the modes that were claimed: what a
    /// conversion under way gives up is gone, also if it is denied now.
    pub(crate) fn confirm(&mut self, incarnation: Incarnation) {
        for entry in self.entries.values_mut() {
            let Some(held) = &mut entry.held else { continue };
            // The daemon that was asked knows whether it came to a demotion; another one does not.
            let forgotten = std::mem::replace(&mut held.incarnation, incarnation) != incarnation;
            for pending in &mut entry.pending {
                let Request::Convert(convert) = &pending.request else { continue };
                if forgotten && pending.may_demote(held.mode) {
                    pending.demoted = true;
                    held.mode = Mode::NL;
                } else {
                    held.mode = common(held.mode, convert.mode);
                }
            }
        }
    }

    /// A blocking notice.
    pub(crate) fn bast(&mut self, seq: u64, wanted: Mode) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        if entry.silent || entry.lost.is_some() {
            return;
        }
        match entry.bast {
            Some(known) => entry.bast = Some(cover(known, wanted)),
            None => {
                entry.bast = Some(wanted);
                self.events.push_back(Event::Bast { seq, wanted });
            }
        }
    }

    /// An event that concerns no single lock.
    pub(crate) fn tell(&mut self, event: Event) {
        let of_link = |event: &Event| !matches!(event, Event::Answer { .. } | Event::Bast { .. } | Event::Lost { .. });
        if self.events.iter().filter(|event| of_link(event)).count() >= MAX_LINK_EVENTS
            && let Some(oldest) = self.events.iter().position(of_link)
        {
            self.events.remove(oldest);
        }
        self.events.push_back(event);
    }

    /// Whether there is anything to report.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// What is to be reported.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        let events = std::mem::take(&mut self.events);
        let current = |event| match event {
            // The notice says what is wanted by now, and nothing when the lock is gone or was converted since.
            Event::Bast { seq, .. } => {
                let wanted = self.entries.get_mut(&seq)?.bast.take()?;
                Some(Event::Bast { seq, wanted })
            }
            other => Some(other),
        };
        events.into_iter().filter_map(current).collect()
    }

    /// What this client believes it holds, for `Hello`.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        let mut claims: Vec<Claim> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.lost.is_none())
            .filter_map(|(&seq, entry)| {
                let held = entry.held.as_ref()?;
                let (resource, range) = (entry.resource.clone(), entry.range);
                // What is under way may be settled already: what is left of the mode in any case is claimed.
                let mode = entry.pending.iter().fold(held.mode, |mode, pending| pending.leaves(mode));
                Some(Claim { seq, resource, range, mode, token: held.token })
            })
            .collect();
        claims.sort_unstable_by_key(|claim| claim.seq);
        claims
    }

    /// Locks that were asked for without an answer, for `Hello`.
    pub(crate) fn asked(&self) -> Vec<u64> {
        let unheard = |entry: &Entry| entry.lost.is_none() && entry.held.is_none() && !entry.pending.is_empty();
        let mut asked: Vec<u64> =
            self.entries.iter().filter(|(_, entry)| unheard(entry)).map(|(&seq, _)| seq).collect();
        asked.sort_unstable();
        asked
    }

    /// A lock that is held, in the mode that is left of it in any case, whatever became of what is under way.
    pub(crate) fn relied_on(&self, seq: u64) -> Option<Held> {
        let entry = self.entries.get(&seq)?;
        let held = entry.held.clone()?;
        let mode = entry.pending.iter().fold(held.mode, |mode, pending| pending.leaves(mode));
        Some(Held { mode, ..held })
    }

    /// Everything that was not answered, in its order, with what is left of the timeouts.
    pub(crate) fn unanswered(&self, now_ns: u64) -> Vec<Request> {
        let mut all: Vec<(u64, &Pending)> = self
            .entries
            .iter()
            .flat_map(|(&seq, entry)| entry.pending.iter().map(move |pending| (seq, pending)))
            .collect();
        all.sort_unstable_by_key(|(_, pending)| pending.order);
        let mut requests = Vec::with_capacity(all.len());
        for (seq, pending) in all {
            let mut request = pending.request.clone();
            let left_ms = pending.expires_ns.map(|end| end.saturating_sub(now_ns).div_ceil(1_000_000));
            match &mut request {
                Request::Lock(lock) => lock.timeout_ms = left_ms,
                Request::Convert(convert) => convert.timeout_ms = left_ms,
                _ => {}
            }
            requests.push(request);
            if pending.cancelled {
                requests.push(Request::Cancel { seq });
            }
        }
        requests
    }
}

/// An unlock without a value.
pub(crate) fn plain_unlock(seq: u64) -> UnlockRequest {
    UnlockRequest { seq, lvb: None, invalidate_lvb: false }
}

/// The weakest mode that covers both.
fn cover(a: Mode, b: Mode) -> Mode {
    let covers_both = |mode: &Mode| mode.covers(a) && mode.covers(b);
    Mode::ALL.into_iter().find(covers_both).unwrap_or(Mode::EX)
}
/// What two modes both permit.
fn common(a: Mode, b: Mode) -> Mode {
    match (a.covers(b), b.covers(a)) {
        (true, _) => b,
        (_, true) => a,
        // PR and CW.
        _ => Mode::CR,
    }
}
