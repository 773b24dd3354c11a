//! Removing uploads whose commit never came, and objects of erased items that came back.

use std::time::Duration;

use async_trait::async_trait;

use super::{Job, JobOutcome, Subject, Target, collection};
use crate::Result;

/// Noted objects younger than this may belong to a write under way.
const YOUNG: Duration = Duration::from_secs(3_600);

pub(super) struct Orphans;

#[async_trait]
impl Job for Orphans {
    fn name(&self) -> &'static str {
        "orphans"
    }

    fn counts(&self) -> &'static [&'static str] {
        &["orphans", "erased", "malformed"]
    }

    fn is_for(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::Collection(_))
    }

    async fn run(&self, target: &Target, _: Duration) -> Result<JobOutcome> {
        let Some(collection) = collection(target) else { return Ok(JobOutcome::default()) };
        let found = collection.collect_orphans(YOUNG).await?;
        Ok(JobOutcome::counted([
            ("orphans", found.orphans),
            ("erased", found.erased),
            ("malformed", found.malformed),
        ]))
    }
}
