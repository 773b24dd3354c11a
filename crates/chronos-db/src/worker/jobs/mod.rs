//! The jobs, a file each. A new one stands in the list here, and runs wherever a worker does.

mod analytics;
mod counters;
mod erasures;
mod flush;
mod leases;
mod messages;
mod orphans;
mod prune;
mod sweep;
mod trim;
mod ttl;

use std::sync::Arc;

use super::failures::Failures;
use super::job::{Job, JobOutcome, Subject, Target};
use crate::Chronos;
use crate::records::Collection;

/// All of them, in the order in which they run for one target.
pub(super) fn all(chronos: &Chronos, failures: &Arc<Failures>) -> Vec<Arc<dyn Job>> {
    vec![
        Arc::new(flush::Flush),
        Arc::new(orphans::Orphans),
        Arc::new(erasures::Erasures { chronos: chronos.clone() }),
        Arc::new(counters::Counters),
        Arc::new(analytics::Analytics { failures: Arc::clone(failures) }),
        Arc::new(trim::Trim),
        Arc::new(prune::Prune),
        Arc::new(sweep::Sweep),
        Arc::new(ttl::Ttl),
        Arc::new(messages::Messages),
        Arc::new(leases::Leases),
    ]
}

fn collection(target: &Target) -> Option<&Collection> {
    match &target.subject {
        Subject::Collection(collection) => Some(collection),
        Subject::Messaging(_) | Subject::Database => None,
    }
}
