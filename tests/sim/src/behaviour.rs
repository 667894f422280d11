//! How clients live: connect, act, let go, give up, die. What they ask for is in `requests`.

use crate::client::{Client, Held};
use crate::clock::{MS, SEC, US};
use crate::oracle::release::Orphan;
use crate::world::{Conn, ConnOwner, Event, World};
use mxlock_dlm::io::{ConnId, Input};
use mxlock_format::{LockId, Mode, Process};
use mxlock_proto::client::{AdminRequest, Hello, Request, Response};

/// How a session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// Its process dies.
    Death,
    /// It says so.
    Bye,
    /// It finds its lease over, or is not known any more.
    Loss,
}

impl World {
    /// Opens a connection to the daemon of a host, if it runs.
    pub fn open_conn(&mut self, owner: ConnOwner, host: usize) -> Option<ConnId> {
        let run = self.hosts[host].daemon.as_ref().filter(|daemon| !daemon.stopping).map(|daemon| daemon.run)?;
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let now = self.now;
        let dice = self.socket_dice(owner);
        self.conns.insert(
            conn,
            Conn { owner, host, run, dice, to_daemon: now, to_client: now, client_closed: false, daemon_closed: false },
        );
        let at = self.after_socket(conn, true);
        self.schedule(at, Event::Opened { conn });
        Some(conn)
    }

    fn after_socket(&mut self, conn: ConnId, to_daemon: bool) -> u64 {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&conn) else { return now };
        let delay = conn.dice.range(10 * US, 150 * US);
        let last = if to_daemon { &mut conn.to_daemon } else { &mut conn.to_client };
        *last = (*last + 1).max(now + delay);
        *last
    }

    /// The daemon accepts a connection.
    pub fn opened(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (host, run) = (conn.host, conn.run);
        let process = match conn.owner {
            ConnOwner::Client(client) => self.clients[client].process,
            ConnOwner::Operator(host) => Process { pid: 100 + host as u32, start_time: 0, uid: 0 },
        };
        let Some(daemon) = self.daemon(host, run) else { return self.close_towards_client(id) };
        daemon.conns.insert(id);
        self.tell(host, run, Input::Connected { conn: id, process });
    }

    /// Sends a request on a connection.
    pub fn send_request(&mut self, conn: ConnId, request: Request) {
        let at = self.after_socket(conn, true);
        self.schedule(at, Event::Request { conn, request: Box::new(request) });
    }

    /// A request reaches its daemon.
    pub fn request_arrives(&mut self, id: ConnId, request: Request) {
        let Some(conn) = self.conns.get(&id).filter(|conn| !conn.daemon_closed) else { return };
        let (host, run) = (conn.host, conn.run);
        if let (false, Request::Admin { request: AdminRequest::Handover { .. }, .. }) = (self.storm, &request) {
            // The operator gave this order in the storm, on a link that was slow: at rest nobody wants it.
            return;
        }
        self.tell(host, run, Input::Client { conn: id, request, subject: None });
    }

    /// The daemon learns that the client's end is closed.
    pub fn disconnected(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.daemon_closed = true;
        let (host, run) = (conn.host, conn.run);
        let done = conn.client_closed;
        if done {
            self.conns.remove(&id);
        }
        if let Some(daemon) = self.daemon(host, run)
            && daemon.conns.remove(&id)
        {
            self.tell(host, run, Input::Disconnected { conn: id });
        }
    }

    /// The client's end is closed by the client.
    pub fn close_towards_daemon(&mut self, id: ConnId) {
        let at = self.after_socket(id, true);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.client_closed = true;
        self.schedule(at, Event::Disconnected { conn: id });
    }

    /// The daemon's end is closed, by the daemon or its death: the client learns of it after what was sent before.
    pub fn close_towards_client(&mut self, id: ConnId) {
        let at = self.after_socket(id, false);
        self.schedule(at, Event::ConnLost { conn: id });
    }

    /// The daemon sends a response.
    pub fn respond(&mut self, id: ConnId, response: Response) {
        if self.conns.get(&id).is_some_and(|conn| !conn.client_closed) {
            let at = self.after_socket(id, false);
            self.schedule(at, Event::Response { conn: id, response: Box::new(response) });
        }
    }

    /// A client has lost its connection: it tries again, and believes in its locks as long as the page says.
    pub fn conn_lost(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        if !conn.client_closed {
            if let ConnOwner::Client(client) = conn.owner
                && self.clients[client].conn == Some(id)
            {
                self.lose_connection(client);
            }
            // The daemon is told as well: it closed the connection itself, or is gone.
            self.close_towards_daemon(id);
        }
    }

    fn lose_connection(&mut self, client: usize) {
        let now = self.now;
        let me = &mut self.clients[client];
        me.conn = None;
        me.welcomed = false;
        me.away_since = Some(now);
        for (&seq, held) in &me.locks {
            if let Some(session) = me.session {
                // Its place in the queue may change when it is asked for again.
                self.oracles.order.forget(mxlock_format::LockId { session, seq });
            }
            let _ = held;
        }
        for held in me.locks.values_mut() {
            for op in held.ops.values_mut() {
                op.resent = true;
            }
        }
        let at = now + self.clients[client].dice.range(20 * MS, 300 * MS);
        self.schedule(at, Event::Connect { client });
    }

    /// Tries to connect and to take the session up again.
    pub fn client_connect(&mut self, client: usize) {
        let host = self.clients[client].host;
        if !self.clients[client].alive || self.clients[client].conn.is_some() {
            return;
        }
        // Without a daemon the locks end at the page's deadline (section 5).
        if self.clients[client].session.is_some() && !self.page_stands(client) {
            self.lose_session(client);
        }
        let Some(conn) = self.open_conn(ConnOwner::Client(client), host) else {
            let at = self.now + self.clients[client].dice.range(50 * MS, 250 * MS);
            self.schedule(at, Event::Connect { client });
            return;
        };
        let resources = &self.resources;
        let me = &mut self.clients[client];
        me.conn = Some(conn);
        me.welcomed = false;
        let hello = Hello { resume: me.session, claims: me.claims(resources), asked: me.asked(), ..Hello::first() };
        self.send_request(conn, Request::Hello(hello));
    }

    /// Whether the page that a client maps still says that the lease stands, or a loss was told and may be undone.
    fn page_stands(&self, client: usize) -> bool {
        let me = &self.clients[client];
        me.page.is_some_and(|run| self.hosts[me.host].page_valid(run, self.now))
    }

    /// All locks and the session are lost. Daemon and master may not know it yet.
    pub fn lose_session(&mut self, client: usize) {
        self.leave_behind(client, Ending::Loss);
        self.give_up(client);
    }

    /// Forgets all locks and the session.
    fn give_up(&mut self, client: usize) {
        let locks: Vec<u64> = self.clients[client].locks.keys().copied().collect();
        for seq in locks {
            self.drop_lock(client, seq);
        }
        let me = &mut self.clients[client];
        me.session = None;
        me.echoes.clear();
        me.from_records = false;
        me.page = None;
        me.lease_lost = false;
        me.welcomed = false;
    }

    /// A client takes back what it has asked to adopt: it may have it already.
    pub fn renounce(&mut self, client: usize, seq: u64) {
        let Some(held) = self.clients[client].locks.get(&seq) else { return };
        for op in held.ops.values() {
            if let Request::Adopt(adopt) = &op.request {
                self.oracles.orphans.perhaps_adopted(held.resource, held.span(), adopt.persistent);
            }
        }
    }

    /// Forgets a lock.
    pub fn drop_lock(&mut self, client: usize, seq: u64) {
        self.renounce(client, seq);
        self.set_belief(client, seq, None);
        if let Some(lock) = self.clients[client].lock_id(seq) {
            self.oracles.order.forget(lock);
        }
        self.clients[client].locks.remove(&seq);
    }

    /// A client acts.
    pub fn client_step(&mut self, client: usize) {
        if !self.clients[client].alive {
            return;
        }
        let think = self.setup.think;
        let wait = self.clients[client].dice.spread(think);
        self.schedule(self.now + wait, Event::ClientStep { client });
        if !self.clients[client].welcomed {
            return;
        }
        if self.let_go(client) {
            return;
        }
        if !self.storm {
            return self.adopt_what_is_left(client);
        }
        let me = &mut self.clients[client];
        match me.dice.below(100) {
            0..=59 if me.locks.len() < me.appetite => self.ask(client),
            60..=79 => self.convert(client),
            80..=84 => self.cancel(client),
            85 => self.say_bye(client),
            86..=89 => self.adopt_something(client),
            _ => {}
        }
    }

    /// Releases what has been kept for long enough; says whether there was anything.
    fn let_go(&mut self, client: usize) -> bool {
        let now = self.now;
        let storm = self.storm;
        let due: Vec<u64> = self.clients[client]
            .locks
            .iter()
            .filter(|(_, held)| {
                held.told.is_some() && held.ops.is_empty() && !held.unlocking && (held.keep_until <= now || !storm)
            })
            .map(|(&seq, _)| seq)
            .collect();
        for &seq in &due {
            self.unlock(client, seq);
        }
        !due.is_empty()
    }

    /// Ends the session; another one begins later.
    fn say_bye(&mut self, client: usize) {
        let Some(conn) = self.clients[client].conn else { return };
        self.writers_end(client);
        self.leave_behind(client, Ending::Bye);
        self.give_up(client);
        self.send_request(conn, Request::Bye);
        self.close_towards_daemon(conn);
        self.clients[client].conn = None;
        let at = self.now + SEC;
        self.schedule(at, Event::Connect { client });
    }

    /// The connection is cut, the process lives.
    pub fn cut_client(&mut self, client: usize) {
        if let Some(conn) = self.clients[client].conn {
            self.coverage.client_cuts += 1;
            self.close_towards_daemon(conn);
            self.lose_connection(client);
        }
    }

    /// The process dies; another one takes its place later.
    pub fn kill_client(&mut self, client: usize) {
        let now = self.now;
        if !self.clients[client].alive {
            return;
        }
        self.coverage.client_deaths += 1;
        self.writers_end(client);
        self.leave_behind(client, Ending::Death);
        let conn = self.clients[client].conn;
        self.give_up(client);
        let me = &mut self.clients[client];
        me.alive = false;
        me.conn = None;
        let (host, process) = (me.host, me.process);
        if let Some(conn) = conn {
            self.close_towards_daemon(conn);
        }
        if let Some(daemon) = &self.hosts[host].daemon
            && daemon.watched.contains(&process.pid)
        {
            let run = daemon.run;
            let at = now + self.clients[client].dice.range(10 * US, 5 * MS);
            self.schedule(at, Event::ProcessGone { host, run, process });
        }
        let at = now + self.clients[client].dice.range(100 * MS, 5 * SEC);
        self.schedule(at, Event::Reborn { client });
    }

    /// Whether the lease that a client's locks rest on stood until now, even if its host has just lost power.
    fn lease_stood(&self, client: usize) -> bool {
        let me = &self.clients[client];
        let host = &self.hosts[me.host];
        let until = me.page.and_then(|run| host.pages.get(&run).copied().flatten());
        !me.lease_lost && until.is_some_and(|until| host.clock.boot(self.now) < until)
    }

    /// A session ends: where it held PW or EX the value is the last one no more (I9).
    fn writers_end(&mut self, client: usize) {
        if !self.lease_stood(client) {
            return;
        }
        let now = self.now;
        for held in self.clients[client].locks.values() {
            let writer = matches!(held.told, Some(Mode::PW | Mode::EX));
            if held.range.is_none() && writer && held.ops.is_empty() && !held.unlocking {
                self.oracles.values.writer_died(held.resource, now);
            }
        }
    }

    /// A session ends: what of it outlives it (I5).
    fn leave_behind(&mut self, client: usize, ending: Ending) {
        let stood = self.lease_stood(client) && ending != Ending::Loss;
        let me = &self.clients[client];
        let node = self.hosts[me.host].daemon.as_ref().map(|daemon| daemon.node).or(self.hosts[me.host].remembered);
        // A weaker mode is told before its record is written: if the daemon and the master die now, the orphan is in the old one.
        let recorded = |held: &Held, lock: LockId| {
            let mut records = self.disk.records.iter().flatten();
            records.any(|record| record.lock == lock && Some(record.mode) == held.told)
        };
        for (&seq, held) in &me.locks {
            // A session that was only lost may still end with its process.
            let lifetime = held.lifetime_ms.filter(|_| ending != Ending::Bye && !held.may_outlive());
            let lingers = held.may_outlive() || lifetime.is_some();
            let Some(lock) = me.lock_id(seq).filter(|_| lingers) else { continue };
            self.coverage.orphans_left += 1;
            self.oracles.orphans.leave(Orphan {
                lock,
                resource: held.resource,
                span: held.span(),
                mode: held.told.unwrap_or(Mode::NL),
                node,
                since: self.now,
                // By whichever clock.
                until: lifetime.map(|ms| self.now + u64::from(ms) * MS * 95 / 100),
                certain: stood && held.told.is_some() && held.ops.is_empty() && !held.unlocking && recorded(held, lock),
            });
        }
    }

    /// A lock was lost without its session's end: a PERSISTENT one may be an orphan now.
    pub fn left_by_loss(&mut self, client: usize, seq: u64) {
        let me = &self.clients[client];
        if let (Some(lock), Some(held)) = (me.lock_id(seq), me.locks.get(&seq).filter(|held| held.may_outlive())) {
            let (resource, span, mode) = (held.resource, held.span(), held.told.unwrap_or(Mode::NL));
            let (since, node, until, certain) = (self.now, None, None, false);
            self.oracles.orphans.leave(Orphan { lock, resource, span, mode, node, since, until, certain });
        }
    }

    /// A new process takes the place of a dead one.
    pub fn client_reborn(&mut self, client: usize) {
        if !self.hosts[self.clients[client].host].on {
            let at = self.now + SEC;
            self.schedule(at, Event::Reborn { client });
            return;
        }
        self.next_pid += 1;
        let pid = self.next_pid;
        let me = &mut self.clients[client];
        let dice = me.dice.clone();
        *me = Client::new(me.host, Process { pid, start_time: self.now / MS, uid: 1000 }, me.appetite, dice);
        self.schedule(self.now, Event::Connect { client });
        self.schedule(self.now + SEC, Event::ClientStep { client });
    }
}
