//! I6: a sector is written only by its owner: heartbeat i by node i's heartbeat thread, lock records by the master.
//!
//! Judged when a core asks for a write, which is the last moment at which it could know better; and no two writes of one
//! record sector are under way together (section 7), or the disk would choose between them.

use mxlock_format::{NodeId, Uuid};

/// A heartbeat that a core publishes from `host`'s slot and installation.
///
/// # Errors
/// It is somebody else's.
pub fn heartbeat(host: usize, shown: (NodeId, Uuid), own: (NodeId, Uuid)) -> Result<(), String> {
    if shown == own {
        return Ok(());
    }
    Err(format!("host {host} publishes a heartbeat that is not its own: {shown:?}, not {own:?}"))
}

/// Record sectors `first` and `count - 1` more are written by a host that `acts` as master within its lease or not, while
/// its writes of `under_way` have not ended.
///
/// # Errors
/// It is not the master, or it writes one of them already.
pub fn records(
    host: usize,
    first: u32,
    count: u32,
    acts: bool,
    mut under_way: impl Iterator<Item = (u32, u32)>,
) -> Result<(), String> {
    if !acts {
        return Err(format!("host {host} writes slot {first} (+{count}) without being master in its lease"));
    }
    let twice = under_way.any(|(at, length)| first < at + length && at < first + count);
    if twice {
        return Err(format!("host {host} writes slot {first} (+{count}) while a write of it is in flight"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_heartbeat_is_seen() {
        let (mine, theirs) = ((NodeId::new(1).unwrap(), Uuid([1; 16])), (NodeId::new(2).unwrap(), Uuid([1; 16])));
        assert!(heartbeat(0, mine, mine).is_ok());
        assert!(heartbeat(0, theirs, mine).is_err());
        assert!(heartbeat(0, (mine.0, Uuid([2; 16])), mine).is_err(), "another installation in the same slot");
    }

    #[test]
    fn a_record_write_without_mastership_or_twice_is_seen() {
        assert!(records(0, 5, 1, true, [(6, 1)].into_iter()).is_ok());
        assert!(records(0, 5, 1, false, [].into_iter()).is_err());
        assert!(records(0, 5, 1, true, [(4, 2)].into_iter()).is_err());
        assert!(records(0, 0, 64, true, [(63, 1)].into_iter()).is_err());
    }
}
