//! How a command fails: one sentence for people, one exit code for scripts (INTERFACE.md, "Exit codes").

use std::process::ExitCode;

/// The exit codes of INTERFACE.md that a failure can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// 1: not granted, findings, not found, or the number given with `run -E`.
    No(u8),
    /// 64: wrong usage.
    Usage,
    /// 65: not a lockstate, damaged, or of another lockspace.
    Data,
    /// 69: the daemon or the cluster cannot be reached.
    Unreachable,
    /// 73: a file cannot be created.
    CannotCreate,
    /// 74: I/O error.
    Io,
    /// 75: not now.
    NotNow,
    /// 77: permission.
    Permission,
    /// 78: configuration.
    Config,
    /// 126: COMMAND was found but cannot be executed.
    CannotExecute,
    /// 127: COMMAND was not found.
    CommandNotFound,
}

impl Code {
    /// The number that the process exits with.
    pub const fn number(self) -> u8 {
        match self {
            Code::No(number) => number,
            Code::Usage => 64,
            Code::Data => 65,
            Code::Unreachable => 69,
            Code::CannotCreate => 73,
            Code::Io => 74,
            Code::NotNow => 75,
            Code::Permission => 77,
            Code::Config => 78,
            Code::CannotExecute => 126,
            Code::CommandNotFound => 127,
        }
    }

    /// The code with this number of the contract; everything unknown is an I/O error.
    pub const fn from_number(number: u8) -> Code {
        match number {
            1 => Code::No(1),
            64 => Code::Usage,
            65 => Code::Data,
            69 => Code::Unreachable,
            73 => Code::CannotCreate,
            75 => Code::NotNow,
            77 => Code::Permission,
            78 => Code::Config,
            _ => Code::Io,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code.number())
    }
}

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For scripts.
    pub code: Code,
    /// One sentence: what, where, what to do. Empty when the output has said it all (findings, not ready).
    pub message: String,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// A "no" that the command's output has explained.
    pub fn silent(code: Code) -> Failure {
        Failure { code, message: String::new() }
    }

    /// An operation on `what` that the system refused.
    pub fn system(doing: &str, what: impl std::fmt::Display, error: &std::io::Error) -> Failure {
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Code::Permission,
            _ => Code::Io,
        };
        Failure::new(code, format!("cannot {doing} {what}: {}", without_os_code(error)))
    }
}

/// An I/O error's text without Rust's " (os error N)".
pub fn without_os_code(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INTERFACE.md, "Exit codes".
    #[test]
    fn codes_have_the_numbers_of_the_contract() {
        for number in [1, 64, 65, 69, 73, 74, 75, 77, 78] {
            assert_eq!(Code::from_number(number).number(), number);
        }
        assert_eq!(Code::from_number(99), Code::Io);
        assert_eq!((Code::CannotExecute.number(), Code::CommandNotFound.number()), (126, 127));
    }

    #[test]
    fn io_errors_read_as_sentences() {
        let error = std::io::Error::from_raw_os_error(libc::EACCES);
        let failure = Failure::system("open", "/x", &error);
        assert_eq!(failure.to_string(), "cannot open /x: Permission denied");
        assert_eq!(failure.code, Code::Permission);
    }
}
