//! Where backups of a collection lie, as it is noted beside its numbers: an erasure looks there, or names the place.

use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;

use super::format::Subject;
use super::location::{At, BackupLocation};
use super::source::Source;
use crate::Result;
use crate::documents::{Batch, Filter, Guard, Outcome, Scan, Write};
use crate::records::number;

/// How far the backups of a collection in a place are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    /// Up to which number the last backup reaches, or the one before while one is being written.
    pub(super) cv: i64,
    /// What was erased up to this number is in none of them any more.
    pub(super) clean_to: i64,
}

fn note_id(location: &BackupLocation, subject: &Subject) -> Bson {
    Bson::Document(doc! { "backup": location.at.to_string(), "whose": subject.whose.as_str() })
}

/// Up to which number what was erased is in no backup of the place any more; -1 if that is not known.
pub(super) async fn clean_to(source: &Source, location: &BackupLocation, subject: &Subject) -> Result<i64> {
    let index = &source.index;
    let found = index.documents.get(&index.names.counter, vec![note_id(location, subject)]).await?;
    Ok(found.first().and_then(|note| number(note, "cleanTo")).unwrap_or(-1))
}

/// Notes that a place holds backups, or is about to.
pub(super) async fn note(
    source: &Source,
    location: &BackupLocation,
    subject: &Subject,
    reached: Reached,
) -> Result<()> {
    let index = &source.index;
    let Reached { cv, clean_to } = reached;
    let now = index.documents.now().await?;
    let mut note = doc! { "_id": note_id(location, subject), "cv": cv, "cleanTo": clean_to, "at": now };
    match &location.at {
        At::Folder(folder) => drop(note.insert("folder", folder.display().to_string())),
        At::Bucket { storage, bucket } => {
            note.insert("storage", storage);
            note.insert("bucket", bucket);
        }
    }
    let mut batch = Batch::new();
    batch.push(&index.names.counter, Write::put(note, Guard::Any));
    let outcome = index.documents.apply(batch).await?;
    debug_assert!(outcome.iter().all(Outcome::is_applied), "nothing guards the note");
    Ok(())
}

/// The places that are noted, each once.
pub(super) async fn noted(source: &Source) -> Result<Vec<At>> {
    let index = &source.index;
    let exists = |field: &str| Filter::exists(field.to_owned(), true);
    let scan = Scan { filter: Filter::Or(vec![exists("folder"), exists("bucket")]), ..Scan::default() };
    let notes = index.documents.scan(&index.names.counter, scan);
    let mut places: Vec<At> =
        notes.try_filter_map(|note| async move { Ok(read(&note)) }).try_collect().await?;
    places.sort();
    places.dedup();
    Ok(places)
}

fn read(note: &Document) -> Option<At> {
    let text = |field| note.get_str(field).ok().map(str::to_owned);
    match text("folder") {
        Some(folder) => Some(At::Folder(folder.into())),
        None => Some(At::Bucket { storage: text("storage")?, bucket: text("bucket")? }),
    }
}
