//! By what a write is recognised that may have taken place unseen.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bson::oid::ObjectId;

const NOTHING: i64 = i64::MIN;

/// One operation through all its attempts. The version row that it makes carries its id, so that an attempt
/// whose answer was lost is found again.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: ObjectId,
    follows: AtomicI64,
    committed: AtomicBool,
}

impl Identity {
    pub(crate) fn new(id: ObjectId) -> Self {
        Self { id, follows: AtomicI64::new(NOTHING), committed: AtomicBool::new(false) }
    }

    /// A commit begins whose version would follow `ov`, which is −1 for a new item.
    pub(super) fn begin(&self, ov: i64) {
        // Versions of an item only grow: the first one is the lowest.
        let _ = self.follows.compare_exchange(NOTHING, ov, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(super) fn commit(&self) {
        self.committed.store(true, Ordering::Release);
    }

    /// Its version, if there is one, is a later one than this; none if no commit was begun.
    pub(crate) fn follows(&self) -> Option<i64> {
        Some(self.follows.load(Ordering::Acquire)).filter(|ov| *ov != NOTHING)
    }

    /// Whether its version is known to be there.
    pub(crate) fn is_committed(&self) -> bool {
        self.committed.load(Ordering::Acquire)
    }
}
