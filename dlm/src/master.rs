//! The master: grants locks and keeps the disk a superset of the truth (sections 6 and 7).
//!
//! The table decides, in memory and at once; the promise follows when a record that names the lock with at least that
//! mode is on disk. A release is the other way round: the record outlives the lock for a short while, and the same
//! session may take the lock again on the strength of it.
//!
//! | file | subject |
//! |---|---|
//! | `operations.rs` | what members ask for |
//! | `persist.rs` | records: placing, writing, clearing, what waits for which write |
//! | `recovery.rs` | the steps of a recovery: read, hear, rewrite, begin |
//! | `rebuild.rs` | the table from records and reports |
//! | `members.rs` | members that come back or speak late, and their sessions |
//! | `claims.rs` | what a restarted daemon does not remember, and clients claim |
//! | `orphans.rs` | locks whose owners are gone: how long they live, and who may adopt them |
//! | `purge.rs` | locks that leave because nobody can be asked |
//! | `damage.rs` | damaged records, and who may claim them |
//! | `scrub.rs` | comparing disk with memory |
//! | `deadlock.rs` | deadlocks over the whole cluster |
//! | `listing.rs` | `mxlock locks` |
//! | `why.rs` | `mxlock why` |

mod claims;
mod damage;
mod deadlock;
mod listing;
mod members;
#[cfg(feature = "model")]
mod model;
mod operations;
mod orphans;
mod persist;
mod purge;
mod rebuild;
mod recovery;
mod scrub;
#[cfg(test)]
mod tests;
mod values;
mod why;

use crate::Map;
use crate::config::Config;
use crate::event::Event;
use crate::io::{IoId, Output};
use crate::planted::{Bug, planted};
use crate::slots::{Mirror, Slots};
use crate::table::{Effect, Grant, LockView, LvbTransfer, Table};
use crate::time::{BootTime, Now};
use mxlock_format::{
    ByteRange, Epoch, Incarnation, LockId, Mode, NodeId, NodeSet, Process, Resource, SessionId, Token, View,
};
use mxlock_proto::client::{Denial, LossReason};
use mxlock_proto::peer::{Outcome, OutcomeResult, PeerMessage, Report};
use mxlock_proto::report::Counters;
use persist::{Durable, Settling, WriteInfo};
use recovery::Recovery;
use scrub::Scrub;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use values::{LvbWait, ValueDuty};

/// Who may take a lock again on the strength of a record that still stands.
type StandingKey = (SessionId, Resource, ByteRange);

/// No slot.
const NO_SLOT: u32 = u32::MAX;

/// What the master keeps with each lock.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Holder {
    process: Process,
    transaction: u64,
    token: Token,
    /// CLOCK_REALTIME: of the grant, or of the request while it waits.
    since_ms: u64,
    incarnation: Incarnation,
    slot: u32,
    orphan_lifetime_ms: u32,
    /// The operation that is pending, or was the last one.
    op: u32,
    node: NodeId,
    persistent: bool,
    /// The process has ended: others may adopt what it left.
    gone: bool,
    /// Its node was excluded, or it was not claimed in time: the session may live, but has been told that it is lost.
    abandoned: bool,
    settling: Settling,
    /// Somebody waits for it, and its owner, who has not heard of the grant yet, is told after that.
    hushed: bool,
}

#[cfg(feature = "model")]
impl Holder {
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.persistent
    }
}

/// What the core is to do for the master.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Say this to a member.
    Send(NodeId, PeerMessage),
    /// The table stands: commit the view {active}.
    Activate,
    /// Give mastership up; with `uncertain`, a write may still land.
    Resign {
        uncertain: bool,
    },
    Log(Event),
}

/// The master of one reign: from the commit of its recovering view until it resigns, loses the lease or is replaced.
#[derive(Clone)]
pub(crate) struct Master {
    reign: Epoch,
    active: bool,
    active_since: BootTime,
    draining: bool,
    members: NodeSet,
    slot_count: u32,
    clear_behind: Duration,
    orphan_floor: Duration,
    orphan_lifetime: Duration,
    dead: Duration,
    renew: Duration,
    table: Table<Holder>,
    slots: Slots,
    pub(crate) mirror: Mirror,
    durable: Vec<Option<Durable>>,
    /// Released locks whose records still stand, both ways (section 7).
    standing: Map<StandingKey, u32>,
    standing_keys: Map<u32, StandingKey>,
    /// Changes that are written behind, by time.
    behind: BTreeSet<(BootTime, u32)>,
    behind_due: Map<u32, BootTime>,
    writes: BTreeMap<IoId, WriteInfo>,
    /// Slots that are cleared once another record carries the value that theirs does.
    passing: BTreeSet<u32>,
    lvb_waits: BTreeMap<u32, Vec<LvbWait>>,
    purges: Vec<purge::Purge>,
    /// Orphans that were adopted, by their new names: the daemons that do not know it yet, and the old names.
    adoptions: BTreeMap<LockId, Vec<(NodeId, LockId)>>,
    /// Members by what they have said: their incarnation, once they have reported.
    reported: BTreeMap<NodeId, Incarnation>,
    /// Reports of which some parts have come.
    partial_reports: BTreeMap<NodeId, (Incarnation, Report)>,
    /// When possible holders end that nobody has spoken of, and the same the other way round.
    expiries: BTreeSet<(BootTime, LockId)>,
    expiry_of: BTreeMap<LockId, BootTime>,
    damaged: BTreeSet<u32>,
    /// Some member remembers nothing of the time before the recovery: until then its sessions may claim locks whose records
    /// are damaged.
    damage_claimed_until: Option<BootTime>,
    /// Members that could not be asked when damaged records were found, and have not spoken since.
    damage_unheard: NodeSet,
    /// Locks that such claims brought back, until their records are on disk.
    saved: BTreeSet<LockId>,
    recovery: Option<Box<Recovery>>,
    /// Messages that wait for the table to stand, or for a record to be written.
    deferred: VecDeque<(NodeId, Incarnation, PeerMessage)>,
    scrub: Scrub,
    token_counter: u64,
    next_position: u64,
    next_io: u64,
    lease_until: Option<BootTime>,
    effects: Vec<Effect>,
    pub(crate) counters: Counters,
    pub(crate) orders: VecDeque<Order>,
    pub(crate) out: VecDeque<Output>,
}

impl Master {
    /// The reign that this is.
    pub(crate) fn reign(&self) -> Epoch {
        self.reign
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active && !self.draining
    }

    pub(crate) fn set_lease(&mut self, until: Option<BootTime>) {
        self.lease_until = until;
    }

    /// Stops granting; [`Master::is_drained`] says when all writes have ended (section 4, planned handover).
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.draining && self.slots.in_flight() == 0 && self.table_io_in_flight() == 0
    }

    fn log(&mut self, event: Event) {
        self.orders.push_back(Order::Log(event));
    }

    fn send(&mut self, node: NodeId, message: PeerMessage) {
        self.orders.push_back(Order::Send(node, message));
    }

    fn outcome(&mut self, node: NodeId, lock: LockId, op: u32, result: OutcomeResult) {
        match &result {
            OutcomeResult::Granted { .. } => self.counters.grants += 1,
            OutcomeResult::Denied(_) | OutcomeResult::DeniedDemoted(_) => self.counters.denials += 1,
            OutcomeResult::Unlocked => {}
        }
        self.send(node, PeerMessage::Outcome(Outcome { lock, op, result }));
    }

    fn deny(&mut self, node: NodeId, lock: LockId, op: u32, why: Denial) {
        self.outcome(node, lock, op, OutcomeResult::Denied(why));
    }

    /// A message of a member. Before the table stands, everything but reports waits.
    pub(crate) fn handle(&mut self, now: Now, from: NodeId, incarnation: Incarnation, message: PeerMessage) {
        if self.draining {
            // Nobody is told anything any more: the members bring it to the next master.
            return;
        }
        if let PeerMessage::Report(report) = message {
            return self.report(now, from, incarnation, report);
        }
        if !self.active {
            self.deferred.push_back((from, incarnation, message));
            return;
        }
        if self.reported.get(&from) != Some(&incarnation) {
            // What comes before a report belongs to nobody.
            return;
        }
        match message {
            PeerMessage::Operation(operation) => self.operate(now, from, incarnation, operation),
            PeerMessage::Session { session, presence } => self.session(now, from, session, presence),
            PeerMessage::Claim(question) => self.claim(now, from, question),
            _ => {}
        }
        self.run_effects(now);
    }

    /// Messages that had to wait.
    fn handle_deferred(&mut self, now: Now) {
        for (from, incarnation, message) in std::mem::take(&mut self.deferred) {
            self.handle(now, from, incarnation, message);
        }
    }

    /// Carries out what the table did to other locks, in order.
    fn run_effects(&mut self, now: Now) {
        while !self.effects.is_empty() || self.break_deadlock(now) {
            let mut told = 0;
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Granted(_) if planted(Bug::PromotionsLost) && told > 0 => {}
                    Effect::Granted(grant) => {
                        told += 1;
                        self.granted(now, grant);
                    }
                    Effect::Bast { holder, wanted } => {
                        if let Some(owner) = self.table.payload_mut(holder) {
                            let (node, gone) = (owner.node, owner.gone);
                            if matches!(owner.settling, Settling::Grant { .. }) {
                                owner.hushed = true;
                            } else if !gone && self.members.contains(node) {
                                self.send(node, PeerMessage::Bast { lock: holder, wanted });
                            }
                        }
                    }
                    Effect::Denied { lock, .. } => {
                        let Some(view) = self.table.get(lock) else { continue };
                        let (node, op) = (view.payload.node, view.payload.op);
                        self.deny(node, lock, op, Denial::Deadlock);
                        self.settle(now, lock);
                    }
                    // Its owner counts it as NL since it asked (decision 015): only the record has to be brought up to date.
                    Effect::Demoted { lock } => self.settle(now, lock),
                }
            }
        }
        self.end_adoptions();
    }

    /// An adopted lock that left before its record named the new owner: the old one's daemon must not speak for it any
    /// more, or the orphan would be back after a failover.
    fn end_adoptions(&mut self) {
        let gone: Vec<LockId> =
            self.adoptions.keys().filter(|lock| self.table.get(**lock).is_none()).copied().collect();
        for lock in gone {
            self.tell_adopted(lock);
        }
    }

    /// Those whose orphan this lock was are told that it is not theirs any more.
    fn tell_adopted(&mut self, lock: LockId) {
        for (owner, orphan) in self.adoptions.remove(&lock).unwrap_or_default() {
            self.send(owner, PeerMessage::Lost { lock: orphan, reason: LossReason::Adopted });
        }
    }

    /// The table gave a mode: number the grant, and tell its owner when the disk says so too.
    fn granted(&mut self, now: Now, grant: Grant) {
        // The queue moved while its owner's locks were taken out one by one: there is nobody to give it to.
        if self.is_leaving(grant.lock) {
            return;
        }
        self.token_counter += u64::from(grant.was.is_none() || !planted(Bug::TokenReused));
        let token = self.token();
        let Some(flags) = self.table.get(grant.lock).map(|view| view.flags) else { return };
        let holder = self.table.payload_mut(grant.lock).expect("looked up");
        holder.persistent = flags.persistence().unwrap_or(holder.persistent);
        holder.token = token;
        holder.since_ms = now.wall_ms;
        holder.settling = Settling::Grant { demoted: grant.demoted, value: ValueDuty::None };
        if holder.slot == NO_SLOT && !self.place(now, grant.lock) {
            return self.refuse_for_space(grant.lock);
        }
        let value = match grant.lvb {
            LvbTransfer::None => ValueDuty::None,
            LvbTransfer::Read => ValueDuty::Read,
            LvbTransfer::Written => {
                let resource = self.table.get(grant.lock).expect("just granted").resource.clone();
                self.refresh_values(now, &resource);
                ValueDuty::Written(self.value_sequence(&resource).n)
            }
        };
        let settling = Settling::Grant { demoted: grant.demoted, value };
        self.table.payload_mut(grant.lock).expect("just granted").settling = settling;
        self.settle(now, grant.lock);
    }

    /// The token of the grant that was numbered last.
    fn token(&self) -> Token {
        Token::new(if planted(Bug::TokenWithoutEpoch) { Epoch(0) } else { self.reign }, self.token_counter)
    }

    /// A grant that finds no free slot (section 7).
    fn refuse_for_space(&mut self, lock: LockId) {
        let Some(view) = self.table.get(lock) else { return };
        let (node, op) = (view.payload.node, view.payload.op);
        self.deny(node, lock, op, Denial::TableFull);
        let _ = self.table.unlock(lock, crate::table::LvbUpdate::Keep, &mut self.effects);
    }

    fn take_io(&mut self) -> IoId {
        self.next_io += 1;
        IoId(self.next_io)
    }

    fn take_position(&mut self) -> u64 {
        // With room in between for those that go ahead of others.
        self.next_position += 16;
        self.next_position
    }

    /// The next time at which something has to happen by itself.
    pub(crate) fn deadline(&self) -> Option<BootTime> {
        if self.draining {
            return None;
        }
        [
            self.behind.first().map(|(at, _)| *at),
            self.expiries.first().map(|(at, _)| *at).filter(|_| self.active),
            self.recovery.as_ref().and_then(|recovery| recovery.deadline()),
            self.scrub.deadline().filter(|_| self.active),
            self.damage_claimed_until.filter(|_| self.active),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(crate) fn on_time(&mut self, now: Now) {
        if self.draining {
            return;
        }
        self.write_behind(now);
        self.advance_recovery(now);
        if self.active {
            self.expire_orphans(now);
            self.start_scrub(now);
            self.run_effects(now);
        }
    }

    /// A read or write of several slots, or of one, ended.
    pub(crate) fn written(&mut self, now: Now, io: IoId, result: Result<(), crate::io::IoFault>) {
        if self.rewritten(io, &result) {
            return;
        }
        self.record_written(now, io, result);
        if !self.draining {
            self.advance_purges(now);
            self.run_effects(now);
        }
    }

    /// Whether the members have had time to say what they want of this master.
    pub(crate) fn is_settled_in(&self, now: Now) -> bool {
        self.active && now.boot >= self.active_since + self.renew
    }

    /// The view {active} of this reign is committed: resume the waiting requests in their order (section 6.6).
    pub(crate) fn activated(&mut self, now: Now) {
        if self.active {
            return;
        }
        self.active = true;
        self.active_since = now.boot;
        let late = self.finish_recovery();
        self.log(Event::RecoveryDone { epoch: self.reign, locks: self.table.len() as u64 });
        self.table.resume_all(&mut self.effects);
        self.run_effects(now);
        for node in late.lost {
            self.purge_node(now, node);
        }
        for (from, incarnation, report) in late.reports {
            self.late_report(now, from, incarnation, report);
        }
        for node in self.reported.keys().copied().collect::<Vec<_>>() {
            self.bequeath(node);
        }
        self.run_effects(now);
        self.handle_deferred(now);
        self.scrub.begin(now);
    }

    /// A newer view of the same reign.
    pub(crate) fn view_changed(&mut self, now: Now, view: &View) {
        let lost = NodeSet(self.members.0 & !view.members.0);
        self.members = view.members;
        for node in lost.iter() {
            self.reported.remove(&node);
            if !self.lost_during_recovery(node) {
                self.purge_node(now, node);
            }
        }
        self.advance_recovery(now);
        if self.active {
            self.run_effects(now);
        }
    }

    /// Whether memory is in order: the table's own invariants, and that each lock and its slot name each other (I10).
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        if !self.active {
            // Between `restore` and `resume_all` nobody was told anything yet.
            return Ok(());
        }
        self.table.check_invariants().map_err(|violation| violation.to_string())?;
        for view in self.table.locks() {
            let slot = view.payload.slot;
            if slot != NO_SLOT && self.slots.owner(slot) != crate::slots::Owner::Lock(view.lock) {
                return Err(format!(
                    "lock {} says slot {slot}, which belongs to {:?}",
                    view.lock,
                    self.slots.owner(slot)
                ));
            }
            // A master that drains serves nobody any more: the next one looks at all queues.
            if !self.draining
                && view.wanted.is_some()
                && let Some(cycle) = self.table.find_cycle(view.lock)
            {
                return Err(format!("nobody breaks the deadlock of {cycle:?}"));
            }
        }
        Ok(())
    }

    fn range_of(view: &LockView<'_, Holder>) -> Option<ByteRange> {
        (view.range != ByteRange::ALL).then_some(view.range)
    }

    fn may_write_value(mode: Option<Mode>) -> bool {
        mode.is_some_and(|mode| mode >= Mode::PW)
    }

    fn settings(config: &Config) -> (Duration, Duration, Duration) {
        let timing = &config.superblock.timing;
        let floor = Duration::from_millis(u64::from(timing.lease_ms) + u64::from(timing.grace_ms));
        let lifetime = Duration::from_millis(config.orphan_lifetime_ms.into()).max(floor);
        (Duration::from_millis(config.clear_behind_ms.into()), floor, lifetime)
    }
}
