//! Queues that do not answer, while others do.

use std::fmt;

use super::queue::Queue;
use crate::Error;

/// A queue whose store failed; what the others say holds all the same.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedQueue {
    /// Which one: a database and its connection, or the spool.
    pub place: String,
    /// Why it does not answer.
    pub error: Error,
}

impl FailedQueue {
    pub(super) fn new(queue: &Queue, error: Error) -> Self {
        Self { place: queue.place.clone(), error }
    }

    pub(super) fn into_error(self) -> Error {
        self.error.during("fallback")
    }

    /// The error of an answer: there is none if a queue answered, or if there is none.
    pub(super) fn unless_some_answered(failed: &[Self], queues: usize) -> Result<(), Error> {
        match failed.first() {
            Some(first) if failed.len() >= queues => Err(first.clone().into_error()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for FailedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the fallback queue in {}: {}", self.place, self.error)
    }
}

impl std::error::Error for FailedQueue {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
