//! One queue: the operations that wait in one store, and those that were given up.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::breaker::Breaker;
use super::entry::{Entry, LaneEntry, Target, date, lane_of};
use crate::config::{COUNTER, Fallback, OPERATIONS};
use crate::documents::{Batch, Direction, DocumentStore, Filter, Guard, Index, Namespace, Scan, Write};
use crate::records::{ItemId, Request, Scope, WriteOptions};
use crate::{Env, Error, ErrorKind, Result, Route, Timestamp};

/// How long a process has an operation for itself. What it still does after that cannot do harm: every
/// attempt looks first whether the operation took place, and follows exactly the version it looked at.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// Operations of an erased item that are removed together.
const FORGOTTEN_AT_ONCE: usize = 256;
/// The sequence of the order of what waits.
const SEQUENCE: &str = "fallback";

/// Queues that are asked at once: one whose store is away holds up no more than its own place.
pub(super) const AT_ONCE: usize = 8;

/// The operations that wait in one store.
pub(crate) struct Queue {
    /// Where it is, for people.
    pub(super) place: String,
    documents: Arc<dyn DocumentStore>,
    pub(super) operations: Namespace,
    pub(super) dead: Namespace,
    counter: Namespace,
    options: Fallback,
    env: Env,
    ready: OnceCell<()>,
    /// What this process leaves to others, so that each is logged once.
    left: Mutex<HashSet<String>>,
}

crate::debug_some!(Queue { operations, dead });

/// Where the operations of a handle wait, and what leads back to it.
#[derive(Clone, Debug)]
pub(crate) struct FallbackRoute {
    pub(crate) queue: Arc<Queue>,
    pub(crate) route: Arc<Route>,
    pub(crate) target: Option<Target>,
    /// Whether the store of the route is away; none without a spool, when the queue is in that store.
    pub(crate) breaker: Option<Arc<Breaker>>,
}

/// An item whose creation waits, as one handle sees it.
pub(crate) struct QueuedItem {
    /// In a spool, the digest of the address of the store.
    pub(crate) store: Option<String>,
    pub(crate) database: String,
    pub(crate) collection: String,
    pub(crate) item: ItemId,
    /// Whose operations it sees.
    pub(crate) scope: Scope,
}

impl QueuedItem {
    fn filter(&self) -> Filter {
        let mut filter =
            of_item(&self.database, self.item).and(Filter::eq("ctx.collection", self.collection.as_str()));
        if let Some(store) = &self.store {
            filter = filter.and(Filter::eq("store", store.as_str()));
        }
        self.scope.narrow_by("ctx.tenantId", filter)
    }
}

/// An operation that is to wait.
pub(crate) struct Waiting<'a> {
    pub(crate) identity: ObjectId,
    pub(crate) route: &'a Route,
    pub(crate) target: Option<&'a Target>,
    pub(crate) database: &'a str,
    pub(crate) collection: &'a str,
    pub(crate) item: ItemId,
    pub(crate) request: &'a Request,
    pub(crate) options: &'a WriteOptions,
    pub(crate) follows: Option<i64>,
    /// Why the first attempt failed; none if it was not made, because others of the item wait.
    pub(crate) failed: Option<&'a Error>,
}

impl Queue {
    pub(super) fn new(
        place: String,
        documents: Arc<dyn DocumentStore>,
        database: &str,
        options: Fallback,
        env: Env,
    ) -> Self {
        Self {
            place,
            documents,
            operations: Namespace::new(database, OPERATIONS),
            dead: Namespace::new(database, options.dead_letter_collection.as_str()),
            counter: Namespace::new(database, COUNTER),
            options,
            env,
            ready: OnceCell::new(),
            left: Mutex::default(),
        }
    }

    pub(super) async fn now(&self) -> Result<Timestamp> {
        self.documents.now().await
    }

    /// Whether this is the first operation for a place that this process has to leave to others.
    pub(super) fn is_first_left(&self, place: String) -> bool {
        self.left.lock().insert(place)
    }

    async fn prepare(&self) -> Result<()> {
        let prepare = || async {
            let lanes = Index::on("fallback_lane", &["lane", "seq"]);
            let created = Index::on("fallback_created", &["createdAt", "_id"]);
            let types = Index::on("fallback_type", &["type"]);
            self.documents.ensure(&self.operations, &[lanes, created, types]).await?;
            let failed = Index::on("fallback_failed", &["failedAt", "_id"]);
            self.documents.ensure(&self.dead, &[failed]).await
        };
        self.ready.get_or_try_init(prepare).await.map(drop)
    }

    /// Whether anything of the lane waits.
    pub(crate) async fn is_waiting(&self, lane: &str) -> Result<bool> {
        Ok(self.documents.count(&self.operations, Filter::eq("lane", lane), 1).await? > 0)
    }

    /// Puts an operation at the end of the lane of its item.
    pub(crate) async fn enqueue(&self, waiting: Waiting<'_>) -> Result<Entry> {
        self.prepare().await?;
        let numbered = self.documents.sequence(&self.counter, SEQUENCE, 1).await?;
        let wait = if waiting.failed.is_some() { self.wait_after(0) } else { Duration::ZERO };
        let entry = Entry {
            id: waiting.identity,
            seq: numbered.first,
            revision: 0,
            lane: lane_of(waiting.target, waiting.database, waiting.collection, waiting.item),
            route: waiting.route.clone(),
            database: waiting.database.to_owned(),
            target: waiting.target.cloned(),
            item: waiting.item,
            request: waiting.request.clone(),
            options: waiting.options.clone(),
            follows: waiting.follows,
            attempt: 0,
            due: numbered.now.plus(wait),
            claimed_until: None,
            last_error: waiting.failed.map(code_and_message),
            created: numbered.now,
        };
        self.insert(&entry).await?;
        Ok(entry)
    }

    /// Inserts an entry that may be there already, from an attempt whose answer was lost.
    async fn insert(&self, entry: &Entry) -> Result<()> {
        self.env.fail.hit("fallback.before_insert")?;
        let mut batch = Batch::new();
        batch.push(&self.operations, Write::insert(entry.stored()));
        self.documents.apply(batch).await?;
        self.env.fail.hit("fallback.after_insert")
    }

    /// Every entry without its payload, lane by lane, each in its order.
    pub(crate) fn lane_entries(&self) -> BoxStream<'static, Result<LaneEntry>> {
        let by = |path: &str| (path.to_owned(), Direction::Ascending);
        let scan = Scan { order: vec![by("lane"), by("seq")], without: large(), ..Scan::default() };
        let places = self.documents.scan(&self.operations, scan).try_filter_map(|stored| async move {
            let place = LaneEntry::read(&stored);
            // One without a lane holds up no other.
            Ok(place.inspect_err(|error| tracing::warn!(%error, "a queued operation is skipped")).ok())
        });
        places.boxed()
    }

    /// What is next in a lane, as it is stored.
    pub(crate) async fn first(&self, lane: &str) -> Result<Option<Document>> {
        let scan = Scan {
            filter: Filter::eq("lane", lane),
            order: vec![("seq".to_owned(), Direction::Ascending)],
            limit: Some(1),
            ..Scan::default()
        };
        self.documents.scan(&self.operations, scan).try_next().await
    }

    /// Takes an entry for this process, for the time of a lease; whether it got it.
    pub(crate) async fn claim(&self, entry: &mut Entry, now: Timestamp) -> Result<bool> {
        entry.claimed_until = Some(now.plus(LEASE));
        self.put(entry).await
    }

    /// Remembers behind which version the operation will be found, before it is attempted.
    pub(crate) async fn note_follows(&self, entry: &mut Entry, ov: i64) -> Result<bool> {
        entry.follows = Some(ov);
        self.put(entry).await
    }

    /// Replaces the entry, unless another process changed it since it was read.
    async fn put(&self, entry: &mut Entry) -> Result<bool> {
        let guard = self.unchanged(entry);
        entry.revision += 1;
        let mut batch = Batch::new();
        batch.push(&self.operations, Write::put(entry.stored(), guard));
        Ok(self.documents.apply(batch).await?.iter().all(crate::documents::Outcome::is_applied))
    }

    fn unchanged(&self, entry: &Entry) -> Guard {
        Guard::Equals { field: "revision".to_owned(), value: Bson::Int64(entry.revision) }
    }

    /// Moves what cannot be read to the dead letters as it is, with the error; whether it did. It would hold up
    /// its item for ever.
    pub(crate) async fn dead_letter_unread(&self, stored: Document, error: &Error) -> Result<bool> {
        let now = self.now().await?;
        if is_claimed(&stored, now) {
            return Ok(false);
        }
        let Some(id) = stored.get("_id").cloned() else { return Ok(false) };
        let guard = as_stored(&stored);
        let mut letter = stored;
        letter.remove("claimedUntil");
        letter.insert("failedAt", now);
        let (code, message) = code_and_message(error);
        letter.insert("lastError", doc! { "code": code, "message": message });
        self.move_to_dead(id, letter, guard).await
    }

    /// Moves an operation to the dead letters, if it is still there; whether it was. Else another process has carried it
    /// out, or its item is erased, whose erasure may have looked at the dead letters already.
    async fn move_to_dead(&self, id: Bson, letter: Document, guard: Guard) -> Result<bool> {
        let mut batch = Batch::new();
        let kept = batch.push(&self.dead, Write::put(letter, Guard::Any));
        batch.push_after(kept, &self.operations, Write::Delete { id: id.clone(), guard });
        if self.documents.apply(batch).await?.iter().all(crate::documents::Outcome::is_applied) {
            return Ok(true);
        }
        let mut batch = Batch::new();
        batch.push(&self.dead, Write::Delete { id, guard: Guard::Any });
        self.documents.apply(batch).await?;
        self.purge().await?;
        Ok(false)
    }

    /// Removes what took place, also from the dead letters, where a process that died may have left it.
    pub(crate) async fn done(&self, entry: &Entry) -> Result<()> {
        let mut batch = Batch::new();
        let gone = Write::Delete { id: entry.id.into(), guard: self.unchanged(entry) };
        let first = batch.push(&self.operations, gone);
        let dead = Write::Delete { id: entry.id.into(), guard: Guard::Any };
        batch.push_after(first, &self.dead, dead);
        self.documents.apply(batch).await.map(drop)
    }

    /// After a failure that passes: the entry waits for its next attempt; whether it has one left.
    pub(crate) async fn postpone(&self, entry: &mut Entry, error: &Error) -> Result<bool> {
        entry.attempt += 1;
        if entry.attempt >= self.options.max_attempts {
            self.dead_letter(entry, error).await?;
            return Ok(false);
        }
        entry.due = self.now().await?.plus(self.wait_after(entry.attempt));
        entry.last_error = Some(code_and_message(error));
        entry.claimed_until = None;
        self.put(entry).await?;
        Ok(true)
    }

    /// Moves what cannot take place to the dead letters.
    pub(crate) async fn dead_letter(&self, entry: &mut Entry, error: &Error) -> Result<()> {
        let now = self.now().await?;
        entry.last_error = Some(code_and_message(error));
        entry.claimed_until = Some(now.plus(LEASE));
        // Only who has it may give it up: another process may have carried it out meanwhile.
        if !self.put(entry).await? {
            return Ok(());
        }
        let mut letter = entry.stored();
        letter.remove("claimedUntil");
        letter.insert("failedAt", now);
        self.move_to_dead(entry.id.into(), letter, self.unchanged(entry)).await.map(drop)
    }

    /// Makes an operation due at once: one that waits, or a dead letter. None if there is no such.
    ///
    /// # Errors
    /// `LOCKED` if another caller is working on a dead letter.
    pub(crate) async fn revive(&self, id: ObjectId) -> Result<Option<Document>> {
        let waiting = self.documents.get(&self.operations, vec![id.into()]).await?.pop();
        let now = self.now().await?;
        if let Some(stored) = waiting {
            let mut entry = Entry::read(&stored)?;
            if entry.due > now {
                entry.due = now;
                // Where another process was faster, it is being tried.
                self.put(&mut entry).await?;
            }
            return Ok(Some(entry.stored()));
        }
        let Some(letter) = self.documents.get(&self.dead, vec![id.into()]).await?.pop() else {
            return Ok(None);
        };
        self.prepare().await?;
        let mut entry = Entry::read(&letter)?;
        if is_claimed(&letter, now) || !self.claim_letter(&letter, entry.revision, now).await? {
            return Err(at_work("retry"));
        }
        entry.seq = self.documents.sequence(&self.counter, SEQUENCE, 1).await?.first;
        (entry.revision, entry.attempt, entry.due, entry.claimed_until) = (0, 0, now, None);
        self.insert(&entry).await?;
        let mut batch = Batch::new();
        batch.push(&self.dead, Write::Delete { id: id.into(), guard: Guard::Any });
        self.documents.apply(batch).await?;
        Ok(Some(entry.stored()))
    }

    /// Takes a dead letter for this caller, unless another changed or removed it since it was read. Of two callers
    /// the slower one would else queue anew what has been carried out meanwhile for the faster one.
    async fn claim_letter(&self, letter: &Document, revision: i64, now: Timestamp) -> Result<bool> {
        let mut claimed = letter.clone();
        claimed.insert("revision", revision + 1);
        claimed.insert("claimedUntil", now.plus(LEASE));
        let mut batch = Batch::new();
        batch.push(&self.dead, Write::put(claimed, as_stored(letter)));
        Ok(self.documents.apply(batch).await?.iter().all(crate::documents::Outcome::is_applied))
    }

    /// Removes an operation that waits, or a dead letter. None if there is no such.
    ///
    /// # Errors
    /// `LOCKED` if it is being carried out.
    pub(crate) async fn cancel(&self, id: ObjectId) -> Result<Option<Document>> {
        let namespaces = [&self.operations, &self.dead];
        for namespace in namespaces {
            let Some(stored) = self.documents.get(namespace, vec![id.into()]).await?.pop() else { continue };
            // No more is read than that: what is malformed otherwise can be cancelled as well.
            if is_claimed(&stored, self.now().await?) {
                return Err(at_work("cancel"));
            }
            let mut batch = Batch::new();
            batch.push(namespace, Write::Delete { id: id.into(), guard: as_stored(&stored) });
            if self.documents.apply(batch).await?.iter().all(crate::documents::Outcome::is_applied) {
                return Ok(Some(stored));
            }
            return Err(at_work("cancel"));
        }
        Ok(None)
    }

    /// Counts what waits, by type, and what was given up.
    pub(crate) async fn count(&self, namespace: &Namespace, filter: Filter) -> Result<u64> {
        self.documents.count(namespace, filter, u64::MAX).await
    }

    pub(super) fn is_in(&self, database: &str) -> bool {
        &*self.operations.database == database
    }

    /// Counts what waits for an item and what was given up of it.
    pub(crate) async fn count_of(&self, database: &str, item: ItemId) -> Result<u64> {
        let waiting = self.count(&self.operations, of_item(database, item)).await?;
        Ok(waiting + self.count(&self.dead, of_item(database, item)).await?)
    }

    /// Removes what waits for an item and what was given up of it, also what another process is carrying out, to the last byte.
    pub(crate) async fn forget(&self, database: &str, item: ItemId) -> Result<()> {
        // What waits may become a dead letter meanwhile, but not the other way around: its item is gone.
        for namespace in [&self.operations, &self.dead] {
            let scan = Scan { filter: of_item(database, item), without: large(), ..Scan::default() };
            let mut found = self.documents.scan(namespace, scan).try_chunks(FORGOTTEN_AT_ONCE);
            while let Some(chunk) = found.try_next().await.map_err(|error| error.1)? {
                let mut batch = Batch::new();
                for id in chunk.iter().filter_map(|stored| stored.get("_id").cloned()) {
                    batch.push(namespace, Write::Delete { id, guard: Guard::Any });
                }
                self.documents.apply(batch).await?;
            }
        }
        self.purge().await
    }

    /// Counts what waits for an item and what was given up of it, as far as `item` says.
    pub(crate) async fn count_queued(&self, item: &QueuedItem) -> Result<u64> {
        let waiting = self.count(&self.operations, item.filter()).await?;
        Ok(waiting + self.count(&self.dead, item.filter()).await?)
    }

    /// Removes the same to the last byte.
    ///
    /// # Errors
    /// `LOCKED` if a process is carrying it out: it may just be creating the item.
    pub(crate) async fn discard(&self, item: &QueuedItem) -> Result<()> {
        for namespace in [&self.operations, &self.dead] {
            let scan = Scan { filter: item.filter(), without: large(), ..Scan::default() };
            let mut found = self.documents.scan(namespace, scan);
            while let Some(stored) = found.try_next().await? {
                let Some(id) = stored.get("_id").cloned() else { continue };
                if is_claimed(&stored, self.now().await?) {
                    return Err(at_work("erase").retryable());
                }
                let mut batch = Batch::new();
                batch.push(namespace, Write::Delete { id, guard: as_stored(&stored) });
                if !self.documents.apply(batch).await?.iter().all(crate::documents::Outcome::is_applied) {
                    return Err(at_work("erase").retryable());
                }
            }
        }
        self.purge().await
    }

    /// Sees to it that nothing of what was removed is left in the files of the store, also of what was carried out.
    async fn purge(&self) -> Result<()> {
        // Nothing was ever queued: there may be no store.
        if self.documents.get(&self.counter, vec![SEQUENCE.into()]).await?.is_empty() {
            return Ok(());
        }
        self.documents.scrub(&self.operations.database).await
    }

    /// The entries, or the dead letters, in the order of their times, without their payloads.
    pub(crate) fn list(
        &self,
        namespace: &Namespace,
        time: &str,
        filter: Filter,
    ) -> BoxStream<'static, Result<Document>> {
        let by = |path: &str| (path.to_owned(), Direction::Ascending);
        let scan = Scan { filter, order: vec![by(time), by("_id")], without: large(), ..Scan::default() };
        self.documents.scan(namespace, scan)
    }

    /// The wait after `attempt` failures: it doubles, and chance makes up to half of it.
    fn wait_after(&self, attempt: u32) -> Duration {
        let (base, longest) = (self.options.base_delay / 2, self.options.max_delay / 2);
        let waits = ExponentialBuilder::new()
            .with_min_delay(base.min(longest))
            .with_max_delay(longest)
            .without_max_times()
            .with_jitter();
        // After so many it is the longest anyway.
        waits.build().nth(attempt.min(32) as usize).unwrap_or(longest)
    }
}

/// Whether a process works on it.
fn is_claimed(stored: &Document, now: Timestamp) -> bool {
    date(stored, "claimedUntil").is_some_and(|until| until > now)
}

/// Only if nobody changed it since it was read.
fn as_stored(stored: &Document) -> Guard {
    match stored.get("revision") {
        Some(revision) => Guard::Equals { field: "revision".to_owned(), value: revision.clone() },
        None => Guard::Any,
    }
}

/// What is meant for an item, in whichever state.
fn of_item(database: &str, item: ItemId) -> Filter {
    Filter::eq("itemId", item.object_id()).and(Filter::eq("database", database))
}

fn large() -> Vec<String> {
    vec!["payload".to_owned()]
}

fn code_and_message(error: &Error) -> (String, String) {
    (error.code().to_owned(), error.message().to_owned())
}

fn at_work(doing: &'static str) -> Error {
    Error::new(ErrorKind::Locked, "another process is carrying out the operation at this moment")
        .during(doing)
}
