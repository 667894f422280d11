//! Which device writes carry a group of record writes, and how they become durable (section 7, "Persistence").

/// From this many device writes on, one batch of plain O_DIRECT writes and one fdatasync is cheaper than as many
/// synchronous writes (BASELINES.md: "slower than synchronous writes alone, faster from a batch of about 4").
pub const BATCH_CROSSING: usize = 4;

/// Most neighbouring clears in one device write.
pub const MAX_MERGED_CLEARS: u32 = 256;

/// A record write that could be issued now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its lock-record slot.
    pub slot: u32,
    /// The slot is being zeroed: only such writes can be merged.
    pub clear: bool,
}

/// How the writes of a plan get onto stable storage. Nothing is acknowledged before they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Each write is synchronous (RWF_DSYNC).
    Each,
    /// Plain writes, followed by one fdatasync that all of them wait for.
    Batch,
}

/// One device write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedWrite {
    /// The first slot that it covers.
    pub first_slot: u32,
    /// Indices into the input, in the order of their slots, which are consecutive. More than one only where all of
    /// them are clears.
    pub members: Vec<usize>,
}

/// The device writes for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritePlan {
    /// Disjoint, in the order of their slots.
    pub writes: Vec<PlannedWrite>,
    /// For all of them.
    pub durability: Durability,
}

/// Plans the writes of `ready`, whose slots differ from one another.
pub fn plan(ready: &[Ready]) -> WritePlan {
    let mut order: Vec<usize> = (0..ready.len()).collect();
    order.sort_unstable_by_key(|&i| ready[i].slot);
    debug_assert!(order.windows(2).all(|w| ready[w[0]].slot != ready[w[1]].slot), "a slot is written once per group");

    let mut writes: Vec<PlannedWrite> = Vec::with_capacity(ready.len());
    for i in order {
        let Ready { slot, clear } = ready[i];
        match writes.last_mut() {
            Some(last)
                if clear
                    && ready[last.members[0]].clear
                    && last.members.len() < MAX_MERGED_CLEARS as usize
                    && last.first_slot + last.members.len() as u32 == slot =>
            {
                last.members.push(i)
            }
            _ => writes.push(PlannedWrite { first_slot: slot, members: vec![i] }),
        }
    }
    let durability = if writes.len() < BATCH_CROSSING { Durability::Each } else { Durability::Batch };
    WritePlan { writes, durability }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn groups() -> impl Strategy<Value = Vec<Ready>> {
        let dense = proptest::collection::btree_map(0u32..600, any::<bool>(), 0..400);
        let mostly_clear = proptest::collection::btree_map(0u32..600, prop::bool::weighted(0.95), 0..590);
        prop_oneof![dense, mostly_clear]
            .prop_map(|m: BTreeMap<u32, bool>| m.into_iter().map(|(slot, clear)| Ready { slot, clear }).collect())
            .prop_shuffle()
    }

    proptest! {
        /// Section 7: every write is carried by exactly one device write, none overlap, and clears are merged only
        /// over sectors that are all being cleared.
        #[test]
        fn covers_all_once_and_merges_only_clears(ready in groups()) {
            let plan = plan(&ready);
            let mut seen = BTreeSet::new();
            let mut next_free = 0;
            for write in &plan.writes {
                prop_assert!(write.first_slot >= next_free, "overlap");
                next_free = write.first_slot + write.members.len() as u32;
                prop_assert!(write.members.len() == 1 || write.members.iter().all(|&i| ready[i].clear));
                prop_assert!(write.members.len() <= MAX_MERGED_CLEARS as usize);
                for (k, &i) in write.members.iter().enumerate() {
                    prop_assert_eq!(ready[i].slot, write.first_slot + k as u32);
                    prop_assert!(seen.insert(i));
                }
            }
            prop_assert_eq!(seen.len(), ready.len());
            prop_assert_eq!(plan.durability == Durability::Batch, plan.writes.len() >= BATCH_CROSSING);
        }
    }

    /// Section 7: few, each by itself; many, as one batch. A run of clears counts as the one write that it is.
    #[test]
    fn the_crossing_point_counts_device_writes() {
        let image = |slot| Ready { slot, clear: false };
        let clear = |slot| Ready { slot, clear: true };
        assert_eq!(plan(&[image(9), image(1), image(5)]).durability, Durability::Each);
        assert_eq!(plan(&[image(9), image(1), image(5), image(6)]).durability, Durability::Batch);
        let clears: Vec<Ready> = (10..110).map(clear).collect();
        assert_eq!(plan(&clears).durability, Durability::Each);
        assert_eq!(plan(&clears).writes.len(), 1);
        assert_eq!(plan(&[]).writes, []);
    }
}
