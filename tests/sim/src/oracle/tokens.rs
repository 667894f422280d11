//! I2: tokens strictly increase over all grants of a lockspace, across epochs, handovers and reformats.
//!
//! A grant that was told before another one was asked for came earlier; so its token must be smaller. No two grants have
//! the same token.

use mxlock_format::{LockId, Token};
use std::collections::BTreeMap;

/// The tokens that were told.
#[derive(Default)]
pub struct Tokens {
    told: BTreeMap<Token, (LockId, u32)>,
    greatest: Token,
}

impl Tokens {
    /// The greatest token that anybody was told.
    pub fn greatest(&self) -> Token {
        self.greatest
    }

    /// A client was told a grant; `floor` is the greatest token that was told when it asked.
    ///
    /// # Errors
    /// The token is not above an earlier grant's, or another grant's.
    pub fn granted(&mut self, lock: LockId, op: u32, token: Token, floor: Token) -> Result<(), String> {
        if token <= floor {
            return Err(format!(
                "{lock:?} (operation {op}) was granted with {token:?}, not above {floor:?}, which was told before it asked"
            ));
        }
        if let Some(other) = self.told.insert(token, (lock, op))
            && other != (lock, op)
        {
            return Err(format!("{token:?} was told for {other:?} and for {:?}", (lock, op)));
        }
        self.greatest = self.greatest.max(token);
        Ok(())
    }
}
