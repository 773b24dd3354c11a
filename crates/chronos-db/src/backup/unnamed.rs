//! Files that no index names: of a backup that has died, or of one that is about to name them.
//!
//! An erasure removes those that hold the item. Lest a backup that is running names one of them afterwards, the
//! erasure first takes the place of the index that would: it backs up the next number itself. The running backup is
//! refused then, as if another backup had been faster, and goes on behind it with what it reads anew.

use std::collections::HashSet;

use futures::TryStreamExt as _;

use super::catalog::{self, Chain};
use super::format::{MemberKey, Segment, Subject, parse_member_key};
use super::location::BackupLocation;
use super::member::search;
use super::numbers::{is_of_now, numbers_of};
use super::pending_segment::{PendingSegment, SegmentWriter};
use super::source::Source;
use crate::records::{ItemId, Row, Scope};
use crate::{Result, Timestamp};

/// A file with versions.
#[derive(Clone, Debug)]
pub(super) struct File {
    key: String,
    of: MemberKey,
    modified: Timestamp,
}

/// What became of files that no index names.
pub(super) enum Taken {
    /// None of them holds the items any more; how many were removed.
    All(u64),
    /// Others have changed the chain meanwhile: it must be looked at again, for these items as well.
    Again(HashSet<ItemId>),
}

/// The files of a chain.
pub(super) async fn list(location: &BackupLocation, chain_prefix: &str) -> Result<Vec<File>> {
    let listed = location.list(&format!("{chain_prefix}members/"));
    let files = listed.try_filter_map(|object| async move {
        let of = parse_member_key(&object.key);
        Ok(of.map(|of| File { key: object.key, of, modified: object.modified }))
    });
    files.try_collect().await
}

/// Those that the chain does not name. It must have been read after they were listed.
fn without_named(files: Vec<File>, chain: &Chain) -> Vec<File> {
    let members = chain.segments.iter().flat_map(|segment| &segment.members);
    let named: HashSet<String> = members.map(|member| chain.member_key(member)).collect();
    files.into_iter().filter(|file| !named.contains(&file.key)).collect()
}

/// Removes files that no index names and that were written before `before`: nobody is about to name them any more.
/// Returns the lowest number in those that are left, if any are.
pub(super) async fn remove_abandoned(
    location: &BackupLocation,
    chain_prefix: &str,
    before: Timestamp,
) -> Result<Option<i64>> {
    let files = list(location, chain_prefix).await?;
    let mut left = None;
    if files.is_empty() {
        return Ok(left);
    }
    for file in without_named(files, &catalog::sound(location, chain_prefix).await?) {
        if file.modified < before {
            location.delete(&file.key).await?;
        } else {
            left = Some(left.map_or(file.of.first_cv, |left: i64| left.min(file.of.first_cv)));
        }
    }
    Ok(left)
}

/// Removes those of the files that hold erased items and that no index names, nor can name any more. They must have
/// been listed before the items were taken out of what is named.
pub(super) async fn take_out(
    source: &Source,
    location: &BackupLocation,
    chain_prefix: &str,
    files: Vec<File>,
    ids: &HashSet<ItemId>,
) -> Result<Taken> {
    if files.is_empty() {
        return Ok(Taken::All(0));
    }
    let chain = catalog::sound(location, chain_prefix).await?;
    let files = without_named(files, &chain);
    if files.is_empty() {
        return Ok(Taken::All(0));
    }
    let cvs = numbers_of(source, &chain, ids).await?;
    let mut holding = Vec::new();
    let mut example = None;
    for file in files {
        let MemberKey { first_cv, last_cv, .. } = file.of;
        if cvs
            .as_ref()
            .is_some_and(|cvs| first_cv > last_cv || cvs.range(first_cv..=last_cv).next().is_none())
        {
            continue;
        }
        let Some(bytes) = location.get(&file.key).await? else { continue };
        let ids = ids.clone();
        if let Some(row) = search(bytes, move |row| ids.contains(&row.id) && !row.op.is_bare()).await? {
            holding.push(file);
            example = Some(row);
        }
    }
    let Some(example) = example else { return Ok(Taken::All(0)) };
    // Those of the numbers up to here were written beside indexes that are there: which hold none of the items by now,
    // so that a backup that wrote its files from an earlier one is refused.
    if holding.iter().any(|file| file.of.last_cv > chain.last_cv()) {
        match close(source, location, &chain, &example).await? {
            Closed::Not => return Ok(Taken::Again(HashSet::new())),
            Closed::With(erased) if !erased.is_empty() => return Ok(Taken::Again(erased)),
            Closed::With(_) | Closed::Needless => {}
        }
    }
    source.index.env.fail.hit("backup.after_closing")?;
    for file in &holding {
        location.delete(&file.key).await?;
    }
    Ok(Taken::All(holding.len() as u64))
}

enum Closed {
    /// Another one was faster.
    Not,
    /// Nobody writes to the chain any more.
    Needless,
    /// Of the items that were backed up for it, those that have been erased meanwhile.
    With(HashSet<ItemId>),
}

/// Takes the place of the next index of a chain, so that nobody can who has read before.
async fn close(source: &Source, location: &BackupLocation, chain: &Chain, example: &Row) -> Result<Closed> {
    let Some(subject) = subject_of(source, chain, example)? else { return Ok(Closed::Needless) };
    let source = Source { scope: subject.scope(), ..source.clone() };
    let segment_writer = SegmentWriter { source: &source, location, subject: &subject };
    let next = chain.last_cv() + 1;
    let pending = if source.index.settings.versioning {
        // The collection was replaced by an older state of itself, and its backups are another chain.
        if !is_of_now(&source, chain).await? {
            return Ok(Closed::Needless);
        }
        // It is settled: the files are of numbers behind it.
        let run = source.index.env.random.object_id().to_hex();
        segment_writer.fill(&mut source.entries(chain.last_cv(), next), chain, &run, next).await?.0
    } else {
        PendingSegment::of_state(false)
    };
    let contents = pending.contents.clone();
    if segment_writer.commit(chain, pending, next).await?.is_none() {
        return Ok(Closed::Not);
    }
    let mut erased = HashSet::new();
    for id in contents {
        if source.index.head(id).await?.is_none_or(|head| head.erased) {
            erased.insert(id);
        }
    }
    Ok(Closed::With(erased))
}

/// Whose chain it is. Where it has no index yet, its place tells, by a row in it.
fn subject_of(source: &Source, chain: &Chain, example: &Row) -> Result<Option<Subject>> {
    if let Some(Segment { subject, .. }) = chain.segments.first() {
        return Ok(Some(subject.clone()));
    }
    let names = &source.index.names;
    for scope in [Scope::All, Scope::of_owner(example.meta.tenant.as_deref())] {
        let subject = Subject::new(&names.head.database, &names.collection, &scope);
        if chain.prefix.starts_with(&subject.prefix()?) {
            return Ok(Some(subject));
        }
    }
    Ok(None)
}
