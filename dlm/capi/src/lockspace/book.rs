//! The locks of one open lockspace, and what their operations come to. No I/O.
//!
//! ```text
//! new --asked--> waiting --granted--> held --convert--> converting --granted or refused--> held
//!                   |                   |                    |
//!                   +----- unlock ------+------- unlock -----+--> ending --> gone
//! ```
//!
//! Each operation of the program ends in one completion: to the thread that waits for it (a ticket), or as an AST. An unlock
//! of a lock that waits ends both with EUNLOCK, as in the kernel.

use super::delivery::{Callback, Completion, Delivery};
use crate::abi::{self, DLM_LVB_LEN, EUNLOCK, LksbAt};
use crate::status;
use libc::c_int;
use mxlock_client::{Answer, ConvertSpec, Denial, Event, Grant, LockSpec, Loss, Mode, Resource, UNLOCK_OP, UnlockSpec};
use nix::errno::Errno;
use std::collections::{HashMap, VecDeque};

/// A thread of the program that waits for an operation.
pub(crate) type Ticket = u64;

/// What is asked of mxlockd; kept for the case that it has to be asked again.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Lock(LockSpec),
    Adopt { resource: Resource, mode: Mode, persistent: bool },
    Convert(ConvertSpec),
}

impl Asked {
    fn mode(&self) -> Mode {
        match self {
            Asked::Lock(spec) => spec.mode,
            Asked::Adopt { mode, .. } => *mode,
            Asked::Convert(spec) => spec.mode,
        }
    }
}

/// A request or conversion under way.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) asked: Asked,
    /// Its number at the client; `None` while it waits to be asked again.
    pub(crate) number: Option<u32>,
    pub(crate) ticket: Option<Ticket>,
    /// CLOCK_BOOTTIME at which it times out.
    pub(crate) until_ns: Option<u64>,
    /// The program gave a buffer for the value (VALBLK).
    pub(crate) reads_value: bool,
    cancelled: bool,
    /// The conversion has given up what the lock held (CONVDEADLK), also if it has to be asked again.
    demoted: bool,
}

impl Operation {
    pub(crate) fn new(asked: Asked, ticket: Option<Ticket>, until_ns: Option<u64>, reads_value: bool) -> Operation {
        Operation { asked, number: None, ticket, until_ns, reads_value, cancelled: false, demoted: false }
    }
}

/// An unlock under way.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) spec: UnlockSpec,
    pub(crate) ticket: Option<Ticket>,
    /// Who waited for an operation that the unlock has overtaken.
    overtaken: Option<Ticket>,
    /// It waits to be asked for again.
    asked: bool,
}

/// One lock.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Its number at the client.
    pub(crate) seq: u64,
    pub(crate) cast: Callback,
    pub(crate) bast: Callback,
    pub(crate) lksb: LksbAt,
    pub(crate) granted: Option<Mode>,
    pub(crate) operation: Option<Operation>,
    ending: Option<Ending>,
    /// It was requested or converted with VALBLK: an unlock may write the value.
    pub(crate) has_value: bool,
    /// It was cancelled since the last conversion: not twice.
    cancelled: bool,
    /// A cancellation by `dlm_ls_deadlock_cancel`.
    deadlock: bool,
    /// By `dlm_ls_purge`: nobody is told any more.
    purged: bool,
}

impl Lock {
    pub(crate) fn new(cast: Callback, bast: Callback, lksb: LksbAt, operation: Operation) -> Lock {
        Lock {
            seq: 0,
            cast,
            bast,
            lksb,
            granted: None,
            has_value: operation.reads_value,
            operation: Some(operation),
            ending: None,
            cancelled: false,
            deadlock: false,
            purged: false,
        }
    }
}

/// What has to be done about a lock at mxlockd, now or after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Todo {
    Nothing,
    /// Its operation, or its end, could not be decided: ask again after a pause.
    Again(u32),
}

/// How a cancellation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancel {
    /// There was nothing to cancel: nobody is told anything.
    Nothing,
    /// mxlockd is to be told, for this number.
    Submit(u64),
    /// It was not at mxlockd; it is over.
    Done,
}

/// How an unlock goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unlock {
    Submit(u64),
    /// mxlockd knows nothing of it: it is over.
    Done,
}

/// All locks, and what is to be told about them.
#[derive(Debug, Default)]
pub(crate) struct Book {
    locks: HashMap<u32, Lock>,
    by_seq: HashMap<u64, u32>,
    pub(crate) queue: VecDeque<Delivery>,
    pub(crate) done: HashMap<Ticket, Completion>,
    last_ticket: Ticket,
    /// Held locks that were lost since this was last looked at.
    pub(crate) loss: Option<Loss>,
}

impl Book {
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        self.last_ticket
    }

    pub(crate) fn knows(&self, lkid: u32) -> bool {
        self.locks.contains_key(&lkid)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    pub(crate) fn get_mut(&mut self, lkid: u32) -> Option<&mut Lock> {
        self.locks.get_mut(&lkid)
    }

    pub(crate) fn get(&self, lkid: u32) -> Option<&Lock> {
        self.locks.get(&lkid)
    }

    pub(crate) fn insert(&mut self, lkid: u32, lock: Lock) {
        self.locks.insert(lkid, lock);
    }

    pub(crate) fn forget(&mut self, lkid: u32) -> Option<Lock> {
        let lock = self.locks.remove(&lkid)?;
        self.by_seq.remove(&lock.seq);
        Some(lock)
    }

    /// The operation of a lock was submitted.
    pub(crate) fn submitted(&mut self, lkid: u32, seq: u64, number: u32) {
        let Some(lock) = self.locks.get_mut(&lkid) else { return };
        self.by_seq.remove(&lock.seq);
        lock.seq = seq;
        self.by_seq.insert(seq, lkid);
        if let Some(operation) = &mut lock.operation {
            operation.number = Some(number);
        }
    }

    /// Whether the lock can be converted, to what, from what (`validate_lock_args`).
    pub(crate) fn convertible(&self, lkid: u32) -> Result<Mode, Errno> {
        let lock = self.locks.get(&lkid).ok_or(Errno::ENOENT)?;
        match lock.granted {
            Some(held) if lock.operation.is_none() && lock.ending.is_none() => Ok(held),
            _ => Err(Errno::EBUSY),
        }
    }

    /// A conversion begins: it brings functions, argument and status block of its own.
    pub(crate) fn convert(&mut self, lkid: u32, cast: Callback, bast: Callback, lksb: LksbAt, operation: Operation) {
        let Some(lock) = self.locks.get_mut(&lkid) else { return };
        (lock.cast, lock.bast, lock.lksb) = (cast, bast, lksb);
        lock.has_value |= operation.reads_value;
        (lock.cancelled, lock.deadlock) = (false, false);
        lock.operation = Some(operation);
    }

    /// An unlock begins (`validate_unlock_args`). A new argument replaces the AST's, the functions stay.
    pub(crate) fn unlock(
        &mut self,
        lkid: u32,
        spec: UnlockSpec,
        argument: usize,
        lksb: LksbAt,
        ticket: Option<Ticket>,
    ) -> Result<Unlock, Errno> {
        let lock = self.locks.get_mut(&lkid).ok_or(Errno::ENOENT)?;
        if lock.ending.is_some() {
            return Err(Errno::EBUSY);
        }
        if argument != 0 {
            lock.cast.argument = argument;
        }
        lock.lksb = lksb;
        let not_there =
            lock.granted.is_none() && lock.operation.as_ref().is_some_and(|operation| operation.number.is_none());
        let overtaken = lock.operation.take().and_then(|operation| operation.ticket);
        lock.ending = Some(Ending { spec, ticket, overtaken, asked: true });
        let seq = lock.seq;
        if not_there {
            self.ended(lkid, EUNLOCK);
            return Ok(Unlock::Done);
        }
        Ok(Unlock::Submit(seq))
    }

    /// A cancellation begins. `deadlock`: the operation is to end with EDEADLK.
    pub(crate) fn cancel(&mut self, lkid: u32, argument: usize, lksb: LksbAt, deadlock: bool) -> Result<Cancel, Errno> {
        let lock = self.locks.get_mut(&lkid).ok_or(Errno::ENOENT)?;
        // The kernel counts only the cancellations that are called so.
        if (lock.cancelled && !deadlock) || lock.ending.is_some() {
            return Err(Errno::EINVAL);
        }
        if argument != 0 {
            lock.cast.argument = argument;
        }
        if lksb.0 != 0 {
            lock.lksb = lksb;
        }
        let Some(operation) = &mut lock.operation else { return Ok(Cancel::Nothing) };
        operation.cancelled = true;
        (lock.cancelled, lock.deadlock) = (lock.cancelled || !deadlock, deadlock);
        if operation.number.is_some() {
            return Ok(Cancel::Submit(lock.seq));
        }
        self.refused(lkid, Denial::Cancelled);
        Ok(Cancel::Done)
    }

    /// Every lock ends without a word (`dlm_ls_purge` with the own pid); which have to be unlocked.
    pub(crate) fn purge(&mut self) -> Vec<u64> {
        self.queue.clear();
        let mut unlocks = Vec::new();
        for lkid in self.locks.keys().copied().collect::<Vec<_>>() {
            if let Some(lock) = self.locks.get_mut(&lkid) {
                lock.purged = true;
            }
            let spec = UnlockSpec { lvb: None, invalidate_lvb: true };
            if let Ok(Unlock::Submit(seq)) = self.unlock(lkid, spec, 0, LksbAt::default(), None) {
                unlocks.push(seq);
            }
        }
        unlocks
    }

    /// What the client reports.
    pub(crate) fn take_in(&mut self, event: Event, now_ns: u64) -> Todo {
        match event {
            Event::Answer { seq, op, answer } => {
                let Some(&lkid) = self.by_seq.get(&seq) else { return Todo::Nothing };
                if op == UNLOCK_OP {
                    self.unlock_answered(lkid, answer)
                } else {
                    self.answered(lkid, op, answer, now_ns)
                }
            }
            Event::Bast { seq, .. } => {
                let lock = self.by_seq.get(&seq).and_then(|lkid| self.locks.get(lkid));
                let lock = lock.filter(|lock| lock.bast.is_callable() && lock.ending.is_none());
                self.queue.extend(lock.map(|lock| Delivery::Bast(lock.bast)));
                Todo::Nothing
            }
            Event::Lost { seq, loss } => {
                if let Some(&lkid) = self.by_seq.get(&seq) {
                    self.lost(lkid, loss);
                }
                Todo::Nothing
            }
            _ => Todo::Nothing,
        }
    }

    fn answered(&mut self, lkid: u32, op: u32, answer: Answer, now_ns: u64) -> Todo {
        let Some(lock) = self.locks.get_mut(&lkid) else { return Todo::Nothing };
        if lock.ending.is_some() {
            // The unlock's answer is the last word about both.
            return Todo::Nothing;
        }
        let Some(operation) = lock.operation.as_mut().filter(|operation| operation.number == Some(op)) else {
            return Todo::Nothing;
        };
        if let Answer::GrantedDemoted(_) | Answer::DeniedDemoted(_) = answer {
            operation.demoted = true;
            lock.granted = lock.granted.map(|_| Mode::NL);
        }
        match answer {
            Answer::Granted(grant) | Answer::GrantedDemoted(grant) => self.granted(lkid, &grant),
            Answer::Denied(denial) | Answer::DeniedDemoted(denial) if status::is_passing(denial) => {
                operation.number = None;
                if operation.cancelled {
                    self.refused(lkid, Denial::Cancelled);
                } else if operation.until_ns.is_some_and(|until| now_ns >= until) {
                    self.refused(lkid, Denial::TimedOut);
                } else {
                    return Todo::Again(lkid);
                }
            }
            Answer::Denied(denial) | Answer::DeniedDemoted(denial) => self.refused(lkid, denial),
            Answer::Unlocked => {}
        }
        Todo::Nothing
    }

    fn granted(&mut self, lkid: u32, grant: &Grant) {
        let Some(lock) = self.locks.get_mut(&lkid) else { return };
        let Some(operation) = lock.operation.take() else { return };
        let was = lock.granted.replace(grant.mode);
        // What such a conversion does with the value, it does with the resource's.
        let writes = was.is_some_and(|was| was >= Mode::PW) && (was, grant.mode) != (Some(Mode::PW), Mode::EX);
        let mut flags = 0;
        if operation.demoted {
            flags |= abi::DLM_SBF_DEMOTED;
        }
        if grant.mode != operation.asked.mode() {
            flags |= abi::DLM_SBF_ALTMODE;
        }
        let mut value = None;
        if operation.reads_value && !writes && !matches!(operation.asked, Asked::Adopt { .. }) {
            match &grant.lvb {
                Some(lvb) => {
                    let mut bytes = [0; DLM_LVB_LEN];
                    let length = lvb.bytes.len().min(DLM_LVB_LEN);
                    bytes[..length].copy_from_slice(&lvb.bytes[..length]);
                    value = Some(bytes);
                    if !lvb.valid {
                        flags |= abi::DLM_SBF_VALNOTVALID;
                    }
                }
                // A new lock always brings a value; of a resource that has none it is zero.
                None if was.is_none() => value = Some([0; DLM_LVB_LEN]),
                None => {}
            }
        }
        let completion = Completion { lksb: lock.lksb, lkid, status: 0, flags, value };
        let cast = lock.cast;
        self.tell(completion, operation.ticket, cast);
    }

    /// A request or conversion ends without a grant.
    pub(crate) fn refused(&mut self, lkid: u32, denial: Denial) {
        let Some(lock) = self.locks.get_mut(&lkid) else { return };
        let Some(operation) = lock.operation.take() else { return };
        let status = match denial {
            Denial::Cancelled if lock.deadlock => libc::EDEADLK,
            denial => status::of_denial(denial),
        };
        // The kernel forgets the flag when the conversion is cancelled; its caller cannot know what it holds then.
        let flags = if operation.demoted { abi::DLM_SBF_DEMOTED } else { 0 };
        let completion = Completion { lksb: lock.lksb, lkid, status, flags, value: None };
        let (cast, gone) = (lock.cast, lock.granted.is_none());
        if gone {
            self.forget(lkid);
        }
        self.tell(completion, operation.ticket, cast);
    }

    fn unlock_answered(&mut self, lkid: u32, answer: Answer) -> Todo {
        let Some(lock) = self.locks.get_mut(&lkid) else { return Todo::Nothing };
        let Some(ending) = &mut lock.ending else { return Todo::Nothing };
        match answer {
            Answer::Denied(denial) if status::is_passing(denial) => {
                ending.asked = false;
                return Todo::Again(lkid);
            }
            Answer::Denied(denial) => self.ended(lkid, status::of_denial(denial)),
            _ => self.ended(lkid, EUNLOCK),
        }
        Todo::Nothing
    }

    /// The unlock that has to be asked for again.
    pub(crate) fn unlock_again(&mut self, lkid: u32) -> Option<(u64, UnlockSpec)> {
        let lock = self.locks.get_mut(&lkid)?;
        let ending = lock.ending.as_mut().filter(|ending| !ending.asked)?;
        ending.asked = true;
        Some((lock.seq, ending.spec.clone()))
    }

    /// An unlock is over: with EUNLOCK the lock is gone, with anything else it stays.
    pub(crate) fn ended(&mut self, lkid: u32, status: c_int) {
        let Some(lock) = self.locks.get_mut(&lkid) else { return };
        let Some(ending) = lock.ending.take() else { return };
        let (cast, purged, lksb) = (lock.cast, lock.purged, lock.lksb);
        if status == EUNLOCK {
            self.forget(lkid);
        }
        let completion = Completion { lksb, lkid, status, flags: 0, value: None };
        if let Some(ticket) = ending.overtaken {
            self.done.insert(ticket, completion);
        }
        if !purged {
            self.tell(completion, ending.ticket, cast);
        }
    }

    fn lost(&mut self, lkid: u32, loss: Loss) {
        let Some(lock) = self.locks.get(&lkid) else { return };
        if lock.ending.is_some() {
            return self.ended(lkid, EUNLOCK);
        }
        if lock.granted.is_some_and(|mode| mode != Mode::NL) {
            self.loss = Some(loss);
        }
        if lock.operation.is_some() {
            self.refused(lkid, Denial::SessionOver);
        }
        self.forget(lkid);
    }

    fn tell(&mut self, completion: Completion, ticket: Option<Ticket>, cast: Callback) {
        match ticket {
            Some(ticket) => {
                self.done.insert(ticket, completion);
            }
            None => self.queue.push_back(Delivery::Ast(completion, cast)),
        }
    }
}

#[cfg(test)]
mod tests;
