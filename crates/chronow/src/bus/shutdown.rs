//! How a runner ends: it stops, cancels its handlers, breaks them off, and waits for its store for a while.

use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, Result};

/// How long cancelled handlers may still take.
const GRACE: Duration = Duration::from_secs(1);
/// How long a store may take to answer once no handler is at work.
const SETTLING: Duration = Duration::from_secs(10);

/// How far a runner is with its end.
#[derive(Default)]
pub(super) struct Shutdown {
    pub(super) stopping: bool,
    /// Handlers are cancelled then, and broken off a little later.
    pub(super) deadline: Option<Instant>,
    pub(super) cancelled: bool,
    pub(super) aborted: bool,
    pub(super) fatal: Option<Error>,
    /// While no handler is at work: when what is under way is waited for no longer.
    settled_by: Option<Instant>,
}

impl Shutdown {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.next_of_handlers(), self.settled_by].into_iter().flatten().min()
    }

    /// When handlers are cancelled or broken off.
    pub(super) fn next_of_handlers(&self) -> Option<Instant> {
        match (self.cancelled, self.aborted) {
            (false, _) => self.deadline,
            (true, false) => self.deadline.map(|deadline| deadline + GRACE),
            (true, true) => None,
        }
    }

    /// Notes whether handlers are at work.
    pub(super) fn note(&mut self, is_at_work: bool) {
        if !self.stopping || is_at_work {
            self.settled_by = None;
        } else {
            self.settled_by.get_or_insert_with(|| Instant::now() + SETTLING);
        }
    }

    /// Whether the store has not answered in time.
    pub(super) fn has_given_up(&self) -> bool {
        self.settled_by.is_some_and(|by| by <= Instant::now())
    }

    /// How the runner ended; `left` says whether something is not settled.
    pub(super) fn result(self, left: bool) -> Result<()> {
        match self.fatal {
            Some(error) => Err(error),
            None if left => Err(Error::new(
                ErrorKind::HotTier,
                "the store did not answer in time; what was not settled comes again when its locks end",
            )),
            None => Ok(()),
        }
    }
}
