//! Masters in turn, and what the nodes hear of them: what `Core` and `Cluster` do, in steps of their own.

use super::Step;
use super::catalogue::Left;
use super::state::*;
use super::table::{config, node_id};
use crate::kept::Hashed;
use mxlock_dlm::io::{IoFault, IoId, Output, TableChunk};
use mxlock_dlm::model::{ModelMaster, ModelMember, Word};
use mxlock_format::{Epoch, Incarnation, NodeSet, Phase, View};

impl Step<'_> {
    fn view(&self, epoch: Epoch, phase: Phase) -> View {
        View {
            epoch,
            master: node_id(NODES),
            master_incarnation: Incarnation(1),
            phase,
            members: NodeSet(u64::from(self.state.members) | 1 << NODES),
            owed: NodeSet(0),
            table_epoch: self.state.table_epoch,
            feature_level: 1,
        }
    }

    fn clients_on(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        let clients = &self.world.bounds.clients;
        let on: Vec<usize> = (0..clients.len()).filter(|client| clients[*client].home == node).collect();
        on.into_iter()
    }

    fn reign(&mut self) -> &mut Reign {
        self.state.reign.as_mut().expect("a master")
    }

    fn master(&mut self) -> &mut ModelMaster {
        self.reign().master.change()
    }

    /// Carries out what members and the master want, until nobody wants anything more.
    pub(super) fn pump(&mut self) {
        loop {
            let mut quiet = true;
            for node in 0..NODES {
                while self.state.nodes[node].member.has_words()
                    && let Some(output) = self.state.nodes[node].member.change().poll_output()
                {
                    quiet = false;
                    self.carry_out(node, output);
                }
                while self.state.nodes[node].member.has_words()
                    && let Some(message) = self.state.nodes[node].member.change().poll_to_master()
                {
                    quiet = false;
                    // Said to a master that is gone it is lost.
                    let at = &mut self.state.nodes[node];
                    if self.state.reign.as_ref().is_some_and(|reign| at.member.reported() == Some(reign.epoch)) {
                        at.to_master.push(Message(message));
                    }
                }
                if self.world.bounds.prompt && self.can_hear(node) {
                    quiet = false;
                    self.up(node);
                }
            }
            quiet &= !self.master_words();
            if quiet {
                break;
            }
        }
    }

    /// Whether the master can take a message of a node now.
    pub(super) fn can_hear(&self, node: usize) -> bool {
        self.state.reign.is_some() && self.state.nodes[node].lease && !self.state.nodes[node].to_master.is_empty()
    }

    fn up(&mut self, node: usize) {
        let at = &mut self.state.nodes[node];
        let (Message(message), incarnation) = (at.to_master.remove(0), Incarnation(at.incarnation));
        self.master().handle(node_id(node), incarnation, message);
    }

    pub(super) fn take_up(&mut self, node: usize) {
        self.up(node);
        self.pump();
    }

    pub(super) fn take_down(&mut self, node: usize) {
        let Message(message) = self.state.nodes[node].from_master.remove(0);
        self.state.nodes[node].member.change().hear(message);
        self.pump();
    }

    fn master_speaks(&self) -> bool {
        self.state.reign.as_ref().is_some_and(|reign| reign.master.has_words())
    }

    fn master_words(&mut self) -> bool {
        let mut any = false;
        while self.master_speaks()
            && let Some(output) = self.master().poll_output()
        {
            any = true;
            self.do_io(output);
        }
        while self.master_speaks()
            && let Some(word) = self.master().poll()
        {
            any = true;
            match word {
                Word::Send(to, message) => {
                    let epoch = self.reign().epoch;
                    let Some(node) = self.state.nodes.get_mut(to.index()) else { continue };
                    if node.up && node.member.reported() == Some(epoch) {
                        node.from_master.push(Message(message));
                    }
                }
                Word::Activate => self.reign().rewritten = true,
                // Its other answers of before are on their way.
                Word::Resign => self.end_reign(),
            }
        }
        any
    }

    fn do_io(&mut self, output: Output) {
        let epoch = self.reign().epoch;
        match output {
            Output::ReadTable { io, first_slot, count } => {
                let sectors = &self.state.disk[first_slot as usize..(first_slot + count) as usize];
                let bytes = sectors.iter().flat_map(|sector| sector.as_ref().map_or([0; 512], |image| image.bytes));
                let chunk = TableChunk { first_slot, bytes: bytes.collect(), unreadable: vec![] };
                self.master().table_read(io, chunk);
            }
            Output::WriteRecord { io, slot, image, .. } => {
                let image = image.and_then(|image| Image::new(&image.0));
                self.state.writes.push(Write { reign: epoch, slot, image, io: io.0, late: false });
                self.state.writes.sort_by_key(|write| write.slot);
            }
            Output::WriteTable { io, first_slot, count, .. } => {
                for slot in first_slot..first_slot + count {
                    let image = Image::new(self.reign().master.image(slot));
                    if image != self.state.disk[slot as usize] {
                        self.state.writes.push(Write { reign: epoch, slot, image, io: io.0, late: false });
                    }
                }
                self.state.writes.sort_by_key(|write| write.slot);
                self.ended(io);
            }
            _ => {}
        }
    }

    /// Tells the master that an I/O is over, if it is.
    fn ended(&mut self, io: IoId) {
        let Some(reign) = &self.state.reign else { return };
        if !self.state.writes.iter().any(|write| write.reign == reign.epoch && write.io == io.0) {
            self.master().written(io, Ok(()));
        }
    }

    pub(super) fn land(&mut self, at: usize) {
        let write = self.state.writes.remove(at);
        self.state.disk[write.slot as usize] = write.image;
        if self.state.reign.as_ref().is_some_and(|reign| reign.epoch == write.reign) {
            self.ended(IoId(write.io));
        }
        self.pump();
    }

    /// A write ends in an error: the master resigns, and its successor waits until it can land no more.
    pub(super) fn fail(&mut self, at: usize) {
        let io = IoId(self.state.writes[at].io);
        self.master().written(io, Err(IoFault::Failed("model".into())));
        self.pump();
    }

    /// The view {recovering} is committed, and the table is read; nothing of an earlier master can land any more.
    pub(super) fn elect(&mut self, exclude: u8) {
        for node in (0..NODES).filter(|node| exclude & (1 << node) != 0) {
            self.exclude(node);
        }
        let epoch = Epoch(self.state.epoch.0 + 1);
        self.state.epoch = epoch;
        if self.world.without(Left::EpochAfterRewrite) {
            self.state.table_epoch = epoch;
        }
        let living = |node: &usize| self.state.nodes[*node].admitted && self.state.is_member(*node);
        let awaited = (0..NODES).filter(living);
        let awaited = awaited.map(|node| (node_id(node), Incarnation(self.state.nodes[node].incarnation))).collect();
        let view = self.view(epoch, Phase::Recovering);
        let master = ModelMaster::new(&config(NODES, 1, self.world.bounds.slots), &view, awaited);
        self.state.reign = Some(Reign {
            epoch,
            master: Hashed::unsealed(master),
            rewritten: false,
            draining: false,
            seen: self.state.nodes.each_ref().map(|node| node.incarnation),
        });
        self.pump();
    }

    /// The view {active} is committed. Whoever died meanwhile is excluded by it.
    pub(super) fn activate(&mut self, exclude: u8) {
        for node in (0..NODES).filter(|node| exclude & (1 << node) != 0) {
            self.exclude(node);
        }
        self.state.table_epoch = self.state.epoch;
        self.reign().rewritten = false;
        let view = self.view(self.state.epoch, Phase::Active);
        self.master().view_changed(&view);
        self.master().activated();
        self.pump();
    }

    /// The master is gone: what it said and did is under way.
    pub(super) fn end_reign(&mut self) {
        if self.world.without(Left::NoWriteAfterLease) {
            self.write_on();
        }
        self.state.reign = None;
        for node in &mut self.state.nodes {
            node.to_master.clear();
        }
    }

    /// It does not know yet that its lease is over, and writes what it has to write behind.
    fn write_on(&mut self) {
        let before = self.state.writes.clone();
        for slot in self.reign().master.slots_behind() {
            self.master().look_behind(slot);
        }
        self.pump();
        for write in self.state.writes.iter_mut().filter(|write| !before.contains(write)) {
            write.late = true;
        }
    }

    pub(super) fn hand_over(&mut self) {
        self.reign().draining = true;
        self.master().drain();
        self.pump();
    }

    /// The node learns of the master of the day, and reports to it: one step, after which nothing of another counts.
    pub(super) fn report(&mut self, node: usize) {
        let epoch = self.reign().epoch;
        let at = &mut self.state.nodes[node];
        if self.world.without != Some(Left::ReportLeaves) {
            at.from_master.clear();
        }
        at.to_master.clear();
        at.member.change().forget_master();
        at.member.change().report(epoch);
        self.pump();
    }

    pub(super) fn see(&mut self, node: usize) {
        let incarnation = self.state.nodes[node].incarnation;
        self.reign().seen[node] = incarnation;
        self.master().replaced(node_id(node), Incarnation(incarnation));
        self.pump();
    }

    /// A joiner is admitted.
    pub(super) fn admit(&mut self, node: usize) {
        self.state.members |= 1 << node;
        self.state.nodes[node].admitted = true;
        let view = self.view(self.state.epoch, Phase::Active);
        self.master().view_changed(&view);
        self.pump();
    }

    /// A node is excluded by a view: it was silent for D, and its clients have passed their deadlines.
    fn exclude(&mut self, node: usize) {
        self.state.faults.exclusions -= 1;
        self.state.members &= !(1 << node);
        if self.world.without(Left::NewIncarnation) && self.state.nodes[node].up {
            return;
        }
        for client in self.clients_on(node) {
            self.state.clients[client].overdue |= self.state.clients[client].held.is_some();
            self.no_more(client);
        }
    }

    pub(super) fn purge(&mut self, node: usize) {
        self.exclude(node);
        let view = self.view(self.state.epoch, Phase::Active);
        self.master().view_changed(&view);
        self.pump();
    }

    pub(super) fn expire(&mut self, node: usize) {
        for client in self.clients_on(node).filter(|_| !self.world.without(Left::OrphanWaits)) {
            self.overdue(client);
        }
        self.master().end_lifetimes(node_id(node));
        self.pump();
    }

    pub(super) fn crash(&mut self, node: usize) {
        let at = &mut self.state.nodes[node];
        at.up = false;
        at.lease = true;
        at.to_master.clear();
        at.from_master.clear();
        at.member = Hashed::new(ModelMember::new(&config(node, at.incarnation + 1, self.world.bounds.slots)));
        for client in self.clients_on(node) {
            self.no_adopter(client);
            let at = &mut self.state.clients[client];
            (at.connected, at.attached) = (false, false);
        }
    }

    pub(super) fn restart(&mut self, node: usize) {
        let at = &mut self.state.nodes[node];
        (at.up, at.admitted) = (true, false);
        at.incarnation += 1;
    }

    pub(super) fn lose_lease(&mut self, node: usize) {
        let at = &mut self.state.nodes[node];
        at.lease = false;
        at.member.change().lease_lost();
        self.pump();
    }

    /// The node has its disk back: it is confirmed, or learns that it was excluded.
    pub(super) fn regain_lease(&mut self, node: usize) {
        let member = self.state.is_member(node) || self.world.without(Left::NewIncarnation);
        let at = &mut self.state.nodes[node];
        at.lease = true;
        if member {
            at.member.change().lease_regained();
        } else {
            at.incarnation += 1;
            at.admitted = false;
            at.to_master.clear();
            at.from_master.clear();
            let incarnation = Incarnation(at.incarnation);
            at.member.change().excluded(incarnation);
            for client in self.clients_on(node) {
                self.state.clients[client].overdue &= !self.state.clients[client].attached;
            }
        }
        self.pump();
    }

    /// `mxlock leave --release`: its clients read from the lease page that their locks are over.
    pub(super) fn leave(&mut self, node: usize) {
        for client in self.clients_on(node) {
            // What is being adopted is released as well, also if its client has not heard of it.
            let adopts = matches!(self.state.clients[client].asking, Some(Asking::New(ask)) if ask.is_adoption());
            self.state.ghost.renounced |= adopts;
            let at = &mut self.state.clients[client];
            if at.held.is_some_and(|held| held.mode >= mxlock_format::Mode::PW) {
                self.state.ghost.written = 0;
            }
            (at.held, at.asking, at.asks) = (None, None, 0);
            // PERSISTENT ones as well.
            let session = at.session;
            self.state.ghost.left.retain(|id| Some(id.session) != session);
        }
        let at = &mut self.state.nodes[node];
        at.leaving = true;
        at.member.change().leave();
        self.pump();
    }

    /// The view without the node that leaves.
    pub(super) fn gone(&mut self, node: usize) {
        self.state.members &= !(1 << node);
        let at = &mut self.state.nodes[node];
        (at.up, at.admitted) = (false, false);
        at.to_master.clear();
        at.from_master.clear();
        for client in self.clients_on(node) {
            let at = &mut self.state.clients[client];
            (at.lives, at.connected, at.attached) = (false, false, false);
        }
        let view = self.view(self.state.epoch, Phase::Active);
        self.master().view_changed(&view);
        self.pump();
    }
}

impl Step<'_> {
    pub(super) fn lose_patience(&mut self) {
        self.master().lose_patience();
        self.pump();
    }

    pub(super) fn look_behind(&mut self, slot: u32) {
        self.master().look_behind(slot);
        self.pump();
    }
}
