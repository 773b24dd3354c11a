//! Removing leases that nobody takes any more: of collections that are gone, and of work that was ended.

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};

use super::{Job, JobOutcome, Subject, Target};
use crate::Result;
use crate::documents::filter::Test;
use crate::documents::{Batch, Filter, Guard, Scan, Write};
use crate::lease::EXPIRES;

const EVERY: Duration = Duration::from_secs(24 * 3_600);
/// A lease that ended so long ago is nobody's: those that are in use are taken again each round.
const OLD_MILLIS: i64 = 7 * 24 * 3_600_000;
/// Leases that are removed at once.
const BATCH: usize = 256;

pub(super) struct Leases;

#[async_trait]
impl Job for Leases {
    fn name(&self) -> &'static str {
        "leases"
    }

    fn counts(&self) -> &'static [&'static str] {
        &["leases"]
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn is_for(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::Database)
    }

    async fn run(&self, target: &Target, _: Duration) -> Result<JobOutcome> {
        let before = target.documents.now().await?.plus_millis(-OLD_MILLIS);
        let filter = Filter::Field(EXPIRES.into(), Test::Lt(before.into()));
        let scan = Scan { filter, ..Scan::default() };
        let mut old = target.documents.scan(&target.leases, scan).try_chunks(BATCH);
        let mut removed = 0;
        while let Some(chunk) = old.next().await {
            let mut batch = Batch::new();
            for lease in chunk.map_err(|error| error.1)? {
                if let (Some(id), Some(ended)) = (lease.get("_id"), lease.get(EXPIRES)) {
                    // Unless it is taken just now.
                    let guard = Guard::Equals { field: EXPIRES.into(), value: ended.clone() };
                    batch.push(&target.leases, Write::Delete { id: id.clone(), guard });
                }
            }
            let outcomes = target.documents.apply(batch).await?;
            removed += outcomes.iter().filter(|outcome| outcome.is_applied()).count() as u64;
        }
        Ok(JobOutcome::counted([("leases", removed)]))
    }
}
