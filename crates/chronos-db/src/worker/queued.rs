//! Writes that wait in the fallback queue.
//!
//! They are work of the whole configuration, not of one collection: the queue has leases of its own, for each
//! item, and is there while the document store is away.

use super::Round;
use super::job::{FailureKey, JobOutcome};
use super::report::QUEUE_COUNTS;
use crate::fallback::retry_due;

/// Its name, as that of a job and of what is left.
pub(super) const FALLBACK: &str = "fallback";
const SHOWN: &str = "the fallback queue";

/// What failures of one queue are remembered by.
fn key_of(place: &str) -> String {
    format!("{FALLBACK}|{place}")
}

/// Carries out what is due. A queue whose store does not answer waits for itself, longer each time.
pub(super) async fn work(round: &Round<'_>) {
    let chronos = &round.all.chronos;
    let is_asked_for =
        round.only.as_ref().is_none_or(|only| only.keys().any(|key| key.starts_with(FALLBACK)));
    if chronos.config().fallback.is_none()
        || !is_asked_for
        || !round.all.failures.may_try(FALLBACK, FALLBACK, round.now())
    {
        return;
    }
    let fallback = match chronos.fallback() {
        Ok(fallback) => fallback,
        Err(error) => return round.fail(FALLBACK, FailureKey { key: FALLBACK, shown: SHOWN }, error),
    };
    let now = round.now();
    let may_try = |place: &str| round.all.failures.may_try(&key_of(place), FALLBACK, now);
    let done = tokio::select! {
        biased;
        done = fallback.retry_due().round(may_try) => done,
        () = round.drained() => return round.leave(FALLBACK),
    };
    let retry_due::Round { retried, answered, failed } = done;
    for place in answered {
        tell(&place, |of| round.succeed(FALLBACK, of));
    }
    for failed in failed {
        tell(&failed.place, |of| round.fail(FALLBACK, of, failed.error.clone()));
    }
    if chronos.env().telemetry.is_on()
        && let Err(error) = fallback.measure(false).await
    {
        tracing::debug!(%error, "how much waits in the fallback queue is not known");
    }
    if retried.waiting > 0 {
        round.leave(FALLBACK);
    }
    let counts = [retried.done, retried.postponed, retried.dead, retried.waiting];
    round.so_far.lock().add(SHOWN, JobOutcome::counted(QUEUE_COUNTS.into_iter().zip(counts)));
}

fn tell(place: &str, report: impl FnOnce(FailureKey<'_>)) {
    let (key, shown) = (key_of(place), format!("{SHOWN} in {place}"));
    report(FailureKey { key: &key, shown: &shown });
}
