//! Going on with erasures that a process left, and looking at those of a day ago again.

use std::time::Duration;

use async_trait::async_trait;

use super::{Job, JobOutcome, Subject, Target, collection};
use crate::erasure::resume;
use crate::{Chronos, Result};

pub(super) struct Erasures {
    pub(super) chronos: Chronos,
}

#[async_trait]
impl Job for Erasures {
    fn name(&self) -> &'static str {
        "erasures"
    }

    fn counts(&self) -> &'static [&'static str] {
        &["certified"]
    }

    fn is_for(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::Collection(_))
    }

    async fn run(&self, target: &Target, _: Duration) -> Result<JobOutcome> {
        let Some(collection) = collection(target) else { return Ok(JobOutcome::default()) };
        let resumed = resume(&self.chronos, collection).await?;
        let counted = JobOutcome::counted([("certified", resumed.finished)]);
        Ok(JobOutcome { is_unfinished: resumed.is_some_waiting, ..counted })
    }
}
