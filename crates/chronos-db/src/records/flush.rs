//! The flusher: puts the payloads of committed versions into object storage, then drops their inline copies.
//!
//! Only committed versions are ever stored and a repeated flush writes the same bytes, so a crash or an outage leaves work, not garbage.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::oid::ObjectId;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{Notify, oneshot};

use super::commit::Committed;
use super::engine::Engine;
use super::model::{Head, ItemId, Op, Row, State};
use super::scope::Scope;
use super::write::JSON_TYPE;
use crate::documents::{Batch, Direction, Filter, Guard, Scan, Write};
use crate::objects::PutOptions;
use crate::{Error, Result, Timestamp};

/// Versions per round, and puts under way at once.
const ROUND: usize = 128;
const PUTS: usize = 16;
/// Payloads kept in memory for the flusher; beyond it they are read back from their rows.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;
/// A row of another process is left to that process for so long.
const LEFT_TO_ITS_WRITER_MILLIS: i64 = 5_000;
/// Waits between tries while the storage fails.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

type Waiter = oneshot::Sender<Result<(), Arc<Error>>>;

/// Work of one collection.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    state: Mutex<Work>,
    changed: Notify,
}

#[derive(Default)]
struct Work {
    queue: VecDeque<(Row, Head)>,
    bytes: usize,
    /// Rows may lie in the store that are not in `queue`.
    leftovers: bool,
    running: bool,
    /// Nothing is left but rows of others, which are waited for.
    resting: bool,
    stopped: bool,
    waiters: HashMap<ObjectId, Vec<Waiter>>,
    last_error: Option<Arc<Error>>,
    /// The storage failed, and the flusher pauses before it tries again.
    failing: bool,
}

crate::debug_some!(Work { bytes, leftovers, running, resting, stopped, failing });

impl Work {
    /// Nothing of this process is left to store, and it may still get something.
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.stopped
    }
}

/// What one round did.
#[derive(Clone, Copy, Debug)]
enum Round {
    Flushed,
    Nothing,
    /// Only rows wait that are probably still their writers' business: look again after so long.
    Later(Duration),
}

impl Flusher {
    fn lock(&self) -> std::sync::MutexGuard<'_, Work> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next run looks for rows that others left.
    pub(crate) fn look_for_leftovers(&self) {
        self.lock().leftovers = true;
    }

    /// The round under way is the last one.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_waiters();
    }

    fn tell(&self, row: ObjectId, result: &Result<(), Arc<Error>>) {
        let waiters = self.lock().waiters.remove(&row).unwrap_or_default();
        for waiter in waiters {
            let _ = waiter.send(result.clone());
        }
    }
}

impl Engine {
    /// Hands a version to the flusher, if it has something to store.
    pub(crate) fn flush_later(self: &Arc<Self>, committed: &Committed) {
        if committed.row.unflushed_since.is_none() {
            return;
        }
        {
            let mut work = self.flusher.lock();
            let size = committed.row.inline.as_ref().map_or(0, bytes::Bytes::len);
            if work.bytes + size > MEMORY_BYTES {
                work.leftovers = true;
            } else {
                work.bytes += size;
                work.queue.push_back((committed.row.clone(), committed.head.clone()));
            }
            // It goes on by itself after its pause; otherwise every write would be another try.
            if work.failing {
                return;
            }
        }
        self.start_flusher();
    }

    /// Lets the flusher look for what a crashed process left.
    pub(crate) fn flush_leftovers(self: &Arc<Self>) {
        self.flusher.look_for_leftovers();
        self.start_flusher();
    }

    /// Returns when the version is stored.
    ///
    /// # Errors
    /// The storage's error, once a try failed: the version is committed all the same, and will be stored later.
    pub(crate) async fn stored(&self, row: &Row) -> Result<()> {
        if row.unflushed_since.is_none() {
            return Ok(());
        }
        let (waiter, answer) = oneshot::channel();
        self.flusher.lock().waiters.entry(row.row_id).or_default().push(waiter);
        // The flusher may have been there before the waiter was.
        if let Some(now) = self.row(row.id, row.ov).await?
            && now.unflushed_since.is_none()
        {
            return Ok(());
        }
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let message = format!("version {} is committed, but not stored yet: {}", row.ov, error.message());
                Err(Error::new(error.kind(), message).retryable().on_item(row.id).caused_by(error))
            }
            Err(_) => Err(Error::storage(format!("version {} is committed; its storing was given up at shutdown", row.ov)).retryable()),
        }
    }

    fn start_flusher(self: &Arc<Self>) {
        {
            let mut work = self.flusher.lock();
            if work.stopped {
                return;
            }
            if work.running {
                let resting = work.resting;
                drop(work);
                if resting {
                    self.flusher.changed.notify_waiters();
                }
                return;
            }
            work.running = true;
        }
        let engine = Arc::clone(self);
        // Owned by the collection: `drained` waits for it, `stop` ends it after its round.
        tokio::spawn(async move { engine.run_flusher().await });
    }

    async fn run_flusher(self: Arc<Self>) {
        let mut wait = FIRST_WAIT;
        loop {
            match self.flush_round().await {
                Ok(Round::Flushed) => wait = FIRST_WAIT,
                Ok(Round::Later(pause)) => {
                    self.flusher.lock().resting = true;
                    self.flusher.changed.notify_waiters();
                    let woken = self.flusher.changed.notified();
                    if self.flusher.lock().is_idle() {
                        futures::future::select(std::pin::pin!(woken), self.runtime.clock.sleep(pause)).await;
                    }
                    self.flusher.lock().resting = false;
                }
                Ok(Round::Nothing) => {
                    let mut work = self.flusher.lock();
                    if work.stopped || (work.queue.is_empty() && !work.leftovers) {
                        work.running = false;
                        work.last_error = None;
                        drop(work);
                        self.flusher.changed.notify_waiters();
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(collection = %self.names.collection, %error, "versions wait to be stored");
                    self.flusher.lock().last_error = Some(Arc::new(error));
                    self.flusher.changed.notify_waiters();
                    // Not before: it would hear our own words, and not wait at all.
                    let stop = self.flusher.changed.notified();
                    {
                        let mut work = self.flusher.lock();
                        if work.stopped {
                            work.running = false;
                            drop(work);
                            self.flusher.changed.notify_waiters();
                            return;
                        }
                        work.failing = true;
                    }
                    futures::future::select(std::pin::pin!(stop), self.runtime.clock.sleep(wait)).await;
                    self.flusher.lock().failing = false;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    async fn flush_round(self: &Arc<Self>) -> Result<Round> {
        let (round, look) = {
            let mut work = self.flusher.lock();
            if work.stopped {
                return Ok(Round::Nothing);
            }
            let take = work.queue.len().min(ROUND);
            let round: Vec<_> = work.queue.drain(..take).collect();
            let taken: usize = round.iter().map(|(row, _)| row.inline.as_ref().map_or(0, bytes::Bytes::len)).sum();
            work.bytes = work.bytes.saturating_sub(taken);
            let look = round.is_empty() && std::mem::take(&mut work.leftovers);
            (round, look)
        };
        if !round.is_empty() {
            let result = self.flush_versions(&round).await;
            if result.is_err() {
                let mut work = self.flusher.lock();
                for version in round.into_iter().rev() {
                    work.bytes += version.0.inline.as_ref().map_or(0, bytes::Bytes::len);
                    work.queue.push_front(version);
                }
            }
            return result.map(|()| Round::Flushed);
        }
        if !look {
            return Ok(Round::Nothing);
        }
        let looked = self.flush_left_rows().await;
        if !matches!(looked, Ok(Round::Nothing)) {
            self.flusher.look_for_leftovers();
        }
        looked
    }

    /// Flushes what waits in the store for so long that its writer must have died.
    async fn flush_left_rows(self: &Arc<Self>) -> Result<Round> {
        let now = self.documents.now().await?;
        if self.flush_rows_older_than(now.plus_millis(-LEFT_TO_ITS_WRITER_MILLIS)).await? > 0 {
            return Ok(Round::Flushed);
        }
        let scan = Scan {
            filter: Filter::exists("unflushedSince", true),
            order: vec![("unflushedSince".into(), Direction::Ascending), ("_id".into(), Direction::Ascending)],
            limit: Some(1),
            without: ["inline", "riders", "metaIndexed"].map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        let Some(oldest) = self.first_row(scan).await?.and_then(|row| row.unflushed_since) else { return Ok(Round::Nothing) };
        let left = oldest.as_millis() + LEFT_TO_ITS_WRITER_MILLIS - now.as_millis();
        Ok(Round::Later(Duration::from_millis(left.clamp(1, LEFT_TO_ITS_WRITER_MILLIS).unsigned_abs())))
    }

    /// Flushes some rows that wait since before `before`; returns how many.
    async fn flush_rows_older_than(self: &Arc<Self>, before: Timestamp) -> Result<usize> {
        let scan = Scan {
            filter: Filter::lte("unflushedSince", before),
            order: vec![("unflushedSince".into(), Direction::Ascending), ("_id".into(), Direction::Ascending)],
            limit: Some(ROUND as u64),
            ..Scan::default()
        };
        let rows: Vec<Row> = self.scan_rows(scan).try_collect().await?;
        let heads = self.heads(&rows.iter().map(|row| row.id).collect::<Vec<_>>()).await?;
        let round: Vec<(Row, Head)> = rows
            .into_iter()
            .map(|row| {
                let head =
                    heads.get(&row.id).filter(|head| head.cv >= row.cv).cloned().unwrap_or_else(|| row.head_after(heads.get(&row.id)));
                (row, head)
            })
            .collect();
        if !round.is_empty() {
            self.flush_versions(&round).await?;
        }
        Ok(round.len())
    }

    /// Stores every payload of the round, then says so in rows and heads. Versions whose put fails stay as they are.
    async fn flush_versions(self: &Arc<Self>, round: &[(Row, Head)]) -> Result<()> {
        let fail = &self.runtime.fail;
        fail.hit("flush.before_put")?;
        // Erasures come last: a payload of the same item that is put beside them would outlive them.
        let (erasures, versions): (Vec<usize>, Vec<usize>) = (0..round.len()).partition(|i| round[*i].0.op == Op::Erase);
        let mut results: Vec<(usize, Result<()>)> = Vec::with_capacity(round.len());
        if !erasures.is_empty() {
            // The numbers of rows that go must lie below the mark, or they would look like numbers that never got a row.
            self.settled_cv().await?;
        }
        for stage in [versions, erasures] {
            let puts = futures::stream::iter(stage).map(|i| async move { (i, self.put_objects(&round[i].0).await) });
            results.extend(puts.buffer_unordered(PUTS).collect::<Vec<_>>().await);
        }
        fail.hit("flush.after_put")?;
        let mut stored = Vec::with_capacity(round.len());
        let mut failed = None;
        for (i, result) in results {
            match result {
                Ok(()) => stored.push(i),
                Err(error) => {
                    let error = Arc::new(error);
                    self.flusher.tell(round[i].0.row_id, &Err(Arc::clone(&error)));
                    failed = Some(error);
                }
            }
        }
        self.record_stored(stored.iter().map(|i| &round[*i])).await?;
        fail.hit("flush.after_record")?;
        for i in stored {
            self.flusher.tell(round[i].0.row_id, &Ok(()));
        }
        match failed {
            None => Ok(()),
            Some(error) => {
                let copy = Error::new(error.kind(), error.message().to_owned());
                Err(if error.is_retryable() { copy.retryable() } else { copy }.caused_by(error))
            }
        }
    }

    async fn put_objects(self: &Arc<Self>, row: &Row) -> Result<()> {
        if row.op == Op::Erase {
            return self.remove_erased(row).await;
        }
        for rider in &row.riders {
            let options = PutOptions { content_type: Some(rider.content_type.clone()), ..PutOptions::default() };
            self.bucket(&rider.bucket)?.put(&rider.key, rider.bytes.clone(), options).await?;
        }
        if !row.riders.is_empty() {
            self.runtime.fail.hit("flush.after_blobs")?;
        }
        if let (Some(bytes), Some(bucket), Some(key)) = (&row.inline, &row.content.payload.bucket, &row.content.payload.key) {
            let options = PutOptions { content_type: Some(JSON_TYPE.to_owned()), ..PutOptions::default() };
            self.bucket(bucket)?.put(key, bytes.clone(), options).await?;
        }
        Ok(())
    }

    async fn record_stored<'a>(&self, stored: impl Iterator<Item = &'a (Row, Head)>) -> Result<()> {
        let mut batch = Batch::new();
        let mut newest: HashMap<ItemId, &Head> = HashMap::new();
        for (row, head) in stored {
            let since = row.unflushed_since;
            let mut done = Row { inline: None, riders: Vec::new(), unflushed_since: None, ..row.clone() };
            done.content.payload.state = State::New;
            let guard = Guard::Equals { field: "unflushedSince".into(), value: since.map_or(bson::Bson::Null, Into::into) };
            batch.push(&self.names.ver, Write::put(done.stored(), guard));
            if row.op != Op::Erase && head.cv == row.cv && newest.get(&head.id).is_none_or(|other| other.cv < head.cv) {
                newest.insert(head.id, head);
            } else if newest.get(&row.id).is_some_and(|other| other.cv < row.cv) {
                newest.remove(&row.id);
            }
        }
        for head in newest.into_values() {
            let mut head = head.clone();
            head.content.payload.state = State::New;
            let guard = Guard::Equals { field: "cv".into(), value: super::model::int(head.cv) };
            batch.push(&self.names.head, Write::put(head.stored(), guard));
        }
        if !batch.operations.is_empty() {
            self.documents.apply(batch).await?;
        }
        Ok(())
    }

    /// Waits until nothing is left to store, or `limit` has passed; returns how many versions still wait of those that `scope` sees, this process's
    /// and others'.
    pub(crate) async fn drain_flusher(self: &Arc<Self>, limit: Duration, own_only: bool, scope: &Scope) -> Result<u64> {
        self.flushed(limit, own_only).await?;
        self.unflushed(scope).await
    }

    /// Waits until nothing is left to store, but for at most `limit`; with `own_only` rows that others may be about to store are left to them.
    async fn flushed(self: &Arc<Self>, limit: Duration, own_only: bool) -> Result<()> {
        let deadline = self.runtime.clock.now().plus_millis(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        self.commits.drained().await;
        self.flush_leftovers();
        // A flusher that waits after a failure tries again now.
        self.flusher.changed.notify_waiters();
        loop {
            let changed = self.flusher.changed.notified();
            {
                let work = self.flusher.lock();
                if !work.running || (own_only && work.resting && work.queue.is_empty()) {
                    break;
                }
            }
            let left = deadline.as_millis() - self.runtime.clock.now().as_millis();
            let Ok(left) = u64::try_from(left) else { break };
            futures::future::select(std::pin::pin!(changed), self.runtime.clock.sleep(Duration::from_millis(left))).await;
            if self.runtime.clock.now() >= deadline {
                break;
            }
        }
        Ok(())
    }

    /// How many versions wait to be stored.
    async fn unflushed(&self, scope: &Scope) -> Result<u64> {
        let scan = Scan {
            filter: scope.narrow(Filter::exists("unflushedSince", true)),
            without: ["inline", "riders", "metaIndexed"].map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        self.documents.scan(&self.names.ver, scan).try_fold(0, |n, _| async move { Ok(n + 1) }).await
    }

    /// The round under way is the last one.
    pub(crate) fn stop(&self) {
        self.flusher.stop();
    }

    /// The end: commits come to rest, then what can be stored within `limit` is.
    pub(crate) async fn finish(self: &Arc<Self>, limit: Duration) -> Result<()> {
        self.commits.drained().await;
        let written = self.flusher.lock().running;
        let result = if written { self.flushed(limit, true).await } else { Ok(()) };
        self.stop();
        loop {
            let changed = self.flusher.changed.notified();
            if !self.flusher.lock().running {
                return result;
            }
            changed.await;
        }
    }
}
