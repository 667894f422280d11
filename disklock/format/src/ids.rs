//! Identifiers that must never be mixed up.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of node slots in every lockstate.
pub const MAX_NODES: usize = 64;

/// A node slot, 0..=63.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct NodeId(u8);

impl NodeId {
    /// The node of slot `slot`, or `None` when there is no such slot.
    pub const fn new(slot: u32) -> Option<NodeId> {
        if slot < MAX_NODES as u32 { Some(NodeId(slot as u8)) } else { None }
    }

    /// All 64 nodes in order.
    pub fn all() -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator {
        (0..MAX_NODES as u8).map(NodeId)
    }

    /// The slot number as an array index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The slot number.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }
}

impl From<NodeId> for u32 {
    fn from(node: NodeId) -> u32 {
        node.get()
    }
}

impl TryFrom<u32> for NodeId {
    type Error = String;

    fn try_from(slot: u32) -> Result<NodeId, String> {
        NodeId::new(slot).ok_or_else(|| format!("node {slot} is not in 0..=63"))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A set of node slots: one bit per node.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeSet(pub u64);

impl NodeSet {
    /// No node.
    pub const EMPTY: NodeSet = NodeSet(0);

    /// The set of one node.
    pub const fn only(node: NodeId) -> NodeSet {
        NodeSet(1 << node.0)
    }

    /// Whether `node` is in the set.
    pub const fn contains(self, node: NodeId) -> bool {
        self.0 & (1 << node.0) != 0
    }

    /// The set with `node` added.
    #[must_use]
    pub const fn with(self, node: NodeId) -> NodeSet {
        NodeSet(self.0 | (1 << node.0))
    }

    /// The set with `node` removed.
    #[must_use]
    pub const fn without(self, node: NodeId) -> NodeSet {
        NodeSet(self.0 & !(1 << node.0))
    }

    /// Adds `node`.
    pub fn insert(&mut self, node: NodeId) {
        *self = self.with(node);
    }

    /// Removes `node`.
    pub fn remove(&mut self, node: NodeId) {
        *self = self.without(node);
    }

    /// The members in order.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        NodeId::all().filter(move |&n| self.contains(n))
    }

    /// How many nodes are in the set.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether no node is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<T: IntoIterator<Item = NodeId>>(nodes: T) -> NodeSet {
        nodes.into_iter().fold(NodeSet::EMPTY, NodeSet::with)
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number!(
    /// The number of a view (DESIGN section 4); also the instance number of its agreement.
    Epoch, "e"
);
number!(
    /// A fencing token: `(table epoch << 40) + counter`, strictly growing over all grants of a lockspace (I2).
    Token, "t"
);
number!(
    /// Which start of a daemon: drawn anew at each start, never 0 for a daemon that ran.
    Incarnation, "i"
);
number!(
    /// A client's conversation with its local daemon. Unique over the lockspace's life (64 random bits).
    SessionId, "s"
);
number!(
    /// A Paxos ballot: `k * 64 + node`; 0 is "none".
    Ballot, "b"
);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

/// Bits of a token that count grants within one table epoch.
pub const TOKEN_COUNTER_BITS: u32 = 40;

/// The highest epoch of a view: tokens of a higher one would wrap around and break I2. Formatting starts near
/// 500,000 (hours since 1970), so this leaves 16 million view changes.
pub const MAX_EPOCH: Epoch = Epoch(u64::MAX >> TOKEN_COUNTER_BITS);

impl Token {
    /// The token number `counter` of `table_epoch`. Both are bounded: the epoch by [`MAX_EPOCH`], which no sector
    /// exceeds, the counter by 40 bits, which last 34 years at a thousand grants a second.
    pub const fn new(table_epoch: Epoch, counter: u64) -> Token {
        debug_assert!(table_epoch.0 <= MAX_EPOCH.0 && counter >> TOKEN_COUNTER_BITS == 0);
        Token((table_epoch.0 << TOKEN_COUNTER_BITS) + counter)
    }

    /// The table epoch that it was given in.
    pub const fn table_epoch(self) -> Epoch {
        Epoch(self.0 >> TOKEN_COUNTER_BITS)
    }
}

impl Ballot {
    /// No ballot was cast.
    pub const NONE: Ballot = Ballot(0);

    /// The smallest ballot of `node` above this one.
    #[must_use]
    pub const fn next_for(self, node: NodeId) -> Ballot {
        Ballot((self.0 / MAX_NODES as u64 + 1) * MAX_NODES as u64 + node.0 as u64)
    }

    /// Whose ballot it is; meaningless for `NONE`.
    pub const fn node(self) -> NodeId {
        NodeId((self.0 % MAX_NODES as u64) as u8)
    }
}

/// A lock's identity, chosen by its owner's side, so that a request can be sent again without harm (section 6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockId {
    /// The session that asked for the lock.
    pub session: SessionId,
    /// The session's own number for it; never used twice by one session.
    pub seq: u64,
}

impl fmt::Display for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.session.0, self.seq)
    }
}

impl fmt::Debug for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l{self}")
    }
}
