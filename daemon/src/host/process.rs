//! Processes: who is at the other end of a socket, and which process a pid means.

use mxlock_format::Process;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::os::unix::net::UnixStream;

/// The process that connected, as the kernel says. `None` when it is gone, or its pid has no meaning here (another
/// pid namespace).
pub(crate) fn peer_process(socket: &UnixStream) -> Option<Process> {
    let credentials = getsockopt(socket, PeerCredentials).ok()?;
    let pid = u32::try_from(credentials.pid()).ok().filter(|&pid| pid != 0)?;
    Some(Process { pid, start_time: start_time(pid)?, uid: credentials.uid() })
}

/// The process that has this pid now.
pub(crate) fn process(pid: u32) -> Option<Process> {
    use std::os::unix::fs::MetadataExt;
    let uid = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    Some(Process { pid, start_time: start_time(pid)?, uid })
}

/// Start time of the process with this pid, field 22 of /proc/PID/stat; with the pid it names a process for good.
/// `None` when there is none, or only its zombie.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc_pid_stat(5). The command, field 2, may hold spaces and parentheses: fields are counted from the last `)`.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(22 - 4)?.parse().ok()
}

/// The command of a process that runs, as ps(1) shows it; that of `mxlock run` with what it runs.
pub(crate) fn command_name(process: Process) -> Option<String> {
    let Process { pid, start_time, .. } = process;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    if parse_stat(&stat)? != start_time {
        return None;
    }
    let name = parse_command(&stat)?;
    if name != "mxlock" {
        return Some(name);
    }
    let child = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok().and_then(|children| {
        let child = children.split_ascii_whitespace().next()?.to_owned();
        parse_command(&std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?)
    });
    Some(child.map_or(name.clone(), |child| format!("{name}: {child}")))
}

/// Field 2 of proc_pid_stat(5), at most 15 bytes; what is not printable is escaped.
fn parse_command(stat: &str) -> Option<String> {
    let (before, _) = stat.rsplit_once(')')?;
    Some(before.split_once('(')?.1.escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_may_look_like_anything() {
        let tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(parse_stat(&format!("12 (a) b) Z 1){tail}")), Some(4711));
        assert_eq!(parse_stat("12 (a) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711"), None);
        assert_eq!(parse_stat("12 (a) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn this_process_is_known_by_its_socket() {
        let (one, _two) = UnixStream::pair().unwrap();
        let me = peer_process(&one).unwrap();
        assert_eq!(me.pid, std::process::id());
        assert_eq!(Some(me), process(std::process::id()));
    }

    /// The command of a process that runs, and not of one that has its number now.
    #[test]
    fn commands_are_those_of_the_process_that_was_meant() {
        let me = process(std::process::id()).unwrap();
        assert!(command_name(me).is_some_and(|name| !name.is_empty()));
        assert_eq!(command_name(Process { start_time: me.start_time + 1, ..me }), None);
        assert_eq!(parse_command("12 (a) (b\n) S 1").as_deref(), Some("a) (b\\n"));
        assert_eq!(parse_command("12"), None);
    }

    #[test]
    fn a_process_that_ended_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(start_time(pid), None);
    }
}
