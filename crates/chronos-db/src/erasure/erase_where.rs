//! Erasing every item that matches a filter.

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::certificate::Certificate;
use super::erase::{count, erase, erase_options, named};
use crate::action::Action;
use crate::records::{Collection, ErasureCounts, ItemId, OnDamage, WriteOptions};
use crate::telemetry::{Observed, Operation};
use crate::{ErrorKind, Json, Result};

impl Collection {
    /// Erases every item that matches a filter now, also deleted ones: each as [`erase`](Self::erase) does, with a
    /// certificate of its own, one after the other.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// for plan in ["trial", "team", "trial"] {
    ///     users.create(json!({ "plan": plan })).await?;
    /// }
    /// let certificates = users.erase_where(json!({"plan": "trial"})).reason("ticket 4711").await?;
    /// assert_eq!(certificates.len(), 2);
    /// assert_eq!(users.list().include_deleted().await?.items.len(), 1);
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong filter; else as [`erase`](Self::erase): the first item that fails ends it, and
    /// calling it again goes on with those that are left.
    pub fn erase_where(&self, filter: impl Into<Json>) -> EraseWhere {
        EraseWhere { collection: self.clone(), filter: filter.into(), options: WriteOptions::default() }
    }
}

/// Erases every item that matches a filter; see [`Collection::erase_where`].
#[derive(Clone)]
#[must_use = "an action runs when it is awaited"]
pub struct EraseWhere {
    collection: Collection,
    filter: Json,
    options: WriteOptions,
}

crate::debug_some!(EraseWhere { collection });

impl EraseWhere {
    erase_options!();

    /// Streams the certificates while items are erased, in bounded memory. What was not asked for any more is not
    /// erased.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong filter.
    pub async fn stream(self) -> Result<BoxStream<'static, Result<Certificate>>> {
        let ids = self.ids().await?;
        let Self { collection, options, .. } = self;
        let certificates = ids.then(move |id| {
            let (collection, options) = (collection.clone(), options.clone());
            async move {
                let id = id?;
                one(&collection, id, erase(&collection, id, &options).await)
            }
        });
        Ok(certificates.try_filter_map(|erased| async move { Ok(erased) }).boxed())
    }

    /// Only counts what would be erased of each item.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong filter.
    pub async fn dry_run(self) -> Result<BoxStream<'static, Result<ErasureCounts>>> {
        let ids = self.ids().await?;
        let collection = self.collection;
        let counts = ids.then(move |id| {
            let collection = collection.clone();
            async move {
                let id = id?;
                one(&collection, id, count(&collection, id).await)
            }
        });
        Ok(counts.try_filter_map(|counted| async move { Ok(counted) }).boxed())
    }

    /// The items that match. Their documents need not be readable.
    async fn ids(&self) -> Result<BoxStream<'static, Result<ItemId>>> {
        let list = self.collection.list().filter(self.filter.clone()).include_deleted();
        let views = list.on_damage(OnDamage::Show).stream().await?;
        Ok(views.map_ok(|view| view.id).boxed())
    }
}

/// What was done about an item; none if another process erased it meanwhile.
fn one<T>(collection: &Collection, id: ItemId, done: Result<T>) -> Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(named(error, collection, id)),
    }
}

impl Action for EraseWhere {
    type Output = Vec<Certificate>;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::Erase))
    }

    fn items(erased: &Self::Output) -> Option<u64> {
        Some(erased.len() as u64)
    }

    async fn run(self) -> Result<Vec<Certificate>> {
        self.stream().await?.try_collect().await
    }
}

awaitable!(EraseWhere);
