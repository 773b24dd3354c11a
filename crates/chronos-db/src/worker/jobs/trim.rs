//! Removing superseded versions where versions are not kept.

use std::time::Duration;

use async_trait::async_trait;

use super::{Done, Job, Subject, Target, collection};
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

    async fn run(&self, target: &Target, _: Duration) -> Result<Done> {
        let Some(collection) = collection(target) else { return Ok(Done::default()) };
        Ok(Done::counted([("trimmed", collection.trim(GRACE).await?)]))
    }
}
