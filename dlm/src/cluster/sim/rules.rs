//! What must hold in the small cluster at every moment, and after it has healed.

use super::*;

impl World {
    pub(super) fn saw_view(&mut self, view: View) {
        let newest = self.views.last_key_value().is_none_or(|(&epoch, _)| epoch < view.epoch);
        for host in self.hosts.iter().filter(|_| newest) {
            let Some(Daemon { cluster, .. }) = &host.daemon else { continue };
            let was_member = matches!(cluster.state(), NodeState::Member | NodeState::Resigned);
            if was_member && !view.members.contains(cluster.node()) {
                self.buried.push(cluster.incarnation());
            }
        }
        let known = *self.views.entry(view.epoch).or_insert(view);
        assert_eq!(known, view, "I4: two views for one epoch");
        self.tally.views = self.views.len() as u64;
    }

    pub(super) fn check(&mut self) {
        let newest = self.views.values().next_back().copied();
        let mut masters = Vec::new();
        for host in 0..self.hosts.len() {
            let clock = self.clock(host);
            let members = newest.map(|view| view.members);
            if let (Some((node, until)), Some(members)) = (self.hosts[host].promise, members) {
                let ended = clock >= until + Duration::from_millis(TIMING.grace_ms.into());
                assert!(ended || members.contains(node), "{node:?} is excluded before its lease + G: {newest:?}");
            }
            let Some(daemon) = &self.hosts[host].daemon else { continue };
            let cluster = &daemon.cluster;
            if cluster.is_master(clock) {
                masters.push(host);
            }
            if cluster.lease_until().is_some_and(|until| clock < until) {
                let (node, incarnation) = (cluster.node(), cluster.incarnation());
                assert!(!self.buried.contains(&incarnation), "{node:?} holds a lease as excluded {incarnation:?}");
                assert!(
                    members.is_none_or(|members| members.contains(node)),
                    "{node:?} is excluded in {newest:?} while its lease is valid"
                );
            }
        }
        assert!(masters.len() <= 1, "I4: hosts {masters:?} are masters at the same time, {:?}", newest);
    }

    pub(super) fn heals_within(&mut self, bound: u64, seed: u64) {
        let from = self.now;
        while !self.is_well() {
            assert!(self.now < from + bound, "seed {seed}: not well after {} ms", (self.now - from) / MS);
            self.vouch();
            self.run(self.now + R / 4);
        }
    }

    /// An active master within its lease, and everybody a member with a lease.
    pub(super) fn is_well(&mut self) -> bool {
        let Some(master) = (0..self.hosts.len()).find(|&host| {
            let clock = self.clock(host);
            self.hosts[host].daemon.as_ref().is_some_and(|daemon| daemon.cluster.is_master(clock))
        }) else {
            return false;
        };
        let Some(lead) = &self.hosts[master].daemon else { return false };
        lead.cluster.view().is_some_and(|view| view.phase == Phase::Active)
            && self.hosts.iter().all(|host| {
                host.daemon.as_ref().is_some_and(|daemon| {
                    let cluster = &daemon.cluster;
                    cluster.is_member()
                        && cluster.lease_until().is_some()
                        && cluster.view() == lead.cluster.view()
                        && lead.cluster.member_incarnation(cluster.node()) == Some(cluster.incarnation())
                })
            })
    }
}
