//! What a daemon of the small cluster does: its core is told what happens, and what it asks for is done.

use super::*;

impl World {
    pub(super) fn step(&mut self, host: usize, what: What) {
        let clock = self.clock(host);
        let Some(daemon) = self.hosts[host].daemon.as_mut() else { return };
        match what {
            What::Timer => {
                daemon.timer_at = None;
                daemon.cluster.on_time(clock);
            }
            What::BeatStart => return self.begin_beat(host),
            What::WriteDone { write } => return self.begin_read(host, Some(write)),
            What::ReadDone { write, issued } => {
                let Some(region) = daemon.reading.take() else { return };
                let ended = self.clock(host);
                let issued = self.clock_at(host, issued);
                let beat = Box::new(Beat { write, read: Some(Ok(BeatRead { issued, ended, region })) });
                return self.end_beat(host, beat);
            }
            What::Deliver { beat } => daemon.cluster.on_beat(clock, *beat),
            What::Join { from, incarnation, above } => {
                if let Some(node) = self.hosts[from].slot
                    && let Some(daemon) = self.hosts[host].daemon.as_mut()
                {
                    daemon.cluster.admit(clock, node, incarnation, above);
                }
            }
            What::Admitted { view, incarnation } => {
                if daemon.cluster.incarnation() == incarnation {
                    daemon.cluster.admitted(clock, view);
                }
            }
            What::Activate { epoch } => {
                if daemon.cluster.recovering_epoch() == Some(epoch) {
                    daemon.cluster.activate(clock);
                }
            }
            What::JoinTimer => {
                if let Some(above) = daemon.cluster.wants_join() {
                    self.send_join(host, above);
                }
                self.push(R / 2, host, What::JoinTimer);
            }
            What::Land { .. } | What::Sample { .. } | What::Start | What::Fault | What::Disturb | What::Heal => {
                unreachable!()
            }
        }
        self.drain(host);
    }

    pub(super) fn start(&mut self, host: usize) {
        if self.hosts[host].daemon.is_some() {
            return;
        }
        if self.hosts[host].asleep_until > self.now || self.hosts[host].landing_until > self.now {
            // The guard is free only when the last write of the old daemon has ended (section 8).
            return self.push(R / 4, host, What::Start);
        }
        self.next_incarnation += 1;
        let mut config = config(host as u8, self.hosts[host].boot, self.next_incarnation);
        config.fence_wait = self.faults.fence_wait;
        let wish = if self.faults.auto_slots { None } else { NodeId::new(host as u32) };
        let region = self.disk.clone();
        let found = candidates(&region, wish, self.hosts[host].slot, config.node_uuid, config.boot_id);
        let candidate: Candidate = found.expect("a slot").remove(0);
        config.node = candidate.node;
        let clock = self.clock(host);
        let cluster = Cluster::new(clock, &config, candidate, &region);
        let entry = &mut self.hosts[host];
        entry.slot = Some(config.node);
        entry.life += 1;
        let (image, reading) = (None, None);
        let daemon = Daemon {
            cluster,
            image,
            begin_by: None,
            hb_seq: 0,
            wrote_at: None,
            beating: false,
            kicked: false,
            next_tick: self.now,
            tells_at: self.now,
            timer_at: None,
            reading,
        };
        self.hosts[host].daemon = Some(daemon);
        self.push(R / 2, host, What::JoinTimer);
        self.drain(host);
    }

    pub(super) fn crash(&mut self, host: usize) {
        let entry = &mut self.hosts[host];
        entry.life += 1;
        entry.daemon = None;
    }

    fn send_join(&mut self, host: usize, above: Epoch) {
        let Some(daemon) = self.daemon(host) else { return };
        let incarnation = daemon.cluster.incarnation();
        let Some(master) = daemon.cluster.view().map(|view| view.master) else { return };
        let to = self.hosts.iter().position(|other| other.slot == Some(master) && other.daemon.is_some());
        if let Some(to) = to.filter(|&to| to != host)
            && !self.chance(10)
        {
            let delay = self.rng.below(R / 4);
            self.push(delay, to, What::Join { from: host, incarnation, above });
        }
    }

    pub(super) fn drain(&mut self, host: usize) {
        loop {
            let Some(daemon) = self.hosts[host].daemon.as_mut() else { return };
            let Some(action) = daemon.cluster.poll() else { break };
            if self.trace && !matches!(action, Action::LeaseExtended { .. } | Action::Look) {
                match &action {
                    Action::Publish { image, heartbeat, urgent, .. } => eprintln!(
                        "{:>9.3} host{host} publish {image:?} {:?} {:?} e{} {:?} urgent={urgent}",
                        self.now as f64 / 1e9,
                        heartbeat.incarnation,
                        heartbeat.state,
                        heartbeat.epoch.0,
                        heartbeat.block
                    ),
                    _ => eprintln!("{:>9.3} host{host} {action:?}", self.now as f64 / 1e9),
                }
            }
            match action {
                Action::Publish { image, heartbeat, urgent, begin_by } => {
                    let bytes = heartbeat.encode();
                    assert_eq!(Heartbeat::decode(heartbeat.node, &bytes.0).as_ref(), Ok(&*heartbeat));
                    (daemon.image, daemon.begin_by) = (Some((image, *heartbeat)), begin_by);
                    if urgent {
                        self.kick(host);
                        self.disturb(host);
                    }
                }
                Action::Look => self.kick(host),
                Action::ViewLearned { view, own } => {
                    self.saw_view(view);
                    self.tally.elections += u64::from(own && view.phase == Phase::Recovering);
                    let Some(daemon) = self.daemon(host) else { return };
                    if view.phase == Phase::Recovering
                        && let Some(epoch) = daemon.cluster.recovering_epoch()
                    {
                        let delay = self.rng.below(2 * R);
                        self.push(delay, host, What::Activate { epoch });
                    }
                }
                Action::WantsJoin { above } => self.send_join(host, above),
                Action::Admitted { node, incarnation, view } => {
                    let to = self.hosts.iter().position(|other| other.slot == Some(node) && other.daemon.is_some());
                    if let Some(to) = to
                        && !self.chance(10)
                    {
                        let delay = self.rng.below(R / 4);
                        self.push(delay, to, What::Admitted { view, incarnation });
                    }
                }
                Action::Stop(reason) => {
                    self.tally.stops += 1;
                    assert!(
                        self.faults.auto_slots || !matches!(reason, StopReason::SectorChanged),
                        "host {host} stopped: {reason}"
                    );
                    self.crash(host);
                    self.push(R, host, What::Start);
                    return;
                }
                Action::LeaseExtended { until } => {
                    let entry = &mut self.hosts[host];
                    let Some(node) = entry.slot else { return };
                    let before = entry.promise.filter(|&(slot, _)| slot == node).map(|(_, until)| until);
                    entry.promise = Some((node, before.unwrap_or_default().max(until)));
                }
                Action::LeaseLost => self.tally.losses += 1,
                Action::LeaseRegained { .. } => self.tally.regained += 1,
                Action::Excluded { .. } => {
                    self.tally.exclusions += 1;
                    self.hosts[host].promise = None;
                }
                Action::Log(crate::event::Event::ValueAdopted { .. }) => self.tally.adopted += 1,
                _ => {}
            }
        }
        let Some(daemon) = self.hosts[host].daemon.as_ref() else { return };
        if let Some(at) = daemon.cluster.next_deadline() {
            let after = self.until(host, at);
            let at = self.now + after;
            // A later timer that is still set only wakes the daemon once too often.
            if let Some(daemon) = self.daemon(host)
                && daemon.timer_at.is_none_or(|set| at < set)
            {
                daemon.timer_at = Some(at);
                self.push(after, host, What::Timer);
            }
        }
    }
}
