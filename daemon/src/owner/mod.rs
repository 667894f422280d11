//! The owner thread: one loop that runs the core, with everything else around it.
//!
//! Each turn takes everything that is ready, hands it to the core input by input, carries out what the core wants, and
//! issues all of that with the one system call that also waits for more (DESIGN section 2; STYLE, "one owner task").
//!
//! | file | subject |
//! |---|---|
//! | `clients` | unix connections |
//! | `peers`, `link` | TCP links |
//! | `stream`, `slab`, `token` | what both are made of |
//! | `wake`, `watch` | other things that wake the loop; client processes |
//! | `page` | the lease page |
//! | `table_io`, `files` | table reads and writes; the state directory |
//! | `story` | the log, and the service manager's status line |

mod clients;
mod files;
mod link;
mod page;
#[cfg(test)]
mod peer_tests;
mod peers;
mod slab;
mod story;
mod stream;
mod table_io;
mod token;
mod wake;
mod watch;

pub(crate) use files::Files;
pub(crate) use peers::Own;

use crate::error::{Failure, Kind};
use crate::host::listen::ClientListener;
use crate::host::process::command_name;
use crate::host::signals::Signals;
use crate::limits::{ACCEPT_PAUSE, SHUTDOWN_TIME, SPIN, SPIN_AFTER};
use clients::Clients;
use crossbeam_channel::Receiver;
use files::FileJob;
use mxlock_disklock::io::{Backend, Event as LoopEvent, EventLoop, Outcome, RecordDone, RecordWrite};
use mxlock_disklock::{HeartbeatThread, RecordNote, boottime_ns, realtime_ms};
use mxlock_dlm::Core;
use mxlock_dlm::event::{Event, StopReason};
use mxlock_dlm::io::{Beat, BeatRead, BeatWrite, ImageId, Input, Output};
use mxlock_dlm::time::{BootTime, Now};
use nix::sys::eventfd::EventFd;
use page::SharedPage;
use peers::Peers;
use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
pub(crate) use story::Story;
use table_io::TableIo;
use token::Token;
use wake::{Wake, WakeSet};
use watch::ProcessWatch;

/// What the owner thread works with.
pub(crate) struct Parts<'a> {
    pub(crate) core: Core,
    pub(crate) io: Box<dyn EventLoop>,
    pub(crate) heart: HeartbeatThread,
    pub(crate) record_note: RecordNote,
    pub(crate) beats: Receiver<mxlock_disklock::Beat>,
    /// Written after each beat.
    pub(crate) kick: Arc<EventFd>,
    /// CLOCK_BOOTTIME of the last turn, for the heartbeat thread.
    pub(crate) alive: Arc<AtomicU64>,
    pub(crate) own: Own,
    pub(crate) grace_ms: u32,
    pub(crate) clients: &'a ClientListener,
    pub(crate) peers: &'a TcpListener,
    pub(crate) files: &'a Files,
    pub(crate) signals: &'a mut Signals,
    pub(crate) story: &'a mut Story,
    /// Called on SIGHUP.
    pub(crate) reload: &'a mut dyn FnMut(),
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) reason: StopReason,
    /// The slot was confirmed before.
    pub(crate) confirmed: bool,
    /// No write is under way any more.
    pub(crate) writes_ended: bool,
}

/// The owner thread's state.
pub(crate) struct Owner<'a> {
    core: Core,
    io: Box<dyn EventLoop>,
    heart: HeartbeatThread,
    record_note: RecordNote,
    beats: Receiver<mxlock_disklock::Beat>,
    kick: Arc<EventFd>,
    alive: Arc<AtomicU64>,
    client_listener: &'a ClientListener,
    peer_listener: &'a TcpListener,
    files: &'a Files,
    signals: &'a mut Signals,
    story: &'a mut Story,
    reload: &'a mut dyn FnMut(),
    clients: Clients,
    peers: Peers,
    page: SharedPage,
    table: TableIo,
    processes: ProcessWatch,
    wakes: WakeSet,
    renew: Duration,
    /// What the core is still to be told.
    inputs: VecDeque<Input>,
    /// SIGTERM came: the core has until then.
    stop_by: Option<Instant>,
    stopped: Option<StopReason>,
    confirmed: bool,
    next_sweep: BootTime,
    /// Listeners whose accept failed, and when they are tried again.
    paused: Vec<(BootTime, Token)>,
}

fn boot() -> BootTime {
    BootTime(boottime_ns())
}

fn now() -> Now {
    Now { boot: boot(), wall_ms: realtime_ms() }
}

impl<'a> Owner<'a> {
    /// Puts the parts together and starts to listen.
    pub(crate) fn new(parts: Parts<'a>) -> Result<Owner<'a>, Failure> {
        let failed =
            |what: &str, error: &io::Error| Failure::new(Kind::Io, format_args!("cannot make {what}: {error}"));
        let wakes = WakeSet::new().map_err(|e| failed("an epoll set", &e))?;
        wakes.when_readable(&*parts.signals, Wake::Signal).map_err(|e| failed("an epoll set", &e))?;
        wakes.when_readable(&*parts.kick, Wake::Beat).map_err(|e| failed("an epoll set", &e))?;
        let page = SharedPage::new(parts.own.incarnation, parts.grace_ms).map_err(|e| failed("the lease page", &e))?;
        // A ring waits by itself and would hand EAGAIN back; epoll must never wait in accept.
        let nonblocking = parts.io.backend() == Backend::Threads;
        let set = parts.clients.socket.set_nonblocking(nonblocking).and(parts.peers.set_nonblocking(nonblocking));
        set.map_err(|e| failed("listening sockets", &e))?;
        let mut owner = Owner {
            renew: parts.own.renew,
            core: parts.core,
            io: parts.io,
            heart: parts.heart,
            record_note: parts.record_note,
            beats: parts.beats,
            kick: parts.kick,
            alive: parts.alive,
            client_listener: parts.clients,
            peer_listener: parts.peers,
            files: parts.files,
            signals: parts.signals,
            story: parts.story,
            reload: parts.reload,
            clients: Clients::default(),
            peers: Peers::new(parts.own),
            page,
            table: TableIo::default(),
            processes: ProcessWatch::default(),
            wakes,
            inputs: VecDeque::new(),
            stop_by: None,
            stopped: None,
            confirmed: false,
            next_sweep: BootTime(0),
            paused: Vec::new(),
        };
        owner.accept(Token::ClientAccept);
        owner.accept(Token::PeerAccept);
        owner.io.poll_readable(owner.wakes.as_fd(), Token::Wake.into());
        Ok(owner)
    }

    /// Runs until the core stops, or the time to hand over is up.
    pub(crate) fn run(mut self) -> Result<Ended, Failure> {
        let mut events = Vec::new();
        let mut done = Vec::new();
        let mut last_work = Instant::now();
        self.drain_outputs();
        self.settle();
        let reason = loop {
            let worked = self.turn(&mut events, &mut done, last_work)?;
            if worked {
                last_work = Instant::now();
            }
            if let Some(reason) = self.stopped.take() {
                break reason;
            }
            if self.stop_by.is_some_and(|by| Instant::now() >= by) {
                tracing::warn!("the core has not handed over within {} s: stopping without", SHUTDOWN_TIME.as_secs());
                break StopReason::Shutdown;
            }
        };
        if !matches!(reason, StopReason::Shutdown | StopReason::Left) {
            // Nobody renews the lease any more. After SIGTERM it runs on: the node stays a member, its clients keep their
            // locks until they reach the next daemon, or the lease ends.
            self.page.set(None);
        }
        let confirmed = self.confirmed;
        let writes_ended = self.finish(&mut events);
        Ok(Ended { reason, confirmed, writes_ended })
    }

    /// One turn; whether there was anything to do.
    fn turn(
        &mut self,
        events: &mut Vec<LoopEvent>,
        done: &mut Vec<RecordDone>,
        last_work: Instant,
    ) -> Result<bool, Failure> {
        self.wait(events, done, last_work)?;
        self.alive.store(boottime_ns(), Ordering::Release);
        self.story.notifier.feed(Instant::now());
        for event in events.drain(..) {
            self.event(event);
        }
        for done in done.drain(..) {
            if done.may_land_later() {
                // Before anybody makes something of it: a daemon that is killed now must not have its successor believe that all is written.
                self.record_note.failed(boottime_ns());
            }
            let input = self.table.done(done);
            self.inputs.extend(input);
        }
        let worked = !self.inputs.is_empty();
        self.sweep();
        if self.core.next_wakeup().is_some_and(|at| at <= boot()) {
            self.inputs.push_back(Input::Tick);
        }
        self.settle();
        Ok(worked)
    }

    /// Hands the inputs to the core, carries out what it wants, and sends; until nothing is left to be told.
    fn settle(&mut self) {
        loop {
            while let Some(input) = self.inputs.pop_front() {
                self.core.handle(now(), input);
                self.drain_outputs();
            }
            self.clients.flush(boot, &self.page, &mut *self.io, &mut self.inputs);
            self.peers.flush(boot(), &mut *self.io, &mut self.inputs);
            if self.inputs.is_empty() || self.stopped.is_some() {
                return;
            }
        }
    }

    /// Issues everything and waits for more: first, for a moment, without giving the core up.
    fn wait(
        &mut self,
        events: &mut Vec<LoopEvent>,
        done: &mut Vec<RecordDone>,
        last_work: Instant,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::new(Kind::Io, format_args!("the event loop cannot go on: {error}"));
        let timeout = self.timeout();
        if timeout > SPIN && last_work.elapsed() < SPIN_AFTER {
            let until = Instant::now() + SPIN;
            loop {
                self.io.wait(Some(Duration::ZERO), events).map_err(failed)?;
                self.io.completions(done);
                if !events.is_empty() || !done.is_empty() {
                    return Ok(());
                }
                if Instant::now() >= until {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        self.io.wait(Some(timeout), events).map_err(failed)?;
        self.io.completions(done);
        Ok(())
    }

    /// How long there is nothing to do by itself. At most R/2: the heartbeat thread stops renewing when the owner
    /// thread has not run for 2R.
    fn timeout(&mut self) -> Duration {
        let now = boot();
        let mut timeout = self.renew / 2;
        let mut until = |at: Option<BootTime>| {
            if let Some(at) = at {
                timeout = timeout.min(at.since(now));
            }
        };
        until(self.core.next_wakeup());
        until(self.paused.iter().map(|&(at, _)| at).min());
        until(self.clients.expire(now, &mut self.inputs));
        until(self.peers.expire(now, &self.wakes, &mut self.inputs));
        if let Some(every) = self.story.notifier.feed_every() {
            timeout = timeout.min(every);
        }
        if let Some(by) = self.stop_by {
            timeout = timeout.min(by.saturating_duration_since(Instant::now()));
        }
        if self.inputs.is_empty() { timeout } else { Duration::ZERO }
    }

    fn event(&mut self, LoopEvent { token, outcome }: LoopEvent) {
        let (io, inputs) = (&mut *self.io, &mut self.inputs);
        match (Token::from(token), outcome) {
            (Token::ClientAccept, Outcome::Accepted(Ok(socket))) => {
                self.clients.accepted(socket, boot(), io, inputs);
                io.accept(self.client_listener.socket.as_fd(), token);
            }
            (Token::PeerAccept, Outcome::Accepted(Ok(socket))) => {
                self.peers.accepted(socket, boot(), io, inputs);
                io.accept(self.peer_listener.as_fd(), token);
            }
            (accept, Outcome::Accepted(Err(error))) => {
                self.story.accept_failed(&error);
                self.paused.push((boot() + ACCEPT_PAUSE, accept));
            }
            (Token::Wake, Outcome::Readable(_)) => {
                self.woken();
                self.io.poll_readable(self.wakes.as_fd(), token);
            }
            (Token::ClientReceive(n), Outcome::Received { buf, result }) => {
                self.clients.received(n, buf, result, boot(), io, inputs);
            }
            (Token::ClientSend(n), Outcome::Sent { buf, result }) => self.clients.sent(n, buf, result, io, inputs),
            (Token::PeerReceive(n), Outcome::Received { buf, result }) => {
                self.peers.received(n, buf, result, boot(), io, inputs);
            }
            (Token::PeerSend(n), Outcome::Sent { buf, result }) => self.peers.sent(n, buf, result, boot(), io, inputs),
            (token, outcome) => debug_assert!(false, "{token:?} ended as {outcome:?}"),
        }
    }

    fn accept(&mut self, token: Token) {
        let listener = match token {
            Token::PeerAccept => self.peer_listener.as_fd(),
            _ => self.client_listener.socket.as_fd(),
        };
        self.io.accept(listener, token.into());
    }

    fn woken(&mut self) {
        let mut woken = Vec::new();
        self.wakes.take(&mut woken);
        for wake in woken {
            match wake {
                Wake::Signal => self.signalled(),
                Wake::Beat => self.take_beats(),
                Wake::Process(number) => {
                    let ended = self.processes.ended(number, &self.wakes);
                    self.inputs.extend(ended.map(|process| Input::ProcessGone { process }));
                }
                Wake::Connected(index) => {
                    self.peers.connected(index, boot(), &self.wakes, &mut *self.io, &mut self.inputs);
                }
            }
        }
    }

    fn signalled(&mut self) {
        self.signals.drain();
        if self.signals.take_reload() {
            (self.reload)();
        }
        if self.signals.stop() && self.stop_by.is_none() {
            tracing::info!("asked to stop: handing over");
            self.story.notifier.stopping();
            self.stop_by = Some(Instant::now() + SHUTDOWN_TIME);
            self.inputs.push_back(Input::Shutdown);
        }
    }

    fn take_beats(&mut self) {
        // Nothing to read means that another turn has read it.
        let _ = self.kick.read();
        while let Ok(beat) = self.beats.try_recv() {
            self.inputs.push_back(Input::Beat(core_beat(beat)));
        }
    }

    /// Now and then: processes that no pidfd watches, and listeners that could not accept.
    fn sweep(&mut self) {
        let now = boot();
        if !self.paused.is_empty() {
            let (due, paused) = std::mem::take(&mut self.paused).into_iter().partition(|&(at, _)| at <= now);
            self.paused = paused;
            let due: Vec<(BootTime, Token)> = due;
            due.into_iter().for_each(|(_, token)| self.accept(token));
        }
        if now >= self.next_sweep {
            self.next_sweep = now + self.renew;
            let gone = self.processes.sweep(&self.wakes);
            self.inputs.extend(gone.into_iter().map(|process| Input::ProcessGone { process }));
        }
    }

    fn drain_outputs(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let inputs = &mut self.inputs;
        match output {
            Output::Reply { conn, response, valid_until } => self.clients.reply(conn, response, valid_until, inputs),
            Output::WriteRecord { io, slot, image, deadline } => {
                self.io.write(RecordWrite { io: io.0, slot, image: image.as_deref(), deadline_ns: Some(deadline.0) });
            }
            Output::Send { to, frame } => self.peers.send(to, &frame),
            Output::Heartbeat { image, heartbeat, urgent, begin_by } => {
                self.heart.publish(image.0, *heartbeat, urgent, begin_by.map(|by| by.0));
            }
            Output::NewIncarnation { incarnation } => {
                self.page.set_incarnation(incarnation);
                self.peers.set_incarnation(incarnation, inputs);
            }
            Output::BallotsFrom { from } => self.heart.set_ballots_from(from.0),
            Output::Look => self.heart.look(),
            Output::Lease { until } => self.page.set(until),
            Output::ReadTable { io, first_slot, count } => self.table.read(io, first_slot, count, &mut *self.io),
            Output::WriteTable { io, first_slot, count, deadline } => {
                let records = self.core.mirror().images(first_slot, count);
                self.table.write(io, first_slot, records, deadline.0, &mut *self.io);
            }
            Output::Quarantine { slot, bytes, reason } => {
                self.files.submit(FileJob::Quarantine { slot, bytes, reason, wall_ms: realtime_ms() });
            }
            Output::Peers(list) => self.peers.set_targets(list, boot(), inputs),
            Output::Close { conn } => self.clients.close(conn, boot(), inputs),
            Output::Watch { process } => {
                if !self.processes.watch(process, &self.wakes) {
                    inputs.push_back(Input::ProcessGone { process });
                }
            }
            Output::Unwatch { process } => self.processes.unwatch(process, &self.wakes),
            Output::NameProcesses { id, processes } => {
                let names = processes.into_iter().map(command_name).collect();
                inputs.push_back(Input::ProcessNames { id, names });
            }
            Output::Log(event) => {
                if let Event::SlotConfirmed { node } = event {
                    self.confirmed = true;
                    self.files.submit(FileJob::RememberSlot(node));
                }
                self.story.tell(&event);
            }
            Output::Stop { reason } => self.stopped = Some(reason),
        }
    }

    /// The core has ended: sends what is left, ends the heartbeat thread, and lets writes under way end. True when
    /// they have.
    fn finish(mut self, events: &mut Vec<LoopEvent>) -> bool {
        let until = Instant::now() + Duration::from_secs(1);
        // The last words to the peers make them look at the disk at once: a handover depends on them.
        while Instant::now() < until && !(self.clients.is_quiet() && self.peers.is_quiet() && self.io.in_flight() == 0)
        {
            if self.io.wait(Some(Duration::from_millis(10)), events).is_err() {
                break;
            }
            for LoopEvent { token, outcome } in events.drain(..) {
                let (io, inputs) = (&mut *self.io, &mut self.inputs);
                match (Token::from(token), outcome) {
                    (Token::ClientSend(n), Outcome::Sent { buf, result }) => {
                        self.clients.sent(n, buf, result, io, inputs);
                    }
                    (Token::PeerSend(n), Outcome::Sent { buf, result }) => {
                        self.peers.sent(n, buf, result, boot(), io, inputs);
                    }
                    _ => {}
                }
            }
            self.clients.flush(boot, &self.page, &mut *self.io, &mut self.inputs);
        }
        let records_ended = self.io.in_flight() == 0;
        let heart_ended = self.heart.stop(Duration::from_secs(2));
        if !(records_ended && heart_ended) {
            tracing::warn!("the last writes have not ended: the device hangs");
        }
        records_ended && heart_ended
    }
}

/// A beat in the core's words.
fn core_beat(beat: mxlock_disklock::Beat) -> Beat {
    let mxlock_disklock::Beat { write, read } = beat;
    Beat {
        write: write.map(|write| BeatWrite {
            image: ImageId(write.image),
            hb_seq: write.hb_seq,
            started: BootTime(write.started_ns),
            result: write.result.map_err(table_io::fault),
        }),
        read: Some(
            read.map(|read| BeatRead {
                issued: BootTime(read.issued_ns),
                ended: BootTime(read.ended_ns),
                region: read.region,
            })
            .map_err(table_io::fault),
        ),
    }
}
