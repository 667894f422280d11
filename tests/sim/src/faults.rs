//! What goes wrong, and how it is put right in the end.

use crate::clock::{Clock, MS, SEC, Time};
use crate::net::pair;
use crate::node::Pause;
use crate::setup::Fault;
use crate::world::{ConnOwner, Event, World};
use mxlock_dlm::io::Input;
use mxlock_format::Uuid;
use mxlock_proto::client::{AdminRequest, CLIENT_PROTOCOL, Hello, Request};

impl World {
    /// Plans the next fault.
    pub fn plan_fault(&mut self) {
        if let Some(every) = self.setup.fault_every
            && !self.setup.weights.is_empty()
        {
            let at = self.now + self.dice.spread(every);
            self.schedule(at, Event::Fault);
        }
    }

    /// Something goes wrong.
    pub fn fault(&mut self) {
        if !self.storm {
            return;
        }
        self.plan_fault();
        let total: u64 = self.setup.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.dice.below(total);
        let mut chosen = Fault::CutClient;
        for &(fault, weight) in &self.setup.weights {
            if at < weight {
                chosen = fault;
                break;
            }
            at -= weight;
        }
        let host = self.dice.below(self.hosts.len() as u64) as usize;
        let client = self.dice.below(self.clients.len() as u64) as usize;
        self.trace(|| format!("*** {chosen:?} (host {host}, client {client})"));
        match chosen {
            Fault::CrashDaemon => self.crash_daemon(host),
            Fault::CrashMaster => {
                let master = self.master_host().unwrap_or(host);
                self.crash_daemon(master);
            }
            Fault::CrashHost => {
                let off_for = self.dice.range(SEC, 60 * SEC);
                self.crash_host(host, off_for);
            }
            Fault::Reinstall => self.reinstall(host),
            Fault::Shutdown => self.shut_down(host),
            Fault::Handover => self.ask_operator(host, AdminRequest::Handover { to: None }),
            Fault::PauseCore | Fault::PauseProcess => {
                let length = self.some_while();
                self.pause(host, if chosen == Fault::PauseCore { Pause::Core } else { Pause::Process }, length);
            }
            Fault::CutPair => {
                let other = self.dice.below(self.hosts.len() as u64) as usize;
                let length = self.some_while();
                self.cut(host, other, length);
            }
            Fault::Isolate => {
                let length = self.some_while();
                for other in 0..self.hosts.len() {
                    self.cut(host, other, length);
                }
            }
            Fault::ResetLink => {
                let other = self.dice.below(self.hosts.len() as u64) as usize;
                if other != host {
                    self.break_link(pair(host, other), SEC);
                }
            }
            Fault::StallDisk => {
                self.coverage.stalls += 1;
                let length = self.some_while() / 2;
                self.disk.stalled_until = self.now + length;
            }
            Fault::StallPath => {
                self.coverage.stalls += 1;
                let length = self.some_while();
                self.disk.path_stalled_until[host] = self.now + length;
            }
            Fault::RestartAll => {
                for host in 0..self.hosts.len() {
                    self.crash_daemon(host);
                }
            }
            Fault::KillClient => self.kill_client(client),
            Fault::CutClient => self.cut_client(client),
        }
    }

    /// A time on either side of the limits R, L and D.
    fn some_while(&mut self) -> Time {
        match self.dice.below(4) {
            0 => self.dice.range(100 * MS, 2 * SEC),
            1 => self.dice.range(2 * SEC, 8 * SEC),
            2 => self.dice.range(8 * SEC, 16 * SEC),
            _ => self.dice.range(16 * SEC, 40 * SEC),
        }
    }

    /// The host whose daemon acts as master.
    pub fn master_host(&self) -> Option<usize> {
        let now = self.now;
        self.hosts.iter().position(|host| host.daemon.as_ref().is_some_and(|daemon| daemon.acts_as_master(host, now)))
    }

    fn crash_daemon(&mut self, host: usize) {
        if self.hosts[host].daemon.is_none() {
            return;
        }
        self.coverage.daemon_crashes += 1;
        self.end_daemon(host);
        let away = match self.dice.below(3) {
            0 => self.dice.range(100 * MS, 3 * SEC),
            1 => self.dice.range(3 * SEC, 15 * SEC),
            _ => self.dice.range(15 * SEC, 50 * SEC),
        };
        self.schedule_start(host, self.now + away);
    }

    fn crash_host(&mut self, host: usize, off_for: Time) {
        if !self.hosts[host].on {
            return;
        }
        self.coverage.host_crashes += 1;
        self.hosts[host].on = false;
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
        let boot_id = self.dice.uuid();
        let me = &mut self.hosts[host];
        if me.on {
            return;
        }
        me.on = true;
        me.boot += 1;
        me.boot_id = boot_id;
        me.clock = Clock::new(now, SEC, me.drift_ppm, 1_750_000_000_000);
        me.pages.clear();
        // No process of the old boot is left, and so no guard; its late writes are the disk's affair.
        me.ended = me.ended.map(|(_, at)| (0, at));
        let wait = self.dice.range(100 * MS, 3 * SEC);
        self.schedule_start(host, now + wait);
    }

    /// The machine is replaced by another one that is told to use the same slot.
    fn reinstall(&mut self, host: usize) {
        let slot = self.hosts[host].daemon.as_ref().map(|daemon| daemon.node).or(self.hosts[host].remembered);
        let off_for = self.dice.range(SEC, 40 * SEC);
        self.crash_host(host, off_for);
        let node_uuid: Uuid = self.dice.uuid();
        let me = &mut self.hosts[host];
        me.node_uuid = node_uuid;
        me.wish = slot;
        me.remembered = None;
    }

    fn shut_down(&mut self, host: usize) {
        if let Some(daemon) = self.hosts[host].daemon.as_mut() {
            daemon.stopping = true;
            let run = daemon.run;
            self.tell(host, run, Input::Shutdown);
        }
    }

    fn cut(&mut self, host: usize, other: usize, length: Time) {
        if host == other {
            return;
        }
        let pair = pair(host, other);
        if self.net.blocked.insert(pair) {
            self.coverage.partitions += 1;
            let notice = self.dice.range(500 * MS, 4 * SEC);
            self.schedule(self.now + notice, Event::PartitionNoticed { pair });
            self.schedule(self.now + length, Event::Unblock { pair });
        }
    }

    /// The operator's command on a host.
    pub fn ask_operator(&mut self, host: usize, request: AdminRequest) {
        let Some(conn) = self.open_conn(ConnOwner::Operator(host), host) else { return };
        let hello = Hello { version: CLIENT_PROTOCOL, resume: None, claims: Vec::new(), on_behalf_of: None };
        self.send_request(conn, Request::Hello(hello));
        self.send_request(conn, Request::Admin { id: conn.0, request });
    }

    /// The storm is over: everything is put right, and nobody asks for anything new.
    pub fn heal(&mut self) {
        self.storm = false;
        self.trace(|| "*** the storm is over".to_owned());
        let now = self.now;
        self.disk.stalled_until = now;
        self.disk.path_stalled_until.fill(now);
        for pair in self.net.blocked.clone() {
            self.unblock(pair);
        }
        for host in 0..self.hosts.len() {
            if let Some(run) = self.hosts[host].daemon.as_ref().map(|daemon| daemon.run) {
                self.resume(host, run);
            }
            self.power_on(host);
            if self.hosts[host].daemon.is_none() {
                // A slot whose owner was replaced while no master lived can be given to nobody: any other will do.
                self.hosts[host].wish = None;
            }
            if self.hosts[host].daemon.is_none() && self.hosts[host].starting.is_none() {
                self.schedule_start(host, now + 10 * MS);
            }
        }
    }
}
