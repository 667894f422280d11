//! The six VMS lock modes and their lattice.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A lock mode, with the numbers that are on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Mode {
    /// Null: holds a place, conflicts with nothing.
    NL = 0,
    /// Concurrent read.
    CR = 1,
    /// Concurrent write.
    CW = 2,
    /// Protected read ("shared").
    PR = 3,
    /// Protected write ("update").
    PW = 4,
    /// Exclusive.
    EX = 5,
}

impl Mode {
    /// All modes in the order of their numbers.
    pub const ALL: [Mode; 6] = [Mode::NL, Mode::CR, Mode::CW, Mode::PR, Mode::PW, Mode::EX];

    /// The mode with this number.
    pub const fn from_number(number: u8) -> Option<Mode> {
        if (number as usize) < Mode::ALL.len() { Some(Mode::ALL[number as usize]) } else { None }
    }

    /// Whether two owners may hold these modes at once (the VMS compatibility matrix).
    pub const fn compatible(self, other: Mode) -> bool {
        use Mode::*;
        match (self, other) {
            (NL, _) | (_, NL) => true,
            (CR, EX) | (EX, CR) => false,
            (CR, _) | (_, CR) => true,
            (CW, CW) | (PR, PR) => true,
            _ => false,
        }
    }

    /// Whether holding `self` permits everything that holding `other` does. PR and CW are incomparable
    /// (PROTOTYPE 11): neither covers the other.
    pub const fn covers(self, other: Mode) -> bool {
        use Mode::*;
        match (self, other) {
            (CW, PR) | (PR, CW) => false,
            _ => self as u8 >= other as u8,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::NL => "NL",
            Mode::CR => "CR",
            Mode::CW => "CW",
            Mode::PR => "PR",
            Mode::PW => "PW",
            Mode::EX => "EX",
        })
    }
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        Mode::ALL
            .into_iter()
            .find(|m| m.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("'{text}' is not a lock mode: use one of NL, CR, CW, PR, PW, EX"))
    }
}
