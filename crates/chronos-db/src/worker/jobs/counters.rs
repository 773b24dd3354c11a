//! Following the log for the counters.

use std::time::Duration;

use async_trait::async_trait;

use super::{Job, JobOutcome, Subject, Target, collection};
use crate::Result;
use crate::records::Collection;

pub(super) struct Counters;

#[async_trait]
impl Job for Counters {
    fn name(&self) -> &'static str {
        "counters"
    }

    fn counts(&self) -> &'static [&'static str] {
        &["counted", "damaged"]
    }

    fn every_for(&self, target: &Target) -> Duration {
        let of = |collection: &Collection| collection.workers.index.settings.writes.counters_every;
        collection(target).map_or(Duration::ZERO, of)
    }

    fn is_for(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::Collection(_))
    }

    async fn run(&self, target: &Target, _: Duration) -> Result<JobOutcome> {
        let Some(collection) = collection(target) else { return Ok(JobOutcome::default()) };
        let followed = collection.counters().follow().await?;
        Ok(JobOutcome {
            damaged: followed.damaged,
            is_unfinished: followed.busy,
            ..JobOutcome::counted([("counted", followed.rows), ("damaged", followed.damaged_count)])
        })
    }
}
