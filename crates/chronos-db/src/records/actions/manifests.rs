//! Listing manifests.

use super::Action;
use crate::Result;
use crate::records::{Collection, ManifestInfo};
use crate::telemetry::{Observed, Operation};

impl Collection {
    /// Lists the manifests that hold versions of this collection, lowest level first.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// assert!(users.manifests().await?.is_empty());
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails, `STORAGE_ERROR` if what it says of a manifest is damaged.
    pub fn manifests(&self) -> ListManifests {
        ListManifests { collection: self.clone() }
    }
}

/// Lists manifests; see [`Collection::manifests`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct ListManifests {
    collection: Collection,
}

impl Action for ListManifests {
    type Output = Vec<ManifestInfo>;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::Manifests))
    }

    async fn run(self) -> Result<Vec<ManifestInfo>> {
        let scope = self.collection.upkeep_scope().await?;
        let live = self
            .collection
            .workers
            .manifests
            .entries(scope)
            .await
            .map_err(|error| error.during("manifests").in_collection(self.collection.name()))?;
        let mut found: Vec<ManifestInfo> = live
            .entries
            .iter()
            .map(|entry| ManifestInfo::new(entry, live.pending.contains(&entry.id)))
            .collect();
        found.sort_by(|a, b| (a.level, &a.key).cmp(&(b.level, &b.key)));
        Ok(found)
    }
}

awaitable!(ListManifests);
