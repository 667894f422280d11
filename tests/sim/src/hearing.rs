//! What clients are told, and what the oracles make of it.

use crate::client::{Held, Op, UNLOCK};
use crate::clock::MS;
use crate::oracle::order::Order;
use crate::oracle::release::{self, Loss};
use crate::oracle::{Rule, answers};
use crate::world::{ConnOwner, Event, World};
use mxlock_dlm::io::ConnId;
use mxlock_dlm::time::BootTime;
use mxlock_format::{ByteRange, LockId, Mode};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{AdminReply, Answer, Denial, Grant, LossReason, Refusal, Request, Response, Welcome};
use mxlock_proto::peer::{Outcome, OutcomeResult, PeerFrame, PeerMessage};

impl World {
    /// A response reaches its client.
    pub fn response_arrives(&mut self, id: ConnId, response: Response) {
        let Some(conn) = self.conns.get(&id).filter(|conn| !conn.client_closed) else { return };
        let run = conn.run;
        let client = match conn.owner {
            ConnOwner::Operator(host) => {
                if let Response::Admin { reply, .. } = response {
                    if let AdminReply::Status(status) = reply {
                        self.statuses.insert(host, *status);
                    }
                    self.close_towards_daemon(id);
                }
                return;
            }
            ConnOwner::Client(client) => client,
        };
        if self.clients[client].conn != Some(id) || !self.clients[client].alive {
            return;
        }
        self.trace(|| format!("c{client} <- {response:?}"));
        match response {
            Response::Welcome(welcome) => self.welcomed(client, run, welcome),
            Response::Refused(refusal) => self.refused(client, id, refusal),
            Response::Answer { seq, op, answer } => self.answered(client, seq, op, answer),
            Response::Bast { seq, .. } => self.wanted(client, seq),
            Response::Lost { seq, reason } => self.told_lost(client, seq, reason),
            Response::LeaseLost => self.clients[client].lease_lost = true,
            Response::LeaseRegained => {
                self.clients[client].lease_lost = false;
                self.check_client(client);
            }
            Response::Admin { .. } => {}
        }
    }

    fn welcomed(&mut self, client: usize, run: u32, welcome: Welcome) {
        let resumed = self.clients[client].session == Some(welcome.session);
        if self.clients[client].session.is_some() && !resumed {
            self.fail(Rule::I5, format!("client {client} took up its session and was given another one"));
            return;
        }
        // Locks whose deadline passed before the daemon was back are lost to the client, whatever the daemon says.
        let in_time = self.clients[client]
            .page
            .is_some_and(|page| self.hosts[self.clients[client].host].page_valid(page, self.now));
        let trusted = self.trusts(client);
        for seq in welcome.lost {
            let damaged = self.oracles.damage.has_hit(self.clients[client].session);
            let relied_on = trusted && !damaged && self.believes(client, seq);
            let verdict = release::loss(Loss { reason: None, relied_on, excluded: false });
            self.judge(Rule::I5, verdict.map_err(|error| format!("client {client} claimed lock {seq}: {error}")));
            self.lost(client, seq);
        }
        let me = &mut self.clients[client];
        me.session = Some(welcome.session);
        me.welcomed = true;
        me.lease_lost = false;
        me.away_since = None;
        let old_page = me.page.replace(run);
        me.from_records |= resumed && old_page != Some(run);
        let incarnation = self.incarnation_of(client);
        let forgotten = old_page != Some(run);
        for held in self.clients[client].locks.values_mut() {
            held.incarnation = incarnation;
            // A daemon that has forgotten what was asked cannot say whether it came to a demotion.
            let told = held.told;
            for op in held.ops.values_mut().filter(|op| forgotten && told.is_some_and(|told| op.may_demote(told))) {
                op.demoted = true;
                held.told = Some(Mode::NL);
            }
            // Between PR and CW the old mode is gone with the claim, also if the conversion is denied now.
            if held.claimed() == Some(Mode::CR) && matches!(held.told, Some(Mode::PR | Mode::CW)) {
                held.told = Some(Mode::CR);
            }
        }
        if !in_time && old_page.is_some_and(|old| old != run) {
            let held: Vec<u64> = self.clients[client].locks.keys().copied().collect();
            for seq in held {
                let told = self.clients[client].locks.get(&seq).is_some_and(|held| held.told.is_some());
                if told {
                    self.set_belief(client, seq, None);
                }
            }
        }
        self.check_client(client);
        self.send_again(client);
    }

    /// Operations that were not answered are sent again.
    fn send_again(&mut self, client: usize) {
        let Some(conn) = self.clients[client].conn else { return };
        let mut requests: Vec<Request> = Vec::new();
        for (&seq, held) in &self.clients[client].locks {
            requests.extend(held.ops.values().map(|op| op.request.clone()));
            if held.cancelled && held.ops.keys().any(|&op| op != UNLOCK) {
                requests.push(Request::Cancel { seq });
            }
        }
        for request in requests {
            self.send_request(conn, request);
        }
    }

    fn refused(&mut self, client: usize, conn: ConnId, refusal: Refusal) {
        match refusal {
            Refusal::ShuttingDown | Refusal::TooManySessions => {}
            Refusal::UnknownSession => {
                let locks: Vec<u64> = self.clients[client].locks.keys().copied().collect();
                let damaged = self.oracles.damage.has_hit(self.clients[client].session);
                let relied_on = !damaged && locks.into_iter().any(|seq| self.believes(client, seq));
                let verdict = release::loss(Loss { reason: None, relied_on, excluded: false });
                let told = |error| format!("the session of client {client} is not known any more: {error}");
                self.judge(Rule::I5, verdict.map_err(told));
                self.lose_session(client);
            }
            other => self.fail(Rule::I7, format!("client {client} was refused: {other:?}")),
        }
        if self.clients[client].conn == Some(conn) {
            self.clients[client].conn = None;
            self.clients[client].welcomed = false;
            self.close_towards_daemon(conn);
            let at = self.now + 300 * MS;
            self.schedule(at, Event::Connect { client });
        }
    }

    fn answered(&mut self, client: usize, seq: u64, op: u32, answer: Answer) {
        match answers::check(&self.clients[client], seq, op) {
            Err(message) => return self.fail(Rule::I7, message),
            Ok(false) => return self.repeated(client, seq, op, answer),
            Ok(true) => {}
        }
        let me = &mut self.clients[client];
        if me.locks.get(&seq).is_some_and(|held| held.ops.get(&op).is_some_and(|op| op.resent)) {
            me.echoes.insert((seq, op));
        }
        match answer {
            Answer::Granted(grant) => self.granted(client, seq, op, grant),
            Answer::GrantedDemoted(grant) => {
                self.demoted(client, seq, op);
                self.granted(client, seq, op, grant);
            }
            Answer::Denied(denial) => self.denied(client, seq, op, denial),
            Answer::DeniedDemoted(denial) => {
                self.demoted(client, seq, op);
                self.denied(client, seq, op, denial);
            }
            Answer::Unlocked => self.unlocked(client, seq, op),
        }
    }

    /// What was held was given up on the way: the client has to have agreed to that (CONVDEADLK).
    fn demoted(&mut self, client: usize, seq: u64, op: u32) {
        self.coverage.demotions += 1;
        let Some(held) = self.clients[client].locks.get_mut(&seq) else { return };
        let Some((told, asked)) = held.told.zip(held.ops.get(&op)) else { return };
        let agreed = asked.demoted || asked.may_demote(told);
        held.told = Some(Mode::NL);
        if !agreed {
            self.fail(Rule::I5, format!("client {client}: lock {seq} was demoted, which nothing allowed"));
        }
    }

    /// The repetition of an answer. If the first one was a denial, the lock was asked for anew without wanting it.
    fn repeated(&mut self, client: usize, seq: u64, op: u32, answer: Answer) {
        let known = self.clients[client].locks.contains_key(&seq);
        if op == 0 && !known && matches!(answer, Answer::Granted(_)) {
            let now = self.now;
            self.clients[client].locks.insert(seq, Held::new(0, None, now));
            self.clients[client].echoes.insert((seq, UNLOCK));
            self.unlock(client, seq);
        }
    }

    fn granted(&mut self, client: usize, seq: u64, op: u32, grant: Grant) {
        let now = self.now;
        let boot = self.hosts[self.clients[client].host].clock.boot(now);
        let Some(lock) = self.clients[client].lock_id(seq) else { return };
        let incarnation = self.incarnation_of(client);
        let Some(held) = self.clients[client].locks.get_mut(&seq) else { return };
        let Some(done) = held.ops.remove(&op) else { return };
        let before = held.told;
        held.persistent = asked_flags(&done.request).persistence().unwrap_or(held.persistent);
        held.told = Some(grant.mode);
        held.incarnation = incarnation;
        held.token = grant.token;
        held.asked_at = done.sent;
        held.told_at = now;
        let (resource, unlocking, span) = (held.resource, held.unlocking, held.span());
        self.coverage.grants += 1;
        self.coverage.persistent_grants += u64::from(held.persistent);
        self.coverage.ranged_grants += u64::from(held.range.is_some());
        self.coverage.alternative_grants += u64::from(asked_mode(&done.request).is_some_and(|mode| mode != grant.mode));
        if let Request::Adopt(_) = done.request {
            self.coverage.adoptions += 1;
            self.coverage.ranged_adoptions += u64::from(span != ByteRange::ALL);
            // After the storm orphans are looked up.
            if !self.oracles.orphans.adopted(resource, span, grant.mode) && self.storm && !self.may_be_lost(resource) {
                let what = format!("client {client} adopted resource {resource} in {}, which nobody left", grant.mode);
                self.fail(Rule::I5, what);
            }
        }
        self.coverage.waits += u64::from(now - done.sent > 20 * MS);

        let raised = before.is_none_or(|before| !before.covers(grant.mode));
        if raised {
            self.coverage.tokens_compared += 1;
            let verdict = self.oracles.tokens.granted(lock, op, grant.token, done.token_floor);
            self.judge(Rule::I2, verdict);
            // What it is adopting in this moment is its own (OWN), though it has not heard so.
            let adopting = |held: &&Held| held.ops.values().any(|op| matches!(op.request, Request::Adopt(_)));
            let mine = self.clients[client].locks.values().filter(|held| held.resource == resource);
            let spans: Vec<ByteRange> = mine.filter(adopting).map(Held::span).collect();
            spans.into_iter().for_each(|span| self.oracles.orphans.perhaps_adopted(resource, span, false));
            let views = &self.oracles.views;
            let verdict = self
                .oracles
                .orphans
                .granted(resource, span, grant.mode, now, |node, since| views.excluded_since(node, since));
            self.judge(Rule::I5, verdict.map_err(|error| format!("client {client} lock {seq}: {error}")));
        }
        self.effect_done(resource, &done);
        if raised
            && let Some(value) = &grant.lvb
            && value.valid
        {
            self.coverage.values_read += 1;
            let excludes = !grant.mode.compatible(Mode::PW);
            let verdict = self.oracles.values.read(resource, &value.bytes, done.sent, excludes);
            self.judge(Rule::I9, verdict);
        }
        if op == 0 && done.plain {
            self.judge_order(client, seq, lock, &done, grant.token);
        }
        self.oracles.order.forget(lock);
        if unlocking {
            return;
        }
        // The client looks at its clock before it acts (section 2).
        if boot >= BootTime(grant.valid_until_ns) {
            self.unlock(client, seq);
            return;
        }
        self.set_belief(client, seq, Some(grant.mode));
        self.check_record(client, seq);
    }

    /// I8: whoever was queued before this plain request must not get a greater token later, and has not got one.
    fn judge_order(&mut self, client: usize, seq: u64, lock: LockId, done: &Op, token: mxlock_format::Token) {
        let node = self.hosts[self.clients[client].host].daemon.as_ref().map(|daemon| daemon.node);
        if done.resent || node.is_none_or(|node| self.oracles.views.excluded_since(node, done.sent)) {
            // Its daemon was restarted or excluded: it was asked for anew.
            return;
        }
        let verdict = Order::check(lock, token, done.overtaken_by);
        self.judge(Rule::I8, verdict.map_err(|error| format!("client {client} lock {seq}: {error}")));
        let Some(mode) = wanted(done) else { return };
        for ahead in done.behind.clone() {
            if let Some((other, their_seq)) = self.client_of(ahead)
                && let Some(held) = self.clients[other].locks.get_mut(&their_seq)
                && !held.cancelled
                && !held.unlocking
                && let Some(op) = held.ops.get_mut(&0)
                && op.plain
                && !op.resent
                && wanted(op).is_some_and(|theirs| !theirs.compatible(mode))
            {
                self.coverage.orders_checked += 1;
                op.overtaken_by = Some(op.overtaken_by.map_or(token, |known| known.min(token)));
            }
        }
    }

    /// Whether a client was asking for a PERSISTENT lock on it, or had one, when its node was excluded: what came of that it
    /// has still to hear, or does not want to hear any more.
    fn may_be_lost(&self, resource: usize) -> bool {
        let views = &self.oracles.views;
        self.oracles.orphans.may_be_unheard(resource, |node, since| views.excluded_since(node, since))
            || self.clients.iter().any(|client| {
                let node = self.hosts[client.host].daemon.as_ref().map(|daemon| daemon.node);
                let since = |held: &Held| held.ops.values().map(|op| op.sent).min().unwrap_or(held.asked_at);
                let lost = |held: &Held| node.is_none_or(|node| self.oracles.views.excluded_since(node, since(held)));
                client.locks.values().any(|held| held.resource == resource && held.may_outlive() && lost(held))
            })
    }

    /// A master denies a request, which gives its place up. If the word is lost with the master, the next one is asked anew.
    pub fn hear_denial(&mut self, frame: &PeerFrame) {
        let Some(PeerMessage::Outcome(Outcome { lock, op, result })) = &frame.message else { return };
        if !matches!(result, OutcomeResult::Denied(_) | OutcomeResult::DeniedDemoted(_)) {
            return;
        }
        self.gives_up_place(*lock, *op);
    }

    /// A request is denied, and its place given up, before the word of it is under way or known to arrive.
    pub fn gives_up_place(&mut self, lock: LockId, op: u32) {
        self.oracles.order.forget(lock);
        if let Some((client, seq)) = self.client_of(lock)
            && let Some(op) = self.clients[client].locks.get_mut(&seq).and_then(|held| held.ops.get_mut(&op))
        {
            op.plain = false;
        }
    }

    fn denied(&mut self, client: usize, seq: u64, op: u32, denial: Denial) {
        self.coverage.denials += 1;
        self.coverage.table_full += u64::from(denial == Denial::TableFull);
        self.coverage.refused_as_invalid += u64::from(denial == Denial::Invalid);
        self.coverage.conversion_deadlocks += u64::from(denial == Denial::Deadlock);
        let node = self.hosts[self.clients[client].host].daemon.as_ref().map(|daemon| daemon.node);
        let Some(held) = self.clients[client].locks.get_mut(&seq) else { return };
        let Some(done) = held.ops.remove(&op) else { return };
        let resource = held.resource;
        match op {
            UNLOCK if denial != Denial::NotFound => {
                // It is asked for again until it is done.
                let request = done.request.clone();
                held.ops.insert(op, done);
                if let Some(conn) = self.clients[client].conn {
                    self.send_request(conn, request);
                }
            }
            UNLOCK | 0 => {
                let looked = matches!(denial, Denial::NotFound | Denial::Busy | Denial::Permission);
                if let (Request::Adopt(adopt), false) = (&done.request, looked) {
                    self.oracles.orphans.perhaps_adopted(held.resource, held.span(), adopt.persistent);
                }
                // An excluded node's daemon does not know what became of it: a PERSISTENT one may be an orphan.
                if op == UNLOCK || denial == Denial::LeaseLost {
                    self.left_by_loss(client, seq);
                }
                if let Some(node) = node.filter(|_| asked_flags(&done.request).contains(LockFlags::PERSISTENT)) {
                    self.oracles.orphans.denied(resource, node, done.sent);
                }
                self.drop_if_idle(client, seq, op);
            }
            _ => {
                let told = held.told;
                let gone = held.unlocking;
                held.cancelled = false;
                match denial {
                    Denial::NotFound => self.lost(client, seq),
                    _ if !gone => {
                        self.set_belief(client, seq, told);
                        self.check_record(client, seq);
                    }
                    _ => {}
                }
            }
        }
    }

    /// A lock that was never granted, or is released, goes when nothing more is to be answered.
    fn drop_if_idle(&mut self, client: usize, seq: u64, op: u32) {
        let Some(held) = self.clients[client].locks.get_mut(&seq) else { return };
        if op == 0 {
            held.told = None;
        }
        if held.ops.is_empty() {
            self.drop_lock(client, seq);
        } else {
            self.set_belief(client, seq, None);
        }
    }

    /// What an operation said of its resource's value was acknowledged.
    fn effect_done(&mut self, resource: usize, done: &Op) {
        let now = self.now;
        if let Some(value) = done.value {
            self.oracles.values.acknowledge(value, now);
        }
        if let Some(last) = done.invalidates {
            self.coverage.values_doubted += 1;
            self.oracles.values.invalidated(resource, last, now);
        }
    }

    fn unlocked(&mut self, client: usize, seq: u64, op: u32) {
        let Some(held) = self.clients[client].locks.get_mut(&seq) else { return };
        let resource = held.resource;
        let Some(done) = held.ops.remove(&op) else { return };
        if op != UNLOCK {
            self.fail(Rule::I7, format!("client {client}: operation {op} of lock {seq} was answered with Unlocked"));
            return;
        }
        self.effect_done(resource, &done);
        self.drop_if_idle(client, seq, op);
    }

    /// Somebody wants it: most clients hurry.
    fn wanted(&mut self, client: usize, seq: u64) {
        let now = self.now;
        let me = &mut self.clients[client];
        let hurry = me.dice.chance(700_000);
        if let Some(held) = me.locks.get_mut(&seq)
            && hurry
        {
            held.keep_until = now;
        }
    }

    fn told_lost(&mut self, client: usize, seq: u64, reason: LossReason) {
        let me = &self.clients[client];
        let node = self.hosts[me.host].daemon.as_ref().map(|daemon| daemon.node);
        if let (Some(node), Some(held)) = (node, me.locks.get(&seq)) {
            let excluded = self.oracles.views.excluded_since(node, held.asked_at);
            let relied_on = self.believes(client, seq);
            let verdict = release::loss(Loss { reason: Some(reason), relied_on, excluded });
            self.judge(Rule::I5, verdict.map_err(|error| format!("client {client} lost lock {seq}: {error}")));
        }
        self.lost(client, seq);
    }

    /// The lock is lost to the client, and what it asked of it is over: whether a value was written cannot be known.
    /// Answers that were on their way say nothing more.
    fn lost(&mut self, client: usize, seq: u64) {
        self.left_by_loss(client, seq);
        let Some(held) = self.clients[client].locks.get(&seq) else { return };
        let ops: Vec<u32> = held.ops.keys().copied().collect();
        self.clients[client].echoes.extend(ops.into_iter().map(|op| (seq, op)));
        self.drop_lock(client, seq);
    }
}

/// The mode that a new request asks for.
fn wanted(op: &Op) -> Option<Mode> {
    match &op.request {
        Request::Lock(lock) => Some(lock.mode),
        _ => None,
    }
}

/// The mode that an operation asks for.
fn asked_mode(request: &Request) -> Option<Mode> {
    match request {
        Request::Lock(lock) => Some(lock.mode),
        Request::Convert(convert) => Some(convert.mode),
        _ => None,
    }
}

/// The flags that a grant of this operation has taken in.
fn asked_flags(request: &Request) -> LockFlags {
    match request {
        Request::Lock(lock) => lock.flags,
        Request::Convert(convert) => convert.flags,
        _ => LockFlags::NONE,
    }
}
