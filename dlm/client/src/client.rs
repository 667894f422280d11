//! The client's public face.

use crate::clock::{after, boottime_ns};
use crate::error::ClientError;
use crate::event::Event;
use crate::lease::Lease;
use crate::lock::Lock;
use crate::options::{ConnectOptions, ConvertSpec, LockSpec, UnlockSpec};
use crate::session::Session;
use crate::table::{UNLOCK_OP, plain_unlock};
use crate::waker::Waker;
use mxlock_format::{ByteRange, Mode, NodeId, Resource, SessionId};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{
    AdminReply, AdminRequest, AdoptRequest, Answer, ConvertRequest, Denial, LockRequest, Request, UnlockRequest,
};
use std::cell::{OnceCell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

/// Longest value block.
const MAX_LVB_BYTES: usize = 64;

/// A session with the local daemon.
///
/// One thread uses a client at a time: it can be sent to another thread, but not shared. It starts no thread, so it
/// notices things only inside its calls: a program that holds locks over long work calls [`Client::poll_events`] when
/// [`Client::as_fd`] is readable, and asks [`Lock::is_valid`] before it acts on what a lock protects.
///
/// Dropping the client ends the session: its locks are released.
#[derive(Debug)]
pub struct Client {
    pub(crate) session: RefCell<Session>,
    waker: OnceCell<Waker>,
    /// A forked child must not end its parent's session.
    pid: u32,
}

impl Client {
    /// Connects to the daemon and opens a session.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Permission`], [`ClientError::Refused`], [`ClientError::Protocol`]
    /// or [`ClientError::NoAnswer`].
    ///
    /// ```no_run
    /// use mxlock_client::{Client, ConnectOptions, LockSpec};
    ///
    /// let client = Client::connect(ConnectOptions::new("default"))?;
    /// let lock = client.lock(&LockSpec::name("nightly-backup")?)?;
    /// println!("fencing token {}", lock.token());
    /// assert!(lock.is_valid());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(options: ConnectOptions) -> Result<Client, ClientError> {
        let session = RefCell::new(Session::open(options)?);
        Ok(Client { session, waker: OnceCell::new(), pid: std::process::id() })
    }

    // ---- blocking calls ----

    /// Takes a lock and waits for it, as long as `spec.timeout` says.
    ///
    /// # Errors
    /// [`ClientError::Denied`] with the reason; [`ClientError::LeaseLost`] or [`ClientError::SessionLost`] when locks
    /// that this client already holds are lost meanwhile; [`ClientError::Disconnected`] or [`ClientError::NoAnswer`].
    /// After an error the request is withdrawn.
    pub fn lock(&self, spec: &LockSpec) -> Result<Lock<'_>, ClientError> {
        let seq = self.submit_lock(spec)?;
        self.acquired(seq, spec.timeout)
    }

    /// Takes a lock if that is possible without waiting.
    ///
    /// # Errors
    /// As [`Client::lock`]; `Denied(Busy)` when it is not.
    pub fn try_lock(&self, spec: &LockSpec) -> Result<Lock<'_>, ClientError> {
        self.lock(&LockSpec { timeout: Some(Duration::ZERO), flags: spec.flags | LockFlags::NOQUEUE, ..spec.clone() })
    }

    /// Takes a lock, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`Client::lock`]; `Denied(TimedOut)`.
    pub fn lock_timeout(&self, spec: &LockSpec, timeout: Duration) -> Result<Lock<'_>, ClientError> {
        self.lock(&LockSpec { timeout: Some(timeout), ..spec.clone() })
    }

    /// Takes over the orphan that holds `resource` in `mode`.
    ///
    /// # Errors
    /// As [`Client::lock`]; `Denied(NotFound)` when there is no such orphan.
    pub fn adopt(&self, resource: &Resource, mode: Mode) -> Result<Lock<'_>, ClientError> {
        self.adopt_range(resource, None, mode)
    }

    /// Takes over the orphan that holds exactly this part of `resource` in `mode`; `None` is all of it.
    ///
    /// # Errors
    /// As [`Client::adopt`].
    pub fn adopt_range(
        &self,
        resource: &Resource,
        range: Option<ByteRange>,
        mode: Mode,
    ) -> Result<Lock<'_>, ClientError> {
        let seq = self.submit_adopt_range(resource, range, mode, false)?;
        self.acquired(seq, Some(Duration::ZERO))
    }

    /// Asks the daemon something, or tells it to do something. A list of locks comes back whole.
    ///
    /// # Errors
    /// [`ClientError::Admin`] when the daemon says why not; the connection's errors. The request is not repeated after
    /// a lost connection.
    pub fn admin(&self, request: AdminRequest) -> Result<AdminReply, ClientError> {
        let patience = match &request {
            AdminRequest::WaitReady { timeout_ms } => timeout_ms.map(Duration::from_millis),
            _ => Some(Duration::ZERO),
        };
        self.connected()?;
        let (mut session, until_ns, waited) = self.begin_wait(patience);
        session.ask(request)?;
        let result = loop {
            session.tick();
            if let Some(reply) = session.take_reply() {
                break Ok(reply);
            }
            if !session.is_up() {
                break Err(session.disconnected("it closed the connection before it had answered".into()));
            }
            if until_ns.is_some_and(|until| boottime_ns() >= until) {
                break Err(session.no_answer(waited));
            }
            session.wait(until_ns)?;
            session.receive();
        };
        self.settle(&session);
        match result? {
            AdminReply::Failed { kind, message } => Err(ClientError::Admin { kind, message }),
            reply => Ok(reply),
        }
    }

    // ---- the same without waiting ----

    /// Asks for a lock and returns its number. Its end comes as [`Event::Answer`] with `op` 0, after which
    /// [`Client::guard`] makes a guard of it.
    ///
    /// # Errors
    /// [`ClientError::Usage`], or [`ClientError::NoAnswer`] when the daemon has taken in nothing for long.
    pub fn submit_lock(&self, spec: &LockSpec) -> Result<u64, ClientError> {
        let mut session = self.session.borrow_mut();
        session.make_room()?;
        let seq = session.table.next_seq();
        let persistent = if spec.persistent { LockFlags::PERSISTENT } else { LockFlags::NONE };
        let orphan_lifetime_ms =
            spec.orphan_lifetime.map(|lifetime| u32::try_from(lifetime.as_millis()).unwrap_or(u32::MAX));
        let request = Request::Lock(LockRequest {
            seq,
            resource: spec.resource.clone(),
            mode: spec.mode,
            flags: spec.flags | persistent,
            range: spec.range,
            timeout_ms: spec.timeout.map(millis),
            transaction: spec.transaction,
            orphan_lifetime_ms,
        });
        session.send(&request)?;
        session.table.begin(seq, spec.resource.clone(), spec.range);
        session.table.expect(seq, 0, request, spec.timeout.map(|timeout| after(boottime_ns(), timeout)));
        self.settle(&session);
        Ok(seq)
    }

    /// Asks for the orphan that holds `resource` in `mode` and returns the number that the lock has from now on; `persistent`:
    /// it outlives this client as well. Its end comes as [`Event::Answer`] with `op` 0.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`] when the daemon has taken in nothing for long.
    pub fn submit_adopt(&self, resource: &Resource, mode: Mode, persistent: bool) -> Result<u64, ClientError> {
        self.submit_adopt_range(resource, None, mode, persistent)
    }

    /// The same for an orphan of this part of the resource.
    ///
    /// # Errors
    /// As [`Client::submit_adopt`].
    pub fn submit_adopt_range(
        &self,
        resource: &Resource,
        range: Option<ByteRange>,
        mode: Mode,
        persistent: bool,
    ) -> Result<u64, ClientError> {
        let mut session = self.session.borrow_mut();
        session.make_room()?;
        let seq = session.table.next_seq();
        let request = Request::Adopt(AdoptRequest { seq, resource: resource.clone(), range, mode, persistent });
        session.send(&request)?;
        session.table.begin(seq, resource.clone(), range);
        session.table.expect(seq, 0, request, None);
        self.settle(&session);
        Ok(seq)
    }

    /// Asks for another mode and returns the operation's number, with which its [`Event::Answer`] comes.
    ///
    /// # Errors
    /// [`ClientError::Usage`] when the value is too long or there is no such lock; [`ClientError::NoAnswer`].
    pub fn submit_convert(&self, seq: u64, spec: &ConvertSpec) -> Result<u32, ClientError> {
        check_lvb(spec.lvb.as_deref())?;
        let mut session = self.session.borrow_mut();
        session.make_room()?;
        let op = session.table.next_op(seq).ok_or_else(|| no_such_lock(seq))?;
        let request = Request::Convert(ConvertRequest {
            seq,
            op,
            mode: spec.mode,
            flags: spec.flags,
            timeout_ms: spec.timeout.map(millis),
            lvb: spec.lvb.clone(),
        });
        session.send(&request)?;
        session.table.expect(seq, op, request, spec.timeout.map(|timeout| after(boottime_ns(), timeout)));
        self.settle(&session);
        Ok(op)
    }

    /// Ends a lock, in whatever state it is; the [`Event::Answer`] has `op` [`UNLOCK_OP`]. From PW or EX, `lvb` is the
    /// resource's new value of 1..=64 bytes.
    ///
    /// # Errors
    /// [`ClientError::Usage`] when the value is too long or there is no such lock; [`ClientError::NoAnswer`].
    pub fn submit_unlock(&self, seq: u64, lvb: Option<&[u8]>) -> Result<(), ClientError> {
        self.submit_unlock_with(seq, &UnlockSpec { lvb: lvb.map(<[u8]>::to_vec), ..UnlockSpec::default() })
    }

    /// Ends a lock as [`Client::submit_unlock`] does, with options.
    ///
    /// # Errors
    /// As [`Client::submit_unlock`].
    pub fn submit_unlock_with(&self, seq: u64, spec: &UnlockSpec) -> Result<(), ClientError> {
        check_lvb(spec.lvb.as_deref())?;
        let mut session = self.session.borrow_mut();
        session.make_room()?;
        if session.table.living(seq).is_none() {
            return Err(no_such_lock(seq));
        }
        if !session.table.is_pending(seq, UNLOCK_OP) {
            let UnlockSpec { lvb, invalidate_lvb } = spec.clone();
            session.unlock(UnlockRequest { seq, lvb, invalidate_lvb });
        }
        self.settle(&session);
        Ok(())
    }

    /// Ends the waiting request or conversion of this lock; its answer says how it ended. Nothing happens when none
    /// waits.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`] when the daemon has taken in nothing for long.
    pub fn submit_cancel(&self, seq: u64) -> Result<(), ClientError> {
        let mut session = self.session.borrow_mut();
        session.make_room()?;
        if session.table.cancel(seq) {
            session.send(&Request::Cancel { seq })?;
        }
        self.settle(&session);
        Ok(())
    }

    /// A guard for a lock that was granted to [`Client::submit_lock`]; `None` when it is not held.
    pub fn guard(&self, seq: u64) -> Option<Lock<'_>> {
        let mut session = self.session.borrow_mut();
        let entry = session.table.living(seq)?;
        let (resource, held) = (entry.resource.clone(), entry.held.clone()?);
        session.table.guard(seq, true);
        Some(Lock::new(self, seq, resource, held))
    }

    /// A descriptor for an event loop: readable when [`Client::poll_events`] has something to do. It stays the same over
    /// reconnects. (An epoll instance: do not read from it.)
    ///
    /// # Errors
    /// [`ClientError::Io`] when it cannot be made.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>, ClientError> {
        if self.waker.get().is_none() {
            let made = Waker::new();
            let waker =
                made.map_err(|source| ClientError::Io { what: "making a descriptor to wait for mxlockd", source })?;
            let _ = self.waker.set(waker);
            self.settle(&self.session.borrow());
        }
        self.waker.get().map(AsFd::as_fd).ok_or_else(|| ClientError::Usage("the client has no descriptor".into()))
    }

    /// Takes in what the daemon has said, connects again where that is due, and returns what has happened; waits up to
    /// `timeout` (`None`: for ever) until something has. An empty list: the time is over, or a signal came.
    ///
    /// # Errors
    /// [`ClientError::Io`] only: a daemon that is gone is an event.
    pub fn poll_events(&self, timeout: Option<Duration>) -> Result<Vec<Event>, ClientError> {
        let mut session = self.session.borrow_mut();
        let until_ns = timeout.map(|timeout| after(boottime_ns(), timeout));
        session.wake();
        loop {
            session.receive();
            session.tick();
            if session.table.has_events() || until_ns.is_some_and(|until| boottime_ns() >= until) {
                break;
            }
            if !session.wait(until_ns)? {
                break;
            }
        }
        let events = session.table.take_events();
        self.settle(&session);
        Ok(events)
    }

    // ---- what is known ----

    /// The mode in which a lock is held: what is left in any case while something is under way. `None`: it is not held. Whether
    /// it may be relied on depends on the lease as well.
    pub fn held_mode(&self, seq: u64) -> Option<Mode> {
        let session = self.session.borrow();
        session.table.living(seq).and_then(|_| session.table.relied_on(seq)).map(|held| held.mode)
    }

    /// Whether the node's lease runs at this moment: one memory read and a look at the clock.
    pub fn lease_valid(&self) -> bool {
        self.session.borrow().lease().is_some_and(Lease::is_valid)
    }

    /// The node's lease, for other threads to ask.
    pub fn lease(&self) -> Option<Lease> {
        self.session.borrow().lease().cloned()
    }

    /// Whether the connection stands.
    pub fn is_connected(&self) -> bool {
        self.session.borrow().is_up()
    }

    /// The session, while there is one.
    pub fn session_id(&self) -> Option<SessionId> {
        self.session.borrow().id()
    }

    /// The node of the daemon.
    pub fn node(&self) -> Option<NodeId> {
        self.session.borrow().node()
    }

    /// The daemon's version text.
    pub fn daemon_version(&self) -> String {
        self.session.borrow().daemon().to_owned()
    }

    /// The socket that the daemon answers on.
    pub fn socket(&self) -> PathBuf {
        self.session.borrow().path().to_owned()
    }

    /// Closes the connection but leaves the session to its process: for locks that were taken on behalf of another one
    /// and are to stand when this program ends.
    pub fn detach(self) {
        self.session.borrow_mut().close(false);
    }

    /// Ends the session and waits up to `timeout` until the daemon has done so: then its locks are released, and those that
    /// outlive it can be adopted. (Dropping the client only sends the farewell.) False: the daemon has not answered.
    pub fn close(self, timeout: Duration) -> bool {
        self.pid == std::process::id() && self.session.borrow_mut().end(timeout)
    }

    // ---- shared with the guard ----

    /// Waits for the end of an operation.
    pub(crate) fn answer(&self, seq: u64, op: u32, timeout: Option<Duration>) -> Result<Answer, ClientError> {
        let (mut session, until_ns, waited) = self.begin_wait(timeout);
        let losses = session.losses;
        session.table.wait_for(seq, op);
        let result = loop {
            session.tick();
            if let Some(answer) = session.table.take_answer() {
                break Ok(answer);
            }
            if session.losses != losses {
                break Err(session.lost_error());
            }
            if until_ns.is_some_and(|until| boottime_ns() >= until) {
                break Err(session.no_answer(waited));
            }
            if let Some(error) = session.unreachable() {
                break Err(error);
            }
            if let Err(error) = session.wait(until_ns) {
                break Err(error);
            }
            session.receive();
        };
        session.table.stop_waiting();
        self.settle(&session);
        result
    }

    /// The end of a blocking request, as the caller sees it.
    pub(crate) fn granted(&self, seq: u64, answer: Answer, resource: &Resource) -> Result<(), ClientError> {
        let loss = self.session.borrow().table.get(seq).and_then(|entry| entry.lost);
        match (answer, loss) {
            (Answer::Granted(_) | Answer::GrantedDemoted(_) | Answer::Unlocked, _) => Ok(()),
            (_, Some(loss)) => Err(ClientError::Lost { resource: resource.clone(), loss }),
            (Answer::Denied(Denial::LeaseLost) | Answer::DeniedDemoted(Denial::LeaseLost), None) => {
                Err(ClientError::LeaseLost)
            }
            (Answer::Denied(denial) | Answer::DeniedDemoted(denial), None) => {
                Err(ClientError::Denied { resource: resource.clone(), denial })
            }
        }
    }

    /// Gives a lock up without waiting for the answer.
    pub(crate) fn release(&self, seq: u64) {
        let mut session = self.session.borrow_mut();
        if session.table.silence(seq) {
            session.unlock(plain_unlock(seq));
        }
        self.settle(&session);
    }

    fn acquired(&self, seq: u64, timeout: Option<Duration>) -> Result<Lock<'_>, ClientError> {
        let resource = self.session.borrow().table.get(seq).map(|entry| entry.resource.clone());
        let Some(resource) = resource else { return Err(no_such_lock(seq)) };
        let answer = self.answer(seq, 0, timeout).inspect_err(|_| self.release(seq))?;
        let denial = match &answer {
            Answer::Denied(denial) | Answer::DeniedDemoted(denial) => *denial,
            _ => Denial::Cancelled,
        };
        self.granted(seq, answer, &resource)?;
        self.guard(seq).ok_or(ClientError::Denied { resource, denial })
    }

    /// Waits until the connection stands.
    fn connected(&self) -> Result<(), ClientError> {
        let mut session = self.session.borrow_mut();
        session.wake();
        session.receive();
        loop {
            session.tick();
            if session.is_up() {
                return Ok(());
            }
            if let Some(error) = session.unreachable() {
                return Err(error);
            }
            session.wait(None)?;
            session.receive();
        }
    }

    /// The session, the end of a wait that the daemon may take `patience` for, and how long that is in all.
    fn begin_wait(&self, patience: Option<Duration>) -> (std::cell::RefMut<'_, Session>, Option<u64>, Duration) {
        let session = self.session.borrow_mut();
        let waited = patience.map(|patience| patience.saturating_add(session.options().answer_timeout));
        let until_ns = waited.map(|waited| after(boottime_ns(), waited));
        (session, until_ns, waited.unwrap_or_default())
    }

    /// Brings the event loop's descriptor up to date. A failure leaves it as it was.
    fn settle(&self, session: &Session) {
        if let Some(waker) = self.waker.get() {
            let (connection, interest) = session.interest();
            let _ = waker.watch(connection, interest);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            self.session.get_mut().close(true);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    // Rounded up: a short wait is not "no wait".
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn no_such_lock(seq: u64) -> ClientError {
    ClientError::Usage(format!("this client has no lock number {seq}: it was released or lost before"))
}

pub(crate) fn check_lvb(lvb: Option<&[u8]>) -> Result<(), ClientError> {
    match lvb {
        Some(value) if value.is_empty() || value.len() > MAX_LVB_BYTES => Err(ClientError::Usage(format!(
            "a value block of {} bytes cannot be written: give 1..={MAX_LVB_BYTES} bytes",
            value.len()
        ))),
        _ => Ok(()),
    }
}
