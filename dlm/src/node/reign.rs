//! Mastership of this node: it begins with a view, its orders are passed on, and it ends with another view, a failed write
//! or a handover.

use super::*;
use crate::master::Order;

impl Core {
    pub(super) fn view_learned(&mut self, view: View, own: bool) {
        let now = self.now;
        self.counters.views += 1;
        self.announce |= own;
        self.isolated = false;
        let reign = reign_of(&view);
        if !self.is_me(view.master, view.master_incarnation) {
            self.drop_master();
        } else if self.master.as_ref().is_none_or(|master| master.reign() != reign) {
            self.drop_master();
            if view.phase == Phase::Recovering {
                self.begin_reign(&view);
            }
        } else if let Some(master) = &mut self.master {
            master.view_changed(now, &view);
            if view.phase == Phase::Active {
                master.activated(now);
            }
        }
        if self.member.reported().is_some_and(|reported| reported != reign) {
            self.member.forget_master();
        }
        if self.cluster.wants_join().is_some() {
            self.send_join();
        }
    }

    fn begin_reign(&mut self, view: &View) {
        let awaited = view
            .members
            .iter()
            .filter_map(|node| self.cluster.member_incarnation(node).map(|incarnation| (node, incarnation)))
            .collect();
        let earlier = !self.earlier_writes.is_empty();
        let mut master = Master::new(self.now, &self.config, view, awaited, self.next_io, earlier);
        master.set_lease(self.cluster.lease_until());
        self.master = Some(Box::new(master));
    }

    /// This node is not master any more: nothing that it granted and did not tell counts.
    pub(super) fn drop_master(&mut self) {
        let Some(mut master) = self.master.take() else { return };
        self.handover = None;
        self.out.append(&mut master.out);
        self.earlier_writes.extend(master.writes_in_flight());
        self.next_io = master.last_io();
        self.add_counters(&master.counters.clone());
        if !self.earlier_writes.is_empty() {
            self.last_mirror = master.mirror;
        }
    }

    fn add_counters(&mut self, more: &Counters) {
        let sum = &mut self.counters;
        sum.grants += more.grants;
        sum.denials += more.denials;
        sum.releases += more.releases;
        sum.records_written += more.records_written;
        sum.records_cleared += more.records_cleared;
        sum.standing_reuses += more.standing_reuses;
    }

    pub(super) fn master_orders(&mut self) -> bool {
        let mut any = false;
        while let Some(order) = self.master.as_mut().and_then(|master| master.orders.pop_front()) {
            any = true;
            match order {
                Order::Send(node, message) if node == self.config.node => self.master_says(message),
                Order::Send(node, message) => {
                    let reign = self.master.as_ref().map_or(Epoch(0), |master| master.reign());
                    self.send_to(node, reign, message);
                }
                Order::Activate => self.cluster.activate(self.now.boot),
                Order::Resign { uncertain } => {
                    self.pass_on_orders();
                    self.drop_master();
                    // Others may be under way, and may end later.
                    let left_behind = !self.earlier_writes.is_empty();
                    self.earlier_writes_good &= !(uncertain && left_behind);
                    self.cluster.resign(self.now.boot, None, uncertain || left_behind);
                }
                Order::Log(event) => self.out.push_back(Output::Log(event)),
            }
        }
        any
    }

    /// What the master still had to say when it resigned, in order: answers of before, and the error of the write.
    fn pass_on_orders(&mut self) {
        let Some(master) = &mut self.master else { return };
        let reign = master.reign();
        for order in std::mem::take(&mut master.orders) {
            match order {
                Order::Send(node, message) if node == self.config.node => self.master_says(message),
                Order::Send(node, message) => self.send_to(node, reign, message),
                Order::Log(event) => self.out.push_back(Output::Log(event)),
                Order::Activate | Order::Resign { .. } => {}
            }
        }
    }

    /// The master's word to this node's member.
    pub(super) fn master_says(&mut self, message: PeerMessage) {
        match message {
            PeerMessage::Outcome(outcome) => self.member.outcome(outcome),
            PeerMessage::Queued { lock, op, position } => self.member.queued(lock, op, position),
            PeerMessage::Bast { lock, wanted } => self.member.bast(lock, wanted),
            PeerMessage::Claimed(verdict) => self.member.claimed(self.now, verdict),
            PeerMessage::Inherit { session, process, locks } => self.member.inherit(session, process, locks),
            PeerMessage::Lost { lock, reason } => self.member.lost(lock, reason),
            _ => {}
        }
    }

    /// SIGTERM: give mastership up with nothing left in the air, then stop.
    pub(super) fn shutdown(&mut self) {
        self.stopping = true;
        self.cluster.stand_aside();
        if let Some(master) = &mut self.master {
            master.drain();
        }
    }

    /// Begins a planned handover (section 4).
    pub(super) fn hand_over(&mut self, to: Option<NodeId>) {
        if let Some(master) = &mut self.master {
            master.drain();
            self.handover = Some(to);
        }
    }

    pub(super) fn advance_handover(&mut self) {
        let drained = self.master.as_ref().is_none_or(|master| master.is_drained());
        if !drained && !planted(Bug::ResignWithoutDrain) {
            return;
        }
        if self.stopping {
            self.drop_master();
            self.cluster.retire(self.now.boot);
        } else if let Some(successor) = self.handover.take() {
            self.drop_master();
            self.cluster.resign(self.now.boot, successor, false);
        }
    }
}
