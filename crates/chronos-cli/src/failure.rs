//! How commands end that do not succeed: one line on stderr and an exit code.

use std::io;
use std::process::ExitCode;

use chronos_db::{Error, ErrorKind};

use crate::stderr::note;

/// Something went wrong.
pub(crate) const FAILED: u8 = 1;
/// The input is wrong: arguments, configuration, documents.
pub(crate) const WRONG_INPUT: u8 = 2;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library said no.
    Error(Error),
    /// The bus or the shared memory said no.
    Messaging(chronow::Error),
    /// What is wrong has been said already.
    Reported,
    /// The reader of our output has closed the pipe. That is its decision, and not a failure.
    OutputClosed,
    /// The output could not be written.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<chronow::Error> for Failure {
    fn from(error: chronow::Error) -> Self {
        Self::Messaging(error)
    }
}

impl Failure {
    /// Wrong input.
    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self::Error(Error::validation(message.into()))
    }

    /// Says what is wrong on stderr, in one line.
    pub(crate) fn said(what: &str) -> Self {
        note(&format!("error: {}", one_line(what)));
        Self::Reported
    }

    /// Whether the same may succeed later.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Error(error) => error.is_retryable(),
            Self::Messaging(error) => error.is_retryable(),
            Self::Reported | Self::OutputClosed | Self::Output(_) => false,
        }
    }

    /// Says on stderr that something failed that is tried again.
    pub(crate) fn tell_interruption(&self) {
        match self {
            Self::Error(error) => note(&format!("warning: {}; going on", one_line(&error.to_string()))),
            Self::Messaging(error) => note(&format!("warning: {}; going on", one_line(&error.to_string()))),
            Self::Reported | Self::OutputClosed | Self::Output(_) => {}
        }
    }

    /// Says on stderr what is wrong, and returns the exit code.
    pub(crate) fn report(&self, verbose: bool) -> ExitCode {
        match self {
            Self::Error(error) => {
                tell(error, verbose);
                ExitCode::from(match error.kind() {
                    ErrorKind::Validation | ErrorKind::RouteNotFound => WRONG_INPUT,
                    _ => FAILED,
                })
            }
            Self::Messaging(error) => {
                tell(error, verbose);
                ExitCode::from(if error.kind() == chronow::ErrorKind::Validation {
                    WRONG_INPUT
                } else {
                    FAILED
                })
            }
            Self::Reported => ExitCode::from(FAILED),
            Self::OutputClosed => ExitCode::SUCCESS,
            Self::Output(error) => {
                note(&format!("error: the output cannot be written: {error}"));
                ExitCode::from(FAILED)
            }
        }
    }
}

/// What failed of several things that do not hold up each other: it is said at once, and fails the command at its end.
#[derive(Debug, Default)]
pub(crate) struct Failures(Option<Failure>);

impl Failures {
    /// Says on stderr what failed.
    pub(crate) fn say(&mut self, what: &str) {
        self.0 = Some(Failure::said(what));
    }

    /// The end of the command.
    pub(crate) fn end(self) -> Result<(), Failure> {
        self.0.map_or(Ok(()), Err)
    }
}

fn tell(error: &dyn std::error::Error, verbose: bool) {
    note(&format!("error: {}", one_line(&error.to_string())));
    let mut cause = error.source().filter(|_| verbose);
    while let Some(error) = cause {
        note(&format!("  caused by: {}", one_line(&error.to_string())));
        cause = error.source();
    }
}

/// An error stays one line, whatever a server or a document put into it.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_control()).map(str::trim).filter(|part| !part.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn an_error_of_several_lines_is_printed_on_one_line() {
        assert_eq!(one_line("a failure\r\n\tof two lines\u{1b}\n"), "a failure of two lines");
    }
}
