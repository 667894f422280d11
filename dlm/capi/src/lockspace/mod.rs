//! An open lockspace: a session with mxlockd, a thread that listens to it, and what the program asks and is told.
//!
//! The keeper thread takes in what mxlockd says, connects again when it was restarted, and notices the end of the lease; so a
//! program that sits on its locks without calling anything keeps them, as it would with the kernel. Nothing of the
//! program runs in that thread: functions are called by whoever dispatches.

mod book;
mod delivery;
mod dispatch;
mod keeper;
mod purge;

pub(crate) use delivery::Callback;

use crate::abi::{self, LksbAt, lkf};
use crate::loss::OnLoss;
use crate::spaces::{self, Space};
use crate::{check, names, status};
use book::{Asked, Book, Cancel, Lock, Operation, Ticket, Unlock};
use delivery::Completion;
use libc::c_int;
use mxlock_client::{
    ByteRange, Client, ClientError, ConnectOptions, ConvertSpec, LockFlags, LockSpec, Mode, UnlockSpec, boottime_ns,
};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

/// Pause before a request is made again that could not be decided.
const AGAIN_NS: u64 = 200_000_000;
/// Longest wait for mxlockd to end a session.
const FAREWELL: Duration = Duration::from_secs(5);

/// A request or conversion.
pub(crate) struct LockArgs {
    pub(crate) mode: u32,
    pub(crate) flags: u32,
    /// The resource; `None` for a conversion.
    pub(crate) name: Option<Vec<u8>>,
    /// The lock to be converted.
    pub(crate) lkid: u32,
    /// What the status block's buffer holds, with VALBLK.
    pub(crate) value: Option<[u8; abi::DLM_LVB_LEN]>,
    pub(crate) lksb: LksbAt,
    pub(crate) cast: Callback,
    pub(crate) bast: Callback,
    pub(crate) range: Option<ByteRange>,
    pub(crate) xid: u64,
    pub(crate) timeout: Option<Duration>,
}

/// An unlock or cancellation.
pub(crate) struct UnlockArgs {
    pub(crate) lkid: u32,
    pub(crate) flags: u32,
    pub(crate) value: Option<[u8; abi::DLM_LVB_LEN]>,
    pub(crate) lksb: LksbAt,
    pub(crate) argument: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Lockspace {
    name: Vec<u8>,
    /// Whether this is the library for threads.
    threaded: bool,
    /// A forked child has neither the keeper nor the session.
    pid: u32,
    on_loss: OnLoss,
    /// With a lock id: an owner of its own for each lock that has no transaction id. Drawn for each handle, since a forked child has
    /// the ids of its parent.
    first_owner: u64,
    state: Mutex<State>,
    /// The queue, a finished operation or the end of the lockspace.
    changed: Condvar,
    /// For the program: readable while something waits to be dispatched.
    ready: EventFd,
    /// For the keeper.
    wake: EventFd,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct State {
    client: Option<Client>,
    space: Option<Space>,
    book: Book,
    /// `ready` is readable.
    signalled: bool,
    /// When which lock's operation is to be asked for again.
    again: Vec<(u64, u32)>,
    closing: bool,
    dispatcher: Option<Dispatcher>,
}

#[derive(Debug)]
struct Dispatcher {
    thread: Option<JoinHandle<()>>,
    id: ThreadId,
    stop: bool,
}

/// Which lockspaces to open.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Opening {
    Existing,
    New { mode: u32, exclusive: bool },
}

impl Lockspace {
    /// Opens a session and the lockspace.
    pub(crate) fn open(name: &[u8], opening: Opening, threaded: bool) -> Result<Arc<Lockspace>, Errno> {
        names::lockspace(name)?;
        let client = Client::connect(ConnectOptions::default()).map_err(|error| status::of_error(&error))?;
        let directory = spaces::directory(&client.socket());
        let random = getrandom::u32().map_err(|_| Errno::EAGAIN)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let (ready, wake) = (EventFd::from_flags(flags)?, EventFd::from_flags(flags)?);
        let space = match opening {
            Opening::Existing => spaces::open(&directory, name)?,
            Opening::New { mode, exclusive } => spaces::create(&directory, name, mode, exclusive)?,
        };
        let is_new = space.is_new;
        let state = State {
            client: Some(client),
            space: Some(space),
            book: Book::default(),
            signalled: false,
            again: Vec::new(),
            closing: false,
            dispatcher: None,
        };
        let lockspace = Arc::new(Lockspace {
            name: name.to_vec(),
            threaded,
            pid: std::process::id(),
            on_loss: OnLoss::from_environment(),
            first_owner: (u64::from(random) | 1 << 31) << 32,
            state: Mutex::new(state),
            changed: Condvar::new(),
            ready,
            wake,
            keeper: Mutex::new(None),
        });
        let keeper = keeper::start(Arc::clone(&lockspace)).inspect_err(|_| {
            // What was counted is taken back.
            let _ = if let Opening::New { .. } = opening { lockspace.release(false) } else { lockspace.close() };
        })?;
        *lockspace.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        if is_new {
            // Whoever may not end them finds out when it asks for the locks.
            let _ = lockspace.purge_earlier_boots();
        }
        Ok(lockspace)
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// The program's descriptor.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.ready.as_raw_fd()
    }

    pub(crate) fn knows(&self, lkid: u32) -> bool {
        self.state().book.knows(lkid)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked has left the books as they were between two of their changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for a call of the process that opened the lockspace, while it is open.
    fn ours(&self) -> Result<MutexGuard<'_, State>, Errno> {
        if self.pid != std::process::id() {
            return Err(Errno::ENOTCONN);
        }
        let state = self.state();
        if state.closing { Err(Errno::EBADF) } else { Ok(state) }
    }

    // ---- locking ----

    /// A request, conversion or adoption. With WAIT, or for an adoption, it has ended when this returns: its status, which an
    /// adoption does not have.
    ///
    /// # Safety
    /// `args.lksb` is the address of a status block that stays until the operation has ended, and, where a value may be told,
    /// has a buffer of 32 bytes or none; functions and arguments are what they are said to be.
    pub(crate) unsafe fn lock(&self, args: LockArgs) -> Result<Option<c_int>, Errno> {
        let mode = abi::mode(args.mode).ok_or(Errno::EINVAL)?;
        check::lock_flags(args.flags, mode)?;
        let waits = args.flags & lkf::WAIT != 0;
        let convert = args.flags & lkf::CONVERT != 0;
        let adopt = !convert && args.flags & lkf::ORPHAN != 0;
        // A synchronous call waits in a way of its own; what it left behind is not called later either.
        let cast = if waits { Callback { function: 0, ..args.cast } } else { args.cast };
        let until_ns = args.timeout.map(|time| boottime_ns().saturating_add(time.as_nanos() as u64));
        let mut state = self.ours()?;
        let ticket = (waits || adopt).then(|| state.book.ticket());
        let lkid = if convert {
            self.convert(&mut state, &args, mode, cast, ticket, until_ns)?
        } else {
            self.request(&mut state, &args, mode, adopt, cast, ticket, until_ns)?
        };
        // SAFETY: the caller's word. The keeper cannot tell anything about the lock before the state is given back.
        unsafe { args.lksb.begin(Some(lkid)) };
        let Some(ticket) = ticket else { return Ok(None) };
        // SAFETY: the caller's word, for all status blocks and functions that this lockspace was given.
        let completion = unsafe { self.wait(state, ticket, !adopt) }?;
        if adopt && completion.status != 0 {
            return Err(Errno::from_raw(completion.status));
        }
        if adopt && !waits {
            return Ok(None);
        }
        // SAFETY: the caller's word.
        unsafe { completion.fill() };
        Ok(Some(completion.status))
    }

    #[allow(clippy::too_many_arguments)]
    fn request(
        &self,
        state: &mut State,
        args: &LockArgs,
        mode: Mode,
        adopt: bool,
        cast: Callback,
        ticket: Option<Ticket>,
        until_ns: Option<u64>,
    ) -> Result<u32, Errno> {
        let resource = names::resource(&self.name, args.name.as_deref().unwrap_or_default())?;
        let lkid = next_lkid();
        let persistent = args.flags & lkf::PERSISTENT != 0;
        let asked = if adopt {
            Asked::Adopt { resource, mode, persistent }
        } else {
            let flags = abi::lock_flags(args.flags & !lkf::IVVALBLK);
            Asked::Lock(LockSpec {
                mode,
                flags,
                range: args.range,
                timeout: args.timeout,
                // The session is no owner in the kernel's eyes: what a program holds itself, it may also wait for.
                transaction: if args.xid == 0 { self.first_owner | u64::from(lkid) } else { args.xid },
                persistent,
                ..LockSpec::new(resource)
            })
        };
        let operation = Operation::new(asked, ticket, until_ns, args.value.is_some());
        state.book.insert(lkid, Lock::new(cast, args.bast, args.lksb, operation));
        if let Err(error) = state.ask(lkid) {
            state.book.forget(lkid);
            return Err(status::of_error(&error));
        }
        Ok(lkid)
    }

    fn convert(
        &self,
        state: &mut State,
        args: &LockArgs,
        mode: Mode,
        cast: Callback,
        ticket: Option<Ticket>,
        until_ns: Option<u64>,
    ) -> Result<u32, Errno> {
        let lkid = args.lkid;
        let held = state.book.convertible(lkid)?;
        check::conversion(args.flags, held, mode)?;
        let persistence = if args.flags & lkf::PERSISTENT == 0 { LockFlags::TRANSIENT } else { LockFlags::NONE };
        let spec = ConvertSpec {
            flags: abi::lock_flags(args.flags) | persistence,
            timeout: args.timeout,
            lvb: args.value.map(|value| value.to_vec()),
            ..ConvertSpec::new(mode)
        };
        let operation = Operation::new(Asked::Convert(spec), ticket, until_ns, args.value.is_some());
        state.book.convert(lkid, cast, args.bast, args.lksb, operation);
        if let Err(error) = state.ask(lkid) {
            if let Some(lock) = state.book.get_mut(lkid) {
                lock.operation = None;
            }
            return Err(status::of_error(&error));
        }
        Ok(lkid)
    }

    /// An unlock or cancellation; with WAIT its status.
    ///
    /// # Safety
    /// As [`Lockspace::lock`].
    pub(crate) unsafe fn unlock(&self, args: UnlockArgs) -> Result<Option<c_int>, Errno> {
        let waits = args.flags & lkf::WAIT != 0;
        if args.flags & lkf::CANCEL != 0 {
            // SAFETY: the caller's word.
            return unsafe { self.cancel(&args, waits) };
        }
        let mut state = self.ours()?;
        let lock = state.book.get(args.lkid).ok_or(Errno::ENOENT)?;
        check::unlock_flags(args.flags)?;
        let lvb = args.value.filter(|_| lock.has_value && args.flags & lkf::IVVALBLK == 0).map(|value| value.to_vec());
        let spec = UnlockSpec { lvb, invalidate_lvb: args.flags & lkf::IVVALBLK != 0 };
        let ticket = waits.then(|| state.book.ticket());
        let unlock = match state.book.unlock(args.lkid, spec.clone(), args.argument, args.lksb, ticket) {
            Err(Errno::EBUSY) if args.flags & lkf::FORCEUNLOCK != 0 => return Ok(None),
            other => other?,
        };
        // SAFETY: the caller's word.
        unsafe { args.lksb.begin(None) };
        if let Unlock::Submit(seq) = unlock
            && let Err(error) = state.client()?.submit_unlock_with(seq, &spec)
        {
            state.book.ended(args.lkid, status::of_error(&error) as c_int);
        }
        self.announce(&mut state);
        let Some(ticket) = ticket else { return Ok(None) };
        // SAFETY: the caller's word.
        unsafe {
            let completion = self.wait(state, ticket, true)?;
            completion.fill();
            Ok(Some(completion.status))
        }
    }

    /// # Safety
    /// As [`Lockspace::lock`].
    unsafe fn cancel(&self, args: &UnlockArgs, waits: bool) -> Result<Option<c_int>, Errno> {
        let mut state = self.ours()?;
        if !state.book.knows(args.lkid) {
            return Err(Errno::ENOENT);
        }
        check::unlock_flags(args.flags)?;
        let ticket = waits.then(|| state.book.ticket());
        // The end of the operation is told to whoever asked for it: if that is a thread that waits, it stays so.
        let taken = ticket.is_some_and(|ticket| {
            let operation = state.book.get_mut(args.lkid).and_then(|lock| lock.operation.as_mut());
            let free = operation.filter(|operation| operation.ticket.is_none());
            free.map(|operation| operation.ticket = Some(ticket)).is_some()
        });
        let cancel = state.book.cancel(args.lkid, args.argument, args.lksb, false);
        let cancel = cancel.inspect_err(|_| {
            if taken && let Some(operation) = state.book.get_mut(args.lkid).and_then(|lock| lock.operation.as_mut()) {
                operation.ticket = None;
            }
        })?;
        // SAFETY: the caller's word.
        unsafe { args.lksb.begin(None) };
        if let Cancel::Submit(seq) = cancel {
            state.client()?.submit_cancel(seq).map_err(|error| status::of_error(&error))?;
        }
        self.announce(&mut state);
        match ticket {
            // SAFETY: the caller's word.
            Some(ticket) if taken => unsafe {
                let completion = self.wait(state, ticket, true)?;
                completion.fill();
                Ok(Some(completion.status))
            },
            // There was nothing to cancel, which the original waits for for ever.
            Some(_) => {
                let completion = Completion { lksb: args.lksb, lkid: args.lkid, status: 0, flags: 0, value: None };
                // SAFETY: the caller's word.
                unsafe { completion.fill() };
                Ok(Some(0))
            }
            None => Ok(None),
        }
    }

    /// `dlm_ls_deadlock_cancel`: the operation ends with EDEADLK.
    pub(crate) fn deadlock_cancel(&self, lkid: u32, flags: u32) -> Result<(), Errno> {
        let mut state = self.ours()?;
        if !state.book.knows(lkid) {
            return Err(Errno::ENOENT);
        }
        check::unlock_flags(flags)?;
        if let Cancel::Submit(seq) = state.book.cancel(lkid, 0, LksbAt::default(), true)? {
            state.client()?.submit_cancel(seq).map_err(|error| status::of_error(&error))?;
        }
        self.announce(&mut state);
        Ok(())
    }

    // ---- closing ----

    /// Ends the session: locks that are not PERSISTENT are released, others become orphans; nobody is told.
    pub(crate) fn close(&self) -> Result<(), Errno> {
        self.shut().map(drop)
    }

    fn shut(&self) -> Result<Option<Space>, Errno> {
        if self.pid != std::process::id() {
            return Err(Errno::ENOTCONN);
        }
        let mut state = self.state();
        if state.closing {
            return Err(Errno::EBADF);
        }
        state.closing = true;
        let dispatcher = state.dispatcher.as_mut().and_then(|dispatcher| {
            dispatcher.stop = true;
            // Who closes the lockspace in a function that it was called by cannot wait for itself.
            dispatcher.thread.take().filter(|_| dispatcher.id != thread::current().id())
        });
        self.changed.notify_all();
        drop(state);
        let _ = self.wake.write(1);
        // A thread that has panicked has said so.
        dispatcher.map(JoinHandle::join);
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        keeper.map(JoinHandle::join);
        let mut state = self.state();
        let client = state.client.take();
        let space = state.space.take();
        drop(state);
        if let Some(client) = client {
            client.close(FAREWELL);
        }
        Ok(space)
    }
}

impl State {
    fn client(&self) -> Result<&Client, Errno> {
        self.client.as_ref().ok_or(Errno::EBADF)
    }

    /// Submits the operation of a lock.
    fn ask(&mut self, lkid: u32) -> Result<(), ClientError> {
        let (Some(client), Some(lock)) = (&self.client, self.book.get(lkid)) else { return Ok(()) };
        let Some(operation) = &lock.operation else { return Ok(()) };
        let (seq, number) = match &operation.asked {
            Asked::Lock(spec) => (client.submit_lock(spec)?, 0),
            Asked::Adopt { resource, mode, persistent } => (client.submit_adopt(resource, *mode, *persistent)?, 0),
            Asked::Convert(spec) => (lock.seq, client.submit_convert(lock.seq, spec)?),
        };
        self.book.submitted(lkid, seq, number);
        Ok(())
    }
}

/// Lock ids are positive and, over two thousand million of them, not used twice in a process.
fn next_lkid() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let id = LAST.fetch_add(1, Ordering::Relaxed) % (i32::MAX as u32);
    id + 1
}
