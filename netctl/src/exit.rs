//! How a run ends.

use std::process::ExitCode;

/// The exit codes, as `--help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything is as it should be, or is again.
    Done,
    /// Something is not as it should be.
    Drift,
    /// The question makes no sense.
    Usage,
    /// A part could not be done.
    Partial,
    /// Nothing could be done.
    Nothing,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Drift => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
            Exit::Nothing => 4,
        })
    }
}

/// Why a run ended before it had anything to show.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Which code it ends with.
    pub(crate) exit: Exit,
    /// What to say.
    pub(crate) message: String,
}

impl Failure {
    /// The question makes no sense.
    pub(crate) fn usage(message: impl ToString) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }
}

impl From<netcore::Error> for Failure {
    fn from(error: netcore::Error) -> Self {
        Self { exit: Exit::Nothing, message: error.to_string() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { exit: Exit::Nothing, message: error.to_string() }
    }
}
