//! Several changes where no transaction holds them together: one after the other, and undone if one fails, as
//! far as that can take nothing from others.
//!
//! What is wrong with any of them is found before the first is written. After that, a failure is one of a
//! store. Items that were changed before it are restored by new versions, each only if no other writer has
//! changed it since. Items that were created stay, and the error names them: others who have the same key may
//! have got them as existing, and link to them. The same call again finds them. A process that dies
//! in between undoes nothing.

use super::call::WriteCall;
use super::change::{Change, WriteOptions};
use super::piece::Piece;
use crate::records::model::VersionSelector;
use crate::records::view::Written;
use crate::{Error, Result};

/// Why a version is there that undoes another one.
const UNDONE: &str = "undone: what belongs to it could not be written";

/// Why a change did not take place.
enum Failed {
    Nothing(Error),
    /// It may have taken place: what belongs to it stays.
    Unknown(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        if error.is_undecided() { Self::Unknown(error) } else { Self::Nothing(error) }
    }
}

/// Carries out the changes in their order.
///
/// # Errors
/// Of the first that fails. Items that were changed before it are restored; the error names what is left.
pub(crate) async fn write_one_by_one(mut pieces: Vec<Piece>) -> Result<Vec<Written>> {
    let mut stored = Vec::with_capacity(pieces.len());
    for piece in &mut pieces {
        piece.ensure().await?;
        piece.check().await?;
        // That is waited for when all are committed: until then a failure undoes them.
        stored.push(std::mem::take(&mut piece.options.stored));
    }
    let mut done = Vec::with_capacity(pieces.len());
    for piece in &pieces {
        match write(piece).await {
            Ok(written) => done.push(written),
            Err(Failed::Nothing(error)) => return Err(undo(&pieces, &done, piece.named(error)).await),
            Err(Failed::Unknown(error)) => {
                let left = changed(&pieces, &done).map(|(piece, written)| stays(piece, written)).collect();
                return Err(with_what_is_left(piece.named(error), 0, left));
            }
        }
    }
    for ((piece, written), stored) in pieces.iter().zip(&done).zip(stored) {
        if !stored || !written.changed {
            continue;
        }
        if let Some(row) = piece.writer.index.row(written.id, written.ov).await? {
            piece.writer.flusher.stored(&row).await.map_err(|error| piece.named(error))?;
        }
    }
    Ok(done)
}

async fn write(piece: &Piece) -> Result<Written, Failed> {
    let Piece { writer, scope, document, options, .. } = piece;
    writer.index.env.fail.hit("one_by_one.before_write").map_err(Failed::Nothing)?;
    if piece.unique.is_some() {
        let inserted = writer.smart_insert(
            document.clone(),
            &options.unique,
            piece.lineage.clone(),
            None,
            options,
            scope,
        );
        return inserted.await.map_err(Failed::from);
    }
    let (id, change) = (piece.id(), piece.change(false));
    match writer.write(WriteCall { id, change: &change, options, scope, lock: None }).await {
        Ok(done) => Ok(done.into()),
        // Its answer may have been lost.
        Err(error) => match writer.versions.row_at(id, VersionSelector::Ov(0), scope).await {
            // That it is not there yet says nothing where its number is still open.
            Ok(None) => Err(error.into()),
            Ok(Some(row)) => {
                let (ov, cv, at) = (row.ov, row.cv, row.at);
                Ok(Written { id, ov, cv, at, changed: true, created: true, queued: None })
            }
            Err(_) => Err(Failed::Unknown(error.undecided())),
        },
    }
}

/// What made a version, the last first.
fn changed<'d>(pieces: &'d [Piece], done: &'d [Written]) -> impl Iterator<Item = (&'d Piece, &'d Written)> {
    pieces.iter().zip(done).filter(|(_, written)| written.changed).rev()
}

/// Restores what was changed, the last first, and makes the error say what came of that.
async fn undo(pieces: &[Piece], done: &[Written], error: Error) -> Error {
    // What was undone, and the version at which it is now: two pieces may have changed one item.
    let (mut undone, mut left) = (Vec::<Written>::new(), Vec::new());
    for (piece, written) in changed(pieces, done) {
        if written.created {
            left.push(stays(piece, written));
            continue;
        }
        let now = undone.iter().rev().find(|undone| undone.id == written.id);
        match restore(piece, written, now.map_or(written.ov, |undone| undone.ov)).await {
            Ok(undoing) => undone.push(undoing),
            Err(why) => left.push(format!("{}: {}", stays(piece, written), why.message())),
        }
    }
    with_what_is_left(error, undone.len(), left)
}

/// Names what is left of a piece: the property that it is, and the item.
fn stays(piece: &Piece, written: &Written) -> String {
    let (id, collection) = (written.id, &piece.writer.index.names.collection);
    let property = match piece.properties.as_slice() {
        [] => String::new(),
        properties => format!("`{}`, ", properties.join("`, `")),
    };
    if written.created {
        format!("{property}item {id} of `{collection}`, was created and stays")
    } else {
        format!("{property}version {} of item {id} of `{collection}`, stays", written.ov)
    }
}

/// The same error, which also says what was undone and what is left.
fn with_what_is_left(error: Error, undone: usize, left: Vec<String>) -> Error {
    let undone = match (undone, left.is_empty()) {
        (0, true) => return error,
        (0, false) => None,
        (_, true) => Some("what was written before it has been undone".to_owned()),
        (count, false) => Some(format!("{count} of the versions before it have been undone")),
    };
    let said: Vec<String> = [error.message().to_owned()].into_iter().chain(undone).chain(left).collect();
    error.saying(said.join("; "))
}

/// `now` is the version at which the item has to be.
async fn restore(piece: &Piece, written: &Written, now: i64) -> Result<Written> {
    let Piece { writer, scope, options, .. } = piece;
    let before = writer.versions.row_at(written.id, VersionSelector::Ov(written.ov - 1), scope).await?;
    let row = before.ok_or_else(|| Error::not_found("the version before it is not kept"))?;
    let change = Change::Restore { row: Box::new(row) };
    let options = WriteOptions {
        // A writer that has changed it meanwhile builds on it.
        expected_ov: Some(now),
        actor: options.actor.clone(),
        reason: Some(UNDONE.to_owned()),
        request_id: options.request_id.clone(),
        ..WriteOptions::default()
    };
    let call = WriteCall { id: written.id, change: &change, options: &options, scope, lock: None };
    writer.write(call).await.map(Written::from)
}
