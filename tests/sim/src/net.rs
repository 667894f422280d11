//! The network: authenticated links between daemons, as TCP gives them.
//!
//! Within a link frames arrive in order. A link breaks when it is cut, when a partition outlasts the keep-alive, or
//! when an end dies; what was on its way is lost. Each end hears of the break, and of the next link, in its own time.

use crate::clock::Time;
use crate::dice::Dice;
use mxlock_format::NodeId;
use mxlock_proto::peer::PeerFrame;
use std::collections::{BTreeMap, BTreeSet};

/// One pair of hosts, lower index first.
pub type Pair = (usize, usize);

/// The state of a pair's link.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Number of the connection; 0 when there is none.
    pub conn: u64,
    /// The daemon runs at both ends.
    pub runs: [u32; 2],
    /// Their slots.
    pub nodes: [Option<NodeId>; 2],
    /// Whether an end believes it is up.
    pub up: [bool; 2],
    /// When the last frame towards an end arrives: frames never overtake.
    pub last_arrival: [Time; 2],
    /// No new connection before.
    pub not_before: Time,
}

/// All links.
pub struct Net {
    /// By pair.
    pub links: BTreeMap<Pair, Link>,
    /// Pairs that cannot reach each other.
    pub blocked: BTreeSet<Pair>,
    /// Frames that wait for the end of a partition, by pair and end.
    pub stranded: BTreeMap<(Pair, usize), Vec<Box<PeerFrame>>>,
    next_conn: u64,
    /// The network's own randomness.
    pub dice: Dice,
    /// Mean delay of a frame.
    pub latency: Time,
    /// Frames in a million that arrive twice.
    pub duplicates_ppm: u64,
    /// Frames in a million that break their link.
    pub resets_ppm: u64,
}

/// The pair of two hosts.
pub fn pair(a: usize, b: usize) -> Pair {
    (a.min(b), a.max(b))
}

/// Which end of the pair `host` is.
pub fn end_of(pair: Pair, host: usize) -> usize {
    usize::from(pair.1 == host)
}

impl Net {
    /// No link yet.
    pub fn new(dice: Dice, latency: Time, duplicates_ppm: u64, resets_ppm: u64) -> Net {
        Net {
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            stranded: BTreeMap::new(),
            next_conn: 0,
            dice,
            latency,
            duplicates_ppm,
            resets_ppm,
        }
    }

    /// A new connection's number.
    pub fn connect(&mut self) -> u64 {
        self.next_conn += 1;
        self.next_conn
    }

    /// The pair's link.
    pub fn link(&mut self, pair: Pair) -> &mut Link {
        self.links.entry(pair).or_default()
    }

    /// When a frame sent now to `end` arrives.
    pub fn arrival(&mut self, now: Time, pair: Pair, end: usize) -> Time {
        let delay = self.dice.spread(self.latency);
        let link = self.link(pair);
        let at = (now + delay).max(link.last_arrival[end] + 1);
        link.last_arrival[end] = at;
        at
    }
}
