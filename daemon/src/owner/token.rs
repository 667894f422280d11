//! What an event of the loop belongs to.

/// The number of a request to the event loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Token {
    /// A client connects.
    ClientAccept,
    /// A peer connects.
    PeerAccept,
    /// The wake set is readable.
    Wake,
    /// Bytes of this client.
    ClientReceive(u64),
    /// Bytes to this client.
    ClientSend(u64),
    /// Bytes of this link.
    PeerReceive(u64),
    /// Bytes to this link.
    PeerSend(u64),
}

const SHIFT: u32 = 60;
const NUMBER: u64 = (1 << SHIFT) - 1;

impl From<Token> for u64 {
    fn from(token: Token) -> u64 {
        let (kind, number) = match token {
            Token::ClientAccept => (0, 0),
            Token::PeerAccept => (1, 0),
            Token::Wake => (2, 0),
            Token::ClientReceive(n) => (3, n),
            Token::ClientSend(n) => (4, n),
            Token::PeerReceive(n) => (5, n),
            Token::PeerSend(n) => (6, n),
        };
        debug_assert!(number <= NUMBER);
        kind << SHIFT | number
    }
}

impl From<u64> for Token {
    fn from(value: u64) -> Token {
        let number = value & NUMBER;
        match value >> SHIFT {
            0 => Token::ClientAccept,
            1 => Token::PeerAccept,
            2 => Token::Wake,
            3 => Token::ClientReceive(number),
            4 => Token::ClientSend(number),
            5 => Token::PeerReceive(number),
            _ => Token::PeerSend(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive() {
        let n = NUMBER;
        for token in [
            Token::ClientAccept,
            Token::PeerAccept,
            Token::Wake,
            Token::ClientReceive(n),
            Token::ClientSend(0),
            Token::PeerReceive(n),
            Token::PeerSend(n),
        ] {
            assert_eq!(Token::from(u64::from(token)), token);
        }
    }
}
