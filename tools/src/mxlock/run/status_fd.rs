//! `--status-fd`: how a caller can tell mxlock's own end from COMMAND's.

use super::process::take_descriptor;
use crate::common::failure::{Code, Failure, without_os_code};
use std::fs::File;
use std::io::Write;

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    Granted,
    NotGranted,
    Lost,
    Exit(u8),
}

/// The descriptor, if one was given.
pub(super) struct StatusFd(Option<File>);

impl StatusFd {
    /// Takes the descriptor over. Must be called before this process opens anything: a number that the caller did
    /// not open would else be one of mxlock's own.
    ///
    /// # Errors
    /// [`Code::Usage`] when it is not open.
    pub(super) fn take(number: Option<u32>) -> Result<StatusFd, Failure> {
        let Some(number) = number else { return Ok(StatusFd(None)) };
        match take_descriptor(number) {
            Ok(file) => Ok(StatusFd(Some(file))),
            Err(e) => {
                let reason = without_os_code(&e);
                Err(Failure::new(Code::Usage, format!("descriptor {number} of --status-fd cannot be used: {reason}")))
            }
        }
    }

    /// Writes one line. A caller that no longer reads must not keep locks from being released.
    pub(super) fn write(&self, event: Event) {
        let Some(mut file) = self.0.as_ref() else { return };
        let line = match event {
            Event::Granted => "granted\n".to_owned(),
            Event::NotGranted => "not-granted\n".to_owned(),
            Event::Lost => "lost\n".to_owned(),
            Event::Exit(code) => format!("exit {code}\n"),
        };
        let _ = file.write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    /// INTERFACE.md: `granted`, `not-granted`, `lost` or `exit N`.
    #[test]
    fn lines_are_those_of_the_contract() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let status = StatusFd::take(Some(writer.as_raw_fd() as u32)).unwrap();
        drop(writer);
        for event in [Event::Granted, Event::NotGranted, Event::Lost, Event::Exit(137)] {
            status.write(event);
        }
        drop(status);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "granted\nnot-granted\nlost\nexit 137\n");
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_wrong_usage() {
        assert_eq!(StatusFd::take(Some(999_999)).err().unwrap().code, Code::Usage);
        StatusFd::take(None).unwrap().write(Event::Granted);
    }
}
