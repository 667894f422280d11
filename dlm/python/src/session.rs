//! The class `mxlock._mxlock.Session`.

use crate::failure::{exception, of_denial, of_error, of_loss};
use crate::pump::Pump;
use crate::shared::{Books, End, Shared, State, Wait};
use mxlock_client::{
    Answer, ByteRange, Client, ClientError, ConnectOptions, ConvertSpec, Event, LockFlags, LockSpec, Loss, Mode,
    QualifiedName, Resource, UNLOCK_OP, UnlockSpec,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a wait looks whether Python has a signal to handle.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// An answer: mode, token, value, whether that is valid, whether the mode was given up on the way.
type Granted<'py> = (u8, u64, Option<Bound<'py, PyBytes>>, bool, bool);
/// An event: kind, lock, mode, reason.
type Told = (&'static str, u64, u8, String);

/// A session with the daemon. Calls of a forked child are refused: the session is its parent's.
#[pyclass(frozen, module = "mxlock._mxlock")]
pub(crate) struct Session {
    pid: u32,
    shared: Arc<Shared>,
    pump: Mutex<Option<Pump>>,
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (lockspace, socket, connect_timeout))]
    fn new(py: Python<'_>, lockspace: String, socket: Option<PathBuf>, connect_timeout: f64) -> PyResult<Session> {
        let connect_timeout = duration(py, connect_timeout)?;
        let options = ConnectOptions { socket, connect_timeout, ..ConnectOptions::new(lockspace) };
        let made = py.detach(|| {
            let shared = Arc::new(Shared::new(Client::connect(options)?)?);
            let pump = Pump::start(Arc::clone(&shared))?;
            Ok((shared, pump))
        });
        let (shared, pump) = made.map_err(|error| of_error(py, &error))?;
        Ok(Session { pid: std::process::id(), shared, pump: Mutex::new(Some(pump)) })
    }

    /// Asks for a lock; its number.
    #[allow(clippy::too_many_arguments)]
    fn submit_lock(
        &self,
        py: Python<'_>,
        namespace: &[u8],
        name: &[u8],
        mode: u8,
        flags: u32,
        range: Option<(u64, u64)>,
        timeout: Option<f64>,
        transaction: u64,
        orphan: Option<f64>,
        persistent: bool,
    ) -> PyResult<u64> {
        let spec = LockSpec {
            mode: self::mode(py, mode)?,
            flags: at_once(flags, timeout),
            range: range.map(|(first, last)| byte_range(py, first, last)).transpose()?,
            timeout: seconds(py, timeout)?,
            transaction,
            orphan_lifetime: seconds(py, orphan)?,
            persistent,
            ..LockSpec::new(resource(py, namespace, name)?)
        };
        self.ask(py, |books, client| {
            let seq = client.submit_lock(&spec)?;
            books.expect(seq, 0);
            Ok(seq)
        })
    }

    /// Asks for an orphan; the number that the lock has from now on.
    fn submit_adopt(&self, py: Python<'_>, namespace: &[u8], name: &[u8], mode: u8, persistent: bool) -> PyResult<u64> {
        let (resource, mode) = (resource(py, namespace, name)?, self::mode(py, mode)?);
        self.ask(py, |books, client| {
            let seq = client.submit_adopt(&resource, mode, persistent)?;
            books.expect(seq, 0);
            Ok(seq)
        })
    }

    /// Asks for another mode; the operation's number.
    #[allow(clippy::too_many_arguments)]
    fn submit_convert(
        &self,
        py: Python<'_>,
        seq: u64,
        mode: u8,
        flags: u32,
        timeout: Option<f64>,
        value: Option<Vec<u8>>,
        what: &str,
    ) -> PyResult<u32> {
        let spec = ConvertSpec {
            mode: self::mode(py, mode)?,
            flags: at_once(flags, timeout),
            timeout: seconds(py, timeout)?,
            lvb: value,
        };
        self.check_held(py, seq, what)?;
        self.ask(py, |books, client| {
            let op = client.submit_convert(seq, &spec)?;
            books.expect(seq, op);
            Ok(op)
        })
    }

    /// Asks for the end of a lock. Its answer has the number `UNLOCK_OP`.
    fn submit_unlock(
        &self,
        py: Python<'_>,
        seq: u64,
        value: Option<Vec<u8>>,
        invalidate: bool,
        what: &str,
    ) -> PyResult<u32> {
        let spec = UnlockSpec { lvb: value, invalidate_lvb: invalidate };
        self.check_held(py, seq, what)?;
        self.ask(py, |books, client| {
            client.submit_unlock_with(seq, &spec)?;
            books.expect(seq, UNLOCK_OP);
            books.release(seq);
            Ok(UNLOCK_OP)
        })
    }

    /// Ends the waiting operation of a lock; its answer says how.
    fn cancel(&self, py: Python<'_>, seq: u64) -> PyResult<()> {
        self.ask(py, |_, client| client.submit_cancel(seq))
    }

    /// Gives a request or lock up, in whatever state it is, and waits for nothing.
    fn abandon(&self, py: Python<'_>, seq: u64) -> PyResult<()> {
        self.check_process(py)?;
        let mut state = self.shared.state();
        state.books.forget(seq, 0);
        if state.books.release(seq).is_none()
            && let Some(client) = &state.client
        {
            // There may be none such any more, which is what is wanted.
            let _ = client.submit_unlock(seq, None);
        }
        Ok(())
    }

    /// Waits for the answer to an operation on `what`. A signal handler that raises ends the wait.
    fn wait<'py>(
        &self,
        py: Python<'py>,
        seq: u64,
        op: u32,
        timeout: Option<f64>,
        what: &str,
    ) -> PyResult<Granted<'py>> {
        self.check_process(py)?;
        let timeout = seconds(py, timeout)?;
        let wait = Wait::new(&self.shared.state(), timeout);
        let end = loop {
            py.check_signals()?;
            if let Some(end) = py.detach(|| self.shared.wait((seq, op), &wait, SIGNAL_INTERVAL)) {
                break end;
            }
        };
        let granted = self.result(py, seq, what, end)?;
        if op == 0 {
            self.shared.fetch(seq).map_err(|loss| exception(py, of_loss(loss), &lost(what, loss)))?;
        }
        Ok(granted)
    }

    /// Whether the answer to an operation has come: then `wait` does not wait.
    fn is_answered(&self, py: Python<'_>, seq: u64, op: u32) -> PyResult<bool> {
        self.check_process(py)?;
        let state = self.shared.state();
        Ok(state.books.is_answered(seq, op) || state.client.is_none())
    }

    /// Whether a lock may be relied on at this moment.
    fn is_valid(&self, py: Python<'_>, seq: u64) -> PyResult<bool> {
        self.check_process(py)?;
        Ok(self.shared.state().is_valid(seq))
    }

    /// The mode in which a lock is held, if it is.
    fn mode(&self, py: Python<'_>, seq: u64) -> PyResult<Option<u8>> {
        self.check_process(py)?;
        let state = self.shared.state();
        Ok(state.client.as_ref().and_then(|client| client.held_mode(seq)).map(|mode| mode as u8))
    }

    /// Why a lock was lost, if it was: the exception's class and a sentence.
    fn loss(&self, py: Python<'_>, seq: u64) -> PyResult<Option<(&'static str, String)>> {
        self.check_process(py)?;
        Ok(self.shared.state().books.loss(seq).map(|loss| (of_loss(loss), loss.to_string())))
    }

    /// The events so far; waits for one. An empty list: the time is over, or the session was closed.
    #[pyo3(signature = (timeout))]
    fn events(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<Told>> {
        self.check_process(py)?;
        let until = seconds(py, timeout)?.map(|timeout| std::time::Instant::now() + timeout);
        loop {
            py.check_signals()?;
            let left =
                until.map_or(SIGNAL_INTERVAL, |until| until.saturating_duration_since(std::time::Instant::now()));
            if let Some(events) = py.detach(|| self.shared.events(left.min(SIGNAL_INTERVAL))) {
                return Ok(events.iter().map(told).collect());
            }
            if until.is_some_and(|until| std::time::Instant::now() >= until) {
                return Ok(Vec::new());
            }
        }
    }

    /// A descriptor that is readable while there are events. Do not read from it.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        self.check_process(py)?;
        Ok(self.shared.readable.as_raw_fd())
    }

    /// The node of the daemon.
    fn node(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        self.ask(py, |_, client| Ok(client.node().map(|node| node.get())))
    }

    /// Whether the node's lease runs at this moment.
    fn lease_valid(&self, py: Python<'_>) -> PyResult<bool> {
        self.ask(py, |_, client| Ok(client.lease_valid()))
    }

    /// Whether the connection stands.
    fn is_connected(&self, py: Python<'_>) -> PyResult<bool> {
        self.ask(py, |_, client| Ok(client.is_connected()))
    }

    /// Ends the session; its locks are released. False: the daemon has not confirmed it in time.
    fn close(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = duration(py, timeout)?;
        if self.pid != std::process::id() {
            // Nothing here is the child's.
            return Ok(true);
        }
        Ok(py.detach(|| self.end(timeout)))
    }
}

impl Session {
    fn check_process(&self, py: Python<'_>) -> PyResult<()> {
        if self.pid == std::process::id() {
            return Ok(());
        }
        let sentence = "this client belongs to the process that made it: connect again after fork";
        Err(exception(py, "UsageError", sentence))
    }

    /// A lock that is lost cannot be changed or ended: the caller has to learn of it.
    fn check_held(&self, py: Python<'_>, seq: u64, what: &str) -> PyResult<()> {
        self.check_process(py)?;
        match self.shared.state().books.loss(seq) {
            Some(loss) => Err(exception(py, of_loss(loss), &lost(what, loss))),
            None => Ok(()),
        }
    }

    /// One call of the client. It is short, unless the daemon has taken in nothing for long: others may run meanwhile.
    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut Books, &Client) -> Result<T, ClientError> + Send,
    ) -> PyResult<T> {
        self.check_process(py)?;
        let result = py.detach(|| {
            let mut state = self.shared.state();
            let State { client, books } = &mut *state;
            call(books, client.as_ref().ok_or_else(closed)?)
        });
        result.map_err(|error| of_error(py, &error))
    }

    fn result<'py>(&self, py: Python<'py>, seq: u64, what: &str, end: End) -> PyResult<Granted<'py>> {
        let (answer, demoted) = match end {
            End::Answer(Answer::Granted(grant)) => (grant, false),
            End::Answer(Answer::GrantedDemoted(grant)) => (grant, true),
            End::Answer(Answer::Unlocked) => return Ok((0, 0, None, false, false)),
            End::Answer(Answer::Denied(denial) | Answer::DeniedDemoted(denial)) => {
                if let Some(loss) = self.shared.state().books.loss(seq) {
                    return Err(exception(py, of_loss(loss), &lost(what, loss)));
                }
                return Err(exception(py, of_denial(denial), &format!("'{what}': {denial}")));
            }
            End::Loss(loss) => {
                let class = loss.map_or("LockLost", of_loss);
                let sentence = "locks of this client were lost meanwhile: stop what they protect";
                return Err(exception(py, class, sentence));
            }
            End::NoDaemon => {
                return Err(exception(py, "Unavailable", "the connection to mxlockd was lost: is it running?"));
            }
            End::NoAnswer => {
                let sentence = "mxlockd has not answered in time: see 'mxlock status' for what is blocked";
                return Err(exception(py, "Unavailable", sentence));
            }
            End::Closed => return Err(of_error(py, &closed())),
        };
        let value = answer.lvb.as_ref().map(|value| PyBytes::new(py, &value.bytes));
        let valid = answer.lvb.as_ref().is_some_and(|value| value.valid);
        Ok((answer.mode as u8, answer.token.0, value, valid, demoted))
    }

    fn end(&self, limit: Duration) -> bool {
        let pump: &mut Option<Pump> = &mut self.pump();
        if let Some(mut pump) = pump.take() {
            pump.stop();
        }
        self.shared.close(limit)
    }

    fn pump(&self) -> MutexGuard<'_, Option<Pump>> {
        self.pump.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            self.end(Duration::ZERO);
        }
    }
}

fn closed() -> ClientError {
    ClientError::Usage("the client is closed: connect again".into())
}

fn lost(what: &str, loss: Loss) -> String {
    format!("the lock on '{what}' is lost: {loss}")
}

/// What does not wait is not queued, as with `Client::try_lock`.
fn at_once(flags: u32, timeout: Option<f64>) -> LockFlags {
    let flags = LockFlags(flags);
    if timeout == Some(0.0) { flags | LockFlags::NOQUEUE } else { flags }
}

fn told(event: &Event) -> Told {
    match event {
        Event::Bast { seq, wanted } => ("bast", *seq, *wanted as u8, String::new()),
        Event::Lost { seq, loss } => ("lost", *seq, 0, loss.to_string()),
        Event::LeaseLost => ("lease-lost", 0, 0, String::new()),
        Event::LeaseRegained => ("lease-regained", 0, 0, String::new()),
        Event::Disconnected => ("disconnected", 0, 0, String::new()),
        Event::Reconnected => ("reconnected", 0, 0, String::new()),
        Event::Answer { seq, .. } => ("answer", *seq, 0, String::new()),
        // A kind of event that this package does not know yet.
        _ => ("other", 0, 0, String::new()),
    }
}

fn usage(py: Python<'_>, message: &str) -> PyErr {
    exception(py, "UsageError", message)
}

fn mode(py: Python<'_>, number: u8) -> PyResult<Mode> {
    Mode::from_number(number).ok_or_else(|| usage(py, &format!("{number} is no mode: use NL, CR, CW, PR, PW or EX")))
}

fn seconds(py: Python<'_>, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    seconds.map(|seconds| duration(py, seconds)).transpose()
}

fn duration(py: Python<'_>, seconds: f64) -> PyResult<Duration> {
    let wrong = |_| usage(py, &format!("{seconds} is no time: use seconds from 0 on, or None to wait for ever"));
    Duration::try_from_secs_f64(seconds).map_err(wrong)
}

fn byte_range(py: Python<'_>, first: u64, last: u64) -> PyResult<ByteRange> {
    let wrong = || usage(py, &format!("the range from {first} to {last} ends before it starts"));
    ByteRange::new(first, last).ok_or_else(wrong)
}

fn resource(py: Python<'_>, namespace: &[u8], name: &[u8]) -> PyResult<Resource> {
    let name = QualifiedName::new(namespace, name);
    name.map(Resource::named).map_err(|error| usage(py, &error.to_string()))
}
