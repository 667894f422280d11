//! The disk seen from a host: what it issues, when it lands, how it ends.

use crate::clock::{MS, SEC, Time, US};
use crate::dice::both;
use crate::disk::{Fate, Issuer, Piece, Purpose};
use crate::faults::Fault;
use crate::world::{Event, World};
use mxlock_dlm::io::{Input, IoFault, TableChunk};
use mxlock_format::{Heartbeat, Phase, RECORD_BYTES};

fn eio() -> IoFault {
    IoFault::Failed("Input/output error".into())
}

impl World {
    /// Issues a write.
    pub fn write_disk(&mut self, host: usize, run: u32, purpose: Purpose, pieces: Vec<Piece>) {
        let now = self.now;
        let by = Issuer { host, boot: self.hosts[host].boot, run };
        // A2 on the issuer's own clock, less a little for rounding.
        let a2 = u64::from(self.timing.dead_ms) * MS * 100 / 105 - u64::from(self.timing.lease_ms) * MS - MS;
        let limit = now + self.hosts[host].clock.true_length(a2);
        let single = matches!(&pieces[..], [Piece::Records(_, bytes)] if bytes.len() == RECORD_BYTES);
        let (troubles, slots) = (&mut self.troubles, self.disk.geometry.slot_count);
        let draw = |dice: &mut _| troubles.write_fate(now, host, purpose, single, slots, dice);
        let (write, due) = self.disk.write(now, by, purpose, limit, pieces, draw);
        // Table traffic may queue up; heartbeats have a queue of their own (section 5).
        let slow = purpose != Purpose::Beat && self.troubles.has(now, host, Fault::SlowWrites);
        let ballot = self.slow_ballot(write);
        for (piece, at) in due {
            let wait = if slow { self.disk.some_wait(write) } else { ballot };
            self.schedule(at + wait, Event::Land { write, piece });
        }
        if self.hosts[host].power.is_some_and(|cut| !cut.overdue || purpose != Purpose::Beat) {
            self.schedule(now + 5 * US, Event::PowerFails { host });
        }
    }

    /// For how long a heartbeat that moves a ballot on is late.
    fn slow_ballot(&mut self, write: u64) -> Time {
        let (ppm, storm) = (self.setup.noise.slow_ballots_ppm, self.storm);
        let Some(write) = self.disk.writes.get(&write).filter(|_| ppm > 0 && storm) else { return 0 };
        let Some(Piece::Heartbeat(node, image)) = write.pieces.get(&0) else { return 0 };
        let Ok(heartbeat) = Heartbeat::decode(*node, &image.0) else { return 0 };
        let old = &self.disk.heartbeats[node.index()];
        if old.as_ref().is_ok_and(|old| old.block == heartbeat.block) {
            return 0;
        }
        let mut dice = self.dice("slow ballot", both(node.index(), heartbeat.hb_seq as u32) ^ heartbeat.incarnation.0);
        if dice.chance(ppm) { dice.range(10 * MS, 3 * SEC) } else { 0 }
    }

    /// Issues a read.
    pub fn read_disk(&mut self, host: usize, run: u32, purpose: Purpose, slots: Option<(u32, u32)>) {
        let now = self.now;
        let by = Issuer { host, boot: self.hosts[host].boot, run };
        let troubles = &mut self.troubles;
        let draw = |dice: &mut _| troubles.read_fate(now, host, purpose, dice);
        let (read, due) = self.disk.read(now, by, purpose, slots, draw);
        for at in due {
            self.schedule(at, Event::Sample { read });
        }
    }

    /// A piece of a write is due to land.
    pub fn land(&mut self, id: u64, piece: u8) {
        let now = self.now;
        let Some(write) = self.disk.writes.get_mut(&id) else { return };
        if write.overdue && now < write.limit {
            // Its host has lost power; the write is held up somewhere on its way.
            let at = write.dice.range(write.limit + 10 * SEC, write.limit + 90 * SEC);
            return self.schedule(at, Event::Land { write: id, piece });
        }
        if write.ended || write.overdue {
            return self.land_late(id, piece);
        }
        let (by, limit) = (write.by, write.limit);
        let host = &self.hosts[by.host];
        if host.boot != by.boot || !host.on {
            if !write.doomed {
                write.doomed = true;
                if write.dice.chance(500_000) {
                    self.coverage.writes_lost += 1;
                    self.disk.writes.remove(&id);
                    return;
                }
            }
            if write.issued < limit && now < limit && write.dice.chance(700_000) {
                let at = write.dice.range(now + 1, limit);
                self.schedule(at, Event::Land { write: id, piece });
                return;
            }
            if write.dice.chance(self.setup.noise.torn_ppm) {
                write.fate = Fate::ErrorTorn;
            }
            self.coverage.late_writes_landed += 1;
        }
        let held = self.disk.held_until(by.host);
        if held > now && now < limit {
            // Held up by a stall: it may slip through before its end, as late as A2 allows.
            let at = if held <= limit { held } else { limit };
            self.schedule(at, Event::Land { write: id, piece });
            return;
        }
        let Some(write) = self.disk.writes.get_mut(&id) else { return };
        let mut fate = write.fate;
        let mut done_at = now + 20 * US;
        if now > limit || held > now {
            // Held up beyond A2: it ends in an error when the path is back, and has landed or not.
            write.result = Err(IoFault::Failed("the device did not answer in time".into()));
            let lands = now <= limit && write.dice.chance(500_000);
            fate = if lands { Fate::ErrorLanded } else { Fate::Error };
            done_at = done_at.max(held);
        }
        if matches!(fate, Fate::Error | Fate::ErrorLanded | Fate::ErrorLate | Fate::ErrorTorn) && write.result.is_ok() {
            write.result = Err(eio());
        }
        // One that ends in an error and lands later comes here again.
        let last = write.unanswered == 1;
        write.unanswered = write.unanswered.saturating_sub(1);
        if fate == Fate::ErrorLate {
            let at = write.dice.range(now + 1, limit.max(now + 1));
            self.schedule(at, Event::Land { write: id, piece });
        } else if let Some(what) = write.pieces.remove(&piece) {
            self.meet_fate(id, fate, what);
        }
        if last {
            self.schedule(done_at, Event::WriteDone { write: id });
        }
    }

    /// A piece reaches the disk, or what its fate makes of that.
    fn meet_fate(&mut self, id: u64, fate: Fate, piece: Piece) {
        let Some(write) = self.disk.writes.get_mut(&id) else { return };
        let run = write.by.run;
        match fate {
            Fate::Error | Fate::Unreadable | Fate::Stale => self.coverage.writes_failed += 1,
            Fate::Good => self.landed(run, piece),
            Fate::ErrorLanded | Fate::ErrorLate => {
                self.coverage.writes_failed += 1;
                self.landed(run, piece);
            }
            Fate::ErrorTorn => {
                let sectors = match &piece {
                    Piece::Heartbeat(..) => 1,
                    Piece::Records(_, bytes) => bytes.len() / RECORD_BYTES,
                };
                let sector = write.dice.below(sectors as u64) as usize;
                let keep = write.dice.range(1, RECORD_BYTES as u64 - 1) as usize;
                self.coverage.writes_torn += 1;
                self.trace(|| format!("*** torn after {keep} bytes: {}", name(&piece)));
                self.torn(&piece, sector, keep);
            }
            Fate::Lost => {
                self.coverage.writes_that_lied += 1;
                self.trace(|| format!("*** acknowledged and lost: {}", name(&piece)));
                self.disk.forget(&piece);
            }
            Fate::Misdirected(target) => {
                self.coverage.writes_that_lied += 1;
                self.trace(|| format!("*** acknowledged and written to slot {target}: {}", name(&piece)));
                self.disk.forget(&piece);
                if let Piece::Records(_, bytes) = &piece {
                    self.disk.misdirect(target, bytes);
                }
            }
        }
    }

    /// What is left of a write that ended in an error lands now.
    fn land_late(&mut self, id: u64, piece: u8) {
        let Some(write) = self.disk.writes.get_mut(&id) else { return };
        let (by, run) = (write.by, write.by.run);
        let kills = matches!(write.purpose, Purpose::Core(_)) && !write.heard;
        let host = &self.hosts[by.host];
        if kills && host.boot == by.boot && host.on && host.daemon.as_ref().is_none_or(|daemon| daemon.run != run) {
            // Its daemon was killed between the kernel's word and its own: outside the model (docs/faults.md).
            self.disk.writes.remove(&id);
            return;
        }
        let Some(write) = self.disk.writes.get_mut(&id) else { return };
        let overdue = write.overdue;
        let what = write.pieces.remove(&piece);
        if write.pieces.is_empty() {
            self.disk.writes.remove(&id);
        }
        let Some(what) = what else { return };
        if overdue {
            self.coverage.overdue_writes_landed += 1;
            self.trace(|| format!("*** an overdue write lands: {}", name(&what)));
            let changed = self.disk.land_overdue(&what);
            self.records_changed(changed);
        } else {
            self.coverage.failed_writes_landed_late += 1;
            self.trace(|| format!("*** a failed write lands: {}", name(&what)));
            self.landed(run, what);
        }
    }

    /// A write has ended.
    pub fn write_done(&mut self, id: u64) {
        let Some(write) = self.disk.writes.get_mut(&id) else { return };
        let (by, purpose, result) = (write.by, write.purpose, write.result.clone());
        write.ended = true;
        if write.pieces.is_empty() {
            self.disk.writes.remove(&id);
        }
        let (host, run) = (by.host, by.run);
        if self.hosts[host].boot != by.boot {
            return;
        }
        match purpose {
            Purpose::Beat => self.beat_written(host, run, result),
            Purpose::Core(io) => {
                if let Some(daemon) = self.daemon(host, run) {
                    daemon.writing.remove(&io);
                }
                self.tell(host, run, Input::Written { io, result });
            }
            Purpose::Start => {}
        }
    }

    /// A sample of a read is due.
    pub fn sample(&mut self, id: u64) {
        let Some(read) = self.disk.reads.get(&id) else { return };
        let by = read.by;
        if self.hosts[by.host].boot != by.boot || !self.hosts[by.host].on {
            self.disk.reads.remove(&id);
            return;
        }
        let held = self.disk.held_until(by.host);
        if held > self.now {
            self.schedule(held, Event::Sample { read: id });
            return;
        }
        if !self.disk.sample(id) {
            return;
        }
        let Some(read) = self.disk.reads.remove(&id) else { return };
        let (host, run, fate) = (by.host, by.run, read.fate);
        self.coverage.reads_failed += u64::from(matches!(fate, Fate::Error | Fate::Unreadable));
        self.coverage.reads_stale += u64::from(fate == Fate::Stale);
        let issued = self.hosts[host].clock.boot(read.issued);
        let failed = fate == Fate::Error;
        match (read.purpose, read.slots) {
            (Purpose::Start, _) => self.region_for_start(host, run, (!failed).then(|| read.into_region())),
            (Purpose::Core(io), Some((first_slot, count))) => {
                self.note_lies(host, fate, first_slot, count);
                let (bytes, unreadable) = read.into_bytes();
                let result = if failed { Err(eio()) } else { Ok(TableChunk { first_slot, bytes, unreadable }) };
                self.tell(host, run, Input::TableRead { io, result });
            }
            _ if failed => self.beat_read_failed(host, run, eio()),
            _ => self.beat_read(host, run, issued, read.into_region()),
        }
    }

    /// A recovery that is given wrong contents with a good checksum cannot know: from then on some rules are not judged
    /// any more ([`World::excuse`]). A scrub that finds them is not misled.
    fn note_lies(&mut self, host: usize, fate: Fate, first_slot: u32, count: u32) {
        let recovering = self.hosts[host]
            .daemon
            .as_ref()
            .is_some_and(|daemon| daemon.view.is_some_and(|view| view.phase == Phase::Recovering));
        if !recovering {
            return;
        }
        let newest = self.oracles.views.newest();
        if fate == Fate::Stale {
            self.excuse("a recovery was given a stale table");
        } else if let Some(slot) =
            (first_slot..first_slot + count).find(|&slot| self.disk.lies_at(slot, newest.as_ref()))
        {
            self.excuse(&format!("a recovery was given slot {slot} with other contents than were acknowledged"));
        }
    }
}

fn name(piece: &Piece) -> String {
    match piece {
        Piece::Heartbeat(node, _) => format!("heartbeat of node {node}"),
        Piece::Records(first, bytes) => format!("slot {first} (+{})", bytes.len() / RECORD_BYTES),
    }
}
