//! Documents of a messaging database that name an item: whose text or ids have its identifier.

use bson::{Bson, RawDocument};
use futures::TryStreamExt as _;
use futures::stream::BoxStream;

use super::db::MessagingDb;
use super::schema::Kind;
use crate::Result;
use crate::documents::{Batch, Filter, Guard, Scan, Write, raw_bson};
use crate::records::ItemId;

/// Where copies of what was said are kept: messages, their dead letters, and what was noted of deliveries. A
/// shared value is not a copy of anything; a caller that keeps data of an item in one removes it.
const KINDS: [Kind; 3] = [Kind::Messages, Kind::DeadLetters, Kind::Deliveries];
/// Documents removed together.
const BATCH: usize = 256;

/// What of a messaging database names an item.
pub(crate) struct Naming<'a> {
    pub(crate) db: &'a MessagingDb,
    /// Whose documents are looked at; none for those of all tenants.
    pub(crate) tenant: Option<&'a str>,
    pub(crate) id: ItemId,
}

impl Naming<'_> {
    /// Counts them. Reads every document: nothing indexes what messages say.
    pub(crate) async fn count(&self) -> Result<u64> {
        let mut count = 0;
        for kind in KINDS {
            let mut found = self.found(kind);
            while found.try_next().await?.is_some() {
                count += 1;
            }
        }
        Ok(count)
    }

    /// Removes them, to the last byte.
    pub(crate) async fn remove(&self) -> Result<()> {
        let mut removed = 0;
        for kind in KINDS {
            let mut found = self.found(kind).try_chunks(BATCH);
            while let Some(ids) = found.try_next().await.map_err(|error| error.1)? {
                removed += ids.len();
                let mut batch = Batch::new();
                for id in ids {
                    batch.push(&self.db.namespace(kind), Write::Delete { id, guard: Guard::Any });
                }
                self.db.documents.apply(batch).await?;
            }
        }
        if removed > 0 { self.db.documents.purge(self.db.database()).await } else { Ok(()) }
    }

    /// The `_id`s of those of one kind. Makes no collection that is not there.
    fn found(&self, kind: Kind) -> BoxStream<'static, Result<Bson>> {
        let filter = self.tenant.map_or(Filter::All, |tenant| Filter::eq("tenantId", tenant));
        let (hex, id) = (self.id.to_string(), self.id.object_id());
        let stored =
            self.db.documents.scan_stored(&self.db.namespace(kind), Scan { filter, ..Scan::default() });
        let naming = stored.try_filter_map(move |stored| {
            let names = names(&stored, hex.as_bytes(), &id.bytes());
            let id = if names { id_of(&stored) } else { Ok(None) };
            std::future::ready(id)
        });
        Box::pin(naming)
    }
}

/// Whether the identifier is somewhere in a document, as text or as an ObjectId.
fn names(stored: &RawDocument, hex: &[u8], id: &[u8; 12]) -> bool {
    let bytes = stored.as_bytes();
    bytes.windows(id.len()).any(|window| window == id) || bytes.windows(hex.len()).any(|window| window == hex)
}

fn id_of(stored: &RawDocument) -> Result<Option<Bson>> {
    Ok(raw_bson::decode(stored)?.remove("_id"))
}

#[cfg(test)]
mod tests {
    use bson::oid::ObjectId;
    use bson::{RawDocumentBuf, doc};

    use super::names;

    #[test]
    fn a_document_names_an_item_in_any_of_its_texts_and_ids() {
        let id = ObjectId::parse_str("64f0c0ffee64f0c0ffee64f0").unwrap();
        let naming = |document: bson::Document| {
            let stored = RawDocumentBuf::try_from(&document).unwrap();
            names(&stored, id.to_hex().as_bytes(), &id.bytes())
        };
        assert!(naming(doc! { "payload": { "user": id.to_hex() } }));
        assert!(naming(doc! { "headers": { "about": format!("users/{}", id.to_hex()) } }));
        assert!(naming(doc! { "payload": [1, { "ref": id }] }));
        assert!(naming(doc! { "payload": { id.to_hex(): true } }));
        assert!(!naming(doc! { "payload": { "user": "64f0c0ffee64f0c0ffee64f1" } }));
    }
}
