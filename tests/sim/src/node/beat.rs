//! The heartbeat thread: write the newest image, then read the region (`disklock/src/heartbeat.rs` in the fake world).

use crate::clock::{MS, Time, US};
use crate::disk::{Piece, Purpose};
use crate::world::{Event, World};
use mxlock_dlm::io::{Beat, BeatRead, BeatWrite, ImageId, Input, IoFault};
use mxlock_dlm::time::BootTime;
use mxlock_format::Heartbeat;

/// The heartbeat thread's state.
#[derive(Default)]
pub struct Thread {
    pub(super) newest: Option<(ImageId, Box<Heartbeat>)>,
    pub(super) begin_by: Option<BootTime>,
    /// For the note, from the next write on.
    pub(super) ballots_from: Option<BootTime>,
    hb_seq: u64,
    busy: bool,
    urgent: bool,
    last_start: Time,
    wrote_at: Option<Time>,
    tick_at: Option<Time>,
    write: Option<BeatWrite>,
}

impl World {
    pub(super) fn beat_at(&mut self, host: usize, at: Time) {
        let Some(daemon) = self.hosts[host].daemon.as_mut() else { return };
        daemon.thread.tick_at = Some(at);
        let run = daemon.run;
        self.schedule(at, Event::BeatTick { host, run });
    }

    /// Begins a beat at once, or right after the one under way.
    pub(super) fn beat_soon(&mut self, host: usize) {
        let now = self.now;
        let Some(daemon) = self.hosts[host].daemon.as_mut() else { return };
        if daemon.thread.busy {
            daemon.thread.urgent = true;
        } else {
            self.beat_at(host, now);
        }
    }

    /// The heartbeat thread's turn: write the newest image, unless the core has not run for 2R.
    pub fn beat_tick(&mut self, host: usize, run: u32) {
        let Some(_) = self.hold_step(host, run, Event::BeatTick { host, run }) else { return };
        let now = self.now;
        let renew = u64::from(self.timing.renew_ms) * MS;
        let silent_after = self.hosts[host].clock.true_length(2 * renew);
        let Some(daemon) = self.daemon(host, run) else { return };
        if daemon.thread.busy || daemon.thread.tick_at.is_none_or(|at| at > now) {
            return;
        }
        if now - daemon.last_core_run > silent_after {
            let runs = daemon.paused.is_none();
            self.beat_at(host, now + renew);
            // The owner's loop turns twice in R at least, also after a sleep in which its timers rang.
            if runs {
                self.tell(host, run, Input::Tick);
            }
            return;
        }
        let thread = &mut daemon.thread;
        thread.busy = true;
        thread.urgent = false;
        thread.tick_at = None;
        thread.last_start = now;
        thread.write = None;
        let looks = thread.newest.is_some() && thread.wrote_at.is_some_and(|at| now - at >= silent_after / 4);
        if looks {
            let at = now + daemon.dice.range(20 * US, 2 * MS);
            return self.schedule(at, Event::BeatLook { host, run });
        }
        self.beat_write(host, run);
    }

    /// The own sector is looked at before a write: another node's is not written over. One that cannot be read, or is
    /// damaged, is nobody's.
    pub fn beat_look(&mut self, host: usize, run: u32) {
        let Some(_) = self.hold_step(host, run, Event::BeatLook { host, run }) else { return };
        let held = self.disk.held_until(host);
        if held > self.now {
            return self.schedule(held, Event::BeatLook { host, run });
        }
        let (node_uuid, boot_id) = (self.hosts[host].node_uuid, self.hosts[host].boot_id);
        let Some(node) = self.daemon(host, run).map(|daemon| daemon.node) else { return };
        let foreign = |found: &Heartbeat| (found.node_uuid, found.boot_id) != (node_uuid, boot_id);
        if self.disk.heartbeats[node.index()].as_ref().is_ok_and(foreign) {
            self.read_disk(host, run, Purpose::Beat, None);
        } else {
            self.beat_write(host, run);
        }
    }

    fn beat_write(&mut self, host: usize, run: u32) {
        let boot = self.hosts[host].clock.now(self.now);
        let Some(daemon) = self.daemon(host, run) else { return };
        let thread = &mut daemon.thread;
        let Some((image, heartbeat)) = &thread.newest else {
            self.read_disk(host, run, Purpose::Beat, None);
            return;
        };
        if thread.wrote_at.is_none() && thread.begin_by.is_some_and(|by| boot.boot > by) {
            let (hb_seq, result) = (thread.hb_seq, Err(IoFault::Expired));
            thread.write = Some(BeatWrite { image: *image, hb_seq, started: boot.boot, result });
            self.read_disk(host, run, Purpose::Beat, None);
            return;
        }
        thread.hb_seq += 1;
        let mut stamped = heartbeat.clone();
        stamped.hb_seq = thread.hb_seq;
        stamped.timestamp_ms = boot.wall_ms;
        stamped.boottime_ns = boot.boot.0;
        let write = BeatWrite { image: *image, hb_seq: thread.hb_seq, started: boot.boot, result: Ok(()) };
        thread.write = Some(write);
        let (node, sector) = (stamped.node, Box::new(stamped.encode()));
        let told = thread.ballots_from.take();
        if let Some(note) = &mut self.hosts[host].note {
            note.begins(told);
        }
        self.write_disk(host, run, Purpose::Beat, vec![Piece::Heartbeat(node, sector)]);
    }

    /// The heartbeat thread's write has ended, well or not: read.
    pub fn beat_written(&mut self, host: usize, run: u32, result: Result<(), IoFault>) {
        let step = Event::BeatWritten { host, run, result: result.clone() };
        if self.hold_step(host, run, step).is_none() {
            return;
        }
        let failed = result.is_err();
        let boot = self.hosts[host].clock.boot(self.now);
        if let Some(note) = &mut self.hosts[host].note {
            note.ended(!failed, boot);
        }
        let Some(daemon) = self.daemon(host, run) else { return };
        if !failed {
            daemon.thread.wrote_at = Some(daemon.thread.last_start);
        }
        if let Some(write) = &mut daemon.thread.write {
            write.result = result;
        }
        self.read_disk(host, run, Purpose::Beat, None);
    }

    /// The heartbeat thread's read has failed.
    pub fn beat_read_failed(&mut self, host: usize, run: u32, fault: IoFault) {
        let step = Event::BeatReadFailed { host, run, fault: fault.clone() };
        if self.hold_step(host, run, step).is_some() {
            self.finish_beat(host, run, Some(Err(fault)));
        }
    }

    /// The heartbeat thread's read has ended.
    pub fn beat_read(&mut self, host: usize, run: u32, issued: BootTime, region: Box<mxlock_dlm::io::Region>) {
        let step = Event::BeatRead { host, run, issued, region };
        let Some(Event::BeatRead { region, .. }) = self.hold_step(host, run, step) else { return };
        let ended = self.hosts[host].clock.boot(self.now);
        self.finish_beat(host, run, Some(Ok(BeatRead { issued, ended, region })));
    }

    fn finish_beat(&mut self, host: usize, run: u32, read: Option<Result<BeatRead, IoFault>>) {
        let now = self.now;
        let renew = self.hosts[host].clock.true_length(u64::from(self.timing.renew_ms) * MS);
        let Some(daemon) = self.daemon(host, run) else { return };
        let thread = &mut daemon.thread;
        thread.busy = false;
        let next = if thread.urgent { now } else { now.max(thread.last_start + renew) };
        let write = thread.write.take();
        self.beat_at(host, next);
        let beat = Beat { write, read };
        self.oracles.leases.beat(run, &beat);
        self.tell(host, run, Input::Beat(beat));
    }
}
