//! Analytics rules across tenants.
//!
//! They are work of the whole configuration, not of one collection: each has a lease of its own where its results
//! are.

use std::sync::Arc;

use futures::StreamExt as _;

use super::Round;
use super::job::{FailureKey, JobOutcome};
use crate::Result;
use crate::analytics::due;
use crate::config::CrossTenant;

/// As the name of a job.
const ANALYTICS: &str = "analytics";
const RULES_AT_ONCE: usize = 4;

/// Runs the rules that are due.
pub(super) async fn work(round: &Round<'_>) {
    let rules = round.all.chronos.config().analytics.cross_tenant.clone();
    let rules = futures::stream::iter(rules).take_until(round.stopping.cancelled());
    rules.for_each_concurrent(RULES_AT_ONCE, |cross| async move { one(round, &cross).await }).await;
}

async fn one(round: &Round<'_>, cross: &Arc<CrossTenant>) {
    let name = &cross.rule.name;
    let (key, shown) = (format!("rule:{name}"), format!("rule `{name}` across tenants"));
    let failure_key = FailureKey { key: &key, shown: &shown };
    let is_asked_for = round.only.as_ref().is_none_or(|only| only.contains_key(&key));
    if !is_asked_for || !round.all.failures.may_try(&key, ANALYTICS, round.now()) {
        return;
    }
    let done = tokio::select! {
        biased;
        done = run(round, cross) => done,
        () = round.drained() => return round.leave(&key),
    };
    match done {
        Ok(ran) => {
            round.succeed(ANALYTICS, failure_key);
            round.so_far.lock().add(&shown, JobOutcome::counted([("rules", u64::from(ran))]));
        }
        Err(error) => round.fail(ANALYTICS, failure_key, error),
    }
}

async fn run(round: &Round<'_>, cross: &Arc<CrossTenant>) -> Result<bool> {
    round.all.chronos.env().fail.hit("worker.before_job")?;
    Ok(due::run_cross_tenant(&round.all.chronos, cross).await?.is_some())
}
