//! The conversation with the daemon over any number of connections: connecting, taking up the session again, claiming
//! locks, and knowing when they are lost (DESIGN sections 5 and 7).
//!
//! ```text
//! Down --connect, Hello--> Greeting --Welcome--> Up --connection lost--> Down
//!                             |  purpose Farewell: Welcome, Bye, end of stream --> Down
//! ```
//!
//! Everything happens inside the caller's calls; there is no thread. Time is CLOCK_BOOTTIME.

mod connect;

use crate::clock::{after, boottime_ns};
use crate::error::{ClientError, ProtocolFault};
use crate::event::{Event, Loss};
use crate::lease::Lease;
use crate::options::ConnectOptions;
use crate::socket::{Connection, Received};
use crate::table::{Table, plain_unlock};
use crate::waker::Interest;
use mxlock_format::{Incarnation, NodeId, SessionId};
use mxlock_proto::client::{AdminReply, AdminRequest, Hello, Refusal, Request, Response, UnlockRequest};
use mxlock_proto::frame::{MAX_CLIENT_FRAME, MAX_HELLO_FRAME};
use mxlock_proto::report;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// First pause between two attempts to connect; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// A connection that stood for this long was a good one: the next attempt starts with the first pause again.
const GOOD_CONNECTION: Duration = Duration::from_secs(1);
/// Longest wait for the daemon to take in the last requests, and to end a session after `Bye`.
const FAREWELL: Duration = Duration::from_secs(2);
/// Longest sleep while locks are held: the clock of `ppoll` stands still while the machine sleeps, the lease does not.
const LONGEST_NAP: Duration = Duration::from_secs(1);
/// Requests that the daemon has not taken in; beyond this a submission waits.
const MAX_UNSENT_BYTES: usize = 1 << 20;

/// Where the conversation stands.
#[derive(Debug)]
enum Link {
    Down { next_try_ns: u64 },
    Greeting { connection: Connection, purpose: Purpose, until_ns: u64 },
    Up { connection: Connection, since_ns: u64 },
}

/// What a new connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A new session.
    Open,
    /// To take up the session with its locks.
    Resume,
    /// To end a session whose locks are lost, so that they do not block anybody until their lifetime has run out.
    Farewell,
    /// `Bye` is sent.
    AwaitEnd,
}

/// An administrative question that waits for its reply.
#[derive(Debug)]
struct Question {
    id: u64,
    locks: Vec<report::Lock>,
    reply: Option<AdminReply>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Session {
    options: ConnectOptions,
    path: PathBuf,
    link: Link,
    pub(crate) table: Table,
    lease: Option<Lease>,
    id: Option<SessionId>,
    /// What takes up a session that is given up and whose locks the daemon may still keep: it ends as a session that has them, so
    /// that PERSISTENT ones stay, also where only their records know of them.
    farewell: Option<Hello>,
    node: Option<NodeId>,
    daemon: String,
    /// `LeaseLost` was reported, or there was no lease when the session began.
    lease_told_lost: bool,
    /// How often held locks were lost or put in doubt; blocking calls return when it changes.
    pub(crate) losses: u64,
    last_loss: Loss,
    pause: Duration,
    down_since_ns: u64,
    last_failure: Option<ClientError>,
    question: Option<Question>,
    last_question: u64,
    /// Connections made so far; the number names the present one.
    connections: u64,
}

impl Session {
    /// Connects to the first socket that answers and waits for the welcome.
    pub(crate) fn open(options: ConnectOptions) -> Result<Session, ClientError> {
        let now_ns = boottime_ns();
        let (path, connection) = connect::first_that_answers(&options)?;
        let mut session = Session {
            path,
            link: Link::Down { next_try_ns: now_ns },
            table: Table::default(),
            lease: None,
            id: None,
            farewell: None,
            node: None,
            daemon: String::new(),
            lease_told_lost: true,
            losses: 0,
            last_loss: Loss::Lease,
            pause: FIRST_PAUSE,
            down_since_ns: now_ns,
            last_failure: None,
            question: None,
            last_question: 0,
            connections: 0,
            options,
        };
        session.greet(connection, Purpose::Open, now_ns);
        loop {
            session.receive();
            match (&session.link, session.last_failure.take()) {
                (Link::Up { .. }, _) => return Ok(session),
                (Link::Down { .. }, Some(failure)) => return Err(failure),
                (Link::Down { .. }, None) => return Err(session.disconnected("it closed the connection".into())),
                (Link::Greeting { until_ns, .. }, _) => {
                    let until_ns = *until_ns;
                    if boottime_ns() >= until_ns {
                        return Err(session.no_answer(session.options.connect_timeout));
                    }
                    session.wait(Some(until_ns))?;
                }
            }
        }
    }

    pub(crate) fn options(&self) -> &ConnectOptions {
        &self.options
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn id(&self) -> Option<SessionId> {
        self.id
    }

    pub(crate) fn node(&self) -> Option<NodeId> {
        self.node
    }

    pub(crate) fn daemon(&self) -> &str {
        &self.daemon
    }

    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    fn incarnation(&self) -> Incarnation {
        self.lease.as_ref().map_or(Incarnation(0), Lease::incarnation)
    }

    /// What a waker should look at.
    pub(crate) fn interest(&self) -> (Option<BorrowedFd<'_>>, Interest) {
        let connection = match &self.link {
            Link::Down { .. } => None,
            Link::Greeting { connection, .. } | Link::Up { connection, .. } => Some(connection),
        };
        // Events that wait to be fetched wake at once: the past is as good as now.
        let timer_ns = if self.table.has_events() { Some(1) } else { self.next_timer_ns() };
        let interest = Interest {
            connection: if connection.is_some() { self.connections } else { 0 },
            writable: connection.is_some_and(|connection| connection.unsent() > 0),
            timer_ns,
        };
        (connection.map(AsFd::as_fd), interest)
    }

    /// Sends a request if the connection stands; else it is sent after the next welcome, out of the table.
    pub(crate) fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let Link::Up { connection, .. } = &mut self.link else { return Ok(()) };
        let pushed = connection.push(request);
        connection.flush();
        pushed.map_err(|fault| ClientError::Usage(format!("the request is too large: {fault}")))
    }

    /// Waits until the daemon has taken in what it was sent, up to a bound, so that a client that only submits does
    /// not collect without limit.
    pub(crate) fn make_room(&mut self) -> Result<(), ClientError> {
        let start_ns = boottime_ns();
        let until_ns = after(start_ns, self.options.answer_timeout);
        while let Link::Up { connection, .. } = &self.link
            && connection.unsent() > MAX_UNSENT_BYTES
        {
            if boottime_ns() >= until_ns {
                return Err(self.no_answer(self.options.answer_timeout));
            }
            self.wait(Some(until_ns))?;
            self.receive();
        }
        Ok(())
    }

    /// Does what time asks for: connects again, gives up a greeting, notices the end of the lease.
    pub(crate) fn tick(&mut self) {
        let now_ns = boottime_ns();
        match &self.link {
            Link::Down { next_try_ns } if now_ns >= *next_try_ns => self.reconnect(now_ns),
            Link::Greeting { until_ns, .. } if now_ns >= *until_ns => {
                let failure = self.no_answer(self.options.connect_timeout);
                self.drop_link(now_ns, Some(failure));
            }
            _ => {}
        }
        self.check_lease(now_ns);
    }

    /// When `tick` has something to do, at the latest.
    fn next_timer_ns(&self) -> Option<u64> {
        let link = match &self.link {
            Link::Down { next_try_ns } => Some(*next_try_ns),
            Link::Greeting { until_ns, .. } => Some(*until_ns),
            Link::Up { .. } => None,
        };
        let deadline = self.lease.as_ref().map(Lease::deadline_ns).filter(|_| !self.lease_told_lost);
        [link, deadline].into_iter().flatten().min()
    }

    /// Sleeps until there is something to receive or to do, or `until_ns`. False: a signal came.
    pub(crate) fn wait(&mut self, until_ns: Option<u64>) -> Result<bool, ClientError> {
        let now_ns = boottime_ns();
        let mut end_ns = [until_ns, self.next_timer_ns()].into_iter().flatten().min();
        if self.table.holds_any() {
            let nap_ns = after(now_ns, LONGEST_NAP);
            end_ns = Some(end_ns.map_or(nap_ns, |end| end.min(nap_ns)));
        }
        let timeout = end_ns.map(|end| TimeSpec::from_duration(Duration::from_nanos(end.saturating_sub(now_ns))));
        let result = match &mut self.link {
            Link::Down { .. } => ppoll(&mut [], timeout, None),
            Link::Greeting { connection, .. } | Link::Up { connection, .. } => {
                let mut wanted = PollFlags::POLLIN;
                wanted.set(PollFlags::POLLOUT, connection.unsent() > 0);
                let result = ppoll(&mut [PollFd::new(connection.as_fd(), wanted)], timeout, None);
                connection.wake();
                result
            }
        };
        match result {
            Ok(_) => Ok(true),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(io_error("waiting for mxlockd", error.into())),
        }
    }

    /// Sends what waits and takes in everything that can be read.
    pub(crate) fn receive(&mut self) {
        let now_ns = boottime_ns();
        loop {
            let (connection, greeting) = match &mut self.link {
                Link::Down { .. } => return,
                Link::Greeting { connection, .. } => (connection, true),
                Link::Up { connection, .. } => (connection, false),
            };
            if connection.unsent() > 0 {
                connection.flush();
            }
            match connection.reader.next_frame::<Response>() {
                Ok(Some(response)) => self.handle(response, now_ns),
                Ok(None) => match connection.receive(greeting) {
                    Ok(Received::Bytes) => {}
                    Ok(Received::Nothing) => return,
                    Ok(Received::End) => return self.drop_link(now_ns, None),
                    Err(error) => {
                        let failure = self.disconnected(error.to_string());
                        return self.drop_link(now_ns, Some(failure));
                    }
                },
                Err(fault) => return self.broken(now_ns, fault.into()),
            }
        }
    }

    /// There may be something to read again: for callers that have slept elsewhere.
    pub(crate) fn wake(&mut self) {
        match &mut self.link {
            Link::Down { .. } => {}
            Link::Greeting { connection, .. } | Link::Up { connection, .. } => connection.wake(),
        }
    }

    fn handle(&mut self, response: Response, now_ns: u64) {
        let purpose = match &self.link {
            Link::Down { .. } => return,
            Link::Greeting { purpose, .. } => Some(*purpose),
            Link::Up { .. } => None,
        };
        match (purpose, response) {
            (Some(Purpose::Farewell), Response::Welcome(_)) => self.say_bye(now_ns),
            (Some(Purpose::AwaitEnd), _) => {}
            (Some(purpose), Response::Welcome(welcome)) => self.welcomed(purpose, welcome, now_ns),
            (Some(purpose), Response::Refused(refusal)) => self.refused(purpose, refusal, now_ns),
            (Some(_), _) => self.broken(now_ns, ProtocolFault::OutOfTurn("an answer before the welcome")),
            (None, Response::Welcome(_)) => self.broken(now_ns, ProtocolFault::OutOfTurn("a second welcome")),
            (None, Response::Refused(refusal)) => {
                let failure = ClientError::Refused { socket: self.path.clone(), refusal };
                self.drop_link(now_ns, Some(failure));
            }
            (None, Response::Answer { seq, op, answer }) => {
                // The promise is judged by the clock as it is now, not as it was when the socket was read.
                let incarnation = self.incarnation();
                if answer.is_grant() && !self.table.knows(seq) {
                    // A request that was given up while the daemon was away, and kept its place from its record.
                    let _ = self.send(&Request::Unlock(plain_unlock(seq)));
                } else if self.table.answered(seq, op, answer, boottime_ns(), incarnation) {
                    self.unlock(plain_unlock(seq));
                }
            }
            (None, Response::Bast { seq, wanted }) => self.table.bast(seq, wanted),
            (None, Response::Lost { seq, reason }) => self.table.lose(seq, Loss::Daemon(reason)),
            (None, Response::LeaseLost) => self.lease_lost(),
            (None, Response::LeaseRegained) => self.check_lease(now_ns),
            (None, Response::Admin { id, reply }) => self.replied(id, reply),
        }
    }

    /// Notes an unlock and sends it.
    pub(crate) fn unlock(&mut self, unlock: UnlockRequest) {
        let seq = unlock.seq;
        let request = Request::Unlock(unlock);
        // An unlock is far below every limit, so sending it cannot fail.
        let _ = self.send(&request);
        self.table.expect(seq, crate::table::UNLOCK_OP, request, None);
    }

    // ---- the lease ----

    fn check_lease(&mut self, now_ns: u64) {
        let Some(lease) = &self.lease else { return };
        let runs = now_ns < lease.deadline_ns();
        if !runs {
            self.lease_lost();
            // Without a daemon to ask, the deadline is the end (section 5).
            if !self.is_up() && self.table.holds_any() {
                self.give_up(Loss::Lease);
            }
        } else if self.lease_told_lost {
            self.lease_told_lost = false;
            let incarnation = lease.incarnation();
            if self.table.lose_others(incarnation) {
                self.lost_by(Loss::Lease);
            }
            self.table.tell(Event::LeaseRegained);
            // Unlocks that were refused meanwhile have nobody else to repeat them.
            self.send_unanswered(now_ns);
        }
    }

    fn lease_lost(&mut self) {
        if !self.lease_told_lost {
            self.lease_told_lost = true;
            if self.table.holds_any() {
                self.lost_by(Loss::Lease);
            }
            self.table.tell(Event::LeaseLost);
        }
    }

    /// The locks are lost; the next connection ends the session and opens another one.
    fn give_up(&mut self, loss: Loss) {
        if self.id.is_some() {
            self.farewell = Some(self.taking_up());
        }
        if self.table.lose_all(loss) {
            self.lost_by(loss);
        }
        self.id = None;
    }

    fn lost_by(&mut self, loss: Loss) {
        self.losses += 1;
        self.last_loss = loss;
    }

    // ---- administration ----

    /// Sends a question; its reply is fetched with [`Session::take_reply`].
    pub(crate) fn ask(&mut self, request: AdminRequest) -> Result<(), ClientError> {
        self.last_question += 1;
        let id = self.last_question;
        self.question = Some(Question { id, locks: Vec::new(), reply: None });
        self.send(&Request::Admin { id, request })
    }

    /// The complete reply, once it has come.
    pub(crate) fn take_reply(&mut self) -> Option<AdminReply> {
        let reply = self.question.as_mut()?.reply.take()?;
        self.question = None;
        Some(reply)
    }

    fn replied(&mut self, id: u64, reply: AdminReply) {
        let Some(question) = self.question.as_mut().filter(|question| question.id == id) else { return };
        question.reply = match reply {
            AdminReply::Locks { locks, last } => {
                question.locks.extend(locks);
                last.then(|| AdminReply::Locks { locks: std::mem::take(&mut question.locks), last })
            }
            other => Some(other),
        };
    }

    // ---- ending ----

    /// Ends the connection; with `bye` the session too.
    pub(crate) fn close(&mut self, bye: bool) {
        if let Link::Up { connection, .. } = &mut self.link {
            if bye {
                // One byte in a frame: it always fits.
                let _ = connection.push(&Request::Bye);
            }
            // An unlock that stayed behind would leave an orphan.
            connection.finish(FAREWELL);
        }
        self.link = Link::Down { next_try_ns: u64::MAX };
    }

    /// Ends the session and waits for the daemon's end of the connection. Whether it came.
    pub(crate) fn end(&mut self, limit: Duration) -> bool {
        let until_ns = after(boottime_ns(), limit);
        let Link::Up { mut connection, .. } = std::mem::replace(&mut self.link, Link::Down { next_try_ns: u64::MAX })
        else {
            return false;
        };
        // One byte in a frame: it always fits.
        let _ = connection.push(&Request::Bye);
        connection.finish(limit);
        loop {
            connection.wake();
            match connection.receive(false) {
                Ok(Received::End) | Err(_) => return true,
                // What is said to a session that ends is of no interest.
                Ok(Received::Bytes) => while let Ok(Some(_)) = connection.reader.next_frame::<Response>() {},
                Ok(Received::Nothing) => {
                    let left_ns = until_ns.saturating_sub(boottime_ns());
                    if left_ns == 0 {
                        return false;
                    }
                    let timeout = TimeSpec::from_duration(Duration::from_nanos(left_ns));
                    // EINTR: round again.
                    let _ = ppoll(&mut [PollFd::new(connection.as_fd(), PollFlags::POLLIN)], Some(timeout), None);
                }
            }
        }
    }

    // ---- errors ----

    pub(crate) fn no_answer(&self, waited: Duration) -> ClientError {
        ClientError::NoAnswer { socket: self.path.clone(), waited_ms: waited.as_millis() as u64 }
    }

    pub(crate) fn disconnected(&self, cause: String) -> ClientError {
        ClientError::Disconnected { socket: self.path.clone(), cause }
    }

    /// What a blocking call says when `losses` has changed.
    pub(crate) fn lost_error(&self) -> ClientError {
        match self.last_loss {
            Loss::Lease => ClientError::LeaseLost,
            _ => ClientError::SessionLost { socket: self.path.clone() },
        }
    }

    /// Whether a blocking call should give up waiting for a connection.
    pub(crate) fn unreachable(&mut self) -> Option<ClientError> {
        let patience_ns = after(self.down_since_ns, self.options.reconnect_timeout);
        if self.is_up() || self.table.holds_any() || boottime_ns() < patience_ns {
            return None;
        }
        let cause = match self.last_failure.take() {
            Some(failure) => failure.to_string(),
            None => "it closed the connection".into(),
        };
        Some(self.disconnected(cause))
    }
}

fn io_error(what: &'static str, source: io::Error) -> ClientError {
    ClientError::Io { what, source }
}
