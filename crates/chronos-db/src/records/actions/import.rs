//! Importing a log of changes.

use super::Action;
use crate::Result;
use crate::records::{Collection, Importer};

impl Collection {
    /// Prepares the import of a log of changes in which items are known by a property. Changes keep their own
    /// times, and importing the same log again changes nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// use chronos_db::{ImportOp, json};
    ///
    /// let log = [
    ///     json!({"op": "create", "key": "ada", "data": {"name": "ada"}, "at": "2020-01-01T00:00:00Z"}),
    ///     json!({"op": "update", "key": "ada", "data": {"plan": "team"}, "at": "2021-01-01T00:00:00Z"}),
    /// ];
    /// let operations = log.iter().map(ImportOp::parse).collect::<chronos_db::Result<Vec<_>>>()?;
    /// let importer = users.import("name").await?;
    /// for outcome in importer.apply(operations, true).await? {
    ///     outcome?;
    /// }
    /// assert_eq!(users.list().await?.items[0].ov, 1);
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bad property or name of a log; `TXN_ERROR` if the document store fails.
    pub fn import(&self, key_property: &str) -> Import {
        Import::new(self, key_property)
    }
}

/// Prepares an import; see [`Collection::import`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Import {
    collection: Collection,
    key: String,
    log: Option<String>,
}

impl Import {
    pub(crate) fn new(collection: &Collection, key: &str) -> Self {
        Self { collection: collection.clone(), key: key.to_owned(), log: None }
    }

    /// Gives the log a name (1 to 200 bytes), so that its lines are recognised when it is imported again,
    /// those without a time too. How far it was carried out is kept with what was written: lines up to there
    /// are skipped unread. A named log may grow at its end; another log has another name.
    pub fn log(mut self, name: impl Into<String>) -> Self {
        self.log = Some(name.into());
        self
    }
}

impl Action for Import {
    type Output = Importer;

    async fn run(self) -> Result<Importer> {
        Importer::new(self.collection, self.key, self.log).await
    }
}

awaitable!(Import);
