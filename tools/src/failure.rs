//! How a command ends when it does not end well: one line on stderr and an exit code that a script can tell apart.

use std::fmt;
use std::io;

/// Anything that went wrong and has no code of its own.
pub(crate) const GENERAL: u8 = 1;
/// The command line cannot be understood. The same code that argument parsing uses.
pub(crate) const USAGE: u8 = 2;
/// Configuration that cannot be used (`EX_CONFIG`).
pub(crate) const CONFIGURATION: u8 = 78;
/// The reader of our output went away, as a shell reports SIGPIPE.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Why a command ends without having done what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Said on stderr, then exit.
    Said {
        /// Exit code of the process.
        code: u8,
        /// One line for people: what, which, what to do.
        message: String,
    },
    /// Nothing to say: the user knows (Ctrl-C, a closed pipe).
    Quiet(u8),
}

impl Failure {
    /// Ends with code 1 and this message.
    pub(crate) fn general(message: impl fmt::Display) -> Self {
        Self::Said { code: GENERAL, message: message.to_string() }
    }

    /// Ends with code 2 and this message.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::Said { code: USAGE, message: message.to_string() }
    }

    /// Ends with code 78 and this message.
    pub(crate) fn configuration(message: impl fmt::Display) -> Self {
        Self::Said { code: CONFIGURATION, message: message.to_string() }
    }

    /// What a failed write to stdout means: the reader is gone (`| head`), or something to report.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Quiet(BROKEN_PIPE),
            _ => Self::general(format_args!("cannot write to stdout: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_ends_quietly_and_a_full_disk_does_not() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::stdout(&closed), Failure::Quiet(BROKEN_PIPE));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(Failure::stdout(&full), Failure::Said { code: GENERAL, .. }));
    }
}
