//! Ending processes whose lock is lost: who they are, and until when (DESIGN section 5).

use mxlock_client::Lease;
use nix::unistd::Pid;
use std::collections::HashMap;
use std::time::Duration;

/// All descendants of a process that run, by the parents that /proc shows.
pub(crate) fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = parent_of_running(pid) {
            children.entry(parent).or_default().push(Pid::from_raw(pid));
        }
    }
    let mut found = children.remove(&ancestor).unwrap_or_default();
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// The parent of a process; `None` when there is none such, or it is a zombie.
fn parent_of_running(pid: i32) -> Option<Pid> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, can hold anything.
    let after_name = stat.iter().rposition(|&b| b == b')')? + 1;
    let text = std::str::from_utf8(&stat[after_name..]).ok()?;
    let mut fields = text.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.next()?.parse().ok().map(Pid::from_raw)
}

/// When SIGKILL is due. A lock can also be lost while the lease goes on (administrator): then the time counts from now.
pub(crate) fn kill_time_ns(lease: &Lease, now_ns: u64) -> u64 {
    kill_time(lease.deadline_ns(), now_ns, lease.grace())
}

fn kill_time(deadline_ns: u64, now_ns: u64, grace: Duration) -> u64 {
    let lost_at_ns = if deadline_ns == 0 { now_ns } else { deadline_ns.min(now_ns) };
    lost_at_ns.saturating_add(grace.as_nanos() as u64 / 4 * 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{getpid, getppid};
    use std::io;
    use std::process::Command;

    /// A process whose name has parentheses and blanks does not confuse the parser.
    #[test]
    fn this_process_has_its_parent() {
        assert_eq!(parent_of_running(getpid().as_raw()), Some(getppid()));
        assert_eq!(parent_of_running(-1), None);
    }

    #[test]
    fn grandchildren_are_descendants() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 & echo started; wait"]);
        let mut shell = shell.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(shell.stdout.take().unwrap()), &mut line).unwrap();
        let pid = Pid::from_raw(shell.id() as i32);
        let below = descendants(pid);
        assert_eq!(below.len(), 1, "the sleep");
        assert!(descendants(getpid()).contains(&below[0]));
        let _ = kill(below[0], Signal::SIGKILL);
        shell.wait().unwrap();
        assert_eq!(descendants(pid), []);
    }

    /// Section 5: COMMAND must be gone by deadline + grace, also when this process was paused in between.
    #[test]
    fn the_kill_comes_within_the_grace_time_of_the_deadline() {
        let grace = Duration::from_secs(4);
        let second = 1_000_000_000;
        assert_eq!(kill_time(10 * second, 10 * second, grace), 13 * second);
        assert_eq!(kill_time(10 * second, 12 * second, grace), 13 * second, "noticed late");
        assert_eq!(kill_time(10 * second, 99 * second, grace), 13 * second, "noticed after a long pause: at once");
        assert_eq!(kill_time(90 * second, 10 * second, grace), 13 * second, "released by an administrator");
        assert_eq!(kill_time(0, 10 * second, grace), 13 * second, "the page says only that the lease is lost");
    }
}
