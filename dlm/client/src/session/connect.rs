//! Connecting, greeting, taking up a session or giving it up.

use super::*;
use mxlock_proto::client::{Hello, Welcome};

impl Session {
    pub(super) fn reconnect(&mut self, now_ns: u64) {
        match Connection::open(&self.path, MAX_HELLO_FRAME) {
            Ok(connection) => {
                if self.table.is_empty() {
                    // A daemon ends a session without locks when its connection is lost.
                    self.id = None;
                }
                let purpose = match (&self.farewell, self.id) {
                    (Some(_), _) => Purpose::Farewell,
                    (None, Some(_)) => Purpose::Resume,
                    (None, None) => Purpose::Open,
                };
                self.greet(connection, purpose, now_ns);
            }
            Err(error) => {
                let failure = connect_error(&self.options.lockspace, &self.path, &error);
                self.drop_link(now_ns, Some(failure));
            }
        }
    }

    pub(super) fn greet(&mut self, mut connection: Connection, purpose: Purpose, now_ns: u64) {
        let on_behalf_of = self.options.on_behalf_of;
        let hello = match (purpose, &self.farewell) {
            (Purpose::Farewell, Some(farewell)) => farewell.clone(),
            _ => self.taking_up(),
        };
        let hello = Request::Hello(Hello { on_behalf_of, ..hello });
        let pushed = connection.push(&hello);
        connection.flush();
        self.connections += 1;
        let until_ns = after(now_ns, self.options.connect_timeout);
        self.link = Link::Greeting { connection, purpose, until_ns };
        if let Err(fault) = pushed {
            self.broken(now_ns, fault.into());
        }
    }

    /// The greeting that takes up the session, if there is one, with all that it may have.
    pub(super) fn taking_up(&self) -> Hello {
        match self.id {
            Some(id) => {
                Hello { resume: Some(id), claims: self.table.claims(), asked: self.table.asked(), ..Hello::first() }
            }
            None => Hello::first(),
        }
    }

    pub(super) fn say_bye(&mut self, now_ns: u64) {
        if let Link::Greeting { connection, purpose, until_ns } = &mut self.link {
            // `Bye` is one byte: it fits in every frame.
            let _ = connection.push(&Request::Bye);
            connection.flush();
            *purpose = Purpose::AwaitEnd;
            *until_ns = after(now_ns, FAREWELL);
        }
    }

    pub(super) fn welcomed(&mut self, purpose: Purpose, welcome: Welcome, now_ns: u64) {
        let Link::Greeting { connection, .. } = &mut self.link else { return };
        let Some(page) = connection.page.take() else { return self.broken(now_ns, ProtocolFault::NoPage) };
        let deadline_ns = self.lease.as_ref().map_or(0, Lease::deadline_ns);
        let resumed = purpose == Purpose::Resume && self.id == Some(welcome.session);
        let promised_ns = if resumed { deadline_ns } else { 0 };
        let lease = match Lease::map(&page, promised_ns) {
            Ok(lease) => lease,
            Err(fault) => return self.broken(now_ns, fault),
        };
        if resumed && self.table.holds_any() && boottime_ns() >= deadline_ns {
            // The welcome came too late: this client has to have stopped at the deadline, whatever the daemon kept.
            self.lease_lost();
            self.give_up(Loss::Lease);
            return self.say_bye(now_ns);
        }
        let first = self.lease.is_none();
        if !resumed && self.table.lose_all(Loss::NotConfirmed) {
            self.lost_by(Loss::NotConfirmed);
        }
        for &seq in &welcome.lost {
            self.table.lose(seq, Loss::NotConfirmed);
        }
        self.table.confirm(lease.incarnation());
        if first {
            self.lease_told_lost = boottime_ns() >= lease.deadline_ns();
        }
        self.lease = Some(lease);
        self.id = Some(welcome.session);
        self.node = Some(welcome.node);
        self.daemon = welcome.daemon;
        self.last_failure = None;
        let Link::Greeting { mut connection, .. } =
            std::mem::replace(&mut self.link, Link::Down { next_try_ns: now_ns })
        else {
            return;
        };
        connection.reader.set_max(MAX_CLIENT_FRAME);
        self.link = Link::Up { connection, since_ns: now_ns };
        if !first {
            self.table.tell(Event::Reconnected);
        }
        self.send_unanswered(now_ns);
        self.check_lease(boottime_ns());
    }

    pub(super) fn send_unanswered(&mut self, now_ns: u64) {
        let Link::Up { connection, .. } = &mut self.link else { return };
        for request in self.table.unanswered(now_ns) {
            // Each was within the limit when it was sent first.
            let _ = connection.push(&request);
        }
        connection.flush();
    }

    pub(super) fn refused(&mut self, purpose: Purpose, refusal: Refusal, now_ns: u64) {
        let failure = ClientError::Refused { socket: self.path.clone(), refusal };
        let gone = matches!(refusal, Refusal::UnknownSession | Refusal::NotYourSession | Refusal::NoSuchProcess);
        if purpose == Purpose::Resume && gone {
            self.id = None;
            if self.table.lose_all(Loss::NotConfirmed) {
                self.lost_by(Loss::NotConfirmed);
            }
        }
        self.drop_link(now_ns, Some(failure));
        if gone && purpose != Purpose::Open {
            // There is nothing to wait for: the next session is opened at once.
            self.link = Link::Down { next_try_ns: now_ns };
        }
    }

    /// The daemon does not keep to the protocol: this connection is of no more use.
    pub(super) fn broken(&mut self, now_ns: u64, fault: ProtocolFault) {
        let failure = ClientError::Protocol { socket: self.path.clone(), fault };
        self.drop_link(now_ns, Some(failure));
    }

    /// The connection ended, or could not be made.
    pub(super) fn drop_link(&mut self, now_ns: u64, failure: Option<ClientError>) {
        if failure.is_some() {
            self.last_failure = failure;
        }
        let mut at_once = false;
        match &self.link {
            Link::Up { since_ns, .. } => {
                self.table.tell(Event::Disconnected);
                self.down_since_ns = now_ns;
                at_once = now_ns.saturating_sub(*since_ns) >= GOOD_CONNECTION.as_nanos() as u64;
            }
            // Whether the daemon took leave or not, the next connection is for a new session: the old one's orphans
            // have a lifetime of their own.
            Link::Greeting { purpose: Purpose::Farewell | Purpose::AwaitEnd, .. } => {
                self.farewell = None;
                at_once = true;
            }
            _ => {}
        }
        let pause = if at_once { Duration::ZERO } else { self.pause };
        self.pause = if at_once { FIRST_PAUSE } else { (self.pause * 2).min(LAST_PAUSE) };
        self.link = Link::Down { next_try_ns: after(now_ns, pause) };
        self.check_lease(now_ns);
    }
}

/// The first candidate that accepts a connection.
pub(super) fn first_that_answers(options: &ConnectOptions) -> Result<(PathBuf, Connection), ClientError> {
    let mut tried = Vec::new();
    let mut forbidden = None;
    for path in options.socket_candidates() {
        match Connection::open(&path, MAX_HELLO_FRAME) {
            Ok(connection) => return Ok((path, connection)),
            Err(error) => {
                tried.push(format!("{}: {}", path.display(), cause_of(&error)));
                if error.kind() == io::ErrorKind::PermissionDenied {
                    forbidden = Some(path);
                }
            }
        }
    }
    match forbidden {
        Some(socket) => Err(ClientError::Permission { socket }),
        None => Err(ClientError::Unreachable { lockspace: options.lockspace.clone(), tried: tried.join("; ") }),
    }
}

fn connect_error(lockspace: &str, path: &Path, error: &io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Permission { socket: path.into() },
        _ => ClientError::Unreachable {
            lockspace: lockspace.into(),
            tried: format!("{}: {}", path.display(), cause_of(error)),
        },
    }
}

/// The system's words, without its error number.
fn cause_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such socket".into(),
        io::ErrorKind::ConnectionRefused => "nobody listens".into(),
        io::ErrorKind::WouldBlock => "the daemon does not accept connections at the moment".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}
