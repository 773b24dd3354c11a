//! Counting anew.

use super::counters::Counters;
use super::totals;
use crate::Result;
use crate::action::Action;
use crate::projections::counters::answer::Recounted;
use crate::projections::counters::recount;
use crate::telemetry::{Observed, Operation};

impl Counters {
    /// Counts everything anew from the versions that are kept, by the rules of this configuration, and puts
    /// it instead of what was counted. Readers see the old counts until then; writes go on.
    ///
    /// What is left of the versions of an erased item no longer says its values. Where others have a value too, what was
    /// counted of it stays, as long as those versions can account for it.
    pub fn recount(&self) -> Recount {
        Recount { counters: self.clone() }
    }
}

/// Counts anew; see [`Counters::recount`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Recount {
    counters: Counters,
}

impl Action for Recount {
    type Output = Recounted;

    fn observed(&self) -> Option<Observed> {
        Some(self.counters.collection.observed(Operation::Recount))
    }

    async fn run(self) -> Result<Recounted> {
        let named = self.counters.named("recount");
        let work = async {
            let session = self.counters.session().await?;
            let (corrected, damaged_count) = recount::run(&session).await?;
            Ok(Recounted { totals: totals::read(&session).await?, corrected, damaged_count })
        };
        work.await.map_err(named)
    }
}

awaitable!(Recount);
