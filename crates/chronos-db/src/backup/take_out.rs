//! Taking an erased item out of every backup that is in reach.

use std::collections::HashSet;

use super::erase::from_chain;
use super::format::Subject;
use super::location::{At, BackupLocation};
use super::source::Source;
use super::{catalog, notes};
use crate::Result;
use crate::records::{ItemId, Scope, Workers};

/// What became of an erased item's copies in backups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenOut {
    /// Files that were written anew without it, or removed.
    pub(crate) members: u64,
    /// Folders, and buckets of other storages, that may hold it and are not in reach: the next backup to each of them
    /// takes it out.
    pub(crate) due: Vec<String>,
}

/// Takes an item whose erasure is committed out of every backup of its collection that is in reach. It may be
/// begun again at any point, by anyone.
pub(crate) async fn take_out(workers: &Workers, scope: &Scope, id: ItemId) -> Result<TakenOut> {
    let (index, payloads) = (&workers.index, &workers.reader.payloads);
    let source = Source {
        index: index.clone(),
        payloads: payloads.clone(),
        versions: workers.versions.clone(),
        scope: scope.clone(),
    };
    let mut taken = TakenOut::default();
    let mut places = notes::noted(&source).await?;
    let space = payloads.buckets.as_ref();
    if let Some(space) = space {
        let here = At::Bucket { storage: space.storage.clone(), bucket: space.backups.clone() };
        if !places.contains(&here) {
            places.push(here);
        }
    }
    for at in places {
        match (&at, space) {
            (At::Bucket { storage, bucket }, Some(space)) if *storage == space.storage => {
                let location = BackupLocation::bucket(bucket, payloads, space)?;
                taken.members += from_location(&source, &location, id).await?;
            }
            _ => taken.due.push(at.to_string()),
        }
    }
    Ok(taken)
}

/// Takes an item out of every chain of its collection. Returns how many files were written anew or removed.
async fn from_location(source: &Source, location: &BackupLocation, id: ItemId) -> Result<u64> {
    let names = &source.index.names;
    let subject = Subject::new(&names.head.database, &names.collection, &source.scope);
    let mut taken = 0;
    for (chain, problems) in catalog::chains(location, &subject.prefix_of_all()?).await? {
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem.error());
        }
        // `Users` and `users` share a prefix; a chain that has no index yet may be of either.
        if chain.segments.first().is_none_or(|first| first.subject.collection == subject.collection) {
            taken += from_chain(source, location, &chain.prefix, &HashSet::from([id])).await?;
        }
    }
    Ok(taken)
}
