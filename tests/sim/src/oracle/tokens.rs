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

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::{Epoch, SessionId};

    #[test]
    fn a_token_that_is_not_new_is_seen() {
        let mut tokens = Tokens::default();
        let lock = |seq| LockId { session: SessionId(1), seq };
        let token = |epoch, n| Token::new(Epoch(epoch), n);
        assert!(tokens.granted(lock(1), 0, token(7, 3), Token(0)).is_ok());
        assert_eq!(tokens.greatest(), token(7, 3));
        assert!(tokens.granted(lock(1), 0, token(7, 3), Token(0)).is_ok(), "the same grant, told again");
        assert!(tokens.granted(lock(2), 0, token(7, 3), Token(0)).is_err(), "another grant with the same token");
        assert!(tokens.granted(lock(2), 0, token(7, 2), token(7, 3)).is_err(), "asked after 3 was told");
        assert!(tokens.granted(lock(2), 0, token(6, 99), token(7, 3)).is_err(), "an epoch goes back");
        assert!(tokens.granted(lock(2), 0, token(8, 1), token(7, 3)).is_ok());
    }
}
