//! I5, section 5: a member is excluded only when it was silent for D, as its judge could count it, or an operator
//! vouched for it, or at its own wish.
//!
//! Counted in true time between two heartbeats that reached the disk, without the times at which the judge's own I/O
//! stood still for so long that it must have noticed: after those, silence counts anew.

use crate::clock::{SEC, Time};
use mxlock_format::{MAX_NODES, NodeId, NodeSet, View};

/// A judge whose I/O stood still for less may not have noticed: 2R, and up to R before the next beat begins.
const NOTICED: Time = 7 * SEC;

/// When the heartbeat of a node landed last, and the long silences before that.
#[derive(Clone, Debug)]
struct Seen {
    last: Time,
    silences: Vec<(Time, Time)>,
}

/// What the disk and the hosts did.
#[derive(Default)]
pub struct Judgement {
    /// By node.
    landed: Vec<Option<Seen>>,
    /// By host: when it could not do I/O.
    blind: Vec<Vec<(Time, Time)>>,
    /// Nodes that an operator vouched for, or told to leave.
    permitted: NodeSet,
    /// Values of the newest instance that were accepted.
    accepted: Vec<View>,
}

impl Judgement {
    /// A heartbeat has reached the disk.
    pub fn landed(&mut self, node: NodeId, now: Time, dead: Time) {
        self.landed.resize(MAX_NODES, None);
        let seen = &mut self.landed[node.index()];
        let Seen { last, mut silences } = seen.take().unwrap_or(Seen { last: now, silences: Vec::new() });
        // Remembered for a while: who was found dead then may be excluded a little later, or much later, if the
        // write that says so is held up.
        silences.retain(|(_, end)| now - end < 4 * dead);
        if now - last >= dead / 2 {
            silences.push((last, now));
        }
        *seen = Some(Seen { last: now, silences });
    }

    /// The I/O of a host stands still.
    pub fn blind(&mut self, host: usize, from: Time, until: Time) {
        if self.blind.len() <= host {
            self.blind.resize(host + 1, Vec::new());
        }
        self.sees(host, from);
        self.blind[host].push((from, until));
    }

    /// The I/O of a host goes on, or another daemon begins there.
    pub fn sees(&mut self, host: usize, now: Time) {
        let blind = self.blind.get_mut(host).into_iter().flatten();
        blind.for_each(|(_, until)| *until = (*until).min(now));
    }

    /// An operator said that a node is off, or told it to leave.
    pub fn permit(&mut self, node: NodeId) {
        self.permitted.insert(node);
    }

    /// A value reached the disk as accepted; whether it is a new one.
    pub fn is_new(&mut self, value: &View) -> bool {
        let newest = self.accepted.first().map(|known| known.epoch);
        if newest > Some(value.epoch) || self.accepted.contains(value) {
            return false;
        }
        if newest < Some(value.epoch) {
            self.accepted.clear();
        }
        self.accepted.push(*value);
        true
    }

    /// A new value follows the view `before`. `judge`: the host that proposes it; `dead`: D on its clock, in true time;
    /// `None`: silence alone frees nobody.
    ///
    /// # Errors
    /// It excludes a member without reason.
    pub fn proposed(
        &self,
        before: &View,
        value: &View,
        judge: usize,
        now: Time,
        dead: Option<Time>,
    ) -> Result<(), String> {
        let dropped = NodeSet(before.members.0 & !value.members.0 & !self.permitted.0);
        let alive = |node: &NodeId| dead.is_none_or(|dead| !self.was_dead(*node, judge, now, dead));
        match dropped.iter().find(alive) {
            None => Ok(()),
            Some(node) => Err(format!(
                "{} excludes node {node}, which nobody vouched for and host {judge} has not seen silent for D: {:?}",
                value.epoch,
                self.landed.get(node.index())
            )),
        }
    }

    fn was_dead(&self, node: NodeId, judge: usize, now: Time, dead: Time) -> bool {
        let Some(Some(Seen { last, silences })) = self.landed.get(node.index()) else { return true };
        silences.iter().copied().chain([(*last, now)]).any(|silence| self.longest(judge, silence) >= dead)
    }

    /// The longest part of a silence that the judge could watch.
    fn longest(&self, judge: usize, (from, until): (Time, Time)) -> Time {
        let noticed = |(start, end): &&(Time, Time)| end - start >= NOTICED && *start < until && *end > from;
        let blind = self.blind.get(judge).into_iter().flatten().filter(noticed);
        let mut ends: Vec<(Time, Time)> = blind.copied().chain([(until, until)]).collect();
        ends.sort();
        let mut since = from;
        let mut longest = 0;
        for (start, end) in ends {
            longest = longest.max(start.saturating_sub(since));
            since = since.max(end);
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::{Epoch, Incarnation, Phase};

    const D: Time = 15 * SEC;

    fn view(epoch: u64, members: u64) -> View {
        View {
            epoch: Epoch(epoch),
            master: NodeId::new(1).unwrap(),
            master_incarnation: Incarnation(5),
            phase: Phase::Active,
            members: NodeSet(members),
            owed: NodeSet(0),
            table_epoch: Epoch(epoch),
            feature_level: 1,
        }
    }

    /// Node 2 beats at 100 s; it is excluded at `at`.
    fn excluded(at: Time, dead: Option<Time>, prepare: impl Fn(&mut Judgement)) -> bool {
        let node = NodeId::new(2).unwrap();
        let mut judgement = Judgement::default();
        judgement.landed(node, 100 * SEC, D);
        prepare(&mut judgement);
        judgement.proposed(&view(7, 0b110), &view(8, 0b010), 0, at, dead).is_err()
    }

    #[test]
    fn an_exclusion_that_comes_too_early_is_seen() {
        assert!(excluded(114 * SEC, Some(D), |_| {}));
        assert!(!excluded(115 * SEC, Some(D), |_| {}));
        assert!(!excluded(101 * SEC, Some(D), |judgement| judgement.permit(NodeId::new(2).unwrap())));
        assert!(excluded(200 * SEC, None, |_| {}), "no method frees it but an operator's word");
        let back = |judgement: &mut Judgement| judgement.landed(NodeId::new(2).unwrap(), 116 * SEC, D);
        assert!(!excluded(117 * SEC, Some(D), back), "it came back when it had been judged");
    }

    #[test]
    fn silence_that_the_judge_did_not_watch_does_not_count() {
        assert!(excluded(120 * SEC, Some(D), |judgement| judgement.blind(0, 105 * SEC, 113 * SEC)));
        assert!(!excluded(128 * SEC, Some(D), |judgement| judgement.blind(0, 105 * SEC, 113 * SEC)));
        assert!(!excluded(120 * SEC, Some(D), |judgement| judgement.blind(1, 105 * SEC, 113 * SEC)), "another host");
        assert!(!excluded(120 * SEC, Some(D), |judgement| judgement.blind(0, 105 * SEC, 108 * SEC)), "unnoticed");
    }

    #[test]
    fn each_value_is_judged_once() {
        let mut judgement = Judgement::default();
        assert!(judgement.is_new(&view(8, 0b10)) && judgement.is_new(&view(8, 0b11)));
        assert!(!judgement.is_new(&view(8, 0b10)) && !judgement.is_new(&view(7, 0b10)));
        assert!(judgement.is_new(&view(9, 0b10)) && !judgement.is_new(&view(8, 0b01)));
    }
}
