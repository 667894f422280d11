//! The event loop of a daemon: inputs, wake-ups, pauses, deaths between two outputs.

use super::Pause;
use super::carry::short;
use crate::clock::{MS, SEC, Time, US};
use crate::oracle::Rule;
use crate::world::{Event, World};
use mxlock_dlm::io::{Input, IoFault, Output};
use std::time::Duration;

/// What happens between two outputs.
enum Boundary {
    Nothing,
    Pause(Time),
    Death,
}

impl World {
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
                let Some(daemon) = self.hosts[host].daemon.as_mut().filter(|daemon| daemon.paused.is_none()) else {
                    return;
                };
                let Some(output) = daemon.core.poll_output() else { break };
                let boundary = self.at_boundary(host, &output);
                self.carry_out(host, output);
                match boundary {
                    Boundary::Nothing => {}
                    Boundary::Pause(length) => self.pause(host, Pause::Process, length),
                    Boundary::Death => {
                        let mut dice = self.dice("death between outputs", self.outputs);
                        self.coverage.deaths_between_outputs += 1;
                        self.crash_daemon(host, &mut dice);
                    }
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
            if let Input::Written { io, result: Err(IoFault::Failed(_)) } = &input {
                let (run, dead) = (daemon.run, Duration::from_millis(self.timing.dead_ms.into()));
                if let Some(note) = &mut me.note {
                    note.record_failed(boot_now.boot + dead);
                }
                self.disk.heard(host, run, *io);
            }
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

    /// What happens after the output that is about to be carried out: a process can be stopped, or die, between any two.
    fn at_boundary(&mut self, host: usize, output: &Output) -> Boundary {
        self.outputs += 1;
        let (storm, noise, chosen) = (self.storm, self.setup.noise, self.death_after == Some(self.outputs));
        let Some(daemon) = self.hosts[host].daemon.as_mut() else { return Boundary::Nothing };
        if chosen {
            return Boundary::Death;
        }
        if noise.pauses_ppm == 0 && noise.deaths_ppm == 0 || !storm {
            return Boundary::Nothing;
        }
        // Turning points of the agreement are few among all outputs, and so they are hit more often.
        let turns = matches!(output, Output::Heartbeat { urgent: true, .. });
        let times = if turns { 150 } else { 1 };
        let mut hit = |ppm: u64| daemon.boundaries.chance(ppm * times);
        let (dies, pauses) = (hit(noise.deaths_ppm), hit(noise.pauses_ppm));
        let length = daemon.boundaries.range(10 * MS, 12 * SEC);
        match (dies, pauses) {
            (true, _) => Boundary::Death,
            (_, true) => Boundary::Pause(length),
            _ => Boundary::Nothing,
        }
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
        if what == Pause::Process {
            self.oracles.judgement.blind(host, now, now + length);
        }
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
    pub(super) fn hold_step(&mut self, host: usize, run: u32, step: Event) -> Option<Event> {
        match self.daemon(host, run) {
            Some(daemon) if daemon.paused == Some(Pause::Process) => {
                daemon.held_steps.push(step);
                None
            }
            Some(_) => Some(step),
            None => None,
        }
    }
}
