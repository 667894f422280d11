//! Ending locks that nobody will end otherwise, and the lockspace.

use super::book::{Asked, Lock, Operation, Unlock};
use super::{Callback, Lockspace, State, next_lkid};
use crate::abi::LksbAt;
use crate::spaces::Space;
use crate::status;
use libc::{c_int, pid_t};
use mxlock_client::{AdminReply, AdminRequest, Mode, NodeId, Resource, SessionId, UnlockSpec, boottime_ns};
use nix::errno::Errno;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// A lock of a lockspace, on any node.
struct Listed {
    resource: Resource,
    mode: Mode,
    node: NodeId,
    pid: u32,
    session: SessionId,
    since_ms: u64,
    orphan: bool,
    persistent: bool,
}

/// What a purged lock may have been changing cannot be trusted.
fn without_value() -> UnlockSpec {
    UnlockSpec { lvb: None, invalidate_lvb: true }
}

impl Lockspace {
    /// `dlm_ls_purge`: the own locks of this handle, or the orphans of a process (0: all) of a node (0: this one).
    pub(crate) fn purge(&self, node: c_int, pid: pid_t) -> Result<(), Errno> {
        let state = self.ours()?;
        let here = state.client()?.node();
        let node = match u32::try_from(node) {
            Ok(0) => here,
            Ok(number) => Some(NodeId::new(number).ok_or(Errno::EINVAL)?),
            Err(_) => return Err(Errno::EINVAL),
        };
        let Some(node) = node else { return Err(Errno::ENOTCONN) };
        if Some(node) == here && u32::try_from(pid) == Ok(self.pid) {
            return self.purge_own(state);
        }
        self.purge_orphans(state, |orphan| orphan.node == node && (pid == 0 || u32::try_from(pid) == Ok(orphan.pid)))
    }

    /// What is left on this node of processes from before its last boot. The kernel has none, and whoever creates the lockspace
    /// anew would wait for them for ever.
    pub(super) fn purge_earlier_boots(&self) -> Result<(), Errno> {
        let state = self.ours()?;
        let here = state.client()?.node();
        let booted_ms = booted_ms();
        self.purge_orphans(state, |orphan| Some(orphan.node) == here && is_earlier(orphan.since_ms, booted_ms))
    }

    fn purge_own<'s>(&'s self, mut state: MutexGuard<'s, State>) -> Result<(), Errno> {
        for seq in state.book.purge() {
            let submitted = state.client()?.submit_unlock_with(seq, &without_value());
            submitted.map_err(|error| status::of_error(&error))?;
        }
        self.announce(&mut state);
        while !state.book.is_empty() && !state.closing {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Orphans are adopted, and then unlocked without a value.
    fn purge_orphans<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        wanted: impl Fn(&Listed) -> bool,
    ) -> Result<(), Errno> {
        for orphan in state.list(&self.name)? {
            if !orphan.orphan || !wanted(&orphan) {
                continue;
            }
            let lkid = next_lkid();
            let ticket = state.book.ticket();
            let asked = Asked::Adopt { resource: orphan.resource, mode: orphan.mode, persistent: false };
            let operation = Operation::new(asked, Some(ticket), None, false);
            state.book.insert(lkid, Lock::new(Callback::default(), Callback::default(), LksbAt::default(), operation));
            if let Err(error) = state.ask(lkid) {
                state.book.forget(lkid);
                return Err(status::of_error(&error));
            }
            // SAFETY: nothing is dispatched.
            let adopted = unsafe { self.wait(state, ticket, false) }?;
            state = self.ours()?;
            if adopted.status != 0 {
                // Somebody else has it, or may not give it to this user.
                continue;
            }
            let ticket = state.book.ticket();
            if let Unlock::Submit(seq) = state.book.unlock(lkid, without_value(), 0, LksbAt::default(), Some(ticket))? {
                let submitted = state.client()?.submit_unlock_with(seq, &without_value());
                submitted.map_err(|error| status::of_error(&error))?;
            }
            // SAFETY: nothing is dispatched.
            unsafe { self.wait(state, ticket, false) }?;
            state = self.ours()?;
        }
        Ok(())
    }

    /// Closes the lockspace and takes back one creation. The last one, with `force`, ends its locks on this node; without, it
    /// does nothing while there are any.
    pub(crate) fn release(&self, force: bool) -> Result<(), Errno> {
        let state = self.ours()?;
        let here = state.client()?.node();
        let me = state.client()?.session_id();
        let last = state.space.as_ref().is_some_and(Space::is_last);
        let mut busy = false;
        if last && force {
            self.purge_own(state)?;
            if let Some(node) = here {
                // Orphans of other users stay, as they do on other nodes.
                let _ = self.purge_orphans(self.ours()?, |orphan| orphan.node == node);
            }
        } else if last {
            let locks = state.list(&self.name).unwrap_or_default();
            busy = locks.iter().any(|lock| Some(lock.node) == here && (lock.persistent || me != Some(lock.session)));
            drop(state);
        } else {
            drop(state);
        }
        // The original says nothing of what goes wrong from here on.
        if let Some(space) = self.shut()? {
            let _ = space.release(busy);
        }
        Ok(())
    }
}

impl State {
    /// All locks of a lockspace, of all nodes.
    fn list(&self, lockspace: &[u8]) -> Result<Vec<Listed>, Errno> {
        let reply = self.client()?.admin(AdminRequest::Locks { resource: None });
        let AdminReply::Locks { locks, .. } = reply.map_err(|error| status::of_error(&error))? else {
            return Ok(Vec::new());
        };
        let of_it = |resource: &Resource| resource.name().is_some_and(|name| name.namespace() == lockspace);
        let listed = locks.into_iter().filter(|lock| of_it(&lock.resource)).map(|lock| Listed {
            mode: lock.mode,
            node: lock.node,
            pid: lock.process.pid,
            session: lock.lock.session,
            since_ms: lock.since_ms,
            orphan: lock.orphan,
            persistent: lock.persistent,
            resource: lock.resource,
        });
        Ok(listed.collect())
    }
}

/// When this machine was booted, by the clock on the wall as it is now.
fn booted_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(boottime_ns())).as_millis() as u64
}

/// Whether a lock was granted before the boot. In doubt it was not: clocks of nodes differ, and are set.
fn is_earlier(since_ms: u64, booted_ms: u64) -> bool {
    const DOUBT_MS: u64 = 60_000;
    since_ms.saturating_add(DOUBT_MS) < booted_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing that was granted since the boot is taken for older.
    #[test]
    fn locks_of_this_boot_are_left_alone() {
        let booted = booted_ms();
        assert!(!is_earlier(booted + boottime_ns() / 1_000_000, booted), "now");
        assert!(!is_earlier(booted, booted) && !is_earlier(booted - 59_000, booted));
        assert!(is_earlier(booted - 61_000, booted));
    }
}
