//! I5: a node's locks are released only by its sessions, by its orphan lifetimes, or after it was fenced or dead.
//!
//! It has two sides. A session that is told of a loss must have been told of one of these reasons. And what a process
//! left behind (PERSISTENT locks, and those with an orphan lifetime) stands in the way of others as long as it should,
//! until somebody adopts it.

use crate::clock::{MS, Time};
use mxlock_format::{ByteRange, LockId, Mode, NodeId};
use mxlock_proto::client::LossReason;

/// How a session came to lose a lock.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// What it was told; `None`: its claim did not stand, or its session was not known.
    pub reason: Option<LossReason>,
    /// Whether its lease stood at that moment, so that it relied on the lock.
    pub relied_on: bool,
    /// Whether its node was excluded since the grant.
    pub excluded: bool,
}

/// Judges a loss.
///
/// # Errors
/// The lock was relied on, or the reason is not true.
pub fn loss(loss: Loss) -> Result<(), String> {
    match loss.reason {
        // The operator's `mxlock leave --release` is the node's own doing.
        Some(LossReason::Left) => Ok(()),
        _ if loss.relied_on => Err(format!("it was lost within its lease: {:?}", loss.reason)),
        Some(LossReason::Excluded) if !loss.excluded => Err("its node was never excluded".to_owned()),
        Some(LossReason::Adopted) => Err("it was adopted, though its process lives".to_owned()),
        _ => Ok(()),
    }
}

/// A lock that outlives its process.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// Its name.
    pub lock: LockId,
    /// Index of the resource.
    pub resource: usize,
    /// The bytes.
    pub span: ByteRange,
    /// The mode that its client was told.
    pub mode: Mode,
    /// Its node.
    pub node: Option<NodeId>,
    /// When its process ended.
    pub since: Time,
    /// When it ends by itself; `None`: never (PERSISTENT).
    pub until: Option<Time>,
    /// Whether it is certain that it is held, in that mode; an operation may have been under way.
    pub certain: bool,
}

impl Orphan {
    /// Whether others must not be granted what conflicts with it.
    fn stands(&self, now: Time, excluded: &impl Fn(NodeId, Time) -> bool) -> bool {
        let alive =
            self.until.is_none_or(|until| now < until && self.node.is_some_and(|node| !excluded(node, self.since)));
        self.certain && alive
    }
}

/// What processes left behind.
#[derive(Default)]
pub struct Orphans {
    left: Vec<Orphan>,
    /// PERSISTENT requests that were denied: resource, node, and when they were asked for.
    denied: Vec<(usize, NodeId, Time)>,
    attempts: usize,
    next_attempt: Time,
}

impl Orphans {
    /// A process ended, or its session did.
    pub fn leave(&mut self, orphan: Orphan) {
        self.left.push(orphan);
    }

    /// A request for a PERSISTENT lock was denied by its own side: its time was over, or the lease. The master may have granted
    /// it just then, and nobody takes it back if the node is excluded.
    pub fn denied(&mut self, resource: usize, node: NodeId, asked: Time) {
        self.denied.push((resource, node, asked));
    }

    /// Whether such a request may have left an orphan.
    pub fn may_be_unheard(&self, resource: usize, excluded: impl Fn(NodeId, Time) -> bool) -> bool {
        self.denied.iter().any(|&(on, node, asked)| on == resource && excluded(node, asked))
    }

    /// All that may still be there.
    pub fn left(&self) -> &[Orphan] {
        &self.left
    }

    /// The record of a lock was damaged. A living owner writes it anew; of an orphan there is no other copy (section 6,
    /// `docs/faults.md`): it is known that something is lost, but not what.
    pub fn damaged(&mut self, lock: LockId) {
        self.left.iter_mut().filter(|orphan| orphan.lock == lock).for_each(|orphan| orphan.certain = false);
    }

    /// Somebody asked to adopt an orphan, and has not heard what became of that. `persistent`: it asked for a PERSISTENT lock and
    /// never will hear, so that it is an orphan again (section 7).
    pub fn perhaps_adopted(&mut self, resource: usize, span: ByteRange, persistent: bool) {
        let like = |orphan: &&mut Orphan| {
            orphan.resource == resource && orphan.span == span && !(persistent && orphan.until.is_none())
        };
        self.left.iter_mut().filter(like).for_each(|orphan| orphan.certain = false);
    }

    /// A node has left with `--release`: what was its own is released.
    pub fn node_left(&mut self, node: NodeId) {
        self.left.iter_mut().filter(|orphan| orphan.node == Some(node)).for_each(|orphan| orphan.certain = false);
    }

    /// What to try to adopt next, when all are to go: each in turn, in its mode, or if that is not certain in all. Not
    /// too often, so that there are moments at which nothing is under way. `seen`: one that somebody has looked up.
    pub fn next_attempt(
        &mut self,
        now: Time,
        seen: Option<(usize, ByteRange, Mode)>,
    ) -> Option<(usize, ByteRange, Mode)> {
        if now < self.next_attempt || (self.left.is_empty() && seen.is_none()) {
            return None;
        }
        self.next_attempt = now + 200 * MS;
        self.attempts += 1;
        if seen.is_some() && (self.attempts.is_multiple_of(2) || self.left.is_empty()) {
            return seen;
        }
        let orphan = &self.left[self.attempts % self.left.len()];
        let round = self.attempts / self.left.len();
        let mode = if orphan.certain { orphan.mode } else { Mode::ALL[round % Mode::ALL.len()] };
        Some((orphan.resource, orphan.span, mode))
    }

    /// Everybody is well and no orphan is left.
    ///
    /// # Errors
    /// A PERSISTENT lock is gone that nobody adopted.
    pub fn at_rest(&self) -> Result<(), String> {
        match self.left.iter().find(|orphan| orphan.certain && orphan.until.is_none()) {
            Some(orphan) => Err(format!("a PERSISTENT lock that its process left behind is gone: {orphan:?}")),
            None => Ok(()),
        }
    }

    /// An orphan on this part of `resource` in `mode` was adopted. Whether there may have been one.
    pub fn adopted(&mut self, resource: usize, span: ByteRange, mode: Mode) -> bool {
        let here = |orphan: &Orphan| orphan.resource == resource && orphan.span == span;
        let like = |orphan: &Orphan| here(orphan) && (orphan.mode == mode || !orphan.certain);
        let which: Vec<usize> = (0..self.left.len()).filter(|&at| like(&self.left[at])).collect();
        match which[..] {
            [] => false,
            [one] if self.left[one].certain => {
                self.left.remove(one);
                true
            }
            _ => {
                // One of several: from now on none of them is certain.
                which.into_iter().for_each(|at| self.left[at].certain = false);
                true
            }
        }
    }

    /// A client was told a grant: no orphan may stand in its way.
    ///
    /// # Errors
    /// One does.
    pub fn granted(
        &self,
        resource: usize,
        span: ByteRange,
        mode: Mode,
        now: Time,
        excluded: impl Fn(NodeId, Time) -> bool,
    ) -> Result<(), String> {
        let in_the_way = self.left.iter().find(|orphan| {
            orphan.resource == resource
                && orphan.span.overlaps(span)
                && !orphan.mode.compatible(mode)
                && orphan.stands(now, &excluded)
        });
        in_the_way.map_or(Ok(()), |orphan| {
            Err(format!(
                "resource {resource} was granted in {mode}, while an orphan in {} stands: {orphan:?}",
                orphan.mode
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::SessionId;

    fn orphan(seq: u64, mode: Mode, until: Option<Time>) -> Orphan {
        let lock = LockId { session: SessionId(1), seq };
        let node = NodeId::new(3);
        Orphan { lock, resource: 0, span: ByteRange::ALL, mode, node, since: 5, until, certain: true }
    }

    #[test]
    fn a_loss_without_its_reason_is_seen() {
        let base = Loss { reason: None, relied_on: false, excluded: false };
        assert!(loss(base).is_ok());
        assert!(loss(Loss { relied_on: true, ..base }).is_err());
        assert!(loss(Loss { reason: Some(LossReason::Excluded), ..base }).is_err());
        assert!(loss(Loss { reason: Some(LossReason::Excluded), excluded: true, ..base }).is_ok());
        assert!(loss(Loss { reason: Some(LossReason::Adopted), ..base }).is_err());
    }

    #[test]
    fn a_grant_over_an_orphan_is_seen() {
        let mut orphans = Orphans::default();
        orphans.leave(orphan(1, Mode::PR, None));
        let granted =
            |orphans: &Orphans, mode, now, out: bool| orphans.granted(0, ByteRange::ALL, mode, now, |_, _| out);
        assert!(granted(&orphans, Mode::PR, 10, false).is_ok());
        assert!(granted(&orphans, Mode::EX, 10, false).is_err());
        assert!(granted(&orphans, Mode::EX, 10, true).is_err(), "PERSISTENT locks outlive their node");
        let part = ByteRange::new(0, 9).unwrap();
        assert!(!orphans.adopted(0, part, Mode::PR), "nobody left a part");
        assert!(orphans.adopted(0, ByteRange::ALL, Mode::PR));
        assert!(granted(&orphans, Mode::EX, 10, false).is_ok());
        assert!(!orphans.adopted(0, ByteRange::ALL, Mode::PR), "nothing is left to be adopted");
        orphans.leave(orphan(2, Mode::PR, Some(20)));
        assert!(granted(&orphans, Mode::EX, 19, false).is_err());
        assert!(granted(&orphans, Mode::EX, 19, true).is_ok(), "its node was excluded");
        assert!(granted(&orphans, Mode::EX, 20, false).is_ok(), "its lifetime is over");
        assert!(orphans.at_rest().is_ok());
        orphans.leave(orphan(3, Mode::EX, None));
        assert!(orphans.at_rest().is_err(), "nobody adopted it, and it is gone");
        orphans.node_left(NodeId::new(3).unwrap());
        assert!(orphans.at_rest().is_ok(), "its node released it");
    }
}
