//! sd_notify(3): readiness, status line and watchdog for the service manager.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The service manager's socket, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    /// Half of the watchdog's time.
    feed_every: Option<Duration>,
    fed: Option<Instant>,
    status: String,
}

impl Notifier {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say.
    pub(crate) fn from_environment() -> Notifier {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Notifier::default() };
        let watchdog_is_ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
        let watchdog = std::env::var("WATCHDOG_USEC").ok().and_then(|usec| usec.parse().ok());
        Notifier::to(name.as_bytes(), watchdog.filter(|_| watchdog_is_ours).map(Duration::from_micros))
    }

    fn to(name: &[u8], watchdog: Option<Duration>) -> Notifier {
        let address = match name {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
        };
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            // The service manager may be slow; the owner thread never waits for it.
            socket.set_nonblocking(true)?;
            socket.connect_addr(&address)?;
            Ok(socket)
        });
        if let Err(error) = &socket {
            tracing::warn!(%error, "the service manager's notification socket cannot be used");
        }
        Notifier { socket: socket.ok(), feed_every: watchdog.map(|time| time / 2), fed: None, status: String::new() }
    }

    /// The daemon serves.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// The daemon is going down.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`; sent when it changes.
    pub(crate) fn status(&mut self, line: &str) {
        if self.socket.is_some() && self.status != line {
            line.clone_into(&mut self.status);
            self.send(&format!("STATUS={line}"));
        }
    }

    /// Called at every turn of the owner thread: if it hangs, the watchdog is not fed.
    pub(crate) fn feed(&mut self, now: Instant) {
        if let Some(every) = self.feed_every
            && self.fed.is_none_or(|fed| now.duration_since(fed) >= every)
        {
            self.fed = Some(now);
            self.send("WATCHDOG=1");
        }
    }

    /// How long the owner thread may sleep.
    pub(crate) fn feed_every(&self) -> Option<Duration> {
        self.feed_every
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // Nobody is there to be told of a failure.
            let _ = socket.send(message.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut notifier = Notifier::to(path.as_os_str().as_bytes(), Some(Duration::from_secs(10)));
        let receive = || {
            let mut buffer = [0; 100];
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        notifier.ready();
        assert_eq!(receive(), "READY=1");
        notifier.status("view 3");
        notifier.status("view 3");
        let start = Instant::now();
        notifier.feed(start);
        notifier.feed(start + Duration::from_secs(4));
        notifier.feed(start + Duration::from_secs(5));
        notifier.stopping();
        assert_eq!(
            [receive(), receive(), receive(), receive()],
            ["STATUS=view 3", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]
        );
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        let mut notifier = Notifier::default();
        notifier.ready();
        notifier.feed(Instant::now());
        assert_eq!(notifier.feed_every(), None);
    }
}
