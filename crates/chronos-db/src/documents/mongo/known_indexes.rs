//! What indexes a collection had not long ago, so that not every page of a scan asks for them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::Timestamp;
use crate::documents::{Index, Namespace};

/// How long what is known of a collection's indexes is believed.
const INDEXES_KNOWN_MILLIS: i64 = 60_000;
/// More collections than this are forgotten together.
const MAX_KNOWN: usize = 10_000;
/// The indexes of each collection, and when they were read.
type ByCollection = HashMap<Namespace, (Timestamp, Arc<Vec<Index>>)>;

/// The indexes of collections, as they were not long ago.
#[derive(Debug, Default)]
pub(super) struct KnownIndexes(Mutex<ByCollection>);

impl KnownIndexes {
    fn lock(&self) -> MutexGuard<'_, ByCollection> {
        self.0.lock()
    }

    /// The indexes of a collection, unless what is known of them is too old at `now`.
    pub(super) fn get(&self, namespace: &Namespace, now: Timestamp) -> Option<Arc<Vec<Index>>> {
        let (since, indexes) = self.lock().get(namespace).cloned()?;
        (now.as_millis() - since.as_millis() < INDEXES_KNOWN_MILLIS).then_some(indexes)
    }

    pub(super) fn put(&self, namespace: &Namespace, now: Timestamp, indexes: &Arc<Vec<Index>>) {
        let mut known = self.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(namespace.clone(), (now, Arc::clone(indexes)));
    }

    pub(super) fn forget(&self, namespace: &Namespace) {
        self.lock().remove(namespace);
    }
}
