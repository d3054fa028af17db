//! Failure of a command: a message on stderr and an exit code that scripts can distinguish.

use std::fmt;
use std::io;

use highwater_client::{AdminError, ErrorCode, FetchError, ProduceError};

/// Exit code of errors that have no code of their own.
pub(crate) const GENERAL: u8 = 1;
/// Exit code for an invalid command line, as clap uses it.
pub(crate) const USAGE: u8 = 2;
/// Exit code for invalid configuration (`EX_CONFIG`).
pub(crate) const CONFIGURATION: u8 = 78;
/// Exit code after the reader of stdout closed it, as a shell reports SIGPIPE.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Why a command failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Exits after printing a message on stderr.
    Message {
        /// Exit code of the process.
        code: u8,
        /// One line for the user: what failed, on which thing, what to do.
        message: String,
    },
    /// Exits with this code and no message, because the user knows the reason (Ctrl-C, a closed pipe) or was told it before.
    Quiet(u8),
}

impl Failure {
    /// Fails with exit code 1 and this message.
    pub(crate) fn general(message: impl fmt::Display) -> Self {
        Self::Message { code: GENERAL, message: message.to_string() }
    }

    /// Fails with exit code 1 after a call about this topic. If there is no such topic, the message says how to find the topics.
    pub(crate) fn topic(topic: &str, error: &impl ClientError) -> Self {
        match error.broker_code() {
            Some(ErrorCode::UnknownTopic) => Self::general(format_args!(
                "topic {topic} does not exist; `highwater topic list` lists the topics"
            )),
            _ => Self::general(error),
        }
    }

    /// Fails with exit code 1 after a call about this group. If there is no such group, the message says how to find the groups.
    pub(crate) fn group(group: &str, error: &AdminError) -> Self {
        match error.broker_code() {
            Some(ErrorCode::UnknownGroup) => Self::general(format_args!(
                "group {group} does not exist; `highwater group list` lists the groups"
            )),
            _ => Self::general(error),
        }
    }

    /// Fails with exit code 2 and this message.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::Message { code: USAGE, message: message.to_string() }
    }

    /// Fails with exit code 78 and this message.
    pub(crate) fn configuration(message: impl fmt::Display) -> Self {
        Self::Message { code: CONFIGURATION, message: message.to_string() }
    }

    /// Fails after a write to stdout failed: quietly if the reader closed it (`| head`), otherwise with a message.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Quiet(BROKEN_PIPE),
            _ => Self::general(format_args!("cannot write to stdout: {error}")),
        }
    }
}

/// An error of the client, with the code of the broker's answer if there was one.
pub(crate) trait ClientError: fmt::Display {
    fn broker_code(&self) -> Option<ErrorCode>;
}

macro_rules! client_errors {
    ($($error:ty),*) => {$(
        impl ClientError for $error {
            fn broker_code(&self) -> Option<ErrorCode> {
                self.code()
            }
        }
    )*};
}

client_errors!(AdminError, FetchError, ProduceError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_a_quiet_failure_and_a_full_disk_is_reported() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::stdout(&closed), Failure::Quiet(BROKEN_PIPE));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(Failure::stdout(&full), Failure::Message { code: GENERAL, .. }));
    }
}
