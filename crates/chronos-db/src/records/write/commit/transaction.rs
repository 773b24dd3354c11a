//! Changes of several items, in any collections of one store, that are committed in one transaction: all of
//! them or none.
//!
//! A transaction is a group (see `group.rs`) that spans collections. The numbers of each are given out before
//! it, as everywhere: counters inside of transactions would make writers of different processes abort each
//! other. Those of the last collection travel with the batch, which saves a round trip. Rows and heads are
//! the same as of any group, and the same indexes decide. What does not take place leaves numbers without a
//! row; they become VOIDs.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bson::Bson;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::group::{Built, COMMITTING, SETTLING};
use super::{CommitError, Committed, Committer, Participation, Prepared};
use crate::documents::within::with_share;
use crate::documents::{Atomicity, Batch, Numbered, Outcome, Sequence};
use crate::records::index::CV;
use crate::records::write::watermark::Moving;
use crate::{Error, ErrorKind, Result};

/// How often numbers may turn out to be taken.
const ATTEMPTS: u32 = 16;

/// A change, and who commits the changes of its collection.
pub(crate) struct PendingChange {
    pub(crate) committer: Arc<Committer>,
    pub(crate) prepared: Prepared,
}

crate::debug_some!(PendingChange { prepared });

/// One of the collections: who commits its changes, and which of the members they are.
struct Part {
    committer: Arc<Committer>,
    members: Vec<usize>,
}

impl Part {
    fn count(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    async fn numbers(&self) -> Result<Sequence> {
        let index = &self.committer.index;
        index.documents.sequence(&index.names.counter, CV, self.count()).await
    }

    /// Closes numbers that no version took.
    async fn close(&self, numbers: Sequence) {
        let index = &self.committer.index;
        let cvs: Vec<i64> = range(numbers).collect();
        if let Err(error) = index.void(&cvs).await {
            // A process that wants to pass the gap closes it later.
            tracing::warn!(collection = %index.names.collection, %error, "numbers without a version are not closed yet");
        }
    }
}

fn range(numbers: Sequence) -> RangeInclusive<i64> {
    numbers.first..=numbers.first + i64::from(numbers.count) - 1
}

/// What went out, kept for the case that the answer is lost.
#[derive(Default)]
struct Ledger {
    /// The numbers of the last collection.
    last: Option<Sequence>,
    /// What became of each member.
    built: Vec<Built>,
}

/// How one attempt ended.
enum Ended {
    Committed(Vec<Committed>),
    /// Nothing was written: it needs other numbers.
    Again,
    Refused(CommitError),
}

/// Commits all changes, or none. There is at least one, all are of one store that has transactions, and no
/// item has two of them.
///
/// # Errors
/// As of one change: [`CommitError::Conflict`] if any of the items has changed, [`CommitError::Condemned`] if
/// what was stored for any of them has been collected. Nothing is written then.
pub(crate) async fn commit_together(members: Vec<PendingChange>) -> Result<Vec<Committed>, CommitError> {
    let (reply, answer) = oneshot::channel();
    let under_way: Vec<_> = members.iter().map(|member| Participation::begin(&member.committer)).collect();
    // In a task of its own: it goes on if its caller gives up, so that none leaves a number without a row.
    tokio::spawn(async move {
        let transaction = Transaction::new(members);
        let (done, numbers) = transaction.run().await;
        let moving: Vec<_> = transaction.parts.iter().zip(numbers).collect();
        let moving: Vec<_> = moving
            .into_iter()
            .filter_map(|(part, numbers)| Moving::begin(&part.committer.watermark, range(numbers)))
            .collect();
        drop(under_way);
        // A caller that gave up still has its versions; they show in the history.
        let _ = reply.send(done);
        for moving in moving {
            moving.advance_watermark().await;
        }
    });
    answer.await.unwrap_or_else(|_| {
        let message = "the writes were given up, by a panic or the end of the runtime; whether they took place shows in the items' history";
        Err(CommitError::Failed(Error::database(message).undecided()))
    })
}

struct Transaction {
    parts: Vec<Part>,
    members: Arc<Vec<PendingChange>>,
}

impl Transaction {
    fn new(members: Vec<PendingChange>) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        for (at, member) in members.iter().enumerate() {
            match parts.iter_mut().find(|part| Arc::ptr_eq(&part.committer, &member.committer)) {
                Some(part) => part.members.push(at),
                None => {
                    parts.push(Part { committer: Arc::clone(&member.committer), members: vec![at] });
                }
            }
        }
        Self { parts, members: Arc::new(members) }
    }

    /// What became of it, and the numbers of each part that its versions took.
    async fn run(&self) -> (Result<Vec<Committed>, CommitError>, Vec<Sequence>) {
        for _ in 0..ATTEMPTS {
            let numbers = match self.numbers().await {
                Ok(numbers) => numbers,
                Err(error) => return (Err(CommitError::Failed(error)), Vec::new()),
            };
            let (ended, numbers) = self.attempt(numbers).await;
            match ended {
                Ended::Committed(committed) => {
                    committed
                        .iter()
                        .zip(&*self.members)
                        .for_each(|(done, member)| member.committer.follow_up(done));
                    return (Ok(committed), numbers);
                }
                Ended::Refused(refused) => return (Err(refused), Vec::new()),
                Ended::Again => {}
            }
        }
        let message = format!("the numbers of {ATTEMPTS} attempts were all taken; try again later");
        (Err(CommitError::Failed(Error::new(ErrorKind::OptimisticLock, message).retryable())), Vec::new())
    }

    /// The numbers of every collection but the last.
    async fn numbers(&self) -> Result<Vec<Sequence>> {
        let others = &self.parts[..self.parts.len() - 1];
        self.parts[0].committer.index.env.fail.hit("transaction.before_numbers")?;
        let given = futures::future::join_all(others.iter().map(Part::numbers)).await;
        if given.iter().all(Result::is_ok) {
            return given.into_iter().collect();
        }
        let mut failed = None;
        for (part, given) in others.iter().zip(given) {
            match given {
                Ok(numbers) => part.close(numbers).await,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| Error::database("no numbers were given out")))
    }

    /// Sends the batch with the numbers of the last collection, and finds out what became of it. Numbers that
    /// no version took are closed.
    async fn attempt(&self, mut numbers: Vec<Sequence>) -> (Ended, Vec<Sequence>) {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let sent = with_share(COMMITTING, self.send(&numbers, &ledger)).await;
        let Ledger { last, built } = std::mem::take(&mut *ledger.lock());
        numbers.extend(last);
        let ended = match sent {
            Ok(outcomes) => self.classify(built, &outcomes),
            // The batch was not sent: no row can exist.
            Err(error) if built.is_empty() => Ended::Refused(CommitError::Failed(error)),
            // Nor were the rows of the others: why one became none tells more than that the call failed.
            Err(_) if built.iter().any(|built| !matches!(built, Built::Version { .. })) => {
                self.classify(built, &[])
            }
            Err(error) => return (with_share(SETTLING, self.resolve(built, error)).await, numbers),
        };
        if matches!(ended, Ended::Committed(_)) {
            return (ended, numbers);
        }
        for (part, numbers) in self.parts.iter().zip(&numbers) {
            part.close(*numbers).await;
        }
        if matches!(ended, Ended::Again)
            && let Err(error) = self.raise_counters().await
        {
            return (Ended::Refused(CommitError::Failed(error)), numbers);
        }
        (ended, numbers)
    }

    async fn send(&self, numbers: &[Sequence], ledger: &Arc<Mutex<Ledger>>) -> Result<Vec<Outcome>> {
        let last = &self.parts[numbers.len()];
        let index = &last.committer.index;
        let (members, ledger) = (Arc::clone(&self.members), Arc::clone(ledger));
        // Of each member, in which order its number comes, and of which collection's.
        let places: Vec<(usize, usize)> = self.places();
        let given = numbers.to_vec();
        let fail = index.env.fail.clone();
        let build = Box::new(move |sequence| {
            fail.hit("transaction.before_rows")?;
            let given: Vec<Sequence> = given.into_iter().chain([sequence]).collect();
            let mut ledger = ledger.lock();
            let (built, batch) = build(&members, &places, &given);
            *ledger = Ledger { last: Some(sequence), built };
            Ok(batch)
        });
        let Numbered { outcomes, .. } =
            index.documents.sequence_then(&index.names.counter, CV, last.count(), build).await?;
        index.env.fail.hit("transaction.before_answer")?;
        Ok(outcomes)
    }

    /// Of each member, the collection and the place among its changes.
    fn places(&self) -> Vec<(usize, usize)> {
        let mut places = vec![(0, 0); self.members.len()];
        for (part, Part { members, .. }) in self.parts.iter().enumerate() {
            for (place, member) in members.iter().enumerate() {
                places[*member] = (part, place);
            }
        }
        places
    }

    /// What the outcomes of the batch mean.
    fn classify(&self, built: Vec<Built>, outcomes: &[Outcome]) -> Ended {
        let mut committed = Vec::with_capacity(built.len());
        let (mut conflict, mut condemned, mut again) = (false, false, false);
        for (built, member) in built.into_iter().zip(&*self.members) {
            let (row, head, at) = match built {
                Built::Version { row, head, at } => (row, head, at),
                Built::Rejected(refused) => return Ended::Refused(refused),
                Built::Behind => return Ended::Again,
                // Who made them ready reads their heads again.
                Built::Stale => return Ended::Refused(CommitError::Conflict),
            };
            // Another member, which became no version, left nothing to send.
            let (Some(inserted), Some(put)) = (outcomes.get(at), outcomes.get(at + 1)) else { continue };
            let noted = at.checked_sub(1).filter(|_| member.prepared.uploaded.is_some());
            condemned |= noted.is_some_and(|noted| outcomes[noted] == Outcome::Refused);
            match inserted {
                // The number was closed as a gap, or is one that a failover gave out twice.
                Outcome::Conflict { index: Some(name) } if name == "ver_cv" => again = true,
                Outcome::Conflict { .. } | Outcome::Refused => conflict = true,
                Outcome::Applied | Outcome::Skipped => {
                    conflict |= matches!(put, Outcome::Conflict { .. } | Outcome::Refused);
                }
            }
            if inserted.is_applied() && put.is_applied() {
                committed.push(Committed { row: *row, head: *head });
            }
        }
        if committed.len() == self.members.len() {
            return Ended::Committed(committed);
        }
        match (condemned, conflict, again) {
            (true, ..) => Ended::Refused(CommitError::Condemned),
            (_, true, _) => Ended::Refused(CommitError::Conflict),
            (.., true) => Ended::Again,
            _ => Ended::Refused(CommitError::Failed(Error::database(
                "the store did not carry out a transaction, and said of no write why",
            ))),
        }
    }

    /// Takes the counters to the highest rows, where a failover took them back behind those.
    async fn raise_counters(&self) -> Result<()> {
        for part in &self.parts {
            let previous = part.members.iter().filter_map(|at| self.members[*at].prepared.previous.as_ref());
            part.committer.raise_counter(previous.map(|head| head.cv).max()).await?;
        }
        Ok(())
    }

    /// After an ambiguous error, where every member became a version: closes every number, so that what did not
    /// land never can, and asks whether the rows did.
    async fn resolve(&self, built: Vec<Built>, error: Error) -> Ended {
        let versions = built.into_iter().filter_map(|built| match built {
            Built::Version { row, head, .. } => Some(Committed { row: *row, head: *head }),
            Built::Rejected(_) | Built::Behind | Built::Stale => None,
        });
        let versions: Vec<Committed> = versions.collect();
        match self.landed(&versions).await {
            Ok(found) if found == versions.len() => Ended::Committed(versions),
            Ok(0) => Ended::Refused(CommitError::Failed(error.retryable())),
            Ok(found) => {
                let message = format!(
                    "the store kept {found} of the {} versions of a transaction: {}",
                    versions.len(),
                    error.message()
                );
                Ended::Refused(CommitError::Failed(Error::database(message).caused_by(error)))
            }
            Err(_) => {
                let message = format!(
                    "{}; whether the {} versions of the transaction were written, all or none, is not known: the items' history shows it",
                    error.message(),
                    versions.len()
                );
                Ended::Refused(CommitError::Failed(error.saying(message).undecided()))
            }
        }
    }

    /// How many of the rows are there, once none can come any more.
    async fn landed(&self, versions: &[Committed]) -> Result<usize> {
        let mut found = 0;
        for Part { committer, members } in &self.parts {
            let cvs: Vec<i64> = members.iter().map(|at| versions[*at].row.cv).collect();
            committer.index.void_until_answered(&cvs).await?;
        }
        for Part { committer, members } in &self.parts {
            let ids: Vec<Bson> = members.iter().map(|at| versions[*at].row.row_id.into()).collect();
            found += committer.index.documents.get(&committer.index.names.ver, ids).await?.len();
        }
        Ok(found)
    }
}

/// What the numbers make of the members, and the batch that writes them; an empty one if any of them becomes
/// no version.
fn build(members: &[PendingChange], places: &[(usize, usize)], given: &[Sequence]) -> (Vec<Built>, Batch) {
    // One time for all: it is not before that of any number.
    let now = given.iter().map(|numbers| numbers.now).max().unwrap_or_default();
    let mut batch = Batch { atomicity: Atomicity::All, ..Batch::new() };
    let built: Vec<Built> = members
        .iter()
        .zip(places)
        .map(|(PendingChange { committer, prepared }, (part, place))| {
            let cv = (given[*part].first..).nth(*place).unwrap_or(i64::MAX);
            committer.built(&mut batch, prepared, cv, now)
        })
        .collect();
    let complete = built.iter().all(|built| matches!(built, Built::Version { .. }));
    (built, if complete { batch } else { Batch::new() })
}
