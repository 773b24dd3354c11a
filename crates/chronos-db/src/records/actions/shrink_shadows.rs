//! Taking payloads out of heads.

use std::time::Duration;

use super::Action;
use crate::records::Collection;
use crate::records::storage::expire::ShadowBounds;
use crate::telemetry::{Observed, Operation};
use crate::{Json, Result, Timestamp, json};

impl Collection {
    /// Takes payloads out of heads that `devShadow` keeps there: those that were written at least `ttlHours` ago,
    /// by the store's clock, and those of more than `maxBytesPerDoc`; where it is off, all of them. Every payload
    /// is in its version row or in object storage as well, so no reader notices. A worker does the same.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::{Config, DevShadow}};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let hour = std::time::Duration::from_secs(3600);
    /// let config = Config::embedded_builder(dir.path()).dev_shadow(DevShadow::new(24 * hour)).build()?;
    /// let chronos = Chronos::open(config)?;
    /// let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// users.create(chronos_db::json!({"email": "ada@example.org"})).await?;
    /// assert_eq!(users.shrink_shadows().await?.shadows_shrunk, 0, "it was written just now");
    /// assert_eq!(users.shrink_shadows().all().await?.shadows_shrunk, 1);
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails; calling it again goes on.
    pub fn shrink_shadows(&self) -> ShrinkShadows {
        ShrinkShadows {
            collection: self.clone(),
            older_than: None,
            larger_than: None,
            whatever_its_size: false,
            all: false,
            dry_run: false,
        }
    }
}

/// Takes payloads out of heads; see [`Collection::shrink_shadows`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct ShrinkShadows {
    collection: Collection,
    older_than: Option<Duration>,
    larger_than: Option<usize>,
    whatever_its_size: bool,
    all: bool,
    dry_run: bool,
}

/// What left the heads of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShrunkShadows {
    /// The collection.
    pub collection: String,
    /// Heads that were looked at: those with a payload to take out.
    pub items_processed: u64,
    /// Payloads that this call took out, or would have.
    pub shadows_shrunk: u64,
    /// Their bytes.
    pub bytes_freed: u64,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// When it began, by the store's clock.
    pub shrunk_at: Timestamp,
}

impl ShrunkShadows {
    /// Returns `{collection, itemsProcessed, shadowsShrunk, bytesFreed, dryRun, shrunkAt}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "collection": self.collection,
            "itemsProcessed": self.items_processed,
            "shadowsShrunk": self.shadows_shrunk,
            "bytesFreed": self.bytes_freed,
            "dryRun": self.dry_run,
            "shrunkAt": self.shrunk_at.to_string(),
        })
    }
}

impl ShrinkShadows {
    /// Takes out what was written at least this long ago, in place of `ttlHours`.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Takes out what has more bytes than that, in place of `maxBytesPerDoc`.
    pub fn larger_than(mut self, bytes: usize) -> Self {
        self.larger_than = Some(bytes);
        self
    }

    /// Leaves what is large alone: an index finds what is old, and new payloads that are too large do not get into
    /// heads.
    pub(crate) fn whatever_its_size(mut self) -> Self {
        self.whatever_its_size = true;
        self
    }

    /// Takes out all of them.
    pub fn all(mut self) -> Self {
        self.all = true;
        self
    }

    /// Counts what would be done, and changes nothing.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }
}

impl Action for ShrinkShadows {
    type Output = ShrunkShadows;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::ShrinkShadows))
    }

    async fn run(self) -> Result<ShrunkShadows> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        let shadow = workers.index.settings.shadow;
        let is_given = self.older_than.is_some() || self.larger_than.is_some();
        let shrink = async {
            let now = workers.index.documents.now().await?;
            let age = self.older_than.or(shadow.map(|shadow| shadow.ttl));
            let ago = |age: Duration| now.minus(age);
            let bounds = ShadowBounds {
                before: age.map(ago),
                max_bytes: if self.whatever_its_size {
                    None
                } else {
                    self.larger_than.or(shadow.and_then(|shadow| shadow.max_bytes))
                },
                // Where heads keep nothing, nobody wants what is still there.
                all: self.all || shadow.is_none() && !is_given,
            };
            let done = workers.expirer.shrink(bounds, self.dry_run, scope).await?;
            Ok(ShrunkShadows {
                collection: self.collection.name().to_owned(),
                items_processed: done.seen,
                shadows_shrunk: done.changed,
                bytes_freed: done.bytes,
                dry_run: self.dry_run,
                shrunk_at: now,
            })
        };
        shrink.await.map_err(|e: crate::Error| e.during("shrink").in_collection(self.collection.name()))
    }
}

awaitable!(ShrinkShadows);
