//! Removing what has ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::Document;
use futures::TryStreamExt as _;

use super::db::MessagingDb;
use super::schema::Kind;
use super::shared::{Slot, remove_ended, through};
use super::table::{Table, unchanged};
use super::value::{required_text, text, whole};
use super::{Messaging, runs};
use crate::documents::{Direction, Filter, Scan, Write};
use crate::{Json, Result, Timestamp};

/// Documents removed together.
const BATCH: usize = 256;

/// Removes what has ended; see [`Messaging::prune`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Prune {
    messaging: Messaging,
    at: Option<Timestamp>,
    most: Option<u64>,
}

/// How many documents were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Shared values, versions and tombstones.
    pub shared_memory: u64,
    /// Messages.
    pub messages: u64,
    /// Delivery attempts.
    pub deliveries: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

impl Pruned {
    /// Returns the sum of all of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.shared_memory + self.messages + self.deliveries + self.dead_letters
    }

    fn add(&mut self, more: Self) {
        self.shared_memory += more.shared_memory;
        self.messages += more.messages;
        self.deliveries += more.deliveries;
        self.dead_letters += more.dead_letters;
    }

    /// Returns the report as JSON.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let Self { shared_memory, messages, deliveries, dead_letters } = self;
        crate::json!({ "shared_memory": shared_memory, "messages": messages, "deliveries": deliveries, "dead_letters": dead_letters })
    }
}

impl Prune {
    pub(super) fn new(messaging: Messaging) -> Self {
        Self { messaging, at: None, most: None }
    }

    /// Removes what ends until then (default: the store's time).
    pub fn at(mut self, now: Timestamp) -> Self {
        self.at = Some(now);
        self
    }

    /// Removes at most this many documents of each collection, the longest ended first. The next call goes on.
    pub fn limit(mut self, documents: u64) -> Self {
        self.most = Some(documents);
        self
    }

    async fn run(self) -> Result<Pruned> {
        let now = match self.at {
            Some(at) => at,
            None => self.messaging.table(Kind::SharedMemory).now().await?,
        };
        let mut pruned = Pruned {
            shared_memory: self.prune(Kind::SharedMemory, now).await?,
            messages: self.prune(Kind::Messages, now).await?,
            dead_letters: self.prune(Kind::DeadLetters, now).await?,
            deliveries: 0,
        };
        if self.messaging.db.captures_deliveries() {
            pruned.deliveries = self.prune(Kind::Deliveries, now).await?;
        }
        Ok(pruned)
    }

    async fn prune(&self, kind: Kind, now: Timestamp) -> Result<u64> {
        let table = self.messaging.table(kind);
        let scan = Scan {
            filter: Filter::lte("_system.expiresAt", now),
            order: vec![("_system.expiresAt".to_owned(), Direction::Ascending)],
            limit: self.most,
            without: ["val", "payload", "headers"].map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        let mut ended = table.scan(scan).await?.try_chunks(BATCH);
        let mut removed = 0;
        while let Some(chunk) = ended.try_next().await.map_err(|error| error.1)? {
            if kind == Kind::SharedMemory {
                remember_numbers(&table, &chunk).await?;
            }
            let (marked, plain): (Vec<Document>, Vec<Document>) =
                chunk.into_iter().partition(|document| through(Some(document)) >= 0);
            for document in &marked {
                let slot = Slot::new(
                    table.clone(),
                    required_text(document, "namespace")?,
                    required_text(document, "key")?,
                );
                removed += u64::from(remove_ended(&slot, document).await?);
            }
            // What was written again meanwhile has not ended.
            let delete = |document: &Document| {
                Some(Write::Delete { id: document.get("_id")?.clone(), guard: unchanged(document) })
            };
            let outcomes = table.apply(plain.iter().filter_map(delete).collect()).await?;
            removed += outcomes.iter().filter(|outcome| outcome.is_applied()).count() as u64;
        }
        Ok(removed)
    }
}

runs!(Prune => Pruned);

/// Removes what has ended of every tenant. One that fails holds up no other.
///
/// # Errors
/// The first error of a tenant, after all were tried.
pub(crate) async fn prune_every_tenant(db: &Arc<MessagingDb>) -> Result<Pruned> {
    let (mut pruned, mut failed, mut last) = (Pruned::default(), None, None);
    while let Some(tenant) = next_tenant(db, last.as_deref()).await? {
        match Messaging::new(Arc::clone(db), &tenant).prune().await {
            Ok(more) => pruned.add(more),
            Err(error) => failed = failed.or(Some(error)),
        }
        last = Some(tenant);
    }
    failed.map_or(Ok(pruned), Err)
}

/// The first tenant behind `last` that has something that will end: one look at each index.
async fn next_tenant(db: &Arc<MessagingDb>, last: Option<&str>) -> Result<Option<String>> {
    let documents = db.looking().await?;
    let ends = Filter::gt("_system.expiresAt", bson::DateTime::MIN);
    let filter = Filter::gt("tenantId", last.unwrap_or_default()).and(ends);
    let mut first: Option<String> = None;
    for kind in [Kind::SharedMemory, Kind::Messages, Kind::Deliveries, Kind::DeadLetters] {
        let scan = Scan {
            filter: filter.clone(),
            order: vec![("tenantId".to_owned(), Direction::Ascending)],
            limit: Some(1),
            without: ["val", "payload", "headers"].map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        let found: Vec<Document> = documents.scan(&db.namespace(kind), scan).try_collect().await?;
        let tenant = found.first().and_then(|document| text(document, "tenantId"));
        first = [first, tenant].into_iter().flatten().min();
    }
    Ok(first)
}

/// Where the newest version of a key goes, its number must be remembered, so that the next one is a new one.
async fn remember_numbers(table: &Table, ended: &[Document]) -> Result<()> {
    let mut newest: BTreeMap<(String, String), i64> = BTreeMap::new();
    for document in ended {
        if let (Some(namespace), Some(key), Some(version)) =
            (text(document, "namespace"), text(document, "key"), whole(document, "version"))
        {
            let known = newest.entry((namespace, key)).or_insert(version);
            *known = version.max(*known);
        }
    }
    for ((namespace, key), version) in newest {
        let slot = Slot::new(table.clone(), namespace, key);
        let behind = slot.newest(Filter::gt("version", version)).await?;
        if behind.is_none() {
            slot.mark("lastVersion", version).await?;
        }
    }
    Ok(())
}
