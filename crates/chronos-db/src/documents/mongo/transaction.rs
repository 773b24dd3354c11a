//! All operations of a batch, or none.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, RetryableWithContext as _};
use futures::FutureExt as _;
use mongodb::ClientSession;
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};

use super::apply::Plan;
use super::call::Call;
use super::command::Via;
use super::concern;
use super::failure::Failure;
use crate::Env;
use crate::documents::Outcome;

/// How often a commit is repeated whose fate is unknown; the driver has repeated each once already.
const COMMITS: u32 = 3;
/// The pauses before a transaction that met another one is run again. Chance adds up to as much to each, so
/// that the two don't meet again.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(4))
    .with_max_delay(Duration::from_millis(125))
    .without_max_times()
    .with_jitter();
/// The longest of them, with chance.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn run(plan: &Plan, call: &Call, env: &Env) -> Result<Vec<Outcome>, Failure> {
    let session = call.lease.client.start_session().await?;
    let attempt = |mut session: ClientSession| async move {
        let settled = once(plan, call, &mut session).await;
        (session, settled)
    };
    let clock = Arc::clone(&env.clock);
    let (_session, settled) = attempt
        .retry(PAUSES.with_jitter_seed(env.random.next_u64()))
        .sleep(move |pause| clock.sleep(pause))
        // As long as the call may take: what it met may be what a client left that died, which others end
        // after a while (see `abandoned.rs`).
        .when(|failure| failure.is_transient() && call.has_time_for(LONGEST_PAUSE))
        .context(session)
        .boxed()
        .await;
    settled
}

async fn once(plan: &Plan, call: &Call, session: &mut ClientSession) -> Result<Vec<Outcome>, Failure> {
    session
        .start_transaction()
        .read_concern(ReadConcern::snapshot())
        .write_concern(concern::durable(call.majority_wait()))
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .await?;
    match stages(plan, call, session).await {
        Ok(outcomes) if outcomes.iter().all(Outcome::is_applied) => {
            commit(session).await?;
            call.connector.env().fail.hit("mongo.after_commit")?;
            if let Some(written) = session.operation_time() {
                call.connector.has_seen(written);
            }
            Ok(outcomes)
        }
        Ok(outcomes) => {
            session.abort_transaction().await?;
            Ok(outcomes
                .into_iter()
                .map(|outcome| if outcome.is_applied() { Outcome::Skipped } else { outcome })
                .collect())
        }
        Err(failure) => {
            // The failure is what matters; a transaction that cannot be aborted now ends by its own time
            // limit.
            session.abort_transaction().await.ok();
            Err(failure)
        }
    }
}

/// Runs the stages until an operation isn't applied.
async fn stages(plan: &Plan, call: &Call, session: &mut ClientSession) -> Result<Vec<Outcome>, Failure> {
    let mut outcomes = vec![Outcome::Skipped; plan.len()];
    for members in plan.stages() {
        for (group, members) in plan.groups(members, &outcomes) {
            let answered = plan.write(&mut Via::transaction(call, session), group, &members).await?;
            let failed = answered.iter().any(|(_, outcome)| !outcome.is_applied());
            answered.into_iter().for_each(|(index, outcome)| outcomes[index] = outcome);
            if failed {
                return Ok(outcomes);
            }
            call.connector.env().fail.hit("mongo.in_transaction")?;
        }
    }
    call.connector.env().fail.hit("mongo.before_commit")?;
    Ok(outcomes)
}

async fn commit(session: &mut ClientSession) -> Result<(), Failure> {
    let mut left = COMMITS;
    loop {
        match session.commit_transaction().await.map_err(Failure::from) {
            Err(failure) if failure.is_unknown_commit() && left > 1 => left -= 1,
            settled => return settled,
        }
    }
}
