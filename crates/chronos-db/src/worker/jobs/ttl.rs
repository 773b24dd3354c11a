//! What passes with time where heads keep payloads: items become processed, and the payloads go.

use std::time::Duration;

use async_trait::async_trait;

use super::{Job, JobOutcome, Subject, Target, collection};
use crate::Result;

/// Times to live are whole hours.
const EVERY: Duration = Duration::from_secs(300);

pub(super) struct Ttl;

#[async_trait]
impl Job for Ttl {
    fn name(&self) -> &'static str {
        "ttl"
    }

    fn counts(&self) -> &'static [&'static str] {
        &["processed", "shrunk"]
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn is_for(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::Collection(collection) if collection.workers.index.settings.shadow.is_some())
    }

    async fn run(&self, target: &Target, _: Duration) -> Result<JobOutcome> {
        let Some(collection) = collection(target) else { return Ok(JobOutcome::default()) };
        let Some(shadow) = collection.workers.index.settings.shadow else { return Ok(JobOutcome::default()) };
        let marked = collection.mark_items_as_processed_by_ttl(shadow.ttl).await?;
        let shrunk = collection.shrink_shadows().whatever_its_size().await?;
        Ok(JobOutcome::counted([
            ("processed", marked.items_marked_as_processed),
            ("shrunk", shrunk.shadows_shrunk),
        ]))
    }
}
