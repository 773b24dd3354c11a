//! How a runner ends: it stops, cancels its handlers, and breaks them off.

use std::time::{Duration, Instant};

use crate::Error;

/// How long cancelled handlers may still take.
const GRACE: Duration = Duration::from_secs(1);

/// How far a runner is with its end.
#[derive(Default)]
pub(super) struct Shutdown {
    pub(super) stopping: bool,
    /// Handlers are cancelled then, and broken off a little later.
    pub(super) deadline: Option<Instant>,
    pub(super) cancelled: bool,
    pub(super) aborted: bool,
    pub(super) fatal: Option<Error>,
}

impl Shutdown {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match (self.cancelled, self.aborted) {
            (false, _) => self.deadline,
            (true, false) => self.deadline.map(|deadline| deadline + GRACE),
            (true, true) => None,
        }
    }
}
