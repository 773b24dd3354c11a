//! Checking buckets, and creating those that are missing.

use std::time::Duration;

use futures::StreamExt as _;

use super::Admin;
use super::ping::{TIMEOUT, bounded};
use super::places::{StoragePlace, storages};
use crate::action::Action;
use crate::telemetry::{Observed, Operation};
use crate::{Chronos, Error, Json, Result, Timestamp, json};

/// Buckets that are looked at at once.
const PARALLEL: usize = 16;

impl Admin {
    /// Looks at every bucket that the configuration names. Those that are missing come into being with their first
    /// object, where the credentials allow it; [`create`](EnsureBuckets::create) makes them now. What does not answer
    /// is in the report, and no error.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// let would = chronos.admin().ensure_buckets().create().dry_run().await?;
    /// let did = chronos.admin().ensure_buckets().create().await?;
    /// assert_eq!(would.buckets_created, did.buckets_created);
    /// assert!(did.bucket_statuses.iter().all(|bucket| bucket.exists && bucket.accessible));
    /// assert_eq!(chronos.admin().ensure_buckets().create().await?.buckets_created, 0);
    /// # chronos.shutdown().await
    /// # }
    /// ```
    pub fn ensure_buckets(&self) -> EnsureBuckets {
        EnsureBuckets { chronos: self.chronos.clone(), create: false, dry_run: false, timeout: TIMEOUT }
    }
}

/// Checks and creates buckets; see [`Admin::ensure_buckets`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct EnsureBuckets {
    chronos: Chronos,
    create: bool,
    dry_run: bool,
    timeout: Duration,
}

impl EnsureBuckets {
    /// Creates what is missing. Default: it is only reported.
    pub fn create(mut self) -> Self {
        self.create = true;
        self
    }

    /// Counts what would be created, and creates nothing.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Waits this long for each bucket (default 5 s).
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }
}

/// What there is of the buckets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EnsuredBuckets {
    /// How many were looked at.
    pub buckets_checked: u64,
    /// How many were created, or would have been.
    pub buckets_created: u64,
    /// Each of them.
    pub bucket_statuses: Vec<BucketStatus>,
    /// Whether nothing was created.
    pub dry_run: bool,
    /// When it began, by this process's clock.
    pub processed_at: Timestamp,
}

/// What there is of one bucket.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BucketStatus {
    /// The reference of its storage; `local` for the folder of `localStorage`.
    pub storage: String,
    /// Its name.
    pub name: String,
    /// Whether it is there now.
    pub exists: bool,
    /// Whether the storage answered for it.
    pub accessible: bool,
    /// Whether this call created it.
    pub created: bool,
    /// What went wrong. No secret is in it.
    pub error: Option<Error>,
}

impl EnsuredBuckets {
    /// Returns whether nothing went wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.bucket_statuses.iter().all(|bucket| bucket.error.is_none())
    }

    /// Returns `{bucketsChecked, bucketsCreated, bucketStatuses: [{storage, name, exists, accessible, created,
    /// error?}], dryRun, processedAt}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let status = |bucket: &BucketStatus| {
            let mut json = json!({
                "storage": bucket.storage,
                "name": bucket.name,
                "exists": bucket.exists,
                "accessible": bucket.accessible,
                "created": bucket.created,
            });
            if let Some(error) = &bucket.error {
                json["error"] = error.to_string().into();
            }
            json
        };
        json!({
            "bucketsChecked": self.buckets_checked,
            "bucketsCreated": self.buckets_created,
            "bucketStatuses": self.bucket_statuses.iter().map(status).collect::<Vec<_>>(),
            "dryRun": self.dry_run,
            "processedAt": self.processed_at.to_string(),
        })
    }
}

impl Action for EnsureBuckets {
    type Output = EnsuredBuckets;

    fn observed(&self) -> Option<Observed> {
        Some(self.chronos.observed(Operation::EnsureBuckets))
    }

    async fn run(self) -> Result<EnsuredBuckets> {
        let processed_at = self.chronos.env().clock.now();
        let places = storages(self.chronos.config());
        let mut looks = Vec::new();
        for place in &places {
            looks.extend(place.buckets.iter().map(|bucket| self.ensure(place, bucket)));
        }
        let statuses: Vec<BucketStatus> = futures::stream::iter(looks).buffered(PARALLEL).collect().await;
        // Of a dry run, what is missing is what would be created.
        let is_new = |bucket: &&BucketStatus| {
            bucket.created || self.create && self.dry_run && bucket.accessible && !bucket.exists
        };
        Ok(EnsuredBuckets {
            buckets_checked: statuses.len() as u64,
            buckets_created: statuses.iter().filter(is_new).count() as u64,
            bucket_statuses: statuses,
            dry_run: self.dry_run,
            processed_at,
        })
    }
}

awaitable!(EnsureBuckets);

impl EnsureBuckets {
    async fn ensure(&self, place: &StoragePlace, bucket: &str) -> BucketStatus {
        let mut status = BucketStatus {
            storage: place.name.clone(),
            name: bucket.to_owned(),
            exists: false,
            accessible: false,
            created: false,
            error: None,
        };
        let ensured = bounded(self.timeout, async {
            let objects = self.chronos.objects(&place.space, bucket)?;
            status.exists = objects.bucket_exists().await?;
            status.accessible = true;
            if self.create && !self.dry_run && !status.exists {
                objects.create_bucket().await?;
                (status.exists, status.created) = (true, true);
            }
            Ok(())
        })
        .await;
        status.error = ensured.err();
        status
    }
}
