//! Which command a lock holder is.

use mxlock_format::{NodeId, Process};
use mxlock_proto::report::Lock;
use std::collections::HashMap;

/// The command names of lock holders. Only this machine's processes can be looked up.
pub(in crate::mxlock) struct Commands {
    pub(super) here: Option<NodeId>,
    pub(super) names: HashMap<Process, String>,
}

impl Commands {
    /// Looks the holders on this machine's node `here` up in /proc; a process with another start time is another one.
    pub(in crate::mxlock) fn look_up(here: Option<NodeId>, locks: &[Lock]) -> Commands {
        let processes = locks.iter().filter(|lock| Some(lock.node) == here).map(|lock| lock.process);
        let names = processes.filter_map(|process| Some((process, command_name(process)?))).collect();
        Commands { here, names }
    }

    pub(super) fn of(&self, lock: &Lock) -> Option<&str> {
        if Some(lock.node) != self.here {
            return None;
        }
        self.names.get(&lock.process).map(String::as_str)
    }
}

/// Field 2 of /proc/PID/stat, in parentheses, if field 22 is the start time.
pub(super) fn command_name(process: Process) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let start_time: u64 = after.split_whitespace().nth(19)?.parse().ok()?;
    let name = before.split_once('(')?.1;
    (start_time == process.start_time).then(|| name.escape_debug().to_string())
}
