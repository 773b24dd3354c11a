//! Several changes in one transaction.

use std::sync::Arc;

use super::commit::transaction::{PendingChange, commit_together};
use super::commit::{CommitError, Committed};
use super::keyed_mutex::Turn;
use super::outcome::WriteOutcome;
use super::piece::{Piece, Readiness};
use super::writer::Writer;
use crate::records::model::ItemId;
use crate::{Error, ErrorKind, Result};

/// Attempts of the whole. Writers of one process take turns, so this many losses in a row mean that others
/// never stop.
const ATTEMPTS: u32 = 100;

/// How one attempt ended.
enum Round {
    Done(Vec<WriteOutcome>),
    Again,
    /// Another caller holds the lock of this piece's item.
    Locked(usize),
}

/// Carries out all changes or none. All of them are of one store, which has transactions.
///
/// # Errors
/// Of the first piece that fails; nothing was written then, unless the error says that this is not known.
pub(crate) async fn write_together(mut pieces: Vec<Piece>) -> Result<Vec<WriteOutcome>> {
    for piece in &pieces {
        piece.ensure().await?;
    }
    let done = attempts(&mut pieces).await;
    for (at, piece) in pieces.iter_mut().enumerate() {
        let uploads = std::mem::take(&mut piece.uploads);
        let meta = match done.as_ref().map(|outcomes| &outcomes[at]) {
            Ok(WriteOutcome::Committed(committed)) => Some(&committed.row.meta),
            _ => None,
        };
        piece.writer.end_uploads(uploads, meta).await;
    }
    let done = done?;
    for (piece, outcome) in pieces.iter().zip(&done) {
        if let (true, WriteOutcome::Committed(committed)) = (piece.options.stored, outcome) {
            piece.writer.flusher.stored(&committed.row).await.map_err(|error| piece.named(error))?;
        }
    }
    Ok(done)
}

async fn attempts(pieces: &mut [Piece]) -> Result<Vec<WriteOutcome>> {
    for _ in 0..ATTEMPTS {
        for piece in pieces.iter_mut() {
            piece.find().await?;
        }
        for at in 1..pieces.len() {
            let (earlier, rest) = pieces.split_at_mut(at);
            rest[0].follow(earlier);
        }
        if let Some(piece) = pieces.first() {
            piece.writer.index.env.fail.hit("transaction.after_claims")?;
        }
        let items = items(pieces);
        let turns = take_turns(&items).await;
        match round(pieces).await? {
            Round::Done(outcomes) => return Ok(outcomes),
            Round::Again => {}
            Round::Locked(at) => {
                // Not while holding the turns: the lock's holder may be waiting for one.
                drop(turns);
                let passed = pieces[at].writer.locks.pass_lock(pieces[at].id(), None).await;
                passed.map_err(|error| pieces[at].named(error))?;
            }
        }
    }
    Err(Error::new(
        ErrorKind::OptimisticLock,
        format!("{ATTEMPTS} attempts met other writers each time; try again later"),
    )
    .retryable())
}

/// The items, in the order in which all callers take turns at them, so that no two wait for each other.
fn items(pieces: &[Piece]) -> Vec<(Arc<Writer>, ItemId)> {
    let mut items: Vec<_> = pieces.iter().map(|piece| (Arc::clone(&piece.writer), piece.id())).collect();
    let place = |(writer, id): &(Arc<Writer>, ItemId)| (Arc::as_ptr(writer) as usize, *id);
    items.sort_by_key(place);
    items.dedup_by_key(|item| place(item));
    items
}

async fn take_turns(items: &[(Arc<Writer>, ItemId)]) -> Vec<Turn<'_>> {
    let mut turns = Vec::with_capacity(items.len());
    for (writer, id) in items {
        turns.push(writer.turns.take(*id).await);
    }
    turns
}

async fn round(pieces: &mut [Piece]) -> Result<Round> {
    let mut outcomes: Vec<Option<WriteOutcome>> = Vec::with_capacity(pieces.len());
    let mut members = Vec::with_capacity(pieces.len());
    // Those that know the item of an earlier one by another key, and which that is.
    let same: Vec<Option<usize>> = pieces
        .iter()
        .enumerate()
        .map(|(at, piece)| pieces[..at].iter().position(|earlier| earlier.is_of_same_item(piece)))
        .collect();
    for at in 0..pieces.len() {
        let Some((piece, others)) = pieces[at..].split_first_mut().filter(|_| same[at].is_none()) else {
            outcomes.push(None);
            continue;
        };
        outcomes.push(match piece.ready(others).await? {
            Readiness::Change(prepared) => {
                members.push(PendingChange {
                    committer: Arc::clone(&piece.writer.committer),
                    prepared: *prepared,
                });
                None
            }
            Readiness::Unchanged(head) => Some(WriteOutcome::Unchanged(head)),
            Readiness::Again => return Ok(Round::Again),
            Readiness::Locked => return Ok(Round::Locked(at)),
        });
    }
    if members.is_empty() {
        return Ok(Round::Done(complete(outcomes, &same, Vec::new())));
    }
    // Until its outcome is known, the commit may yet name what was stored.
    pieces.iter_mut().for_each(|piece| piece.uploads.open = true);
    let committed = match commit_together(members).await {
        // Whether it took place may not be known: what was stored stays for the collector.
        Err(CommitError::Failed(error)) => return Err(error),
        decided => decided,
    };
    pieces.iter_mut().for_each(|piece| piece.uploads.open = false);
    match committed {
        Ok(committed) => Ok(Round::Done(complete(outcomes, &same, committed))),
        Err(CommitError::Condemned) => {
            for piece in pieces {
                piece.end_uploads().await;
            }
            Ok(Round::Again)
        }
        Err(_) => {
            for piece in pieces.iter().filter(|piece| piece.unique.is_some()) {
                let rolled = piece.writer.index.roll_forward(piece.id()).await;
                rolled.map_err(|error| piece.named(error))?;
            }
            Ok(Round::Again)
        }
    }
}

/// The outcome of every piece: what is known already, else the next of those that were committed, or that of
/// the piece with the same item.
fn complete(
    known: Vec<Option<WriteOutcome>>,
    same: &[Option<usize>],
    committed: Vec<Committed>,
) -> Vec<WriteOutcome> {
    let mut committed = committed.into_iter().map(|done| WriteOutcome::Committed(Box::new(done)));
    let mut outcomes: Vec<WriteOutcome> = Vec::with_capacity(known.len());
    for (known, same) in known.into_iter().zip(same) {
        let outcome = match same {
            Some(earlier) => outcomes.get(*earlier).cloned(),
            None => known.or_else(|| committed.next()),
        };
        debug_assert!(outcome.is_some(), "every piece has an outcome");
        outcomes.extend(outcome);
    }
    outcomes
}
