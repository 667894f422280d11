//! I7: every request ends in exactly one of: granted, denied with a reason, cancelled, session over.
//!
//! Two exceptions: what was sent again after a lost connection may have crossed its answer, and is answered once more;
//! and a request that was over, but whose `waiting` record outlived the daemon, is answered unasked.

use crate::client::Client;

/// An answer for `op` of lock `seq` has come: whether the client waits for it, or it is a repetition.
///
/// # Errors
/// Nobody waits for it: it is a second one, or one that was never asked for.
pub fn check(client: &Client, seq: u64, op: u32) -> Result<bool, String> {
    match client.locks.get(&seq).and_then(|held| held.ops.get(&op)) {
        Some(_) => Ok(true),
        None if op == 0 && client.from_records && seq < client.next_seq => Ok(false),
        None if client.echoes.contains(&(seq, op)) => Ok(false),
        None => Err(format!("an answer to operation {op} of lock {seq} in {:?}, which waits for none", client.session)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Held;
    use crate::dice::Dice;
    use mxlock_format::Process;

    #[test]
    fn a_second_answer_is_seen() {
        let process = Process { pid: 1, start_time: 0, uid: 0 };
        let mut client = Client::new(0, process, 1, Dice::new(0, "test", 0));
        client.locks.insert(1, Held::new(0, None, 0));
        client.next_seq = 2;
        assert!(check(&client, 1, 0).is_err(), "nothing was asked");
        client.echoes.insert((1, 0));
        assert_eq!(check(&client, 1, 0), Ok(false), "it was sent again, and the answers crossed");
        client.echoes.clear();
        client.from_records = true;
        assert_eq!(check(&client, 1, 0), Ok(false), "a record outlived the daemon that knew better");
        assert!(check(&client, 1, 1).is_err(), "no record brings a conversion back");
        assert!(check(&client, 2, 0).is_err(), "lock 2 was never asked for");
    }
}
