//! Many sessions on few threads.

use super::connection::{Broken, Connection};
use super::workload::{Generator, Workload, convert, lock, unlock};
use crate::common::failure::Failure;
use hdrhistogram::Histogram;
use mxlock_client::ConnectOptions;
use mxlock_format::Mode;
use mxlock_proto::client::{Answer, Request, Response};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// After the measured time, how long answers that are still due are waited for.
const DRAIN: Duration = Duration::from_secs(10);
/// A client that only hears refusals stops.
const MAX_ERRORS: u64 = 1_000;

/// What to do.
pub(super) struct Plan {
    pub(super) options: ConnectOptions,
    pub(super) workload: Workload,
    pub(super) clients: u32,
    pub(super) threads: u32,
    pub(super) duration: Duration,
    pub(super) names: u32,
    pub(super) pipeline: u32,
}

/// What was measured.
pub(super) struct Load {
    /// From sending a request to handling its grant, nanoseconds.
    pub(super) acquire_ns: Histogram<u64>,
    /// Of each client.
    pub(super) pairs: Vec<u64>,
    pub(super) errors: u64,
    pub(super) elapsed: Duration,
}

impl Load {
    fn new() -> Load {
        let acquire_ns = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("these bounds are valid");
        Load { acquire_ns, pairs: Vec::new(), errors: 0, elapsed: Duration::ZERO }
    }

    fn add(&mut self, other: Load) {
        self.acquire_ns.add(&other.acquire_ns).expect("all histograms have the same bounds");
        self.pairs.extend(other.pairs);
        self.errors += other.errors;
        self.elapsed = self.elapsed.max(other.elapsed);
    }
}

/// Runs the load. All sessions are open before the first one starts.
pub(super) fn run(plan: &Plan) -> Result<Load, Failure> {
    let run = unique_run();
    let mut groups: Vec<Vec<Client>> = (0..plan.threads).map(|_| Vec::new()).collect();
    for number in 0..plan.clients {
        let mut connection = Connection::open(&plan.options)?;
        connection.set_nonblocking()?;
        groups[(number % plan.threads) as usize].push(Client::new(connection, plan, run, number));
    }
    let start = Barrier::new(groups.len());
    let results: Vec<Result<Load, Broken>> = std::thread::scope(|scope| {
        let threads: Vec<_> = groups
            .into_iter()
            .map(|clients| {
                scope.spawn(|| {
                    start.wait();
                    drive(clients, plan.duration)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a bench thread does not panic")).collect()
    });
    let mut total = Load::new();
    for result in results {
        total.add(result?);
    }
    Ok(total)
}

/// A number that no earlier run had: the time it started at and its process.
fn unique_run() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (since_epoch.as_micros() as u64) << 16 | u64::from(std::process::id() & 0xffff)
}

/// Drives the clients of one thread until the time is over and their last answers have come.
fn drive(mut clients: Vec<Client>, duration: Duration) -> Result<Load, Broken> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io)?;
    let mut load = Load::new();
    let started = Instant::now();
    let end = started + duration;
    for (i, client) in clients.iter_mut().enumerate() {
        epoll.add(&client.connection, EpollEvent::new(EpollFlags::EPOLLIN, i as u64)).map_err(io)?;
        client.start(started);
        client.send(&epoll, i)?;
    }
    let mut events = vec![EpollEvent::empty(); clients.len().min(256)];
    loop {
        let now = Instant::now();
        let measuring = now < end;
        let deadline = if measuring { end } else { end + DRAIN };
        if now >= deadline || (!measuring && clients.iter().all(Client::is_idle)) {
            break;
        }
        let wait_ms = deadline.duration_since(now).as_millis().min(100) as u16 + 1;
        let ready = match epoll.wait(&mut events, EpollTimeout::from(wait_ms)) {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(e) => return Err(io(e)),
        };
        for event in &events[..ready] {
            let i = event.data() as usize;
            clients[i].handle(end, &mut load)?;
            clients[i].send(&epoll, i)?;
        }
    }
    load.elapsed = end.duration_since(started);
    for client in &mut clients {
        load.pairs.push(client.pairs);
        load.errors += client.errors;
        client.connection.push(&Request::Bye);
        // The end of the connection would say the same.
        let _ = client.connection.flush();
    }
    Ok(load)
}

fn io(errno: nix::errno::Errno) -> Broken {
    Broken::Io(errno.into())
}

/// One session with its pairs under way.
struct Client {
    connection: Connection,
    generator: Generator,
    workload: Workload,
    /// Lock number `seq` belongs to slot `seq % slots.len()`.
    slots: Vec<Slot>,
    next_seq: u64,
    pairs: u64,
    errors: u64,
    /// EPOLLOUT is asked for.
    writes_wait: bool,
}

/// A pair under way.
struct Slot {
    seq: u64,
    /// Number of the last conversion.
    op: u32,
    asked: Instant,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    /// `convert` only: the lock in NL, before the first pair.
    Preparing,
    Acquiring,
    Releasing,
}

impl Client {
    fn new(connection: Connection, plan: &Plan, run: u64, number: u32) -> Client {
        let now = Instant::now();
        let slot = |seq| Slot { seq: u64::from(seq), op: 0, asked: now, state: State::Idle };
        Client {
            connection,
            generator: Generator::new(plan.workload, run, number, plan.names),
            workload: plan.workload,
            slots: (0..plan.pipeline).map(slot).collect(),
            next_seq: 1,
            pairs: 0,
            errors: 0,
            writes_wait: false,
        }
    }

    fn is_idle(&self) -> bool {
        self.slots.iter().all(|slot| slot.state == State::Idle)
    }

    fn start(&mut self, now: Instant) {
        for slot in 0..self.slots.len() {
            self.begin(slot, now);
        }
    }

    /// Asks for a new lock in a slot.
    fn begin(&mut self, index: usize, now: Instant) {
        let seq = self.next_seq * self.slots.len() as u64 + index as u64;
        self.next_seq += 1;
        let (resource, mode) = self.generator.next();
        let state = if self.workload == Workload::Convert { State::Preparing } else { State::Acquiring };
        self.slots[index] = Slot { seq, op: 0, asked: now, state };
        self.connection.push(&lock(seq, resource, mode));
    }

    /// Converts the lock of a slot.
    fn convert(&mut self, index: usize, mode: Mode, state: State, now: Instant) {
        let slot = &mut self.slots[index];
        slot.op += 1;
        (slot.asked, slot.state) = (now, state);
        self.connection.push(&convert(slot.seq, slot.op, mode));
    }

    /// Reads what has come and asks for what comes next.
    fn handle(&mut self, end: Instant, load: &mut Load) -> Result<(), Broken> {
        self.connection.fill()?;
        while let Some(response) = self.connection.next()? {
            let now = Instant::now();
            let (seq, answer) = match response {
                Response::Answer { seq, answer, .. } => (seq, Some(answer)),
                Response::Lost { seq, .. } => (seq, None),
                // Notices ask nothing of a client that releases at once.
                _ => continue,
            };
            let index = (seq % self.slots.len() as u64) as usize;
            if self.slots[index].seq == seq {
                self.advance(index, answer, now, end, load);
            }
        }
        Ok(())
    }

    fn advance(&mut self, index: usize, answer: Option<Answer>, now: Instant, end: Instant, load: &mut Load) {
        let slot = &mut self.slots[index];
        let converts = self.workload == Workload::Convert;
        match (slot.state, answer) {
            (State::Preparing, Some(Answer::Granted(_))) => self.convert(index, Mode::EX, State::Acquiring, now),
            (State::Acquiring, Some(Answer::Granted(_))) => {
                if now < end {
                    load.acquire_ns.saturating_record(now.duration_since(slot.asked).as_nanos() as u64);
                }
                if converts {
                    self.convert(index, Mode::NL, State::Releasing, now);
                } else {
                    slot.state = State::Releasing;
                    let seq = slot.seq;
                    self.connection.push(&unlock(seq));
                }
            }
            (State::Releasing, Some(Answer::Granted(_) | Answer::Unlocked)) => {
                self.pairs += u64::from(now < end);
                match () {
                    () if now >= end => slot.state = State::Idle,
                    () if converts => self.convert(index, Mode::EX, State::Acquiring, now),
                    () => self.begin(index, now),
                }
            }
            _ => {
                self.errors += 1;
                if now >= end || self.errors >= MAX_ERRORS {
                    slot.state = State::Idle;
                } else {
                    self.begin(index, now);
                }
            }
        }
    }

    /// Sends what was asked for, now or when the socket takes it.
    fn send(&mut self, epoll: &Epoll, index: usize) -> Result<(), Broken> {
        let writes_wait = !self.connection.flush()?;
        if writes_wait != self.writes_wait {
            let out = if writes_wait { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN | out, index as u64);
            epoll.modify(&self.connection, &mut event).map_err(io)?;
            self.writes_wait = writes_wait;
        }
        Ok(())
    }
}
