//! Following the log for the counters.

use std::time::Duration;

use async_trait::async_trait;

use super::{Done, Job, Subject, Target, collection};
use crate::Result;

pub(super) struct Counters;

#[async_trait]
impl Job for Counters {
    fn name(&self) -> &'static str {
        "counters"
    }

    fn counts(&self) -> &'static [&'static str] {
        &["counted", "damaged"]
    }

    fn is_for(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::Collection(_))
    }

    async fn run(&self, target: &Target, _: Duration) -> Result<Done> {
        let Some(collection) = collection(target) else { return Ok(Done::default()) };
        let followed = collection.counters().follow().await?;
        Ok(Done {
            damaged: followed.damaged,
            is_unfinished: followed.busy,
            ..Done::counted([("counted", followed.rows), ("damaged", followed.damaged_count)])
        })
    }
}
