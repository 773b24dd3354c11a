//! Removing superseded versions where versions are not kept.

use std::time::Duration;

use async_trait::async_trait;

use super::{Job, JobOutcome, Subject, Target, collection};
use crate::Result;

/// Superseded rows stay so long: they still decide races.
const GRACE: Duration = Duration::from_secs(300);

pub(super) struct Trim;

#[async_trait]
impl Job for Trim {
    fn name(&self) -> &'static str {
        "trim"
    }

    fn counts(&self) -> &'static [&'static str] {
        &["trimmed"]
    }

    fn is_for(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::Collection(collection) if !collection.workers.index.settings.versioning)
    }

    async fn run(&self, target: &Target, _: Duration) -> Result<JobOutcome> {
        let Some(collection) = collection(target) else { return Ok(JobOutcome::default()) };
        Ok(JobOutcome::counted([("trimmed", collection.trim(GRACE).await?)]))
    }
}
