//! Following the log: what a worker calls.

use super::counters::Counters;
use crate::Result;
use crate::action::Action;
use crate::lease::{LEASES, Lease};
use crate::projections::counters::answer::FollowProgress;
use crate::projections::counters::projection::CounterProjection;
use crate::projections::counters::session::Session;
use crate::projections::follower::follow;
use crate::telemetry::{LogPlace, Observed, Operation};

impl Counters {
    /// Counts what is settled and not counted yet, so that readers have less to add. Any number of processes
    /// may call it at any time: each row counts once. While one is at it the others leave it to that one.
    pub fn follow(&self) -> Follow {
        Follow { counters: self.clone() }
    }
}

/// Counts what is not counted yet; see [`Counters::follow`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Follow {
    counters: Counters,
}

impl Action for Follow {
    type Output = FollowProgress;

    fn observed(&self) -> Option<Observed> {
        Some(self.counters.collection.observed(Operation::Follow))
    }

    fn is_idle(followed: &FollowProgress) -> bool {
        followed.rows == 0 && followed.damaged_count == 0
    }

    async fn run(self) -> Result<FollowProgress> {
        let named = self.counters.named("follow counters");
        let work = async {
            let session = self.counters.upkeep().await?;
            let stable = session.log.stable().await?;
            let followed = leased(&session, stable).await?;
            let (owner, telemetry) = (&session.store.owner, &session.store.env.telemetry);
            let (database, collection) = (owner.database.as_str(), owner.collection.as_str());
            let log = LogPlace { connection: &session.connection, database, collection };
            telemetry.followed(log, "counters", stable, followed.cv);
            Ok(followed)
        };
        work.await.map_err(named)
    }
}

awaitable!(Follow);

async fn leased(session: &Session, stable: i64) -> Result<FollowProgress> {
    let stored = session.store.load().await?;
    let position = stored.as_ref().map_or(-1, |record| record.cv);
    let needs_care = stored.as_ref().is_some_and(|record| record.sweep_after.is_some());
    let lacks_rules = match &stored {
        Some(record) => session.rules.rules.iter().any(|rule| record.find(rule).is_none()),
        None => false,
    };
    if position >= stable && !needs_care && !lacks_rules {
        remove_old(session).await?;
        return Ok(FollowProgress { cv: position, ..FollowProgress::default() });
    }
    let store = &session.store;
    let (documents, namespace) = (store.documents.clone(), store.db.namespace(LEASES));
    let name = format!("counters|{}", store.owner.id);
    let Some(lease) = Lease::take(documents, namespace, &name, &store.env).await? else {
        return Ok(FollowProgress { cv: position, busy: true, ..FollowProgress::default() });
    };
    let done = run(session, stable, &lease).await;
    let given_back = lease.give_back().await;
    let followed = done?;
    given_back.map(|()| followed)
}

async fn run(session: &Session, stable: i64, lease: &Lease) -> Result<FollowProgress> {
    let projection = CounterProjection { session, periods: session.periods().await? };
    let progress = follow(&projection, &session.log, stable, Some(lease)).await?;
    sweep(session).await?;
    remove_old(session).await?;
    Ok(FollowProgress {
        cv: progress.position,
        rows: progress.rows,
        busy: progress.lost_lease,
        damaged_count: progress.damaged_count,
        damaged: progress.damaged,
    })
}

/// Removes what unfinished recounts and resets left.
async fn sweep(session: &Session) -> Result<()> {
    let Some(mut record) = session.store.load().await? else { return Ok(()) };
    let Some(due) = record.sweep_after else { return Ok(()) };
    if session.store.documents.now().await? < due {
        return Ok(());
    }
    session.store.sweep(None).await?;
    record.sweep_after = None;
    // Where another follower has moved the totals meanwhile, the next round does it.
    session.store.put(&record).await.map(drop)
}

async fn remove_old(session: &Session) -> Result<()> {
    let Some(record) = session.store.load().await? else { return Ok(()) };
    session.store.remove_void(record.generation).await?;
    for (period, oldest) in session.periods().await?.iter() {
        session.store.remove_old(record.generation, period, oldest).await?;
    }
    Ok(())
}
