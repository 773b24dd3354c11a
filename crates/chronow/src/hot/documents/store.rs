//! What everything here stands on: the collections, small readers, the memory of one process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, Document};
use chronos_db::Env;
use chronos_db::documents::{Batch, DocumentStore, Filter, Index, Namespace, Outcome, Scan, Write, within};
use futures::TryStreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, watch};

use super::cache::SubscriptionCache;
use super::chunk_cache::ChunkCache;
use super::delivery_record::DeliveryRecord;
use super::fields::{ascending, delete, text};
use super::known::Known;
use crate::{Error, ErrorKind, Result, SubscriptionName};

/// Who waits for what others have begun hears how that ended so shortly after it must have.
const OTHERS: Duration = Duration::from_millis(500);

/// The collections.
#[derive(Debug)]
pub(super) struct Collections {
    /// Topics, subscriptions, cursors, counters and sequences: what a call needs to know comes with one read.
    pub(super) topics: Namespace,
    pub(super) messages: Namespace,
    pub(super) deliveries: Namespace,
    pub(super) scheduled: Namespace,
    pub(super) dedup: Namespace,
    pub(super) values: Namespace,
    pub(super) changes: Namespace,
}

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) documents: Arc<dyn DocumentStore>,
    pub(super) collections: Collections,
    pub(super) env: Env,
    pub(super) ready: OnceCell<bool>,
    pub(super) closed: AtomicBool,
    pub(super) caches: Mutex<HashMap<SubscriptionName, Arc<SubscriptionCache>>>,
    pub(super) chunks: ChunkCache,
    pub(super) known: Mutex<Known>,
    /// Moves when this process changes a value.
    pub(super) moved: watch::Sender<u64>,
    pub(super) value_turns: Vec<Semaphore>,
    pub(super) changes_purged_at: AtomicI64,
}

impl Engine {
    pub(super) fn new(documents: Arc<dyn DocumentStore>, database: &str, env: Env) -> Self {
        let collection = |name: &str| Namespace::new(database, name);
        let collections = Collections {
            topics: collection("cw_topics"),
            messages: collection("cw_messages"),
            deliveries: collection("cw_deliveries"),
            scheduled: collection("cw_scheduled"),
            dedup: collection("cw_dedup"),
            values: collection("cw_values"),
            changes: collection("cw_changes"),
        };
        Self {
            documents,
            collections,
            env,
            ready: OnceCell::new(),
            closed: AtomicBool::new(false),
            caches: Mutex::default(),
            chunks: ChunkCache::default(),
            known: Mutex::default(),
            moved: watch::Sender::new(0),
            value_turns: (0..64).map(|_| Semaphore::new(1)).collect(),
            changes_purged_at: AtomicI64::new(0),
        }
    }

    /// Gives all that `work` asks of the store the time of one call, and a little more to wait for what
    /// others have begun.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(limit) = self.documents.limit() else { return work.await };
        match tokio::time::timeout(limit + OTHERS, within(limit, work)).await {
            Ok(done) => done,
            Err(_) => {
                let message = format!(
                    "the store did not do it within {} s; the change may have taken place",
                    limit.as_secs_f64()
                );
                Err(Error::new(ErrorKind::HotTier, message).retryable())
            }
        }
    }

    /// Makes sure that collections and indexes are there. Says whether taking numbers and inserting are one
    /// step.
    pub(super) async fn ready(&self) -> Result<bool> {
        self.check_open()?;
        self.in_time(async { Ok(*self.make().await?) }).await
    }

    /// The same for reading alone: a user who may not create what is missing reads without it.
    pub(super) async fn looking(&self) -> Result<()> {
        self.check_open()?;
        match self.in_time(async { self.make().await.map(drop).map_err(Error::from) }).await {
            Err(error) if !error.is_forbidden() => Err(error),
            _ => Ok(()),
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the hot tier is closed"));
        }
        Ok(())
    }

    async fn make(&self) -> chronos_db::Result<&bool> {
        let made = self.ready.get_or_try_init(|| async {
            let collections = &self.collections;
            let records = [
                Index::on("due", &["w", "due", "_id"]).only_if_exists("w"),
                Index::on("class", &["c", "s", "_id"]),
                Index::on("chain", &["k", "ns"]),
                Index::on("held", &["h"]).unique().only_if_exists("h"),
            ];
            self.documents.ensure(&collections.deliveries, &records).await?;
            self.documents.ensure(&collections.scheduled, &[Index::on("due", &["w", "due", "_id"])]).await?;
            self.documents.ensure(&collections.dedup, &[Index::on("until", &["w", "until"])]).await?;
            self.documents
                .ensure(&collections.values, &[Index::on("until", &["until"]).only_if_exists("until")])
                .await?;
            self.documents.ensure(&collections.changes, &[Index::on("at", &["at"])]).await?;
            for plain in [&collections.topics, &collections.messages] {
                self.documents.ensure(plain, &[]).await?;
            }
            Ok(self.documents.capabilities().await?.atomic_sequence)
        });
        made.await
    }

    pub(super) fn new_revision(&self) -> ObjectId {
        self.env.random.object_id()
    }

    pub(super) fn cache(&self, subscription: &SubscriptionName) -> Arc<SubscriptionCache> {
        self.caches.lock().entry(subscription.clone()).or_default().clone()
    }

    pub(super) fn forget_cache(&self, subscription: &SubscriptionName) {
        self.caches.lock().remove(subscription);
    }

    /// Tells watchers of this process that a value has changed.
    pub(super) fn tell_watchers(&self) {
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells this process that something may have become available to subscriptions whose ids (topic,
    /// subscription) are such: one waiter of each.
    fn tell_those(&self, such: impl Fn(&str, &str) -> bool) {
        for cache in self.caches.lock().values() {
            if cache.ids.lock().as_ref().is_some_and(|(topic, id)| such(topic, id)) {
                cache.notify.notify_one();
            }
        }
    }

    pub(super) fn tell_topic(&self, topic: &str) {
        self.tell_those(|of, _| of == topic);
    }

    pub(super) fn tell_subscription(&self, subscription: &str) {
        self.tell_those(|_, id| id == subscription);
    }

    /// Tells everybody, of something that is gone.
    pub(super) fn tell_all(&self) {
        for cache in self.caches.lock().values() {
            cache.notify.notify_waiters();
            cache.notify.notify_one();
        }
    }

    pub(super) async fn get_one(
        &self,
        collection: &Namespace,
        id: impl Into<Bson>,
    ) -> Result<Option<Document>> {
        Ok(self.documents.get(collection, vec![id.into()]).await?.pop())
    }

    /// Documents by their (text) `_id`s.
    pub(super) async fn get_map(
        &self,
        collection: &Namespace,
        ids: Vec<String>,
    ) -> Result<HashMap<String, Document>> {
        let found = self.documents.get(collection, ids.into_iter().map(Bson::String).collect()).await?;
        found.into_iter().map(|document| Ok((text(&document, "_id")?.to_owned(), document))).collect()
    }

    /// Documents of the collection of topics by their `_id`s, topics without their lists of subscriptions.
    pub(super) async fn get_without_lists(&self, ids: Vec<String>) -> Result<HashMap<String, Document>> {
        let filter = Filter::any_of("_id", ids.into_iter().map(Bson::String).collect());
        let found = self
            .scan(
                &self.collections.topics,
                Scan { filter, without: vec!["subs".to_owned()], ..Scan::default() },
            )
            .await?;
        found.into_iter().map(|document| Ok((text(&document, "_id")?.to_owned(), document))).collect()
    }

    pub(super) async fn scan(&self, collection: &Namespace, scan: Scan) -> Result<Vec<Document>> {
        Ok(self.documents.scan(collection, scan).try_collect().await?)
    }

    pub(super) async fn write(
        &self,
        collection: &Namespace,
        writes: impl IntoIterator<Item = Write>,
    ) -> Result<Vec<Outcome>> {
        let mut batch = Batch::new();
        for write in writes {
            batch.push(collection, write);
        }
        if batch.operations.is_empty() {
            return Ok(Vec::new());
        }
        // Also after a look that did without.
        self.ready().await?;
        Ok(self.documents.apply(batch).await?)
    }

    pub(super) async fn write_one(&self, collection: &Namespace, write: Write) -> Result<Outcome> {
        let mut outcomes = self.write(collection, [write]).await?;
        outcomes.pop().ok_or_else(|| Error::new(ErrorKind::HotTier, "the document store returned no outcome"))
    }

    /// Delivery records that match, in order.
    pub(super) async fn records(
        &self,
        filter: Filter,
        order: &[&str],
        limit: u64,
    ) -> Result<Vec<DeliveryRecord>> {
        let scan = Scan { filter, order: ascending(order), limit: Some(limit), ..Scan::default() };
        self.scan(&self.collections.deliveries, scan).await?.into_iter().map(DeliveryRecord::read).collect()
    }

    pub(super) async fn records_by_id(&self, ids: Vec<String>) -> Result<HashMap<String, DeliveryRecord>> {
        let found = self
            .documents
            .get(&self.collections.deliveries, ids.into_iter().map(Bson::String).collect())
            .await?;
        found
            .into_iter()
            .map(|record| DeliveryRecord::read(record).map(|record| (record.stored_id(), record)))
            .collect()
    }

    /// Removes whatever matches, some hundreds at a time, until nothing does.
    pub(super) async fn sweep(
        &self,
        collection: &Namespace,
        filter: Filter,
        without: &[&str],
    ) -> Result<u64> {
        let mut removed = 0;
        loop {
            let without = without.iter().map(|field| (*field).to_owned()).collect();
            let scan = Scan { filter: filter.clone(), limit: Some(500), without, ..Scan::default() };
            let found = self.scan(collection, scan).await?;
            if found.is_empty() {
                return Ok(removed);
            }
            removed += found.len() as u64;
            self.write(collection, found.into_iter().filter_map(|mut found| found.remove("_id")).map(delete))
                .await?;
        }
    }

    pub(super) fn note_settled(&self, cache: &SubscriptionCache, count: usize) {
        cache.settled.fetch_add(count as u64, Ordering::Relaxed);
    }
}
