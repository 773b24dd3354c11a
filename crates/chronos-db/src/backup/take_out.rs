//! Taking an erased item out of every backup that is in reach.

use std::collections::HashSet;

use futures::TryStreamExt as _;

use super::catalog;
use super::erase::from_chain;
use super::format::Subject;
use super::place::Place;
use super::source::Source;
use crate::Result;
use crate::documents::{Filter, Scan};
use crate::records::{ItemId, Scope, Workers};

/// What became of an erased item's copies in backups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenOut {
    /// Files that were written anew without it.
    pub(crate) members: u64,
    /// Folders that may hold it and are not in reach: the next backup to each of them takes it out.
    pub(crate) due: Vec<String>,
}

/// Takes an item whose erasure is committed out of every backup of its collection that is in reach. It may be
/// begun again at any point, by anyone.
pub(crate) async fn take_out(workers: &Workers, scope: &Scope, id: ItemId) -> Result<TakenOut> {
    let (index, payloads) = (&workers.index, &workers.reader.payloads);
    let source = Source {
        index: index.clone(),
        payloads: payloads.clone(),
        manifests: workers.manifests.clone(),
        scope: scope.clone(),
    };
    let mut taken = TakenOut { members: 0, due: folders(&source).await? };
    if payloads.buckets.is_none() {
        return Ok(taken);
    }
    let place = Place::of(None, payloads)?;
    let subject = Subject::new(&index.names.head.database, &index.names.collection, scope);
    for (chain, problems) in catalog::chains(&place, &subject.prefix_of_all()?).await? {
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem.error());
        }
        // `Users` and `users` share a prefix.
        if chain.segments.first().is_some_and(|first| first.subject.collection == subject.collection) {
            taken.members += from_chain(&source, &place, &chain.prefix, &HashSet::from([id])).await?;
        }
    }
    Ok(taken)
}

/// Folders with a backup of the collection that holds something.
async fn folders(source: &Source) -> Result<Vec<String>> {
    let index = &source.index;
    let scan = Scan { filter: Filter::exists("folder".to_owned(), true), ..Scan::default() };
    let notes = index.documents.scan(&index.names.counter, scan);
    let folders =
        notes.try_filter_map(|note| async move { Ok(note.get_str("folder").ok().map(str::to_owned)) });
    let mut folders: Vec<String> = folders.try_collect().await?;
    folders.sort();
    folders.dedup();
    Ok(folders)
}
