//! Oracles: each watches one invariant of DESIGN section 9 from outside, knowing only what clients were told and what
//! is on the disk.

pub mod answers;
pub mod exclusion;
pub mod judgement;
pub mod landing;
pub mod lease;
pub mod order;
pub mod superset;
pub mod tokens;
pub mod values;
pub mod views;

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
    /// I5: who may be excluded
    pub judgement: judgement::Judgement,
    /// I6: when records land
    pub landing: landing::Landing,
    /// Section 5
    pub leases: lease::Leases,
    /// I8
    pub order: order::Order,
    /// I9
    pub values: values::Values,
}
