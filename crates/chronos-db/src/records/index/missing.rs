//! Properties that have no room in the index.
//!
//! An index entry has 64 KiB. A document without declared properties that has more leaves its largest ones
//! out, and its head and rows say which; a list that filters or sorts by one of them looks at the document
//! instead. So that no other list has to ask for such items, the first one of a collection leaves a note,
//! before its version is committed.

use std::sync::atomic::Ordering;

use bson::doc;

use crate::Result;
use crate::documents::{Batch, Write};
use crate::records::document::indexing::MAX_INDEXED_BYTES;
use crate::records::model::Missing;
use crate::records::model::VersionMeta;

const NOTE: &str = "notIndexed";

impl super::RecordIndex {
    /// Leaves the note, and warns, once.
    pub(crate) async fn note_missing(&self, meta: &VersionMeta) -> Result<()> {
        if meta.missing == Missing::None || self.missing_noted.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut batch = Batch::new();
        // One that is there already is as good.
        batch.push(&self.names.counter, Write::insert(doc! { "_id": NOTE }));
        self.documents.apply(batch).await?;
        if !self.missing_noted.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                collection = %self.names.collection, bytes = MAX_INDEXED_BYTES, missing = ?meta.missing,
                "a document has more to index than there is room for: lists by what is left out look at the documents themselves; \
                 declare what is to be indexed in `collectionMaps`"
            );
        }
        Ok(())
    }

    /// Whether the entry of any item may lack something.
    pub(crate) async fn may_miss(&self) -> Result<bool> {
        if !self.missing_noted.load(Ordering::Acquire) {
            let found = self.documents.get(&self.names.counter, vec![NOTE.into()]).await?;
            self.missing_noted.fetch_or(!found.is_empty(), Ordering::AcqRel);
        }
        Ok(self.missing_noted.load(Ordering::Acquire))
    }
}
