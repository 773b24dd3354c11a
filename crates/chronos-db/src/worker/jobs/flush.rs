//! Storing what waits to be stored.

use std::time::Duration;

use async_trait::async_trait;

use super::{Job, JobOutcome, Subject, Target, collection};
use crate::Result;

pub(super) struct Flush;

#[async_trait]
impl Job for Flush {
    fn name(&self) -> &'static str {
        "flush"
    }

    fn counts(&self) -> &'static [&'static str] {
        &["waiting", "failing"]
    }

    fn is_for(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::Collection(_))
    }

    async fn run(&self, target: &Target, patience: Duration) -> Result<JobOutcome> {
        let Some(collection) = collection(target) else { return Ok(JobOutcome::default()) };
        let report = collection.flush(patience).await?;
        Ok(JobOutcome {
            failing: report.failing,
            is_unfinished: report.waiting > 0,
            ..JobOutcome::counted([("waiting", report.waiting), ("failing", report.failed)])
        })
    }
}
