//! What goes wrong. The kinds are in `kinds`, when they come in `plan`; here is what each does.

mod kinds;
pub mod plan;

pub use kinds::{Fault, Label};

use crate::clock::{Clock, MS, SEC, Time};
use crate::dice::{Dice, both};
use crate::net::{end_of, pair};
use crate::node::{Pause, PowerCut};
use crate::trouble::Trouble;
use crate::world::{Event, World};
use mxlock_dlm::io::Input;
use mxlock_format::RECORD_BYTES;
use mxlock_proto::client::AdminRequest;

/// A time on either side of the limits R, L and D.
fn some_while(dice: &mut Dice) -> Time {
    match dice.below(4) {
        0 => dice.range(100 * MS, 2 * SEC),
        1 => dice.range(2 * SEC, 8 * SEC),
        2 => dice.range(8 * SEC, 16 * SEC),
        _ => dice.range(16 * SEC, 40 * SEC),
    }
}

impl World {
    /// A planned fault comes. All that it draws is of its own stream.
    pub fn fault(&mut self, kind: Fault, ordinal: u32) {
        if !self.storm {
            return;
        }
        let dice = &mut self.dice(kind.name(), u64::from(ordinal));
        let hosts = self.hosts.len();
        let host = dice.below(hosts as u64) as usize;
        let other = (host + 1 + dice.below(hosts as u64 - 1) as usize) % hosts;
        let length = some_while(dice);
        self.trace(|| format!("*** {} {ordinal} (host {host}, other {other}, {} ms)", kind.name(), length / MS));
        match kind {
            Fault::CrashDaemon => self.crash_daemon(host, dice),
            Fault::CrashMaster => {
                let master = self.master_host().unwrap_or(host);
                self.crash_daemon(master, dice);
            }
            Fault::RestartAll => (0..hosts).for_each(|host| self.crash_daemon(host, dice)),
            Fault::CrashHost => {
                let off_for = dice.range(SEC, 60 * SEC);
                if self.hosts[host].on && dice.chance(self.setup.noise.power_cuts_ppm) {
                    self.hosts[host].power = Some(PowerCut { off_for, overdue: false });
                } else {
                    self.crash_host(host, off_for);
                }
            }
            Fault::OverdueWrites => {
                if let Some(master) = self.master_host() {
                    let off_for = dice.range(SEC, 20 * SEC);
                    self.hosts[master].power = Some(PowerCut { off_for, overdue: true });
                }
            }
            Fault::Reinstall => self.reinstall(host, dice),
            Fault::Clone => self.clone_host(host, other, dice),
            Fault::Shutdown => self.shut_down(host),
            Fault::Handover => self.ask_operator(host, AdminRequest::Handover { to: None }),
            Fault::Leave => {
                if let Some(daemon) = self.hosts[host].daemon.as_mut() {
                    daemon.asked_to_leave = true;
                    self.oracles.judgement.permit(daemon.node);
                }
                self.ask_operator(host, AdminRequest::Leave { release: true });
            }
            Fault::PauseCore => self.pause(host, Pause::Core, length),
            Fault::PauseProcess => self.pause(host, Pause::Process, length),
            Fault::Suspend => self.suspend(host, length, dice),
            Fault::CutPair => self.cut(host, other, &[0, 1], length, dice),
            Fault::OneWay => self.cut(host, other, &[end_of(pair(host, other), other)], length, dice),
            Fault::Isolate => {
                for other in (0..hosts).filter(|&other| other != host) {
                    self.cut(host, other, &[0, 1], length, dice);
                }
            }
            Fault::ResetLink => self.break_link(pair(host, other), SEC),
            Fault::HalfOpen => {
                let deaf = dice.below(2) as usize;
                let mut hear = [MS; 2];
                hear[deaf] = length;
                let pause = dice.range(10 * MS, 300 * MS);
                self.break_link_heard(pair(host, other), hear, pause);
            }
            Fault::ReconnectStorm => {
                let mut at = self.now;
                for _ in 0..dice.range(5, 60) {
                    at += dice.range(MS, 400 * MS);
                    self.schedule(at, Event::BreakLink { pair: pair(host, other) });
                }
            }
            Fault::SlowReader => {
                self.net.slow_until.insert(host, self.now + length);
            }
            Fault::StallDisk => {
                self.coverage.stalls += 1;
                self.disk.stalled_until = self.now + length / 2;
                (0..hosts).for_each(|host| self.oracles.judgement.blind(host, self.now, self.now + length / 2));
            }
            Fault::StallPath => {
                self.coverage.stalls += 1;
                self.disk.path_stalled_until[host] = self.now + length;
                self.oracles.judgement.blind(host, self.now, self.now + length);
            }
            Fault::LoseDisk => self.trouble(kind, None, length, 1_000_000, u32::MAX),
            Fault::LosePath | Fault::SlowWrites => self.trouble(kind, Some(host), length, 1_000_000, u32::MAX),
            Fault::ReadErrors | Fault::WriteErrors | Fault::LateWrites | Fault::TornWrites => {
                let ppm = *dice.pick(&[20_000, 200_000, 1_000_000]);
                self.trouble(kind, Some(host), length, ppm, u32::MAX);
            }
            Fault::LoseHeartbeat | Fault::LoseRecord | Fault::MisdirectRecord => {
                self.trouble(kind, Some(host), 20 * SEC, 300_000, 1);
            }
            Fault::StaleReads => {
                self.disk.remember(host);
                self.trouble(kind, Some(host), length.min(10 * SEC), 1_000_000, u32::MAX);
            }
            Fault::RotRecord => {
                let used: Vec<u32> = (0..)
                    .zip(&self.disk.records)
                    .filter(|(_, record)| record.is_some())
                    .map(|(slot, _)| slot)
                    .collect();
                if !used.is_empty() {
                    let slot = *dice.pick(&used);
                    self.coverage.bits_flipped += 1;
                    self.trace(|| format!("*** slot {slot} rots"));
                    self.rot_record(slot, dice.below(RECORD_BYTES as u64 * 8) as usize);
                }
            }
            Fault::RotHeartbeat => {
                if let Some(node) = self.hosts[host].daemon.as_ref().map(|daemon| daemon.node) {
                    self.coverage.bits_flipped += 1;
                    self.disk.rot_heartbeat(node, dice.below(RECORD_BYTES as u64 * 8) as usize);
                }
            }
            Fault::KillClient | Fault::CutClient | Fault::SilentClient => {
                let client = dice.below(self.clients.len() as u64) as usize;
                match kind {
                    Fault::KillClient => self.kill_client(client),
                    Fault::CutClient => self.cut_client(client),
                    _ => self.silent_until[client] = self.now + length,
                }
            }
        }
    }

    fn trouble(&mut self, kind: Fault, host: Option<usize>, length: Time, ppm: u64, left: u32) {
        self.troubles.begin(Trouble { kind, host, until: self.now + length, ppm, left });
    }

    /// The host whose daemon acts as master.
    pub fn master_host(&self) -> Option<usize> {
        (0..self.hosts.len()).find(|&host| self.acts_as_master(host))
    }

    /// Kills a daemon; its service manager starts it again.
    pub fn crash_daemon(&mut self, host: usize, dice: &mut Dice) {
        if self.hosts[host].daemon.is_none() {
            return;
        }
        self.coverage.daemon_crashes += 1;
        self.end_daemon(host);
        let away = match dice.below(3) {
            0 => dice.range(100 * MS, 3 * SEC),
            1 => dice.range(3 * SEC, 15 * SEC),
            _ => dice.range(15 * SEC, 50 * SEC),
        };
        self.schedule_start(host, self.now + away);
    }

    /// The power of a host fails in the middle of a write that it has just issued.
    pub fn power_fails(&mut self, host: usize) {
        let Some(PowerCut { off_for, overdue }) = self.hosts[host].power.take() else { return };
        if overdue {
            self.disk.are_overdue(host);
        }
        self.crash_host(host, off_for);
    }

    /// Cuts the power of a host.
    pub fn crash_host(&mut self, host: usize, off_for: Time) {
        if !self.hosts[host].on {
            return;
        }
        self.coverage.host_crashes += 1;
        self.hosts[host].on = false;
        self.hosts[host].power = None;
        self.hosts[host].asleep_until = 0;
        self.hosts[host].start_at = None;
        self.end_daemon(host);
        let clients: Vec<usize> = (0..self.clients.len()).filter(|&at| self.clients[at].host == host).collect();
        for client in clients {
            self.kill_client(client);
        }
        self.schedule(self.now + off_for, Event::PowerOn { host });
    }

    /// A host comes back: another boot, another clock, no memory but its disks.
    pub fn power_on(&mut self, host: usize) {
        let now = self.now;
        if self.hosts[host].on {
            return;
        }
        let mut dice = self.dice("boot", both(host, self.hosts[host].boot + 1));
        let me = &mut self.hosts[host];
        me.on = true;
        me.boot += 1;
        me.boot_id = dice.uuid();
        me.note = None;
        me.clock = Clock::new(now, SEC, me.drift_ppm, 1_750_000_000_000);
        me.pages.clear();
        me.page_incarnations.clear();
        // No process of the old boot is left, and so no guard; its late writes are the disk's affair.
        me.ended = me.ended.map(|(_, at)| (0, at));
        let wait = dice.range(100 * MS, 3 * SEC);
        self.schedule_start(host, now + wait);
    }

    /// The machine is replaced by another one that is told to use the same slot.
    fn reinstall(&mut self, host: usize, dice: &mut Dice) {
        let slot = self.hosts[host].daemon.as_ref().map(|daemon| daemon.node).or(self.hosts[host].remembered);
        self.crash_host(host, dice.range(SEC, 40 * SEC));
        let me = &mut self.hosts[host];
        me.node_uuid = dice.uuid();
        me.cloned = false;
        me.wish = slot;
        me.remembered = None;
    }

    /// The machine comes back as a copy of another one, state directory included, until somebody notices.
    fn clone_host(&mut self, host: usize, of: usize, dice: &mut Dice) {
        if self.hosts[of].cloned {
            return;
        }
        self.crash_host(host, dice.range(SEC, 20 * SEC));
        let (node_uuid, remembered) = (self.hosts[of].node_uuid, self.hosts[of].remembered);
        let me = &mut self.hosts[host];
        (me.node_uuid, me.remembered, me.wish, me.cloned) = (node_uuid, remembered, None, true);
        self.schedule(self.now + dice.range(20 * SEC, 120 * SEC), Event::EndClone { host });
    }

    /// The operator gives a clone an identity of its own, and boots it: its clients cannot take their locks along.
    pub fn end_clone(&mut self, host: usize) {
        if !std::mem::take(&mut self.hosts[host].cloned) {
            return;
        }
        let mut dice = self.dice("identity", both(host, self.hosts[host].boot));
        self.crash_host(host, SEC);
        let me = &mut self.hosts[host];
        me.node_uuid = dice.uuid();
        me.remembered = None;
    }

    fn shut_down(&mut self, host: usize) {
        let asleep = self.hosts[host].asleep_until > self.now;
        if let Some(daemon) = self.hosts[host].daemon.as_mut().filter(|_| !asleep) {
            daemon.stopping = true;
            let run = daemon.run;
            self.tell(host, run, Input::Shutdown);
        }
    }

    /// A laptop's lid closes: nothing on the host runs, its clock goes on, the others hear nothing of it.
    fn suspend(&mut self, host: usize, length: Time, dice: &mut Dice) {
        if !self.hosts[host].on {
            return;
        }
        self.coverage.suspends += 1;
        let until = self.now + length;
        self.hosts[host].asleep_until = self.hosts[host].asleep_until.max(until);
        self.oracles.judgement.blind(host, self.now, until);
        for other in (0..self.hosts.len()).filter(|&other| other != host) {
            self.cut(host, other, &[0, 1], length, dice);
        }
    }

    fn cut(&mut self, host: usize, other: usize, ends: &[usize], length: Time, dice: &mut Dice) {
        let pair = pair(host, other);
        let notice = dice.range(500 * MS, 4 * SEC);
        let mut any = false;
        for &end in ends {
            if self.net.blocked.insert((pair, end)) {
                any = true;
                self.schedule(self.now + length, Event::Unblock { pair, end });
            }
        }
        if any {
            self.coverage.partitions += 1;
            self.schedule(self.now + notice, Event::PartitionNoticed { pair });
        }
    }
}
