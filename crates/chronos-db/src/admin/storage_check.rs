//! Whether the object storages take our credentials, and which buckets are there.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;

use super::Admin;
use super::ping::{TIMEOUT, bounded, millis};
use super::places::{StoragePlace, storages};
use crate::action::Action;
use crate::telemetry::{Observed, Operation};
use crate::{Chronos, Error, Json, Result, json};

/// Buckets of a storage that are asked for at once.
const PARALLEL: usize = 16;

impl Admin {
    /// Asks every object storage for each bucket that the configuration names there. What does not answer is in the
    /// report, and no error.
    pub fn check_storage(&self) -> CheckStorage {
        CheckStorage { chronos: self.chronos.clone(), timeout: TIMEOUT }
    }
}

/// Asks the object storages; see [`Admin::check_storage`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct CheckStorage {
    chronos: Chronos,
    timeout: Duration,
}

impl CheckStorage {
    /// Waits this long for each storage (default 5 s).
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }
}

/// What one object storage answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StorageCheck {
    /// Its reference in the configuration; `local` for the folder of `localStorage`.
    pub storage: String,
    /// The provider: `s3`, `azure`, `local` or `memory`.
    pub provider: &'static str,
    /// Where it is, without credentials.
    pub endpoint: String,
    /// The buckets of the configuration that are there.
    pub buckets: Vec<String>,
    /// Those that are not there yet. A bucket is created with its first object.
    pub missing: Vec<String>,
    /// How long all answers took.
    pub took: Duration,
    /// The first thing that went wrong.
    pub error: Option<Error>,
}

impl StorageCheck {
    /// Returns whether it answered for every bucket.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.error.is_none()
    }

    /// Returns `{storage, provider, endpoint, success, buckets, missing, pingMs?, error?}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut json = json!({
            "storage": self.storage,
            "provider": self.provider,
            "endpoint": self.endpoint,
            "success": self.is_ok(),
            "buckets": self.buckets,
            "missing": self.missing,
        });
        match &self.error {
            None => json["pingMs"] = millis(self.took),
            Some(error) => json["error"] = error.to_string().into(),
        }
        json
    }
}

impl Action for CheckStorage {
    type Output = Vec<StorageCheck>;

    fn observed(&self) -> Option<Observed> {
        Some(self.chronos.observed(Operation::CheckStorage))
    }

    async fn run(self) -> Result<Vec<StorageCheck>> {
        let places = storages(self.chronos.config());
        Ok(join_all(places.iter().map(|place| check(&self.chronos, place, self.timeout))).await)
    }
}

awaitable!(CheckStorage);

async fn look(chronos: &Chronos, place: &StoragePlace, bucket: &str, limit: Duration) -> Result<bool> {
    bounded(limit, async { chronos.objects(&place.space, bucket)?.bucket_exists().await }).await
}

/// Asks one storage for all of its buckets.
pub(super) async fn check(chronos: &Chronos, place: &StoragePlace, limit: Duration) -> StorageCheck {
    let config = chronos.config();
    let begun = Instant::now();
    let looks: Vec<_> = place.buckets.iter().map(|bucket| look(chronos, place, bucket, limit)).collect();
    let answers: Vec<Result<bool>> = futures::stream::iter(looks).buffered(PARALLEL).collect().await;
    let mut checked = StorageCheck {
        storage: place.name.clone(),
        provider: place.kind(config),
        endpoint: place.endpoint(config),
        buckets: Vec::new(),
        missing: Vec::new(),
        took: begun.elapsed(),
        error: None,
    };
    for (bucket, answer) in place.buckets.iter().zip(answers) {
        match answer {
            Ok(true) => checked.buckets.push(bucket.clone()),
            Ok(false) => checked.missing.push(bucket.clone()),
            Err(error) => drop(checked.error.get_or_insert(error)),
        }
    }
    checked
}
