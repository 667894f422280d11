//! What the methods of a session and its pump share.

use mxlock_client::{Answer, Client, ClientError, Event, Loss, Mode, boottime_ns};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Events of the connection and the lease that are kept while nobody fetches them; the oldest are dropped.
const MAX_NEWS: usize = 256;
/// A call without locks gives up when there has been no connection for this long.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may be late beyond the request's own time: more than a failover with profile `san` takes.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// An answer, an event or a loss.
    changed: Condvar,
    /// Readable while there are events to fetch.
    pub(crate) readable: EventFd,
}

/// Behind the mutex. It is never held while anything is waited for.
#[derive(Debug)]
pub(crate) struct State {
    /// `None` once the session is closed.
    pub(crate) client: Option<Client>,
    pub(crate) books: Books,
}

/// What is known of operations and locks.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Operations whose answers somebody wants, and the answers that have come.
    answers: HashMap<(u64, u32), Option<Answer>>,
    events: VecDeque<Event>,
    /// Locks that are held, as far as is known here.
    held: HashSet<u64>,
    /// Those whose grant somebody has fetched: only of them are there events.
    fetched: HashSet<u64>,
    /// Blocking notices for the others.
    early: HashMap<u64, Mode>,
    /// Locks that were lost and have not been given up since.
    lost: HashMap<u64, Loss>,
    /// How often locks were lost or put in doubt.
    losses: u64,
    last_loss: Option<Loss>,
    down_since: Option<Instant>,
}

/// Why a wait is over.
#[derive(Debug)]
pub(crate) enum End {
    Answer(Answer),
    /// Locks that are held were lost or put in doubt meanwhile.
    Loss(Option<Loss>),
    /// The connection has been gone for too long.
    NoDaemon,
    /// The daemon does not say how the request ended.
    NoAnswer,
    Closed,
}

impl Shared {
    pub(crate) fn new(client: Client) -> Result<Shared, ClientError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let readable = EventFd::from_value_and_flags(0, flags)
            .map_err(|e| ClientError::Io { what: "making a descriptor for events", source: e.into() })?;
        let state = State { client: Some(client), books: Books::default() };
        Ok(Shared { state: Mutex::new(state), changed: Condvar::new(), readable })
    }

    /// A panic in another thread left everything as it was between two calls of the client.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the daemon has said and tells whoever waits. False: the session is closed.
    pub(crate) fn pump(&self) -> bool {
        let mut state = self.state();
        let Some(client) = &state.client else { return false };
        // What the system cannot do now is tried again at the next turn.
        let news = client.poll_events(Some(Duration::ZERO)).unwrap_or_default();
        for event in news {
            state.books.take_in(event);
        }
        self.show(&state.books);
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Makes the descriptor readable while there are events. (Its counter cannot overflow: it is 0 or 1.)
    fn show(&self, books: &Books) {
        let _ = self.readable.read();
        if !books.events.is_empty() {
            let _ = self.readable.write(1);
        }
    }

    /// Fetches the grant of a lock; see [`Books::fetch`].
    pub(crate) fn fetch(&self, seq: u64) -> Result<(), Loss> {
        let mut state = self.state();
        let fetched = state.books.fetch(seq);
        self.show(&state.books);
        fetched
    }

    /// Ends the session. Locks that are held are released with it.
    pub(crate) fn close(&self, limit: Duration) -> bool {
        let client = self.state().client.take();
        self.changed.notify_all();
        client.is_none_or(|client| client.close(limit))
    }

    /// Waits for an answer, but not longer than `slice`: `None`, nothing has happened yet.
    pub(crate) fn wait(&self, key: (u64, u32), wait: &Wait, slice: Duration) -> Option<End> {
        let until = Instant::now() + slice;
        let mut state = self.state();
        loop {
            if let Some(Some(_)) = state.books.answers.get(&key) {
                return state.books.answers.remove(&key).flatten().map(End::Answer);
            }
            if state.client.is_none() {
                return Some(End::Closed);
            }
            if state.books.losses != wait.losses {
                return Some(End::Loss(state.books.last_loss));
            }
            let gone = state.books.down_since.is_some_and(|since| since.elapsed() >= RECONNECT_PATIENCE);
            if gone {
                return Some(End::NoDaemon);
            }
            if wait.until_ns.is_some_and(|until| boottime_ns() >= until) {
                return Some(End::NoAnswer);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The events so far; waits for one, but not longer than `slice`.
    pub(crate) fn events(&self, slice: Duration) -> Option<Vec<Event>> {
        let state = self.state();
        let nothing = |state: &mut State| state.books.events.is_empty() && state.client.is_some();
        // As with `wait`, the caller looks for signals of its own in between.
        let (mut state, _) =
            self.changed.wait_timeout_while(state, slice, nothing).unwrap_or_else(PoisonError::into_inner);
        let events: Vec<Event> = state.books.events.drain(..).collect();
        self.show(&state.books);
        (!events.is_empty() || state.client.is_none()).then_some(events)
    }
}

/// What a call waits for.
#[derive(Debug)]
pub(crate) struct Wait {
    losses: u64,
    until_ns: Option<u64>,
}

impl Wait {
    /// From now on, for an operation that the daemon may take `timeout` for.
    pub(crate) fn new(state: &State, timeout: Option<Duration>) -> Wait {
        let until_ns = timeout.map(|timeout| {
            let patience = timeout.saturating_add(ANSWER_PATIENCE).as_nanos();
            boottime_ns().saturating_add(u64::try_from(patience).unwrap_or(u64::MAX))
        });
        Wait { losses: state.books.losses, until_ns }
    }
}

impl State {
    /// Whether a lock may be relied on at this moment.
    pub(crate) fn is_valid(&self, seq: u64) -> bool {
        let guard = self.client.as_ref().and_then(|client| client.guard(seq));
        guard.is_some_and(|guard| {
            let valid = guard.is_valid();
            guard.keep();
            valid
        })
    }
}

impl Books {
    /// The answer to this operation is wanted.
    pub(crate) fn expect(&mut self, seq: u64, op: u32) {
        self.answers.insert((seq, op), None);
    }

    /// Nobody wants it any more.
    pub(crate) fn forget(&mut self, seq: u64, op: u32) {
        self.answers.remove(&(seq, op));
    }

    /// Whether it has come.
    pub(crate) fn is_answered(&self, seq: u64, op: u32) -> bool {
        matches!(self.answers.get(&(seq, op)), Some(Some(_)))
    }

    /// The grant of a lock is fetched; `Err`: the lock was lost since.
    pub(crate) fn fetch(&mut self, seq: u64) -> Result<(), Loss> {
        if let Some(loss) = self.loss(seq) {
            return Err(loss);
        }
        self.fetched.insert(seq);
        if let Some(wanted) = self.early.remove(&seq) {
            self.notice(seq, wanted);
        }
        Ok(())
    }

    /// Why a lock was lost, if it was.
    pub(crate) fn loss(&self, seq: u64) -> Option<Loss> {
        self.lost.get(&seq).copied()
    }

    /// A lock is given up: nothing is to be remembered of it.
    pub(crate) fn release(&mut self, seq: u64) -> Option<Loss> {
        self.events.retain(|event| !matches!(event, Event::Bast { seq: of, .. } if *of == seq));
        self.held.remove(&seq);
        self.fetched.remove(&seq);
        self.early.remove(&seq);
        self.lost.remove(&seq)
    }

    fn take_in(&mut self, event: Event) {
        match &event {
            Event::Answer { seq, op, answer } => {
                if let Some(place) = self.answers.get_mut(&(*seq, *op)) {
                    *place = Some(answer.clone());
                    if *op == 0 && answer.is_grant() {
                        self.held.insert(*seq);
                    }
                }
                return;
            }
            Event::Lost { seq, loss } => {
                let fetched = self.fetched.contains(seq);
                if self.held.remove(seq) {
                    self.lost.insert(*seq, *loss);
                }
                self.lose(*loss);
                if !fetched {
                    return;
                }
            }
            Event::LeaseLost if !self.held.is_empty() => self.lose(Loss::Lease),
            Event::Disconnected => self.down_since = Some(Instant::now()),
            Event::Reconnected => self.down_since = None,
            Event::Bast { seq, wanted } => return self.notice(*seq, *wanted),
            _ => {}
        }
        self.tell(event);
    }

    fn lose(&mut self, loss: Loss) {
        self.losses += 1;
        self.last_loss = Some(loss);
    }

    /// One notice for each lock, with the weakest mode that covers all that are wanted: a queue that cannot outgrow the locks.
    fn notice(&mut self, seq: u64, wanted: Mode) {
        if !self.fetched.contains(&seq) {
            let early = self.early.entry(seq).or_insert(wanted);
            *early = cover(*early, wanted);
            return;
        }
        let known = self.events.iter_mut().find_map(|event| match event {
            Event::Bast { seq: of, wanted } if *of == seq => Some(wanted),
            _ => None,
        });
        match known {
            Some(mode) => *mode = cover(*mode, wanted),
            None => self.events.push_back(Event::Bast { seq, wanted }),
        }
    }

    fn tell(&mut self, event: Event) {
        let is_news = |event: &Event| !matches!(event, Event::Bast { .. } | Event::Lost { .. });
        if is_news(&event) && self.events.iter().filter(|event| is_news(event)).count() >= MAX_NEWS {
            let oldest = self.events.iter().position(is_news);
            oldest.map(|at| self.events.remove(at));
        }
        self.events.push_back(event);
    }
}

/// The weakest mode that covers both.
fn cover(a: Mode, b: Mode) -> Mode {
    let covers_both = |mode: &Mode| mode.covers(a) && mode.covers(b);
    Mode::ALL.into_iter().find(covers_both).unwrap_or(Mode::EX)
}
