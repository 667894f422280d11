//! I4, section 4: what keeps a second view of an epoch from being chosen, looked at on the disk at every step instead of
//! waiting until two proposers have met badly.
//!
//! * A node moves its block to instance e + 1 only in a sector that carries the view of e: else a view that was chosen is
//!   on no disk, and nobody can go on but the one who knows it.
//! * A proposer whose block of phase 2 landed when a higher ballot was on the disk already has to see it, and gives up.

use mxlock_format::{Ballot, Epoch, Heartbeat, HeartbeatError, MAX_NODES};

/// A ballot: the instance that it is about, and its number.
type Cast = (Epoch, Ballot);

/// Which accepted blocks were behind when they landed.
#[derive(Default)]
pub struct Ballots {
    /// By node: its newest accepted block, and whether it met a higher ballot.
    beaten: Vec<Option<(Cast, bool)>>,
}

impl Ballots {
    /// A heartbeat has reached the disk, which holds `region` now.
    ///
    /// # Errors
    /// Its block is ahead of its view.
    pub fn landed(&mut self, after: &Heartbeat, region: &[Result<Heartbeat, HeartbeatError>]) -> Result<(), String> {
        let block = after.block;
        self.beaten.resize(MAX_NODES, None);
        let cast = (block.instance, block.accepted);
        let accepts = block.value.is_some() && block.accepted == block.promised;
        let beaten = &mut self.beaten[after.node.index()];
        // The next beats write it again: what counts is what stood there at first.
        if accepts && beaten.is_none_or(|(known, _)| known != cast) {
            *beaten = Some((cast, is_behind(after, cast, region)));
        }
        if block.instance > after.epoch.next() {
            return Err(format!(
                "node {} moves its block to {} and shows the view of {} only",
                after.node, block.instance, after.epoch
            ));
        }
        Ok(())
    }

    /// A node says that its own proposal for `epoch` was chosen, while its sector is `own`.
    ///
    /// # Errors
    /// A higher ballot was on the disk when the block that decides landed there, and still is.
    pub fn chosen(
        &self,
        own: &Heartbeat,
        epoch: Epoch,
        region: &[Result<Heartbeat, HeartbeatError>],
    ) -> Result<(), String> {
        let cast = (own.block.instance, own.block.accepted);
        let beaten = self.beaten.get(own.node.index()).copied().flatten() == Some((cast, true));
        if cast.0 == epoch && beaten && is_behind(own, cast, region) {
            return Err(format!(
                "node {} goes on with ballot {:?} of {epoch}, and a higher one is there",
                own.node, cast.1
            ));
        }
        Ok(())
    }
}

/// Whether another node is ahead of a ballot.
fn is_behind(own: &Heartbeat, cast: Cast, region: &[Result<Heartbeat, HeartbeatError>]) -> bool {
    let others = region.iter().flatten().filter(|other| other.node != own.node);
    others.map(|other| (other.block.instance, other.block.promised)).any(|other| other > cast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::{ClusterKey, Geometry, NodeId, NodeSet, Phase, SectorSize, Superblock, Timing, Uuid, View};

    fn region() -> Vec<Result<Heartbeat, HeartbeatError>> {
        let superblock = Superblock {
            geometry: Geometry { sector: SectorSize::S512, slot_count: 64 },
            timing: Timing::FAST,
            lockspace: "test".to_owned(),
            uuid: Uuid([7; 16]),
            key: ClusterKey([9; 32]),
            feature_level: 1,
        };
        NodeId::all().map(|node| Ok(Heartbeat::empty(node, &superblock, Epoch(6)))).collect()
    }

    /// Node `node` is in the ballot of round `round` of epoch 7, with a value if `accepts`.
    fn votes(region: &mut [Result<Heartbeat, HeartbeatError>], node: u32, round: u64, accepts: bool) -> Heartbeat {
        let node = NodeId::new(node).unwrap();
        let mut own = region[node.index()].clone().unwrap();
        let view = View {
            epoch: Epoch(7),
            master: node,
            master_incarnation: own.incarnation,
            phase: Phase::Recovering,
            members: NodeSet(0b11),
            owed: NodeSet(0),
            table_epoch: Epoch(6),
            feature_level: 1,
        };
        own.block.instance = Epoch(7);
        own.block.promised = (0..round).fold(Ballot::NONE, |ballot, _| ballot.next_for(node));
        if accepts {
            (own.block.accepted, own.block.value) = (own.block.promised, Some(view));
        }
        region[node.index()] = Ok(own.clone());
        own
    }

    #[test]
    fn a_proposer_that_goes_on_when_it_is_beaten_is_seen() {
        let mut region = region();
        let mut ballots = Ballots::default();
        votes(&mut region, 1, 2, false);
        let own = votes(&mut region, 0, 1, true);
        assert!(ballots.landed(&own, &region).is_ok());
        assert!(ballots.chosen(&own, Epoch(7), &region).is_err());
        let own = votes(&mut region, 0, 3, true);
        assert!(ballots.landed(&own, &region).is_ok());
        assert!(ballots.chosen(&own, Epoch(7), &region).is_ok(), "its next ballot is higher");
        votes(&mut region, 1, 4, false);
        assert!(ballots.chosen(&own, Epoch(7), &region).is_ok(), "that came after its block had landed");
    }

    #[test]
    fn a_block_that_leaves_its_view_behind_is_seen() {
        let mut region = region();
        let mut own = votes(&mut region, 0, 1, true);
        assert!(Ballots::default().landed(&own, &region).is_ok());
        own.block.instance = Epoch(8);
        assert!(Ballots::default().landed(&own, &region).is_err(), "the view of 7 is not in the sector");
        own.epoch = Epoch(7);
        assert!(Ballots::default().landed(&own, &region).is_ok());
    }
}
