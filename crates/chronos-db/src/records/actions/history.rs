//! Reading the versions of one item.

use futures::TryStreamExt as _;
use futures::stream::BoxStream;

use super::Action;
use crate::Result;
use crate::records::{Collection, ItemId, Version};
use crate::telemetry::{Observed, Operation};

impl Collection {
    /// Lists the versions of one item, the oldest first, without their documents.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// # let id = users.create(chronos_db::json!({"email": "ada@example.org", "plan": "free"})).await?.id;
    /// # users.update(&id, chronos_db::json!({"plan": "team"})).reason("upgrade").await?;
    /// let versions = users.history(&id).newest_first().await?;
    /// assert_eq!(versions.iter().map(|version| version.ov).collect::<Vec<_>>(), [1, 0]);
    /// assert_eq!(versions[0].reason.as_deref(), Some("upgrade"));
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such item; `TXN_ERROR` if the document store fails.
    pub fn history(&self, id: &ItemId) -> History {
        History::new(self, *id)
    }
}

/// The versions of one item; see [`Collection::history`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct History {
    collection: Collection,
    id: ItemId,
    newest_first: bool,
}

impl History {
    pub(crate) fn new(collection: &Collection, id: ItemId) -> Self {
        Self { collection: collection.clone(), id, newest_first: false }
    }

    /// Lists the newest version first.
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// Streams the versions one by one, in bounded memory.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such item.
    pub async fn stream(self) -> Result<BoxStream<'static, Result<Version>>> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        workers.reader.versions(self.id, scope, self.newest_first).await
    }
}

impl Action for History {
    type Output = Vec<Version>;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::History))
    }

    async fn run(self) -> Result<Vec<Version>> {
        self.stream().await?.try_collect().await
    }
}

awaitable!(History);
