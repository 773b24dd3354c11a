//! Attempts from the queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;

use super::entry::Entry;
use super::queue::Queue;
use crate::chronos::Chronos;
use crate::documents::within;
use crate::records::{Collection, Identity, Landed, WriteOptions, may_pass};
use crate::{Error, ErrorKind, Result};

/// Lanes at once: enough to fill commit groups.
const PARALLEL: usize = 32;
/// Rounds of one attempt in which other writers of the item may be faster.
const ROUNDS: u32 = 100;
/// How long a store is asked whether it is there.
const ASKING: Duration = Duration::from_secs(5);

/// What became of operations.
#[derive(Debug, Default)]
pub(super) struct Counts {
    done: AtomicU64,
    postponed: AtomicU64,
    dead: AtomicU64,
}

impl Counts {
    pub(super) fn read(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.done), read(&self.postponed), read(&self.dead))
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// What an attempt came to.
enum AttemptOutcome {
    Done,
    /// Another process has it now.
    Lost,
}

/// Carries out what waits in one queue.
pub(super) struct Replayer {
    chronos: Chronos,
    queue: Arc<Queue>,
    /// Whether the stores of connections answer, as far as this round has asked.
    there: Mutex<HashMap<String, bool>>,
}

impl Replayer {
    pub(super) fn new(chronos: Chronos, queue: Arc<Queue>) -> Self {
        Self { chronos, queue, there: Mutex::default() }
    }

    /// Carries out what is due, until nothing is.
    pub(super) async fn run(&self, counts: &Counts) -> Result<()> {
        let now = self.queue.now().await?;
        let mut before: Option<String> = None;
        let due = self.queue.lane_entries().try_filter_map(move |place| {
            // What stands first in its lane is next; the others wait for it.
            let first = before.as_ref() != Some(&place.lane);
            let lane = (first && place.is_free(now)).then(|| place.lane.clone());
            before = Some(place.lane);
            async move { Ok(lane) }
        });
        let drained = due.map(|lane| async move {
            let lane = lane?;
            if let Err(error) = self.drain(&lane, counts).await {
                tracing::warn!(%lane, %error, "operations of one item wait for another round");
            }
            Ok::<_, Error>(())
        });
        drained.buffer_unordered(PARALLEL).try_collect::<()>().await
    }

    /// Carries out what waits for one item, in its order.
    async fn drain(&self, lane: &str, counts: &Counts) -> Result<()> {
        let fail = &self.chronos.env().fail;
        while let Some(stored) = self.queue.first(lane).await? {
            let mut entry = match Entry::read(&stored) {
                Ok(entry) => entry,
                Err(error) => {
                    tracing::warn!(%lane, %error, "a queued write that cannot be read is given up");
                    if !self.queue.dead_letter_unread(stored, &error).await? {
                        break;
                    }
                    add(&counts.dead);
                    continue;
                }
            };
            let now = self.queue.now().await?;
            let free =
                entry.lane_entry().is_free(now) && self.leads_there(&entry) && self.is_there(&entry).await;
            if !free || !self.queue.claim(&mut entry, now).await? {
                break;
            }
            fail.hit("fallback.after_claim")?;
            match self.attempt(&mut entry).await {
                Ok(AttemptOutcome::Lost) => break,
                Ok(AttemptOutcome::Done) => {
                    fail.hit("fallback.before_done")?;
                    self.queue.done(&entry).await?;
                    add(&counts.done);
                }
                Err(error) if may_pass(&error) => {
                    if self.queue.postpone(&mut entry, &error).await? {
                        add(&counts.postponed);
                        break;
                    }
                    tell_dead(&entry, &error);
                    add(&counts.dead);
                }
                Err(error) => {
                    self.queue.dead_letter(&mut entry, &error).await?;
                    tell_dead(&entry, &error);
                    add(&counts.dead);
                }
            }
        }
        Ok(())
    }

    /// Whether the route of an operation leads, in this configuration, to where it led when the operation was
    /// queued. Else another configuration shares the queue, or this one has changed: only a process whose route
    /// leads there may carry it out, or tell that it cannot be.
    fn leads_there(&self, entry: &Entry) -> bool {
        let resolved = self.chronos.route(&entry.route).ok();
        let leads = resolved.as_ref().zip(self.chronos.queues()).is_some_and(|(resolved, queues)| {
            let same_store = match &entry.target {
                Some(target) => queues.target(resolved).as_ref() == Some(target),
                None => queues.of(resolved).is_ok_and(|queue| Arc::ptr_eq(&queue, &self.queue)),
            };
            same_store && resolved.database == entry.database
        });
        let place = format!("{:?} {} {:?}", entry.target, entry.database, entry.route.tenant);
        if !leads && self.queue.is_first_left(place) {
            let (database, tenant) = (&entry.database, &entry.route.tenant);
            tracing::warn!(
                item = %entry.item, request_id = entry.request_id(), database, tenant,
                "a queued write waits for a process whose configuration leads to where it was meant to be"
            );
        }
        leads
    }

    /// Whether the store of an operation answers. One that does not is not a failed attempt of the operation.
    async fn is_there(&self, entry: &Entry) -> bool {
        let Ok(resolved) = self.chronos.route(&entry.route) else { return true };
        let connection = &resolved.entry.connection;
        if let Some(known) = self.there.lock().get(connection) {
            return *known;
        }
        let Ok(documents) = self.chronos.documents(connection) else { return true };
        let there = match within(ASKING, documents.now()).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%connection, %error, "a document store is away; what waits for it waits on");
                false
            }
        };
        self.there.lock().insert(connection.clone(), there);
        there
    }

    async fn attempt(&self, entry: &mut Entry) -> Result<AttemptOutcome> {
        let collection = self.chronos.with(entry.route.clone())?;
        let mut options = entry.options.clone();
        options.identity = Some(Arc::new(Identity::new(entry.id)));
        if entry.request.is_creation() {
            create(&collection, entry, &options).await
        } else {
            self.change(&collection, entry, options).await
        }
    }

    /// Changes an item that is there. The commit follows exactly the newest version that was looked at, so
    /// that neither an earlier attempt that arrives late nor another process can make it a second time.
    async fn change(
        &self,
        collection: &Collection,
        entry: &mut Entry,
        mut options: WriteOptions,
    ) -> Result<AttemptOutcome> {
        let index = &collection.workers.index;
        for _ in 0..ROUNDS {
            let scope = collection.scope().await?;
            let head = index.head_or_row(entry.item).await?;
            let Some(head) = head.filter(|head| scope.sees(head.meta.tenant.as_deref())) else {
                return collection
                    .carry_out(entry.item, &entry.request, &options)
                    .await
                    .map(|_| AttemptOutcome::Done);
            };
            let follows = match entry.follows {
                Some(follows) => follows,
                None => {
                    if !self.queue.note_follows(entry, head.ov).await? {
                        return Ok(AttemptOutcome::Lost);
                    }
                    head.ov
                }
            };
            let versions = &collection.workers.versions;
            match versions.landed(entry.item, entry.id, follows, head.ov, scope).await? {
                _ if self.chronos.env().fail.skips("guard.landed") => {}
                Landed::Yes => return Ok(AttemptOutcome::Done),
                Landed::Unknown => return Err(unknowable(entry, follows)),
                Landed::No => {}
            }
            let expected = entry.options.expected_ov;
            options.expected_ov = Some(expected.unwrap_or(head.ov));
            self.chronos.env().fail.hit("fallback.before_write")?;
            match collection.carry_out(entry.item, &entry.request, &options).await {
                Ok(_) => return Ok(AttemptOutcome::Done),
                // Another writer was faster, or an earlier attempt has arrived.
                Err(error)
                    if error.kind() == ErrorKind::OptimisticLock && options.expected_ov == Some(head.ov) => {}
                Err(error) => return Err(error),
            }
        }
        let message = format!("{ROUNDS} attempts met other writers each time");
        Err(Error::new(ErrorKind::OptimisticLock, message).on_item(entry.item).retryable())
    }
}

/// Creates an item. Its id was fixed when the caller asked for it, and version 0 of an item is there once.
async fn create(collection: &Collection, entry: &Entry, options: &WriteOptions) -> Result<AttemptOutcome> {
    let index = &collection.workers.index;
    let is_done = || async {
        Ok::<_, Error>(match index.row(entry.item, 0).await? {
            Some(row) => row.operation == Some(entry.id),
            // Rows leave the index, and are trimmed where no versions are kept; then row 0 could be inserted
            // once more, over what others wrote since. The id was given out for this operation alone: any version of the item
            // means that it took place.
            None => index.head_or_row(entry.item).await?.is_some(),
        })
    };
    // An attempt may be there that left no trace in the entry, as with an enqueueing that was repeated; and a
    // payload that is stored before its commit need not be stored anew.
    if is_done().await? {
        return Ok(AttemptOutcome::Done);
    }
    match collection.carry_out(entry.item, &entry.request, options).await {
        Ok(_) => Ok(AttemptOutcome::Done),
        Err(error) if error.kind() == ErrorKind::OptimisticLock && is_done().await? => {
            Ok(AttemptOutcome::Done)
        }
        Err(error) => Err(error),
    }
}

fn unknowable(entry: &Entry, follows: i64) -> Error {
    Error::database(format!(
        "an attempt whose answer was lost may have taken place after version {follows}, and versions after \
         it are gone from the index: whether it did is not known"
    ))
    .on_item(entry.item)
}

fn tell_dead(entry: &Entry, error: &Error) {
    tracing::warn!(item = %entry.item, request_id = entry.request_id(), %error, "a queued write is given up");
}
