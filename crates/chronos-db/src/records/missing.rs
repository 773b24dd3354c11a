//! Properties that have no room in the index.
//!
//! An index entry has 64 KiB. A document without declared properties that has more leaves its largest ones
//! out, and its head and rows say which; a list that filters or sorts by one of them looks at the document
//! instead. So that no other list has to ask for such items, the first one of a collection leaves a note,
//! before its version is committed.

use std::sync::atomic::Ordering;

use bson::{Bson, Document, doc};

use super::engine::Engine;
use super::heavy;
use super::indexing::{self, MAX_INDEXED_BYTES, Missing};
use super::model::Content;
use super::payload;
use super::read::Found;
use crate::Result;
use crate::documents::{Batch, Write};

const NOTE: &str = "notIndexed";

impl Engine {
    /// Leaves the note, and warns, once.
    pub(super) async fn note_missing(&self, content: &Content) -> Result<()> {
        if content.missing == Missing::None || self.missing_noted.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut batch = Batch::new();
        // One that is there already is as good.
        batch.push(&self.names.counter, Write::insert(doc! { "_id": NOTE }));
        self.documents.apply(batch).await?;
        if !self.missing_noted.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                collection = %self.names.collection, bytes = MAX_INDEXED_BYTES, missing = ?content.missing,
                "a document has more to index than there is room for: lists by what is left out look at the documents themselves; \
                 declare what is to be indexed in `collectionMaps`"
            );
        }
        Ok(())
    }

    /// Whether the entry of any item may lack something.
    pub(super) async fn may_miss(&self) -> Result<bool> {
        if !self.missing_noted.load(Ordering::Acquire) {
            let found = self.documents.get(&self.names.counter, vec![NOTE.into()]).await?;
            self.missing_noted.fetch_or(!found.is_empty(), Ordering::AcqRel);
        }
        Ok(self.missing_noted.load(Ordering::Acquire))
    }

    /// Every property of a version, from its document.
    pub(super) async fn whole_entry(&self, found: &Found) -> Result<Document> {
        let bytes = self.bytes(found).await?;
        let refs = found.content.refs.clone();
        let entry = heavy::work(bytes.len() > heavy::BYTES, move || {
            let (document, _) = payload::parse_both(&bytes)?;
            indexing::all_of(&document, &refs)
        });
        entry.await?.map_err(|e| e.on_item(found.id))
    }

    /// The fields of a stored head or row, with every property of its document.
    pub(super) async fn whole_fields(&self, mut fields: Document, found: &Found) -> Result<Document> {
        fields.insert("metaIndexed", Bson::Document(self.whole_entry(found).await?));
        Ok(fields)
    }
}
