//! The network: authenticated links between daemons, as TCP gives them.
//!
//! Within a link frames arrive in order. A link breaks when it is cut, when a partition outlasts the keep-alive, or
//! when an end dies; what was on its way is lost. Each end hears of the break, and of the next link, in its own time:
//! an end that has not heard of a break yet takes the next link in place of the old one, as the daemon does.

use crate::clock::{SEC, Time};
use crate::dice::{Dice, both};
use mxlock_format::NodeId;
use mxlock_proto::peer::PeerFrame;
use std::collections::{BTreeMap, BTreeSet};

/// One pair of hosts, lower index first.
pub type Pair = (usize, usize);

/// The state of a pair's link.
#[derive(Clone, Debug)]
pub struct Link {
    /// Number of the connection; 0 when there is none.
    pub conn: u64,
    /// The daemon runs at both ends.
    pub runs: [u32; 2],
    /// Their slots.
    pub nodes: [Option<NodeId>; 2],
    /// The connection that each end believes in; 0: none.
    pub up: [u64; 2],
    /// The run that believes so.
    pub up_runs: [u32; 2],
    /// The slot at the other end of it.
    pub up_nodes: [Option<NodeId>; 2],
    /// When the last frame towards an end arrives: frames never overtake.
    pub last_arrival: [Time; 2],
    /// No new connection before.
    pub not_before: Time,
    /// What is drawn for connections.
    pub dice: Dice,
    /// What is drawn for frames towards each end.
    pub frames: [Dice; 2],
}

/// All links.
pub struct Net {
    seed: u64,
    links: BTreeMap<Pair, Link>,
    /// Directions, by pair and receiving end, in which nothing gets through.
    pub blocked: BTreeSet<(Pair, usize)>,
    /// Frames that wait for the end of a partition, by pair and end.
    pub stranded: BTreeMap<(Pair, usize), Vec<Box<PeerFrame>>>,
    /// Hosts that take frames late, with the end of it.
    pub slow_until: BTreeMap<usize, Time>,
    next_conn: u64,
    /// Mean delay of a frame.
    pub latency: Time,
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
    pub fn new(seed: u64, latency: Time) -> Net {
        Net {
            seed,
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            stranded: BTreeMap::new(),
            slow_until: BTreeMap::new(),
            next_conn: 0,
            latency,
        }
    }

    /// A new connection's number.
    pub fn connect(&mut self) -> u64 {
        self.next_conn += 1;
        self.next_conn
    }

    /// The pair's link.
    pub fn link(&mut self, pair: Pair) -> &mut Link {
        let seed = self.seed;
        self.links.entry(pair).or_insert_with(|| {
            let which = both(pair.0, pair.1 as u32);
            Link {
                conn: 0,
                runs: [0; 2],
                nodes: [None; 2],
                up: [0; 2],
                up_runs: [0; 2],
                up_nodes: [None; 2],
                last_arrival: [0; 2],
                not_before: 0,
                dice: Dice::new(seed, "link", which),
                frames: ["frames to the first", "frames to the second"].map(|name| Dice::new(seed, name, which)),
            }
        })
    }

    /// Whether nothing gets through between a pair, in one direction or both.
    pub fn is_blocked(&self, pair: Pair) -> bool {
        self.blocked.contains(&(pair, 0)) || self.blocked.contains(&(pair, 1))
    }

    /// When a frame sent now to `end` arrives.
    pub fn arrival(&mut self, now: Time, pair: Pair, end: usize) -> Time {
        let latency = self.latency;
        let slow = self.slow_until.get(&[pair.0, pair.1][end]).is_some_and(|&until| until > now);
        let link = self.link(pair);
        let mut delay = link.frames[end].spread(latency);
        if slow {
            delay += link.frames[end].below(2 * SEC);
        }
        let at = (now + delay).max(link.last_arrival[end] + 1);
        link.last_arrival[end] = at;
        at
    }
}
