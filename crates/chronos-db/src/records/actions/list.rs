//! Listing items.

use std::time::Duration;

use futures::stream::BoxStream;

use super::Action;
use crate::documents::Direction;
use crate::records::index::own_names::OnBuiltIn;
use crate::records::model::VersionSelector;
use crate::records::read::{Query, ReadOptions};
use crate::records::{Collection, OnDamage, View};
use crate::telemetry::{Observed, Operation};
use crate::{Json, Page, Result, Timestamp};

/// Items per page if no limit is given, and the most a page can have.
const PAGE: u32 = 50;
const MAX_PAGE: u32 = 1_000;

impl Collection {
    /// Lists items: filtered, sorted, in pages or as a stream, now or as of a point of the past. Filters and
    /// sorts go by indexed properties.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// use chronos_db::{documents::Direction, json};
    ///
    /// for seats in [3, 12, 40] {
    ///     users.create(json!({"plan": "team", "seats": seats})).await?;
    /// }
    /// let large = users.list().filter(json!({"seats": {"$gte": 10}})).sort("seats", Direction::Descending).limit(20).await?;
    /// assert_eq!(large.items.iter().map(|user| user.document()["seats"].as_i64()).collect::<Vec<_>>(), [Some(40), Some(12)]);
    /// assert_eq!(large.next, None); // a token for `after`, if there were more
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong filter, sort or token; `STORAGE_ERROR` for an item that cannot be read,
    /// unless [`on_damage`](List::on_damage) shows it; `TXN_ERROR` if the document store fails.
    pub fn list(&self) -> List {
        List::new(self)
    }
}

/// Lists items; see [`Collection::list`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct List {
    collection: Collection,
    query: Query,
}

impl List {
    pub(crate) fn new(collection: &Collection) -> Self {
        Self { collection: collection.clone(), query: Query { limit: PAGE, ..Query::default() } }
    }

    fn options(&mut self) -> &mut ReadOptions {
        &mut self.query.read
    }

    read_options!();

    /// Lists only items that match, in MongoDB's syntax over indexed properties, `_id`, `_system.ov`,
    /// `_system.cv`, `_system.insertedAt` and `_system.updatedAt`. The last ones are also called `id`, `ov`,
    /// `cv`, `createdAt` and `updatedAt` in collections whose documents have no property of that name for
    /// themselves; see [`on_built_in`](Self::on_built_in).
    pub fn filter(mut self, filter: impl Into<Json>) -> Self {
        self.query.filter = Some(filter.into());
        self
    }

    /// Sorts by a property, then by those of further calls, then by id.
    pub fn sort(mut self, property: impl Into<String>, direction: Direction) -> Self {
        self.query.sort.push((property.into(), direction));
        self
    }

    /// Calls `hear` for every short name in filter or sort that means the built-in property, with the full
    /// name of that: `cv`, `_system.cv`.
    pub fn on_built_in(mut self, hear: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        self.query.on_built_in = OnBuiltIn(Some(std::sync::Arc::new(hear)));
        self
    }

    /// Says what to do about an item that cannot be shown or ordered; by default the list ends with its
    /// error.
    pub fn on_damage(mut self, on_damage: OnDamage) -> Self {
        self.query.on_damage = on_damage;
        self
    }

    /// Returns the properties in filter and sort that no document of the collection has, though the list asks
    /// for them: they may be misspelt. A page says so by itself ([`Page::unknown`]); looking for what is not
    /// there looks at every item, unless an index tells.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong filter, sort or token.
    pub async fn unknown_properties(&self) -> Result<Vec<String>> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        workers
            .reader
            .unknown_properties(&self.query, scope)
            .await
            .map_err(|e| e.during("list").in_collection(self.collection.name()))
    }

    /// Limits a page to this many items: 1 to 1,000, default 50.
    pub fn limit(mut self, limit: u32) -> Self {
        self.query.limit = limit.clamp(1, MAX_PAGE);
        self
    }

    /// Goes on after a page, by its [`Page::next`].
    pub fn after(mut self, token: impl Into<String>) -> Self {
        self.query.after = Some(token.into());
        self
    }

    /// Lists what was there at this time, by the store's clock, as it was then.
    pub fn as_of(mut self, at: Timestamp) -> Self {
        self.query.which = VersionSelector::At(at);
        self
    }

    /// Lists what was there at this version of the collection (`cv`), as it was then.
    pub fn as_of_cv(mut self, cv: i64) -> Self {
        self.query.which = VersionSelector::Cv(cv);
        self
    }

    /// Returns how many items the whole list has: limit, order and [`after`](Self::after) are not looked at, and no
    /// document is read. The store counts by an index where one serves the filter.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// for plan in ["free", "team", "free"] {
    ///     users.create(json!({ "plan": plan })).await?;
    /// }
    /// assert_eq!(users.list().filter(json!({"plan": "free"})).count().await?, 2);
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong filter; `TXN_ERROR` if the document store fails.
    pub async fn count(self) -> Result<u64> {
        let observed = self.collection.observed(Operation::Count);
        let count = async {
            let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
            let query = Query { sort: Vec::new(), after: None, ..self.query };
            let counted = workers.reader.count(&query, scope).await;
            counted.map_err(|e| e.during("count").in_collection(self.collection.name()))
        };
        observed.watch(count, |_| None).await
    }

    /// Streams the whole list item by item, in bounded memory; the limit is not looked at.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong filter, sort or token.
    pub async fn stream(self) -> Result<BoxStream<'static, Result<View>>> {
        let observed = self.collection.observed(Operation::List);
        let begin = async {
            let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
            let stream = workers.reader.stream(self.query, scope).await;
            stream.map_err(|e| e.during("list").in_collection(self.collection.name()))
        };
        observed.watch(begin, |_| None).await
    }
}

impl Action for List {
    type Output = Page<View>;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::List))
    }

    async fn run(self) -> Result<Page<View>> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        workers
            .reader
            .page(&self.query, scope)
            .await
            .map_err(|e| e.during("list").in_collection(&workers.index.names.collection))
    }
}

awaitable!(List);
