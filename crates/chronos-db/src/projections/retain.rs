//! Retention that knows the positions of the followers: rolling up and pruning.

use crate::Result;
use crate::action::Action;
use crate::records::{Collection, LEVEL_ROWS, Pruned, RolledUp};
use crate::telemetry::{Observed, Operation};

impl Collection {
    /// Puts versions that lie beyond `retention.ver`, and are in no manifest yet, into manifests. They stay in the
    /// index until they are [pruned](Self::prune). Any number of processes may do it at any time.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the collection has no object storage, or `rollup.enabled` is false; `TXN_ERROR` or
    /// `STORAGE_ERROR` if a store fails: calling it again goes on.
    pub fn roll_up(&self) -> RollUp {
        RollUp { collection: self.clone(), dry_run: false, level_rows: LEVEL_ROWS }
    }

    /// Takes versions that lie beyond `retention.ver` out of the index, after they were [rolled
    /// up](Self::roll_up): reads go on finding them, in their manifests. The newest version of an item stays, and so
    /// does what is not stored, settled or counted yet. Versions that were written just now go only after some
    /// seconds, for which it waits.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::{Config, Retention}};
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir().unwrap();
    /// let config = Config::embedded_builder(dir.path()).retention(Retention::default().max_per_item(1)).build()?;
    /// let chronos = Chronos::open(config)?;
    /// let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// let user = users.create(chronos_db::json!({"name": "Ada"})).await?;
    /// users.update(&user.id, chronos_db::json!({"name": "Grace"})).await?;
    /// users.flush(Duration::from_secs(10)).await?;
    ///
    /// assert_eq!(users.prune().dry_run().await?.versions, 1);
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`roll_up`](Self::roll_up).
    pub fn prune(&self) -> Prune {
        Prune { collection: self.clone(), dry_run: false, level_rows: LEVEL_ROWS }
    }
}

/// Puts versions into manifests; see [`Collection::roll_up`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct RollUp {
    collection: Collection,
    dry_run: bool,
    level_rows: u64,
}

/// Takes versions out of the index; see [`Collection::prune`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Prune {
    collection: Collection,
    dry_run: bool,
    level_rows: u64,
}

macro_rules! retention_options {
    () => {
        /// Only counts.
        pub fn dry_run(mut self) -> Self {
            self.dry_run = true;
            self
        }

        /// How many versions the manifests of the first level hold, at least one (default 4,096); those of each
        /// further one hold eight times as many.
        pub fn level_rows(mut self, versions: u64) -> Self {
            self.level_rows = versions.max(1);
            self
        }
    };
}

impl RollUp {
    retention_options!();
}

impl Prune {
    retention_options!();
}

impl Action for RollUp {
    type Output = RolledUp;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::RollUp))
    }

    async fn run(self) -> Result<RolledUp> {
        let Self { collection, dry_run, level_rows } = self;
        let work = async {
            let scope = collection.upkeep_scope().await?;
            let retainer = &collection.workers.retainer;
            if !retainer.is_bounded()? {
                return Ok(RolledUp::idle(dry_run));
            }
            retainer.roll_up(scope, &collection.counted(scope).await?, level_rows, dry_run).await
        };
        work.await.map_err(|error| error.during("roll up").in_collection(collection.name()))
    }
}

impl Action for Prune {
    type Output = Pruned;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::Prune))
    }

    fn is_idle(pruned: &Pruned) -> bool {
        pruned.versions == 0 && pruned.voids == 0 && pruned.rolled_up.versions == 0
    }

    async fn run(self) -> Result<Pruned> {
        let Self { collection, dry_run, level_rows } = self;
        let work = async {
            let scope = collection.upkeep_scope().await?;
            let retainer = &collection.workers.retainer;
            if !retainer.is_bounded()? {
                return Ok(Pruned { rolled_up: RolledUp::idle(dry_run), ..Pruned::default() });
            }
            retainer.prune(scope, &collection.counted(scope).await?, level_rows, dry_run).await
        };
        work.await.map_err(|error| error.during("prune").in_collection(collection.name()))
    }
}

awaitable!(RollUp);
awaitable!(Prune);
