//! Time-based analytics rules, on their schedule.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Job, JobOutcome, Subject, Target, collection};
use crate::Result;
use crate::analytics::due;
use crate::worker::failures::Failures;
use crate::worker::job::Part;

/// Runs every rule over the collection that is due. One that fails waits for itself: longer each time.
pub(super) struct Analytics {
    /// Those of the worker.
    pub(super) failures: Arc<Failures>,
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
        let mut done = JobOutcome::default();
        let mut ran = 0;
        let rules = collection.analytics.rules.time_based.iter();
        for timed in rules.filter(|timed| timed.rule.collection == collection.name()) {
            let rule = &timed.rule.name;
            let part = Part { key: format!("{}|rule:{rule}", target.lease), shown: format!("rule `{rule}`") };
            if !self.failures.may_try(&part.key, NAME, clock.now()) {
                continue;
            }
            match due::run_time_based(collection, timed).await {
                Ok(has_run) => {
                    done.worked.push(part);
                    ran += u64::from(has_run.is_some());
                }
                Err(error) => done.failed.push((part, error)),
            }
        }
        done.counts.push(("rules", ran));
        Ok(done)
    }
}
