//! Rules on their schedule: what a worker calls.

use std::sync::Arc;

use super::store::ResultStore;
use super::{cross_tenant, time_based};
use crate::config::{CrossTenant, TimeBased, Timeframe};
use crate::records::Collection;
use crate::{Chronos, Result, Timestamp};

/// Time-based rules run when the hour has changed, those across tenants when the day has.
const TIME_BASED_EVERY: Timeframe = Timeframe::Hourly;
const CROSS_TENANT_EVERY: Timeframe = Timeframe::Daily;

/// Whether a rule that ran then is due again. A clock that went back makes it due, which does no harm.
fn is_due(ran_at: Option<Timestamp>, now: Timestamp, every: Timeframe) -> bool {
    ran_at.is_none_or(|ran_at| every.start(ran_at) != every.start(now))
}

/// Runs a rule over a collection if it is due; how many results there are then.
pub(crate) async fn run_time_based(collection: &Collection, timed: &Arc<TimeBased>) -> Result<Option<u64>> {
    let store = time_based::results(collection, timed).await?;
    let ran_at = store.state().await?.and_then(|state| state.ran_at);
    if !is_due(ran_at, store.now().await?, TIME_BASED_EVERY) {
        return Ok(None);
    }
    time_based::run(collection, timed, None, &|_| {}).await.map(Some)
}

/// Runs a rule across tenants if it is due, and no other worker is running it.
pub(crate) async fn run_cross_tenant(chronos: &Chronos, cross: &Arc<CrossTenant>) -> Result<Option<u64>> {
    let store = cross_tenant::results(chronos, cross).await?;
    if !is_cross_tenant_due(&store).await? {
        return Ok(None);
    }
    let Some(lease) = store.lease().await? else { return Ok(None) };
    let run = async {
        // Another may just have run it.
        if !is_cross_tenant_due(&store).await? {
            return Ok(None);
        }
        cross_tenant::run(chronos, cross, None, &|_| {}).await.map(Some)
    };
    let ran = tokio::select! {
        biased;
        ran = run => ran,
        lost = lease.hold() => lost.map(|()| None),
    };
    let given_back = lease.give_back().await;
    let ran = ran?;
    given_back.map(|()| ran)
}

async fn is_cross_tenant_due(store: &ResultStore) -> Result<bool> {
    let ran_at = store.state().await?.and_then(|state| state.ran_at);
    Ok(is_due(ran_at, store.now().await?, CROSS_TENANT_EVERY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_due_when_the_hour_or_the_day_has_changed() {
        let at = |text: &str| Timestamp::parse(text).unwrap();
        let ran = Some(at("2024-03-15T17:59:59Z"));
        assert!(is_due(None, at("2024-03-15T17:59:59Z"), Timeframe::Hourly));
        assert!(!is_due(ran, at("2024-03-15T17:59:59.999Z"), Timeframe::Hourly));
        assert!(is_due(ran, at("2024-03-15T18:00:00Z"), Timeframe::Hourly));
        assert!(!is_due(ran, at("2024-03-15T23:59:00Z"), Timeframe::Daily));
        assert!(is_due(ran, at("2024-03-16T00:00:00Z"), Timeframe::Daily));
        assert!(is_due(ran, at("2024-03-14T12:00:00Z"), Timeframe::Daily), "the clock went back");
    }
}
