//! Values under a namespace and a key.
//!
//! A key has at most one document of the strategy `latest`, and one document a version of the strategy
//! `append`. The former also holds what outlives values: a tombstone, and two marks over the versions.
//! `_system.throughVersion`: versions up to it are gone, whether or not their documents have been removed
//! already. `_system.lastVersion`: numbers up to it have been given out. A process that appends looks at the
//! marks again after the insert, so that no number is used twice.
//!
//! `write.rs` saves, appends and deletes, `keys.rs` lists keys; both stand on the table of the collection.

mod keys;
mod write;

use bson::{Bson, Document};
use futures::future::try_join;
use futures::stream::BoxStream;

pub use keys::{ListKeys, SharedKey};
pub use write::{Save, Saved, Tombstone};
pub(super) use write::{keep_marks, remove_all, remove_ended};

use super::listing::{Listing, pages};
use super::runs;
use super::schema::{Key, Kind, check_text};
use super::table::Table;
use super::value::{self, date, system, system_date, system_whole, whole};
use crate::documents::{Direction, Filter};
use crate::{Json, Page, Result, Timestamp};

/// Shared values of one tenant; see [`Messaging::shared`](super::Messaging::shared).
#[derive(Clone, Debug)]
pub struct Shared {
    table: Table,
}

/// Whether a key keeps its latest value alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// One value, replaced by the next.
    #[default]
    Latest,
    /// Every value is kept, with a version: 0, 1, 2, …
    Append,
}

impl Strategy {
    /// Returns the stored name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Append => "append",
        }
    }
}

/// A stored value.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct SharedValue {
    /// The value. A stored `null` is a value; an absent one is none.
    pub value: Json,
    /// Its version, if it was appended.
    pub version: Option<i64>,
    /// When the key (if it keeps the latest value alone) or the version was first written.
    pub created_at: Option<Timestamp>,
    /// When the value was written.
    pub updated_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// The number it has in a cache before this store; see [`Save::hot_version`].
    pub hot_version: Option<i64>,
}

crate::debug_some!(SharedValue { version, created_at, updated_at, expires_at });

impl SharedValue {
    fn read(document: &Document) -> Result<Self> {
        Ok(Self {
            value: value::take(document, "val")?,
            version: whole(document, "version"),
            created_at: created_at(document),
            updated_at: updated_at(document),
            expires_at: system_date(document, "expiresAt"),
            hot_version: whole(document, "hotVersion"),
        })
    }
}

fn created_at(document: &Document) -> Option<Timestamp> {
    date(document, "createdAt").or_else(|| system_date(document, "createdAt"))
}

fn updated_at(document: &Document) -> Option<Timestamp> {
    system_date(document, "updatedAt").or_else(|| date(document, "updatedAt"))
}

pub(super) fn is_tombstone(document: &Document) -> bool {
    system(document).is_some_and(|system| system.get_bool("tombstone").unwrap_or(false))
}

/// The newest version that is gone; -1 if none is.
pub(super) fn through(latest: Option<&Document>) -> i64 {
    latest.and_then(|latest| system_whole(latest, "throughVersion")).unwrap_or(-1)
}

/// The newest number that is known to be given out by the marks alone.
fn version_in(latest: Option<&Document>) -> i64 {
    latest.and_then(|latest| system_whole(latest, "lastVersion")).unwrap_or(-1).max(through(latest))
}

/// What has not passed its time.
fn alive(now: Timestamp) -> Filter {
    Filter::Or(vec![Filter::exists("_system.expiresAt", false), Filter::gt("_system.expiresAt", now)])
}

/// One key, as its documents are found.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) table: Table,
    namespace: String,
    key: String,
}

impl Slot {
    pub(super) fn new(table: Table, namespace: String, key: String) -> Self {
        Self { table, namespace, key }
    }

    fn check(&self) -> Result<()> {
        check_text("namespace", &self.namespace)?;
        check_text("key", &self.key)?;
        Ok(())
    }

    fn key_of(&self, strategy: Strategy, version: Bson) -> Key {
        Key::new(
            Kind::SharedMemory,
            [self.namespace.as_str().into(), self.key.as_str().into(), strategy.name().into(), version],
        )
    }

    pub(super) fn latest_key(&self) -> Key {
        self.key_of(Strategy::Latest, Bson::Null)
    }

    fn version_key(&self, version: i64) -> Key {
        self.key_of(Strategy::Append, version.into())
    }

    /// All documents of the key.
    fn filter(&self) -> Filter {
        Filter::eq("namespace", self.namespace.as_str()).and(Filter::eq("key", self.key.as_str()))
    }

    fn versions(&self) -> Filter {
        self.filter().and(Filter::eq("strategy", Strategy::Append.name()))
    }

    async fn latest(&self) -> Result<Option<Document>> {
        self.table.find(&self.latest_key()).await
    }

    /// The document of the newest version that `more` allows.
    pub(super) async fn newest(&self, more: Filter) -> Result<Option<Document>> {
        self.table.first(self.versions().and(more), newest_first()).await
    }

    /// Whether the time of the value has passed. The store is asked for the time only if there is one.
    async fn has_ended(&self, document: &Document) -> Result<bool> {
        match system_date(document, "expiresAt") {
            Some(end) => Ok(end <= self.table.now().await?),
            None => Ok(false),
        }
    }

    async fn live(&self, document: Option<Document>) -> Result<Option<Document>> {
        match document {
            Some(document) if !is_tombstone(&document) && !self.has_ended(&document).await? => {
                Ok(Some(document))
            }
            _ => Ok(None),
        }
    }

    async fn live_version(
        &self,
        latest: Option<&Document>,
        found: Option<Document>,
    ) -> Result<Option<Document>> {
        let through = through(latest);
        self.live(found.filter(|found| whole(found, "version").is_some_and(|version| version > through)))
            .await
    }

    async fn newest_live(
        &self,
        latest: Option<&Document>,
        newest: Option<Document>,
    ) -> Result<Option<Document>> {
        let Some(newest) = newest else { return Ok(None) };
        if !self.has_ended(&newest).await? {
            return self.live_version(latest, Some(newest)).await;
        }
        // An older one may have been given more time.
        let found = self.newest(alive(self.table.now().await?)).await?;
        self.live_version(latest, found).await
    }
}

fn newest_first() -> Vec<(String, Direction)> {
    vec![("version".to_owned(), Direction::Descending)]
}

impl Shared {
    pub(super) fn new(table: Table) -> Self {
        Self { table }
    }

    fn slot(&self, namespace: impl Into<String>, key: impl Into<String>) -> Slot {
        Slot::new(self.table.clone(), namespace.into(), key.into())
    }

    /// Saves a value: as the key's only one, or with [`append`](Save::append) as its next version.
    pub fn save(&self, namespace: impl Into<String>, key: impl Into<String>, value: impl Into<Json>) -> Save {
        Save::new(self.slot(namespace, key), value.into())
    }

    /// Reads the value of a key: the latest one unless something else is asked for, and if the key has none,
    /// its newest version.
    pub fn load(&self, namespace: impl Into<String>, key: impl Into<String>) -> Load {
        Load { slot: self.slot(namespace, key), strategy: None, version: None }
    }

    /// Deletes the value and all versions of a key and leaves a tombstone, which also wins over older values
    /// that arrive later.
    pub fn tombstone(&self, namespace: impl Into<String>, key: impl Into<String>) -> Tombstone {
        Tombstone::new(self.slot(namespace, key))
    }

    /// Lists the versions of a key, newest first.
    pub fn versions(&self, namespace: impl Into<String>, key: impl Into<String>) -> Versions {
        Versions { slot: self.slot(namespace, key), after: None, limit: None }
    }

    /// Lists the keys of a namespace that have a value.
    pub fn list(&self, namespace: impl Into<String>) -> ListKeys {
        ListKeys::new(self.table.clone(), namespace.into())
    }
}

/// Loads a value; see [`Shared::load`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Load {
    slot: Slot,
    strategy: Option<Strategy>,
    version: Option<i64>,
}

impl Load {
    /// Reads only what was saved with this strategy.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = Some(strategy);
        self
    }

    /// Reads the newest version.
    pub fn append(self) -> Self {
        self.strategy(Strategy::Append)
    }

    /// Reads this version.
    pub fn version(mut self, version: i64) -> Self {
        self.version = Some(version);
        self
    }

    async fn run(self) -> Result<Option<SharedValue>> {
        let found = self.find().await.map_err(|error| error.during("shared.load"))?;
        found.as_ref().map(SharedValue::read).transpose()
    }

    async fn find(&self) -> Result<Option<Document>> {
        let slot = &self.slot;
        slot.check()?;
        if let Some(version) = self.version {
            if self.strategy == Some(Strategy::Latest) {
                return Err(crate::Error::validation("the strategy `latest` keeps no versions"));
            }
            let key = slot.version_key(version);
            let (latest, found) = try_join(slot.latest(), slot.table.find(&key)).await?;
            return slot.live_version(latest.as_ref(), found).await;
        }
        if self.strategy == Some(Strategy::Latest) {
            return slot.live(slot.latest().await?).await;
        }
        let (latest, newest) = try_join(slot.latest(), slot.newest(Filter::All)).await?;
        if self.strategy.is_none()
            && let Some(live) = slot.live(latest.clone()).await?
        {
            return Ok(Some(live));
        }
        slot.newest_live(latest.as_ref(), newest).await
    }
}

runs!(Load => Option<SharedValue>);

/// Lists versions; see [`Shared::versions`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Versions {
    slot: Slot,
    after: Option<String>,
    limit: Option<u32>,
}

impl Versions {
    /// Goes on behind a page: its [`next`](Page::next).
    pub fn after(mut self, cursor: impl Into<String>) -> Self {
        self.after = Some(cursor.into());
        self
    }

    /// Limits a page to this many (default 100, at most 1,000).
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Streams all of them, page by page.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<SharedValue>> {
        pages(self.after.clone(), move |after| Self { after, ..self.clone() }.run())
    }

    async fn run(self) -> Result<Page<SharedValue>> {
        let slot = &self.slot;
        slot.check()?;
        let (latest, now) = try_join(slot.latest(), slot.table.now()).await?;
        let filter = slot.versions().and(Filter::gt("version", through(latest.as_ref()))).and(alive(now));
        let listing = Listing {
            filter,
            namespace: slot.namespace.clone(),
            order: newest_first(),
            after: self.after,
            limit: self.limit,
            without: Vec::new(),
        };
        listing.page_of(&slot.table, SharedValue::read).await
    }
}

runs!(Versions => Page<SharedValue>);
