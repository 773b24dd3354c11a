//! All operations of a batch, or none.

use std::time::Duration;

use mongodb::ClientSession;
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};

use super::apply::Plan;
use super::call::Call;
use super::command::Via;
use super::concern;
use super::failure::Failure;
use crate::Env;
use crate::documents::Outcome;

/// How often a transaction that met another one is run.
const ATTEMPTS: u32 = 10;
/// How often a commit is repeated whose fate is unknown; the driver has repeated each once already.
const COMMITS: u32 = 3;
/// The first pause before running it again; it doubles each time, and chance shortens it.
const PAUSE: Duration = Duration::from_millis(4);
const MAX_PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn run(plan: &Plan, call: &Call, env: &Env) -> Result<Vec<Outcome>, Failure> {
    let mut session = call.lease.client.start_session().await?;
    let mut attempt = 1;
    loop {
        match once(plan, call, &mut session).await {
            Err(failure) if failure.is_transient() && attempt < ATTEMPTS => {
                let pause = (PAUSE * 2_u32.pow(attempt)).min(MAX_PAUSE);
                let jitter = env.random.next_u64() % 1_000;
                env.clock.sleep(pause.mul_f64((jitter as f64 + 1.0) / 1_000.0)).await;
                attempt += 1;
            }
            settled => return settled,
        }
    }
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
            let told = plan.write(&mut Via::transaction(call, session), group, &members).await?;
            let failed = told.iter().any(|(_, outcome)| !outcome.is_applied());
            told.into_iter().for_each(|(index, outcome)| outcomes[index] = outcome);
            if failed {
                return Ok(outcomes);
            }
        }
    }
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
