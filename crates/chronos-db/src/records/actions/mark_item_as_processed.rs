//! Marking one item as processed.

use std::time::Duration;

use super::Action;
use crate::records::{Collection, ItemId, State};
use crate::telemetry::{Observed, Operation};
use crate::{Json, Result, json};

/// How long a version that is yet to be stored is waited for.
const STORING: Duration = Duration::from_secs(5);

impl Collection {
    /// Marks an item as [`processed`](State::Processed), whatever its age: what reads it may rely on its JSON
    /// being in object storage. It makes no version, and the next write of the item begins anew.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, State, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// # let id = users.create(chronos_db::json!({"email": "ada@example.org"})).await?.id;
    /// let marked = users.mark_item_as_processed(&id).await?;
    /// assert_eq!((marked.marked, marked.state), (true, State::Processed));
    /// assert!(!users.mark_item_as_processed(&id).await?.marked, "it is already");
    /// assert_eq!(users.history(&id).await?.len(), 1);
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such item, `TXN_ERROR` if the store fails. Where payloads stay in the document
    /// store, and while the object storage does not take the newest version, nothing is marked.
    pub fn mark_item_as_processed(&self, id: &ItemId) -> MarkItemAsProcessed {
        MarkItemAsProcessed { collection: self.clone(), id: *id, dry_run: false }
    }
}

/// Marks one item; see [`Collection::mark_item_as_processed`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct MarkItemAsProcessed {
    collection: Collection,
    id: ItemId,
    dry_run: bool,
}

/// What became of an item that was to be marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MarkedItem {
    /// The item.
    pub id: ItemId,
    /// Whether this call marked it, or would have; false if it was marked already, or is not stored as an object.
    pub marked: bool,
    /// Its state now.
    pub state: State,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

impl MarkedItem {
    /// Returns `{id, marked, state, dryRun}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({ "id": self.id.to_string(), "marked": self.marked, "state": self.state.as_str(), "dryRun": self.dry_run })
    }
}

impl MarkItemAsProcessed {
    /// Says what would be done, and changes nothing.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }
}

impl Action for MarkItemAsProcessed {
    type Output = MarkedItem;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::MarkProcessed))
    }

    async fn run(self) -> Result<MarkedItem> {
        let Self { collection, id, dry_run } = self;
        let (workers, scope) = (&collection.workers, collection.scope().await?);
        let mark = async || {
            let (mut marked, mut before) = workers.expirer.mark_one(id, dry_run, scope).await?;
            if before == State::NewNotSynched && workers.stores_objects() {
                workers.flush(STORING, false, scope).await?;
                (marked, before) = workers.expirer.mark_one(id, dry_run, scope).await?;
            }
            let state = if marked && !dry_run { State::Processed } else { before };
            Ok(MarkedItem { id, marked, state, dry_run })
        };
        mark().await.map_err(|e: crate::Error| {
            e.during("mark as processed").on_item(id).in_collection(collection.name())
        })
    }
}

awaitable!(MarkItemAsProcessed);
