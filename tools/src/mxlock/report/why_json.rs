//! `mxlock why` as a JSON document. Keys are a contract: add, never rename.

use super::commands::Commands;
use super::json::LockJson;
use crate::common::json::ResourceJson;
use mxlock_format::{NodeId, Resource};
use mxlock_proto::why::{How, Until, Why, WhyLock, WhyNode};
use serde::Serialize;

/// `why` as JSON.
#[derive(Serialize)]
pub(in crate::mxlock) struct WhyJson {
    #[serde(flatten)]
    resource: ResourceJson,
    locks: Vec<WhyLockJson>,
    omitted: u64,
    cycle: Vec<String>,
    complete: bool,
    nodes: Vec<WhyNodeJson>,
}

#[derive(Serialize)]
struct WhyLockJson {
    #[serde(flatten)]
    lock: LockJson,
    /// Decimal, as all 64-bit ids.
    transaction: Option<String>,
    for_ms: u64,
    blocked_by: Vec<BlockerJson>,
    blocked_by_omitted: u64,
    nodlckwt: bool,
    nodlckblk: bool,
    told: bool,
    until: &'static str,
    left_ms: Option<u64>,
}

#[derive(Serialize)]
struct BlockerJson {
    lock_id: String,
    how: How,
}

#[derive(Serialize)]
struct WhyNodeJson {
    node: NodeId,
    host: String,
    silent_ms: Option<u64>,
    reachable: bool,
    suspect: bool,
    blocked_on_fencing: bool,
}

impl WhyJson {
    pub(in crate::mxlock) fn new(resource: &Resource, why: &Why, commands: &Commands) -> WhyJson {
        WhyJson {
            resource: ResourceJson::from(resource),
            locks: why.locks.iter().map(|entry| WhyLockJson::new(why.now_ms, entry, commands)).collect(),
            omitted: why.omitted,
            cycle: why.cycle.iter().map(ToString::to_string).collect(),
            complete: !why.search_ended_early,
            nodes: why.nodes.iter().map(WhyNodeJson::from).collect(),
        }
    }
}

impl WhyLockJson {
    fn new(now_ms: u64, entry: &WhyLock, commands: &Commands) -> WhyLockJson {
        let (until, left_ms) = match entry.until {
            Until::Served => ("served", None),
            Until::Released => ("released", None),
            Until::Written => ("written", None),
            Until::Cleared => ("cleared", None),
            Until::Reconnected => ("reconnected", None),
            Until::Adopted => ("adopted", None),
            Until::Reported { left_ms } => ("reported", left_ms),
        };
        WhyLockJson {
            lock: LockJson::new(&entry.lock, commands),
            transaction: Some(entry.transaction).filter(|&transaction| transaction != 0).map(|id| id.to_string()),
            for_ms: now_ms.saturating_sub(entry.lock.since_ms),
            blocked_by: entry
                .blockers
                .iter()
                .map(|blocker| BlockerJson { lock_id: blocker.lock.to_string(), how: blocker.how })
                .collect(),
            blocked_by_omitted: entry.blockers_omitted,
            nodlckwt: entry.nodlckwt,
            nodlckblk: entry.nodlckblk,
            told: entry.told,
            until,
            left_ms,
        }
    }
}

impl From<&WhyNode> for WhyNodeJson {
    fn from(node: &WhyNode) -> WhyNodeJson {
        WhyNodeJson {
            node: node.node,
            host: node.host.clone(),
            silent_ms: node.silent_ms,
            reachable: node.reachable,
            suspect: node.suspect,
            blocked_on_fencing: node.blocked_on_fencing,
        }
    }
}
