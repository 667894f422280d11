//! What clients do: connect, lock, convert, release, give up, die.

use crate::client::{Client, Held, Op, UNLOCK, is_plain, meet};
use crate::clock::{MS, SEC, US};
use crate::oracle::values::Values;
use crate::world::{Conn, ConnOwner, Event, World};
use mxlock_dlm::io::{ConnId, Input};
use mxlock_format::{ByteRange, Mode, Process};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{CLIENT_PROTOCOL, ConvertRequest, Hello, LockRequest, Request, Response, UnlockRequest};

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
        let Some(daemon) = self.daemon(host, run) else { return };
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
            self.give_up(client);
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
        let hello =
            Hello { version: CLIENT_PROTOCOL, resume: me.session, claims: me.claims(resources), on_behalf_of: None };
        self.send_request(conn, Request::Hello(hello));
    }

    /// Whether the page that a client maps still says that the lease stands, or a loss was told and may be undone.
    fn page_stands(&self, client: usize) -> bool {
        let me = &self.clients[client];
        me.page.is_some_and(|run| self.hosts[me.host].page_valid(run, self.now))
    }

    /// All locks and the session are lost.
    pub fn give_up(&mut self, client: usize) {
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

    /// Forgets a lock.
    pub fn drop_lock(&mut self, client: usize, seq: u64) {
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
        if self.let_go(client) || !self.storm {
            return;
        }
        let me = &mut self.clients[client];
        match me.dice.below(100) {
            0..=59 if me.locks.len() < me.appetite => self.ask(client),
            60..=79 => self.convert(client),
            80..=84 => self.cancel(client),
            85 => self.say_bye(client),
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

    /// Asks for a new lock.
    fn ask(&mut self, client: usize) {
        let now = self.now;
        let (resources, keep) = (self.resources.len() as u64, self.setup.keep);
        let (flags_ppm, ranges_ppm) = (self.setup.flags_ppm, self.setup.ranges_ppm);
        let me = &mut self.clients[client];
        let index = me.dice.below(resources) as usize;
        if me.locks.values().any(|held| held.resource == index) {
            return;
        }
        let mode =
            *me.dice.pick(&[Mode::EX, Mode::EX, Mode::EX, Mode::PR, Mode::PR, Mode::PW, Mode::CW, Mode::CR, Mode::NL]);
        let flags = if me.dice.chance(flags_ppm) {
            *me.dice.pick(&[
                LockFlags::NOQUEUE,
                LockFlags::NOQUEUE,
                LockFlags::NOORDER,
                LockFlags::HEADQUE,
                LockFlags::ALTPR,
                LockFlags::NODLCKWT,
            ])
        } else {
            LockFlags::NONE
        };
        let flags = if flags == LockFlags::NODLCKWT { LockFlags::NONE } else { flags };
        let range = if me.dice.chance(ranges_ppm) {
            let start = me.dice.below(8);
            ByteRange::new(start, start + me.dice.below(4))
        } else {
            None
        };
        let timeout_ms = if me.dice.chance(150_000) { Some(me.dice.range(50, 5_000)) } else { None };
        let orphan_lifetime_ms = if me.dice.chance(30_000) { Some(me.dice.range(1_000, 5_000) as u32) } else { None };
        let seq = me.next_seq;
        me.next_seq += 1;
        let keep_until = now + me.dice.spread(keep);
        me.locks.insert(seq, Held::new(index, range, keep_until));
        let resource = self.resources[index].clone();
        let plain = is_plain(flags, range);
        let request = Request::Lock(LockRequest {
            seq,
            resource,
            mode,
            flags,
            range,
            timeout_ms,
            transaction: 0,
            orphan_lifetime_ms,
        });
        self.send_op(client, seq, 0, request, plain, None);
    }

    /// Sends an operation, and remembers what the oracles need to judge its end.
    fn send_op(&mut self, client: usize, seq: u64, op: u32, request: Request, plain: bool, value: Option<u64>) {
        let now = self.now;
        let floor = self.oracles.tokens.greatest();
        let Some(held) = self.clients[client].locks.get(&seq) else { return };
        let behind = if plain { self.oracles.order.on(held.resource) } else { Vec::new() };
        let conn = self.clients[client].conn;
        let Some(held) = self.clients[client].locks.get_mut(&seq) else { return };
        held.ops.insert(
            op,
            Op {
                request: request.clone(),
                sent: now,
                token_floor: floor,
                plain,
                behind,
                value,
                resent: false,
                overtaken_by: None,
            },
        );
        if let Some(conn) = conn {
            self.send_request(conn, request);
        }
    }

    /// Asks for another mode of a lock that is held.
    fn convert(&mut self, client: usize) {
        let flags_ppm = self.setup.flags_ppm;
        let me = &mut self.clients[client];
        let free: Vec<u64> = me
            .locks
            .iter()
            .filter(|(_, held)| held.told.is_some() && held.ops.is_empty() && !held.unlocking)
            .map(|(&seq, _)| seq)
            .collect();
        if free.is_empty() {
            return;
        }
        let seq = *me.dice.pick(&free);
        let mode = *me.dice.pick(&Mode::ALL);
        let flags = if me.dice.chance(flags_ppm) {
            *me.dice.pick(&[LockFlags::NOQUEUE, LockFlags::QUECVT])
        } else {
            LockFlags::NONE
        };
        let timeout_ms = if me.dice.chance(300_000) { Some(me.dice.range(50, 5_000)) } else { None };
        let write = me.dice.chance(500_000);
        let Some(held) = me.locks.get_mut(&seq) else { return };
        let Some(old) = held.told else { return };
        let op = held.next_op;
        held.next_op += 1;
        held.cancelled = false;
        let resource = held.resource;
        // Writers of parts may write at once, and then no order of values is promised.
        let whole = held.range.is_none();
        let writes = whole && matches!(old, Mode::PW | Mode::EX) && old != mode && old.covers(mode);
        let value = (write && writes && self.believes(client, seq)).then(|| self.oracles.values.write(resource));
        self.set_belief(client, seq, Some(meet(old, mode)));
        let lvb = value.map(Values::bytes);
        let request = Request::Convert(ConvertRequest { seq, op, mode, flags, timeout_ms, lvb });
        self.send_op(client, seq, op, request, false, value);
    }

    /// Ends a lock.
    pub fn unlock(&mut self, client: usize, seq: u64) {
        let write = self.clients[client].dice.chance(500_000);
        let believed = self.believes(client, seq);
        let Some(held) = self.clients[client].locks.get_mut(&seq) else { return };
        held.unlocking = true;
        let whole = held.range.is_none();
        let writes = whole && matches!(held.told, Some(Mode::PW | Mode::EX)) && held.ops.is_empty();
        let resource = held.resource;
        let value = (write && writes && believed).then(|| self.oracles.values.write(resource));
        self.set_belief(client, seq, None);
        if let Some(lock) = self.clients[client].lock_id(seq) {
            self.oracles.order.forget(lock);
        }
        let request = Request::Unlock(UnlockRequest { seq, lvb: value.map(Values::bytes), invalidate_lvb: false });
        self.send_op(client, seq, UNLOCK, request, false, value);
    }

    /// Cancels something that waits, or unlocks it while it waits.
    fn cancel(&mut self, client: usize) {
        let now = self.now;
        let me = &mut self.clients[client];
        let waiting: Vec<u64> = me
            .locks
            .iter()
            .filter(|(_, held)| {
                !held.cancelled && !held.unlocking && held.ops.values().any(|op| now - op.sent > 100 * MS)
            })
            .map(|(&seq, _)| seq)
            .collect();
        if waiting.is_empty() {
            return;
        }
        let seq = *me.dice.pick(&waiting);
        if me.dice.chance(300_000) {
            self.unlock(client, seq);
            return;
        }
        let lock = me.lock_id(seq);
        let Some(held) = me.locks.get_mut(&seq) else { return };
        held.cancelled = true;
        if let Some(lock) = lock {
            self.oracles.order.forget(lock);
        }
        if let Some(conn) = self.clients[client].conn {
            self.send_request(conn, Request::Cancel { seq });
        }
    }

    /// Ends the session; another one begins later.
    fn say_bye(&mut self, client: usize) {
        let Some(conn) = self.clients[client].conn else { return };
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
        let writers: Vec<usize> = self.clients[client]
            .locks
            .iter()
            .filter(|(_, held)| held.range.is_none() && matches!(held.told, Some(Mode::PW | Mode::EX)))
            .filter(|(_, held)| held.ops.is_empty())
            .map(|(_, held)| held.resource)
            .collect();
        for resource in writers {
            self.oracles.values.writer_died(resource, now);
        }
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
