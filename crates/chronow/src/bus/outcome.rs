//! How the work on a message ended.

use std::fmt;
use std::time::Duration;

use crate::Result;

/// How the work on a message ended. Made of what a handler returns: `()` and `Ok(_)` acknowledge, an `Err` is
/// a failure to be retried.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done.
    Ack,
    /// Not done: again after the subscription's backoff, or after `delay`.
    Retry {
        /// Why, for the dead letters.
        reason: String,
        /// Instead of the backoff; ten years at most.
        delay: Option<Duration>,
    },
    /// To the dead letters at once: trying again would be of no use.
    DeadLetter {
        /// Why.
        reason: String,
    },
    /// Set aside until it is fetched by its id.
    Defer,
    /// Not settled: it comes again when its lock ends.
    Leave,
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Ack
    }
}

impl<T: Into<Outcome>, E: fmt::Display> From<Result<T, E>> for Outcome {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(outcome) => outcome.into(),
            // With its causes, if the error shows them so.
            Err(error) => Self::Retry { reason: format!("{error:#}"), delay: None },
        }
    }
}

/// What a handler said when it panicked.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
