//! How a daemon starts and ends.

use super::{BeatNote, Daemon, Thread};
use crate::clock::{MS, SEC, Time};
use crate::dice::both;
use crate::disk::Purpose;
use crate::world::{Event, World};
use mxlock_dlm::Core;
use mxlock_format::{Incarnation, NodeState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

impl World {
    /// The running daemon of a host, if it is the run that is meant.
    pub fn daemon(&mut self, host: usize, run: u32) -> Option<&mut Daemon> {
        self.hosts[host].daemon.as_mut().filter(|daemon| daemon.run == run)
    }

    /// Starts a daemon as soon as the per-node guard is free: its last run's writes have ended (section 8).
    pub fn start_daemon(&mut self, host: usize) {
        let me = &self.hosts[host];
        if self.formats_at.is_some_and(|at| self.now < at) {
            // The operator keeps all daemons down until then, and starts them himself.
            return;
        }
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
        self.hosts[host].runs += 1;
        self.hosts[host].starting = Some(run);
        self.read_disk(host, run, Purpose::Start, None);
    }

    /// Plans a start.
    pub fn schedule_start(&mut self, host: usize, at: Time) {
        self.hosts[host].start_at = Some(at);
        self.schedule(at, Event::Start { host });
    }

    /// The region was read before the start, or could not be: chooses a slot and makes a core.
    pub fn region_for_start(&mut self, host: usize, run: u32, region: Option<Box<mxlock_dlm::io::Region>>) {
        let now = self.now;
        let me = &mut self.hosts[host];
        if me.starting != Some(run) {
            return;
        }
        me.starting = None;
        let Some(region) = region else {
            return self.schedule_start(host, now + 2 * SEC);
        };
        let candidates = mxlock_dlm::cluster::candidates(&region, me.wish, me.remembered, me.node_uuid, me.boot_id);
        // No guard of another daemon is in the way: a host runs one, and guards do not reach other hosts.
        let candidate = match candidates.map(|all| all.into_iter().next()) {
            Ok(Some(candidate)) => candidate,
            other => {
                self.trace(|| format!("h{host}: no slot to be had: {other:?}"));
                if !self.storm {
                    // After the storm the operator takes an outdated `--node` out of the configuration.
                    self.hosts[host].wish = None;
                }
                self.schedule_start(host, now + 2 * SEC);
                return;
            }
        };
        let node = candidate.node;
        let which = both(host, self.hosts[host].runs);
        let mut dice = self.dice("daemon", which);
        let boundaries = self.dice("boundary", which);
        let incarnation = Incarnation(dice.bits() | 1);
        let mut config = self.config(host, node, incarnation);
        let me = &mut self.hosts[host];
        let dead = Duration::from_millis(self.timing.dead_ms.into());
        (config.ballots_from, config.uncertain_until) = BeatNote::open(&mut me.note, node, me.clock.boot(now), dead);
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
            leaving: false,
            asked_to_leave: false,
            stopping: false,
            unchecked: 0,
            boundaries,
            dice,
        });
        self.trace(|| format!("h{host}: daemon run {run} starts as node {node}, {incarnation:?}"));
        self.run_core(host);
        self.beat_at(host, now);
    }

    /// Ends the daemon's process; what it has in flight goes on.
    pub fn end_daemon(&mut self, host: usize) {
        self.hosts[host].starting = None;
        self.oracles.judgement.sees(host, self.now);
        let Some(daemon) = self.hosts[host].daemon.take() else { return };
        self.hosts[host].ended = Some((daemon.run, self.now));
        for conn in daemon.conns {
            self.close_towards_client(conn);
        }
        self.break_links_of(host);
        self.trace(|| format!("h{host}: daemon run {} has ended", daemon.run));
    }
}
