//! What SQLite did, counted by itself.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{CachedStatement, StatementStatus};

/// The steps that the statements of a store took on its documents. What a statement examines costs it steps,
/// also what it then leaves out, so the number tells a look into an index from one at everything.
#[derive(Debug, Default)]
pub struct Steps(AtomicU64);

impl Steps {
    /// Returns how many there were so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn count<'c>(&'c self, statement: CachedStatement<'c>) -> Counted<'c> {
        Counted { statement, steps: self }
    }
}

/// A statement whose steps are counted when it is given back.
pub(super) struct Counted<'c> {
    statement: CachedStatement<'c>,
    steps: &'c Steps,
}

impl<'c> Deref for Counted<'c> {
    type Target = CachedStatement<'c>;

    fn deref(&self) -> &Self::Target {
        &self.statement
    }
}

impl DerefMut for Counted<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.statement
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let steps = self.statement.reset_status(StatementStatus::VmStep);
        self.steps.0.fetch_add(u64::try_from(steps).unwrap_or(0), Ordering::SeqCst);
    }
}
