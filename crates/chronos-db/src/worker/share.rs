//! One worker's share: a target whose lease it has.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};

use super::Round;
use super::job::{Job, Subject, Target};
use crate::clock::millis;
use crate::lease::Lease;
use crate::{Error, Result, Timestamp};

/// The name under which it is remembered that a lease could not be taken.
pub(super) const LEASE: &str = "lease";
/// A store that does not answer keeps nobody from ending for longer than that.
const LEAVING: Duration = Duration::from_secs(1);
/// When a worker was last done with a target.
const DONE_AT: &str = "doneAt";
/// When each job ran that has a schedule.
const RAN: &str = "ran";

/// Whether that long ago is over, by the store's time. What is in the future is of a clock that went back.
fn is_over(at: Option<Timestamp>, every: Duration, now: Timestamp) -> bool {
    let every = millis(every);
    at.is_none_or(|at| {
        let since = now.as_millis().saturating_sub(at.as_millis());
        since >= every || since < 0
    })
}

fn time(document: &Document, name: &str) -> Option<Timestamp> {
    document.get_datetime(name).ok().map(|at| Timestamp::from(*at))
}

/// Takes the lease of a target and runs the jobs, unless another worker has it or was done with it just now.
pub(super) async fn work(round: &Round<'_>, target: &Target, jobs: &[Arc<dyn Job>]) {
    let taken = tokio::select! {
        biased;
        taken = take(round, target) => taken,
        () = round.drained() => return round.leave(&target.lease),
    };
    let (lease, now) = match taken {
        Ok((Some(lease), now)) => (lease, now),
        // Where everything has to be done, its holder may not live to see the end.
        Ok((None, _)) if round.until.done_before.is_zero() => return round.leave(&target.lease),
        Ok((None, _)) => return,
        Err(error) => return round.fail(LEASE, target.failure_key(), error),
    };
    round.succeed(LEASE, target.failure_key());
    let mut ran = lease.state().get_document(RAN).cloned().unwrap_or_default();
    let is_done = tokio::select! {
        biased;
        is_done = run(round, target, jobs, &mut ran, now) => is_done,
        // Its holder goes on.
        _ = lease.hold() => false,
        () = round.drained() => false,
    };
    if !is_done {
        round.leave(&target.lease);
    }
    let left = tokio::select! {
        biased;
        left = leave(target, lease, ran, is_done) => left,
        () = round.all.chronos.env().clock.sleep(LEAVING) => Err(Error::database("it did not answer in time")),
    };
    if let Err(error) = left {
        // It ends by itself.
        tracing::debug!(target = %target.shown, %error, "a lease could not be given back");
    }
}

async fn take(round: &Round<'_>, target: &Target) -> Result<(Option<Lease>, Timestamp)> {
    let now = target.documents.now().await?;
    let (documents, leases) = (Arc::clone(&target.documents), target.leases.clone());
    let wanted = |state: &Document| is_over(time(state, DONE_AT), round.until.done_before, now);
    let env = round.all.chronos.env();
    let lease = Lease::take_if(documents, leases, &target.lease, env, now, wanted).await?;
    Ok((lease, now))
}

/// Gives the lease back. What was interrupted is nobody's, and not done: the next round of any worker goes on.
async fn leave(target: &Target, lease: Lease, ran: Document, is_done: bool) -> Result<()> {
    let now = target.documents.now().await?;
    let mut state = doc! { RAN: ran };
    if is_done {
        state.insert(DONE_AT, now);
    }
    lease.leave(state, now).await
}

/// Runs the jobs; whether each of them had its turn.
async fn run(
    round: &Round<'_>,
    target: &Target,
    jobs: &[Arc<dyn Job>],
    ran: &mut Document,
    now: Timestamp,
) -> bool {
    let is_first = round.is_first_for(&target.lease);
    if let Subject::Collection(_) = target.subject
        && is_first
    {
        round.so_far.lock().collections += 1;
    }
    for job in jobs {
        if round.stopping.is_cancelled() {
            return false;
        }
        let name = job.name();
        let every = job.every_for(target);
        let has_schedule = !every.is_zero();
        let is_asked_for = job.is_always_due() && is_first && round.until.done_before.is_zero();
        if has_schedule && !is_asked_for && !is_over(time(ran, name), every, now) {
            continue;
        }
        let done = async {
            round.all.chronos.env().fail.hit("worker.before_job")?;
            job.run(target, round.patience()).await
        };
        match done.await {
            Ok(mut done) => {
                round.succeed(name, target.failure_key());
                let (worked, failed) = (std::mem::take(&mut done.worked), std::mem::take(&mut done.failed));
                round.end_parts(name, target.failure_key(), worked, failed);
                if done.is_unfinished {
                    round.so_far.lock().unfinished.insert(target.lease.clone(), true);
                }
                round.so_far.lock().add(&target.shown, done);
                if has_schedule {
                    ran.insert(name, now);
                }
            }
            Err(error) => round.fail(name, target.failure_key(), error),
        }
    }
    true
}
