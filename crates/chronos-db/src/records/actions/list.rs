//! Listing items.

use std::time::Duration;

use futures::stream::BoxStream;

use super::Action;
use crate::documents::Direction;
use crate::records::index::own_names::OnBuiltIn;
use crate::records::model::VersionSelector;
use crate::records::read::{Query, ReadOptions};
use crate::records::{Collection, OnDamage, View};
use crate::{Json, Page, Result, Timestamp};

/// Items per page if no limit is given, and the most a page can have.
const PAGE: u32 = 50;
const MAX_PAGE: u32 = 1_000;

impl Collection {
    /// Lists items: filter, sort, pages, now or as of a time.
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

    /// Only items that match, in MongoDB's syntax over indexed properties, `_id`, `_system.ov`, `_system.cv`,
    /// `_system.insertedAt` and `_system.updatedAt`. The last ones are also called `id`, `ov`, `cv`,
    /// `createdAt` and `updatedAt` in collections whose documents have no property of that name for
    /// themselves; see [`on_built_in`](Self::on_built_in).
    pub fn filter(mut self, filter: impl Into<Json>) -> Self {
        self.query.filter = Some(filter.into());
        self
    }

    /// Sort by a property, then by those of further calls, then by id.
    pub fn sort(mut self, property: impl Into<String>, direction: Direction) -> Self {
        self.query.sort.push((property.into(), direction));
        self
    }

    /// Hears of every short name in filter or sort that means the built-in property, and the full name of
    /// that: `cv`, `_system.cv`.
    pub fn on_built_in(mut self, hear: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        self.query.on_built_in = OnBuiltIn(Some(std::sync::Arc::new(hear)));
        self
    }

    /// What to do about an item that cannot be shown or ordered; by default the list ends with its error.
    pub fn on_damage(mut self, on_damage: OnDamage) -> Self {
        self.query.on_damage = on_damage;
        self
    }

    /// The properties in filter and sort that no document of the collection has, though the list asks for
    /// them: they may be misspelt. A page says so by itself ([`Page::unknown`]); looking for what is not
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

    /// At most so many items a page: 1 to 1000, default 50.
    pub fn limit(mut self, limit: u32) -> Self {
        self.query.limit = limit.clamp(1, MAX_PAGE);
        self
    }

    /// Go on after a page, by its [`Page::next`].
    pub fn after(mut self, token: impl Into<String>) -> Self {
        self.query.after = Some(token.into());
        self
    }

    /// As it was at this time.
    pub fn as_of(mut self, at: Timestamp) -> Self {
        self.query.which = VersionSelector::At(at);
        self
    }

    /// As it was at this version of the collection.
    pub fn as_of_cv(mut self, cv: i64) -> Self {
        self.query.which = VersionSelector::Cv(cv);
        self
    }

    /// The whole list, item by item, in bounded memory; the limit is not looked at.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong filter, sort or token.
    pub async fn stream(self) -> Result<BoxStream<'static, Result<View>>> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        workers
            .reader
            .stream(self.query, scope)
            .await
            .map_err(|e| e.during("list").in_collection(self.collection.name()))
    }
}

impl Action for List {
    type Output = Page<View>;

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
