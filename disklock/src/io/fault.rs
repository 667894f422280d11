use nix::errno::Errno;

/// Why one I/O request did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IoFault {
    /// The deadline had passed when it was about to be issued: nothing was written.
    #[error("not issued: its time had passed")]
    Expired,
    /// The kernel refused or failed it.
    #[error("{}", .0.desc())]
    Os(Errno),
    /// Less than the whole was transferred.
    #[error("only {got} of {wanted} bytes were transferred")]
    Short {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes done.
        got: usize,
    },
    /// A 4096-byte sector holds something behind its record.
    #[error("bytes behind the record are not zero")]
    TailNotZero,
}

impl IoFault {
    /// Judges a finished transfer.
    pub(crate) fn check(wanted: usize, result: Result<usize, Errno>) -> Result<(), IoFault> {
        match result {
            Ok(got) if got == wanted => Ok(()),
            Ok(got) => Err(IoFault::Short { wanted, got }),
            Err(errno) => Err(IoFault::Os(errno)),
        }
    }

    /// The errno to report for it.
    pub(crate) fn errno(self) -> Errno {
        match self {
            IoFault::Os(errno) => errno,
            IoFault::Expired => Errno::ETIME,
            IoFault::Short { .. } | IoFault::TailNotZero => Errno::EIO,
        }
    }
}
