//! Entries that lack something for want of room, from the document itself.

use bson::{Bson, Document};

use super::reader::{Reader, ResolvedVersion};
use crate::Result;
use crate::records::document::{heavy, indexing, payload};

impl Reader {
    /// Every property of a version, from its document.
    pub(crate) async fn whole_entry(&self, found: &ResolvedVersion) -> Result<Document> {
        let bytes = self.bytes(found).await?;
        let refs = found.meta.refs.clone();
        let entry = heavy::work(bytes.len() > heavy::BYTES, move || {
            let (document, _) = payload::parse_both(&bytes)?;
            indexing::all_of(&document, &refs)
        });
        entry.await?.map_err(|e| e.on_item(found.id))
    }

    /// The fields of a stored head or row, with every property of its document.
    pub(crate) async fn whole_fields(
        &self,
        mut fields: Document,
        found: &ResolvedVersion,
    ) -> Result<Document> {
        fields.insert("metaIndexed", Bson::Document(self.whole_entry(found).await?));
        Ok(fields)
    }
}
