//! A host and its daemon as the core's driver: the event loop, the heartbeat thread, the lease page, pauses.

use crate::clock::{Clock, MS, SEC, Time, US};
use crate::coverage::Coverage;
use crate::disk::{Issuer, Piece, Purpose};
use crate::oracle::Rule;
use crate::world::{Event, World};
use mxlock_dlm::Core;
use mxlock_dlm::event::{Event as Said, StopReason};
use mxlock_dlm::io::{Beat, BeatRead, BeatWrite, ConnId, ImageId, Input, IoFault, IoId, Output, TableChunk};
use mxlock_dlm::time::BootTime;
use mxlock_format::{Heartbeat, Incarnation, NodeId, NodeState, RECORD_BYTES, SectorImage, Uuid, View};
use mxlock_proto::client::{Answer, Denial, Response};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A machine.
pub struct Host {
    /// Its clock since its last boot.
    pub clock: Clock,
    /// How fast its clocks run.
    pub drift_ppm: i64,
    /// Which boot it is.
    pub boot: u32,
    /// Whether it is on.
    pub on: bool,
    /// Which installation.
    pub node_uuid: Uuid,
    /// Which boot, as on disk.
    pub boot_id: Uuid,
    /// `--node`.
    pub wish: Option<NodeId>,
    /// The slot that its state directory remembers.
    pub remembered: Option<NodeId>,
    /// The daemon, when it runs.
    pub daemon: Option<Daemon>,
    /// The run that is reading the region before its start.
    pub starting: Option<u32>,
    /// The last run, and when it ended.
    pub ended: Option<(u32, Time)>,
    /// When a start is due.
    pub start_at: Option<Time>,
    /// Lease pages by daemon run; a page outlives its daemon.
    pub pages: BTreeMap<u32, Option<BootTime>>,
}

/// What is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// The core's thread only.
    Core,
    /// The whole process.
    Process,
}

/// A running daemon.
pub struct Daemon {
    /// Unique in the world.
    pub run: u32,
    /// The code under test.
    pub core: Box<Core>,
    /// Its slot.
    pub node: NodeId,
    /// Its incarnation, on links.
    pub incarnation: Incarnation,
    /// Its incarnation, as it last published it.
    pub shown: Incarnation,
    /// Inputs not handled yet.
    pub inbox: VecDeque<Input>,
    /// When a wake-up is scheduled.
    pub wake_at: Option<Time>,
    /// Wake-ups without time passing: a core that asks for ever more of them spins.
    pub spins: u32,
    /// Whether it is paused.
    pub paused: Option<Pause>,
    /// Steps of the heartbeat thread that wait for the end of a pause.
    pub held_steps: Vec<Event>,
    /// The heartbeat thread.
    pub thread: Thread,
    /// When the core last ran.
    pub last_core_run: Time,
    /// Peers to keep links with.
    pub peers: BTreeMap<NodeId, Incarnation>,
    /// Processes to watch.
    pub watched: BTreeSet<u32>,
    /// Open client connections.
    pub conns: BTreeSet<ConnId>,
    /// The newest committed view that it has told of.
    pub view: Option<View>,
    /// It has resigned as master, and says so in its heartbeat.
    pub resigned: bool,
    /// Record sectors that it is writing.
    pub writing: BTreeMap<IoId, (u32, u32)>,
    /// It was told to stop.
    pub stopping: bool,
    /// Inputs since the invariants were last checked.
    pub unchecked: u32,
}

/// The heartbeat thread's state.
#[derive(Default)]
pub struct Thread {
    newest: Option<(ImageId, Box<Heartbeat>)>,
    hb_seq: u64,
    busy: bool,
    urgent: bool,
    last_start: Time,
    wrote_at: Option<Time>,
    tick_at: Option<Time>,
    write: Option<BeatWrite>,
}

impl Host {
    /// A machine that is switched on at `now`.
    pub fn new(now: Time, drift_ppm: i64, offset: Time, node_uuid: Uuid, boot_id: Uuid) -> Host {
        Host {
            clock: Clock::new(now, offset, drift_ppm, 1_750_000_000_000),
            drift_ppm,
            boot: 0,
            on: true,
            node_uuid,
            boot_id,
            wish: None,
            remembered: None,
            daemon: None,
            starting: None,
            ended: None,
            start_at: None,
            pages: BTreeMap::new(),
        }
    }

    /// Whether the lease page of `run` says that its lease stands.
    pub fn page_valid(&self, run: u32, now: Time) -> bool {
        self.on && self.pages.get(&run).copied().flatten().is_some_and(|until| self.clock.boot(now) < until)
    }
}

impl Daemon {
    /// Whether it believes to be master: its newest view names it, it has not resigned, its lease stands.
    pub fn acts_as_master(&self, host: &Host, now: Time) -> bool {
        self.view.is_some_and(|view| view.master == self.node && view.master_incarnation == self.shown)
            && !self.resigned
            && host.page_valid(self.run, now)
    }
}

impl World {
    /// The running daemon of a host, if it is the run that is meant.
    pub fn daemon(&mut self, host: usize, run: u32) -> Option<&mut Daemon> {
        self.hosts[host].daemon.as_mut().filter(|daemon| daemon.run == run)
    }

    /// Starts a daemon as soon as the per-node guard is free: its last run's writes have ended (section 8).
    pub fn start_daemon(&mut self, host: usize) {
        let me = &self.hosts[host];
        if !me.on || me.daemon.is_some() || me.starting.is_some() || me.start_at.is_none_or(|at| at > self.now) {
            return;
        }
        if me.ended.is_some_and(|(run, _)| self.disk.has_writes_of(run)) {
            self.schedule_start(host, self.now + 50 * MS);
            return;
        }
        self.hosts[host].start_at = None;
        self.next_run += 1;
        let run = self.next_run;
        self.hosts[host].starting = Some(run);
        self.read_disk(host, run, Purpose::Start, None);
    }

    /// Plans a start.
    pub fn schedule_start(&mut self, host: usize, at: Time) {
        self.hosts[host].start_at = Some(at);
        self.schedule(at, Event::Start { host });
    }

    /// The region was read before the start: chooses a slot and makes a core.
    pub fn region_for_start(&mut self, host: usize, run: u32, region: Box<mxlock_dlm::io::Region>) {
        let now = self.now;
        let me = &mut self.hosts[host];
        if me.starting != Some(run) {
            return;
        }
        me.starting = None;
        let candidates = mxlock_dlm::cluster::candidates(&region, me.wish, me.remembered, me.node_uuid, me.boot_id);
        // No guard of another daemon is in the way: a host runs one, and guards do not reach other hosts.
        let candidate = match candidates.map(|all| all.into_iter().next()) {
            Ok(Some(candidate)) => candidate,
            other => {
                self.trace(|| format!("h{host}: no slot to be had: {other:?}"));
                self.schedule_start(host, now + 2 * SEC);
                return;
            }
        };
        let node = candidate.node;
        let incarnation = Incarnation(self.dice.bits() | 1);
        let config = self.config(host, node, incarnation);
        let me = &mut self.hosts[host];
        if let Ok(old) = &region[node.index()]
            && !matches!(old.state, NodeState::Empty)
            && old.node_uuid != me.node_uuid
        {
            self.coverage.slot_takeovers += 1;
        }
        if let Some((_, ended)) = me.ended {
            let lease = u64::from(self.timing.lease_ms) * MS;
            *(if now - ended < lease {
                &mut self.coverage.restarts_within_lease
            } else {
                &mut self.coverage.restarts_beyond_lease
            }) += 1;
        }
        let core = Box::new(Core::new(me.clock.now(now), config, candidate, &region));
        me.daemon = Some(Daemon {
            run,
            core,
            node,
            incarnation,
            shown: incarnation,
            inbox: VecDeque::new(),
            wake_at: None,
            spins: 0,
            paused: None,
            held_steps: Vec::new(),
            thread: Thread::default(),
            last_core_run: now,
            peers: BTreeMap::new(),
            watched: BTreeSet::new(),
            conns: BTreeSet::new(),
            view: None,
            resigned: false,
            writing: BTreeMap::new(),
            stopping: false,
            unchecked: 0,
        });
        self.trace(|| format!("h{host}: daemon run {run} starts as node {node}, {incarnation:?}"));
        self.run_core(host);
        self.beat_at(host, now);
    }

    /// Ends the daemon's process; what it has in flight goes on.
    pub fn end_daemon(&mut self, host: usize) {
        self.hosts[host].starting = None;
        let Some(daemon) = self.hosts[host].daemon.take() else { return };
        self.hosts[host].ended = Some((daemon.run, self.now));
        for conn in daemon.conns {
            self.close_towards_client(conn);
        }
        self.break_links_of(host);
        self.trace(|| format!("h{host}: daemon run {} has ended", daemon.run));
    }

    /// Hands an input to a daemon.
    pub fn tell(&mut self, host: usize, run: u32, input: Input) {
        if let Some(daemon) = self.daemon(host, run) {
            daemon.inbox.push_back(input);
            self.run_core(host);
        }
    }

    /// Handles what is in the inbox, draining the outputs after each input, unless the core is paused.
    pub fn run_core(&mut self, host: usize) {
        loop {
            loop {
                if self.failure.is_some() {
                    return;
                }
                let pause = self.storm && self.dice.chance(self.setup.pause_between_outputs_ppm);
                let Some(daemon) = self.hosts[host].daemon.as_mut().filter(|daemon| daemon.paused.is_none()) else {
                    return;
                };
                let Some(output) = daemon.core.poll_output() else { break };
                self.carry_out(host, output);
                if pause {
                    let length = self.dice.range(10 * MS, 12 * SEC);
                    self.pause(host, Pause::Process, length);
                }
            }
            let now = self.now;
            let me = &mut self.hosts[host];
            let boot_now = me.clock.now(now);
            let Some(daemon) = me.daemon.as_mut() else { return };
            let Some(input) = daemon.inbox.pop_front() else { break };
            if self.log.on {
                self.log.line(now, &format!("h{host} <- {}", short(&format!("{input:?}"))));
            }
            self.coverage.inputs += 1;
            daemon.last_core_run = now;
            daemon.core.handle(boot_now, input);
            daemon.unchecked += 1;
            if daemon.unchecked >= 64 {
                daemon.unchecked = 0;
                let verdict = daemon.core.check_invariants();
                self.judge(Rule::Memory, verdict.map_err(|error| format!("host {host}: {error}")));
            }
        }
        self.plan_wakeup(host);
    }

    fn plan_wakeup(&mut self, host: usize) {
        let now = self.now;
        let me = &mut self.hosts[host];
        let Some(daemon) = me.daemon.as_mut() else { return };
        let Some(wakeup) = daemon.core.next_wakeup() else { return };
        let mut at = me.clock.when(wakeup);
        if at <= now {
            daemon.spins += 1;
            at = now + US;
        } else {
            daemon.spins = 0;
        }
        let (spins, run) = (daemon.spins, daemon.run);
        if daemon.wake_at.is_none_or(|planned| at < planned) {
            daemon.wake_at = Some(at);
            self.schedule(at, Event::Wake { host, run });
        }
        if spins > 100_000 {
            self.fail(
                Rule::Liveness,
                format!("the core of host {host} asks to be woken at a time that is past, for ever"),
            );
        }
    }

    /// A planned wake-up is due.
    pub fn wake(&mut self, host: usize, run: u32) {
        let now = self.now;
        let boot = self.hosts[host].clock.boot(now);
        let Some(daemon) = self.daemon(host, run) else { return };
        if daemon.wake_at != Some(now) {
            return;
        }
        daemon.wake_at = None;
        if daemon.paused.is_some() {
            return;
        }
        if daemon.core.next_wakeup().is_some_and(|wakeup| wakeup <= boot) {
            self.tell(host, run, Input::Tick);
        } else {
            self.plan_wakeup(host);
        }
    }

    /// Pauses a daemon for some true time.
    pub fn pause(&mut self, host: usize, what: Pause, length: Time) {
        let now = self.now;
        let Some(daemon) = self.hosts[host].daemon.as_mut().filter(|daemon| daemon.paused.is_none()) else { return };
        daemon.paused = Some(what);
        let run = daemon.run;
        self.coverage.pauses += 1;
        self.trace(|| format!("h{host}: {what:?} paused for {} ms", length / MS));
        self.schedule(now + length, Event::Resume { host, run });
    }

    /// Ends a pause.
    pub fn resume(&mut self, host: usize, run: u32) {
        let Some(daemon) = self.daemon(host, run) else { return };
        if daemon.paused.take().is_none() {
            return;
        }
        let steps = std::mem::take(&mut daemon.held_steps);
        self.trace(|| format!("h{host}: goes on"));
        for step in steps {
            self.dispatch(step);
        }
        // After a pause there is something to do: time has passed.
        self.tell(host, run, Input::Tick);
    }

    /// Whether a step of the heartbeat thread must wait for the end of a pause.
    fn hold_step(&mut self, host: usize, run: u32, step: Event) -> Option<Event> {
        match self.daemon(host, run) {
            Some(daemon) if daemon.paused == Some(Pause::Process) => {
                daemon.held_steps.push(step);
                None
            }
            Some(_) => Some(step),
            None => None,
        }
    }

    fn beat_at(&mut self, host: usize, at: Time) {
        let Some(daemon) = self.hosts[host].daemon.as_mut() else { return };
        daemon.thread.tick_at = Some(at);
        let run = daemon.run;
        self.schedule(at, Event::BeatTick { host, run });
    }

    /// Begins a beat at once, or right after the one under way.
    fn beat_soon(&mut self, host: usize) {
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
            self.beat_at(host, now + renew);
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
            let at = now + self.disk.dice.range(20 * US, 2 * MS);
            return self.schedule(at, Event::BeatLook { host, run });
        }
        self.beat_write(host, run);
    }

    /// The own sector is looked at before a write: another node's is not written over.
    pub fn beat_look(&mut self, host: usize, run: u32) {
        let Some(_) = self.hold_step(host, run, Event::BeatLook { host, run }) else { return };
        let held = self.disk.held_until(host);
        if held > self.now {
            return self.schedule(held, Event::BeatLook { host, run });
        }
        let (node_uuid, boot_id) = (self.hosts[host].node_uuid, self.hosts[host].boot_id);
        let Some(node) = self.daemon(host, run).map(|daemon| daemon.node) else { return };
        let own = |found: &Heartbeat| (found.node_uuid, found.boot_id) == (node_uuid, boot_id);
        if self.disk.heartbeats[node.index()].as_ref().is_ok_and(own) {
            self.beat_write(host, run);
        } else {
            self.read_disk(host, run, Purpose::Beat, None);
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
        thread.hb_seq += 1;
        let mut stamped = heartbeat.clone();
        stamped.hb_seq = thread.hb_seq;
        stamped.timestamp_ms = boot.wall_ms;
        stamped.boottime_ns = boot.boot.0;
        let write = BeatWrite { image: *image, hb_seq: thread.hb_seq, started: boot.boot, result: Ok(()) };
        thread.write = Some(write);
        let (node, sector) = (stamped.node, Box::new(stamped.encode()));
        self.write_disk(host, run, Purpose::Beat, vec![Piece::Heartbeat(node, sector)]);
    }

    /// The heartbeat thread's write has ended: read, unless it failed.
    pub fn beat_written(&mut self, host: usize, run: u32, result: Result<(), IoFault>) {
        let step = Event::BeatWritten { host, run, result: result.clone() };
        if self.hold_step(host, run, step).is_none() {
            return;
        }
        let failed = result.is_err();
        let Some(daemon) = self.daemon(host, run) else { return };
        if !failed {
            daemon.thread.wrote_at = Some(daemon.thread.last_start);
        }
        if let Some(write) = &mut daemon.thread.write {
            write.result = result;
        }
        if failed {
            self.finish_beat(host, run, None);
        } else {
            self.read_disk(host, run, Purpose::Beat, None);
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
        self.tell(host, run, Input::Beat(Beat { write, read }));
    }

    /// Carries one output out.
    fn carry_out(&mut self, host: usize, output: Output) {
        let now = self.now;
        if self.log.on {
            self.log.line(now, &format!("h{host} -> {}", short(&format!("{output:?}"))));
        }
        let node_uuid = self.hosts[host].node_uuid;
        let Some(daemon) = self.hosts[host].daemon.as_mut() else { return };
        let run = daemon.run;
        match output {
            Output::Heartbeat { image, heartbeat, urgent } => {
                let own = heartbeat.node == daemon.node && heartbeat.node_uuid == node_uuid;
                daemon.shown = heartbeat.incarnation;
                daemon.resigned = heartbeat.state == NodeState::Resigned;
                daemon.thread.newest = Some((image, heartbeat));
                if !own {
                    self.fail(Rule::I6, format!("host {host} publishes a heartbeat that is not its own"));
                }
                if urgent {
                    self.beat_soon(host);
                }
            }
            Output::Look => self.beat_soon(host),
            Output::Lease { until } => self.set_page(host, run, until),
            Output::WriteRecord { io, slot, image, deadline } => {
                let bytes = image.map_or_else(|| SectorImage::zeroed().0.to_vec(), |image| image.0.to_vec());
                self.write_records(host, io, slot, bytes, deadline);
            }
            Output::WriteTable { io, first_slot, count, deadline } => {
                let mirror = daemon.core.mirror();
                let mut bytes = Vec::with_capacity(count as usize * RECORD_BYTES);
                for slot in first_slot..first_slot + count {
                    bytes.extend_from_slice(&mirror.image(slot)[..]);
                }
                self.write_records(host, io, first_slot, bytes, deadline);
            }
            Output::ReadTable { io, first_slot, count } => {
                self.read_disk(host, run, Purpose::Core(io), Some((first_slot, count)));
            }
            Output::Quarantine { slot, reason, .. } => {
                self.fail(Rule::I11, format!("host {host} finds slot {slot} damaged, which nobody damaged: {reason}"));
            }
            Output::NewIncarnation { incarnation } => {
                daemon.incarnation = incarnation;
                self.break_links_of(host);
            }
            Output::Peers(peers) => {
                daemon.peers = peers.into_iter().map(|peer| (peer.node, peer.incarnation)).collect();
                self.check_links_of(host);
            }
            Output::Send { to, frame } => self.send_frame(host, to, frame),
            Output::Reply { conn, response, valid_until } => self.reply(host, conn, response, valid_until),
            Output::Close { conn } => self.close_towards_client(conn),
            Output::Watch { process } => {
                daemon.watched.insert(process.pid);
                if !self.process_lives(process.pid) {
                    self.schedule(now + MS, Event::ProcessGone { host, run, process });
                }
            }
            Output::Unwatch { process } => {
                daemon.watched.remove(&process.pid);
            }
            Output::Log(said) => self.hear(host, said),
            Output::Stop { reason } => {
                self.trace(|| format!("h{host}: stops: {reason}"));
                let wait = match reason {
                    StopReason::Shutdown | StopReason::Left => self.setup.stopped_for,
                    _ => self.dice.range(500 * MS, 3 * SEC),
                };
                self.end_daemon(host);
                self.schedule_start(host, now + wait);
            }
        }
    }

    fn set_page(&mut self, host: usize, run: u32, until: Option<BootTime>) {
        let was_valid = self.hosts[host].page_valid(run, self.now);
        self.hosts[host].pages.insert(run, until);
        if !was_valid && self.hosts[host].page_valid(run, self.now) {
            self.page_revived(host, run);
        }
    }

    fn write_records(&mut self, host: usize, io: IoId, first: u32, bytes: Vec<u8>, deadline: BootTime) {
        let now = self.now;
        let count = (bytes.len() / RECORD_BYTES) as u32;
        let me = &self.hosts[host];
        let boot = me.clock.boot(now);
        let Some(daemon) = &me.daemon else { return };
        let (run, acts) = (daemon.run, daemon.acts_as_master(me, now));
        let overlap = daemon.writing.values().any(|&(at, length)| first < at + length && at < first + count);
        if boot > deadline {
            self.expire(host, run, io);
            return;
        }
        if overlap {
            self.fail(Rule::I6, format!("host {host} writes slot {first} (+{count}) while a write of it is in flight"));
        }
        if !acts {
            self.fail(
                Rule::I6,
                format!("host {host} writes slot {first} (+{count}) without being master in its lease"),
            );
        }
        if let Some(other) = self.other_master(host) {
            self.fail(Rule::I4, format!("host {host} writes records while host {other} acts as master"));
        }
        if let Some(daemon) = self.daemon(host, run) {
            daemon.writing.insert(io, (first, count));
        }
        let pieces = split(first, bytes, count);
        self.write_disk(host, run, Purpose::Core(io), pieces);
    }

    fn expire(&mut self, host: usize, run: u32, io: IoId) {
        if let Some(daemon) = self.daemon(host, run) {
            daemon.inbox.push_back(Input::Written { io, result: Err(IoFault::Expired) });
        }
    }

    /// Another host's daemon that acts as master now.
    pub fn other_master(&self, host: usize) -> Option<usize> {
        self.hosts.iter().enumerate().position(|(other, them)| {
            other != host && them.daemon.as_ref().is_some_and(|daemon| daemon.acts_as_master(them, self.now))
        })
    }

    /// A reply goes to its client, unless its promise has ended (section 2).
    fn reply(&mut self, host: usize, conn: ConnId, response: Response, valid_until: Option<BootTime>) {
        let boot = self.hosts[host].clock.boot(self.now);
        if let (Some(until), Response::Answer { seq, op, .. }) = (valid_until, &response)
            && boot >= until
        {
            let (seq, op) = (*seq, *op);
            if let Some(daemon) = self.hosts[host].daemon.as_mut() {
                daemon.inbox.push_back(Input::Undelivered { conn, seq, op });
            }
            self.respond(conn, Response::Answer { seq, op, answer: Answer::Denied(Denial::LeaseLost) });
            return;
        }
        if let Response::Answer { seq, answer: Answer::Granted(grant) | Answer::GrantedDemoted(grant), .. } = &response
        {
            if valid_until.is_none() {
                self.fail(Rule::I1, format!("host {host} promises a lock without saying until when"));
            }
            self.check_record_before_telling(host, conn, *seq, grant.mode);
        }
        self.respond(conn, response);
    }

    /// What a core says happened: coverage, and what the oracle of views needs.
    fn hear(&mut self, host: usize, said: Said) {
        let now = self.now;
        self.log.fold(host as u64);
        self.trace(|| format!("h{host}: {said}"));
        count(&mut self.coverage, &said);
        let Some(daemon) = self.hosts[host].daemon.as_mut() else { return };
        match said {
            Said::SlotConfirmed { node } => self.hosts[host].remembered = Some(node),
            Said::Resigned { .. } => daemon.resigned = true,
            Said::ViewCommitted { view, .. } => {
                let older = daemon.view.is_some_and(|known| view.epoch < known.epoch);
                daemon.view = Some(view);
                let acts = self.hosts[host].daemon.as_ref().is_some_and(|d| d.acts_as_master(&self.hosts[host], now));
                if older {
                    self.fail(Rule::I4, format!("host {host} goes back to view {}", view.epoch));
                }
                let seen = self.oracles.views.committed(view, now);
                self.judge(Rule::I4, seen);
                if acts && let Some(other) = self.other_master(host) {
                    self.fail(Rule::I4, format!("hosts {host} and {other} both act as master"));
                }
            }
            _ => {}
        }
    }
}

fn count(coverage: &mut Coverage, said: &Said) {
    match said {
        Said::ElectionLost { .. } => coverage.elections_lost += 1,
        Said::ValueAdopted { .. } => coverage.values_adopted += 1,
        Said::LeaseLost => coverage.leases_lost += 1,
        Said::LeaseRegained { .. } => coverage.leases_regained += 1,
        Said::Resigned { .. } => coverage.resignations += 1,
        Said::ClaimsJudged { standing, .. } => coverage.claims_stood += standing,
        Said::ScrubRepaired { .. } => coverage.scrub_repairs += 1,
        Said::RecoveryReports { waiters, possible_holders, .. } => {
            coverage.recoveries_with_waiters += u64::from(*waiters > 0);
            coverage.recoveries_with_possible_holders += u64::from(*possible_holders > 0);
        }
        _ => {}
    }
}

/// Large table writes land in up to four pieces.
fn split(first: u32, bytes: Vec<u8>, count: u32) -> Vec<Piece> {
    if count < 8 {
        return vec![Piece::Records(first, bytes)];
    }
    let part = count.div_ceil(4) as usize;
    bytes
        .chunks(part * RECORD_BYTES)
        .enumerate()
        .map(|(at, chunk)| Piece::Records(first + (at * part) as u32, chunk.to_vec()))
        .collect()
}

fn short(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl World {
    /// Issues a write.
    fn write_disk(&mut self, host: usize, run: u32, purpose: Purpose, pieces: Vec<Piece>) {
        let by = Issuer { host, boot: self.hosts[host].boot, run };
        // A2 on the issuer's own clock, less a little for rounding.
        let a2 = u64::from(self.timing.dead_ms) * MS * 100 / 105 - u64::from(self.timing.lease_ms) * MS - MS;
        let limit = self.now + self.hosts[host].clock.true_length(a2);
        let (write, due) = self.disk.write(self.now, by, purpose, limit, pieces);
        for (piece, at) in due {
            self.schedule(at, Event::Land { write, piece });
        }
    }

    /// Issues a read.
    fn read_disk(&mut self, host: usize, run: u32, purpose: Purpose, slots: Option<(u32, u32)>) {
        let by = Issuer { host, boot: self.hosts[host].boot, run };
        let (read, due) = self.disk.read(self.now, by, purpose, slots);
        for at in due {
            self.schedule(at, Event::Sample { read });
        }
    }

    /// A piece of a write is due to land.
    pub fn land(&mut self, id: u64, piece: u8) {
        let now = self.now;
        let Some(write) = self.disk.writes.get_mut(&id) else { return };
        let (by, limit) = (write.by, write.limit);
        let host = &self.hosts[by.host];
        if host.boot != by.boot || !host.on {
            if !write.doomed {
                write.doomed = true;
                if self.disk.dice.chance(500_000) {
                    self.coverage.writes_lost += 1;
                    self.disk.writes.remove(&id);
                    return;
                }
            }
            if write.issued < limit && now < limit && self.disk.dice.chance(700_000) {
                let at = self.disk.dice.range(now + 1, limit);
                self.schedule(at, Event::Land { write: id, piece });
                return;
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
        let Some(what) = write.pieces.remove(&piece) else { return };
        let mut done_at = now + 20 * US;
        let mut lands = now <= limit;
        if held > now || !lands {
            // Held up beyond A2: it ends in an error when the path is back, and has landed or not.
            lands &= self.disk.dice.chance(500_000);
            if let Some(write) = self.disk.writes.get_mut(&id) {
                write.result = Err(IoFault::Failed("the device did not answer in time".into()));
            }
            done_at = done_at.max(held);
        }
        if lands {
            self.landed(what);
        }
        if self.disk.writes.get(&id).is_some_and(|write| write.pieces.is_empty()) {
            self.schedule(done_at, Event::WriteDone { write: id });
        }
    }

    /// A write has ended.
    pub fn write_done(&mut self, id: u64) {
        let Some(write) = self.disk.writes.remove(&id) else { return };
        let (host, run) = (write.by.host, write.by.run);
        if self.hosts[host].boot != write.by.boot {
            return;
        }
        match write.purpose {
            Purpose::Beat => self.beat_written(host, run, write.result),
            Purpose::Core(io) => {
                if let Some(daemon) = self.daemon(host, run) {
                    daemon.writing.remove(&io);
                }
                self.tell(host, run, Input::Written { io, result: write.result });
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
        let issued = self.hosts[by.host].clock.boot(read.issued);
        match (read.purpose, read.slots) {
            (Purpose::Start, _) => self.region_for_start(by.host, by.run, read.into_region()),
            (Purpose::Core(io), Some((first_slot, _))) => {
                let chunk = TableChunk { first_slot, bytes: read.into_bytes(), unreadable: Vec::new() };
                self.tell(by.host, by.run, Input::TableRead { io, result: Ok(chunk) });
            }
            _ => self.beat_read(by.host, by.run, issued, read.into_region()),
        }
    }
}
