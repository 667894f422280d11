//! The heartbeat threads of the small cluster and its disk: when a write lands, and when a read sees each sector.

use super::*;

impl World {
    /// How long a disk operation takes, with an occasional slow one.
    fn latency(&mut self, host: usize) -> u64 {
        let quick = MS / 2 + self.rng.below(if self.faults.slow { R / 2 } else { 4 * MS });
        match self.rng.below(100) {
            _ if self.hosts[host].stalled_until > self.now => {
                self.hosts[host].stalled_until - self.now + self.rng.below(R)
            }
            0 => quick + self.rng.below(R / 2),
            1..4 => quick + self.rng.below(R / 8),
            _ => quick,
        }
    }

    pub(super) fn begin_beat(&mut self, host: usize) {
        let latency = self.latency(host);
        let lands = self.rng.below(latency.min(LANDS_WITHIN) + 1);
        let started = self.clock(host);
        let fails = self.hosts[host].failing_until > self.now && self.chance(60);
        let next_tick = self.now + R;
        let late = self.rng.below(LANDS_WITHIN);
        let never = self.chance(30);
        let Some(daemon) = self.hosts[host].daemon.as_mut() else { return };
        if daemon.beating {
            return;
        }
        (daemon.beating, daemon.kicked, daemon.next_tick) = (true, false, next_tick);
        let Some((image, heartbeat)) = daemon.image.clone() else { return self.begin_read(host, None) };
        // As in disklock: the sector is looked at before a write, but not in a burst of beats.
        let found = self.disk[heartbeat.node.index()].as_ref().unwrap();
        let is_anothers = (found.node_uuid, found.boot_id) != (heartbeat.node_uuid, heartbeat.boot_id);
        if daemon.wrote_at.is_some_and(|at| self.now - at >= R / 2) && is_anothers {
            return self.begin_read(host, None);
        }
        if daemon.wrote_at.is_none() && daemon.begin_by.is_some_and(|by| started > by) {
            let write = BeatWrite { image, hb_seq: daemon.hb_seq, started, result: Err(IoFault::Expired) };
            return self.begin_read(host, Some(write));
        }
        daemon.hb_seq += 1;
        let hb_seq = daemon.hb_seq;
        if !fails {
            daemon.wrote_at = Some(self.now);
        }
        let heartbeat = Box::new(Heartbeat { hb_seq, boottime_ns: started.0, ..heartbeat });
        let slot = heartbeat.node.index();
        let result = if fails { Err(IoFault::Failed("injected".into())) } else { Ok(()) };
        let lands = if fails { late } else { lands };
        if !(fails && never) {
            // On its way whatever becomes of its writer.
            self.hosts[host].landing_until = self.hosts[host].landing_until.max(self.now + lands);
            self.push(lands, host, What::Land { slot, heartbeat });
        }
        let write = BeatWrite { image, hb_seq, started, result };
        self.push(latency, host, What::WriteDone { write });
    }

    pub(super) fn begin_read(&mut self, host: usize, write: Option<BeatWrite>) {
        if write.as_ref().is_some_and(|write| write.result.is_err()) && self.chance(50) {
            return self.end_beat(host, Box::new(Beat { write, read: None }));
        }
        let latency = self.latency(host);
        let used = self.hosts.len() + 3;
        for slot in 0..used {
            let at = self.rng.below(latency);
            self.push(at, host, What::Sample { slot });
        }
        let region = self.disk.clone();
        if let Some(daemon) = self.daemon(host) {
            daemon.reading = Some(region);
        }
        let issued = self.now;
        self.push(latency, host, What::ReadDone { write, issued });
    }

    pub(super) fn end_beat(&mut self, host: usize, beat: Box<Beat>) {
        let now = self.now;
        let wakes = self.rng.below(MS);
        let Some(daemon) = self.daemon(host) else { return };
        daemon.beating = false;
        // Beats are told in their order.
        let tells_at = daemon.tells_at.max(now + wakes);
        daemon.tells_at = tells_at;
        let wait = if daemon.kicked { 0 } else { daemon.next_tick.saturating_sub(now) };
        self.push(tells_at - now, host, What::Deliver { beat });
        self.push(wait, host, What::BeatStart);
    }

    pub(super) fn kick(&mut self, host: usize) {
        let Some(daemon) = self.daemon(host) else { return };
        if daemon.beating {
            daemon.kicked = true;
        } else {
            self.push(0, host, What::BeatStart);
        }
    }
}
