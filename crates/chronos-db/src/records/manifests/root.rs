//! The manifests of one collection.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::entry::ManifestEntry;
use crate::records::index::RecordIndex;
use crate::records::storage::payload_store::PayloadStore;

/// The manifests of one collection.
pub(crate) struct Manifests {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) payloads: Arc<PayloadStore>,
    /// Entries never change, so they are read once.
    pub(super) known: Mutex<HashMap<String, Arc<ManifestEntry>>>,
}

impl Manifests {
    pub(crate) fn new(index: &Arc<RecordIndex>, payloads: &Arc<PayloadStore>) -> Self {
        Self { index: Arc::clone(index), payloads: Arc::clone(payloads), known: Mutex::default() }
    }
}
