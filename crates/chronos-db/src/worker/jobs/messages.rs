//! Removing messages, shared values, deliveries and dead letters whose time has passed.

use std::time::Duration;

use async_trait::async_trait;

use super::{Job, JobOutcome, Subject, Target};
use crate::Result;
use crate::messaging::prune_every_tenant;

/// What has ended is seen by nobody, so nothing hurries.
const EVERY: Duration = Duration::from_secs(3_600);

pub(super) struct Messages;

#[async_trait]
impl Job for Messages {
    fn name(&self) -> &'static str {
        "messages"
    }

    fn counts(&self) -> &'static [&'static str] {
        &["messages"]
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn is_for(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::Messaging(_))
    }

    async fn run(&self, target: &Target, _: Duration) -> Result<JobOutcome> {
        let Subject::Messaging(db) = &target.subject else { return Ok(JobOutcome::default()) };
        Ok(JobOutcome::counted([("messages", prune_every_tenant(db).await?.total())]))
    }
}
