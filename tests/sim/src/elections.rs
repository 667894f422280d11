//! What befalls a proposer in the middle of its ballot. Left to chance this is rare, since a ballot takes milliseconds;
//! but it is where agreement is difficult: another node finds a value that may have been chosen, and has to carry it on.

use crate::clock::{MS, SEC};
use crate::dice::both;
use crate::node::Pause;
use crate::world::World;
use mxlock_format::Heartbeat;

impl World {
    /// A heartbeat has landed. If it moves a ballot on, its node may stand still or die now: before its next phase, or
    /// between the write that decides and anybody's knowing of it. How often is drawn once for the seed.
    pub fn ballot_landed(&mut self, before: Option<&Heartbeat>, after: &Heartbeat) {
        let block = after.block;
        let undecided = after.view.is_none_or(|view| view.epoch < block.instance);
        let moved = before.is_none_or(|before| before.block != block);
        if !self.storm || self.setup.faults.is_empty() || !undecided || !moved {
            return;
        }
        let ppm = *self.dice("ballots", 0).pick(&[0, 0, 50_000, 300_000]);
        let mut dice = self.dice("ballot", both(after.node.index(), after.hb_seq as u32) ^ after.incarnation.0);
        if !dice.chance(ppm) {
            return;
        }
        let owner = |host: &crate::node::Host| {
            host.daemon.as_ref().is_some_and(|daemon| daemon.node == after.node && daemon.shown == after.incarnation)
        };
        let Some(host) = self.hosts.iter().position(owner) else { return };
        self.coverage.ballots_disturbed += 1;
        self.trace(|| format!("*** host {host} is disturbed in ballot {:?} of {}", block.promised, block.instance));
        match dice.below(10) {
            0..=5 => self.pause(host, Pause::Process, dice.range(300 * MS, 6 * SEC)),
            6 => self.pause(host, Pause::Core, dice.range(300 * MS, 6 * SEC)),
            _ => self.crash_daemon(host, &mut dice),
        }
    }
}
