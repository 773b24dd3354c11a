//! One group: one allocation of numbers, one insert of rows, one put of heads.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bson::Bson;
use parking_lot::Mutex;

use super::{CommitError, Committed, Committer, PendingCommit, Prepared};
use crate::documents::within::with_share;
use crate::documents::{Batch, Guard, Numbered, Outcome, Sequence, Write};
use crate::records::document::payload::{self, System};
use crate::records::index::CV;
use crate::records::model::{Head, Op, Payload, Row, Shadow, State, numbered_at};
use crate::{Error, Result, Timestamp};

/// How far ahead of the store's clock an imported time may be.
const IMPORT_AHEAD_MILLIS: i64 = 5 * 60 * 1000;

/// Which shares of a call's time the commit may take, and finding out what became of it if its answer does
/// not come.
pub(super) const COMMITTING: f64 = 0.7;
const LOOKING: f64 = 0.2;
pub(super) const SETTLING: f64 = 0.3;

/// What the group's numbers made of one member.
#[derive(Debug)]
pub(super) enum Built {
    Version {
        row: Box<Row>,
        head: Box<Head>,
        at: usize,
    },
    /// The member was wrong in the light of the store's time, or too late; its number became a VOID.
    Rejected(CommitError),
    /// The item is beyond the number; it became a VOID.
    Behind,
    /// The number came so late that the head must be read again; it became a VOID.
    Stale,
}

/// What became of the members of a group, by their places in it.
#[derive(Default)]
struct Sorted {
    answers: Vec<(usize, Result<Committed, CommitError>)>,
    /// They need another number.
    again: Vec<usize>,
    /// They need another number, and their heads read again.
    stale: Vec<usize>,
    /// Places in `answers` of those whose heads lag behind the row.
    lagging: Vec<usize>,
    /// Numbers that no row took.
    voids: Vec<i64>,
}

impl Sorted {
    fn of(built: Vec<Built>, outcomes: &[Outcome]) -> Self {
        let mut sorted = Self::default();
        for (index, built) in built.into_iter().enumerate() {
            match built {
                Built::Behind => sorted.again.push(index),
                Built::Stale => sorted.stale.push(index),
                Built::Rejected(refused) => sorted.answers.push((index, Err(refused))),
                Built::Version { row, head, at } => match &outcomes[at] {
                    Outcome::Applied => {
                        if matches!(outcomes[at + 1], Outcome::Conflict { .. } | Outcome::Skipped) {
                            sorted.lagging.push(sorted.answers.len());
                        }
                        sorted.answers.push((index, Ok(Committed { row: *row, head: *head })));
                    }
                    // The number was closed as a gap, or is one that a failover gave out twice: the change
                    // itself is as good as before.
                    Outcome::Conflict { index: Some(name) } if name == "ver_cv" => sorted.again.push(index),
                    Outcome::Skipped => {
                        sorted.voids.push(row.cv);
                        sorted.answers.push((index, Err(CommitError::Condemned)));
                    }
                    Outcome::Conflict { .. } | Outcome::Refused => {
                        sorted.voids.push(row.cv);
                        sorted.answers.push((index, Err(CommitError::Conflict)));
                    }
                },
            }
        }
        sorted
    }
}

/// Who waits for what became of a change.
type Reply = tokio::sync::oneshot::Sender<Result<Committed, CommitError>>;

/// The rows as they went out, kept for the case that the answer is lost.
type Ledger = Arc<Mutex<Vec<Built>>>;

impl Committer {
    /// Commits the members and answers them; returns those that need another number, and the numbers it took
    /// where their rows and heads are known to be right.
    pub(super) async fn commit_group(
        self: &Arc<Self>,
        members: Vec<PendingCommit>,
    ) -> (Vec<PendingCommit>, Option<RangeInclusive<i64>>) {
        let members = with_share(LOOKING, self.with_fresh_heads(members)).await;
        if members.is_empty() {
            return (Vec::new(), None);
        }
        let (prepared, replies): (Vec<_>, Vec<_>) =
            members.into_iter().map(|m| (m.prepared, (m.reply, m.delays))).unzip();
        let prepared = Arc::new(prepared);
        let ledger = Ledger::default();
        let result = with_share(COMMITTING, self.attempt(&prepared, &ledger)).await;
        let built = std::mem::take(&mut *ledger.lock());
        let Numbered { sequence, outcomes } = match result {
            Ok(done) => done,
            Err(error) if built.is_empty() => {
                // Not even numbers were given out, or they are lost: no row can exist.
                for (reply, _) in replies {
                    let _ = reply.send(Err(CommitError::Failed(error.clone())));
                }
                return (Vec::new(), None);
            }
            Err(error) => {
                return (with_share(SETTLING, self.settle_unknown(built, replies, error)).await, None);
            }
        };
        let numbers = sequence.first..=sequence.first + i64::from(sequence.count) - 1;
        let mut sorted = Sorted::of(built, &outcomes);
        let is_settled = self.mend(&prepared, &mut sorted).await;
        (self.answer(prepared, replies, sorted), is_settled.then_some(numbers))
    }

    /// Mends what the outcomes leave behind: heads that lag, numbers without a row, a counter that is behind.
    /// Whether all rows and heads of the group are known to be right then.
    async fn mend(&self, prepared: &[Prepared], sorted: &mut Sorted) -> bool {
        let mut is_settled = true;
        for place in &sorted.lagging {
            let (_, answer) = &mut sorted.answers[*place];
            if let Ok(committed) = answer
                && let Err(error) = self.put_head(&committed.row).await
            {
                *answer = Err(error);
                is_settled = false;
            }
        }
        if !sorted.voids.is_empty()
            && let Err(error) = self.index.void(&sorted.voids).await
        {
            // A process that wants to pass the gap closes it later.
            tracing::warn!(collection = %self.index.names.collection, %error, "numbers without a version are not closed yet");
            is_settled = false;
        }
        if !sorted.again.is_empty() {
            is_settled = false;
            let previous = sorted.again.iter().filter_map(|index| prepared[*index].previous.as_ref());
            if let Err(error) = self.raise_counter(previous.map(|head| head.cv).max()).await {
                let failed = |index| (index, Err(CommitError::Failed(error.clone())));
                sorted.answers.extend(sorted.again.drain(..).map(failed));
            }
        }
        is_settled
    }

    /// Takes the counter to the highest row, where a failover took it back behind that. `furthest` is the
    /// number an item is said to be at.
    pub(super) async fn raise_counter(&self, furthest: Option<i64>) -> Result<()> {
        let highest = self.index.highest_cv().await?;
        if let Some(furthest) = furthest.filter(|furthest| highest.is_none_or(|highest| highest < *furthest))
        {
            let message = format!(
                "the item is at collection version {furthest}, which no row has: `verify` tells more, `verify --repair` mends it"
            );
            return Err(Error::database(message));
        }
        match highest {
            Some(highest) => self.index.raise(CV, highest).await,
            None => Ok(()),
        }
    }

    async fn attempt(self: &Arc<Self>, prepared: &Arc<Vec<Prepared>>, ledger: &Ledger) -> Result<Numbered> {
        let fail = &self.index.env.fail;
        fail.hit("commit.before_numbers")?;
        let (committer, members, built) = (Arc::clone(self), Arc::clone(prepared), Arc::clone(ledger));
        let count = u32::try_from(prepared.len()).unwrap_or(u32::MAX);
        let build = Box::new(move |sequence| committer.build(&members, sequence, &mut built.lock()));
        let done = self.index.documents.sequence_then(&self.index.names.counter, CV, count, build).await?;
        fail.hit("commit.before_answer")?;
        Ok(done)
    }

    fn build(&self, members: &[Prepared], sequence: Sequence, ledger: &mut Vec<Built>) -> Result<Batch> {
        self.index.env.fail.hit("commit.before_rows")?;
        ledger.clear();
        let mut batch = Batch::new();
        for (cv, prepared) in (sequence.first..).zip(members) {
            let built = self.built(&mut batch, prepared, cv, sequence.now);
            if !matches!(built, Built::Version { .. }) {
                batch.push(
                    &self.index.names.ver,
                    Write::insert(Row::void_now(&*self.index.env.random, cv, sequence.now)),
                );
            }
            ledger.push(built);
        }
        Ok(batch)
    }

    /// Adds to the batch the version that a change becomes with this number; nothing if it becomes none.
    pub(super) fn built(&self, batch: &mut Batch, prepared: &Prepared, cv: i64, now: Timestamp) -> Built {
        if prepared.previous.as_ref().is_some_and(|head| head.cv >= cv) {
            return Built::Behind;
        }
        if self.is_stale(prepared) {
            return Built::Stale;
        }
        let at = match time_of(prepared, now) {
            Ok(at) => at,
            Err(error) => return Built::Rejected(CommitError::Failed(error.on_item(prepared.id))),
        };
        let (row, head) = self.version(prepared, cv, at, now);
        let insert = Write::insert(row.stored());
        let fail = &self.index.env.fail;
        let at = match &prepared.uploaded {
            Some(noted) if !fail.skips("guard.condemned") => {
                let kept = batch.push(&self.index.names.gc, noted.kept());
                batch.push_after(kept, &self.index.names.ver, insert)
            }
            _ => batch.push(&self.index.names.ver, insert),
        };
        let document = head.stored();
        // The first head of an item is inserted, which costs the store half of a guarded put. If another
        // process has rolled it forward in between, that is a conflict, and looked at below.
        let put = match prepared.previous {
            None => Write::insert(document),
            Some(_) if fail.skips("guard.newer_head") => Write::put(document, Guard::Any),
            Some(_) => Write::put(document, Guard::Newer { field: "cv".into() }),
        };
        batch.push_after(at, &self.index.names.head, put);
        Built::Version { row: Box::new(row), head: Box::new(head), at }
    }

    /// The row and the head of a change that got its number and time.
    fn version(&self, prepared: &Prepared, cv: i64, at: Timestamp, now: Timestamp) -> (Row, Head) {
        let ov = prepared.ov();
        let previous = prepared.previous.as_ref();
        let mut meta = prepared.meta.clone();
        let inline = prepared.body.as_ref().map(|body| {
            let system = System {
                ov,
                cv: Some(cv),
                inserted_at: previous.map_or(at, |head| head.created_at),
                updated_at: at,
                deleted_at: None,
                function_ids: &meta.function_ids,
                lineage: &meta.lineage,
                state: None,
            };
            body.with_system(&system.to_json())
        });
        if let Some(bytes) = &inline {
            meta.payload = Payload {
                ov,
                size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
                checksum: payload::checksum(bytes),
                state: State::NewNotSynched,
                ..meta.payload
            };
        }
        // An erasure leaves objects to remove; everything else leaves at most its own to store.
        let work = self.payloads.buckets.is_some()
            && (inline.is_some() || !prepared.inline_objects.is_empty())
            || prepared.op == Op::Erase;
        let row = Row {
            row_id: numbered_at(prepared.row_id, now),
            id: prepared.id,
            ov,
            cv,
            op: prepared.op,
            at,
            actor: prepared.actor.clone(),
            reason: prepared.reason.clone(),
            request_id: prepared.request_id.clone(),
            operation: prepared.operation,
            meta,
            inline,
            inline_objects: prepared.inline_objects.clone(),
            unflushed_since: work.then_some(now),
            counts: (prepared.op == Op::Erase && previous.is_some_and(Head::is_live)).then_some(Op::Delete),
            import: prepared.import,
            certificate: prepared.certificate,
        };
        let mut head = row.head_after(previous);
        if let (Some(shadow), Some(bytes)) = (&self.index.settings.shadow, &row.inline)
            && shadow.max_bytes.is_none_or(|max| bytes.len() <= max)
        {
            head.shadow = Some(Shadow { ov, at, bytes: bytes.clone() });
        }
        if self.index.settings.inline {
            head = head.keeping_inline(&row);
        }
        (row, head)
    }

    fn answer(
        self: &Arc<Self>,
        prepared: Arc<Vec<Prepared>>,
        replies: Vec<(Reply, u32)>,
        sorted: Sorted,
    ) -> Vec<PendingCommit> {
        let mut replies: Vec<_> = replies.into_iter().map(Some).collect();
        for (index, answer) in sorted.answers {
            if let Ok(committed) = &answer {
                self.follow_up(committed);
            }
            if let Some((reply, _)) = replies[index].take() {
                // A caller that gave up still has its version; it shows in the history.
                let _ = reply.send(answer);
            }
        }
        // The closure that shared the members is gone, so they can be taken back.
        let mut prepared: Vec<_> =
            Arc::into_inner(prepared).unwrap_or_default().into_iter().map(Some).collect();
        let again = sorted.again.into_iter().map(|index| (index, 0));
        let back =
            again.chain(sorted.stale.into_iter().map(|index| (index, 1))).filter_map(|(index, late)| {
                let (reply, delays) = replies[index].take()?;
                Some(PendingCommit {
                    prepared: prepared.get_mut(index)?.take()?,
                    delays: delays + late,
                    reply,
                })
            });
        back.collect()
    }

    /// What is done about a version that was committed just now.
    pub(super) fn follow_up(&self, committed: &Committed) {
        if let Some(bytes) = &committed.row.inline {
            self.payloads.remember(committed.row.id, committed.row.ov, bytes);
        }
        self.flusher.flush_later(&committed.row, &committed.head);
    }

    /// After an ambiguous error: closes every number of the group, so that what did not land never can, and
    /// asks which rows did.
    async fn settle_unknown(
        self: &Arc<Self>,
        built: Vec<Built>,
        replies: Vec<(Reply, u32)>,
        error: Error,
    ) -> Vec<PendingCommit> {
        let cvs: Vec<i64> = built
            .iter()
            .filter_map(|b| if let Built::Version { row, .. } = b { Some(row.cv) } else { None })
            .collect();
        let ids: Vec<Bson> = built
            .iter()
            .filter_map(|b| if let Built::Version { row, .. } = b { Some(row.row_id.into()) } else { None })
            .collect();
        let closed = if self.index.env.fail.skips("guard.void") {
            Ok(())
        } else {
            self.index.void_until_answered(&cvs).await
        };
        let found = match closed {
            Ok(()) => self.index.documents.get(&self.index.names.ver, ids).await,
            Err(error) => Err(error),
        };
        for (built, (reply, _)) in built.into_iter().zip(replies) {
            let answer = match (built, &found) {
                (Built::Rejected(refused), _) => Err(refused),
                (Built::Behind | Built::Stale, _) => Err(CommitError::Failed(error.clone().retryable())),
                (Built::Version { row, head, .. }, Ok(found)) => {
                    if found.iter().any(|doc| doc.get_object_id("_id").ok() == Some(row.row_id)) {
                        self.flusher.flush_later(&row, &head);
                        self.put_head(&row).await.map(|()| Committed { row: *row, head: *head })
                    } else if self.may_have_left(&row).await {
                        Err(undecided(&row, &error))
                    } else {
                        Err(CommitError::Failed(error.clone().retryable()))
                    }
                }
                (Built::Version { row, .. }, Err(_)) => Err(undecided(&row, &error)),
            };
            let _ = reply.send(answer);
        }
        Vec::new()
    }

    /// Puts the head of a version whose row alone is there. Until a writer or a worker does, readers see the version
    /// before, so where it fails no caller may get this one as the latest.
    async fn put_head(&self, row: &Row) -> Result<(), CommitError> {
        let is_guarded = !self.index.env.fail.skips("guard.lagging_head");
        let put = if is_guarded {
            self.index.roll_forward_until_answered(row.id).await
        } else {
            self.index.roll_forward(row.id).await.map(drop)
        };
        let Err(error) = put else { return Ok(()) };
        tracing::warn!(item = %row.id, %error, "a head lags behind its newest version; the next writer will roll it forward");
        if !is_guarded {
            return Ok(());
        }
        let message = format!(
            "{}; version {} of the item is written, but may be seen later: its history shows it",
            error.message(),
            row.ov
        );
        Err(CommitError::Failed(error.saying(message).on_item(row.id).undecided()))
    }

    /// Whether a row that is not there may have been, and gone out of the index as beyond the window, which is for
    /// any process to say: its item is past it, and nothing else has its place.
    async fn may_have_left(&self, row: &Row) -> bool {
        if !self.index.settings.versioning || self.index.env.fail.skips("guard.may_have_left") {
            return false;
        }
        let looked = futures::future::try_join(self.index.head(row.id), self.index.row(row.id, row.ov)).await;
        match looked {
            Ok((head, place)) => place.is_none() && head.is_some_and(|head| head.ov >= row.ov),
            Err(_) => true,
        }
    }
}

fn undecided(row: &Row, error: &Error) -> CommitError {
    let message = format!(
        "{}; whether version {} of the item was written is not known: its history shows it",
        error.message(),
        row.ov
    );
    CommitError::Failed(error.clone().saying(message).on_item(row.id).undecided())
}

/// The time of a change: given, or the store's, but always after the version before.
fn time_of(prepared: &Prepared, now: Timestamp) -> Result<Timestamp> {
    let previous = prepared.previous.as_ref();
    let earliest = previous.map(|head| head.updated_at.plus_millis(1));
    let Some(at) = prepared.at else { return Ok(earliest.map_or(now, |earliest| earliest.max(now))) };
    if earliest.is_some_and(|earliest| at < earliest) {
        return Err(Error::validation(format!(
            "the time {at} is not after the item's newest version, which is of {}",
            earliest.unwrap_or(at).plus_millis(-1)
        )));
    }
    if at > now.plus_millis(IMPORT_AHEAD_MILLIS) {
        return Err(Error::validation(format!(
            "the time {at} is more than 5 minutes ahead of the store's, which is {now}"
        )));
    }
    Ok(at)
}
