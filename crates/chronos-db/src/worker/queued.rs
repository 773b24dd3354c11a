//! Writes that wait in the fallback queue.
//!
//! They are work of the whole configuration, not of one collection: the queue has leases of its own, for each
//! item, and is there while the document store is away.

use super::Round;
use super::job::{FailureKey, JobOutcome};
use super::report::{FailedJob, QUEUE_COUNTS};

/// Its name, as that of a job and of what is left.
pub(super) const FALLBACK: &str = "fallback";
const KEY: FailureKey<'_> = FailureKey { key: FALLBACK, shown: "the fallback queue" };

/// Carries out what is due.
pub(super) async fn work(round: &Round<'_>) {
    let chronos = &round.all.chronos;
    let is_asked_for = round.only.as_ref().is_none_or(|only| only.contains_key(FALLBACK));
    if chronos.config().fallback.is_none()
        || !is_asked_for
        || !round.all.failures.may_try(FALLBACK, FALLBACK, round.now())
    {
        return;
    }
    let retried = async { chronos.fallback()?.retry_due().round().await };
    let retried = tokio::select! {
        biased;
        retried = retried => retried,
        () = round.drained() => return round.leave(FALLBACK),
    };
    match retried {
        Ok((retried, failed)) => {
            round.all.failures.succeeded(FALLBACK, FALLBACK);
            // Queues that answer are not put off because of one that does not.
            if let Some(error) = failed {
                round.all.meters.failed(FALLBACK);
                let failed = FailedJob { job: FALLBACK, target: KEY.shown.to_owned(), tries: 1, error };
                round.so_far.lock().add_failure(failed);
            }
            if let Err(error) = measure(round).await {
                tracing::debug!(%error, "how much waits in the fallback queue is not known");
            }
            if retried.waiting > 0 || retried.failed > 0 {
                round.leave(FALLBACK);
            }
            let counts = [retried.done, retried.postponed, retried.dead, retried.waiting];
            round.so_far.lock().add(KEY.shown, JobOutcome::counted(QUEUE_COUNTS.into_iter().zip(counts)));
        }
        Err(error) => round.fail(FALLBACK, KEY, error),
    }
}

/// Sets the gauges of what waits.
async fn measure(round: &Round<'_>) -> crate::Result<()> {
    if round.all.chronos.env().telemetry.is_on() {
        round.all.chronos.fallback()?.measure().await?;
    }
    Ok(())
}
