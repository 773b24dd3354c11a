//! Taking versions that left the window out of the index, into manifests.

use std::time::Duration;

use async_trait::async_trait;

use super::{Job, JobOutcome, Subject, Target, collection};
use crate::Result;

/// How often; what leaves in between is pruned together.
const EVERY: Duration = Duration::from_secs(300);

pub(super) struct Prune;

#[async_trait]
impl Job for Prune {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn counts(&self) -> &'static [&'static str] {
        &["rolledUp", "pruned"]
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn is_always_due(&self) -> bool {
        true
    }

    fn is_for(&self, subject: &Subject) -> bool {
        let Subject::Collection(collection) = subject else { return false };
        let settings = &collection.workers.index.settings;
        settings.rollup.enabled
            && settings.rollup.auto_schedule
            && collection.workers.retainer.is_bounded().is_ok_and(|bounded| bounded)
    }

    async fn run(&self, target: &Target, _: Duration) -> Result<JobOutcome> {
        let Some(collection) = collection(target) else { return Ok(JobOutcome::default()) };
        let pruned = collection.prune().await?;
        Ok(JobOutcome::counted([("rolledUp", pruned.rolled_up.versions), ("pruned", pruned.versions)]))
    }
}
