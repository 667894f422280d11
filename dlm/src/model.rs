//! Member and master by themselves, for `tests/models` (feature `model`, never part of a product).
//!
//! The checker takes the place of [`crate::Core`]: it passes on what the two say to each other, commits the views, does
//! the I/O, and lets everything that is left to time happen at any time. So it explores the code itself, and not a copy.

use crate::config::Config;
use crate::io::{IoFault, IoId, Output, TableChunk};
use crate::master::{Master, Order};
use crate::member::Member;
use crate::rng::Rng;
use crate::table::Standing;
use crate::time::{BootTime, Now};
use mxlock_format::{Epoch, Incarnation, LockId, Mode, NodeId, NodeSet, Process, RECORD_BYTES, SessionId, View};
use mxlock_proto::client::{AdoptRequest, ConvertRequest, Denial, Hello, LockRequest, UnlockRequest};
use mxlock_proto::peer::PeerMessage;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Time stands still: what has a deadline ends when the checker says so.
const NOW: Now = Now { boot: BootTime(1 << 40), wall_ms: 0 };
/// Leases are another model's subject.
const LEASE: BootTime = BootTime(u64::MAX);

/// What a master wants done.
#[derive(Debug)]
pub enum Word {
    /// Say this to a member.
    Send(NodeId, PeerMessage),
    /// Commit the view {active}.
    Activate,
    /// It resigns after a write that ended in an error.
    Resign,
}

/// A lock as a master has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct InTable {
    pub lock: LockId,
    pub node: NodeId,
    pub granted: Option<Mode>,
    pub wanted: Option<Mode>,
    pub standing: Standing,
    pub persistent: bool,
}

/// A master, from the commit of its recovering view on.
#[derive(Clone)]
pub struct ModelMaster(Master);

impl ModelMaster {
    /// Begins the reign of a view {recovering}.
    pub fn new(config: &Config, view: &View, awaited: BTreeMap<NodeId, Incarnation>) -> ModelMaster {
        let mut master = Master::new(NOW, config, view, awaited, 0, false);
        master.set_lease(Some(LEASE));
        ModelMaster(master)
    }

    /// A message of a member.
    pub fn handle(&mut self, from: NodeId, incarnation: Incarnation, message: PeerMessage) {
        self.0.handle(NOW, from, incarnation, message);
    }

    /// A read of the table ended.
    pub fn table_read(&mut self, io: IoId, chunk: TableChunk) {
        self.0.table_read(NOW, io, Ok(chunk));
    }

    /// A write ended.
    pub fn written(&mut self, io: IoId, result: Result<(), IoFault>) {
        self.0.written(NOW, io, result);
    }

    /// The view {active} of this reign is committed.
    pub fn activated(&mut self) {
        self.0.activated(NOW);
    }

    /// Another view of this reign is committed.
    pub fn view_changed(&mut self, view: &View) {
        self.0.view_changed(NOW, view);
    }

    /// A new incarnation has taken the slot of a node.
    pub fn replaced(&mut self, node: NodeId, incarnation: Incarnation) {
        self.0.replaced(NOW, node, incarnation);
    }

    /// A planned handover begins.
    pub fn drain(&mut self) {
        self.0.drain();
    }

    /// Whether it may resign.
    pub fn is_drained(&self) -> bool {
        self.0.is_drained()
    }

    /// Whether it grants.
    pub fn is_active(&self) -> bool {
        self.0.is_active()
    }

    /// Whether it waits for members' reports.
    pub fn is_hearing(&self) -> bool {
        self.0.is_hearing()
    }

    /// Members that have not reported count as unreachable.
    pub fn lose_patience(&mut self) {
        self.0.lose_patience(NOW);
    }

    /// Slots that are looked at again behind.
    pub fn slots_behind(&self) -> Vec<u32> {
        self.0.slots_behind()
    }

    /// `clear_behind_ms` is over for a slot.
    pub fn look_behind(&mut self, slot: u32) {
        self.0.look_behind(NOW, slot);
    }

    /// Nodes of which possible holders are there whose lifetime is running.
    pub fn nodes_with_orphans(&self) -> NodeSet {
        self.0.nodes_with_orphans()
    }

    /// The lifetimes of what a node left are over.
    pub fn end_lifetimes(&mut self, node: NodeId) {
        self.0.end_lifetimes(NOW, node);
    }

    /// Whether it wants anything done.
    pub fn has_words(&self) -> bool {
        !self.0.orders.is_empty() || !self.0.out.is_empty()
    }

    /// The next thing that it wants done.
    pub fn poll(&mut self) -> Option<Word> {
        loop {
            return Some(match self.0.orders.pop_front()? {
                Order::Send(node, message) => Word::Send(node, message),
                Order::Activate => Word::Activate,
                Order::Resign { .. } => Word::Resign,
                Order::Log(_) => continue,
            });
        }
    }

    /// The next I/O.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.0.out.pop_front()
    }

    /// What `Output::WriteTable` writes.
    pub fn image(&self, slot: u32) -> &[u8; RECORD_BYTES] {
        self.0.mirror.image(slot)
    }

    /// All locks.
    pub fn locks(&self) -> impl Iterator<Item = InTable> {
        self.0.table().locks().map(|view| InTable {
            lock: view.lock,
            node: view.payload.node(),
            granted: view.granted,
            wanted: view.wanted,
            standing: view.standing,
            persistent: view.payload.is_persistent(),
        })
    }

    /// Whether nothing is on its way.
    pub fn is_at_rest(&self) -> bool {
        self.0.is_at_rest()
    }

    /// Whether memory is in order.
    ///
    /// # Errors
    /// What is not.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.0.check_invariants()
    }
}

impl Hash for ModelMaster {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.digest(state);
    }
}

impl fmt::Debug for ModelMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.locks()).finish()
    }
}

/// A node's sessions and their locks.
#[derive(Clone)]
pub struct ModelMember(Member);

#[allow(missing_docs)]
impl ModelMember {
    /// A daemon that has just started and is a member.
    pub fn new(config: &Config) -> ModelMember {
        let mut member = Member::new(config, Rng::new(config.seed));
        member.set_lease(Some(LEASE));
        ModelMember(member)
    }

    pub fn connected(&mut self, conn: crate::io::ConnId, process: Process) {
        self.0.connected(conn, process);
    }

    pub fn disconnected(&mut self, conn: crate::io::ConnId) {
        self.0.disconnected(NOW, conn);
    }

    pub fn hello(&mut self, conn: crate::io::ConnId, hello: Hello) {
        self.0.hello(conn, hello, None);
    }

    pub fn lock(&mut self, session: SessionId, request: LockRequest) {
        self.0.lock(NOW, session, request);
    }

    pub fn convert(&mut self, session: SessionId, request: ConvertRequest) {
        self.0.convert(NOW, session, request);
    }

    pub fn unlock(&mut self, session: SessionId, request: UnlockRequest) {
        self.0.unlock(session, request);
    }

    pub fn adopt(&mut self, session: SessionId, request: AdoptRequest) {
        self.0.adopt(NOW, session, request);
    }

    pub fn cancel(&mut self, session: SessionId, seq: u64) {
        self.0.cancel(session, seq);
    }

    pub fn bye(&mut self, session: SessionId) {
        self.0.bye(NOW, session);
    }

    pub fn process_gone(&mut self, process: Process) {
        self.0.process_gone(NOW, process);
    }

    /// The master's word, as `Core::master_says`.
    pub fn hear(&mut self, message: PeerMessage) {
        match message {
            PeerMessage::Outcome(outcome) => self.0.outcome(outcome),
            PeerMessage::Queued { lock, op, position } => self.0.queued(lock, op, position),
            PeerMessage::Bast { lock, wanted } => self.0.bast(lock, wanted),
            PeerMessage::Claimed(verdict) => self.0.claimed(NOW, verdict),
            PeerMessage::Inherit { session, process, locks } => self.0.inherit(session, process, locks),
            PeerMessage::Lost { lock, reason } => self.0.lost(lock, reason),
            _ => {}
        }
    }

    /// A view of another reign was learned.
    pub fn forget_master(&mut self) {
        self.0.forget_master();
    }

    pub fn report(&mut self, reign: Epoch) {
        self.0.report(reign);
    }

    pub fn reported(&self) -> Option<Epoch> {
        self.0.reported()
    }

    pub fn lease_lost(&mut self) {
        self.0.lease_lost();
    }

    pub fn lease_regained(&mut self) {
        self.0.lease_regained(Some(LEASE));
    }

    /// It was excluded, and goes on under a new incarnation.
    pub fn excluded(&mut self, incarnation: Incarnation) {
        self.0.excluded(incarnation);
        self.0.set_lease(Some(LEASE));
    }

    /// `mxlock leave --release`.
    pub fn leave(&mut self) {
        self.0.release_all();
        self.0.refuse(Some(Denial::ShuttingDown));
    }

    pub fn timed(&self) -> Vec<LockId> {
        self.0.timed()
    }

    pub fn end_wait(&mut self, id: LockId) {
        self.0.end_wait(id);
    }

    pub fn orphaned(&self) -> Vec<SessionId> {
        self.0.orphaned()
    }

    pub fn end_lifetime(&mut self, id: SessionId) {
        self.0.end_lifetime(id);
    }

    pub fn knows(&self, id: SessionId) -> bool {
        self.0.knows(id)
    }

    pub fn lock_count(&self) -> u64 {
        self.0.lock_count()
    }

    pub fn has_words(&self) -> bool {
        !self.0.to_master.is_empty() || !self.0.out.is_empty()
    }

    pub fn poll_to_master(&mut self) -> Option<PeerMessage> {
        self.0.to_master.pop_front()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.0.out.pop_front()
    }
}

impl Hash for ModelMember {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.digest(state);
    }
}

impl fmt::Debug for ModelMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} locks", self.0.lock_count())
    }
}

/// Hashes a message about locks.
pub fn digest_message(message: &PeerMessage, hasher: &mut impl Hasher) {
    std::mem::discriminant(message).hash(hasher);
    match message {
        PeerMessage::Report(report) => report.hash(hasher),
        PeerMessage::Operation(operation) => operation.hash(hasher),
        PeerMessage::Session { session, presence } => (session, presence).hash(hasher),
        PeerMessage::Outcome(outcome) => outcome.hash(hasher),
        PeerMessage::Queued { lock, op, position } => (lock, op, position).hash(hasher),
        PeerMessage::Bast { lock, wanted } => (lock, wanted).hash(hasher),
        PeerMessage::Claim(question) => question.hash(hasher),
        PeerMessage::Claimed(verdict) => verdict.hash(hasher),
        PeerMessage::Inherit { session, process, locks } => (session, process, locks).hash(hasher),
        PeerMessage::Lost { lock, reason } => (lock, reason).hash(hasher),
        PeerMessage::Join { .. }
        | PeerMessage::Admitted { .. }
        | PeerMessage::Look
        | PeerMessage::Ask { .. }
        | PeerMessage::Reply { .. } => unreachable!("not about locks"),
    }
}
