//! Time-based analytics rules, on their schedule.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Job, JobOutcome, Subject, Target, collection};
use crate::Result;
use crate::analytics::due;
use crate::worker::failures::{Attempt, Failures};
use crate::worker::job::PartFailure;

/// Runs every rule over the collection that is due. One that fails waits for itself: longer each time.
#[derive(Default)]
pub(super) struct Analytics {
    failures: Failures,
}

const NAME: &str = "analytics";

#[async_trait]
impl Job for Analytics {
    fn name(&self) -> &'static str {
        NAME
    }

    fn counts(&self) -> &'static [&'static str] {
        &["rules"]
    }

    fn is_for(&self, subject: &Subject) -> bool {
        let Subject::Collection(collection) = subject else { return false };
        let rules = &collection.analytics.rules.time_based;
        rules.iter().any(|timed| timed.rule.collection == collection.name())
    }

    async fn run(&self, target: &Target, _: Duration) -> Result<JobOutcome> {
        let Some(collection) = collection(target) else { return Ok(JobOutcome::default()) };
        let clock = Arc::clone(&collection.workers.index.env.clock);
        let (mut ran, mut failed) = (0, Vec::new());
        let rules = collection.analytics.rules.time_based.iter();
        for timed in rules.filter(|timed| timed.rule.collection == collection.name()) {
            let rule = &timed.rule.name;
            let key = format!("{}|rule:{rule}", target.lease);
            if !self.failures.may_try(&key, NAME, clock.now()) {
                continue;
            }
            match due::run_time_based(collection, timed).await {
                Ok(done) => {
                    self.failures.succeeded(&key, NAME);
                    ran += u64::from(done.is_some());
                }
                Err(error) => {
                    let Attempt { tries, .. } = self.failures.failed(&key, NAME, clock.now());
                    failed.push(PartFailure { part: format!("rule `{rule}`"), tries, error });
                }
            }
        }
        Ok(JobOutcome { failed, ..JobOutcome::counted([("rules", ran)]) })
    }
}
