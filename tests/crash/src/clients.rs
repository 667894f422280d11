//! Client threads of a recording: each puts down what it is told, and what it is about to give up.

use crate::device::Recorder;
use crate::stream::{Event, LockName};
use mxlock_client::{
    Answer, Client, ClientError, ConnectOptions, ConvertSpec, Event as Heard, LockSpec, Mode, UNLOCK_OP,
};
use mxlock_format::NodeId;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for an answer to something that does not wait for others.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Locks that are asked for at once: enough for the batch path (`BATCH_CROSSING` is 4).
const BURST: usize = 8;

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Habit {
    /// One lock after the other, in all modes, with conversions and values, on names that all share.
    Mixed,
    /// Many locks at once, on names of its own.
    Bursts,
    /// One name for as long as possible, also over a restart of its daemon; and NL on the shared names, so that their
    /// values live.
    Keeper,
}

/// All clients of a recording.
#[derive(Debug)]
pub struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    recorder: Recorder,
    next_client: AtomicU32,
    next_value: AtomicU64,
    grants: AtomicU64,
}

/// A name that all clients share.
pub fn shared_name(index: u64) -> String {
    format!("shared-{}", index % 5)
}

impl Crowd {
    /// Nobody yet.
    pub fn new(recorder: &Recorder) -> Crowd {
        let shared = Shared {
            recorder: recorder.clone(),
            next_client: AtomicU32::new(0),
            next_value: AtomicU64::new(1),
            grants: AtomicU64::new(0),
        };
        Crowd { stop: Arc::default(), threads: Vec::new(), shared: Arc::new(shared) }
    }

    /// Adds a client of the daemon at `socket`.
    pub fn add(&mut self, node: NodeId, socket: PathBuf, habit: Habit) {
        let (stop, shared) = (Arc::clone(&self.stop), Arc::clone(&self.shared));
        let seed = self.threads.len() as u64;
        self.threads.push(std::thread::spawn(move || {
            let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            while !stop.load(Ordering::Relaxed) {
                let options = ConnectOptions {
                    socket: Some(socket.clone()),
                    answer_timeout: PATIENCE,
                    ..ConnectOptions::default()
                };
                if let Ok(client) = Client::connect(options)
                    && let Some(session) = client.session_id()
                {
                    let number = shared.next_client.fetch_add(1, Ordering::Relaxed);
                    shared.recorder.note(Event::Session { client: number, node, session });
                    let mut speaker =
                        Speaker { client, number, shared: &shared, stop: &stop, answers: Vec::new(), dice: &mut dice };
                    let _ = speaker.act(habit);
                    // First it relies on nothing any more, then it says goodbye.
                    shared.recorder.note(Event::Over { client: number });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }));
    }

    /// Grants so far.
    pub fn grants(&self) -> u64 {
        self.shared.grants.load(Ordering::Relaxed)
    }

    /// Waits for `count` more grants.
    pub fn progress(&self, count: u64) {
        let before = self.grants();
        mxlock_e2e::until("the clients are granted locks", Duration::from_secs(20), || {
            (self.grants() >= before + count).then_some(())
        });
    }

    /// Ends all clients.
    pub fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok(), "a client panicked");
        }
    }
}

/// The session cannot be relied on any more, or is to end.
struct Gone;

impl From<ClientError> for Gone {
    fn from(_: ClientError) -> Gone {
        Gone
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

struct Speaker<'a> {
    client: Client,
    number: u32,
    shared: &'a Shared,
    stop: &'a AtomicBool,
    answers: Vec<(u64, u32, Answer)>,
    dice: &'a mut Dice,
}

impl Speaker<'_> {
    fn act(&mut self, habit: Habit) -> Result<(), Gone> {
        if habit == Habit::Keeper {
            return self.keep();
        }
        while !self.stop.load(Ordering::Relaxed) {
            match habit {
                Habit::Mixed => self.one()?,
                Habit::Bursts | Habit::Keeper => self.burst()?,
            }
            let pause = self.dice.below(60) + 20;
            self.linger(Duration::from_millis(pause))?;
        }
        Ok(())
    }

    fn note(&self, event: Event) {
        self.shared.recorder.note(event);
    }

    fn name(&self, seq: u64) -> LockName {
        LockName { client: self.number, seq }
    }

    /// Takes in what the daemon says; an error when what it held cannot be relied on any more.
    fn listen(&mut self, timeout: Duration) -> Result<(), Gone> {
        let mut confirmed = false;
        for heard in self.client.poll_events(Some(timeout))? {
            match heard {
                Heard::Answer { seq, op, answer } => self.answers.push((seq, op, answer)),
                Heard::Lost { .. } | Heard::LeaseLost => return Err(Gone),
                Heard::Reconnected => confirmed = true,
                _ => {}
            }
        }
        if let Some(session) = self.client.session_id()
            && confirmed
            && self.client.lease_valid()
        {
            self.note(Event::Confirmed { client: self.number, session });
        }
        Ok(())
    }

    fn linger(&mut self, length: Duration) -> Result<(), Gone> {
        let until = Instant::now() + length;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.listen(left.min(Duration::from_millis(50)))?;
        }
    }

    fn answer(&mut self, seq: u64, op: u32) -> Result<Answer, Gone> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.answers.iter().position(|(s, o, _)| (*s, *o) == (seq, op)) {
                return Ok(self.answers.swap_remove(at).2);
            }
            if Instant::now() > until {
                return Err(Gone);
            }
            self.listen(Duration::from_millis(50))?;
        }
    }

    fn ask(&mut self, name: &str, mode: Mode) -> Result<u64, Gone> {
        let spec = LockSpec::name(name).map_err(|_| Gone)?.mode(mode).timeout(LOCK_TIMEOUT);
        let seq = self.client.submit_lock(&spec)?;
        self.note(Event::Asked { lock: self.name(seq), name: name.to_owned(), mode });
        Ok(seq)
    }

    /// The end of a request or conversion: whether it was granted.
    fn settled(&mut self, seq: u64, op: u32, still: Option<Mode>) -> Result<bool, Gone> {
        let lock = self.name(seq);
        match self.answer(seq, op)? {
            Answer::Granted(grant) | Answer::GrantedDemoted(grant) => {
                self.note(Event::Told { lock, mode: grant.mode, token: grant.token });
                self.shared.grants.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            Answer::Denied(_) => {
                self.note(Event::Denied { lock, still });
                Ok(false)
            }
            Answer::DeniedDemoted(_) => {
                self.note(Event::Denied { lock, still: Some(Mode::NL) });
                Ok(false)
            }
            Answer::Unlocked => Err(Gone),
        }
    }

    fn value(&mut self) -> u64 {
        self.shared.next_value.fetch_add(1, Ordering::Relaxed)
    }

    fn release(&mut self, seq: u64, mode: Mode) -> Result<(), Gone> {
        let value = matches!(mode, Mode::PW | Mode::EX).then(|| self.value());
        self.note(Event::Releasing { lock: self.name(seq), value });
        let bytes = value.map(value_bytes);
        Ok(self.client.submit_unlock(seq, bytes.as_deref())?)
    }

    fn released(&mut self, seq: u64) -> Result<(), Gone> {
        match self.answer(seq, UNLOCK_OP)? {
            Answer::Unlocked => {
                self.note(Event::Released { lock: self.name(seq) });
                Ok(())
            }
            _ => Err(Gone),
        }
    }

    fn one(&mut self) -> Result<(), Gone> {
        const MODES: [Mode; 7] = [Mode::EX, Mode::EX, Mode::PW, Mode::PR, Mode::PR, Mode::CW, Mode::CR];
        let name = shared_name(self.dice.below(5));
        let mut mode = MODES[self.dice.below(7) as usize];
        let seq = self.ask(&name, mode)?;
        if !self.settled(seq, 0, None)? {
            return Ok(());
        }
        let hold = Duration::from_millis(self.dice.below(40));
        self.linger(hold)?;
        if self.dice.below(2) == 0 {
            let wanted = MODES[self.dice.below(7) as usize];
            let writes = matches!(mode, Mode::PW | Mode::EX) && mode.covers(wanted) && mode != wanted;
            let value = writes.then(|| self.value());
            let spec = ConvertSpec {
                timeout: Some(LOCK_TIMEOUT / 4),
                lvb: value.map(value_bytes),
                ..ConvertSpec::new(wanted)
            };
            // The first conversion of a lock is its operation 1.
            self.note(Event::Converting { lock: self.name(seq), op: 1, mode: wanted, value });
            let op = self.client.submit_convert(seq, &spec)?;
            assert_eq!(op, 1, "the recording numbers conversions as the client does");
            if self.settled(seq, op, Some(mode))? {
                mode = wanted;
            }
            self.linger(hold / 2)?;
        }
        self.release(seq, mode)?;
        self.released(seq)
    }

    fn burst(&mut self) -> Result<(), Gone> {
        let (group, first) = (self.dice.below(2), self.dice.below(10));
        let mut held = Vec::new();
        let mut asked = Vec::new();
        for at in 0..BURST as u64 {
            let name = format!("burst-{group}-{}", (first + at) % 10);
            asked.push(self.ask(&name, Mode::EX)?);
        }
        for seq in asked {
            if self.settled(seq, 0, None)? {
                held.push(seq);
            }
        }
        self.linger(Duration::from_millis(30))?;
        for &seq in &held {
            self.release(seq, Mode::EX)?;
        }
        for seq in held {
            self.released(seq)?;
        }
        Ok(())
    }

    fn keep(&mut self) -> Result<(), Gone> {
        let mut kept = Vec::new();
        let own = format!("kept-{}", self.number % 3);
        let wanted = (0..5).map(|i| (shared_name(i), Mode::NL)).chain([(own, Mode::EX)]);
        for (name, mode) in wanted {
            let seq = self.ask(&name, mode)?;
            if self.settled(seq, 0, None)? {
                kept.push((seq, mode));
            }
        }
        while !self.stop.load(Ordering::Relaxed) {
            self.listen(Duration::from_millis(50))?;
        }
        for (seq, mode) in kept {
            self.release(seq, mode)?;
            self.released(seq)?;
        }
        Ok(())
    }
}

/// The bytes of a value: its number.
pub fn value_bytes(number: u64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}
