//! Beginning anew.

use super::counters::Counters;
use crate::Result;
use crate::action::Action;
use crate::projections::counters::record::Record;
use crate::projections::counters::store::sweep_after;
use crate::telemetry::{Observed, Operation};

impl Counters {
    /// Everything is zero, and counted from now on: totals, values and periods. [`recount`](Self::recount)
    /// brings them back, as far as versions are kept.
    pub fn reset(&self) -> Reset {
        Reset { counters: self.clone() }
    }
}

/// Sets the counters to zero; see [`Counters::reset`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Reset {
    counters: Counters,
}

impl Action for Reset {
    type Output = ();

    fn observed(&self) -> Option<Observed> {
        Some(self.counters.collection.observed(Operation::Counters))
    }

    async fn run(self) -> Result<()> {
        let named = self.counters.named("reset counters");
        self.reset().await.map_err(named)
    }
}

awaitable!(Reset);

impl Reset {
    async fn reset(&self) -> Result<()> {
        let session = self.counters.session().await?;
        let store = &session.store;
        store.ensure().await?;
        let replaced = loop {
            // In this order: what others counted up to now is zero as well. Totals that are ahead of the log
            // all the same are of one that was replaced by an older one, and would not move until it is there.
            let stored = store.load_to_replace().await?;
            let now_at = session.log.settled().await?;
            let mut fresh = Record::blank(store.env.random.object_id(), now_at);
            fresh.adopt(&session.rules.rules);
            fresh.sweep_after = Some(sweep_after(store.documents.now().await?));
            if let Some(stored) = &stored {
                fresh = fresh.in_place_of(stored);
            }
            if store.put(&fresh).await?.is_some() {
                break stored.map(|stored| stored.generation);
            }
        };
        store.env.fail.hit("counters.before_sweep")?;
        store.sweep(replaced).await
    }
}
