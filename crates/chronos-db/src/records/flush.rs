//! The flusher: puts the payloads of committed versions into object storage, then drops their inline copies.
//!
//! Only committed versions are ever stored and a repeated flush writes the same bytes, so a crash or an
//! outage leaves work, not garbage.
//!
//! The rows are the truth about what waits. In memory is what this process committed, as far as there is room
//! (`queue`); one worker a collection takes from it, from the rows it had no room for, from what failed
//! before and from what others left (`worker`), while there is anything.

mod queue;
mod report;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use futures::TryStreamExt as _;
use tokio::sync::oneshot;

pub(crate) use self::queue::Flusher;
use self::queue::Version;
pub use self::report::{FailingVersion, FlushReport};
use self::worker::LEFT_TO_ITS_WRITER_MILLIS;
use super::commit::Committed;
use super::engine::Engine;
use super::model::{Head, ItemId, Op, Row, State};
use super::scope::Scope;
use super::write::JSON_TYPE;
use crate::clock::sleep_until;
use crate::documents::{Batch, Filter, Guard, Outcome, Scan, Write};
use crate::objects::PutOptions;
use crate::{Error, Result, Timestamp};

/// Who waits for a version looks at its row so often, as another process may have stored it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Failing versions that a report names.
const MAX_NAMED: usize = 100;

/// Rows that wait to be stored. Not by `$exists`, which null would pass, too: the embedded store's index
/// leaves it out.
pub(crate) fn waiting() -> Filter {
    Filter::gt("unflushedSince", bson::DateTime::MIN)
}

impl Engine {
    /// Hands a version to the flusher, if it has something to store.
    pub(crate) fn flush_later(self: &Arc<Self>, committed: &Committed) {
        if committed.row.unflushed_since.is_none() {
            return;
        }
        self.flusher.lock().push(Version::new(committed.row.clone(), committed.head.clone(), true));
        self.start_flusher();
    }

    /// Lets the flusher look for what a crashed process left.
    pub(crate) fn flush_leftovers(self: &Arc<Self>) {
        self.flusher.lock().look();
        self.start_flusher();
    }

    /// Returns when the version is stored, by whichever process.
    ///
    /// # Errors
    /// The storage's error, once a try failed: the version is committed all the same, and will be stored
    /// later.
    pub(crate) async fn stored(&self, row: &Row) -> Result<()> {
        if row.unflushed_since.is_none() {
            return Ok(());
        }
        loop {
            let mut waiting = Waiting::new(self, row.row_id);
            // The flusher may have been there before the waiter was, another process too.
            match self.row(row.id, row.ov).await? {
                Some(now) if now.op == row.op && now.unflushed_since.is_some() => {}
                Some(now) if now.op == row.op => return Ok(()),
                _ => {
                    let message =
                        format!("version {} was committed, and erased before it was stored", row.ov);
                    return Err(Error::not_found(message).on_item(row.id).at_version(row.ov));
                }
            }
            let (stopped, outage) = {
                let work = self.flusher.lock();
                (work.stopped, work.outage())
            };
            if stopped {
                let message = format!(
                    "version {} is committed; its storing was left to the next process at shutdown",
                    row.ov
                );
                return Err(Error::storage(message).retryable().on_item(row.id));
            }
            let answer = match outage {
                Some(error) => Some(Err(error)),
                None => {
                    let again = self.env.clock.sleep(LOOK_AGAIN);
                    tokio::select! {
                        answer = &mut waiting.answer => answer.ok(),
                        () = again => None,
                    }
                }
            };
            match answer {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => {
                    let message =
                        format!("version {} is committed, but not stored yet: {}", row.ov, error.message());
                    return Err(Error::new(error.kind(), message)
                        .retryable()
                        .on_item(row.id)
                        .caused_by(error));
                }
                None => {}
            }
        }
    }

    fn start_flusher(self: &Arc<Self>) {
        let mut work = self.flusher.lock();
        if work.stopped {
            return;
        }
        if work.running {
            drop(work);
            self.flusher.kick.notify_one();
            return;
        }
        work.running = true;
        // Owned by the collection: `stop` ends it after what it has begun, `finish` also at once.
        work.task = Some(worker::start(self));
    }

    /// Notes that these versions are stored.
    async fn record_group<'a>(&self, group: impl Iterator<Item = &'a Version>) -> Result<()> {
        self.env.fail.hit("flush.after_put")?;
        self.record_stored(group.map(|version| &version.version)).await?;
        self.env.fail.hit("flush.after_record")
    }

    async fn put_objects(self: &Arc<Self>, row: &Row) -> Result<()> {
        self.env.fail.hit("flush.before_put")?;
        if row.op == Op::Erase {
            return self.erase(row).await;
        }
        for rider in &row.riders {
            let options =
                PutOptions { content_type: Some(rider.content_type.clone()), ..PutOptions::default() };
            self.bucket(&rider.bucket)?.put(&rider.key, rider.bytes.clone(), options).await?;
        }
        if !row.riders.is_empty() {
            self.env.fail.hit("flush.after_blobs")?;
        }
        if let (Some(bytes), Some(bucket), Some(key)) =
            (&row.inline, &row.content.payload.bucket, &row.content.payload.key)
        {
            let options = PutOptions { content_type: Some(JSON_TYPE.to_owned()), ..PutOptions::default() };
            self.bucket(bucket)?.put(key, bytes.clone(), options).await?;
        }
        Ok(())
    }

    async fn record_stored<'a>(&self, stored: impl Iterator<Item = &'a (Row, Head)>) -> Result<()> {
        let mut batch = Batch::new();
        let mut newest: HashMap<ItemId, (&Row, &Head)> = HashMap::new();
        let mut rows = Vec::new();
        for (row, head) in stored {
            rows.push(row);
            let since = row.unflushed_since;
            let mut done = Row { inline: None, riders: Vec::new(), unflushed_since: None, ..row.clone() };
            done.content.payload.state = State::New;
            let guard = Guard::Equals {
                field: "unflushedSince".into(),
                value: since.map_or(bson::Bson::Null, Into::into),
            };
            batch.push(&self.names.ver, Write::put(done.stored(), guard));
            if row.op != Op::Erase
                && head.is_of(row)
                && newest.get(&head.id).is_none_or(|(other, _)| other.cv < row.cv)
            {
                newest.insert(head.id, (row, head));
            } else if newest.get(&row.id).is_some_and(|(other, _)| other.cv < row.cv) {
                newest.remove(&row.id);
            }
        }
        for (row, head) in newest.into_values() {
            let mut head = head.clone();
            head.content.payload.state = State::New;
            let guard = head.unchanged();
            head.row = Some(row.row_id);
            batch.push(&self.names.head, Write::put(head.stored(), guard));
        }
        if batch.operations.is_empty() {
            return Ok(());
        }
        let outcomes = self.documents.apply(batch).await?;
        // Another process has stored it, or the item was erased while its object was put.
        let refused: Vec<&Row> = rows
            .into_iter()
            .zip(outcomes)
            .filter(|(_, outcome)| *outcome == Outcome::Refused)
            .map(|(row, _)| row)
            .collect();
        if refused.is_empty() { Ok(()) } else { self.take_back(&refused).await }
    }

    /// Waits until nothing is left to store, or `limit` has passed; with `own_only` what others wrote is left
    /// to them. Says what still waits.
    pub(crate) async fn drain_flusher(
        self: &Arc<Self>,
        limit: Duration,
        own_only: bool,
        scope: &Scope,
    ) -> Result<FlushReport> {
        self.serve(scope);
        let deadline = self.deadline(limit);
        self.until(deadline, self.commits.drained()).await;
        if own_only {
            if self.flusher.lock().own() > 0 {
                self.start_flusher();
            }
        } else {
            self.flush_leftovers();
        }
        // A flusher that waits after a failure tries again now.
        self.flusher.lock().hurry(self.env.clock.now());
        self.flusher.kick.notify_one();
        self.flushed(deadline, own_only).await;
        self.flush_report(scope).await
    }

    async fn flushed(&self, deadline: Timestamp, own_only: bool) {
        loop {
            let mut changed = std::pin::pin!(self.flusher.changed.notified());
            // From here on, not from its first poll on.
            changed.as_mut().enable();
            {
                let work = self.flusher.lock();
                if !work.running || (own_only && work.own() == 0) {
                    return;
                }
            }
            if !self.until(deadline, changed).await {
                return;
            }
        }
    }

    fn deadline(&self, limit: Duration) -> Timestamp {
        self.env.clock.now().plus_millis(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX))
    }

    /// Whether `done` came before the deadline.
    async fn until(&self, deadline: Timestamp, done: impl Future<Output = ()>) -> bool {
        tokio::select! {
            biased;
            () = done => true,
            () = sleep_until(&*self.env.clock, deadline) => false,
        }
    }

    /// What waits to be stored, as far as `scope` sees it.
    async fn flush_report(&self, scope: &Scope) -> Result<FlushReport> {
        let (own, failing) = {
            let work = self.flusher.lock();
            (work.own(), work.failing(&self.names.collection))
        };
        // Where a database is a tenant's own, all rows are counted, which an index does alone.
        let seen = |filter| if scope.is_one_of_several() { scope.narrow(filter) } else { filter };
        let count = async |filter| self.documents.count(&self.names.ver, seen(filter), u64::MAX).await;
        let waiting = count(waiting()).await?;
        let left = if waiting > own {
            let old = self.documents.now().await?.plus_millis(-LEFT_TO_ITS_WRITER_MILLIS);
            count(Filter::And(vec![self::waiting(), Filter::lte("unflushedSince", old)]))
                .await?
                .saturating_sub(own)
        } else {
            0
        };
        let mut failing = self.seen(failing, scope).await?;
        let failed = failing.len() as u64;
        failing.truncate(MAX_NAMED);
        Ok(FlushReport { waiting, own: own.min(waiting), left, failed, failing })
    }

    /// Those of the failing versions that `scope` sees: nobody hears of a foreign item.
    async fn seen(
        &self,
        failing: Vec<(ObjectId, FailingVersion)>,
        scope: &Scope,
    ) -> Result<Vec<FailingVersion>> {
        if failing.is_empty() || *scope == Scope::All {
            return Ok(failing.into_iter().map(|(_, version)| version).collect());
        }
        let scan = Scan {
            filter: scope
                .narrow(Filter::any_of("_id", failing.iter().map(|(row, _)| (*row).into()).collect())),
            without: ["inline", "riders", "metaIndexed", "refs"].map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        let seen: HashSet<ObjectId> = self.scan_rows(scan).map_ok(|row| row.row_id).try_collect().await?;
        Ok(failing.into_iter().filter(|(row, _)| seen.contains(row)).map(|(_, version)| version).collect())
    }

    /// What is begun is the last.
    pub(crate) fn stop(&self) {
        self.flusher.stop();
    }

    /// The end, within `limit`: commits come to rest, then what can be stored is. Returns how many versions
    /// of this process are left to the next one.
    pub(crate) async fn finish(self: &Arc<Self>, limit: Duration) -> u64 {
        let deadline = self.deadline(limit);
        self.until(deadline, self.commits.drained()).await;
        if self.flusher.lock().own() > 0 {
            self.start_flusher();
        }
        self.flusher.lock().hurry(self.env.clock.now());
        self.flusher.kick.notify_one();
        self.flushed(deadline, true).await;
        let left = self.flusher.lock().own();
        self.stop();
        self.flushed(deadline, false).await;
        let task = self.flusher.lock().task.take();
        if let Some(task) = task {
            task.abort();
            // It was ended, or has ended by itself, or has panicked and said so: in any case it is gone then.
            let _ = task.await;
        }
        left
    }
}

/// A place among those that wait for a version, given back when it is dropped.
struct Waiting<'e> {
    engine: &'e Engine,
    row: ObjectId,
    number: u64,
    answer: oneshot::Receiver<Result<(), Arc<Error>>>,
}

impl<'e> Waiting<'e> {
    fn new(engine: &'e Engine, row: ObjectId) -> Self {
        let (waiter, answer) = oneshot::channel();
        let number = engine.flusher.lock().wait_for(row, waiter);
        Self { engine, row, number, answer }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.engine.flusher.lock().no_longer_wait(self.row, self.number);
    }
}
