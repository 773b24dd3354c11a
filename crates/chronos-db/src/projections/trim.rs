//! Letting go of rows that every follower is past.

use std::time::Duration;

use crate::Result;
use crate::records::Collection;

impl Collection {
    /// Where `versioning` is off: removes version rows, and the objects of superseded versions, that were
    /// written at least `grace` ago and are counted. Keep `grace` above a minute: younger rows still decide
    /// races. Returns how many rows went; 0 where versions are kept.
    ///
    /// # Errors
    /// `TXN_ERROR` or `STORAGE_ERROR` if a store fails; calling it again goes on.
    pub async fn trim(&self, grace: Duration) -> Result<u64> {
        if self.workers.index.settings.versioning {
            return Ok(0);
        }
        // What a row says is gone with it.
        let counted = self.counters().follow().await?.cv;
        self.workers.trimmer.trim(grace, counted, self.upkeep_scope().await?).await
    }
}
