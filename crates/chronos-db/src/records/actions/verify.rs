//! Checking a collection.

use super::Action;
use crate::Result;
use crate::records::{Collection, Verification};

impl Collection {
    /// Checks the index against the objects.
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

    /// Roll lagging heads forward, store what waits, remove old orphans.
    pub fn repair(mut self) -> Self {
        self.repair = true;
        self
    }
}

impl Action for Verify {
    type Output = Verification;

    async fn run(self) -> Result<Verification> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        workers
            .verifier
            .verify(self.repair, scope)
            .await
            .map_err(|e| e.during("verify").in_collection(&workers.index.names.collection))
    }
}

awaitable!(Verify);
