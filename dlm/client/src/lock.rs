//! The guard of a lock.

use crate::client::Client;
use crate::error::ClientError;
use crate::event::Loss;
use crate::lease::Lease;
use crate::options::{ConvertSpec, UnlockSpec};
use crate::table::{Held, UNLOCK_OP};
use mxlock_format::{Mode, Resource, Token};
use mxlock_proto::client::LvbValue;
use std::mem::ManuallyDrop;
use std::time::Duration;

/// A lock that is held until the guard is dropped.
///
/// Dropping it releases the lock without waiting for the answer; [`Lock::unlock`] waits, and can write a value.
#[derive(Debug)]
#[must_use = "the lock is released when its guard is dropped"]
pub struct Lock<'c> {
    client: &'c Client,
    seq: u64,
    resource: Resource,
    /// As it was granted last; still told when the lock is lost.
    held: Held,
}

impl<'c> Lock<'c> {
    pub(crate) fn new(client: &'c Client, seq: u64, resource: Resource, held: Held) -> Lock<'c> {
        Lock { client, seq, resource, held }
    }

    /// The client's number for this lock, as in [`crate::Event`]s.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What is locked.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The mode that is held: what is left in any case when a conversion has no answer.
    pub fn mode(&self) -> Mode {
        self.held.mode
    }

    /// Whether the last conversion gave up the mode that was held before (CONVDEADLK): others may have held the resource in
    /// between, and if it was denied, [`Lock::mode`] is NL.
    pub fn demoted(&self) -> bool {
        self.held.demoted
    }

    /// The fencing token: hand it to whatever the lock protects, and let that refuse smaller ones.
    pub fn token(&self) -> Token {
        self.held.token
    }

    /// The resource's value block as read by the grant, where it has one and the mode reads it.
    pub fn lvb(&self) -> Option<&LvbValue> {
        self.held.lvb.as_ref()
    }

    /// Whether the lock may be relied on at this moment: a look at memory and the clock. What the daemon has said since
    /// the last call that takes messages in is not known here, except the loss of the lease.
    pub fn is_valid(&self) -> bool {
        let session = self.client.session.borrow();
        let held = |held: &Held, lease: &Lease| lease.is_valid() && lease.incarnation() == held.incarnation;
        let entry = session.table.get(self.seq).filter(|entry| entry.lost.is_none());
        match (entry.and_then(|entry| entry.held.as_ref()), session.lease()) {
            (Some(lock), Some(lease)) => held(lock, lease),
            _ => false,
        }
    }

    /// Why the lock has ended, if it has and the client knows.
    pub fn loss(&self) -> Option<Loss> {
        let session = self.client.session.borrow();
        session.table.get(self.seq).map_or(Some(Loss::NotConfirmed), |entry| entry.lost)
    }

    /// Changes the mode and waits for it.
    ///
    /// # Errors
    /// As [`Client::lock`]; after `Denied` the lock is held as before, or with CONVDEADLK perhaps in NL: see
    /// [`Lock::demoted`].
    pub fn convert(&mut self, mode: Mode) -> Result<(), ClientError> {
        self.convert_with(&ConvertSpec::new(mode))
    }

    /// Changes the mode, with options, and waits for it.
    ///
    /// # Errors
    /// As [`Lock::convert`].
    ///
    /// ```no_run
    /// # use mxlock_client::{Client, ConnectOptions, ConvertSpec, LockSpec, Mode};
    /// # let client = Client::connect(ConnectOptions::default())?;
    /// let mut lock = client.lock(&LockSpec::name("catalogue")?)?;
    /// // Down to PR, with a new value for those who read under it.
    /// lock.convert_with(&ConvertSpec::new(Mode::PR).lvb(*b"version 7"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn convert_with(&mut self, spec: &ConvertSpec) -> Result<(), ClientError> {
        self.check()?;
        let op = self.client.submit_convert(self.seq, spec)?;
        let answer = self.client.answer(self.seq, op, spec.timeout);
        if let Some(held) = self.client.session.borrow().table.relied_on(self.seq) {
            self.held = held;
        }
        match answer {
            Ok(answer) => self.client.granted(self.seq, answer, &self.resource),
            Err(error) => {
                self.client.submit_cancel(self.seq)?;
                Err(error)
            }
        }
    }

    /// Releases the lock and waits for the answer. From PW or EX, `lvb` is the resource's new value of 1..=64 bytes.
    ///
    /// # Errors
    /// [`ClientError::Lost`] when it was lost before; [`ClientError::Usage`]; the errors of the connection. The lock is
    /// given up in any case.
    pub fn unlock(self, lvb: Option<&[u8]>) -> Result<(), ClientError> {
        self.unlock_with(&UnlockSpec { lvb: lvb.map(<[u8]>::to_vec), ..UnlockSpec::default() })
    }

    /// Releases the lock, with options, and waits for the answer.
    ///
    /// # Errors
    /// As [`Lock::unlock`].
    pub fn unlock_with(self, spec: &UnlockSpec) -> Result<(), ClientError> {
        self.check()?;
        self.client.submit_unlock_with(self.seq, spec)?;
        let answer = self.client.answer(self.seq, UNLOCK_OP, Some(Duration::ZERO))?;
        self.client.granted(self.seq, answer, &self.resource)
    }

    /// Gives up the guard but not the lock; it ends with the session, or by [`Client::submit_unlock`].
    pub fn keep(self) -> u64 {
        let lock = ManuallyDrop::new(self);
        lock.client.session.borrow_mut().table.guard(lock.seq, false);
        lock.seq
    }

    fn check(&self) -> Result<(), ClientError> {
        match self.loss() {
            None => Ok(()),
            Some(loss) => Err(ClientError::Lost { resource: self.resource.clone(), loss }),
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        self.client.release(self.seq);
    }
}
