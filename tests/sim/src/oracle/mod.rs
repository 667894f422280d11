//! Oracles: each watches one invariant of DESIGN section 9 from outside, knowing only what clients were told and what
//! is on the disk.
//!
//! | rule | file |
//! |---|---|
//! | I1 no incompatible holders | `exclusion` |
//! | I2 tokens increase | `tokens` |
//! | I3 a record for every lock | `superset` |
//! | I4 one view per epoch, one master, whose word counts alone | `views`, `ballots`, `reigns` |
//! | I5 releases have a reason; orphans stand; nobody is excluded who lives | `release`, `judgement` |
//! | I6 one writer per sector, in its reign | `writers`, `landing` |
//! | I7 one answer to every request | `answers` |
//! | I8 order | `order` |
//! | I9 values | `values` |
//! | I10 disk = memory at rest | `rest` |
//! | I11 damage is told of | `damage` |
//! | section 5, leases | `lease` |
//! | section 6, which records count | `stamps` |

pub mod answers;
pub mod ballots;
pub mod damage;
pub mod exclusion;
pub mod judgement;
pub mod landing;
pub mod lease;
pub mod order;
pub mod reigns;
pub mod release;
pub mod rest;
pub mod stamps;
pub mod superset;
pub mod tokens;
pub mod values;
pub mod views;
pub mod writers;

/// The rule that was broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Rule {
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
    I8,
    I9,
    I10,
    I11,
    /// Section 5: how long a lease is, and what makes it stand again.
    Lease,
    /// Section 6.3: what is older than the table epoch is no record any more.
    Stamps,
    /// After everything is healed, every waiter is served and all nodes are back.
    Liveness,
    /// `Core::check_invariants` found its memory out of order.
    Memory,
    /// The code under test panicked.
    Panic,
}

/// All oracles that keep state.
#[derive(Default)]
pub struct Oracles {
    /// I1
    pub exclusion: exclusion::Exclusion,
    /// I2
    pub tokens: tokens::Tokens,
    /// I4
    pub views: views::Views,
    /// I4: how views are agreed on
    pub ballots: ballots::Ballots,
    /// I4: whose word counts
    pub reigns: reigns::Reigns,
    /// I5: who may be excluded
    pub judgement: judgement::Judgement,
    /// I6: when records land
    pub landing: landing::Landing,
    /// Section 5
    pub leases: lease::Leases,
    /// I5: what outlives its process
    pub orphans: release::Orphans,
    /// I8
    pub order: order::Order,
    /// I9
    pub values: values::Values,
    /// I11
    pub damage: damage::Damage,
}
