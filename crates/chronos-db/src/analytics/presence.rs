//! Whether a collection may have results of analytics rules, without asking the database they would be in.
//!
//! A note beside the numbers of the collection says so. Runs put it before they read the first item, for good. The first
//! erasure that finds none asks, and if there is no result notes that, unless a run was faster. So an erasure that
//! reads "none" need not ask: whichever run began since has not seen the item.

use bson::{Bson, Document, doc};

use super::store::TIME_BASED;
use crate::Result;
use crate::documents::{Batch, Filter, Guard, Write};
use crate::records::Collection;

/// Whether there may be some.
const SOME: &str = "some";

/// The id of the note: there is one for each place in which results may be.
fn id_of(collection: &Collection) -> Bson {
    format!("analytics|{}", collection.analytics.place_of_results(collection.database())).into()
}

async fn noted(collection: &Collection) -> Result<Option<Document>> {
    let index = &collection.workers.index;
    Ok(index.documents.get(&index.names.counter, vec![id_of(collection)]).await?.pop())
}

async fn note(collection: &Collection, some: bool) -> Result<()> {
    let index = &collection.workers.index;
    let note = doc! { "_id": id_of(collection), SOME: some };
    let mut batch = Batch::new();
    let write = if some { Write::put(note, Guard::Any) } else { Write::insert(note) };
    batch.push(&index.names.counter, write);
    index.documents.apply(batch).await.map(drop)
}

/// Notes that there may be results from now on.
pub(super) async fn expect_results(collection: &Collection) -> Result<()> {
    let is_noted = noted(collection).await?.is_some_and(|note| note.get_bool(SOME).unwrap_or(true));
    if is_noted { Ok(()) } else { note(collection, true).await }
}

/// Whether rules that are not configured here may have results over the collection.
pub(super) async fn may_have_results(collection: &Collection) -> Result<bool> {
    if let Some(note) = noted(collection).await? {
        return Ok(note.get_bool(SOME).unwrap_or(true));
    }
    let db = &collection.analytics.db;
    let of_collection = Filter::eq("collection", collection.name());
    if db.documents()?.count(&db.namespace(TIME_BASED), of_collection, 1).await? > 0 {
        return Ok(true);
    }
    note(collection, false).await?;
    Ok(false)
}
