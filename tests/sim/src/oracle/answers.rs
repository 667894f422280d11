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
