//! The queue of events: what can happen, in which order it does, and what has to wait.

use super::{Conn, ConnOwner, World};
use crate::clock::{MS, Time};
use crate::dice::both;
use crate::faults::Fault;
use crate::net::Pair;
use mxlock_dlm::io::{ConnId, Input, IoFault, Region};
use mxlock_dlm::time::BootTime;
use mxlock_format::{NodeId, Process};
use mxlock_proto::client::{Request, Response};
use mxlock_proto::peer::PeerFrame;
use std::cmp::Reverse;

/// Something that happens at a time.
#[allow(missing_docs)]
pub enum Event {
    Start { host: usize },
    Wake { host: usize, run: u32 },
    Resume { host: usize, run: u32 },
    BeatTick { host: usize, run: u32 },
    BeatLook { host: usize, run: u32 },
    BeatWritten { host: usize, run: u32, result: Result<(), IoFault> },
    BeatRead { host: usize, run: u32, issued: BootTime, region: Box<Region> },
    BeatReadFailed { host: usize, run: u32, fault: IoFault },
    Land { write: u64, piece: u8 },
    WriteDone { write: u64 },
    Sample { read: u64 },
    CheckLink { pair: Pair },
    LinkUp { pair: Pair, conn: u64, end: usize },
    LinkDown { pair: Pair, end: usize, conn: u64 },
    BreakLink { pair: Pair },
    Frame { pair: Pair, conn: u64, end: usize, frame: Box<PeerFrame> },
    PartitionNoticed { pair: Pair },
    Unblock { pair: Pair, end: usize },
    Opened { conn: ConnId },
    Request { conn: ConnId, request: Box<Request> },
    Disconnected { conn: ConnId },
    Response { conn: ConnId, response: Box<Response> },
    ConnLost { conn: ConnId },
    ProcessGone { host: usize, run: u32, process: Process },
    ClientStep { client: usize },
    Connect { client: usize },
    Reborn { client: usize },
    PowerFails { host: usize },
    PowerOn { host: usize },
    EndClone { host: usize },
    PullPlug { host: usize, node: NodeId },
    FenceAck { host: usize, node: NodeId },
    Format,
    Fault { kind: Fault, ordinal: u32 },
}

pub(super) struct Due {
    at: Time,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl World {
    /// Plans an event.
    pub fn schedule(&mut self, at: Time, event: Event) {
        self.next_event += 1;
        self.queue.push(Reverse(Due { at: at.max(self.now), number: self.next_event, event }));
    }

    /// Lets everything happen up to `until`, or to the first broken rule.
    pub fn run_until(&mut self, until: Time) {
        while self.failure.is_none() && self.queue.peek().is_some_and(|Reverse(due)| due.at <= until) {
            let Some(Reverse(due)) = self.queue.pop() else { break };
            self.now = due.at;
            self.log.fold(due.at);
            self.log.fold(due.number);
            let until = self.waits_until(&due.event);
            if until > self.now {
                self.schedule(until, due.event);
            } else {
                self.dispatch(due.event);
            }
        }
        if self.failure.is_none() {
            self.now = until;
        }
    }

    /// Lets one event happen.
    pub fn dispatch(&mut self, event: Event) {
        match event {
            Event::Start { host } => self.start_daemon(host),
            Event::Wake { host, run } => self.wake(host, run),
            Event::Resume { host, run } => self.resume(host, run),
            Event::BeatTick { host, run } => self.beat_tick(host, run),
            Event::BeatLook { host, run } => self.beat_look(host, run),
            Event::BeatWritten { host, run, result } => self.beat_written(host, run, result),
            Event::BeatRead { host, run, issued, region } => self.beat_read(host, run, issued, region),
            Event::BeatReadFailed { host, run, fault } => self.beat_read_failed(host, run, fault),
            Event::Land { write, piece } => self.land(write, piece),
            Event::WriteDone { write } => self.write_done(write),
            Event::Sample { read } => self.sample(read),
            Event::CheckLink { pair } => self.check_link(pair),
            Event::LinkUp { pair, conn, end } => self.link_up(pair, conn, end),
            Event::LinkDown { pair, end, conn } => self.link_down(pair, end, conn),
            Event::BreakLink { pair } => self.break_link(pair, 20 * MS),
            Event::Frame { pair, conn, end, frame } => self.frame_arrives(pair, conn, end, frame),
            Event::PartitionNoticed { pair } => self.partition_noticed(pair),
            Event::Unblock { pair, end } => self.unblock(pair, end),
            Event::Opened { conn } => self.opened(conn),
            Event::Request { conn, request } => self.request_arrives(conn, *request),
            Event::Disconnected { conn } => self.disconnected(conn),
            Event::Response { conn, response } => self.client_hears(conn, *response),
            Event::ConnLost { conn } => self.conn_lost(conn),
            Event::ProcessGone { host, run, process } => {
                self.tell(host, run, Input::ProcessGone { process });
            }
            Event::ClientStep { client } => self.client_acts(client),
            Event::Connect { client } => {
                if self.scenario.has_client(client) {
                    self.draw_for_client(client, 1);
                    self.client_connect(client);
                }
            }
            Event::Reborn { client } => {
                if self.scenario.has_client(client) {
                    self.client_reborn(client);
                }
            }
            Event::PowerFails { host } => self.power_fails(host),
            Event::PowerOn { host } => self.power_on(host),
            Event::EndClone { host } => self.end_clone(host),
            Event::PullPlug { host, node } => self.pull_plug(host, node),
            Event::FenceAck { host, node } => self.fence_ack(host, node),
            Event::Format => self.format(),
            Event::Fault { kind, ordinal } => self.fault(kind, ordinal),
        }
    }

    /// Until when an event must wait, because the host on which it would happen sleeps, or its client is silent.
    fn waits_until(&self, event: &Event) -> Time {
        let (host, client) = match event {
            Event::Start { host }
            | Event::Wake { host, .. }
            | Event::Resume { host, .. }
            | Event::BeatTick { host, .. }
            | Event::BeatLook { host, .. }
            | Event::BeatWritten { host, .. }
            | Event::BeatRead { host, .. }
            | Event::BeatReadFailed { host, .. }
            | Event::ProcessGone { host, .. } => (*host, None),
            Event::WriteDone { write } => match self.disk.writes.get(write) {
                Some(write) => (write.by.host, None),
                None => return 0,
            },
            Event::Sample { read } => match self.disk.reads.get(read) {
                Some(read) => (read.by.host, None),
                None => return 0,
            },
            Event::LinkUp { pair, end, .. } | Event::LinkDown { pair, end, .. } | Event::Frame { pair, end, .. } => {
                ([pair.0, pair.1][*end], None)
            }
            Event::Opened { conn } | Event::Request { conn, .. } | Event::Disconnected { conn } => {
                match self.conns.get(conn) {
                    Some(conn) => (conn.host, None),
                    None => return 0,
                }
            }
            Event::Response { conn, .. } | Event::ConnLost { conn } => match self.conns.get(conn) {
                Some(Conn { host, owner: ConnOwner::Client(client), .. }) => (*host, Some(*client)),
                Some(conn) => (conn.host, None),
                None => return 0,
            },
            Event::ClientStep { client } | Event::Connect { client } => {
                (self.clients[*client].host, Some(*client).filter(|_| matches!(event, Event::ClientStep { .. })))
            }
            _ => return 0,
        };
        self.hosts[host].asleep_until.max(client.map_or(0, |client| self.silent_until[client]))
    }

    /// Each thing that a client does or hears has its own randomness.
    fn draw_for_client(&mut self, client: usize, what: usize) -> u32 {
        let ordinal = &mut self.ordinals[client][what];
        *ordinal += 1;
        let ordinal = *ordinal;
        let name = ["step", "connect", "notice"][what];
        self.clients[client].dice = self.dice(name, both(client, ordinal));
        ordinal
    }

    /// A client's turn: it acts, unless the scenario leaves this step out.
    fn client_acts(&mut self, client: usize) {
        if !self.scenario.has_client(client) {
            return;
        }
        let step = self.draw_for_client(client, 0);
        if !self.storm || self.scenario.has_step(client, step) {
            self.steps.push((client, step));
            self.client_step(client);
        } else if self.clients[client].alive {
            let wait = self.clients[client].dice.spread(self.setup.think);
            self.schedule(self.now + wait, Event::ClientStep { client });
        }
    }

    fn client_hears(&mut self, conn: ConnId, response: Response) {
        if let Some(Conn { owner: ConnOwner::Client(client), .. }) = self.conns.get(&conn) {
            self.draw_for_client(*client, 2);
        }
        self.response_arrives(conn, response);
    }
}
