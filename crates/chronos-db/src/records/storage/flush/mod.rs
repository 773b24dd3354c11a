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
mod storer;
mod take;
mod version;
mod worker;

use crate::records::index::{RecordIndex, without_content};
use crate::records::storage::eraser::Eraser;
use crate::records::storage::payload_store::PayloadStore;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use futures::TryStreamExt as _;
use tokio::sync::oneshot;

pub use self::report::{FailingVersion, FlushReport};
use self::storer::Storer;
use self::take::LEFT_TO_ITS_WRITER_MILLIS;
use self::version::Version;
use crate::clock::{sleep_until_steady, steady_now};
use crate::documents::{Filter, Scan};
use crate::records::index::scope::Scope;
use crate::records::model::{Head, ItemId, Op, Row};
use crate::{Error, Result, Timestamp};

/// How often a waiter for a version looks at its row, as another process may have stored it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Failing versions that a report names.
const MAX_NAMED: usize = 100;

/// Rows that wait to be stored. Not by `$exists`, which null would pass, too: the embedded store's index
/// leaves it out.
pub(crate) fn waiting() -> Filter {
    Filter::gt("unflushedSince", bson::DateTime::MIN)
}

/// Stores the payloads of one collection.
pub(crate) struct Flusher {
    storer: Arc<Storer>,
}

impl Flusher {
    /// Whether nothing of it is under way.
    pub(crate) fn is_idle(&self) -> bool {
        !self.storer.queue.lock().running
    }

    /// Hands a version to the flusher, if it has something to store.
    pub(crate) fn flush_later(self: &Arc<Self>, row: &Row, head: &Head) {
        if row.unflushed_since.is_none() {
            return;
        }
        let now = steady_now(&*self.storer.index.env.clock);
        self.storer.queue.lock().push(Version::new(row.clone(), head.clone(), true), now);
        self.start_flusher();
    }

    /// Lets the flusher look for what a crashed process left.
    pub(crate) fn resume_unflushed(self: &Arc<Self>) {
        self.storer.queue.lock().look();
        self.start_flusher();
    }

    /// Whether rows of an item have left the index, if one is missing: else it was erased.
    async fn has_left(&self, id: ItemId) -> Result<bool> {
        Ok(self.storer.index.newest_row(id).await?.is_some_and(|row| row.op != Op::Erase))
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
            match self.storer.index.row(row.id, row.ov).await? {
                Some(now) if now.op == row.op && now.unflushed_since.is_some() => {}
                Some(now) if now.op == row.op => return Ok(()),
                // Only what is stored leaves the index.
                None if self.has_left(row.id).await? => return Ok(()),
                _ => {
                    let message =
                        format!("version {} was committed, and erased before it was stored", row.ov);
                    return Err(Error::not_found(message).on_item(row.id).at_version(row.ov));
                }
            }
            let (stopped, outage) = {
                let work = self.storer.queue.lock();
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
                    let again = self.storer.index.env.clock.sleep(LOOK_AGAIN);
                    tokio::select! {
                        biased;
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
                    return Err(error.saying(message).retryable().on_item(row.id));
                }
                None => {}
            }
        }
    }

    fn start_flusher(self: &Arc<Self>) {
        let mut work = self.storer.queue.lock();
        if work.stopped {
            return;
        }
        if work.running {
            drop(work);
            self.storer.queue.kick.notify_one();
            return;
        }
        work.running = true;
        // Owned by the collection: `stop` ends it after what it has begun, `finish` also at once.
        work.task = Some(worker::start(&self.storer));
    }

    pub(crate) fn new(index: Arc<RecordIndex>, payloads: Arc<PayloadStore>, eraser: Arc<Eraser>) -> Self {
        Self { storer: Arc::new(Storer::new(index, payloads, eraser)) }
    }

    /// Waits until nothing is left to store, or for `deadline`; with `own_only` what others wrote is left to
    /// them. Says what still waits.
    pub(crate) async fn flush(
        self: &Arc<Self>,
        deadline: Timestamp,
        own_only: bool,
        scope: &Scope,
    ) -> Result<FlushReport> {
        if own_only {
            if self.storer.queue.lock().own() > 0 {
                self.start_flusher();
            }
        } else {
            self.resume_unflushed();
        }
        // A flusher that waits after a failure tries again now.
        self.storer.queue.lock().hurry(steady_now(&*self.storer.index.env.clock));
        self.storer.queue.kick.notify_one();
        self.flushed(deadline, own_only).await;
        self.flush_report(scope).await
    }

    async fn flushed(&self, deadline: Timestamp, own_only: bool) {
        loop {
            let mut changed = std::pin::pin!(self.storer.queue.changed.notified());
            // From here on, not from its first poll on.
            changed.as_mut().enable();
            {
                let work = self.storer.queue.lock();
                if !work.running || (own_only && work.own() == 0) {
                    return;
                }
            }
            if !self.until(deadline, changed).await {
                return;
            }
        }
    }

    pub(crate) fn deadline(&self, limit: Duration) -> Timestamp {
        steady_now(&*self.storer.index.env.clock).plus(limit)
    }

    /// Whether `done` came before the deadline.
    pub(crate) async fn until(&self, deadline: Timestamp, done: impl Future<Output = ()>) -> bool {
        tokio::select! {
            biased;
            () = done => true,
            () = sleep_until_steady(&*self.storer.index.env.clock, deadline) => false,
        }
    }

    /// What waits to be stored, as far as `scope` sees it.
    async fn flush_report(&self, scope: &Scope) -> Result<FlushReport> {
        let (own, failing) = {
            let work = self.storer.queue.lock();
            (work.own(), work.failing(&self.storer.index.names.collection))
        };
        // Where a database is a tenant's own, all rows are counted, which an index does alone.
        let seen = |filter| if scope.is_one_of_several() { scope.narrow(filter) } else { filter };
        let count = async |filter| {
            self.storer.index.documents.count(&self.storer.index.names.ver, seen(filter), u64::MAX).await
        };
        let waiting = count(waiting()).await?;
        let left = if waiting > own {
            let old = self.storer.index.documents.now().await?.plus_millis(-LEFT_TO_ITS_WRITER_MILLIS);
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
            without: without_content(),
            ..Scan::default()
        };
        let seen: HashSet<ObjectId> =
            self.storer.index.scan_rows(scan).map_ok(|row| row.row_id).try_collect().await?;
        Ok(failing.into_iter().filter(|(row, _)| seen.contains(row)).map(|(_, version)| version).collect())
    }

    /// What is begun is the last.
    pub(crate) fn stop(&self) {
        self.storer.queue.stop();
    }

    /// The end, until `deadline`: what can be stored is. Returns how many versions of this process are left
    /// to the next one.
    pub(crate) async fn finish(self: &Arc<Self>, deadline: Timestamp) -> u64 {
        if self.storer.queue.lock().own() > 0 {
            self.start_flusher();
        }
        self.storer.queue.lock().hurry(steady_now(&*self.storer.index.env.clock));
        self.storer.queue.kick.notify_one();
        self.flushed(deadline, true).await;
        let left = self.storer.queue.lock().own();
        self.stop();
        self.flushed(deadline, false).await;
        let task = self.storer.queue.lock().task.take();
        if let Some(task) = task {
            task.abort();
            // It was ended, or has ended by itself, or has panicked and said so: in any case it is gone then.
            let _ = task.await;
        }
        left
    }
}

/// A place among those that wait for a version, given back when it is dropped.
struct Waiting<'f> {
    flusher: &'f Flusher,
    row: ObjectId,
    number: u64,
    answer: oneshot::Receiver<Result<(), Error>>,
}

impl<'f> Waiting<'f> {
    fn new(flusher: &'f Flusher, row: ObjectId) -> Self {
        let (waiter, answer) = oneshot::channel();
        let number = flusher.storer.queue.lock().wait_for(row, waiter);
        // Others may be gathered: this one is waited for.
        flusher.storer.queue.kick.notify_one();
        Self { flusher, row, number, answer }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.flusher.storer.queue.lock().no_longer_wait(self.row, self.number);
    }
}
