//! What goes wrong in the small cluster, and the operator who vouches for a machine that is off.

use super::*;

impl World {
    pub(super) fn fault(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let host = self.rng.below(self.hosts.len() as u64) as usize;
        let length = match self.rng.below(3) {
            0 => self.rng.below(R * 3),
            1 => self.rng.below(D),
            _ => self.rng.below(3 * D),
        };
        let now = self.now;
        match self.rng.below(7) {
            0 if self.faults.sleep => self.sleep(host, now + length),
            1 if self.faults.stall => self.hosts[host].stalled_until = now + length,
            2 if self.faults.stall => {
                // The disk stalls for everybody.
                for other in &mut self.hosts {
                    other.stalled_until = now + length;
                }
            }
            3 if self.faults.fail => self.hosts[host].failing_until = now + length,
            4 if self.faults.crash => {
                self.crash(host);
                if self.chance(30) {
                    // The machine was off: no client lived through that.
                    self.hosts[host].boot += 1;
                    self.hosts[host].promise = None;
                }
                self.push(length, host, What::Start);
            }
            5 => {
                // Planned handover.
                let successor = NodeId::new(self.rng.below(self.hosts.len() as u64) as u32);
                let uncertain = self.chance(30);
                for host in 0..self.hosts.len() {
                    let clock = self.clock(host);
                    if self.hosts[host].asleep_until <= now
                        && let Some(daemon) = self.daemon(host)
                        && daemon.cluster.is_master(clock)
                    {
                        daemon.cluster.resign(clock, successor, uncertain);
                        self.drain(host);
                    }
                }
            }
            _ => self.vouch(),
        }
        let next = self.rng.below(3 * D);
        self.push(next, host, What::Fault);
    }

    /// A sleep is never cut short: what waits for its end happens in its order.
    fn sleep(&mut self, host: usize, until: u64) {
        let asleep_until = &mut self.hosts[host].asleep_until;
        *asleep_until = until.max(*asleep_until);
    }

    /// Faults come at random times; most of the protocol happens in the few milliseconds after an urgent image.
    pub(super) fn disturb(&mut self, host: usize) {
        if self.healed.is_some() || !self.disturbing || !self.chance(6) {
            return;
        }
        let soon = self.rng.below(20 * MS);
        self.push(soon, host, What::Disturb);
    }

    pub(super) fn disturbed(&mut self, host: usize) {
        let length = if self.chance(50) { self.rng.below(4 * R) } else { self.rng.below(2 * D) };
        let until = self.now + length;
        let clock = self.clock(host);
        match self.rng.below(5) {
            0 if self.faults.sleep => self.sleep(host, until),
            1 if self.faults.stall => {
                // Often the first sign of worse.
                self.hosts[host].stalled_until = until;
                self.push(length + R / 4, host, What::Disturb);
            }
            2 if self.faults.fail => self.hosts[host].failing_until = until,
            3 if self.faults.crash => {
                self.crash(host);
                self.push(length, host, What::Start);
            }
            _ => {
                let awake = self.hosts[host].asleep_until <= self.now;
                let Some(daemon) = self.daemon(host).filter(|_| awake) else { return };
                daemon.cluster.resign(clock, None, false);
                self.drain(host);
            }
        }
    }

    /// The operator vouches for a machine that is off and stays so until it is believed.
    pub(super) fn vouch(&mut self) {
        let off = self.hosts.iter().position(|host| host.daemon.is_none() && host.landing_until <= self.now);
        let Some(node) = off.and_then(|off| self.hosts[off].slot) else { return };
        for host in 0..self.hosts.len() {
            let clock = self.clock(host);
            if self.hosts[host].asleep_until <= self.now
                && let Some(daemon) = self.daemon(host)
                && daemon.cluster.fence_ack(clock, node).is_ok()
            {
                self.drain(host);
                self.hosts[off.unwrap_or(0)].promise = None;
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.healed = Some(self.now);
        for host in 0..self.hosts.len() {
            let entry = &mut self.hosts[host];
            entry.stalled_until = entry.stalled_until.min(self.now);
            entry.failing_until = entry.failing_until.min(self.now);
            self.push(0, host, What::Start);
        }
    }
}
