//! Checking a collection.

use super::Action;
use crate::Result;
use crate::records::{Collection, Verification};
use crate::telemetry::{Observed, Operation};

impl Collection {
    /// Checks the collection: rows, numbers and heads against each other, and every payload against its
    /// checksum.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// # users.create(chronos_db::json!({"email": "ada@example.org"})).await?;
    /// let found = users.verify().await?;
    /// assert!(found.is_clean(), "{:?}", found.problems);
    /// assert_eq!((found.items, found.versions), (1, 1));
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `TXN_ERROR` or `STORAGE_ERROR` if a store fails; what is damaged is reported, not an error.
    pub fn verify(&self) -> Verify {
        Verify::new(self)
    }
}

/// Checks a collection; see [`Collection::verify`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Verify {
    collection: Collection,
    repair: bool,
}

impl Verify {
    pub(crate) fn new(collection: &Collection) -> Self {
        Self { collection: collection.clone(), repair: false }
    }

    /// Rolls lagging heads forward, stores what waits, and removes old orphans first.
    pub fn repair(mut self) -> Self {
        self.repair = true;
        self
    }
}

impl Action for Verify {
    type Output = Verification;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::Verify))
    }

    fn items(verified: &Verification) -> Option<u64> {
        Some(verified.items)
    }

    async fn run(self) -> Result<Verification> {
        let (workers, scope) = (&self.collection.workers, self.collection.upkeep_scope().await?);
        workers
            .verifier
            .verify(self.repair, scope)
            .await
            .map_err(|e| e.during("verify").in_collection(&workers.index.names.collection))
    }
}

awaitable!(Verify);
