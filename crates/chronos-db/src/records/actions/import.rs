//! Importing a log of changes.

use super::Action;
use crate::Result;
use crate::records::{Collection, Importer};

impl Collection {
    /// Imports a log of changes in which items are known by a property.
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
