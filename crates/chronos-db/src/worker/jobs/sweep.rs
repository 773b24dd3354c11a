//! Looking for objects that no version names, where `retention.objects` asks for it.

use std::time::Duration;

use async_trait::async_trait;

use super::{Job, JobOutcome, Subject, Target, collection};
use crate::Result;

/// How often: it lists all objects of the collection.
const EVERY: Duration = Duration::from_secs(24 * 3_600);

pub(super) struct Sweep;

#[async_trait]
impl Job for Sweep {
    fn name(&self) -> &'static str {
        "sweep"
    }

    fn counts(&self) -> &'static [&'static str] {
        &["unnamed"]
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn is_always_due(&self) -> bool {
        true
    }

    fn is_for(&self, subject: &Subject) -> bool {
        let Subject::Collection(collection) = subject else { return false };
        collection.workers.index.settings.retention.objects.is_some() && collection.workers.stores_objects()
    }

    async fn run(&self, target: &Target, _: Duration) -> Result<JobOutcome> {
        let Some(collection) = collection(target) else { return Ok(JobOutcome::default()) };
        let Some(grace) = collection.workers.index.settings.retention.objects else {
            return Ok(JobOutcome::default());
        };
        let scope = collection.upkeep_scope().await?;
        let unnamed = collection.workers.sweeper.sweep(grace, scope).await?;
        Ok(JobOutcome::counted([("unnamed", unnamed)]))
    }
}
