//! The numbers of a collection's versions, and the identity that they have in backups.

use std::collections::{BTreeSet, HashSet};

use bson::oid::ObjectId;
use futures::TryStreamExt as _;

use super::catalog::Chain;
use super::source::Source;
use crate::Result;
use crate::records::ItemId;

/// The note by which a collection is known again, beside its numbers.
pub(super) const CHAIN: &str = "backup";

/// The identity of the collection's numbers, if it has one yet.
pub(super) async fn identity(source: &Source) -> Result<Option<ObjectId>> {
    let index = &source.index;
    let found = index.documents.get(&index.names.counter, vec![CHAIN.into()]).await?;
    Ok(found.first().and_then(|note| note.get_object_id("chain").ok()))
}

/// Whether a chain is of the numbers that the collection has now, and not of an older state of it.
pub(super) async fn is_of_now(source: &Source, chain: &Chain) -> Result<bool> {
    Ok(identity(source).await?.is_some_and(|known| known.to_hex() == chain.id()))
}

/// The numbers that versions of the items have in a chain, if all of them are known.
pub(super) async fn numbers_of(
    source: &Source,
    chain: &Chain,
    ids: &HashSet<ItemId>,
) -> Result<Option<BTreeSet<i64>>> {
    // In a chain of an older state of the collection they had others.
    if !is_of_now(source, chain).await? {
        return Ok(None);
    }
    let mut cvs = BTreeSet::new();
    for id in ids {
        match numbers_of_item(source, *id).await? {
            Some(numbers) => cvs.extend(numbers),
            None => return Ok(None),
        }
    }
    Ok(Some(cvs))
}

/// The numbers of an item's versions, if all of them have their rows.
pub(super) async fn numbers_of_item(source: &Source, id: ItemId) -> Result<Option<Vec<i64>>> {
    let mut rows = source.index.rows_of(id);
    let mut cvs = Vec::new();
    while let Some(row) = rows.try_next().await? {
        if usize::try_from(row.ov).ok() != Some(cvs.len()) {
            return Ok(None);
        }
        cvs.push(row.cv);
    }
    Ok(Some(cvs))
}
